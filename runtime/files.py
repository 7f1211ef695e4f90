"""Writing results so that they appear complete or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename. Raises EdgesnnError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(data)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise EdgesnnError(f"cannot write {path}: {e.strerror or e}") from None


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
