"""The latency encoder against eq. 8 and against a slow, literal form of its edge gradient."""

from __future__ import annotations

import math

import pytest
import torch

from edgesnn.coding.latency import LatencyEncoder, latency_encode
from edgesnn.targets.errors import UsageError


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_one_spike_at_the_ceiling_of_one_minus_f_times_t(steps: int) -> None:
    # Multiples of 1/64 are exact in float32, so eq. 8 can be taken literally, edges included.
    features = torch.arange(0, 65) / 64.0
    spikes = latency_encode(features, steps)
    assert spikes.shape == (steps, 65)
    assert torch.equal(spikes.sum(0), torch.ones(65))
    times = spikes.argmax(0) + 1
    expected = [min(max(math.ceil((1 - n / 64) * steps - 1e-9), 1), steps) for n in range(65)]
    assert times.tolist() == expected


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_edge_gradient_equals_the_slow_formula(steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    features = torch.rand(3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    weights = torch.randn(steps, 3, 5, dtype=torch.float64, generator=generator)
    (latency_encode(features, steps) * weights).sum().backward()
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for i in range(3):
        for j in range(5):
            f = float(features[i, j].detach())
            for k in range(1, steps):
                edge = max(0.0, 1.0 - abs((f - (1.0 - k / steps)) * steps))
                expected[i, j] += float(weights[k - 1, i, j] - weights[k, i, j]) * steps * edge
    assert features.grad is not None
    assert torch.allclose(features.grad, expected, atol=1e-12)
    assert float(features.grad.abs().sum()) > 0.0


def test_one_step_encodes_nothing() -> None:
    features = torch.rand(3, 5, requires_grad=True)
    for gradient, expected in (("edge", 0.0), ("straight-through", 1.0)):
        features.grad = None
        spikes = latency_encode(features, 1, gradient)
        assert torch.equal(spikes, torch.ones(1, 3, 5))
        spikes.sum().backward()
        assert features.grad is not None
        assert torch.equal(features.grad, torch.full((3, 5), expected))


def test_straight_through_gradient_is_the_sum_over_time() -> None:
    features = torch.rand(6, requires_grad=True)
    weights = torch.randn(4, 6)
    (latency_encode(features, 4, "straight-through") * weights).sum().backward()
    assert features.grad is not None
    assert torch.allclose(features.grad, weights.sum(0))


def test_encoder_applies_the_sigmoid_and_refuses_nonsense() -> None:
    potential = torch.linspace(-3, 3, 13)
    assert torch.equal(LatencyEncoder(4)(potential), latency_encode(torch.sigmoid(potential), 4))
    with pytest.raises(UsageError, match="at least 1"):
        LatencyEncoder(0)
    with pytest.raises(UsageError, match="edge, straight-through"):
        LatencyEncoder(4, "sigmoid")
