"""Pools without weights: windows over the spikes of each step, float[T, N, C, H, W] to the same."""

from __future__ import annotations

from torch import Tensor

from edgesnn.layers.base import Extent, Layer
from edgesnn.networks.arithmetic import pooled


class OrPool(Layer):
    """A window spikes if one of its units does. stride: the kernel if None."""

    kind = "or-pool"

    def __init__(self, kernel: Extent, stride: Extent | None = None) -> None:
        super().__init__()
        self._window(kernel, kernel if stride is None else stride)

    def forward(self, spikes: Tensor) -> Tensor:
        return pooled(self.kind, spikes, self.kernel, self.stride)


class AvgPool(OrPool):
    """The mean of a window's spikes; on a device it goes into the weights that follow."""

    kind = "avg-pool"
