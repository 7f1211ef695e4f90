"""The memory plan: every byte a model needs at run time, in one static arena, known before anything runs.

Membranes, an encoder's spikes of all steps and counters live as long as an inference. A spike map or queue
lives from the node that fills it to its last reader in the step, scratch only within its node, and the frame
until the last encoder has read it in the first step; buffers whose lives do not overlap share memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds
from edgesnn.compiler.choose import Choice
from edgesnn.compiler.layout import SpikeMap, gather_layout, padded, scatter_conv
from edgesnn.compiler.styles import MVE
from edgesnn.targets.errors import EdgesnnError

_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4}
_ALIGN = 8
MAX_ARENA = 2**31 - 1
MAX_SOPS = 2**31 - 1  # the engines count synaptic operations of an inference in 32 bits


@dataclass(frozen=True)
class Buffer:
    """`count` elements of `dtype`, needed from node `first` to node `last` (inclusive) of every step."""

    name: str
    dtype: str
    count: int
    first: int
    last: int
    offset: int = 0

    @property
    def bytes(self) -> int:
        return -(-self.count * _BYTES[self.dtype] // _ALIGN) * _ALIGN


@dataclass(frozen=True)
class Plan:
    """Buffers by name ("conv1.u", "conv1.queue", ...) and the arena they fit into."""

    buffers: dict[str, Buffer]
    arena_bytes: int

    def offset(self, name: str) -> int:
        return self.buffers[name].offset


def strip_elements(p: ir.Projection, source: ir.Shape, rows: int, lanes: int = 1) -> int:
    """Sums in an encoder's strip of `rows` rows with their margins."""
    layout = scatter_conv(p, source, lanes)
    columns, _ = layout.strip
    return rows * columns * layout.target[2]


def spike_map(bounds: Bounds, name: str) -> SpikeMap | None:
    """The spike map of a node; None where it has a queue, or emits nothing."""
    b = bounds.nodes[name]
    return SpikeMap(b.shape) if b.capacity and b.multiplicity == 1 else None


def plan_memory(program: ir.Program, bounds: Bounds, choice: Choice) -> Plan:
    """Place every buffer. Raises EdgesnnError if the model does not fit the engines' 32-bit counters."""
    if bounds.sops_per_inference > MAX_SOPS:
        raise EdgesnnError(
            f"{program.name}: {bounds.sops_per_inference:,} synaptic operations at worst, more than the "
            "engines can count; use a smaller network"
        )
    order = {node.name: i for i, node in enumerate(program.nodes)}
    end = len(program.nodes) - 1
    last_reader = {node.name: order[node.name] for node in program.nodes}
    for node in program.nodes:
        for source in ir.sources(node):
            last_reader[source] = max(last_reader[source], order[node.name])
    wanted = [
        Buffer("stats", "uint32", 2 * len(program.nodes), 0, end),
        Buffer("counts", "uint32", len(program.nodes), 0, end),
    ]
    shapes = ir.shapes(program)
    for i, node in enumerate(program.nodes):
        b = bounds.nodes[node.name]
        name = node.name
        spikes_end, steps = last_reader[name], 1
        if isinstance(node, ir.SampleInput):
            lazy = any(  # its micro-kernels read the frame again in the second step
                isinstance(n, ir.LatencyEncoder) and choice[n.name].micro for n in program.nodes
            )
            until = end if lazy and program.timesteps > 1 else last_reader[name]
            wanted.append(Buffer(f"{name}.frame", node.dtype, ir.size(node.shape), 0, until))
        elif isinstance(node, ir.EventInput):
            spikes_end = end  # filled between steps
        elif isinstance(node, ir.LatencyEncoder):
            source = shapes[node.projection.source]
            if choice[name] is MVE:
                room = gather_layout(node.projection, source).scratch(node.pool)
                wanted.append(Buffer(f"{name}.strip", "uint8", room, i, i))
            else:
                lanes, sums = (4, "int32") if choice[name].micro else (1, str(b.sums))
                strip = strip_elements(node.projection, source, node.pool[0], lanes)
                wanted.append(Buffer(f"{name}.strip", sums, strip, i, i))
            wanted.append(Buffer(f"{name}.steps", "int32", program.timesteps, 0, end))
            spikes_end, steps = end, program.timesteps
        elif isinstance(node, ir.CurrentEncoder):
            strip = strip_elements(node.projection, shapes[node.projection.source], 1)
            wanted.append(Buffer(f"{name}.strip", str(b.sums), strip, i, i))
            wanted.append(Buffer(f"{name}.current", str(b.sums), b.neurons, 0, end))
            wanted.append(Buffer(f"{name}.u", str(b.width), b.neurons, 0, end))
        elif isinstance(node, ir.Population):
            stored = b.shape[0] * b.shape[1] * padded(b.shape[2], choice[name].lanes)
            wanted.append(Buffer(f"{name}.u", str(b.width), stored, 0, end))
        spikes = spike_map(bounds, name)
        if spikes is not None:
            first = 0 if steps > 1 or isinstance(node, ir.EventInput) else i
            size = spikes.plane * steps
            wanted.append(Buffer(f"{name}.spikes", "uint8", size, first, spikes_end))
            if isinstance(node, ir.Amos):
                wanted.append(Buffer(f"{name}.fired", "uint8", spikes.plane, 0, end))
        elif b.capacity:
            wanted.append(Buffer(f"{name}.queue", bounds.event_dtype, b.capacity, i, spikes_end))
    return _place(wanted)


def _place(wanted: list[Buffer]) -> Plan:
    """First fit, largest first: each buffer at the lowest offset free over its whole life."""
    placed: list[Buffer] = []
    for buffer in sorted(wanted, key=lambda b: (-b.bytes, b.first, b.name)):
        offset = 0
        rivals = [p for p in placed if p.first <= buffer.last and buffer.first <= p.last]
        for rival in sorted(rivals, key=lambda p: p.offset):
            if offset + buffer.bytes <= rival.offset:
                break
            offset = max(offset, rival.offset + rival.bytes)
        placed.append(
            Buffer(buffer.name, buffer.dtype, buffer.count, buffer.first, buffer.last, offset)
        )
    arena = max(p.offset + p.bytes for p in placed)
    if arena > MAX_ARENA:
        raise EdgesnnError(
            f"the network needs {arena:,} bytes of memory; the engines address 2 GiB"
        )
    return Plan({p.name: p for p in sorted(placed, key=lambda p: (p.offset, p.name))}, arena)
