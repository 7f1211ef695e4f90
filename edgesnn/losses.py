"""What training minimises: losses on the output layer's signal over time, and penalties on spikes.

Every loss takes a signal float[T, N, C] (the output membranes U[t], or their input currents O[t]) and
targets int64[N], and returns a scalar, the mean over the batch. label_smoothing eps (0...1) replaces the
one-hot target by (1 - eps) * one-hot + eps / C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgesnn.targets.errors import UsageError


def tad_loss(
    signal: Tensor,
    targets: Tensor,
    *,
    temperature: float = 2.0,
    detach: bool = True,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Temporal adaptive decision loss (LE/TAD paper, eqs. 12-14).

        lambda[t] = 1 - H(softmax(U[t])) / log C
        Lambda[t] = softmax over t of lambda[t] / temperature
        L = sum_t Lambda[t] * CE(U[t], y)

    signal: the output membranes U[t], which are what the exit looks at; the paper's current O[t] in its
    literal form. detach: Lambda is a weight, not a path by which confidence could be bought; False lets
    the gradient through it, too (the paper leaves that open).
    """
    log_p = functional.log_softmax(signal, dim=-1)
    seen = log_p.detach() if detach else log_p
    entropy = -(seen.exp() * seen).sum(-1)
    weights = torch.softmax((1.0 - entropy / math.log(signal.shape[-1])) / temperature, dim=0)
    return (weights * _cross_entropy(log_p, targets, label_smoothing)).sum(0).mean()


def step_loss(signal: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """L = 1/T sum_t CE(signal[t], y): every step alike (TET; Deng et al. 2022)."""
    log_p = functional.log_softmax(signal, dim=-1)
    return _cross_entropy(log_p, targets, label_smoothing).mean()


def mean_loss(signal: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """L = CE(1/T sum_t signal[t], y), for rate readouts of the currents.

    The LE/TAD paper's baseline without TAD (section on ablations, table V).
    """
    return functional.cross_entropy(signal.mean(0), targets, label_smoothing=label_smoothing)


def selector_loss(
    membranes: Tensor, targets: Tensor, value: float, *, label_smoothing: float = 0.0
) -> Tensor:
    """L = CE(U[t_1st], y), t_1st = min{t : max_c U_c[t] >= value}, T if there is none.

    The temporal selector decoder's loss (AMOS paper, "Decoder formulation"); value: its confidence
    threshold. The choice of the step has no gradient.
    """
    reached = membranes.detach().amax(-1) >= value
    last = membranes.shape[0] - 1
    first = torch.where(reached.any(0), reached.to(torch.uint8).argmax(0), last)
    chosen = membranes[first, torch.arange(membranes.shape[1], device=membranes.device)]
    return functional.cross_entropy(chosen, targets, label_smoothing=label_smoothing)


def rate_penalty(
    hidden: Mapping[str, Tensor] | Sequence[Tensor],
    weights: Mapping[str, float] | float | None = None,
) -> Tensor:
    """sum over the hidden layers l of w_l * r_l, r_l the mean number of spikes per neuron in all T steps.

    hidden: float[T, N, ...] of 0 and 1 for each layer, at least one. weights: w_l by layer name (layers
    without one are free; hidden then has names, too), one number for all, or None for 1.
    Raises UsageError for weights of layers that are not there.
    """
    if isinstance(weights, Mapping):
        layers = hidden if isinstance(hidden, Mapping) else {}
        unknown = sorted(set(weights) - set(layers))
        if unknown:
            raise UsageError(
                f"rate penalty: no hidden layer {', '.join(unknown)}; there is {', '.join(layers)}"
            )
        return torch.stack([weights.get(name, 0.0) * _rate(s) for name, s in layers.items()]).sum()
    spikes = hidden.values() if isinstance(hidden, Mapping) else hidden
    total = torch.stack([_rate(s) for s in spikes]).sum()
    return total if weights is None else weights * total


def early_penalty(encoder: Tensor) -> Tensor:
    """Share of encoder units that spike in the first step; encoder: float[T, N, ...] of 0 and 1.

    Most samples are decided at t = 1, so those spikes are the ones that are paid for.
    """
    return encoder[0].mean()


def _rate(spikes: Tensor) -> Tensor:
    return spikes.mean() * spikes.shape[0]


def _cross_entropy(log_p: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """float[T, N]: the cross-entropy of every step and sample; log_p float[T, N, C]."""
    index = targets.expand(log_p.shape[:2]).unsqueeze(-1)
    loss = -log_p.gather(-1, index).squeeze(-1)
    if label_smoothing > 0.0:
        loss = (1.0 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    return loss
