"""Whether a firmware fits its board: exact needs, from a trial link; refused before the link that counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgesnn.targets.board import Board, Region
from edgesnn.targets.errors import EdgesnnError

_ROOM = 2**30  # of either region in the trial link
_PAGE = 4096
SMALLEST_STACK = 1024  # that a board file may reserve


@dataclass(frozen=True)
class Need:
    """What goes into a region, in bytes. least: it is at least so much, the rest is not known yet."""

    region: str
    bytes: int
    room: int
    least: bool = False


@dataclass(frozen=True)
class Saving:
    """What a user can do about a region, and the bytes that it frees there."""

    region: str
    how: str
    bytes: int


def roomy(board: Board) -> Board:
    """The board with a gigabyte of flash and of RAM, for the trial link.

    Only RAM moves, so that the two never meet; no instruction grows or shrinks with its address.
    """
    flash, ram = board.flash, board.ram
    origin = (flash.origin + _ROOM) % 2**32 // _PAGE * _PAGE + ram.origin % _PAGE
    room = _ROOM - _PAGE
    return replace(board, flash=Region(flash.origin, room), ram=Region(origin, room))


def measure(elf: Path, trial: Board, board: Board) -> list[Need]:
    """What a firmware linked for `trial`, the roomy board, needs of the board's flash and RAM.

    Flash: up to the last byte that is loaded. RAM: all of it, with guard and stack.
    """
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    with elf.open("rb") as f:
        image = ELFFile(f)
        loaded = [
            s["p_paddr"] + s["p_filesz"] - trial.flash.origin
            for s in image.iter_segments("PT_LOAD")
            if s["p_filesz"]
        ]
        placed = [
            s["sh_addr"] + s["sh_size"] - trial.ram.origin
            for s in image.iter_sections()
            if s["sh_flags"] & SH_FLAGS.SHF_ALLOC and s["sh_addr"] >= trial.ram.origin
        ]
    return [
        Need("flash", max(loaded, default=0), board.flash.length),
        Need("ram", max(placed, default=0), board.ram.length),
    ]


def check_fit(model: str, board: Board, needs: Sequence[Need], savings: Sequence[Saving]) -> None:
    """EdgesnnError, one line, with every region that overflows, by how much, and what helps.

    Where the savings are not enough, not for every region, they help only together with a smaller network.
    """
    over = [need for need in needs if need.bytes > need.room]
    if not over:
        return
    told = "; ".join(
        f"{n.region} needs {'at least ' if n.least else ''}{n.bytes:,} bytes, {n.bytes - n.room:,} more than "
        f"its {n.room:,}"
        for n in over
    )
    regions = {n.region for n in over}
    useful = [s for s in savings if s.bytes > 0 and s.region in regions]
    enough = all(
        n.bytes - n.room <= sum(s.bytes for s in useful if s.region == n.region) for n in over
    )
    helps = ", ".join(f"{s.how} ({s.bytes:,} bytes of {s.region} less)" for s in useful)
    advice = (
        f"{helps} {'or' if enough else 'and'} a smaller network" if helps else "a smaller network"
    )
    raise EdgesnnError(f"{model} does not fit board {board.name}: {told}; try {advice}")
