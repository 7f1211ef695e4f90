"""What the layers share: how they are described to the compiler, how their maps and norms are made."""

from __future__ import annotations

import torch
from torch import nn

from edgesnn.networks.arithmetic import Linear, batch_norm
from edgesnn.networks.spec import NeuronSpec, Pair
from edgesnn.targets.errors import UsageError

Extent = int | tuple[int, int]


class Layer(nn.Module):
    """A layer that a network description has a kind for.

    What a kind does not use keeps the value here. kernel, stride, padding, pool: (along the height, along
    the width). norm: None where a kind has no choice. timesteps: None where a layer works for any number.
    """

    kind = ""
    out = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    pool: Pair = (1, 1)
    timesteps: int | None = None
    rule: NeuronSpec | None = None
    normed: bool | None = None

    def _window(self, kernel: Extent, stride: Extent, padding: Extent = 0) -> None:
        self.kernel, self.stride = pair("kernel", kernel, 1), pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)

    def _map(self, linear: Linear, norm: bool, start: NeuronSpec | float) -> None:
        """Take over a linear map that starts without a bias if a batch norm follows it."""
        self.linear = linear
        self.normed = norm
        self.norm = batch_norm(linear, start) if norm else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _convolution(self, channels: int, out: int, norm: bool) -> nn.Conv2d:
        self.out = _positive("out_channels", out)
        _positive("in_channels", channels)
        return nn.Conv2d(channels, out, self.kernel, self.stride, self.padding, bias=not norm)

    def _matrix(self, features: int, out: int, norm: bool) -> nn.Linear:
        self.out = _positive("out_features", out)
        return nn.Linear(_positive("in_features", features), out, bias=not norm)


def pair(name: str, extent: Extent, least: int) -> Pair:
    """(along the height, along the width) of an extent that may be one number for both."""
    both = (extent, extent) if isinstance(extent, int) else tuple(extent)
    if len(both) != 2 or not all(isinstance(n, int) and n >= least for n in both):
        raise UsageError(f"{name} {extent!r} is not one or two whole numbers from {least} on")
    return both


def _positive(name: str, number: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise UsageError(f"{name} {number!r} is not a whole number from 1 on")
    return number
