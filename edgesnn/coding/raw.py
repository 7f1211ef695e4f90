"""Raw latency: samples straight to spike times, without a learned encoder (the ablation "without LE")."""

from __future__ import annotations

from torch import Tensor, nn

from edgesnn.coding.latency import check_latency, latency_encode


class RawLatency(nn.Module):
    """X[t] = 1 at t = ceil((1 - F) T), clipped to 1...T, with F = the sample itself in [0, 1].

    float[N, ...] to float[T, N, ...]; values outside [0, 1] spike at the first or the last step.
    """

    def __init__(self, timesteps: int, gradient: str = "edge") -> None:
        super().__init__()
        check_latency(timesteps, gradient)
        self.timesteps = timesteps
        self.gradient = gradient

    def forward(self, samples: Tensor) -> Tensor:
        return latency_encode(samples, self.timesteps, self.gradient)
