"""Rate coding: a value is the probability of a spike in each step. Random: for training and ablations only.

An integer program answers the same for the same sample, so nothing with this encoder is ever lowered;
rate-coded input on a device is direct coding into spiking neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgesnn.targets.errors import UsageError


def rate_encode(values: Tensor, timesteps: int, generator: torch.Generator | None = None) -> Tensor:
    """X[t] ~ Bernoulli(x), independent over steps: float[...] in [0, 1] to float[T, ...] of 0 and 1.

    0 never spikes, 1 always does. The spikes carry no gradient. generator: on the device of `values`;
    torch's global one if None. The same seed, shape and device give the same spikes; a CPU and a GPU
    give different ones.
    """
    if timesteps < 1:
        raise UsageError(f"timesteps {timesteps} is not at least 1")
    drawn = torch.rand(
        (timesteps, *values.shape), generator=generator, device=values.device, dtype=values.dtype
    )
    return (drawn < values).to(values.dtype)
