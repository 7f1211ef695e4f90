"""The files of a run: what may be replaced, the state that --resume reads, leftovers of killed writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgesnn.checkpoint import load_checkpoint, read_archive, write_archive
from edgesnn.targets.errors import EdgesnnError, UsageError

STATE_FORMAT = "edgesnn-training"
STATE_VERSION = 2  # 1 lacks the options since 0.2 and the history


def check_replaceable(path: Path) -> None:
    """EdgesnnError if `path` exists and is not a checkpoint of ours."""
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; choose a file name for --out")
        if not path.exists():
            return
    except OSError as error:
        raise EdgesnnError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        load_checkpoint(path)
    except EdgesnnError:
        raise EdgesnnError(
            f"{path} exists and is not an edgesnn checkpoint; move it away or choose another --out"
        ) from None


def check_state(path: Path, resume: bool) -> None:
    """EdgesnnError if there is no state to resume, or one that a new run would overwrite."""
    if not path.exists():
        if resume:
            raise EdgesnnError(f"nothing to resume: {path} is not there; leave --resume out")
        return
    try:
        version = read_state(path)["version"]
    except EdgesnnError:
        raise EdgesnnError(
            f"{path} exists and is not a readable edgesnn training state; "
            "move it away or choose another --out"
        ) from None
    if not resume:
        raise UsageError(
            f"{path} is the state of an interrupted run: --resume goes on; delete it to start again"
        )
    if version != STATE_VERSION:
        raise EdgesnnError(f"{path} is of another edgesnn version; delete it to start again")


def read_state(path: Path) -> dict[str, Any]:
    """The table of an interrupted run; EdgesnnError if it is none."""
    return read_archive(path, STATE_FORMAT, STATE_VERSION, "training state")


def write_state(path: Path, table: dict[str, Any]) -> None:
    """Complete or not at all."""
    write_archive(path, {"format": STATE_FORMAT, "version": STATE_VERSION, **table})


def remove_leftovers(*paths: Path) -> None:
    """Temporary files that a killed process left while it wrote `paths` (named by runtime/files.py)."""
    for path in paths:
        name = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}")
        try:
            for left in path.parent.iterdir():
                if name.fullmatch(left.name) and left.is_file():
                    left.unlink(missing_ok=True)
        except OSError:
            continue  # a folder that cannot be read or does not exist is reported when it is written to
