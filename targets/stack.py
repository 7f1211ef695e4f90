"""Worst-case stack depth from what the compiler says about every function.

GCC writes the call graph with frame sizes (`-fcallgraph-info=su`): the depth is the longest path. Clang and zig
put frame sizes alone into a section (`-fstack-size-section`): without recursion no path can be deeper than
the sum of all frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError

# Frames of compiler support routines (integer division and the like) are not reported; the deepest of
# libgcc's and compiler-rt's take less than this.
LIBRARY_FRAME = 64

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_BYTES = re.compile(r"(\d+) bytes \((\w+(?:,\w+)?)\)")
_INDIRECT = "__indirect_call"


@dataclass(frozen=True)
class Stack:
    """bytes: the bound. path: the deepest calls as (function, bytes of its frame), empty where unknown."""

    bytes: int
    path: tuple[tuple[str, int], ...] = ()


def worst_case_stack(folder: Path, entries: Iterable[str], indirect: str) -> Stack:
    """What a call of any of `entries` can use. `indirect` is a pattern of the functions that are called
    through pointers. Raises EdgesnnError on recursion or on a frame of unknown size.
    """
    graphs = sorted(folder.glob("*.ci"))
    if not graphs:
        return Stack(_sum_of_frames(folder))
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for graph in graphs:
        text = graph.read_text()
        for name, label in _NODE.findall(text):
            size = _BYTES.search(label)
            if size:
                _bounded(name, size.group(2))
                # A weak function and what replaces it bear one name.
                frames[name] = max(frames.get(name, 0), int(size.group(1)))
        for source, target in _EDGE.findall(text):
            calls.setdefault(source, set()).add(target)
    pointed_to = {name for name in frames if re.search(indirect, name)}
    deepest: dict[str, Stack] = {}

    def below(name: str, above: tuple[str, ...]) -> Stack:
        if name in above:
            raise EdgesnnError(f"recursion through {name}: the stack has no bound")
        if name not in deepest:
            callees = calls.get(name, set())
            if _INDIRECT in callees:
                callees = (callees - {_INDIRECT}) | pointed_to
            own = frames.get(name, LIBRARY_FRAME)
            # Sorted, so that of equally deep paths always the same one is shown.
            under = [below(callee, (*above, name)) for callee in sorted(callees)]
            rest = max(under, key=lambda stack: stack.bytes, default=Stack(0))
            deepest[name] = Stack(own + rest.bytes, ((name, own), *rest.path))
        return deepest[name]

    found = [entry for entry in entries if entry in frames]
    if not found:
        raise EdgesnnError("the compiler's call graph holds none of the entry points")
    return max((below(entry, ()) for entry in found), key=lambda stack: stack.bytes)


def _sum_of_frames(folder: Path) -> int:
    objects = sorted(folder.glob("*.o"))
    if not objects:
        raise EdgesnnError("there are no objects to take frame sizes from")
    return LIBRARY_FRAME + sum(_frames(path) for path in objects)


def _frames(path: Path) -> int:
    """Sum over one object's functions: its .stack_sizes sections hold (address, ULEB128 size) pairs."""
    from elftools.elf.elffile import ELFFile

    total = 0
    with path.open("rb") as f:
        elf = ELFFile(f)
        sections = [s.data() for s in elf.iter_sections() if s.name == ".stack_sizes"]
        code = any(s.name.startswith(".text") and s["sh_size"] for s in elf.iter_sections())
        word = elf.elfclass // 8
    if code and not sections:
        raise EdgesnnError(f"{path.name} does not say how much stack its functions use")
    for data in sections:
        at = 0
        while at < len(data):
            at += word
            size = shift = 0
            while True:
                byte = data[at]
                at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            total += size
    return total


def _bounded(name: str, kind: str) -> None:
    if kind.startswith("dynamic") and "bounded" not in kind:
        raise EdgesnnError(f"{name} uses an unbounded amount of stack")
