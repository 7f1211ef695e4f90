"""The call graph of object files, for compilers that write none (clang, zig).

With `-ffunction-sections` every function has a section of its own, so its calls are relocations; its frame is
in `.stack_sizes` (`-fstack-size-section`). Calls through registers and a function's calls of itself, which need
no relocation, are found by their encoding; a jump through a register counts as a call: the graph may have calls
too many, never too few.

ELF for the Arm Architecture; Armv7-M ARM, A7.7 (BL, BLX, BX); RISC-V psABI; RISC-V ISA manual (JAL, JALR, C).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

INDIRECT = "__indirect_call"  # what a call through a pointer is to

# Relocations of instructions that jump: R_ARM_THM_CALL, JUMP24, JUMP19, JUMP11, JUMP8; R_RISCV_BRANCH, JAL,
# CALL, CALL_PLT, RVC_BRANCH, RVC_JUMP. Any other one in code takes an address.
_JUMPS = {"EM_ARM": {10, 30, 51, 102, 103}, "EM_RISCV": {16, 17, 18, 19, 44, 45}}
_EXECUTED = 4  # SHF_EXECINSTR


@dataclass
class Graph:
    """By function: frames in bytes, the functions it calls, those whose address it takes.

    unknown: functions that do not say what they use. Names of local functions begin with "FILE:"; a weak
    function and what replaces it are one.
    """

    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)
    taken: dict[str, set[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


def read_graph(objects: Iterable[Path]) -> Graph | None:
    """The graph of all the objects together; None where one is for a processor other than Thumb and RISC-V."""
    from elftools.elf.elffile import ELFFile

    graph = Graph()
    for path in objects:
        with path.open("rb") as f:
            elf = ELFFile(f)
            if elf["e_machine"] not in _JUMPS or elf.elfclass != 32 or not elf.little_endian:
                return None
            _add(graph, path.name, elf)
    return graph


def _add(graph: Graph, file: str, elf: Any) -> None:
    sections = list(elf.iter_sections())
    code = {
        i: section
        for i, section in enumerate(sections)
        if section["sh_flags"] & _EXECUTED and section["sh_size"]
    }
    starts: dict[int, dict[int, str]] = {i: {} for i in code}  # by section, by address
    marks: dict[int, list[tuple[int, bool]]] = {i: [] for i in code}  # where code or data begins
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        at, local = symbol["st_shndx"], symbol["st_info"]["bind"] == "STB_LOCAL"
        kind = symbol["st_info"]["type"]
        if at in code and symbol.name[:2] in ("$t", "$d"):
            marks[at].append((symbol["st_value"], symbol.name[:2] == "$t"))
        if at in code and (kind == "STT_FUNC" or (kind == "STT_NOTYPE" and not local)):
            name = f"{file}:{symbol.name}" if local else symbol.name
            first = starts[at].setdefault(symbol["st_value"] & ~1, name)
            if name != first:  # another name of the same function
                graph.frames.setdefault(name, 0)
                graph.calls.setdefault(name, set()).add(first)
    names = {i: next(iter(found.values()), f"{file}:{i}") for i, found in starts.items()}
    alone = {i: found if len(found) == 1 else {} for i, found in starts.items()}
    sizes: dict[int, list[int]] = {}
    for section in sections:
        if section.name == ".stack_sizes":
            sizes.setdefault(section["sh_link"], []).extend(frame_sizes(section.data()))
    for i, name in names.items():
        if alone[i] and len(sizes.get(i, ())) == 1:
            graph.frames[name] = max(graph.frames.get(name, 0), *sizes[i])
        else:  # assembler, a frame that grows, several functions whose calls of each other nobody sees
            graph.unknown.update(starts[i].values() or [name])
    jumps = _JUMPS[elf["e_machine"]]
    relocated: dict[int, set[int]] = {}
    for table in sections:
        at = table["sh_info"]
        if table["sh_type"] not in ("SHT_REL", "SHT_RELA") or at not in code:
            continue
        symbols = elf.get_section(table["sh_link"])
        for entry in table.iter_relocations():
            symbol = symbols.get_symbol(entry["r_info_sym"])
            where, jump = symbol["st_shndx"], entry["r_info_type"] in jumps
            if jump:
                relocated.setdefault(at, set()).add(entry["r_offset"])
            if where == "SHN_UNDEF":
                target = symbol.name
            elif where != at and where in names:
                target = names[where]
            elif where == at and symbol["st_value"] & ~1 in alone[at]:
                target = names[at]
            else:  # data, or a place in the function itself
                continue
            (graph.calls if jump else graph.taken).setdefault(names[at], set()).add(target)
    find = _thumb_calls if elf["e_machine"] == "EM_ARM" else _riscv_calls
    for i, section in code.items():
        for target in find(_without_data(section.data(), marks[i]), relocated.get(i, set())):
            if target is None:
                graph.calls.setdefault(names[i], set()).add(INDIRECT)
            elif target in alone[i]:
                graph.calls.setdefault(names[i], set()).add(names[i])


def frame_sizes(data: bytes, word: int = 4) -> Iterator[int]:
    """The sizes in a section .stack_sizes: address of `word` bytes, then ULEB128, again and again."""
    at = 0
    while at < len(data):
        at += word
        size = shift = 0
        while True:
            byte = data[at]
            at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        yield size


def _without_data(code: bytes, marks: Iterable[tuple[int, bool]]) -> bytes:
    """A section with its data as 0, by the mapping symbols that begin each piece of it."""
    found = bytearray(code)
    ends = [*sorted(marks), (len(code), True)]
    for (start, is_code), (end, _) in pairwise(ends):
        if not is_code:
            found[start:end] = bytes(end - start)
    return bytes(found)


def _signed(value: int, bits: int) -> int:
    return value - (value >> (bits - 1) << bits)


def _thumb_calls(code: bytes, relocated: set[int]) -> Iterator[int | None]:
    """Where calls without relocation go, as offset; None: through a register."""
    at = after = 0
    while (at := after) < len(code) - 1:
        half, low = struct.unpack_from("<HH", code + b"\0\0", at)
        after = at + (4 if half >= 0xE800 else 2)
        if half & 0xFF07 == 0x4700 and half != 0x4770:  # BX, BLX register; not BX LR
            yield None
        elif half & 0xF800 == 0xF000 and low & 0xD000 == 0xD000 and at not in relocated:  # BL
            s, j1, j2 = half >> 10 & 1, low >> 13 & 1, low >> 11 & 1
            high = s << 24 | (1 ^ j1 ^ s) << 23 | (1 ^ j2 ^ s) << 22
            yield at + 4 + _signed(high | (half & 0x3FF) << 12 | (low & 0x7FF) << 1, 25)


def _riscv_calls(code: bytes, relocated: set[int]) -> Iterator[int | None]:
    """As _thumb_calls, where compilers put no data between instructions."""
    at = after = 0
    while (at := after) < len(code) - 1:
        word = int.from_bytes(code[at : at + 4], "little")
        half, after = word & 0xFFFF, at + (4 if word & 3 == 3 else 2)
        if half & 0xE07F == 0x8002 and half >> 7 & 31 and half != 0x8082:  # C.JR, C.JALR; not RET
            yield None
        elif word & 0x707F == 0x67 and word != 0x8067 and at - 4 not in relocated:  # JALR; not RET
            auipc = struct.unpack_from("<I", code, at - 4)[0] if at >= 4 else 0
            if auipc & 0x7F == 0x17 and auipc >> 7 & 31 == word >> 15 & 31:
                yield at - 4 + _signed(auipc & 0xFFFFF000, 32) + _signed(word >> 20, 12)
            else:
                yield None
        elif word & 0xFFF == 0xEF and at not in relocated:  # JAL ra
            imm = word >> 31 << 20 | (word >> 12 & 0xFF) << 12 | (word >> 20 & 1) << 11
            yield at + _signed(imm | (word >> 21 & 0x3FF) << 1, 21)
        elif half & 0xE003 == 0x2001 and at not in relocated:  # C.JAL
            fields = (
                (12, 11),
                (11, 4),
                (10, 9),
                (9, 8),
                (8, 10),
                (7, 6),
                (6, 7),
                (5, 3),
                (4, 2),
                (3, 1),
                (2, 5),
            )
            yield at + _signed(sum((half >> bit & 1) << to for bit, to in fields), 12)
