"""Quantisation-aware training: fine-tune a trained network with its own integers in the forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgesnn.losses import tad_loss
from edgesnn.quantisation.network import IntegerNetwork
from edgesnn.targets.errors import EdgesnnError, UsageError

Loss = Callable[[Tensor, Tensor], Tensor]


def fine_tune(
    network: IntegerNetwork,
    x: np.ndarray,
    y: np.ndarray,
    *,
    epochs: int = 10,
    lr: float = 1e-3,
    seed: int = 0,
    batch: int = 100,
    weight_decay: float = 1e-4,
    clip: float = 5.0,
    loss: Loss = tad_loss,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the integer network in place; the mean loss of each epoch.

    x: raw samples [N, H, W, C] of the input's type; y: int[N]. AdamW, the learning rate falls from `lr` along a
    half cosine, gradients are clipped to norm `clip`. loss(membranes float[T, N, classes], targets int64[N])
    sees the output membranes in units of the float network. seed: decides the order of the samples.
    progress: called with each epoch, from 1, and its loss.
    """
    if epochs < 1 or batch < 1 or not lr > 0:
        raise UsageError("epochs, batch and lr are positive")
    device = next(network.parameters()).device
    samples, targets = torch.as_tensor(x), torch.as_tensor(np.asarray(y, dtype=np.int64))
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay
    )
    total = epochs * math.ceil(len(x) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    history = []
    for epoch in range(1, epochs + 1):
        seen = 0.0
        for chosen in torch.randperm(len(x), generator=order).split(batch):
            activity = network(samples[chosen].to(device))
            value = loss(activity.membranes * activity.scale, targets[chosen].to(device))
            if not math.isfinite(value.item()):
                raise EdgesnnError(f"the loss of epoch {epoch} is not finite; use a smaller lr")
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimiser.step()
            schedule.step()
            seen += value.item() * len(chosen)
        history.append(seen / len(x))
        if progress is not None:
            progress(epoch, history[-1])
    return history
