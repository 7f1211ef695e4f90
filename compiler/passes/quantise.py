"""Post-training quantisation to the device's integers.

Hidden populations: one scale per output channel, because a spiking neuron compares only with its own
threshold: w_q = round(w / s_c), theta_c = round(V_th / s_c), bias_c = round(b_c / s_c); weight_format.py says
how scales are chosen and to what weights are rounded. The output layer has one scale per tensor, or argmax
and margin would mean nothing. Encoders: t_s <= k holds exactly when
phi >= logit(1 - k/T) (without the sigmoid: 1 - k/T), i.e. when the integer accumulator
a >= ceil((ln((T - k) / k) - b_c) / (s_in s_c)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import INT16, INT32, membrane_bounds, weight_sums
from edgesnn.compiler.passes.round_leaks import shift_terms
from edgesnn.compiler.weight_format import WeightFormat, weight_format
from edgesnn.targets.errors import EdgesnnError

# A channel whose membrane does not fit int16 gets a coarser scale, up to this factor (two bits of weight);
# beyond it int32 membranes cost less than the lost precision.
MAX_SCALE_GROWTH = 4.0


@dataclass(frozen=True)
class Units:
    """What a layer's integers stand for, float64[C] each: a weight of the graph is `weight` * integer, and its

    sums (an encoder's of weighted samples) or membranes are `sum` * integer.
    """

    weight: np.ndarray
    sum: np.ndarray


def quantise(graph: g.Graph, *, weights: str = "int8") -> tuple[ir.Program, dict[str, Units]]:
    """Turn a folded float graph into an integer program; the units of its layers by name.

    Raises EdgesnnError naming the layer.
    """
    form = weight_format(weights)
    units: dict[str, Units] = {}
    nodes: list[ir.Node] = [_input(graph.input)]
    # What one event of a source stands for: average pooling passes 1 / (kh kw).
    gain: dict[str, float] = {nodes[0].name: 1.0}
    multiplicity: dict[str, int] = {nodes[0].name: 1}
    value = 0
    # Membranes of a stream of events are never cleared: their bounds hold for any number of steps.
    steps = None if isinstance(graph.stream, ir.EventStream) else graph.timesteps
    for layer in graph.layers:
        read = g.layer_sources(layer)
        many = sum(multiplicity[source] for source in read)
        if isinstance(layer, g.Pool):
            nodes.append(_pool(layer))
            height, width = g.pair(layer.kernel)
            window = height * width if layer.kind == "avg" else 1
            gain[layer.name] = gain[layer.source] / window
            multiplicity[layer.name] = many * window
            continue
        if isinstance(layer, g.Merge):
            if len({gain[source] for source in read}) > 1:
                raise EdgesnnError(
                    f"{layer.name}: its sources were averaged over windows of different size; "
                    "pool them alike before the merge"
                )
            nodes.append(ir.Merge(layer.name, layer.sources))
            gain[layer.name], multiplicity[layer.name] = gain[read[0]], many
            continue
        w = layer.linear.weight * gain[layer.source]
        b = np.zeros(len(w)) if layer.linear.bias is None else layer.linear.bias
        node: ir.Node
        unit = graph.input.scale if isinstance(graph.input, g.SampleInput) else 1.0
        if isinstance(layer, g.LatencyEncode):
            node, scale = _encoder(layer, w, b, graph.timesteps, unit, form)
        elif isinstance(layer, g.CurrentEncode):
            node, scale = _current(layer, w, b, unit, form)
        elif isinstance(layer, g.Spiking):
            node, scale = _spiking(layer, w, b, steps, form, many)
        else:
            node, scale = _output(layer, w, b, form)
            value = int(_whole(graph.readout.value / scale[:1], "readout", "value")[0])
        nodes.append(node)
        counted = unit if isinstance(layer, g.Encode) else 1.0
        units[layer.name] = Units(scale / gain[layer.source], scale * counted)
        gain[layer.name], multiplicity[layer.name] = 1.0, 1
    rules: dict[str, ir.Readout] = {
        "first-spike": ir.FirstSpike(value),
        "margin": ir.Margin(max(value, 0)),
        "rate": ir.Rate(),
    }
    rule = rules[graph.readout.kind]
    program = ir.Program(
        graph.name, graph.timesteps, tuple(nodes), rule, graph.class_names, stream=graph.stream
    )
    return program, units


def _input(source: g.SampleInput | g.EventInput) -> ir.Input:
    h, w, c = (int(n) for n in source.shape)
    if isinstance(source, g.EventInput):
        return ir.EventInput("input", (h, w, c))
    scale, zero = float(source.scale), int(source.zero_point)
    return ir.SampleInput("input", (h, w, c), source.dtype, scale, zero)


def _pool(layer: g.Pool) -> ir.Operator:
    kind = ir.SumPool if layer.kind == "avg" else ir.OrPool
    return kind(layer.name, layer.source, g.pair(layer.kernel), g.pair(layer.stride))


def _projection(linear: g.Dense | g.Conv, source: str, weight: np.ndarray) -> ir.Projection:
    if isinstance(linear, g.Dense):
        return ir.Dense(source, weight)
    return ir.Conv(source, weight, linear.stride, linear.padding, linear.dilation, linear.groups)


def _whole(x: np.ndarray, where: str, what: str) -> np.ndarray:
    """Round to int32 or refuse."""
    if not np.all(np.isfinite(x)) or x.min(initial=0) < INT32[0] or x.max(initial=0) > INT32[1]:
        raise EdgesnnError(f"{where}: {what} does not fit 32 bits at this layer's weight scale")
    return np.rint(x).astype(np.int32)


def _encoder(
    layer: g.LatencyEncode,
    w: np.ndarray,
    b: np.ndarray,
    t: int,
    sample: float,
    form: WeightFormat,
) -> tuple[ir.LatencyEncoder, np.ndarray]:
    """t: timesteps; sample: what one level of a sample is worth."""
    scale = form.scales(w, 1.0)
    k = np.arange(1, t)
    level = np.log((t - k) / k) if layer.activation == "sigmoid" else (t - k) / t
    exact = (level[None, :] - b[:, None]) / (sample * scale)[:, None]
    if layer.activation == "identity":
        # Raw values often meet 1 - k/T exactly: what differs from a whole number by rounding alone is that.
        whole = np.rint(exact)
        exact = np.where(np.abs(exact - whole) <= 1e-9 * np.abs(whole), whole, exact)
    # A channel of tiny weights has thresholds beyond any accumulator: clipping keeps their meaning.
    thresholds = np.ceil(np.clip(exact, INT32[0], INT32[1])).astype(np.int32)
    p = _projection(layer.linear, layer.source, form.integers(w, scale))
    return ir.LatencyEncoder(layer.name, p, thresholds, g.pair(layer.pool)), scale


def _current(
    layer: g.CurrentEncode, w: np.ndarray, b: np.ndarray, sample: float, form: WeightFormat
) -> tuple[ir.CurrentEncoder, np.ndarray]:
    scale = form.scales(w, layer.v_threshold / form.limit / sample)
    unit = scale * sample  # of the sums of weighted samples
    p = _projection(layer.linear, layer.source, form.integers(w, scale))
    theta, bias = _theta(layer.v_threshold / unit), _whole(b / unit, layer.name, "bias")
    leak = shift_terms(layer.leak)
    return ir.CurrentEncoder(layer.name, p, leak, theta, bias, layer.reset), scale


def _spiking(
    layer: g.Spiking,
    w: np.ndarray,
    b: np.ndarray,
    timesteps: int | None,
    form: WeightFormat,
    many: int,
) -> tuple[ir.Lif | ir.Amos, np.ndarray]:
    leak = shift_terms(layer.leak)
    finest = form.scales(w, layer.v_threshold / form.limit)
    grown = finest
    for _ in range(16):
        scale = grown  # what the weights are rounded by is also what the threshold is
        p = _projection(layer.linear, layer.source, form.integers(w, scale))
        bias = _whole(b / scale, layer.name, "bias")
        below, above = (s * many for s in weight_sums(p))
        lo, hi = membrane_bounds(below, above, bias.astype(np.int64), (leak,), timesteps)
        excess = np.maximum(hi / INT16[1], lo / INT16[0])
        if np.all(excess <= 1) or np.any(scale * excess > finest * MAX_SCALE_GROWTH):
            break
        grown = np.where(excess > 1, scale * excess * 1.001, scale)
    theta = _theta(layer.v_threshold / scale)
    if layer.reset == "amos":
        return ir.Amos(layer.name, (p,), leak, theta, bias, layer.forced), scale
    return ir.Lif(layer.name, (p,), leak, theta, bias, layer.reset), scale


def _output(
    layer: g.Output, w: np.ndarray, b: np.ndarray, form: WeightFormat
) -> tuple[ir.Accumulator, np.ndarray]:
    tiny = 1e-12 / form.limit
    scale = np.full(len(w), np.maximum(form.scales(w.reshape(1, -1), tiny), tiny))
    p = _projection(layer.linear, layer.source, form.integers(w, scale))
    leaks = layer.leak if isinstance(layer.leak, tuple) else (layer.leak,)
    bias = _whole(b / scale, layer.name, "bias")
    return ir.Accumulator(layer.name, (p,), tuple(shift_terms(v) for v in leaks), bias), scale


def _theta(exact: np.ndarray) -> np.ndarray:
    """Thresholds as whole numbers of at least 1; one beyond int32 never fires either way."""
    return np.maximum(np.rint(np.clip(exact, 1, INT32[1])), 1).astype(np.int32)
