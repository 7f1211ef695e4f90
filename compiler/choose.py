"""Which style each population gets on a target (styles.py)."""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds
from edgesnn.compiler.styles import DSP, MVE, PAIRS, PLAIN, Style
from edgesnn.targets.target import Target

Choice = dict[str, Style]


def choose(
    program: ir.Program, bounds: Bounds, target: Target | None, *, micro: bool = True
) -> Choice:
    """A style for every population and latency encoder. Without a target, or without `micro`, all are plain."""
    native = _native(target) if micro and target is not None else PLAIN
    choice = {
        node.name: native if _fits(node, bounds, native) else PLAIN
        for node in program.nodes
        if isinstance(node, ir.Population)
    }
    for node in program.nodes:
        if isinstance(node, ir.LatencyEncoder):
            choice[node.name] = native if _encodes(program, node, bounds, native) else PLAIN
    return choice


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


def _native(target: Target) -> Style:
    if target.kind == "host":
        return PLAIN
    if getattr(target, "mve", False):
        return MVE
    return DSP if getattr(target, "dsp", True) else PAIRS


def _fits(node: ir.Population, bounds: Bounds, style: Style) -> bool:
    """Micro-kernels add to int16 membranes, whole rows of channels at a time."""
    if bounds.nodes[node.name].width != "int16":
        return False
    if any(isinstance(p, ir.Conv) and p.groups > 1 for p in node.projections):
        return False
    if isinstance(node, ir.Accumulator):
        return not style.biased  # the readout and the C core read output membranes as they are
    return int(np.max(node.threshold)) < 2**15
