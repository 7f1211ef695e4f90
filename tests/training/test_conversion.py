"""Conversion: an ordinary network's answers come out of the integer program, stated by its definition."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.ann import INPUT, Ann, AnnInput, Term, Unit, Window, unit_shapes
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.exits import gain
from edgesnn.compiler.graph import Conv, Dense
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.passes.convert import (
    CssSettings,
    amplification_of,
    input_digits,
    to_css_program,
    window_gain,
)
from edgesnn.compiler.passes.convert_rate import to_rate_program
from edgesnn.compiler.random_css import random_css_program
from edgesnn.targets.errors import EdgesnnError, UsageError

torch = pytest.importorskip("torch")

from edgesnn.conversion import convert, load_converted, raw_samples, simulate  # noqa: E402
from edgesnn.conversion.amplitudes import first_amplitudes, growth  # noqa: E402
from edgesnn.conversion.forward import AnnForward, multiply_accumulates  # noqa: E402
from edgesnn.conversion.margins import choose_margins  # noqa: E402
from edgesnn.conversion.percentile import TopShare  # noqa: E402
from edgesnn.conversion.samples import read_samples  # noqa: E402

BETAS = (1.2, 1.5, 1.75, 2.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_ann(seed: int, *, residual: bool = True) -> Ann:
    """Convolution with max-pool, a residual block with a strided branch, average pool, dense layers."""
    rng = np.random.default_rng(seed)

    def conv(o, k, i, **more):
        return Conv(rng.normal(0, 1 / math.sqrt(k * k * i), (o, k, k, i)), **more)

    def bias(n):
        return rng.normal(0, 0.1, n)

    same = {"padding": (1, 1, 1, 1)}
    ones = np.ones((6, 1, 1, 1))
    skip = Term("a", Conv(ones, groups=6)) if residual else Term("b", conv(6, 1, 6))
    units = (
        Unit("a", (Term(INPUT, conv(6, 3, 2, **same)),), bias(6), Window((2, 2), (2, 2))),
        Unit("b", (Term("a", conv(6, 3, 6, **same)),), bias(6)),
        Unit("c", (Term("b", conv(6, 3, 6, **same)), skip), bias(6)),
        Unit(
            "mean",
            (Term("c", Conv(np.full((6, 4, 4, 1), 1 / 16), groups=6)),),
            np.zeros(6),
            None,
            False,
        ),
        Unit("d", (Term("mean", Dense(rng.normal(0, 0.6, (12, 6)))),), bias(12)),
        Unit("scores", (Term("d", Dense(rng.normal(0, 0.5, (5, 12)))),), bias(5), None, False),
    )
    return Ann(
        f"random{seed}",
        AnnInput((8, 8, 2), (2, 8, 8), (1, 2, 0), np.ones(2), np.zeros(2)),
        units,
    )


def random_maps(ann: Ann, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *ann.input.shape)).astype(np.uint8)


def values_of(low: float = 0.0, high: float = 1.0, channels: int = 2) -> np.ndarray:
    return np.broadcast_to(np.linspace(low, high, 256), (channels, 256))


def settings_for(ann, x, values, timesteps=8, beta=2.0, **more) -> CssSettings:
    amp = amplification_of(beta)
    p = AnnForward(ann, values).percentiles(x, 0.9999)
    theta = first_amplitudes(ann, p, window_gain(amp, timesteps))
    return CssSettings(values, theta, timesteps, amp, readout=ir.Css("never"), **more)


# --- parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.2, 1.3, 1.5, 1.6, 1.75, 2.0])
def test_amplification_is_near_beta_in_three_shifts(beta):
    terms = amplification_of(beta)
    assert len(terms) <= 3
    assert 1 < gain(terms) <= 2
    assert abs(float(gain(terms)) - beta) <= 0.04


def test_amplifications_of_the_paper_are_exact():
    assert amplification_of(2) == ((1, 0), (1, 0))
    assert amplification_of(1.5) == ((1, 0), (1, 1))


@pytest.mark.parametrize("beta", [1.0, 0.5, 2.1, math.nan])
def test_beta_out_of_range(beta):
    with pytest.raises(UsageError, match="beta is above 1"):
        amplification_of(beta)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("steps", [1, 3, 8, 12])
def test_digits_stand_for_the_value(beta, steps):
    """Theorem 3: the train is within one amplitude of the value, and the largest value saturates."""
    beta = float(gain(amplification_of(beta)))
    values = np.linspace(-0.7, 1.0, 256)[None]
    digits, theta = input_digits(values, steps, beta)
    weight = beta ** np.arange(steps - 1, -1, -1)
    coded = theta * (digits * weight).sum(axis=2)
    assert theta == pytest.approx(1.0 / weight.sum())
    assert np.abs(coded - values).max() < theta
    assert coded[0, 255] == pytest.approx(1.0)


def test_digits_of_beta_two_are_nearest():
    digits, theta = input_digits(values_of(-1, 1), 6, 2.0)
    coded = theta * (digits * 2.0 ** np.arange(5, -1, -1)).sum(axis=2)
    assert digits.shape == (1, 256, 6)  # one table for channels of one scale
    assert np.abs(coded - values_of(-1, 1)).max() <= theta / 2 + 1e-12


def test_top_share_is_the_percentile():
    x = torch.from_numpy(np.random.default_rng(0).permutation(100_000).astype(np.float64))
    top = TopShare(0.999, 100_000)
    for part in x.split(777):
        top.add(part)
    assert top.value == top.at(0.999) == 99_899
    assert top.at(0.9999) == 99_989
    assert top.at(1.0) == 99_999


def test_growth_is_equation_a18():
    total = 255.0
    assert growth(0.9, total) == growth(1.0, total) == 1.0
    assert growth(1.0 + 0.005 * total, total) == pytest.approx(1.02)
    assert growth(1.0 + 0.03 * total, total) == pytest.approx(1.06)
    assert growth(1.0 + 0.4 * total, total) == pytest.approx(1.4)
    below, above = (growth(1 + (0.01 + e) * total, total) for e in (-1e-9, 1e-9))
    assert below == pytest.approx(above, abs=1e-6)


def test_amplitudes_end_at_the_ceiling():
    units = (
        Unit("a", (Term(INPUT, Dense(np.ones((3, 4)))),), np.zeros(3), ceiling=6.0),
        Unit("b", (Term("a", Dense(np.ones((3, 3)))),), np.zeros(3), ceiling=7.0, step=1.0),
        Unit("dead", (Term("b", Dense(np.full((3, 3), -0.25))),), np.zeros(3)),
        Unit("y", (Term("dead", Dense(np.ones((2, 3)))),), np.zeros(2), None, False),
    )
    ann = Ann("n", AnnInput((1, 1, 4), (4,), (-1, -1, 0), np.ones(4), np.zeros(4)), units)
    theta = first_amplitudes(ann, {"a": 9.0, "b": 3.0, "dead": 0.0}, 7.0)
    assert theta == {"a": 6.0 / 7, "b": 1.0, "dead": pytest.approx(0.25 / 7)}


def test_forward_is_the_definition():
    from edgesnn.compiler.ann_forward import forward

    ann, values = random_ann(3), values_of(-0.5, 1.0)
    x = random_maps(ann, 6)
    want = forward(ann, values[np.arange(2), x])
    fast = AnnForward(ann, values, torch.float64)
    for name, y in fast.run(x):
        assert np.allclose(y.permute(0, 2, 3, 1).numpy(), want[name], atol=1e-12)
    assert np.allclose(fast.scores(x), want["scores"].reshape(6, -1))
    p = fast.percentiles(x, 0.9)
    assert p["b"] == pytest.approx(np.quantile(np.abs(want["b"]), 0.9, method="higher"), rel=0.02)


def test_multiply_accumulates_inside_the_map():
    ann = Ann(
        "n",
        AnnInput((3, 3, 1), (1, 3, 3), (1, 2, 0), np.ones(1), np.zeros(1)),
        (
            Unit(
                "a", (Term(INPUT, Conv(np.ones((2, 3, 3, 1)), padding=(1, 1, 1, 1))),), np.zeros(2)
            ),
            Unit("y", (Term("a", Dense(np.ones((4, 18)))),), np.zeros(4), None, False),
        ),
    )
    assert multiply_accumulates(ann) == 2 * 49 + 72  # 4 + 6 + 9 + ... positions of a 3 x 3 map


# --- the program -----------------------------------------------------------------------------------------


def same_as_interpreter(program: ir.Program, x: np.ndarray) -> None:
    run, engine = simulate(program, x), Interpreter(program)
    for i, sample in enumerate(x):
        d = engine.infer(sample)
        assert (d.label, d.step, d.exited) == (run.labels[i], run.steps[i], run.exited[i])
        assert np.array_equal(d.membranes, run.membranes[i])
        assert np.array_equal(d.events, run.events[i])
        assert np.array_equal(d.sops, run.sops[i])


@pytest.mark.parametrize("seed", range(40))
def test_simulation_is_the_interpreter(seed):
    program = random_css_program(seed)
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (4, *program.input.shape)).astype(np.uint8)
    x[::2] *= (rng.random(x[::2].shape) < 0.3).astype(np.uint8)
    same_as_interpreter(program, x)


@pytest.mark.parametrize("exit", ["sound", "never"])
@pytest.mark.parametrize("beta", [1.5, 2.0])
def test_simulation_of_a_converted_network(beta, exit):
    ann, values = random_ann(0), values_of(-0.4, 1.0)
    x = random_maps(ann, 40)
    program, _ = to_css_program(ann, settings_for(ann, x, values, 6, beta))
    same_as_interpreter(replace(program, readout=ir.Css(exit)), x[:6])


@pytest.mark.parametrize("beta", [1.5, 1.75, 2.0])
@pytest.mark.parametrize("weights", ["int8", "int16"])
def test_program_computes_the_scores(weights, beta):
    """The output membranes stand for the network's scores, the closer the longer the trains."""
    ann, values = random_ann(1), values_of(-0.4, 1.0)
    x = random_maps(ann, 100)
    scores = AnnForward(ann, values).scores(x)
    errors = []
    for steps in (5, 12):
        chosen = settings_for(ann, x, values, steps, beta, weights=weights)
        program, units = to_css_program(ann, chosen)
        run = simulate(program, x)
        errors.append(np.abs(run.history[:, -1] * units["scores"].sum - scores).max())
        dtypes = {p.weight.dtype.name for n in program.nodes for p in ir.projections(n)}
        assert (weights == "int16") == (dtypes == {"int16"})
    assert errors[1] < 0.7 * errors[0]
    assert errors[1] < (0.1 if weights == "int8" else 0.06) * np.abs(scores).max()


