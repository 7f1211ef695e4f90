"""Writing results so that they appear complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError, UsageError


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename. Raises EdgesnnError.

    Devices and pipes are written to, and of a symbolic link what it points to: neither is replaced.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(data)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise EdgesnnError(f"cannot write {path}: {e.strerror or e}") from None


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def writable_folder(path: Path, marker: str, option: str = "--out") -> None:
    """Refuse an output folder that would overwrite anything but an older result, known by its `marker` file."""
    try:
        if path.resolve() == Path.cwd():
            raise UsageError(f"{path} is the current folder; choose another {option}")
        if path.is_dir():
            if any(path.iterdir()) and not (path / marker).is_file():
                raise UsageError(f"{path} holds other files; choose another {option} or empty it")
        elif path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists and is not a folder; choose another {option}")
    except OSError as e:
        raise EdgesnnError(f"cannot write {path}: {e.strerror or e}") from None


def check_replaceable(
    folder: Path, marker: str, form: str, what: str, option: str = "--out"
) -> None:
    """UsageError unless `folder` is new, empty, or an older result exactly as it was written.

    A file of somebody else's in it, or one edited by hand, would be lost. marker: the JSON file in it whose
    "files" gives the SHA-256 of each other file; form: that file's "format"; what: the result's name to
    people. option: that names the folder.
    """
    writable_folder(folder, marker, option)
    if not (folder / marker).is_file():
        return
    advice = f"choose another {option} or move it away"
    try:
        manifest = json.loads((folder / marker).read_text(encoding="utf-8"))
        files = dict(manifest["files"]) if manifest["format"] == form else {}
        for path in sorted(p for p in folder.rglob("*") if not p.is_dir()):
            name = path.relative_to(folder).as_posix()
            if name != marker and files.get(name) != sha256(path):
                changed = "was edited since"
                told = changed if name in files else f"is not part of the {what}"
                raise UsageError(f"{path} {told}; {advice}")
    except OSError as e:
        raise EdgesnnError(f"cannot read {folder}: {e.strerror or e}; {advice}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{folder / marker} is not the manifest of a {what}; {advice}") from None


def replace_folder(new: Path, path: Path) -> None:
    """Put the finished folder `new` at `path`; an older one there goes away only after that.

    Interrupted between the two renames, the older one is put back; if even that fails it stays beside `path`
    under a temporary name, and the message says which.
    """
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if not path.exists():
            os.rename(new, path)
            return
        os.rename(path, old)
    except OSError as e:
        raise EdgesnnError(f"cannot write {path}: {e.strerror or e}") from None
    try:
        os.rename(new, path)
    except BaseException as e:
        try:
            os.rename(old, path)
        except OSError:
            raise EdgesnnError(f"cannot write {path}; the older result is at {old}") from None
        if isinstance(e, OSError):
            raise EdgesnnError(f"cannot write {path}: {e.strerror or e}") from None
        raise
    shutil.rmtree(old, ignore_errors=True)
