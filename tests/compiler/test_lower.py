"""Lowering: each pass by what stands before and after it, and the whole against the float network."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.interpret import Interpreter, windows
from edgesnn.compiler.lower import lower, lower_with_units
from edgesnn.compiler.passes.fold_batch_norm import fold_batch_norm
from edgesnn.compiler.passes.round_leaks import shift_terms, shift_value
from edgesnn.compiler.passes.tighten_thresholds import tighten_thresholds
from edgesnn.compiler.text import from_text, to_text
from edgesnn.compiler.weight_format import weight_format
from edgesnn.targets.errors import EdgesnnError, UsageError


def _norm(rng: np.random.Generator, n: int) -> g.BatchNorm:
    return g.BatchNorm(
        rng.normal(1, 0.5, n), rng.normal(0, 0.3, n), rng.normal(0, 0.3, n), rng.uniform(0.5, 2, n)
    )


def _graph(seed: int = 0, **changes: object) -> g.Graph:
    rng = np.random.default_rng(seed)
    layers: tuple[g.Layer, ...] = (
        g.LatencyEncode(
            "enc",
            "input",
            g.Conv(rng.normal(0, 0.5, (4, 3, 3, 1)), padding=(1, 1, 1, 1)),
            _norm(rng, 4),
            2,
        ),
        g.Spiking("conv", "enc", g.Conv(rng.normal(0, 0.4, (6, 3, 3, 4))), _norm(rng, 6)),
        g.Pool("pool", "conv", "avg", 2, 2),
        g.Spiking(
            "hidden", "pool", g.Dense(rng.normal(0, 0.8, (12, 6))), _norm(rng, 12), leak=0.75
        ),
        g.Output("out", "hidden", g.Dense(rng.normal(0, 0.5, (3, 12)))),
    )
    fields: dict[str, object] = {
        "name": "net",
        "input": g.SampleInput((8, 8, 1), scale=1 / 255),
        "timesteps": 4,
        "layers": layers,
        "readout": g.ReadoutSpec("first-spike", 1.5),
    }
    return g.Graph(**{**fields, **changes})  # type: ignore[arg-type]


def _float_membranes(graph: g.Graph, x: np.ndarray) -> np.ndarray:
    """Output membranes of the float network at T, straight from the papers' equations."""

    def linear(layer: g.LatencyEncode | g.Spiking | g.Output, s: np.ndarray) -> np.ndarray:
        lin = layer.linear
        if isinstance(lin, g.Dense):
            y = (lin.weight @ s.reshape(-1)).reshape(1, 1, -1)
        else:
            p = ir.Conv("", np.zeros(lin.weight.shape, np.int8), lin.stride, lin.padding)
            y = np.zeros(ir.conv_shape(p, s.shape))  # type: ignore[arg-type]
            padded = np.pad(
                s, ((lin.padding[0], lin.padding[2]), (lin.padding[1], lin.padding[3]), (0, 0))
            )
            for oy, ox, o in np.ndindex(*y.shape):
                kh, kw = lin.weight.shape[1:3]
                y[oy, ox, o] = (padded[oy : oy + kh, ox : ox + kw] * lin.weight[o]).sum()
        if layer.norm is not None:
            n = layer.norm
            y = n.gamma * (y - n.mean) / np.sqrt(n.var + n.eps) + n.beta
        return y

    enc, conv, _, hidden, out = graph.layers
    assert isinstance(enc, g.LatencyEncode) and isinstance(conv, g.Spiking)
    assert isinstance(hidden, g.Spiking) and isinstance(out, g.Output)
    phi = windows(linear(enc, x / 255.0), (2, 2), (2, 2)).max(axis=(3, 4))
    times = np.ceil((1 - 1 / (1 + np.exp(-phi))) * graph.timesteps)
    u: dict[str, np.ndarray] = {}
    for t in range(1, graph.timesteps + 1):
        s = (times == t).astype(float)
        for layer in (conv, hidden):
            v = layer.leak * u.get(layer.name, 0.0) + linear(layer, s)
            s = (v >= layer.v_threshold).astype(float)
            u[layer.name] = v - s * layer.v_threshold
            if layer is conv:
                s = windows(s, (2, 2), (2, 2)).mean(axis=(3, 4))
        u["out"] = out.leak * u.get("out", 0.0) + linear(out, s)
    return np.asarray(u["out"]).reshape(-1)