def test_delays_align_the_branches():
    ann, values = random_ann(2), values_of()
    x = random_maps(ann, 20)
    for silent in (0, 1, 2):
        program, _ = to_css_program(ann, settings_for(ann, x, values, silent=silent))
        straight, skip = program.node("c").projections
        assert (straight.delay, skip.delay) == (0, silent)
        assert program.timesteps == 8 + 5 * silent


def test_a_skip_may_be_wide():
    """Identities do not decide the scale of a unit: they are stored in 16 bits where 8 do not hold them."""
    ann, values = random_ann(2), values_of()
    small = replace(
        ann.units[2],
        terms=(
            replace(
                ann.units[2].terms[0],
                linear=Conv(np.full((6, 3, 3, 6), 0.01), padding=(1, 1, 1, 1)),
            ),
            ann.units[2].terms[1],
        ),
    )
    ann = replace(ann, units=(*ann.units[:2], small, *ann.units[3:]))
    program, _ = to_css_program(ann, settings_for(ann, random_maps(ann, 20), values))
    straight, skip = program.node("c").projections
    assert (straight.weight.dtype, skip.weight.dtype) == (np.int8, np.int16)
    assert np.abs(straight.weight).max() > 80
    assert np.abs(skip.weight).max() > 1000


def test_the_mean_of_positive_units_counts_as_rectified():
    """So that the sound exit may count on it (exits.narrowing)."""
    ann = random_ann(2)
    program, _ = to_css_program(ann, settings_for(ann, random_maps(ann, 20), values_of()))
    assert program.node("mean").rectified


