"""Leaky integrate-and-fire neurons with soft reset and a triangle surrogate gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgesnn.compiler.passes.round_leaks import shift_terms, shift_value
from edgesnn.targets.errors import UsageError


def shift_representable(leak: float) -> float:
    """The value nearest to `leak` in [0, 1] that a device's shifts and adds can represent.

    Training uses what the device will use. Raises UsageError outside [0, 1].
    """
    if not 0.0 <= leak <= 1.0:
        raise UsageError(f"leak {leak!r} is not in [0, 1]")
    return shift_value(shift_terms(leak))


class _Lif(torch.autograd.Function):
    """All T steps as one autograd node: half the memory traffic of an op-by-op loop."""

    @staticmethod
    def forward(
        ctx: Any, currents: Tensor, leak: float, v_threshold: float, width: float
    ) -> Tensor:
        membranes = torch.empty_like(currents)
        spikes = torch.empty_like(currents)
        rest: Tensor | None = None
        for t in range(currents.shape[0]):
            u = membranes[t]
            if rest is None:
                u.copy_(currents[t])
            else:
                torch.add(currents[t], rest, alpha=leak, out=u)
            spikes[t].copy_(u >= v_threshold)
            rest = torch.sub(u, spikes[t], alpha=v_threshold)
        ctx.save_for_backward(membranes)
        ctx.constants = (leak, v_threshold, width)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (membranes,) = ctx.saved_tensors
        leak, v_threshold, width = ctx.constants
        slope = (membranes - v_threshold).abs_().mul_(-1.0 / width).add_(1.0).clamp_(min=0.0)
        slope.mul_(1.0 / width)
        out = grad * slope
        for t in range(membranes.shape[0] - 2, -1, -1):
            # dU[t+1]/dU[t] = leak * (1 - V_th * slope[t]): the reset is differentiated too.
            out[t] += leak * out[t + 1] * (1.0 - v_threshold * slope[t])
        return out, None, None, None


def lif(
    currents: Tensor, leak: float = 0.5, v_threshold: float = 1.0, width: float = 1.0
) -> Tensor:
    """Spikes of a LIF population with soft reset (LE/TAD paper, eqs. 2-4).

        U[t] = leak * (U[t-1] - V_th * S[t-1]) + I[t],   S[t] = H(U[t] - V_th),   U[0] = 0

    currents: float[T, ...] the input current of each step. Returns float[T, ...] of 0 and 1.
    Backward: dS/dU = max(0, 1 - |U - V_th| / width) / width, the triangle surrogate, with full
    backpropagation through time, the reset included.
    """
    spikes: Tensor = _Lif.apply(currents, leak, v_threshold, width)
    return spikes


class Lif(nn.Module):
    """`lif` with fixed constants; `leak` is rounded to what shifts can represent."""

    def __init__(self, leak: float = 0.5, v_threshold: float = 1.0, width: float = 1.0) -> None:
        super().__init__()
        self.leak = shift_representable(leak)
        self.v_threshold = v_threshold
        self.width = width

    def forward(self, currents: Tensor) -> Tensor:
        return lif(currents, self.leak, self.v_threshold, self.width)
