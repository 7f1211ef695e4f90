"""Direct coding: the analogue current of the first layer, the same in every step."""

from __future__ import annotations

from torch import Tensor

from edgesnn.targets.errors import UsageError


def direct_encode(current: Tensor, timesteps: int) -> Tensor:
    """I[t] = I for t = 1...T: float[...] to float[T, ...], a view without a copy (so do not write to it)."""
    if timesteps < 1:
        raise UsageError(f"timesteps {timesteps} is not at least 1")
    return current.expand(timesteps, *current.shape)