def test_max_pool_is_that_of_the_activations():
    """A pooled train stands for the largest activation of the window, to within an amplitude."""
    rng = np.random.default_rng(5)
    units = (
        Unit(
            "a",
            (Term(INPUT, Conv(rng.normal(0, 1, (4, 3, 3, 1)))),),
            rng.normal(0, 0.2, 4),
            Window((3, 3), (2, 2), (1, 1, 1, 1)),
        ),
        Unit("y", (Term("a", Dense(np.eye(4 * 9))),), np.zeros(36), None, False),
    )
    ann = Ann("p", AnnInput((8, 8, 1), (1, 8, 8), (1, 2, 0), np.ones(1), np.zeros(1)), units)
    values, x = values_of(-1, 1, 1), random_maps(ann, 50)
    assert unit_shapes(ann)["a"] == (3, 3, 4)
    scores = AnnForward(ann, values).scores(x)
    chosen = settings_for(ann, x, values, 10, weights="int16")
    program, measure = to_css_program(ann, chosen)
    u = simulate(program, x).history[:, -1] * measure["y"].sum
    assert np.abs(u - scores).max() < 4 * chosen.theta["a"]


def test_quantised_activations_are_met_exactly():
    """Section 5.3: beta 2, theta = step: with T bits the trains are the network's levels."""
    rng = np.random.default_rng(0)
    units = (
        Unit("a", (Term(INPUT, Dense(np.eye(4))),), np.zeros(4), ceiling=7.0, step=1.0),
        Unit(
            "y",
            (Term("a", Dense(rng.integers(-3, 4, (3, 4)).astype(float))),),
            np.zeros(3),
            None,
            False,
        ),
    )
    ann = Ann("q", AnnInput((1, 1, 4), (4,), (-1, -1, 0), np.ones(4), np.zeros(4)), units)
    values = np.broadcast_to(np.floor(np.linspace(-7, 7.99, 256)), (4, 256))
    x = random_maps(ann, 100)
    program, measure = to_css_program(ann, settings_for(ann, x, values, 3, weights="int16"))
    u = simulate(program, x).history[:, -1] * measure["y"].sum
    assert np.allclose(u, AnnForward(ann, values).scores(x), atol=0.01)