def test_integers_follow_the_float_network() -> None:
    """int8 weights: the output membranes at T correlate and nearly always agree in class."""
    graph = _graph(3, readout=g.ReadoutSpec("first-spike", 1e3))
    program = lower(graph)
    engine, rng, agree = Interpreter(program), np.random.default_rng(5), 0
    for _ in range(40):
        x = rng.integers(0, 256, (8, 8, 1)).astype(np.uint8)
        exact = _float_membranes(graph, x)
        agree += int(engine.infer(x).label == exact.argmax())
    assert agree >= 36


def test_fold_batch_norm_keeps_the_function() -> None:
    graph = _graph()
    folded = fold_batch_norm(graph)
    for before, after in zip(graph.layers, folded.layers, strict=True):
        if isinstance(before, g.Pool) or isinstance(after, g.Pool):
            continue
        assert after.norm is None and after.linear.bias is not None
        w = before.linear.weight.reshape(len(before.linear.weight), -1)
        s = np.random.default_rng(1).normal(size=w.shape[1])
        y = w @ s
        if before.norm is not None:
            n = before.norm
            y = n.gamma * (y - n.mean) / np.sqrt(n.var + n.eps) + n.beta
        z = after.linear.weight.reshape(len(w), -1) @ s + after.linear.bias
        assert np.allclose(y, z)


@pytest.mark.parametrize(
    ("leak", "terms"),
    [(0.5, ((1, 1),)), (1.0, ((1, 0),)), (0.0, ()), (0.75, ((1, 0), (-1, 2))), (0.25, ((1, 2),))],
)
def test_leaks_become_shifts(leak: float, terms: ir.Shifts) -> None:
    assert shift_value(shift_terms(leak)) == leak
    assert len(shift_terms(leak)) == len(terms)


def test_every_leak_is_near_three_terms() -> None:
    for leak in np.linspace(0, 1, 101):
        terms = shift_terms(float(leak))
        assert len(terms) <= 3
        assert abs(shift_value(terms) - leak) <= 1 / 64


BEFORE = """\
program(name='t', timesteps=2, class_names=())
x = SampleInput(shape=(1, 1, 1), dtype='uint8', scale=1.0, zero_point=0)
enc = LatencyEncoder(projection=Dense(source='x', weight=int8[2, 1](2, -1)), \
thresholds=int32[2, 1](99999, -7), pool=(1, 1))
lif = Lif(projections=(Dense(source='enc', weight=int8[1, 2](5, -9)),), leak=((1, 1),), \
threshold=int32[1](40000), bias=int32[1](0), reset='soft')
out = Accumulator(projections=(Dense(source='lif', weight=int8[2, 1](1, 2)),), leaks=((),), bias=int32[2](0, 0))
readout(FirstSpike(value=1))
"""


def test_tighten_thresholds_before_and_after() -> None:
    """a = 2 x never reaches 99999: clipped to 511. a = -x may or may not reach -7: kept. u <= 5 + (5 >> 1) = 7
    never reaches 40000: clipped to 8.
    """
    after = BEFORE.replace("99999", "511").replace("40000", "8")
    assert to_text(tighten_thresholds(from_text(BEFORE))) == after


def test_hidden_membranes_are_fitted_into_int16() -> None:
    """Net B's dense layer in miniature: 600 inputs of full-scale weights do not fit at the finest scale."""
    rng = np.random.default_rng(0)
    layers: tuple[g.Layer, ...] = (
        g.LatencyEncode("enc", "input", g.Dense(rng.normal(0, 1, (600, 4)))),
        g.Spiking("hidden", "enc", g.Dense(rng.choice([-1.0, 1.0], (8, 600)))),
        g.Output("out", "hidden", g.Dense(rng.normal(0, 1, (2, 8)))),
    )
    program = lower(_graph(layers=layers, input=g.SampleInput((1, 1, 4), scale=1 / 255)))
    b = prove(program).nodes["hidden"]
    assert b.width == "int16"
    node = program.node("hidden")
    assert isinstance(node, ir.Lif)
    assert 50 < np.abs(node.projections[0].weight).max() < 127  # coarser, by no more than needed


def test_weights_and_thresholds_share_a_scale_though_the_int16_fit_ends_early() -> None:
    """Ternary weights of one size do not follow a slightly coarser scale: 16 attempts change nothing."""
    w = np.full((1, 18267), 0.3)
    layer = g.Spiking("hidden", "enc", g.Dense(w), leak=0.5)
    enc = g.LatencyEncode("enc", "input", g.Dense(np.ones((18267, 1))))
    out = g.Output("out", "hidden", g.Dense(np.ones((2, 1))))
    graph = _graph(layers=(enc, layer, out), input=g.SampleInput((1, 1, 1)), timesteps=4)
    program, units = lower_with_units(graph, weights="ternary")
    node, scale = program.node("hidden"), units["hidden"].weight
    assert isinstance(node, ir.Lif)
    assert np.array_equal(node.projections[0].weight, weight_format("ternary").integers(w, scale))


