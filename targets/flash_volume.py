"""Flashing by copying a file to the drive that a board, or the debugger on it, appears as."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError, UsageError

MOUNTS = Path("/proc/mounts")
LABELS = Path("/dev/disk/by-label")
VOLUMES = Path("/Volumes")  # macOS mounts every drive there, under its label
INFO_UF2, DETAILS, FAIL = "INFO_UF2.TXT", "DETAILS.TXT", "FAIL.TXT"
_CHUNK = 1 << 14
_LOOK = 0.1  # seconds between looks at the drive
_NOTHING = "nothing was written"

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Volume:
    """A drive. device: what is mounted at `path`, where known. about: keys and values of its text file."""

    path: Path
    device: Path | None
    about: dict[str, str]

    @property
    def board_id(self) -> str | None:
        """What the drive says of the board: Board-ID of a boot loader, Unique ID of a debugger."""
        return self.about.get("board-id") or self.about.get("unique id")

    def gone(self) -> bool:
        """Whether the drive has been taken away since it was found."""
        if self.device is not None and not self.device.exists():
            return True
        try:
            if not self.about:
                return not self.path.is_dir()
            return not any((self.path / name).exists() for name in (INFO_UF2, DETAILS))
        except OSError:
            return True


def find_volume(
    label: str | None, path: str | None, *, uf2: bool, how: str | None, ids: tuple[str, ...] = ()
) -> Volume:
    """The drive of this label, or the one at `path`.

    uf2: it must be a boot loader's, which has INFO_UF2.TXT (without a label: the only drive that has one).
    how: what a person does to make it appear. ids: what `Volume.board_id`, which must be there, begins with;
    none: anything.
    EdgesnnError where there is no such drive or it is another board's; UsageError where there are several.
    """
    do = f"; {how}" if how else "; plug the board in"
    if path is not None:
        if not os.path.isdir(path):
            raise UsageError(
                f"there is no drive at {path}; give --volume the folder it is mounted at"
            )
        found = [_volume(Path(path))]
    else:
        found = [_volume(place) for place in _places(label, uf2)]
    if not found:
        _check_unmounted(label)
        what = f"no drive {label} found" if label else f"no drive with {INFO_UF2} found"
        raise EdgesnnError(f"{what}{do}, or give --volume PATH")
    fitting = [volume for volume in found if _fits(volume, ids)]
    if len(fitting) > 1:
        places = ", ".join(str(volume.path) for volume in fitting)
        raise UsageError(f"several drives fit: {places}; choose one with --volume PATH")
    volume = (fitting or found)[0]
    if uf2 and "board-id" not in volume.about:
        raise EdgesnnError(
            f"{volume.path} has no {INFO_UF2}, so it is not a board in its boot loader{do}"
        )
    if volume.about.get("daplink mode", "").lower() == "bootloader":
        raise EdgesnnError(
            f"{volume.path} is the debugger's own boot loader (MAINTENANCE); unplug the board and plug it in "
            "without holding its reset button"
        )
    if not fitting and volume.board_id is None:
        raise EdgesnnError(
            f"{volume.path} has no {DETAILS} with a Unique ID, so it is not the board's drive{do}"
        )
    if not fitting:
        model = volume.about.get("model")
        what = f"{volume.board_id} ({model})" if model else f"{volume.board_id}"
        raise EdgesnnError(
            f"{volume.path} is another board's drive: it says {what}, the board's begins with "
            f"{' or '.join(ids)}; name the right --board when compiling, or plug in the other one"
        )
    return volume


def write_volume(
    volume: Volume,
    file: Path,
    progress: Progress = lambda _: None,
    *,
    uf2: bool,
    say: Callable[[str], None] = lambda _: None,
    leaves: float = 20.0,
    reports: float = 8.0,
) -> None:
    """Copy a firmware file to the drive and wait for what the board makes of it.

    A UF2 boot loader's drive vanishes with the last block, within `leaves` seconds. A debugger's may vanish
    and come back, within `reports` seconds, with FAIL.TXT where it could not write the file: EdgesnnError
    has its text. say is told that this is waited for.
    """
    data = file.read_bytes()
    fail = volume.path / FAIL
    before = _stamp(fail)
    target = volume.path / file.name
    opened, sent = False, 0
    try:
        try:
            with target.open("wb", buffering=0) as f:
                opened = True
                while sent < len(data):
                    sent += f.write(data[sent : sent + _CHUNK])
                    progress(sent / len(data))
                say("waiting for the board to take it")
                os.fsync(f.fileno())
        except (OSError, KeyboardInterrupt) as e:
            # A boot loader takes its drive away as soon as it has the last block, often before fsync returns.
            left = isinstance(e, OSError) and sent == len(data) and _within(leaves, volume.gone)
            if not left:
                if opened:
                    with contextlib.suppress(OSError):
                        target.unlink()
                if isinstance(e, KeyboardInterrupt):
                    raise
                raise _failed_copy(volume, target, e, sent) from None
        if not uf2:
            _read_report(volume, fail, before, reports)
        elif not _within(leaves, volume.gone):
            raise EdgesnnError(
                f"{volume.path} is still there {leaves:g} s after the copy, so the board has not taken the "
                "file; unplug it, let it appear as a drive again and flash again"
            )
    except KeyboardInterrupt:
        raise EdgesnnError(f"interrupted: {_state(sent)}") from None


def _read_report(volume: Volume, fail: Path, before: object, seconds: float) -> None:
    """Wait for the debugger to come back, or for FAIL.TXT; EdgesnnError with what that says."""
    left = False
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if volume.gone():
            left = True
        else:
            now = _stamp(fail)
            if now is not None and (left or now != before):
                text = " ".join(fail.read_text(encoding="utf-8", errors="replace").split())
                raise EdgesnnError(
                    f"the board's debugger could not write the firmware ({text}); the board may now hold no "
                    "whole firmware: unplug it, plug it in and flash it again"
                )
            if left:
                return
        time.sleep(_LOOK)


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK)
    return True


def _stamp(file: Path) -> object:
    """What changes when a file is written again; None where it is not there."""
    try:
        state = file.stat()
    except OSError:
        return None
    return (state.st_mtime_ns, state.st_size)


def _state(sent: int) -> str:
    """What the board holds after so many bytes of a file that did not arrive whole."""
    return "the board may now hold no whole firmware; flash it again" if sent else _NOTHING


def _failed_copy(volume: Volume, target: Path, error: OSError, sent: int) -> EdgesnnError:
    if not sent and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = "is read-only" if error.errno == errno.EROFS else "belongs to another user"
        return EdgesnnError(
            f"no permission to write to {volume.path}: it {why}; unmount it and mount it as yourself "
            "(`udisksctl mount -b DEVICE`)"
        )
    if error.errno == errno.ENOSPC:
        return EdgesnnError(
            f"{target.name} does not fit on {volume.path}, is it the board's drive?: {_state(sent)}"
        )
    return EdgesnnError(
        f"copying to {volume.path} failed ({error.strerror or error}), plug it in again: {_state(sent)}"
    )


def _fits(volume: Volume, ids: tuple[str, ...]) -> bool:
    name = volume.board_id
    return not ids or (name or "").lower().startswith(tuple(i.lower() for i in ids))


def _volume(path: Path) -> Volume:
    about: dict[str, str] = {}
    for name in (INFO_UF2, DETAILS):
        with contextlib.suppress(OSError):
            for line in (path / name).read_text(encoding="utf-8", errors="replace").splitlines():
                key, colon, value = line.partition(":")
                if colon and not line.startswith("#"):
                    about.setdefault(key.strip().lower(), value.strip())
    device = next((Path(d) for d, place, _ in _mounted() if place == path.resolve()), None)
    return Volume(path, device if device and device.is_absolute() else None, about)


def _places(label: str | None, uf2: bool) -> list[Path]:
    """Where drives of this label are mounted; without one, FAT drives that have INFO_UF2.TXT."""
    if sys.platform == "darwin":
        mounted = [("", place, "msdos") for place in VOLUMES.glob("*")]
    else:
        mounted = _mounted()
    if label is None:
        fat = [place for _, place, kind in mounted if kind in ("vfat", "msdos")]
        return [place for place in fat if uf2 and (place / INFO_UF2).is_file()]
    # Of two drives of one label udev names one only; the second one's folder gets a digit.
    devices, name = _labelled(label), re.compile(re.escape(label) + r"\d*")
    return [place for d, place, _ in mounted if Path(d) in devices or name.fullmatch(place.name)]


def _mounted() -> list[tuple[str, Path, str]]:
    """(device, folder, file system) of everything that Linux has mounted."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [(_plain(row[0]), Path(_plain(row[1])), row[2]) for row in rows if len(row) > 2]


def _plain(text: str) -> str:
    r"""A field of /proc/mounts: a space stands there as \040."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


def _labelled(label: str) -> set[Path]:
    """Devices whose file system has this label; udev writes a space in it as \\x20."""
    found: set[Path] = set()
    with contextlib.suppress(OSError):
        for link in LABELS.iterdir():
            name = re.sub(r"\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), link.name)
            if name == label:
                found |= {link.resolve(), link}
    return found


def _check_unmounted(label: str | None) -> None:
    """EdgesnnError where the drive is plugged in and only has to be mounted."""
    devices = sorted(d for d in (_labelled(label) if label else ()) if d.parent != LABELS)
    if devices:
        raise EdgesnnError(
            f"drive {label} is plugged in, but not mounted; open it in the file manager, or run "
            f"`udisksctl mount -b {devices[0]}`"
        )
