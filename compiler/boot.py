"""How a linked image starts: that it does, and as the chip's boot ROM wants it; what no linker can write."""

from __future__ import annotations

import struct
from pathlib import Path

from edgesnn.targets.board import Board
from edgesnn.targets.errors import EdgesnnError

_POLYNOMIAL = 0x04C11DB7
_BOOT_BYTES = 256  # then come the vectors
_RP2040_BYTES = 252  # of code, then four of its CRC
_RP2350_START = 0xFFFFDED3


def boot_crc(code: bytes) -> int:
    """CRC-32, highest bit first, from 0xFFFFFFFF, not inverted at its end (RP2040 datasheet 2.8.1.3.1)."""
    crc = 0xFFFFFFFF
    for byte in code:
        crc ^= byte << 24
        for _ in range(8):
            crc = crc << 1 ^ (_POLYNOMIAL if crc >> 31 else 0)
            crc &= 0xFFFFFFFF
    return crc


def _boot_kind(data: bytes) -> str | None:
    """Whose boot ROM .boot is for: RP2350's holds a certain word, RP2040's is code of a fixed length."""
    if not data:
        return None
    if struct.pack("<I", _RP2350_START) in data and len(data) <= _BOOT_BYTES:
        return "rp2350"
    return "rp2040" if len(data) == _BOOT_BYTES else "neither chip's"


def finish_boot(elf: Path, board: Board) -> None:
    """Check how a linked image starts and put the CRC into an RP2040's section .boot, in place.

    EdgesnnError where nothing gives vectors or the reset code, or .boot is not what the board's [boot] says.
    """
    from elftools.elf.elffile import ELFFile

    with elf.open("r+b") as f:
        file = ELFFile(f)
        vectors = file.get_section_by_name(".vectors")
        symbols = file.get_section_by_name(".symtab")
        named = symbols.get_symbol_by_name("bsp_reset") if symbols is not None else None
        reset = [symbol for symbol in named or () if symbol["st_shndx"] != "SHN_UNDEF"]
        if not reset or vectors is None or not vectors["sh_size"]:
            missing = "section .vectors" if reset else "bsp_reset"
            raise EdgesnnError(
                f"{board.path}: sources: none has {missing}; add cortex_m/startup.c or riscv/startup.c"
            )
        section = file.get_section_by_name(".boot")
        data = b"" if section is None else section.data()
        found = _boot_kind(data)
        if found != board.boot:
            raise EdgesnnError(
                f"{board.path}: boot.kind: is {_named(board.boot)}, the sources' section .boot is "
                f"{_named(found)}; the two must agree"
            )
        if found == "rp2040":
            assert section is not None
            f.seek(section["sh_offset"] + _RP2040_BYTES)
            f.write(struct.pack("<I", boot_crc(data[:_RP2040_BYTES])))


def _named(kind: str | None) -> str:
    return kind or "not there"