def test_average_pool_divides_the_next_weights() -> None:
    program = lower(_graph())
    kinds = [type(n).__name__ for n in program.nodes]
    assert kinds == ["SampleInput", "LatencyEncoder", "Lif", "SumPool", "Lif", "Accumulator"]


BAD = {
    "NaN": lambda: _graph(
        layers=(*_graph().layers[:-1], g.Output("out", "hidden", g.Dense(np.full((3, 12), np.nan))))
    ),
    "source": lambda: _graph(
        layers=(*_graph().layers[:-1], g.Output("out", "gone", g.Dense(np.ones((3, 12)))))
    ),
    "Output": lambda: _graph(layers=_graph().layers[:-1]),
    "readout": lambda: _graph(readout=g.ReadoutSpec("rate", 1.0)),
    "dtype": lambda: _graph(input=g.SampleInput((8, 8, 1), "float32")),
    "inputs": lambda: _graph(
        layers=(*_graph().layers[:-1], g.Output("out", "hidden", g.Dense(np.ones((3, 13)))))
    ),
}


@pytest.mark.parametrize("word", BAD)
def test_malformed_graphs_are_refused_in_one_line(word: str) -> None:
    with pytest.raises(EdgesnnError, match=word) as e:
        lower(BAD[word]())
    assert "\n" not in str(e.value)


LEVELS = {
    "int8": set(range(-127, 128)),
    "int6": set(range(-31, 32)),
    "int4": set(range(-7, 8)),
    "int3": set(range(-3, 4)),
    "ternary": {-1, 0, 1},
    "power-of-two": {0} | {s * (1 << k) for s in (1, -1) for k in range(7)},
}


@pytest.mark.parametrize("weights", LEVELS)
def test_weights_have_the_values_of_their_format(weights: str) -> None:
    program = lower(_graph(), weights=weights)
    found = {int(w) for n in program.nodes for p in ir.projections(n) for w in p.weight.ravel()}
    assert found <= LEVELS[weights]
    assert max(found) == max(LEVELS[weights])


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="int8, int6, int4, ternary, power-of-two"):
        lower(_graph(), weights="int9")


@pytest.mark.parametrize("weights", LEVELS)
def test_scales_and_integers_fit_best(weights: str) -> None:
    """Every weight has the nearest integer, and no scale near by has a smaller squared error."""
    w = np.random.default_rng(5).normal(0, 1, (4, 30))
    w[2] = 0.0
    form = weight_format(weights)
    levels = np.array(sorted(LEVELS[weights]))

    def error(scale: np.ndarray) -> np.ndarray:
        miss = np.abs(w[:, :, None] - scale[:, None, None] * levels).min(axis=2)
        return np.asarray((miss**2).sum(axis=1))

    scale = form.scales(w, 2.5)
    assert scale[2] == 2.5
    q = form.integers(w, scale)
    assert np.allclose(((w - scale[:, None] * q) ** 2).sum(axis=1), error(scale))
    if weights == "ternary":  # the exact optimum
        finer = np.linspace(0.2, 4.0, 500)
        assert np.all(
            error(scale) <= np.array([error(scale * f) for f in finer]).min(axis=0) + 1e-12
        )
    elif weights != "int8":
        top = np.abs(w).max(axis=1) / form.limit
        assert np.all(error(scale)[[0, 1, 3]] <= error(top)[[0, 1, 3]] + 1e-12)


def test_ternary_scales_are_the_best_of_all_subsets() -> None:
    w = np.abs(np.random.default_rng(1).normal(0, 1, (5, 7)))
    form = weight_format("ternary")
    scale = form.scales(w, 1.0)
    found = ((w - scale[:, None] * form.integers(w, scale)) ** 2).sum(axis=1)
    for row, error in zip(w, found, strict=True):
        chosen = (np.array(m, dtype=bool) for m in product((0, 1), repeat=7) if any(m))
        best = min((row**2).sum() - row[m].sum() ** 2 / m.sum() for m in chosen)
        assert error == pytest.approx(best)