def test_scores_that_are_a_mean_over_the_map():
    """A convolution in the output becomes dense; padding and groups are counted."""
    rng = np.random.default_rng(7)
    conv = Conv(rng.normal(0, 0.4, (4, 3, 3, 2)), padding=(0, 1, 0, 1), stride=(2, 3), groups=2)
    units = (
        Unit("a", (Term(INPUT, Conv(rng.normal(0, 0.5, (4, 2, 2, 1)))),), np.zeros(4)),
        Unit("y", (Term("a", conv),), rng.normal(0, 1, 4), None, False),
    )
    ann = Ann("m", AnnInput((4, 3, 1), (1, 4, 3), (1, 2, 0), np.ones(1), np.zeros(1)), units)
    values, x = values_of(-1, 1, 1), random_maps(ann, 40)
    assert unit_shapes(ann)["y"] == (1, 1, 4)
    program, measure = to_css_program(ann, settings_for(ann, x, values, 10, weights="int16"))
    u = simulate(program, x).history[:, -1] * measure["y"].sum
    scores = AnnForward(ann, values).scores(x)
    assert np.abs(u - scores).max() < 0.03 * np.abs(scores).max()


def test_scores_have_to_be_one_row():
    units = (Unit("y", (Term(INPUT, Conv(np.ones((4, 2, 2, 1)))),), np.zeros(4), None, False),)
    ann = Ann("m", AnnInput((4, 3, 1), (1, 4, 3), (1, 2, 0), np.ones(1), np.zeros(1)), units)
    with pytest.raises(EdgesnnError, match="not one row"):
        convert(ann, random_maps(ann, 60).transpose(0, 3, 1, 2))


