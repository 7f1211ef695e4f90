"""Writing results so that they appear complete or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError, UsageError


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


def writable_folder(path: Path, marker: str) -> None:
    """Refuse an output folder that would overwrite anything but an older result, known by its `marker` file."""
    if path.is_dir():
        if any(path.iterdir()) and not (path / marker).is_file():
            raise UsageError(f"{path} holds other files; choose another --out or empty it")
    elif path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists and is not a folder; choose another --out")


def replace_folder(new: Path, path: Path) -> None:
    """Put the finished folder `new` at `path`; an older one there goes away only after that."""
    try:
        if not path.exists():
            os.rename(new, path)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
        os.rename(path, old / "old")
        try:
            os.rename(new, path)
        except OSError:
            os.rename(old / "old", path)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        raise EdgesnnError(f"cannot write {path}: {e.strerror or e}") from None
