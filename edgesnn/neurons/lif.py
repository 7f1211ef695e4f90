"""Leaky integrate-and-fire neurons with soft or hard reset and surrogate gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgesnn.neurons.layout import full_precision, like_rows, memory_order, reordered, rows
from edgesnn.neurons.leak import Leaky
from edgesnn.neurons.surrogate import Surrogate, surrogate
from edgesnn.targets.errors import UsageError

RESETS = ("soft", "hard")


class _Lif(torch.autograd.Function):
    """All T steps as one autograd node that keeps nothing but the membranes."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        leak: float | Tensor,
        v_threshold: float,
        width: float,
        hard: bool,
        derivative: Surrogate,
    ) -> Tensor:
        order = memory_order(currents)
        x = rows(currents, order)
        keep = any(ctx.needs_input_grad)
        membranes = x.new_empty(x.shape if keep else (1, x.shape[1]))
        spikes = x.new_empty(x.shape)
        rest = torch.empty_like(spikes[0])
        for t in range(len(x)):
            u = membranes[t if keep else 0]
            if t == 0:
                u.copy_(x[0])
            elif isinstance(leak, Tensor):
                torch.addcmul(x[t], rest, leak, out=u)
            else:
                torch.add(x[t], rest, alpha=leak, out=u)
            torch.ge(u, v_threshold, out=spikes[t])
            _after_reset(u, spikes[t], v_threshold, hard, rest)
        learned = isinstance(leak, Tensor)
        ctx.save_for_backward(membranes, *([leak] if learned else []))
        ctx.constants = (None if learned else leak, v_threshold, width, hard, derivative, order)
        return like_rows(spikes, currents, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, *learned = ctx.saved_tensors
        fixed, v_threshold, width, hard, derivative, order = ctx.constants
        leak = learned[0] if learned else fixed
        membranes, g, order = reordered(saved, order, grad)
        out = torch.empty_like(membranes)
        leak_grad = torch.zeros_like(leak) if learned else None
        rest = torch.empty_like(membranes[0])
        last = len(membranes) - 1
        for t in range(last, -1, -1):
            u = membranes[t]
            slope = derivative(u - v_threshold, width)
            torch.mul(g[t], slope, out=out[t])
            if t == last:
                continue
            if leak_grad is not None:
                spikes = torch.ge(u, v_threshold, out=torch.empty_like(u))
                leak_grad += torch.dot(out[t + 1], _after_reset(u, spikes, v_threshold, hard, rest))
            # dR[t]/dU[t]: the reset is differentiated too.
            if hard:
                through = torch.lt(u, v_threshold, out=rest).sub_(slope.mul_(u))
            else:
                through = torch.rsub(slope.mul_(v_threshold), 1.0)
            out[t].add_(through.mul_(out[t + 1] * leak))
        return like_rows(out, grad, order), leak_grad, None, None, None, None


def _after_reset(u: Tensor, spikes: Tensor, v_threshold: float, hard: bool, out: Tensor) -> Tensor:
    if hard:
        return torch.addcmul(u, u, spikes, value=-1.0, out=out)
    return torch.sub(u, spikes, alpha=v_threshold, out=out)


def lif(
    currents: Tensor,
    leak: float | Tensor = 0.5,
    v_threshold: float = 1.0,
    width: float = 1.0,
    reset: str = "soft",
    surrogate_name: str = "triangle",
) -> Tensor:
    """Spikes of a LIF population (LE/TAD paper, eqs. 2-4, its soft reset; or a hard one).

        U[t] = leak R[t-1] + I[t],   S[t] = H(U[t] - V_th),   R[0] = 0
        R[t] = U[t] - V_th S[t] (soft)   or   R[t] = (1 - S[t]) U[t] (hard)

    currents: float[T, ...] the input current of each step. Returns float[T, ...] of 0 and 1.
    Backward: dS/dU is the named surrogate of that width, triangle by default, with full backpropagation
    through time, the reset included. leak may be a tensor of one value, which then gets a gradient.
    """
    if reset not in RESETS:
        raise UsageError(f"unknown reset {reset!r}: one of {', '.join(RESETS)}")
    derivative = surrogate(surrogate_name)
    out: Tensor = _Lif.apply(currents, leak, v_threshold, width, reset == "hard", derivative)
    return out


class Lif(Leaky):
    """`lif` as a module; its leak is fixed or learned, and always one that shifts can represent."""

    def __init__(
        self,
        leak: float = 0.5,
        v_threshold: float = 1.0,
        width: float = 1.0,
        *,
        reset: str = "soft",
        surrogate_name: str = "triangle",
        learn_leak: bool = False,
    ) -> None:
        super().__init__(leak, learn_leak)
        if reset not in RESETS:
            raise UsageError(f"unknown reset {reset!r}: one of {', '.join(RESETS)}")
        surrogate(surrogate_name)
        self.v_threshold, self.width = v_threshold, width
        self.reset, self.surrogate_name = reset, surrogate_name

    def forward(self, currents: Tensor) -> Tensor:
        """float[T, ...] currents to float[T, ...] spikes."""
        return lif(
            full_precision(currents),
            self.leak_used(),
            self.v_threshold,
            self.width,
            self.reset,
            self.surrogate_name,
        )
