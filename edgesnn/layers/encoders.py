"""First layers: samples float[N, C, H, W] to spikes float[T, N, ...]."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesnn.coding.latency import check_latency, latency_encode
from edgesnn.layers.base import Extent, Layer, pair
from edgesnn.networks.arithmetic import (
    channel_last,
    direct_spikes,
    event_steps,
    max_pooled,
    potential,
)
from edgesnn.networks.spec import NeuronSpec, neuron_spec
from edgesnn.neurons.build import population

GRADIENT = "edge"


class _Encoder(Layer):
    """A layer that reads samples: it makes the steps, and has to know how many."""

    timesteps: int


class Events(_Encoder):
    """The events of a sensor: samples [N, T C, H, W], channel t C + c, non-zero where one came in step t.

    Nothing is encoded. In training the net's batch norms become norms without an offset, so that it is silent
    where no event comes (docs/TRAINING.md).
    """

    kind = "events"

    def __init__(self, *, timesteps: int) -> None:
        super().__init__()
        check_latency(timesteps, GRADIENT)
        self.timesteps = timesteps

    def forward(self, samples: Tensor) -> Tensor:
        return event_steps(samples, self.timesteps)


class EncodeConv(_Encoder):
    """Learned latency (LE/TAD paper, eqs. 5-8): convolution, batch norm, max-pool, sigmoid, spike time.

    pool: window and stride of the max-pool, 1 is none. encoder_bias: the batch norm's initial bias, below
    0 for fewer early spikes.
    """

    kind = "encode-conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Extent,
        stride: Extent = 1,
        padding: Extent = 0,
        *,
        timesteps: int,
        pool: Extent = 1,
        norm: bool = True,
        encoder_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_latency(timesteps, GRADIENT)
        self.timesteps = timesteps
        self._window(kernel, stride, padding)
        self.pool = pair("pool", pool, 1)
        self._map(self._convolution(in_channels, out_channels, norm), norm, encoder_bias)

    def forward(self, samples: Tensor) -> Tensor:
        phi = potential(self.linear, self.norm, channel_last(samples))
        features = torch.sigmoid(max_pooled(phi, self.pool))
        return latency_encode(features, self.timesteps, GRADIENT)


class EncodeDense(_Encoder):
    """`EncodeConv` with a dense map of the flattened sample and no pool."""

    kind = "encode-dense"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        timesteps: int,
        norm: bool = True,
        encoder_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_latency(timesteps, GRADIENT)
        self.timesteps = timesteps
        self._map(self._matrix(in_features, out_features, norm), norm, encoder_bias)

    def forward(self, samples: Tensor) -> Tensor:
        phi = potential(self.linear, self.norm, channel_last(samples))
        return latency_encode(torch.sigmoid(phi), self.timesteps, GRADIENT)


class EncodeRaw(_Encoder):
    """The samples themselves, clipped to [0, 1] after a max-pool, are the values of the spike times."""

    kind = "encode-raw"

    def __init__(self, *, timesteps: int, pool: Extent = 1) -> None:
        super().__init__()
        check_latency(timesteps, GRADIENT)
        self.timesteps = timesteps
        self.pool = pair("pool", pool, 1)

    def forward(self, samples: Tensor) -> Tensor:
        features = max_pooled(channel_last(samples), self.pool).clamp(0.0, 1.0)
        return latency_encode(features, self.timesteps, GRADIENT)


class DirectConv(_Encoder):
    """Direct coding: convolution and batch norm of the sample are a constant current into neurons."""

    kind = "direct-conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Extent,
        stride: Extent = 1,
        padding: Extent = 0,
        *,
        timesteps: int,
        neuron: str | NeuronSpec = "lif",
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.rule = neuron_spec(neuron)
        self.neuron = population(self.rule, timesteps)
        self._window(kernel, stride, padding)
        self._map(self._convolution(in_channels, out_channels, norm), norm, self.rule)

    def forward(self, samples: Tensor) -> Tensor:
        current = potential(self.linear, self.norm, channel_last(samples))
        return direct_spikes(self.neuron, current, self.timesteps)


class DirectDense(_Encoder):
    """`DirectConv` with a dense map of the flattened sample."""

    kind = "direct-dense"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        timesteps: int,
        neuron: str | NeuronSpec = "lif",
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.rule = neuron_spec(neuron)
        self.neuron = population(self.rule, timesteps)
        self._map(self._matrix(in_features, out_features, norm), norm, self.rule)

    def forward(self, samples: Tensor) -> Tensor:
        current = potential(self.linear, self.norm, channel_last(samples))
        return direct_spikes(self.neuron, current, self.timesteps)
