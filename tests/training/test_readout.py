"""Decoding: first spike, ties, margin, no exit; and how the value is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from edgesnn.coding.readout import decode
from edgesnn.targets.errors import UsageError
from edgesnn.training.select import CANDIDATES, select_exit

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


def test_unknown_exit() -> None:
    with pytest.raises(UsageError, match="first-spike, margin"):
        decode(U, "rate", 1.0)


def test_the_chosen_value_is_the_fastest_of_the_good_ones() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    right = np.eye(4)[y]
    noise = rng.normal(size=(3, 400, 4))
    u = np.stack([(1 + 2 * t) * right + noise[t] for t in range(3)])
    for kind in ("first-spike", "margin"):
        chosen = select_exit(u, y, kind)
        tried = []
        for value in CANDIDATES:
            out = decode(u, kind, value)
            tried.append((float((out.labels == y).mean()), float(out.steps.mean())))
        best = max(a for a, _ in tried)
        fastest = min(s for a, s in tried if a >= best - 1 / 400 - 1e-9)
        assert chosen.mean_steps == fastest
        out = decode(u, kind, chosen.value)
        assert (chosen.accuracy, chosen.mean_steps) == ((out.labels == y).mean(), out.steps.mean())
        assert chosen.accuracy >= best - 1 / 400 - 1e-9
