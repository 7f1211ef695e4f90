"""The fused LIF against an op-by-op loop that autograd differentiates by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edgesnn.neurons.lif import Lif, lif, shift_representable
from edgesnn.targets.errors import UsageError


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.width = width
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return grad * (1 - distance.abs() / ctx.width).clamp(min=0) / ctx.width, None


def slow_lif(currents: Tensor, leak: float, v_threshold: float, width: float) -> Tensor:
    rest = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        u = leak * rest + current
        s = _Spike.apply(u - v_threshold, width)
        rest = u - v_threshold * s
        spikes.append(s)
    return torch.stack(spikes)


@pytest.mark.parametrize(("leak", "threshold", "width"), [(0.5, 1.0, 1.0), (0.75, 0.8, 2.0)])
def test_forward_and_gradient_equal_the_loop(leak: float, threshold: float, width: float) -> None:
    currents = torch.randn(6, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights = torch.randn(6, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    fast, slow = currents.clone().requires_grad_(), currents.clone().requires_grad_()
    spikes = lif(fast, leak, threshold, width)
    expected = slow_lif(slow, leak, threshold, width)
    assert torch.equal(spikes, expected)
    assert 0.0 < float(spikes.detach().mean()) < 1.0
    (spikes * weights).sum().backward()
    (expected * weights).sum().backward()
    assert fast.grad is not None
    assert slow.grad is not None
    assert torch.allclose(fast.grad, slow.grad, atol=1e-12)


def test_soft_reset_by_hand() -> None:
    # U: 1.5 -> spike, rest .5; .25 + .8 = 1.05 -> spike, rest .05; .025 + .2 = .225; ...
    currents = torch.tensor([[1.5], [0.8], [0.2], [0.9]])
    assert lif(currents).flatten().tolist() == [1.0, 1.0, 0.0, 1.0]


def test_leaks_are_what_shifts_can_do() -> None:
    assert shift_representable(0.5) == 0.5
    assert Lif(leak=0.7).leak == pytest.approx(0.7, abs=0.02)
    assert (Lif(leak=0.7).leak * 256).is_integer()
    with pytest.raises(UsageError, match="not in"):
        Lif(leak=1.5)
