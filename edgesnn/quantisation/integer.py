"""Exact integer arithmetic on floating-point tensors, and the gradients that training takes instead.

A float32 holds every whole number up to 2^24, a float64 up to 2^53, and sums and products of such numbers are
exact in any order as long as no partial sum is larger. What rounds its inputs or transforms them first is not:
TF32, bfloat16, Winograd, FFT. `exact_arithmetic` keeps those out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from edgesnn.compiler.ir import Shifts

FLOAT32_EXACT = 1 << 24


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within: float32 products of whole numbers are exact on CPU and CUDA.

    oneDNN convolves directly and stays on; NNPACK (Winograd) and cuDNN (Winograd, FFT, TF32) are off, matrix
    products and convolutions round no operand to TF32 or bfloat16, and there is no autocast.
    """
    switches = [(torch.backends.cudnn, "enabled", False), *_precisions()]
    before = [getattr(owner, name) for owner, name, _ in switches]
    with (
        torch.backends.nnpack.flags(enabled=False),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        try:
            for owner, name, value in switches:
                setattr(owner, name, value)
            yield
        finally:
            for (owner, name, _), value in zip(switches, before, strict=True):
                setattr(owner, name, value)


def _precisions() -> list[tuple[Any, str, Any]]:
    """What decides how float32 operands are rounded, and its exact setting; older torch knows one switch."""
    backends: Any = torch.backends
    if not hasattr(backends.mkldnn, "conv"):
        return [(backends.cuda.matmul, "allow_tf32", False)]
    owners = (backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv)
    return [(owner, "fp32_precision", "ieee") for owner in owners]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """The value of `exact` with the gradient of `smooth`; both of one shape."""
    out: Tensor = _StraightThrough.apply(exact, smooth)
    return out


class Leak:
    """leak(u) = sum of sign * floor(u / 2^shift), one for all channels or one each; u is [N, C, H, W].

    Its derivative is taken as sum of sign / 2^shift.
    """

    def __init__(self, leaks: tuple[Shifts, ...], like: Tensor) -> None:
        count = max(len(leak) for leak in leaks)
        signs = like.new_zeros(count, 1, len(leaks), 1, 1)
        factors = like.new_ones(count, 1, len(leaks), 1, 1)
        for c, leak in enumerate(leaks):
            for j, (sign, shift) in enumerate(leak):
                signs[j, 0, c], factors[j, 0, c] = sign, 2.0**-shift
        self._terms = list(zip(signs, factors, strict=True))
        self._slope = (signs * factors).sum(0)

    def __call__(self, u: Tensor) -> Tensor:
        with torch.no_grad():
            exact = torch.zeros_like(u)
            for sign, factor in self._terms:
                exact += sign * torch.floor(u * factor)
        return straight_through(exact, u * self._slope)
