"""Decoding: ties, no exit, all readouts on the device; how the value is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesnn.coding.readout import EARLY_EXITS, EXITS, criterion, decode
from edgesnn.coding.ttfs import tq_ttfs, twd
from edgesnn.compiler import ir
from edgesnn.compiler.interpret import readout
from edgesnn.compiler.random_program import random_program
from edgesnn.parity import check_parity
from edgesnn.targets.errors import UsageError
from edgesnn.training.select import CANDIDATES, Chosen, fine_candidates, select_exit

# float[T = 3, N = 4, classes = 3]
U = np.array(
    [
        [[0.1, 0.9, 0.0], [2.0, 3.0, 2.5], [0.0, 0.2, 0.1], [2.0, 2.0, 0.0]],
        [[1.0, 0.2, 0.0], [9.0, 0.0, 0.0], [0.3, 0.2, 0.1], [0.0, 9.0, 0.0]],
        [[0.0, 0.0, 5.0], [0.0, 9.0, 0.0], [0.1, 0.2, 0.4], [0.0, 0.0, 9.0]],
    ]
)


def test_first_spike_with_membrane_tie_break() -> None:
    out = decode(U, "first-spike", 1.0)
    # Sample 0 spikes at t = 2; in sample 1 all three spike at once, the largest membrane wins;
    # sample 2 never spikes: argmax U[T]; in sample 3 two equal membranes: the lowest index.
    assert out.labels.tolist() == [0, 1, 2, 0]
    assert out.steps.tolist() == [2, 1, 3, 1]
    assert out.exited.tolist() == [True, True, False, True]


def test_a_membrane_equal_to_the_threshold_spikes() -> None:
    assert decode(U, "first-spike", 3.0).steps.tolist()[1] == 1


def test_margin_needs_a_lead_over_the_second() -> None:
    out = decode(U, "margin", 0.75)
    assert out.steps.tolist() == [1, 2, 3, 2]
    assert out.labels.tolist() == [1, 0, 2, 1]
    assert out.exited.tolist() == [True, True, False, True]


def test_rate_takes_all_steps() -> None:
    out = decode(U, "rate", 0.0)
    assert out.labels.tolist() == [2, 1, 2, 2]
    assert out.steps.tolist() == [3, 3, 3, 3] and not out.exited.any()


def test_a_selector_is_first_spike() -> None:
    ours, same = decode(U, "selector", 1.0), decode(U, "first-spike", 1.0)
    assert ours.labels.tolist() == same.labels.tolist()
    assert ours.steps.tolist() == same.steps.tolist()


def test_unknown_exit() -> None:
    with pytest.raises(UsageError, match="first-spike, margin, selector, rate"):
        decode(U, "last", 1.0)
    with pytest.raises(UsageError, match="no value"):
        criterion(U, "rate")


def test_tq_ttfs_reads_times_alone() -> None:
    out = tq_ttfs(U, 1.0)
    # In sample 1 all three classes spike at t = 1: the lowest index, not the largest membrane.
    assert out.labels.tolist() == [0, 0, 0, 0]
    assert out.steps.tolist() == [2, 1, 3, 1]
    assert out.exited.tolist() == [True, True, False, True]
    assert tq_ttfs(U, 4.0).labels.tolist() == [2, 0, 0, 1]


def test_twd_weighs_spikes_by_time() -> None:
    # Scores of sample 1: class 0 spikes at t = 1, 2 (3 + 2), class 1 at 1, 3 (3 + 1), class 2 at 1 (3).
    # Sample 3: class 0 at t = 1 (3), class 1 at 1, 2 (5), class 2 at 3 (1).
    out = twd(U, 1.0)
    assert out.labels.tolist() == [0, 0, 0, 1]
    assert out.steps.tolist() == [3, 3, 3, 3] and not out.exited.any()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["first-spike", "margin", "rate"]))
def test_decoding_equals_the_device(seed: int, kind: str) -> None:
    """On whole numbers, with many ties: the interpreter's readout, step by step."""
    rng = np.random.default_rng(seed)
    u = rng.integers(-4, 8, (3, 5, 4))
    value = int(rng.integers(0, 8))
    rules: dict[str, ir.Readout] = {
        "first-spike": ir.FirstSpike(value),
        "margin": ir.Margin(value),
        "rate": ir.Rate(),
    }
    out = decode(u, kind, value)
    for n in range(u.shape[1]):
        for t in range(len(u)):
            label, exited = readout(rules[kind], u[t, n])
            if exited or t == len(u) - 1:
                break
        assert (out.labels[n], out.steps[n], out.exited[n]) == (label, t + 1, exited)


