"""The trainable form of a `NetworkSpec`: latency encoder, LIF layers, membrane readout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgesnn.coding.latency import LatencyEncoder
from edgesnn.networks.spec import LayerSpec, NetworkSpec
from edgesnn.neurons.amos import Amos
from edgesnn.neurons.lif import Lif, shift_representable


@dataclass
class Activity:
    """What happened in T steps on N samples. Spikes are float[T, N, ...] of 0 and 1.

    membranes: float[T, N, classes], the output membranes. encoder: the encoder's spikes.
    hidden: those of each spiking layer. sources: what each layer after the encoder received.
    """

    membranes: Tensor
    encoder: Tensor
    hidden: list[Tensor]
    sources: dict[str, Tensor]


class LatencyNetwork(nn.Module):
    """T steps of the net at once: time is folded into the batch wherever a layer has no memory.

    Submodules: linear.<layer> and norm.<layer>. Dense weights take the channel-last flattened order
    of their source map, index (y * W + x) * C + c. Batch norm averages over time and batch
    together, so it folds into one set of weights for all steps.
    """

    def __init__(
        self, spec: NetworkSpec, *, gradient: str = "edge", encoder_bias: float = 0.0
    ) -> None:
        super().__init__()
        self.spec = spec
        shapes = spec.shapes()
        sources = (spec.input_shape, *shapes[:-1])
        self.encoder = LatencyEncoder(spec.timesteps, gradient)
        population = {"lif": Lif, "amos": Amos}[spec.neuron]
        self.neuron = population(spec.leak, spec.v_threshold)
        self.output_leak = shift_representable(spec.output_leak)
        self.linear = nn.ModuleDict()
        self.norm = nn.ModuleDict()
        for layer, (height, width, channels) in zip(spec.layers, sources, strict=True):
            if layer.kind == "or-pool":
                continue
            if layer.kind in ("encode-conv", "conv"):
                self.linear[layer.name] = nn.Conv2d(
                    channels, layer.out, layer.kernel, layer.stride, layer.padding, bias=False
                )
                norm: nn.BatchNorm1d | nn.BatchNorm2d = nn.BatchNorm2d(layer.out)
            else:
                self.linear[layer.name] = nn.Linear(
                    height * width * channels, layer.out, bias=layer.kind == "output"
                )
                norm = nn.BatchNorm1d(layer.out)
            if layer.kind == "output":
                continue
            if layer.kind.startswith("encode"):
                nn.init.constant_(norm.bias, encoder_bias)
            else:
                # Currents of about half a threshold: neither silent nor saturated at the start.
                nn.init.constant_(norm.weight, 0.5 * spec.v_threshold)
            self.norm[layer.name] = norm
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, samples: Tensor) -> Activity:
        """samples: float[N, C, H, W], scaled as in training. Returns what all T steps did."""
        first, *rest = self.spec.layers
        x = samples.contiguous(memory_format=torch.channels_last)
        phi = self._normed(first, x)
        if first.pool > 1:
            phi = functional.max_pool2d(phi, first.pool)
        encoded = self.encoder(phi)
        spikes = encoded
        hidden: list[Tensor] = []
        sources: dict[str, Tensor] = {}
        for layer in rest:
            sources[layer.name] = spikes
            folded = spikes.flatten(0, 1)
            if layer.kind == "or-pool":
                folded = functional.max_pool2d(folded, layer.kernel, layer.stride)
                spikes = self._unfolded(folded)
            elif layer.kind == "output":
                currents = self.linear[layer.name](_flat(folded))
                return Activity(self._readout(currents), encoded, hidden, sources)
            else:
                currents = self._normed(layer, folded)
                spikes = self.neuron(self._unfolded(currents))
                hidden.append(spikes)
        raise AssertionError("unreachable: a checked spec ends with its output layer")

    def _unfolded(self, folded: Tensor) -> Tensor:
        """float[T, N, ...] from float[T * N, ...]; a view, each step's maps stay channel-last."""
        return folded.view(self.spec.timesteps, -1, *folded.shape[1:])

    def _normed(self, layer: LayerSpec, x: Tensor) -> Tensor:
        if layer.kind in ("encode-dense", "dense"):
            x = _flat(x)
        out: Tensor = self.norm[layer.name](self.linear[layer.name](x))
        return out

    def _readout(self, currents: Tensor) -> Tensor:
        """U[t] = output_leak * U[t-1] + O[t], U[0] = 0; currents float[T * N, classes]."""
        steps = self._unfolded(currents).unbind(0)
        membranes = [steps[0]]
        for current in steps[1:]:
            membranes.append(torch.add(current, membranes[-1], alpha=self.output_leak))
        return torch.stack(membranes)


def _flat(x: Tensor) -> Tensor:
    """Channel-last flattened order; a view for channel-last maps."""
    return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x
