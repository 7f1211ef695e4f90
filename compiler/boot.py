"""What a chip's boot ROM wants at the start of flash and no linker can write: put in after linking."""

from __future__ import annotations

from pathlib import Path

_POLYNOMIAL = 0x04C11DB7
_RP2040_BYTES = 252  # of code, then four of its CRC


def boot_crc(code: bytes) -> int:
    """CRC-32, highest bit first, from 0xFFFFFFFF, not inverted at its end (RP2040 datasheet 2.8.1.3.1)."""
    crc = 0xFFFFFFFF
    for byte in code:
        crc ^= byte << 24
        for _ in range(8):
            crc = crc << 1 ^ (_POLYNOMIAL if crc >> 31 else 0)
            crc &= 0xFFFFFFFF
    return crc


def finish_boot(elf: Path, boot: str | None) -> None:
    """Finish the section .boot of a linked image in place. boot: that of its board; only rp2040 has a CRC."""
    if boot != "rp2040":
        return
    from elftools.elf.elffile import ELFFile

    with elf.open("r+b") as f:
        at = ELFFile(f).get_section_by_name(".boot")["sh_offset"]
        f.seek(at)
        crc = boot_crc(f.read(_RP2040_BYTES))
        f.seek(at + _RP2040_BYTES)
        f.write(crc.to_bytes(4, "little"))