def test_one_amplitude_per_channel():
    ann, values = random_ann(4), values_of()
    x = random_maps(ann, 60)
    chosen = settings_for(ann, x, values, 10, weights="int16")
    spread = {
        n: t * np.linspace(1.0, 1.5, len(ann.units[i].bias))
        for i, (n, t) in enumerate(chosen.theta.items())
    }
    scores = AnnForward(ann, values).scores(x)
    program, measure = to_css_program(ann, replace(chosen, theta=spread))
    u = simulate(program, x).history[:, -1] * measure["scores"].sum
    assert np.abs(u - scores).max() < 0.05 * np.abs(scores).max()


def test_long_trains_of_wide_weights_still_fit_32_bits():
    rng = np.random.default_rng(0)
    units = (
        Unit("a", (Term(INPUT, Dense(rng.normal(0, 1, (8, 3000)))),), np.full(8, 50.0)),
        Unit("y", (Term("a", Dense(rng.normal(0, 1, (3, 8)))),), np.zeros(3), None, False),
    )
    ann = Ann(
        "wide", AnnInput((1, 1, 3000), (3000,), (-1, -1, 0), np.ones(3000), np.zeros(3000)), units
    )
    values, x = values_of(0, 1, 3000), random_maps(ann, 30)
    program, _ = to_css_program(ann, settings_for(ann, x, values, 16, weights="int16"))
    hi = prove(program).nodes["a"].hi
    assert hi is not None and hi.max() > 2**28  # and no coarser than it has to be


def test_weights_fit_16_bit_sums_where_that_is_cheap():
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.6, 1.0, (4, 300)) * rng.choice([-1, 1], (4, 300))
    units = (
        Unit("a", (Term(INPUT, Dense(weight)),), np.zeros(4)),
        Unit("y", (Term("a", Dense(rng.normal(0, 1, (3, 4)))),), np.zeros(3), None, False),
    )
    ann = Ann("n", AnnInput((1, 1, 300), (300,), (-1, -1, 0), np.ones(300), np.zeros(300)), units)
    x = random_maps(ann, 30)
    program, _ = to_css_program(ann, settings_for(ann, x, values_of(0, 1, 300)))
    assert prove(program).nodes["a"].sums == "int16"


# --- rates -----------------------------------------------------------------------------------------------


def test_rates_approach_the_scores():
    """Without max-pool, which is approximate, and with values of both signs at the input."""
    ann, values = random_ann(1), values_of(-0.5, 1.0)
    ann = replace(
        ann,
        units=(
            replace(
                ann.units[0],
                pool=None,
                terms=(
                    replace(
                        ann.units[0].terms[0],
                        linear=Conv(
                            ann.units[0].terms[0].linear.weight, None, (2, 2), (1, 1, 0, 0)
                        ),
                    ),
                ),
            ),
            *ann.units[1:],
        ),
    )
    x = random_maps(ann, 60)
    forward = AnnForward(ann, values)
    scores, ranges = forward.scores(x), forward.percentiles(x, 1.0)
    same = []
    for steps in (8, 127):
        program = to_rate_program(ann, values, ranges, steps)
        same_as_interpreter(program, x[:2])
        run = simulate(program, x)
        same.append((run.labels == scores.argmax(axis=1)).mean())
        slope = np.corrcoef(run.membranes.ravel(), scores.ravel())[0, 1]
    assert same[1] > 0.9
    assert same[1] >= same[0]
    assert slope > 0.98