def _times(graph: g.Graph, x: np.ndarray) -> np.ndarray:
    """Spike times of the graph's first layer, as the interpreter tells them."""
    events = Interpreter(lower(graph)).trace(x).events
    out = np.zeros(sum(len(step[1]) for step in events), dtype=np.int64)
    for t, step in enumerate(events, start=1):
        out[step[1]] = t
    return out


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 127])
def test_raw_pixels_become_times(steps: int) -> None:
    """t_s = ceil((1 - x / 255) T), at least 1; where x / 255 meets 1 - k/T exactly the spike is at k."""
    raw = g.Conv(np.ones((1, 1, 1, 1)))
    layers = (
        g.LatencyEncode("raw", "input", raw, activation="identity"),
        g.Output("out", "raw", g.Dense(np.ones((2, 256)))),
    )
    source = g.SampleInput((16, 16, 1), scale=1 / 255)
    rule = g.ReadoutSpec("first-spike", 1e6)
    graph = g.Graph("raw", source, steps, layers, rule)
    x = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    late = -(-(255 - np.arange(256)) * steps // 255)  # ceil, in whole numbers
    assert _times(graph, x).tolist() == np.maximum(late, 1).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
@pytest.mark.parametrize("zero", [0, 5, -7])
def test_samples_count_from_their_zero_point(dtype: str, zero: int) -> None:
    """phi = w scale (raw - zero_point) + b; padding is a sample of value 0, i.e. of raw = zero_point.

    The weights are multiples of their scale, so the float computation is exact up to rounding.
    """
    rng = np.random.default_rng(3)
    low, high = ir.SAMPLE_RANGE[dtype]
    zero, scale, steps = max(zero, low), 1.0 / (high - low), 6
    whole = rng.integers(-127, 128, (3, 3, 2, 2))
    whole[:, 0, 0, 0] = 127
    weight, bias = whole / 127, rng.normal(0, 0.3, 3)
    padding = (1, 0, 2, 1)
    layers = (
        g.LatencyEncode("enc", "input", g.Conv(weight, bias, padding=padding), pool=(2, 1)),
        g.Output("out", "enc", g.Dense(np.ones((2, 45)))),
    )
    source = g.SampleInput((5, 5, 2), dtype, scale, zero)
    graph = g.Graph("zero", source, steps, layers, g.ReadoutSpec("first-spike", 1e6))
    for _ in range(5):
        x = rng.integers(low, high + 1, (5, 5, 2)).astype(dtype)
        value = np.pad(scale * (x.astype(float) - zero), ((1, 2), (0, 1), (0, 0)))
        phi = np.zeros((6, 5, 3))
        for y, at, o in np.ndindex(phi.shape):
            phi[y, at, o] = (value[y : y + 3, at : at + 2] * weight[o]).sum() + bias[o]
        phi = windows(phi, (2, 1), (2, 1)).max(axis=(3, 4))
        feature = 1 / (1 + np.exp(-phi))
        want = np.clip(np.ceil((1 - feature) * steps), 1, steps)
        assert _times(graph, x).tolist() == want.ravel().tolist()


def test_one_step_is_enough() -> None:
    """T = 1: the encoder has no thresholds and every unit spikes in the only step."""
    program = lower(_graph(timesteps=1))
    trace = Interpreter(program).trace(np.zeros((8, 8, 1), np.uint8))
    assert trace.decision.step == 1
    assert len(trace.events[0][1]) == 4 * 4 * 4


def test_a_one_dimensional_signal_is_pooled_along_its_width() -> None:
    rng = np.random.default_rng(0)
    layers: tuple[g.Layer, ...] = (
        g.LatencyEncode("enc", "input", g.Conv(rng.normal(0, 1, (4, 1, 3, 1))), pool=(1, 2)),
        g.Pool("pool", "enc", "or", (1, 3), (1, 2)),
        g.Pool("mean", "pool", "avg", (1, 2), (1, 2)),
        g.Output("out", "mean", g.Dense(rng.normal(0, 1, (2, 12)))),
    )
    graph = _graph(layers=layers, input=g.SampleInput((1, 32, 1), scale=1 / 255))
    shapes = ir.shapes(lower(graph))
    assert (shapes["enc"], shapes["pool"], shapes["mean"]) == ((1, 15, 4), (1, 7, 4), (1, 3, 4))
    bad = (layers[0], g.Pool("pool", "enc", "or", (0, 3), 2), *layers[2:])
    with pytest.raises(EdgesnnError, match="kernel and stride"):
        lower(_graph(layers=bad))
