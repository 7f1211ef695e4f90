"""At-most-one-spike (AMOS) LIF neurons, step by step and in parallel over time (AMOS paper).

`amos_loop` is the definition, which autograd differentiates by itself. `amos` computes the same as one
autograd node with closed formulas for the backward pass, corrected where the paper is wrong
(docs/decisions/0007); its recurrences run step by step or as one product with a triangular matrix.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from edgesnn.neurons.layout import full_precision, like_rows, memory_order, reordered, rows
from edgesnn.neurons.leak import Leaky
from edgesnn.neurons.surrogate import Surrogate, step, surrogate
from edgesnn.targets.errors import UsageError

MODES = ("auto", "loop", "parallel")


def amos_loop(
    currents: Tensor,
    alpha: float | Tensor,
    gain: float = 1.0,
    v_threshold: float = 1.0,
    forced: bool = False,
    surrogate_name: str = "triangle",
    width: float = 1.0,
) -> Tensor:
    """Spikes of an AMOS population, one step after the other (eqs. 1-4); H[-1] = F[-1] = 0:

        H[t] = alpha H[t-1] + gain X[t],  S[t] = (1 - F[t-1]) H(H[t] - V_th),  F[t] = F[t-1] + S[t]

    currents: float[T, ...]; returns float[T, ...] of 0 and 1. With `forced` a neuron silent so far fires at
    the last step (eq. 7). The paper has alpha = 1 - 1 / tau_m and gain = 1 / tau_m. alpha may be a tensor
    of one value, which then gets a gradient.
    """
    # unbind: indexing currents[t] would make backward quadratic in T.
    steps = currents.unbind(0)
    membrane = fired = torch.zeros_like(steps[0])
    spikes = []
    for t, current in enumerate(steps):
        membrane = alpha * membrane + gain * current
        if forced and t == len(steps) - 1:
            fake = torch.ones_like(membrane)
        else:
            fake = step(membrane - v_threshold, surrogate_name, width)
        spike = (1.0 - fired) * fake
        fired = fired + spike
        spikes.append(spike)
    return torch.stack(spikes)


def _toeplitz(alpha: float | Tensor, steps: int, like: Tensor) -> Tensor:
    """M[t, k] = alpha^(t - k) for k <= t. The paper's alpha^-t overflows float32 beyond T = 128."""
    if isinstance(alpha, Tensor):
        return _powers(alpha.detach().to(torch.float64), steps, like.dtype, like.device)
    return _fixed_toeplitz(alpha, steps, like.dtype, like.device)