def test_rates_of_an_input_that_is_read_twice():
    """A skip from the input needs neurons for both signs of it."""
    rng = np.random.default_rng(3)
    units = (
        Unit(
            "a",
            (Term(INPUT, Conv(rng.normal(0, 0.5, (2, 3, 3, 2)), None, padding=(1, 1, 1, 1))),),
            np.zeros(2),
        ),
        Unit(
            "b",
            (
                Term("a", Conv(rng.normal(0, 0.5, (2, 1, 1, 2)))),
                Term(INPUT, Conv(np.ones((2, 1, 1, 1)), groups=2)),
            ),
            np.zeros(2),
            None,
            False,
        ),
        Unit("y", (Term("b", Dense(rng.normal(0, 0.5, (3, 32)))),), np.zeros(3), None, False),
    )
    ann = Ann("r", AnnInput((4, 4, 2), (2, 4, 4), (1, 2, 0), np.ones(2), np.zeros(2)), units)
    values, x = values_of(-1, 1), random_maps(ann, 60)
    forward = AnnForward(ann, values)
    program = to_rate_program(ann, values, forward.percentiles(x, 1.0), 127)
    assert program.node("encoder").bias.shape == (4,)
    same_as_interpreter(program, x[:2])
    scores = forward.scores(x)
    u = simulate(program, x).membranes
    assert np.corrcoef(u.ravel(), scores.ravel())[0, 1] > 0.99


# --- the whole way ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """A small network on 8 x 8 digits as a torch module, with data 0...255 (uint8) and labels."""
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    x = np.minimum(bundled.images * 16, 255).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], bundled.target[order]
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    fed = torch.from_numpy(x[:1200, None].astype(np.float32) / 255 - 0.3) / 0.4
    labels = torch.from_numpy(y[:1200]).long()
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(12):
        for chosen in torch.randperm(1200).split(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(fed[chosen]), labels[chosen]).backward()
            optimiser.step()
    return net, x, y


@pytest.fixture(scope="module")
def npz(digits, tmp_path_factory):
    _, x, y = digits
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x=x[1200:], y=y[1200:])
    return path


@pytest.fixture(scope="module")
def converted(digits, npz):
    pytest.importorskip("onnx")
    net, _, _ = digits
    net.train()
    lines = []
    done = convert(net, npz, mean=0.3, std=0.4, held_out=0.5, name="digits", say=lines.append)
    assert net.training and all(m.training for m in net)
    assert lines
    return done


def test_a_module_is_converted_without_loss(converted):
    held = converted.report["held_out"]
    assert held["ann_accuracy"] > 0.93
    assert abs(held["loss_points"]) <= 0.4
    assert held["agreement"] >= 0.99
    assert held["changed"] == 0
    assert held["mean_output_steps"] < 7


def test_the_report_is_plain_and_complete(converted):
    report = json.loads(json.dumps(converted.report, allow_nan=False))
    assert report["latency"] == converted.program.timesteps == 10
    assert report["period"] == 9
    assert report["amplification"] == "u + u"
    assert report["input"]["fed"] == pytest.approx([-0.75, 1.75])
    assert [row["name"] for row in report["layers"]] == [
        n.name for n in converted.program.nodes[1:]
    ]
    assert sum(row["sops"] for row in report["layers"]) == pytest.approx(report["sops"])
    assert report["energy"]["ann_pj"] == pytest.approx(4.6 * report["macs"])
    assert report["energy"]["snn_pj"] == pytest.approx(0.9 * report["sops"])
    for row in report["layers"]:
        assert (row["amplitude"] is None) == (row["kind"] == "CssOutput")
        assert (row["residual"] is None) == (row["kind"] != "Tsa")
    assert set(converted.program.rates) == {n.name for n in converted.program.nodes}


