"""The memory plan: every byte a model needs at run time, in one static arena, known before anything runs.

With n nodes there are 2 n moments: node i in the first step is moment i, in every later step moment n + i. The
frame and an encoder's scratch are needed until all its spikes are known; membranes begin with their node in the
first step and stay; a spike map or queue lives from the node that fills it to its last reader, in every step
anew. Buffers whose lives do not overlap share memory. A stream of events always has later steps, and no first
one to go back to: nothing of it is layered.

A *layered* population keeps no membranes from step to step: in step t it takes a few rows at a time through the
steps 1...t, from the spikes of its sources, which are kept for it. `prefer="ram"` layers what makes the arena
smaller, and has encoders do all steps in the first one where that does; "speed" neither (decision 0014).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, NodeBounds
from edgesnn.compiler.choose import Choice
from edgesnn.compiler.layout import SpikeMap, gather_layout, padded, scatter_conv
from edgesnn.compiler.styles import MVE
from edgesnn.targets.errors import EdgesnnError

_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4}
_ALIGN = 8
MAX_ARENA = 2**31 - 1
MAX_SOPS = 2**31 - 1  # the engines count synaptic operations of an inference in 32 bits
PREFERENCES = ("speed", "ram")

Lives = tuple[tuple[int, int], ...]  # first and last moment, inclusive
# Rows at a time, of layered populations and of encoders that do all steps in the first one.
Bands = dict[str, int]


@dataclass(frozen=True)
class Buffer:
    """`count` elements of `dtype`, needed in the moments of `lives`."""

    name: str
    dtype: str
    count: int
    lives: Lives
    offset: int = 0

    @property
    def bytes(self) -> int:
        return -(-self.count * _BYTES[self.dtype] // _ALIGN) * _ALIGN

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed in some moment."""
        return any(a <= d and c <= b for a, b in self.lives for c, d in other.lives)


@dataclass(frozen=True)
class Plan:
    """Buffers by name ("conv1.u", "conv1.queue", ...) and the arena they fit into.

    planes: of nodes whose spikes are kept for more than their step, how many maps lie one after the other: of
    all steps or, of signed spikes that are read late, as many as it takes, used in turn.
    """

    buffers: dict[str, Buffer]
    arena_bytes: int
    bands: Bands = field(default_factory=dict)
    planes: dict[str, int] = field(default_factory=dict)

    def offset(self, name: str) -> int:
        return self.buffers[name].offset


def strip_elements(p: ir.Projection, source: ir.Shape, rows: int, lanes: int = 1) -> int:
    """Sums in an encoder's strip of `rows` rows with their margins."""
    layout = scatter_conv(p, source, lanes)
    columns, _ = layout.strip
    return rows * columns * layout.target[2]


def spike_map(bounds: Bounds, name: str) -> SpikeMap | None:
    """The spike map of a node, of signed spikes with the negative ones below.

    None where it has a queue, or emits nothing.
    """
    b = bounds.nodes[name]
    if not b.capacity or b.multiplicity != 1:
        return None
    h, w, c = b.shape
    return SpikeMap((2 * h, w, c) if b.signed else b.shape)


def plan_memory(program: ir.Program, bounds: Bounds, choice: Choice, prefer: str = "speed") -> Plan:
    """Place every buffer. Raises EdgesnnError if the model does not fit the engines' 32-bit counters."""
    if bounds.sops_per_inference > MAX_SOPS:
        raise EdgesnnError(
            f"{program.name}: {bounds.sops_per_inference:,} synaptic operations at worst, more than the "
            "engines can count; use a smaller network"
        )
    plan = _plan(program, bounds, choice, {})
    if prefer == "ram" and not isinstance(program.stream, ir.EventStream):
        plan = _smallest(program, bounds, choice, plan)
    if plan.arena_bytes > MAX_ARENA:
        raise EdgesnnError(
            f"the network needs {plan.arena_bytes:,} bytes of memory; the engines address 2 GiB"
        )
    return plan


