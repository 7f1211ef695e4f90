"""Which style each population and latency encoder gets on a target (styles.py), by the cost model (cost.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds
from edgesnn.compiler.cost import (
    Costs,
    Load,
    Run,
    geometry,
    load_costs,
    mean_loads,
    mean_steps,
    node_counts,
    worst_loads,
)
from edgesnn.compiler.layout import gather_layout, strip_layout
from edgesnn.compiler.styles import BYTES, DSP, MVE, PAIRS, PLAIN, Style
from edgesnn.targets.target import Target

Choice = dict[str, Style]


@dataclass(frozen=True)
class Option:
    """A style that a node can have: instructions of an inference at worst and in the mean, None where unknown;

    flash: bytes of its tables.
    """

    style: Style
    worst: int | None
    mean: int | None
    flash: int

    @property
    def weight(self) -> float:
        """What is made small: a byte of flash has to save an instruction in a mean inference."""
        return float("inf") if self.mean is None else self.mean + self.flash


def choose(
    program: ir.Program,
    bounds: Bounds,
    target: Target | None,
    *,
    micro: bool = True,
    wanted: Mapping[str, Style] | None = None,
) -> Choice:
    """A style for every population and latency encoder. Without a target, or without `micro`, all are plain.

    wanted: styles of some nodes, whatever they cost; each is used where it fits. Where the target's costs are
    not known, the style that its core is made for.
    """
    every = options(program, bounds, target if micro else None)
    native = styles_of(target)[1:2] if micro else ()
    choice = {}
    for name, found in every.items():
        best = min(found, key=lambda o: o.weight)
        if any(o.mean is None for o in found):
            best = next((o for o in found if o.style in native), found[0])
            if isinstance(program.node(name), ir.Integrator):
                best = found[-1]  # of the styles a core has the last one stores weights as bytes
        style = wanted.get(name, best.style) if wanted is not None else best.style
        choice[name] = style if fits(program, program.node(name), bounds, style) else PLAIN
    return choice


def options(
    program: ir.Program, bounds: Bounds, target: Target | None
) -> dict[str, tuple[Option, ...]]:
    """The styles that each population and latency encoder can have on a target, with what they cost."""
    costs = load_costs(target.name) if target is not None else None
    if ir.coding_steps(program):
        costs = None  # signed spikes were not measured
    total, steps = program.timesteps, mean_steps(program)
    runs = (Run(total, True, total > 1), Run(steps, True, steps >= 1.5))
    loads: tuple[Mapping[str, Load], ...] = ({}, {})
    if costs is not None:
        mean = mean_loads(program, bounds, program.rates, steps)
        loads = (worst_loads(program, bounds, total), mean)
    out = {}
    for node in program.nodes:
        if not isinstance(node, ir.Population | ir.Integrator | ir.LatencyEncoder):
            continue
        known = [s for s in styles_of(target) if fits(program, node, bounds, s)]
        found = []
        for style in known:
            each = [
                _cost(program, bounds, node, style, costs, *at)
                for at in zip(runs, loads, strict=True)
            ]
            found.append(Option(style, each[0], each[1], table_bytes(program, bounds, node, style)))
        out[node.name] = tuple(found)
    return out


def _cost(
    program: ir.Program,
    bounds: Bounds,
    node: ir.Node,
    style: Style,
    costs: Costs | None,
    run: Run,
    loads: Mapping[str, Load],
) -> int | None:
    if costs is None:
        return None
    found = costs.of(node_counts(program, bounds, {node.name: style}, node, run, loads))
    return None if found is None else int(np.ceil(found))


def table_bytes(program: ir.Program, bounds: Bounds, node: ir.Node, style: Style) -> int:
    """Bytes of a node's weights in flash."""
    source = program.input
    if isinstance(node, ir.LatencyEncoder) and style.micro:
        if style is MVE:
            return int(gather_layout(node.projection, source.shape).weights.size)
        dtype = source.dtype if isinstance(source, ir.SampleInput) else ""
        pairs = style is DSP and dtype != "int16"
        return 4 * int(strip_layout(node.projection, source.shape, pairs=pairs).words.size)
    lanes = style.lanes if isinstance(node, ir.Population | ir.Integrator) else 1
    total = 0.0
    for p in ir.projections(node):
        size = np.dtype(style.weight).itemsize / style.outputs_per_word
        if isinstance(node, ir.Integrator) and not takes(p, style):
            size = p.weight.itemsize
        layout = geometry(p, bounds.nodes[p.source].shape, lanes)
        phases = layout.stride[0] * layout.stride[1] * layout.taps[0] * layout.taps[1]
        total += layout.source[2] * phases * layout.per_group[1] * size
    return int(total)


def styles_of(target: Target | None) -> tuple[Style, ...]:
    """What a target can choose from."""
    if target is None or target.kind == "host":
        return (PLAIN,)
    if target.mve:
        return (PLAIN, MVE)
    return (PLAIN, DSP) if target.dsp else (PLAIN, PAIRS, BYTES)


def fits(program: ir.Program, node: ir.Node, bounds: Bounds, style: Style) -> bool:
    """Whether a node can have a style."""
    if isinstance(node, ir.LatencyEncoder):
        return not style.micro or _encodes(program, node, bounds, style)
    if isinstance(node, ir.Integrator):
        narrow = bounds.nodes[node.name].sums == "int16"
        return not style.micro or (narrow and any(takes(p, style) for p in node.projections))
    return isinstance(node, ir.Population) and (not style.micro or _fits(node, bounds, style))


def takes(p: ir.Projection, style: Style) -> bool:
    """Whether a style's kernels can deliver a projection; else its loop in TIR does, to the same membranes."""
    grouped = isinstance(p, ir.Conv) and p.groups > 1
    return not style.micro or (not grouped and p.weight.dtype == np.int8)


def _encodes(program: ir.Program, node: ir.LatencyEncoder, bounds: Bounds, style: Style) -> bool:
    """A style's encoder stores its weights as words: only where they are few beside the work they save."""
    b, p = bounds.nodes[node.name], node.projection
    assert b.lo is not None and b.hi is not None
    if isinstance(p, ir.Conv) and p.groups > 1:
        return False
    if int(b.hi.max()) + 1 - int(b.lo.min()) >= 2**31:
        return False
    if style is MVE:
        source = program.input
        return isinstance(source, ir.SampleInput) and source.dtype != "int16"
    return style.micro and 3 * p.weight.size <= b.macs // 2


def _fits(node: ir.Population, bounds: Bounds, style: Style) -> bool:
    """Micro-kernels add to int16 membranes, whole rows of channels at a time."""
    if bounds.nodes[node.name].width != "int16":
        return False
    if any(isinstance(p, ir.Conv) and p.groups > 1 for p in node.projections):
        return False
    if isinstance(node, ir.Accumulator):
        return not style.biased  # the readout and the C core read output membranes as they are
    return int(np.max(node.threshold)) < 2**15
