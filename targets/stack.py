"""Worst-case stack depth from what the compiler says about every function.

GCC writes the call graph with frame sizes (`-fcallgraph-info=su`): the depth is the longest path. Clang and zig
put frame sizes alone into a section (`-fstack-size-section`): on Thumb and RISC-V the graph is read from the
objects (call_graph.py). Elsewhere, or where a path leads through something unknown: without recursion none can
be deeper than the sum of all frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesnn.targets.call_graph import INDIRECT, Graph, frame_sizes, read_graph
from edgesnn.targets.errors import EdgesnnError

# Frames of compiler support routines are not reported. The deepest of libgcc's and compiler-rt's take less than
# this: of 32-bit division 56, of 64-bit division 152 bytes, both compiler-rt's on a Cortex-M0.
LIBRARY_FRAME = 64
LONG_DIVISION_FRAME = 160
_LONG_DIVISION = re.compile(r"__(aeabi_u?ldivmod|u?(div|mod|divmod)di[34])")

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_BYTES = re.compile(r"(\d+) bytes \((\w+(?:,\w+)?)\)")


@dataclass(frozen=True)
class Stack:
    """bytes: the bound. path: the deepest calls as (function, bytes of its frame), empty where unknown."""

    bytes: int
    path: tuple[tuple[str, int], ...] = ()


def worst_case_stack(folder: Path, entries: Iterable[str], indirect: str) -> Stack:
    """What a call of any of `entries` can use. `indirect` is a pattern of the functions that are called
    through pointers. Raises EdgesnnError on recursion or on a frame of unknown size.
    """
    entries = tuple(entries)
    graphs = sorted(folder.glob("*.ci"))
    if graphs:
        return _deepest(_gcc_graph(graphs), entries, indirect)
    objects = sorted(folder.glob("*.o"))
    sum_of_frames = Stack(_sum_of_frames(objects))
    graph = read_graph(objects)
    if graph is None:
        return sum_of_frames
    _deepest(graph, entries, None)  # no recursion by plain calls
    for name, taken in graph.taken.items():  # an address that is taken may be called right there
        graph.calls.setdefault(name, set()).update(taken & (graph.frames.keys() | graph.unknown))
    try:
        return min(_deepest(graph, entries, indirect), sum_of_frames, key=lambda stack: stack.bytes)
    except EdgesnnError:  # something unknown, or what only looks like recursion: a table of jumps
        return sum_of_frames


def _gcc_graph(files: Iterable[Path]) -> Graph:
    graph = Graph()
    for file in files:
        text = file.read_text()
        for name, label in _NODE.findall(text):
            size = _BYTES.search(label)
            if size:
                _bounded(name, size.group(2))
                # A weak function and what replaces it bear one name.
                graph.frames[name] = max(graph.frames.get(name, 0), int(size.group(1)))
        for source, target in _EDGE.findall(text):
            graph.calls.setdefault(source, set()).add(target)
    return graph


def _deepest(graph: Graph, entries: Iterable[str], indirect: str | None) -> Stack:
    """The deepest path from any of `entries`. indirect: as above; None: plain calls alone, known or not."""
    pointed_to = {n for n in graph.frames if indirect is not None and re.search(indirect, n)}
    deepest: dict[str, Stack] = {}

    def below(name: str, above: tuple[str, ...]) -> Stack:
        if name in above:
            raise EdgesnnError(f"recursion through {name}: the stack has no bound")
        if name in graph.unknown and indirect is not None:
            raise EdgesnnError(f"{name} does not say how much stack it uses")
        if name not in deepest:
            callees = graph.calls.get(name, set())
            if INDIRECT in callees:
                callees = (callees - {INDIRECT}) | pointed_to
            own = graph.frames.get(name, _library_frame(name))
            # Sorted, so that of equally deep paths always the same one is shown.
            under = [below(callee, (*above, name)) for callee in sorted(callees)]
            rest = max(under, key=lambda stack: stack.bytes, default=Stack(0))
            deepest[name] = Stack(own + rest.bytes, ((name, own), *rest.path))
        return deepest[name]

    found = [entry for entry in entries if entry in graph.frames or entry in graph.unknown]
    if not found:
        raise EdgesnnError("the compiler's call graph holds none of the entry points")
    return max((below(entry, ()) for entry in found), key=lambda stack: stack.bytes)


def _library_frame(name: str) -> int:
    return LONG_DIVISION_FRAME if _LONG_DIVISION.fullmatch(name) else LIBRARY_FRAME


def _sum_of_frames(objects: Sequence[Path]) -> int:
    if not objects:
        raise EdgesnnError("there are no objects to take frame sizes from")
    return LONG_DIVISION_FRAME + sum(_frames(path) for path in objects)


def _frames(path: Path) -> int:
    """Sum over one object's functions."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as f:
        elf = ELFFile(f)
        sections = [s.data() for s in elf.iter_sections() if s.name == ".stack_sizes"]
        code = any(s.name.startswith(".text") and s["sh_size"] for s in elf.iter_sections())
        word = elf.elfclass // 8
    if code and not sections:
        raise EdgesnnError(f"{path.name} does not say how much stack its functions use")
    return sum(size for data in sections for size in frame_sizes(data, word))


def _bounded(name: str, kind: str) -> None:
    if kind.startswith("dynamic") and "bounded" not in kind:
        raise EdgesnnError(f"{name} uses an unbounded amount of stack")
