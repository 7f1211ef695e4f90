"""At-most-one-spike (AMOS) LIF neurons, step by step and in parallel over time (AMOS paper).

Both forms compute the same thing; the parallel one replaces the loop over T by one product with a triangular
matrix and the backward pass by closed formulas, corrected where the paper is wrong (docs/decisions/0007).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from edgesnn.neurons.lif import shift_representable
from edgesnn.neurons.surrogate import Surrogate, step, surrogate
from edgesnn.targets.errors import UsageError

MODES = ("auto", "loop", "parallel")


def amos_loop(
    currents: Tensor,
    alpha: float,
    gain: float = 1.0,
    v_threshold: float = 1.0,
    forced: bool = False,
    surrogate_name: str = "triangle",
    width: float = 1.0,
) -> Tensor:
    """Spikes of an AMOS population, one step after the other (eqs. 1-4); H[-1] = F[-1] = 0:

        H[t] = alpha H[t-1] + gain X[t],  S[t] = (1 - F[t-1]) H(H[t] - V_th),  F[t] = F[t-1] + S[t]

    currents: float[T, ...]; returns float[T, ...] of 0 and 1. With `forced` a neuron silent so far fires at
    the last step (eq. 7). The paper has alpha = 1 - 1 / tau_m and gain = 1 / tau_m.
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


@lru_cache(maxsize=64)
def _toeplitz(steps: int, alpha: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """M[t, k] = alpha^(t - k) for k <= t. The paper's alpha^-t overflows float32 beyond T = 128."""
    lag = torch.arange(steps)[:, None] - torch.arange(steps)[None, :]
    powers = torch.pow(torch.tensor(alpha, dtype=torch.float64), lag.clamp(min=0))
    return torch.where(lag >= 0, powers, torch.zeros(())).to(dtype=dtype, device=device)


class _Parallel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        alpha: float,
        gain: float,
        v_threshold: float,
        forced: bool,
        derivative: Surrogate,
        width: float,
    ) -> Tensor:
        matrix = _toeplitz(len(currents), alpha, currents.dtype, currents.device)
        flat = currents.reshape(len(currents), -1)
        membranes = (matrix @ flat).mul_(gain)
        fake = membranes >= v_threshold
        if forced:
            fake[-1] = True
        count = fake.cumsum(0, dtype=torch.int16)
        first = fake & (count == 1)
        ctx.save_for_backward(membranes, fake, count, matrix)
        ctx.constants = (gain, v_threshold, forced, derivative, width)
        return first.to(currents.dtype).reshape(currents.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        membranes, fake, count, matrix = ctx.saved_tensors
        gain, v_threshold, forced, derivative, width = ctx.constants
        g = grad.reshape(membranes.shape)
        first, second = fake & (count == 1), fake & (count == 2)
        at_first = (g * first).sum(0)
        at_second = (g * second).sum(0)
        # dL/dS[t] = g[t] - g[next fake spike after t], 0 where there is none (eq. 15, corrected);
        # beyond the first spike the mask (1 - F[t-1]) makes it 0.
        total = (count == 0) * (g - at_first) + first * (g - at_second)
        slope = total * derivative(membranes - v_threshold, width)
        if forced:
            slope[-1] = 0.0  # a forced spike does not depend on the membrane
        out = (matrix.T @ slope).mul_(gain)
        return out.reshape(grad.shape), None, None, None, None, None, None


def amos_parallel(
    currents: Tensor,
    alpha: float,
    gain: float = 1.0,
    v_threshold: float = 1.0,
    forced: bool = False,
    surrogate_name: str = "triangle",
    width: float = 1.0,
) -> Tensor:
    """The same spikes and gradients as `amos_loop`, without a loop over time:

    H = gain M X with M[t, k] = alpha^(t-k),  S = the first t with H[t] >= V_th (eqs. 5-9)
    dL/dX = gain M^T (dL/dS * mask * surrogate'(H - V_th)) (eqs. 10-19, corrected)
    """
    out: Tensor = _Parallel.apply(
        currents, alpha, gain, v_threshold, forced, surrogate(surrogate_name), width
    )
    return out


# On a CPU the loop wins once a step's work hides the interpreter's overhead (`make bench` has the table).
CPU_LOOP_FROM = 4096


class Amos(nn.Module):
    """AMOS LIF population; `leak` is alpha, rounded to what shifts can represent; gain 1 by default.

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
        mode: str = "auto",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise UsageError(f"unknown neuron mode {mode!r}: one of {', '.join(MODES)}")
        surrogate(surrogate_name)
        self.leak = shift_representable(leak)
        self.v_threshold, self.width = v_threshold, width
        self.forced, self.surrogate_name, self.mode = forced, surrogate_name, mode

    def forward(self, currents: Tensor) -> Tensor:
        """float[T, ...] currents to float[T, ...] spikes."""
        mode = self.mode
        if mode == "auto":
            small = currents.numel() // max(len(currents), 1) < CPU_LOOP_FROM
            mode = "parallel" if currents.device.type != "cpu" or small else "loop"
        run = amos_parallel if mode == "parallel" else amos_loop
        return run(
            currents,
            self.leak,
            v_threshold=self.v_threshold,
            forced=self.forced,
            surrogate_name=self.surrogate_name,
            width=self.width,
        )