def _steps(program: ir.Program) -> int:
    """Timesteps of an inference, for a stream of events at least two: there are first and later ones."""
    continuous = isinstance(program.stream, ir.EventStream)
    return max(program.timesteps, 2) if continuous else program.timesteps


def _plan(program: ir.Program, bounds: Bounds, choice: Choice, bands: Bands) -> Plan:
    steps = _steps(program)
    planes = {n.name: steps for n in program.nodes if isinstance(n, ir.LatencyEncoder)}
    for node in program.nodes:
        if isinstance(node, ir.Population) and node.name in bands:
            planes |= dict.fromkeys(ir.sources(node), steps)
    # A power of two: steps are counted modulo a common multiple of these numbers.
    late = {name: delay for name, delay in ir.longest_delays(program).items() if delay}
    planes |= {name: 1 << delay.bit_length() for name, delay in late.items()}
    plan = _place(_buffers(program, bounds, choice, bands, planes))
    return replace(plan, bands=bands, planes=planes)


def _smallest(program: ir.Program, bounds: Bounds, choice: Choice, plan: Plan) -> Plan:
    """The smallest plan found by layering nodes, and of those the one with fewest and widest bands.

    From all nodes that can be layered, in bands of one row, those are taken out again without which the arena
    is no larger. Then bands grow as far as the arena does not.
    """
    best = _plan(program, bounds, choice, dict.fromkeys(_candidates(program, bounds), 1))
    for name in reversed(best.bands):
        fewer = {n: rows for n, rows in best.bands.items() if n != name}
        less = _plan(program, bounds, choice, fewer)
        best = less if less.arena_bytes <= best.arena_bytes else best
    for name in best.bands:
        height = bounds.nodes[name].shape[0]
        for rows in (n for n in range(2, height + 1) if height % n == 0):
            if isinstance(program.node(name), ir.Population):
                wider = _plan(program, bounds, choice, {**best.bands, name: rows})
                best = wider if wider.arena_bytes <= best.arena_bytes else best
    return best if best.arena_bytes < plan.arena_bytes else plan


def _candidates(program: ir.Program, bounds: Bounds) -> list[str]:
    """Latency encoders, and populations of convolutions whose sources' spikes of all steps can be kept."""
    out = []
    for node in program.nodes:
        layered = isinstance(node, ir.Lif | ir.Amos) and all(
            isinstance(p, ir.Conv)
            and spike_map(bounds, p.source) is not None
            and not isinstance(
                program.node(p.source), ir.EventInput
            )  # the caller fills one step's map
            for p in node.projections
        )
        if layered or isinstance(node, ir.LatencyEncoder):
            out.append(node.name)
    return out


