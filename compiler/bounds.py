"""Proofs about a program: widths, queue capacities, worst-case work. Nothing here looks at data.

They are derived from the program whenever they are needed and never stored with it, so they cannot go stale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.compiler import ir
from edgesnn.targets.errors import EdgesnnError

INT16 = (-(2**15), 2**15 - 1)
INT32 = (-(2**31), 2**31 - 1)
_HOPELESS = 1 << 32  # no membrane that can reach this is ever accepted
_SETTLE = 1000


class WidthError(EdgesnnError):
    """A value cannot be proved to fit 32 bits."""


@dataclass(frozen=True)
class NodeBounds:
    """What is known about one node before it runs.

    shape: (H, W, C). multiplicity: events that one unit can emit in a step. capacity: events that the node
    can emit in a step, the size of its queue. lo, hi: int64[C], bounds of membrane or encoder accumulator
    over every partial sum of every step (None for nodes without one). width: "int16" or "int32", or None.
    sops_per_step, sops_per_inference: synaptic operations delivered into this node at worst.
    macs: multiply-accumulates of an encoder, once per inference, counted inside the map. sums: the width
    of an encoder's sums of weighted samples; of a Tsa or CssOutput, of what arrives in one step. Their lo, hi
    are those of h or U, before any pooling. signed: the map has twice the rows, the lower half for s = -1.
    """

    shape: ir.Shape
    multiplicity: int
    capacity: int
    lo: np.ndarray | None = None
    hi: np.ndarray | None = None
    width: str | None = None
    sops_per_step: int = 0
    sops_per_inference: int = 0
    macs: int = 0
    sums: str | None = None
    signed: bool = False

    @property
    def neurons(self) -> int:
        return ir.size(self.shape)


@dataclass(frozen=True)
class Bounds:
    """Bounds of every node by name, in program order."""

    nodes: dict[str, NodeBounds]
    timesteps: int

    @property
    def sops_per_step(self) -> int:
        return sum(n.sops_per_step for n in self.nodes.values())

    @property
    def sops_per_inference(self) -> int:
        return sum(n.sops_per_inference for n in self.nodes.values())

    @property
    def encoder_macs(self) -> int:
        return sum(n.macs for n in self.nodes.values())

    @property
    def event_dtype(self) -> str:
        """Width of an event address: uint16 where every map has at most 65,536 addresses."""
        most = max(n.neurons * (2 if n.signed else 1) for n in self.nodes.values())
        return "uint16" if most <= 1 << 16 else "uint32"


def fan_tables(p: ir.Conv, source: ir.Shape) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64[H], columns int64[W]): an event at (y, x) adds rows[y] * columns[x] weights inside the map;
    the output channels are counted in the columns.
    """
    (h, w, _), (oh, ow, o) = source, ir.conv_shape(p, source)
    _, kh, kw, _ = p.weight.shape

    def hits(n: int, out: int, k: int, stride: int, pad: int, dilation: int) -> np.ndarray:
        position = np.arange(n)[:, None] + pad - dilation * np.arange(k)[None, :]
        inside = (position % stride == 0) & (position >= 0) & (position // stride < out)
        return inside.sum(axis=1).astype(np.int64)

    rows = hits(h, oh, kh, p.stride[0], p.padding[0], p.dilation[0])
    columns = hits(w, ow, kw, p.stride[1], p.padding[1], p.dilation[1])
    return rows, columns * (o // p.groups)


def fan_out(p: ir.Projection, source: ir.Shape) -> np.ndarray:
    """Weights that one event of source position (y, x) adds inside the map: int64[H, W]."""
    if isinstance(p, ir.Dense):
        return np.full(source[:2], p.weight.shape[0], dtype=np.int64)
    return np.outer(*fan_tables(p, source))


def total_fan_out(p: ir.Projection, source: ir.Shape) -> int:
    """Weights added inside the map when every unit of the source emits one event."""
    if isinstance(p, ir.Dense):
        return int(p.weight.size)
    rows, columns = fan_tables(p, source)
    return int(rows.sum()) * int(columns.sum()) * source[2]


def weight_sums(p: ir.Projection) -> tuple[np.ndarray, np.ndarray]:
    """Sums of negative and of positive weights per destination channel, int64[C] each."""
    w = p.weight.astype(np.int64).reshape(p.weight.shape[0], -1)
    return np.minimum(w, 0).sum(axis=1), np.maximum(w, 0).sum(axis=1)


def leak_interval(lo: np.ndarray, hi: np.ndarray, leak: ir.Shifts) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of leak(u) for lo <= u <= hi, lo <= 0 <= hi.

    Each floored term lies within one below the real value, so leak(u) is within [gain * u - plus,
    gain * u + minus] with plus, minus the numbers of added and subtracted shifted terms. One positive term
    is monotone and its bounds are exact.
    """
    if len(leak) == 1 and leak[0][0] == 1:
        return lo >> leak[0][1], hi >> leak[0][1]
    denominator = 1 << max((k for _, k in leak), default=0)
    gain = sum(s * (denominator >> k) for s, k in leak)  # exact: gain / denominator
    plus = sum(1 for s, k in leak if s > 0 and k > 0)
    minus = sum(1 for s, k in leak if s < 0 and k > 0)
    ends = np.stack([lo * gain, hi * gain])
    low = -((-ends.min(axis=0)) // denominator) - plus  # ceil: leak is a whole number
    high = ends.max(axis=0) // denominator + minus
    return np.minimum(low, 0), np.maximum(high, 0)


def leak_bounds(
    lo: np.ndarray, hi: np.ndarray, leaks: tuple[ir.Shifts, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """`leak_interval` for one leak for all channels, or one per channel."""
    if len(leaks) == 1:
        return leak_interval(lo, hi, leaks[0])
    each = [leak_interval(lo[c], hi[c], leak) for c, leak in enumerate(leaks)]
    return np.array([low for low, _ in each]), np.array([high for _, high in each])


def membrane_bounds(
    below: np.ndarray,
    above: np.ndarray,
    bias: np.ndarray,
    leaks: tuple[ir.Shifts, ...],
    timesteps: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided bounds of a membrane over T steps and over every partial sum, int64[C] each.

    hi <- leak(hi) + above + max(bias, 0);  lo <- leak(lo) + below + min(bias, 0), from 0, where `below` <= 0
    <= `above` are the sums of everything that can arrive in one step. A soft reset takes u to u - theta >= 0,
    which stays within. timesteps None: over any number of steps; the leaks have to contract.
    """
    if timesteps is None:
        return _endless_bounds(below, above, bias, leaks)
    lo = np.zeros_like(below)
    hi = np.zeros_like(above)
    seen_lo, seen_hi = lo, hi
    for _ in range(timesteps):
        lo, hi = leak_bounds(lo, hi, leaks)
        lo, hi = lo + below + np.minimum(bias, 0), hi + above + np.maximum(bias, 0)
        seen_lo, seen_hi = np.minimum(seen_lo, lo), np.maximum(seen_hi, hi)
        if max(int(seen_hi.max()), -int(seen_lo.min())) > 1 << 40:
            break  # refused anyway; do not overflow the proof itself
    return seen_lo, seen_hi


def _endless_bounds(
    below: np.ndarray, above: np.ndarray, bias: np.ndarray, leaks: tuple[ir.Shifts, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """An interval around 0 that no step of `membrane_bounds` leaves: it holds forever, resets included.

    With a factor of g / d, |g| < d, and at most f lost in floors, |u| <= (arrivals + f) d / (d - |g|) is one.
    Steps from it only shrink it, so wherever they end is one; they end where nothing changes.
    """
    lo, hi = below + np.minimum(bias, 0), above + np.maximum(bias, 0)
    in_lo, in_hi = lo, hi
    each = [leaks[c % len(leaks)] for c in range(len(lo))]
    reach = []
    for c, leak in enumerate(each):
        d = 1 << max((k for _, k in leak), default=0)
        g = sum(s * (d >> k) for s, k in leak)
        assert abs(g) < d, "a legal program: its leaks contract"
        floors = sum(1 for _, k in leak if k > 0)
        # Where the factor is not negative the two sides do not meet.
        sides = [-int(lo[c]), int(hi[c])] if g >= 0 else [max(-int(lo[c]), int(hi[c]))] * 2
        reach.append([min(-(-(n + floors) * d // (d - abs(g))), _HOPELESS) for n in sides])
    ends = np.array(reach, dtype=np.int64).reshape(-1, 2)
    lo, hi = -ends[:, 0], ends[:, 1]
    if ends.max() >= _HOPELESS:
        return lo, hi  # refused; the products of a step would not fit
    for _ in range(_SETTLE):
        least, most = leak_bounds(lo, hi, leaks)
        least, most = np.maximum(least + in_lo, lo), np.minimum(most + in_hi, hi)
        if np.array_equal(least, lo) and np.array_equal(most, hi):
            break
        lo, hi = least, most
    return lo, hi


def width_of(lo: np.ndarray, hi: np.ndarray, where: str) -> str:
    """The narrowest of int16 and int32 that holds [lo, hi]; WidthError if none does."""
    low, high = int(lo.min()), int(hi.max())
    if low >= INT16[0] and high <= INT16[1]:
        return "int16"
    if low >= INT32[0] and high <= INT32[1]:
        return "int32"
    raise WidthError(
        f"{where}: values can reach {low} ... {high}, more than 32 bits hold; "
        "use fewer inputs, smaller weights, a stronger leak or fewer timesteps"
    )


def _leak_fits(
    lo: np.ndarray, hi: np.ndarray, bias: np.ndarray, leaks: tuple[ir.Shifts, ...], where: str
) -> None:
    """The terms of a leak and the bias may be added up in any order: no partial sum may leave int32."""
    top = max(int(hi.max()), -int(lo.min()))
    if top * max(1, *(len(leak) for leak in leaks)) + int(np.abs(bias).max()) > INT32[1]:
        raise WidthError(f"{where}: the terms of its leak can add up to more than 32 bits hold")


def prove(program: ir.Program) -> Bounds:
    """All bounds of a legal program. Raises WidthError naming the node whose values might not fit int32.

    With an EventStream ranges hold at any time of the stream. Work per step does, too; per inference it is that
    of T steps from rest, since a stream has no end.
    """
    shapes = ir.shapes(program)
    out: dict[str, NodeBounds] = {}
    many: dict[str, int] = {}
    for node in program.nodes:
        name, shape = node.name, shapes[node.name]
        many[name] = ir.node_multiplicity(node, many)
        if isinstance(node, ir.Encoder):
            out[name] = _encoder(program, node, shape, shapes)
        elif isinstance(node, ir.Integrator):
            out[name] = _integrator(program, node, shape, out)
        elif isinstance(node, ir.Population):
            out[name] = _population(program, node, shape, out)
        else:
            signed = ir.is_signed(node)
            out[name] = NodeBounds(shape, many[name], ir.size(shape) * many[name], signed=signed)
    return Bounds(out, program.timesteps)


def _encoder(
    program: ir.Program, node: ir.Encoder, shape: ir.Shape, shapes: dict[str, ir.Shape]
) -> NodeBounds:
    source = program.input
    assert isinstance(source, ir.SampleInput)
    low, high = (v - source.zero_point for v in ir.SAMPLE_RANGE[source.dtype])
    w = node.projection.weight.astype(np.int64).reshape(shape[2], -1)
    hi = np.maximum(np.maximum(w * low, w * high), 0).sum(axis=1)
    lo = np.minimum(np.minimum(w * low, w * high), 0).sum(axis=1)
    macs = total_fan_out(node.projection, shapes[source.name])
    sums = width_of(lo, hi, node.name)
    if isinstance(node, ir.CurrentEncoder):
        bias = node.bias.astype(np.int64)
        lo, hi = membrane_bounds(lo, hi, bias, (node.leak,), program.timesteps)
        _leak_fits(lo, hi, bias, (node.leak,), node.name)
    width = width_of(lo, hi, node.name)
    return NodeBounds(shape, 1, ir.size(shape), lo, hi, width, macs=macs, sums=sums)


def _population(
    program: ir.Program, node: ir.Population, shape: ir.Shape, seen: dict[str, NodeBounds]
) -> NodeBounds:
    below = np.zeros(shape[2], dtype=np.int64)
    above = np.zeros(shape[2], dtype=np.int64)
    step = total = 0
    for p in node.projections:
        source = seen[p.source]
        negative, positive = weight_sums(p)
        below, above = (
            below + negative * source.multiplicity,
            above + positive * source.multiplicity,
        )
        work = total_fan_out(p, source.shape) * source.multiplicity
        once = ir.once_per_inference(program.node(p.source))
        step, total = step + work, total + work * (1 if once else program.timesteps)
    leaks = node.leaks if isinstance(node, ir.Accumulator) else (node.leak,)
    bias = node.bias.astype(np.int64)
    endless = isinstance(program.stream, ir.EventStream)
    lo, hi = membrane_bounds(below, above, bias, leaks, None if endless else program.timesteps)
    width = width_of(lo, hi, node.name)
    _leak_fits(lo, hi, bias, leaks, node.name)
    spikes = not isinstance(node, ir.Accumulator)
    capacity, multiplicity = (ir.size(shape), 1) if spikes else (0, 0)
    return NodeBounds(shape, multiplicity, capacity, lo, hi, width, step, total)


def _integrator(
    program: ir.Program, node: ir.Integrator, shape: ir.Shape, seen: dict[str, NodeBounds]
) -> NodeBounds:
    """Signed spikes: what arrives in a step lies within the sum of |w| on both sides."""
    steps = ir.coding_steps(program)
    reach = np.zeros(len(node.bias), dtype=np.int64)
    work = 0
    for p in node.projections:
        negative, positive = weight_sums(p)
        reach = reach + positive - negative
        work += total_fan_out(p, seen[p.source].shape)
    sums = width_of(-reach, reach, node.name)
    amp, bias = node.amplification, node.bias.astype(np.int64)
    lo, hi = membrane_bounds(-reach, reach, bias, (amp,), steps)
    last = node.correction.astype(np.int64)
    lo, hi = lo + np.minimum(last, 0), hi + np.maximum(last, 0)
    if isinstance(node, ir.CssOutput):
        _leak_fits(lo, hi, np.abs(bias) + np.abs(last), (amp,), node.name)
        width_of(lo.min() - hi, hi - lo.min(), node.name)  # differences of classes, too
        return NodeBounds(shape, 0, 0, lo, hi, "int32", work, work * steps, sums=sums)
    for _ in range(node.silent):
        width_of(lo, hi, node.name)
        lo, hi = leak_interval(lo, hi, amp)
    # g lies within the trains of all spikes of one sign, and o = max(h, 0) - g has to fit, too.
    v = node.amplitude.astype(np.int64)
    least, most = membrane_bounds(-v, v, np.zeros_like(v), (amp,), steps)
    g = np.maximum(-least, most)
    width_of(lo - g, hi + g, node.name)
    _leak_fits(lo - g, hi + g, np.abs(bias) + np.abs(last), (amp,), node.name)
    size = ir.size(shape)
    return NodeBounds(shape, 1, size, lo, hi, "int32", work, work * steps, sums=sums, signed=True)
