"""Latency encoding: a value becomes the time of one spike (LE/TAD paper, section III-A)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgesnn.neurons.layout import like_rows, memory_order, rows
from edgesnn.targets.errors import UsageError

GRADIENTS = ("edge", "straight-through")


def _spikes(features: Tensor, timesteps: int) -> Tensor:
    """X[t] = c_t - c_(t-1), float[T, ...]: t_s <= k exactly when F >= 1 - k/T, i.e. where c_k is 1."""
    order = memory_order(features[None])
    flat = rows(features[None], order)[0]
    out = flat.new_empty((timesteps, len(flat)))
    for k in range(1, timesteps):
        torch.ge(flat, 1.0 - k / timesteps, out=out[k - 1])  # c_k
    out[timesteps - 1].fill_(1.0)
    for k in range(timesteps - 1, 0, -1):
        out[k].sub_(out[k - 1])
    return like_rows(out, features[None], order)


class _EdgeEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, timesteps: int) -> Tensor:
        ctx.save_for_backward(features)
        ctx.timesteps = timesteps
        return _spikes(features, timesteps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        steps = ctx.timesteps
        out = torch.zeros_like(features)
        for k in range(1, steps):
            distance = (features - (1.0 - k / steps)).mul_(steps).abs_()
            edge = distance.neg_().add_(1.0).clamp_(min=0.0)
            out.addcmul_(grad[k - 1] - grad[k], edge, value=float(steps))
        return out, None


class _StraightThroughEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, timesteps: int) -> Tensor:
        return _spikes(features, timesteps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.sum(0), None


def check_latency(timesteps: int, gradient: str) -> None:
    """UsageError if there is no such latency code."""
    if timesteps < 1:
        raise UsageError(f"timesteps {timesteps}: a latency code needs at least 1")
    if gradient not in GRADIENTS:
        raise UsageError(f"unknown encoder gradient {gradient!r}: one of {', '.join(GRADIENTS)}")


def latency_encode(features: Tensor, timesteps: int, gradient: str = "edge") -> Tensor:
    """One spike per value: X[t] = 1 at t = t_s = ceil((1 - F) T), clipped to 1...T (eqs. 6-8).

    features: float[...] in [0, 1]; returns float[T, ...] of 0 and 1.
    gradient "edge": with X[k] = c_k - c_(k-1) and c_k = H(F - (1 - k/T)) the step H is given the
    triangle derivative of width 1/T, so moving the spike one step earlier or later is what counts:

        dF = sum_(k=1)^(T-1) (g[k] - g[k+1]) * T * max(0, 1 - |F - (1 - k/T)| T),   g[k] = dL/dX[k]

    gradient "straight-through": dF = sum_t g[t] (eq. 9).

    T = 1 encodes nothing: every value spikes at the only step.
    """
    check_latency(timesteps, gradient)
    encode = _EdgeEncode if gradient == "edge" else _StraightThroughEncode
    out: Tensor = encode.apply(features, timesteps)
    return out


class LatencyEncoder(nn.Module):
    """sigmoid, then `latency_encode`: float[N, ...] to float[T, N, ...] (eqs. 5-8)."""

    def __init__(self, timesteps: int, gradient: str = "edge") -> None:
        super().__init__()
        check_latency(timesteps, gradient)
        self.timesteps = timesteps
        self.gradient = gradient

    def forward(self, potential: Tensor) -> Tensor:
        return latency_encode(torch.sigmoid(potential), self.timesteps, self.gradient)
