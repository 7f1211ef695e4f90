"""Let another virtual environment see the packages of this one: one path line, read after its own."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path


def main() -> int:
    prefix = Path(sys.argv[1]).resolve()
    ours = sysconfig.get_path("purelib")
    theirs = prefix / Path(ours).relative_to(sys.prefix)
    (theirs / "borrowed.pth").write_text(f"{ours}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
