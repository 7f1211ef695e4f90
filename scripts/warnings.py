"""`make warnings`: the C core, firmware and board support with every warning an error, on every machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgesnn.targets.board import list_boards
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS
from edgesnn.targets.toolchain import find_toolchain

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "runtime" / "c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-O2")
# firmware.c includes the header of a generated model; this one stands for it, with a stream and without.
MODEL = ROOT / "tests" / "board"
STREAM = ("-DTEST_STREAM", "-DESNN_LINK_STREAM")


def main() -> int:
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        obj = str(Path(folder) / "out.o")
        for target in TARGETS:
            tools = find_toolchain(target)
            sources = sorted(CORE.glob("*.c"))
            if target.kind == "host":
                sources = [s for s in sources if not s.name.startswith("firmware")]
                for source in sources:
                    tools.compile(str(source), obj, [*STRICT, "-I", str(CORE)], ROOT)
                    count += 1
                continue
            for board in list_boards():
                if not board.runs(target.name):
                    continue
                folders = [CORE, MODEL, *board.includes]
                include = [word for f in folders for word in ("-I", str(f))]
                every = [s for s in sources if s.name != "esnn_host.c"] + [*board.sources]
                flags = [*STRICT, *board.cflags, '-DBSP_BOARD="board"', *include]
                for source in every:
                    tools.compile(str(source), obj, flags, ROOT)
                    count += 1
                for name in ("esnn_link.c", "firmware.c"):
                    tools.compile(str(CORE / name), obj, [*flags, *STREAM], ROOT)
                    count += 1
    print(f"{count} compilations without a warning")
    return 0 if count else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
