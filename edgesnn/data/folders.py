"""Whether a result can be written, asked before the work for it is done."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError


def check_writable(path: Path) -> None:
    """EdgesnnError unless a file can be made at `path`; missing folders count as can be made.

    A temporary file is made and removed where the first missing part would be.
    """
    try:
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=folder):
            pass
    except OSError as error:
        raise EdgesnnError(f"cannot write {path}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in the name
        raise EdgesnnError(f"cannot write {path!r}: {error}") from None