def test_it_is_the_same_for_the_same_seed(digits, npz, converted):
    again = convert(digits[0], npz, mean=0.3, std=0.4, held_out=0.5, name="digits")
    assert again.program.digest() == converted.program.digest()


def test_saved_and_loaded(converted, tmp_path):
    path = tmp_path / "digits.pt"
    converted.save(path)
    program, report = load_converted(path)
    assert program.digest() == converted.program.digest()
    assert program.rates == converted.program.rates
    assert report == converted.report


def test_damaged_files_give_one_line(converted, tmp_path):
    path = tmp_path / "digits.pt"
    converted.save(path)
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"nonsense"):
        path.write_bytes(damage)
        with pytest.raises(EdgesnnError) as error:
            load_converted(path)
        assert "\n" not in str(error.value)
    table = {"format": "edgesnn-converted", "version": 1, "program": "x = 1", "arrays": {}}
    for more, what in (
        ({}, "missing or unknown fields"),
        ({"rates": {}, "report": {}}, "damaged converted network"),
        ({"rates": {}, "report": {}, "arrays": {"a": [1]}}, "not a tensor"),
    ):
        torch.save({**table, **more}, path)
        with pytest.raises(EdgesnnError, match=what) as error:
            load_converted(path)
        assert "\n" not in str(error.value)
    torch.save({**table, "version": 2}, path)
    with pytest.raises(EdgesnnError, match="update it"):
        load_converted(path)
    with pytest.raises(EdgesnnError, match="no such file"):
        load_converted(tmp_path / "none.pt")


def test_float_data_are_mapped_onto_raw_samples(digits):
    pytest.importorskip("onnx")
    net, x, y = digits
    fed = (x[1200:, None] / 255.0 - 0.3) / 0.4
    done = convert(net, fed.astype(np.float32), name="digits")
    about = done.report["input"]
    assert (about["dtype"], about["low"], about["high"]) == (
        "float",
        pytest.approx(-0.75),
        pytest.approx(1.75),
    )
    raw = raw_samples(fed, about)
    assert np.abs(raw[:, 0].astype(int) - x[1200:]).max() <= 1
    run = simulate(done.program, raw.transpose(0, 2, 3, 1))
    assert (run.labels == y[1200:]).mean() > 0.93
    assert done.report["held_out"]["accuracy"] is None
    assert done.report["held_out"]["agreement"] >= 0.98


def test_confidence_stops_earlier_and_says_what_it_costs(digits, npz, converted):
    done = convert(digits[0], npz, mean=0.3, std=0.4, held_out=0.5, name="digits", confidence=0.95)
    assert done.program.readout.exit == "margin"
    report = done.report
    assert report["exit"] == "margin"
    assert report["confidence"]["disagreement"] < 0.08
    assert (
        report["held_out"]["mean_output_steps"] < converted.report["held_out"]["mean_output_steps"]
    )


def test_margins_keep_their_promise_on_the_calibration_data():
    rng = np.random.default_rng(0)
    drift = rng.normal(0, 1, (2000, 1, 4)) * 40
    history = (np.cumsum(rng.normal(0, 60, (2000, 6, 4)), axis=1) + drift).astype(np.int64)
    for confidence in (0.8, 0.95, 0.999):
        margins = choose_margins(history, confidence)
        two = np.sort(history, axis=2)[..., -2:]
        met = two[..., 1] - two[..., 0] >= np.array(margins)
        stop = met.argmax(axis=1)
        label = history.argmax(axis=2)
        wrong = (label[np.arange(2000), stop] != label[:, -1]).mean()
        assert len(margins) == 6 and margins[-1] == 0
        assert wrong <= 1 - confidence
        if confidence == 0.8:
            assert wrong > 0.1


def test_rate_coding_in_the_same_call(digits, npz):
    done = convert(
        digits[0], npz, coding="rate", mean=0.3, std=0.4, held_out=0.5, name="digits", timesteps=64
    )
    assert isinstance(done.program.readout, ir.Rate)
    assert done.report["held_out"]["agreement"] > 0.8
    assert done.report["latency"] == 64
    json.dumps(done.report, allow_nan=False)


