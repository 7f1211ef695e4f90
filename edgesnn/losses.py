"""What training minimises: the temporal adaptive decision loss and two penalties on spikes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def tad_loss(membranes: Tensor, targets: Tensor, temperature: float = 2.0) -> Tensor:
    """Temporal adaptive decision loss (LE/TAD paper, eqs. 12-14), mean over the batch.

        lambda[t] = 1 - H(softmax(U[t])) / log C
        Lambda[t] = softmax over t of lambda[t] / temperature
        L = sum_t Lambda[t] * CE(U[t], y)

    membranes: float[T, N, C]; targets: int64[N]. The paper feeds the current O[t]; here it is the
    output membrane U[t], which is what the exit looks at. Lambda is detached: a weight, not a path
    by which confidence could be bought.
    """
    steps, batch, classes = membranes.shape
    log_p = functional.log_softmax(membranes, dim=-1)
    with torch.no_grad():
        entropy = -(log_p.exp() * log_p).sum(-1)
        weights = torch.softmax((1.0 - entropy / math.log(classes)) / temperature, dim=0)
    cross_entropy = -log_p.gather(-1, targets.expand(steps, batch).unsqueeze(-1)).squeeze(-1)
    return (weights * cross_entropy).sum(0).mean()


def rate_penalty(hidden: Sequence[Tensor]) -> Tensor:
    """Sum over the hidden layers of the mean number of spikes per neuron in all T steps.

    hidden: float[T, N, ...] of 0 and 1 for each layer.
    """
    return torch.stack([spikes.mean() * spikes.shape[0] for spikes in hidden]).sum()


def early_penalty(encoder: Tensor) -> Tensor:
    """Share of encoder units that spike in the first step; encoder: float[T, N, ...] of 0 and 1.

    Most samples are decided at t = 1, so those spikes are the ones that are paid for.
    """
    return encoder[0].mean()
