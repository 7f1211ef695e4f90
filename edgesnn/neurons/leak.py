"""Leaks that a device can compute: sums of at most three signed powers of two, learned or fixed."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor, nn

from edgesnn.compiler.passes.round_leaks import MAX_SHIFT, shift_terms, shift_value
from edgesnn.targets.errors import UsageError


def shift_representable(leak: float) -> float:
    """The value nearest to `leak` in [0, 1] that a device's shifts and adds can represent.

    Training uses what the device will use. Raises UsageError outside [0, 1].
    """
    if not 0.0 <= leak <= 1.0:
        raise UsageError(f"leak {leak!r} is not in [0, 1]")
    return shift_value(shift_terms(leak))


def leak_logit(leak: float) -> float:
    """The logit of a leak, the parameter that is learned; the ends of [0, 1] are kept a little away."""
    inside = min(max(leak, 1e-3), 1.0 - 1e-3)
    return math.log(inside / (1.0 - inside))


@lru_cache(maxsize=8)
def _values(device: torch.device) -> Tensor:
    """Every representable leak in [0, 1], float64, sorted."""
    powers = [sign * 2.0**-shift for shift in range(MAX_SHIFT + 1) for sign in (1, -1)]
    sums = {0.0}
    for count in (1, 2, 3):
        sums |= {sum(choice) for choice in combinations_with_replacement(powers, count)}
    kept = sorted(v for v in sums if 0.0 <= v <= 1.0)
    return torch.tensor(kept, dtype=torch.float64, device=device)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leak: Tensor) -> Tensor:
        values = _values(leak.device)
        exact = leak.detach().to(torch.float64)
        above = torch.searchsorted(values, exact).clamp(1, len(values) - 1)
        # take: values[...] of a tensor () would wait for the device.
        low, high = values.take(above - 1), values.take(above)
        return torch.where(exact - low <= high - exact, low, high).to(leak.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def rounded_leak(logit: Tensor) -> Tensor:
    """sigmoid(logit), rounded to the nearest representable leak; the rounding passes gradients through.

    logit: float[...] of any shape; the leaks of the forward pass are exactly those of the device.
    """
    out: Tensor = _Rounded.apply(torch.sigmoid(logit))
    return out


class Leaky(nn.Module):
    """A population with one leak, rounded to what shifts can represent; fixed, or learned as its logit."""

    leak_logit: nn.Parameter | None

    def __init__(self, leak: float, learn: bool) -> None:
        super().__init__()
        self._fixed = shift_representable(leak)
        if learn:
            self.leak_logit = nn.Parameter(torch.tensor(leak_logit(leak)))
        else:
            self.register_parameter("leak_logit", None)

    def leak_used(self) -> float | Tensor:
        """What the next forward pass uses: a number, or a tensor () that passes gradients to the logit."""
        return self._fixed if self.leak_logit is None else rounded_leak(self.leak_logit)

    @property
    def leak(self) -> float:
        """The leak in use, exactly the device's."""
        used = self.leak_used()
        return float(used.detach()) if isinstance(used, Tensor) else used
