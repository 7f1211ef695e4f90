"""Surrogate derivatives of the Heaviside step, by name: what dS/dU is taken to be at x = U - V_th.

    triangle      max(0, 1 - |x| / w) / w
    rectangle     1 / w for |x| < w / 2
    atan          1 / (w (1 + (pi x / w)^2))
    sigmoid       s (1 - s) 4 / w, with s = 1 / (1 + exp(-4 x / w))

All integrate to 1; `width` w is in units of the membrane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgesnn.targets.errors import UsageError

Surrogate = Callable[[Tensor, float], Tensor]


def triangle(x: Tensor, width: float = 1.0) -> Tensor:
    out = torch.rsub(x.abs(), 1.0, alpha=1.0 / width).clamp_(min=0.0)
    return out if width == 1.0 else out.mul_(1.0 / width)


def rectangle(x: Tensor, width: float = 1.0) -> Tensor:
    return (x.abs() < width / 2).to(x.dtype) / width


def atan(x: Tensor, width: float = 1.0) -> Tensor:
    return 1.0 / (width * (1.0 + (math.pi * x / width) ** 2))


def sigmoid(x: Tensor, width: float = 1.0) -> Tensor:
    s = torch.sigmoid(4.0 * x / width)
    return s * (1.0 - s) * (4.0 / width)


SURROGATES: dict[str, Surrogate] = {
    "triangle": triangle,
    "rectangle": rectangle,
    "atan": atan,
    "sigmoid": sigmoid,
}


def surrogate(name: str) -> Surrogate:
    """The surrogate of that name; UsageError naming the choices."""
    if name not in SURROGATES:
        raise UsageError(f"unknown surrogate {name!r}: one of {', '.join(SURROGATES)}")
    return SURROGATES[name]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, derivative: Surrogate, width: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = (derivative, width)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        derivative, width = ctx.constants
        return grad * derivative(x, width), None, None


def step(x: Tensor, name: str = "triangle", width: float = 1.0) -> Tensor:
    """Heaviside step H(x), 1 at 0, whose derivative is the named surrogate."""
    out: Tensor = _Step.apply(x, surrogate(name), width)
    return out