def separable(classes: int = 4, samples: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Membranes float64[3, samples, classes] that tell the classes apart the better the later."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, samples)
    right = np.eye(classes)[y]
    noise = rng.normal(size=(3, samples, classes))
    return np.stack([(1 + 2 * t) * right + noise[t] for t in range(3)]), y


@pytest.mark.parametrize("kind", EARLY_EXITS)
def test_the_chosen_value_is_the_fastest_of_the_good_ones(kind: str) -> None:
    u, y = separable()
    chosen = select_exit(u, y, kind)
    tried = []
    for value in CANDIDATES:
        out = decode(u, kind, value)
        tried.append((float(out.steps.mean()), -float((out.labels == y).mean()), -float(value)))
    best = max(-a for _, a, _ in tried)
    steps, accuracy, value = min(c for c in tried if -c[1] >= best - 1 / 400 - 1e-9)
    assert chosen == Chosen(-value, -accuracy, steps)
    assert chosen.met


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", ["first-spike", "margin"])
def test_a_wanted_accuracy_or_step_count(kind: str, whole: bool) -> None:
    u, y = separable()
    if whole:
        u = np.rint(100 * u).astype(np.int64)
    values = fine_candidates(u, kind)
    assert len(values) > 100 and values.min() > 0
    figures = []
    for value in values:
        out = decode(u, kind, value)
        figures.append((float((out.labels == y).mean()), float(out.steps.mean())))
    for wanted in (0.6, 0.8, 0.9):
        chosen = select_exit(u, y, kind, accuracy=wanted)
        assert chosen.met and chosen.accuracy >= wanted
        assert chosen.mean_steps == min(s for a, s in figures if a >= wanted)
        assert not whole or chosen.value == int(chosen.value)
    for steps in (1.2, 2.0, 3.0):
        chosen = select_exit(u, y, kind, steps=steps)
        assert chosen.met and chosen.mean_steps <= steps
        assert chosen.accuracy == max(a for a, s in figures if s <= steps)
        out = decode(u, kind, chosen.value)
        assert (chosen.accuracy, chosen.mean_steps) == ((out.labels == y).mean(), out.steps.mean())


def test_one_step_leaves_nothing_to_choose() -> None:
    u, y = separable()
    for options in ({}, {"accuracy": 0.3}, {"steps": 1.0}):
        chosen = select_exit(u[:1], y, "margin", **options)
        assert chosen.met and chosen.mean_steps == 1.0


def test_what_cannot_be_reached_is_said() -> None:
    u, y = separable()
    y[:20] = (y[:20] + 1) % 4  # wrong labels
    best = select_exit(u, y, "margin", accuracy=1.0)
    assert not best.met and best.accuracy == select_exit(u, y, "margin", steps=3.0).accuracy
    late = u - 100.0  # no value above 0 is ever reached
    chosen = select_exit(late, y, "first-spike", steps=2.0)
    assert (chosen.met, chosen.mean_steps) == (False, 3.0)
    rate = select_exit(u, y, "rate", accuracy=0.5)
    assert rate.met and (rate.value, rate.mean_steps) == (0.0, 3.0)
    assert not select_exit(u, y, "rate", steps=2.5).met


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy": 0.9, "steps": 2.0}, "not both"),
        ({"accuracy": 99.0}, "fraction above 0"),
        ({"steps": 0.5}, "at least 1"),
        ({"steps": float("nan")}, "at least 1"),
    ],
)
def test_senseless_wishes(options: dict[str, float], message: str) -> None:
    u, y = separable()
    with pytest.raises(UsageError, match=message):
        select_exit(u, y, "margin", **options)


READOUTS_OF_PROGRAMS: dict[str, Callable[[ir.Program], bool]] = {
    "first-spike": lambda p: isinstance(p.readout, ir.FirstSpike) and len(p.output.leaks) == 1,
    "margin": lambda p: isinstance(p.readout, ir.Margin),
    "selector": lambda p: isinstance(p.readout, ir.FirstSpike) and len(p.output.leaks) > 1,
    "rate": lambda p: isinstance(p.readout, ir.Rate),
}


@pytest.mark.parametrize("kind", EXITS)
def test_every_readout_runs_on_the_host_as_in_the_interpreter(kind: str, tmp_path: Path) -> None:
    programs = [random_program(seed) for seed in range(60)]
    fits = [p for p in programs if READOUTS_OF_PROGRAMS[kind](p)]
    assert len(fits) > 3
    report = check_parity(fits[0], "cpu", samples=6, seed=1, folder=tmp_path)
    assert (report.samples, report.mismatches) == (6, [])