def _powers(alpha: float | Tensor, steps: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    t = torch.arange(steps, dtype=torch.float64, device=device)
    lag = t[:, None] - t[None, :]
    return torch.where(lag >= 0, torch.pow(alpha, lag.clamp(min=0)), 0.0).to(dtype)


_fixed_toeplitz = lru_cache(maxsize=64)(_powers)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix x in full: mixed precision would round membranes to 8 or 11 bits."""
    if not torch.is_autocast_enabled(x.device.type):
        return matrix @ x
    with torch.autocast(x.device.type, enabled=False):
        return matrix @ x


class _Amos(torch.autograd.Function):
    """One autograd node that keeps nothing but the membranes."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        alpha: float | Tensor,
        v_threshold: float,
        forced: bool,
        derivative: Surrogate,
        width: float,
        parallel: bool,
    ) -> Tensor:
        order = memory_order(currents)
        x = rows(currents, order)
        keep = any(ctx.needs_input_grad)
        if parallel:
            membranes = _product(_toeplitz(alpha, len(x), x), x)
            ranks = _ranks(membranes, v_threshold, forced)
            first = ranks.amax(0)
            spikes = torch.eq(ranks, first.masked_fill_(first == 0, -1.0), out=ranks)
        else:
            membranes = x.new_empty(x.shape if keep else (1, x.shape[1]))
            spikes = x.new_empty(x.shape)
            silent = torch.ones_like(spikes[0])
            for t in range(len(x)):
                u = membranes[t if keep else 0]
                if t == 0:
                    u.copy_(x[0])
                else:
                    torch.mul(membranes[t - 1 if keep else 0], alpha, out=u).add_(x[t])
                if forced and t == len(x) - 1:
                    spikes[t].copy_(silent)
                else:
                    torch.ge(u, v_threshold, out=spikes[t]).mul_(silent)
                    silent.sub_(spikes[t])
        learned = isinstance(alpha, Tensor)
        ctx.save_for_backward(membranes, *([alpha] if learned else []))
        fixed = None if learned else alpha
        ctx.constants = (fixed, v_threshold, forced, derivative, width, parallel, order)
        return like_rows(spikes, currents, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, *learned = ctx.saved_tensors
        fixed, v_threshold, forced, derivative, width, parallel, order = ctx.constants
        alpha = learned[0] if learned else fixed
        membranes, g, order = reordered(saved, order, grad)
        if parallel:
            slope = _slopes(g, membranes, v_threshold, forced, derivative, width)
            out = _product(_toeplitz(alpha, len(slope), slope).T, slope)
        else:
            out = _backward_loop(g, membranes, alpha, v_threshold, forced, derivative, width)
        alpha_grad = None
        if learned:
            # H[t] = alpha H[t-1] + X[t], and out is dL/dH with all that follows from it.
            alpha_grad = (out[1:] * membranes[:-1]).sum().to(alpha.dtype)
        return like_rows(out, grad, order), alpha_grad, None, None, None, None, None


@lru_cache(maxsize=64)
def _countdown(steps: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """T, T - 1, ..., 1 as float[T, 1]."""
    return torch.arange(steps, 0, -1, dtype=dtype, device=device)[:, None]


def _ranks(membranes: Tensor, v_threshold: float, forced: bool) -> Tensor:
    """float[T, n]: T - t where a fake spike is and 0 elsewhere, so that the first one has the largest."""
    ranks = torch.ge(membranes, v_threshold, out=torch.empty_like(membranes))
    if forced:
        ranks[-1] = 1.0
    return ranks.mul_(_countdown(len(ranks), ranks.dtype, ranks.device))


def _slopes(
    g: Tensor,
    membranes: Tensor,
    v_threshold: float,
    forced: bool,
    derivative: Surrogate,
    width: float,
) -> Tensor:
    """dL/dH[t] by way of S[t] alone: (dL/dS) * mask * surrogate'(H - V_th), all float[T, n]."""
    ranks = _ranks(membranes, v_threshold, forced)
    steps = len(ranks)
    first = ranks.amax(0)
    at = (steps - first).long().clamp_(max=steps - 1)[None]
    ranks.scatter_(0, at, 0.0)
    second = ranks.amax(0)
    g_first = g.gather(0, at)
    g_second = g.gather(0, (steps - second).long().clamp_(max=steps - 1)[None]) * (second > 0)
    # dL/dS[t] = g[t] - g[next fake spike after t], 0 where there is none (eq. 15, corrected);
    # beyond the first spike the mask (1 - F[t-1]) makes it 0.
    total = g - g_first * (first > 0)
    total.scatter_(0, at, g_first - g_second)
    total.mul_(torch.ge(_countdown(steps, ranks.dtype, ranks.device), first, out=ranks))
    slope = total.mul_(derivative(membranes - v_threshold, width))
    if forced:
        slope[-1] = 0.0  # a forced spike does not depend on the membrane
    return slope


def _backward_loop(
    g: Tensor,
    membranes: Tensor,
    alpha: float | Tensor,
    v_threshold: float,
    forced: bool,
    derivative: Surrogate,
    width: float,
) -> Tensor:
    """dL/dX, float[T, n]: `_slopes` and M^T times it, without any other tensor of T steps."""
    out = torch.empty_like(membranes)
    last = len(membranes) - 1
    # First out[t] = mask[t], 1 up to the first fake spike and 0 from there on.
    out[0].fill_(1.0)
    for t in range(last):
        torch.lt(membranes[t], v_threshold, out=out[t + 1]).mul_(out[t])
    following = torch.zeros_like(out[0])  # g of the next fake spike after t, 0 where there is none
    below = torch.empty_like(following)
    for t in range(last, -1, -1):
        u, o = membranes[t], out[t]
        if forced and t == last:
            o.zero_()  # a forced spike does not depend on the membrane
            following.copy_(g[t])
            continue
        o.mul_(derivative(u - v_threshold, width)).mul_(g[t] - following)
        if t < last:
            o.add_(out[t + 1] * alpha)
        if t > 0:
            # Exact: one of the two terms is 0.
            torch.lt(u, v_threshold, out=below)
            following.mul_(below).add_((1.0 - below).mul_(g[t]))
    return out


def amos(
    currents: Tensor,
    alpha: float | Tensor,
    gain: float = 1.0,
    v_threshold: float = 1.0,
    forced: bool = False,
    surrogate_name: str = "triangle",
    width: float = 1.0,
    *,
    parallel: bool = False,
) -> Tensor:
    """The spikes and gradients of `amos_loop` as one autograd node; `parallel`: as products over time,

    H = M (gain X) with M[t, k] = alpha^(t-k),  S = the first t with H[t] >= V_th (eqs. 5-9)
    dL/dX = gain M^T G,  G = dL/dS * mask * surrogate'(H - V_th) (eqs. 10-19, corrected)
    dL/dalpha = sum over t of (M^T G)[t] H[t-1]
    """
    driven = currents if gain == 1.0 else gain * currents
    derivative = surrogate(surrogate_name)
    out: Tensor = _Amos.apply(driven, alpha, v_threshold, forced, derivative, width, parallel)
    return out


# Where products pay on a CPU (`make bench` has the table): a step of the loop costs the same for any few
# thousand neurons, the interpreter's overhead, so below 3 steps there is too little of it to save;
# above these sizes the products' T^2 work and their few more tensors outweigh it.
CPU_STEPS = 3
CPU_NEURONS = 4096
CPU_ELEMENTS = 2**19


class Amos(Leaky):
    """AMOS LIF population; `leak` is alpha, rounded to what shifts can represent, learned or fixed; gain 1.

    mode "loop", "parallel", or "auto": parallel on an accelerator and for few neurons.
    """

    def __init__(
        self,
        leak: float = 0.5,
        v_threshold: float = 1.0,
        width: float = 1.0,
        *,
        forced: bool = False,
        surrogate_name: str = "triangle",
        learn_leak: bool = False,
        mode: str = "auto",
    ) -> None:
        super().__init__(leak, learn_leak)
        if mode not in MODES:
            raise UsageError(f"unknown neuron mode {mode!r}: one of {', '.join(MODES)}")
        surrogate(surrogate_name)
        self.v_threshold, self.width = v_threshold, width
        self.forced, self.surrogate_name, self.mode = forced, surrogate_name, mode

    def forward(self, currents: Tensor) -> Tensor:
        """float[T, ...] currents to float[T, ...] spikes."""
        return amos(
            full_precision(currents),
            self.leak_used(),
            v_threshold=self.v_threshold,
            forced=self.forced,
            surrogate_name=self.surrogate_name,
            width=self.width,
            parallel=self.mode == "parallel" or (self.mode == "auto" and _pays(currents)),
        )


def _pays(currents: Tensor) -> bool:
    """Whether products are expected to beat the loop: on an accelerator, and for few neurons."""
    if currents.device.type != "cpu":
        return True
    steps, neurons = len(currents), currents[0].numel()
    return steps >= CPU_STEPS and neurons <= min(CPU_NEURONS, CPU_ELEMENTS // steps)