@pytest.mark.parametrize(
    "ablated", [{"silent": 0}, {"signed": False}, {"beta": 1.5}, {"weights": "int16"}]
)
def test_ablations_are_options(digits, npz, ablated):
    done = convert(digits[0], npz, mean=0.3, std=0.4, name="digits", **ablated)
    assert done.report["held_out"]["agreement"] > 0.5
    for option, value in ablated.items():
        assert done.report[option] == value


BAD_OPTIONS = [
    ({"coding": "ttfs"}, "unknown coding"),
    ({"weights": "int4"}, "unknown weights"),
    ({"timesteps": 17}, "1...16"),
    ({"timesteps": 2.5}, "whole number"),
    ({"beta": 3.0}, "beta is above 1"),
    ({"silent": 9}, "silent"),
    ({"seed": -1}, "seed"),
    ({"confidence": 1.0}, "confidence"),
    ({"held_out": 0.9}, "held_out"),
    ({"mean": [1, 2, 3]}, "mean is"),
    ({"mean": "x"}, "mean is"),
    ({"std": 0}, "std has a value"),
    ({"class_names": ("a",)}, "1 class names for 5"),
    ({"coding": "rate", "beta": 1.5}, "beta: not with rate"),
    ({"coding": "rate", "confidence": 0.9}, "confidence: not with rate"),
    ({"coding": "rate", "timesteps": 200}, "1...127"),
]


@pytest.mark.parametrize(("options", "says"), BAD_OPTIONS)
def test_options_that_make_no_sense(options, says):
    ann = random_ann(0)
    x = random_maps(ann, 60).transpose(0, 3, 1, 2)
    with pytest.raises(UsageError, match=says) as error:
        convert(ann, x, **options)
    assert "\n" not in str(error.value)


def test_data_that_make_no_sense(tmp_path):
    ann = random_ann(0)
    x = np.random.default_rng(0).random((60, 2, 8, 8))
    nan = x.copy()
    nan[3, 0, 0, 0] = np.nan
    for bad, says in (
        (x[:20], "20 samples; conversion needs at least 50"),
        (x.transpose(0, 2, 3, 1), "axis order"),
        (nan, "not finite"),
        (np.zeros_like(x), "every value of x is 0"),
        (np.zeros(x.shape, np.int32), "give uint8"),
        (tmp_path / "none.npz", "no such file"),
    ):
        with pytest.raises(EdgesnnError, match=says) as error:
            read_samples(ann, bad)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="mean and std are for uint8"):
        read_samples(ann, x, mean=0.5)
    path = tmp_path / "y.npz"
    for y, says in (
        (np.full(60, 7), "5 classes apart"),
        (np.zeros(3, int), "not 60 whole numbers"),
    ):
        np.savez(path, x=x, y=y)
        with pytest.raises(EdgesnnError, match=says):
            read_samples(ann, path)


def test_modules_that_cannot_be_converted(digits):
    pytest.importorskip("onnx")
    _, x, _ = digits
    with pytest.raises(EdgesnnError, match="does not take samples of shape") as error:
        convert(torch.nn.Conv2d(3, 4, 3), x)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="is not a network"):
        convert(42, x)  # type: ignore[arg-type]


def test_a_missing_channel_axis_is_added():
    ann = random_ann(0)
    one = replace(
        ann,
        input=AnnInput((8, 8, 1), (1, 8, 8), (1, 2, 0), np.ones(1), np.zeros(1)),
        units=(
            replace(
                ann.units[0],
                terms=(Term(INPUT, Conv(np.ones((6, 3, 3, 1)), padding=(1, 1, 1, 1))),),
            ),
            *ann.units[1:],
        ),
    )
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    assert read_samples(one, x).x.shape == (60, 8, 8, 1)
