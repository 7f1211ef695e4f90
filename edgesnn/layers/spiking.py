"""Hidden layers: spikes float[T, N, ...] through weights and batch norm into neurons that spike."""

from __future__ import annotations

from torch import Tensor

from edgesnn.layers.base import Extent, Layer
from edgesnn.networks.arithmetic import currents
from edgesnn.networks.spec import NeuronSpec, neuron_spec
from edgesnn.neurons.build import population
from edgesnn.targets.errors import UsageError


class SpikingConv(Layer):
    """Convolution, batch norm and a population of neurons: float[T, N, C, H, W] to the same.

    neuron: "lif", "if", "amos", "psn" or a `NeuronSpec`. timesteps: psn neurons need the number of steps,
    others work for any. norm: False gives the convolution a bias instead.
    """

    kind = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Extent,
        stride: Extent = 1,
        padding: Extent = 0,
        *,
        neuron: str | NeuronSpec = "lif",
        norm: bool = True,
        timesteps: int | None = None,
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.rule = neuron_spec(neuron)
        self.neuron = population(self.rule, _steps(self.rule, timesteps))
        self._window(kernel, stride, padding)
        self._map(self._convolution(in_channels, out_channels, norm), norm, self.rule)

    def forward(self, spikes: Tensor) -> Tensor:
        out: Tensor = self.neuron(currents(self.linear, self.norm, spikes))
        return out


class SpikingDense(Layer):
    """`SpikingConv` with a dense map: float[T, N, C, H, W] or float[T, N, n] to float[T, N, out].

    in_features: all units of the source, C * H * W. The weights take them channel-last, index
    (y * W + x) * C + c, so there is nothing to flatten before this layer.
    """

    kind = "dense"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        neuron: str | NeuronSpec = "lif",
        norm: bool = True,
        timesteps: int | None = None,
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.rule = neuron_spec(neuron)
        self.neuron = population(self.rule, _steps(self.rule, timesteps))
        self._map(self._matrix(in_features, out_features, norm), norm, self.rule)

    def forward(self, spikes: Tensor) -> Tensor:
        out: Tensor = self.neuron(currents(self.linear, self.norm, spikes))
        return out


def _steps(rule: NeuronSpec, timesteps: int | None) -> int:
    if timesteps is None and rule.kind == "psn":
        raise UsageError("psn neurons have weights between steps: give the layer its timesteps")
    return 1 if timesteps is None else timesteps
