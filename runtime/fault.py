"""What a board says of a processor that has stopped, in words."""

from __future__ import annotations

import struct
from pathlib import Path

_STACK_FAULTS = 0x0010_1010  # CFSR: STKOF, STKERR, MSTKERR
_NMI = 0x0100_0002  # XPSR: Thumb, exception 2. Nothing but a watchdog raises it


def _function_at(elf: Path | None, address: int) -> str | None:
    """The function of `elf` at an address; None without the file, its symbols or pyelftools."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError:
        return None
    if elf is None:
        return None
    try:
        with elf.open("rb") as f:
            table = ELFFile(f).get_section_by_name(".symtab")
            for symbol in table.iter_symbols() if table is not None else ():
                start = symbol["st_value"] & ~1  # bit 0: Thumb
                if (
                    symbol["st_info"]["type"] == "STT_FUNC"
                    and 0 <= address - start < symbol["st_size"]
                ):
                    return str(symbol.name)
    except (OSError, ELFError):
        pass
    return None


def describe_fault(payload: bytes, elf: Path | None) -> tuple[str, str]:
    """What has stopped a processor, "watchdog", "stack" or "crash", and in words where; elf names functions."""
    words = struct.unpack_from(f"<{len(payload) // 4}I", payload)
    names = ("pc", "lr", "xpsr", "cfsr", "sp")
    found = [_function_at(elf, word & ~1) for word in words[:2]]
    where = " ".join(
        f"{name}=0x{word:08x}" + (f" {function}" if function else "")
        for name, word, function in zip(names, words, [*found, None, None, None], strict=False)
    )
    place = f" in {found[0]}" if found and found[0] else ""
    if len(words) > 2 and words[2] & (_NMI | 0x1FF) == _NMI:
        return "watchdog", f"the firmware hangs{place} ({where})"
    if len(words) > 3 and words[3] & _STACK_FAULTS:
        return "stack", f"the firmware has outgrown its stack{place} ({where})"
    return "crash", f"the firmware has crashed{place} ({where})"
