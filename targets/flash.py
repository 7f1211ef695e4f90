"""Getting firmware onto a board: the ways that its file names, tried in its order.

`pyocd` writes through a debug probe and reads back; `uf2` copies firmware.uf2 to the drive of a boot loader;
`volume` copies another file to the drive of a debugger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgesnn.targets.board import FLASHING, Board, Flashing
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.flash_probe import find_probe, write_probe
from edgesnn.targets.flash_volume import Progress, find_volume, write_volume
from edgesnn.targets.uf2 import read_uf2


@dataclass(frozen=True)
class Flashed:
    """What was done: one of FLASHING, where to in words, the file.

    serial: the USB serial number of the probe or debugger, which is that of its serial port too, where known.
    """

    method: str
    where: str
    file: Path
    serial: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the flash was read back and compared; a drive does not show what it has written."""
        return self.method == "pyocd"


@dataclass(frozen=True)
class Choice:
    """What a person has said: one of FLASHING, a drive's folder, a probe's id (or a part of it)."""

    method: str | None = None
    volume: str | None = None
    probe: str | None = None


ANY = Choice()


def check_flashable(board: Board, folder: Path, choice: Choice = ANY) -> tuple[str, ...]:
    """The methods to try, in order. An error where this board cannot be flashed, or not in that way."""
    for given in (choice.volume, choice.probe):
        if given is not None and not given.strip():
            raise UsageError(
                "--volume takes the folder of a drive, --probe a probe's id; it is empty"
            )
    if choice.method is not None and choice.method not in FLASHING:
        raise UsageError(
            f"there is no method {choice.method!r}; choose one of: {', '.join(FLASHING)}"
        )
    if board.emulator is not None:
        raise UsageError(
            f"{board.name} is emulated: there is nothing to flash; `edgesnn run {folder} --data ...` starts it"
        )
    if board.flashing is None:
        raise EdgesnnError(
            f"edgesnn cannot flash {board.name}: use the tool that comes with it and "
            f"{folder / 'firmware.hex'} (or .elf, or .bin at 0x{board.flash.origin:08x})"
        )
    known = board.flashing.methods
    methods = tuple(
        method
        for method in known
        if choice.method in (None, method)
        and not (choice.volume is not None and method == "pyocd")
        and not (choice.probe is not None and method != "pyocd")
    )
    if not methods:
        raise UsageError(
            f"{board.name} is flashed by {' or '.join(known)}; --method, --volume (of uf2, volume) and --probe "
            "(of pyocd) must fit that"
        )
    return methods


def check_size(board: Board, image_bytes: int, ram_bytes: int) -> None:
    """EdgesnnError where an image does not fit the board: bytes from the start of flash; RAM with the stack."""
    for region, needed, there in (
        ("flash", image_bytes, board.flash.length),
        ("ram", ram_bytes, board.ram.length),
    ):
        if needed > there:
            raise EdgesnnError(
                f"the image is too large by {needed - there:,} bytes in {region}: it takes {needed:,} of the "
                f"{there:,} of {board.name}; take a smaller model, or `edgesnn compile --prefer ram`"
            )


def flash(
    board: Board,
    folder: Path,
    choice: Choice = ANY,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> Flashed:
    """Write the firmware in `folder` (firmware.hex, .bin, .uf2) to the board by the first way that is ready.

    say is told what is done. UsageError and EdgesnnError are one line, with what to do.
    """
    methods = check_flashable(board, folder, choice)
    ways: list[str] = []
    for method in methods:
        file = _file(board.flashing, folder, method)
        try:
            way = _ready(board, file, method, choice, say)
        except UsageError:
            raise
        except EdgesnnError as e:
            ways.append(str(e))
            continue
        say(f"writing {file.name} to {way.where}")
        way.write(progress)
        return Flashed(method, way.where, file, way.serial)
    if len(ways) == 1:
        raise EdgesnnError(ways[0])
    raise EdgesnnError(f"{board.name} is not there: {'; or: '.join(ways)}")


@dataclass(frozen=True)
class _Way:
    """Something that is plugged in and takes firmware."""

    where: str
    write: Callable[[Progress], None]
    serial: str | None


def _ready(
    board: Board, file: Path, method: str, choice: Choice, say: Callable[[str], None]
) -> _Way:
    """What takes the file by this method; EdgesnnError where nothing is plugged in."""
    about = board.flashing
    assert about is not None
    if method == "pyocd":
        hands = about.how if set(about.methods) == {"pyocd"} else None
        probe = find_probe(choice.probe, hands)
        name = f"{probe.description} {probe.unique_id}"
        return _Way(name, partial(write_probe, board, probe, file, say=say), probe.unique_id)
    uf2 = file.suffix == ".uf2"
    volume = find_volume(about.volume, choice.volume, uf2=uf2, how=about.how, ids=about.volume_ids)
    if choice.volume is not None and not (uf2 or about.volume_ids):
        say(f"nothing on {volume.path} says whether it is the drive of {board.name}")
    write = partial(write_volume, volume, file, uf2=uf2, say=say)
    return _Way(str(volume.path), write, volume.about.get("unique id"))


def _file(about: Flashing | None, folder: Path, method: str) -> Path:
    """The file of the bundle that this method writes; EdgesnnError where it is not there or not sound."""
    assert about is not None
    kind = {"pyocd": "hex", "uf2": "uf2", "volume": about.volume_file}[method]
    file = folder / f"firmware.{kind}"
    if not file.is_file():
        raise UsageError(f"{folder} holds no {file.name}; compile it again with this board's file")
    if kind == "uf2":
        family = read_uf2(file.read_bytes()).family
        if family != about.uf2_family:
            raise UsageError(
                f"{file} is for another family of chips; compile it again for this board"
            )
    return file