def _buffers(
    program: ir.Program, bounds: Bounds, choice: Choice, bands: Bands, planes: dict[str, int]
) -> list[Buffer]:
    nodes, shapes, steps = program.nodes, ir.shapes(program), _steps(program)
    many = len(nodes)
    end = (2 if steps > 1 else 1) * many - 1
    always: Lives = ((0, end),)
    order = {node.name: i for i, node in enumerate(nodes)}
    last_reader = dict(order)
    for node in nodes:
        for source in ir.sources(node):
            last_reader[source] = max(last_reader[source], order[node.name])
    wanted = [
        Buffer("stats", "uint32", 2 * many, always),
        Buffer("counts", "uint32", many, always),
    ]

    def lazy(node: ir.Node) -> bool:
        """Whether an encoder looks at the later steps, and at the frame again, when a second step comes."""
        micro = isinstance(node, ir.LatencyEncoder) and choice[node.name].micro
        return micro and steps > 1 and node.name not in bands

    def each(first: int, last: int) -> Lives:
        """From one node to another, in every step anew."""
        return ((first, last), (many + first, many + last)) if steps > 1 else ((first, last),)

    def want(name: str, dtype: str | None, count: int, *lives: tuple[int, int]) -> None:
        wanted.append(Buffer(name, str(dtype), count, lives))

    for i, node in enumerate(nodes):
        b, name = bounds.nodes[node.name], node.name
        last = last_reader[name]
        on = (i, end) if steps > 1 or node is program.output else (i, last)
        if isinstance(node, ir.SampleInput):
            read = [order[n.name] for n in nodes if name in ir.sources(n) and lazy(n)]
            until = many + max(read) if read else last
            if ir.coding_steps(program):
                until = end  # every step takes a digit of each sample
            want(f"{name}.frame", node.dtype, ir.size(node.shape), (0, until))
        elif isinstance(node, ir.Encoder):
            dtype, count = _strip(node, shapes[node.projection.source], b, choice)
            want(f"{name}.strip", dtype, count, *(each(i, i) if lazy(node) else ((i, i),)))
        if isinstance(node, ir.CurrentEncoder):
            want(f"{name}.current", b.sums, b.neurons, on)
            want(f"{name}.u", b.width, b.neurons, on)
        elif isinstance(node, ir.LatencyEncoder):
            want(f"{name}.steps", "int32", steps, on)
        if isinstance(node, ir.Population):
            rows, state = (bands[name], each(i, i)) if name in bands else (b.shape[0], (on,))
            stored = rows * b.shape[1] * padded(b.shape[2], choice[name].lanes)
            want(f"{name}.u", b.width, stored, *state)
            if isinstance(node, ir.Amos):
                fired = SpikeMap((rows, *b.shape[1:])).plane
                want(f"{name}.fired", "uint8", fired, *state)
        elif isinstance(node, ir.Integrator):
            h, w, channels = ir.conv_shape(node.projections[0], shapes[node.projections[0].source])
            stored = h * w * padded(channels, choice[name].lanes)
            want(f"{name}.z", b.sums, stored, *each(i, i))
            want(f"{name}.u", b.width, h * w * channels, on)
            if isinstance(node, ir.Tsa):
                want(f"{name}.g", "int32", b.neurons, on)
        spikes = spike_map(bounds, name)
        if spikes is None:
            if b.capacity:
                want(f"{name}.queue", bounds.event_dtype, b.capacity, *each(i, last))
        elif isinstance(node, ir.EventInput):
            want(f"{name}.spikes", "uint8", spikes.plane, *always)  # filled between steps
        elif name in planes:
            want(f"{name}.spikes", "uint8", spikes.plane * planes[name], on)
        else:
            want(f"{name}.spikes", "uint8", spikes.plane, *each(i, last))
    return wanted


def _strip(
    node: ir.Encoder, source: ir.Shape, bounds: NodeBounds, choice: Choice
) -> tuple[str | None, int]:
    """(dtype, elements) of what an encoder needs to work on a row of its map."""
    if isinstance(node, ir.CurrentEncoder):
        return bounds.sums, strip_elements(node.projection, source, 1)
    style = choice[node.name]
    if style is MVE:
        return "uint8", gather_layout(node.projection, source).scratch(node.pool)
    lanes, sums = (4, "int32") if style.micro else (1, bounds.sums)
    return sums, strip_elements(node.projection, source, node.pool[0], lanes)


def _place(wanted: list[Buffer]) -> Plan:
    """First fit in a few orders, largest first and longest first; the smallest arena of them."""
    orders = (
        lambda b: (-b.bytes, b.lives, b.name),
        lambda b: (-b.lives[-1][1] + b.lives[0][0], -b.bytes, b.name),
    )
    plans = [_first_fit(sorted(wanted, key=order)) for order in orders]
    return min(plans, key=lambda plan: plan.arena_bytes)


def _first_fit(wanted: list[Buffer]) -> Plan:
    """Each buffer at the lowest offset that is free over its whole life."""
    placed: list[Buffer] = []
    for buffer in wanted:
        offset = 0
        for rival in sorted(filter(buffer.meets, placed), key=lambda p: p.offset):
            if offset + buffer.bytes <= rival.offset:
                break
            offset = max(offset, rival.offset + rival.bytes)
        placed.append(replace(buffer, offset=offset))
    arena = max(p.offset + p.bytes for p in placed)
    return Plan({p.name: p for p in sorted(placed, key=lambda p: (p.offset, p.name))}, arena)
