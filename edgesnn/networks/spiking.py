"""The trainable form of a `NetworkSpec`: an encoder, spiking layers, membranes that a readout looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgesnn.coding.latency import LatencyEncoder, latency_encode
from edgesnn.networks.spec import (
    CONVS,
    INPUT,
    LATENCY_ENCODERS,
    SPIKING,
    LayerSpec,
    NetworkSpec,
    Shape,
)
from edgesnn.neurons.build import population
from edgesnn.neurons.leak import leak_logit, rounded_leak, shift_representable


@dataclass
class Activity:
    """What happened in T steps on N samples. Spikes are float[T, N, ...] of 0 and 1.

    membranes: float[T, N, classes], the output membranes U[t]. currents: their input O[t], alike.
    encoder: the spikes of the first layer. hidden: those of each further spiking layer, by name.
    sources: what each layer after the first received; a merge's is the sum of its sources.
    """

    membranes: Tensor
    currents: Tensor
    encoder: Tensor
    hidden: dict[str, Tensor]
    sources: dict[str, Tensor]


class SpikingNetwork(nn.Module):
    """All steps of the net at once: time is folded into the batch wherever a layer has no memory.

    Submodules: linear.<layer>, norm.<layer>, neuron.<layer>. Dense weights take the channel-last
    flattened order of their source map, index (y * W + x) * C + c. Batch norm averages over time and
    batch together, so it folds into one set of weights for all steps.

    gradient: of the latency encoder; encoder_bias: initial bias of its batch norm; neuron_mode: "loop",
    "parallel" or "auto" for neurons that have both forms.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        gradient: str = "edge",
        encoder_bias: float = 0.0,
        neuron_mode: str = "auto",
    ) -> None:
        super().__init__()
        self.spec = spec
        self._reads = spec.sources()
        shapes = {INPUT: spec.input_shape, **spec.shapes()}
        self.encoder = LatencyEncoder(spec.timesteps, gradient)
        self.linear = nn.ModuleDict()
        self.norm = nn.ModuleDict()
        self.neuron = nn.ModuleDict()
        for layer in spec.layers:
            if layer.out == 0:
                continue
            source = shapes[self._reads[layer.name][0]]
            self.linear[layer.name] = self._linear(layer, source)
            if layer.kind in SPIKING:
                neuron = spec.neuron_of(layer)
                self.neuron[layer.name] = population(neuron, spec.timesteps, neuron_mode)
            if layer.kind == "output" or not spec.norm:
                continue
            norm = (nn.BatchNorm2d if layer.kind in CONVS else nn.BatchNorm1d)(layer.out)
            if layer.kind in LATENCY_ENCODERS:
                nn.init.constant_(norm.bias, encoder_bias)
            else:
                # Currents of about half a threshold: neither silent nor saturated at the start.
                nn.init.constant_(norm.weight, 0.5 * spec.neuron_of(layer).v_threshold)
            self.norm[layer.name] = norm
        self.output_leak = shift_representable(spec.output_leak)
        if spec.learn_output_leak:
            start = torch.full((spec.classes,), leak_logit(spec.output_leak))
            self.output_leak_logit = nn.Parameter(start)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _linear(self, layer: LayerSpec, source: Shape) -> nn.Conv2d | nn.Linear:
        height, width, channels = source
        bias = layer.kind == "output" or not self.spec.norm
        if layer.kind not in CONVS:
            return nn.Linear(height * width * channels, layer.out, bias=bias)
        window = self.spec.window
        kernel, stride = window(layer.kernel, 1), window(layer.stride, 1)
        padding = window(layer.padding, 0)
        return nn.Conv2d(channels, layer.out, kernel, stride, padding, bias=bias)

    def forward(self, samples: Tensor, steps: int | None = None) -> Activity:
        """samples: float[N, C, H, W], scaled as in training. Returns what all steps did.

        steps: run only the first `steps` of T (incremental training): encoded at full T, truncated.
        """
        spec = self.spec
        count = spec.timesteps if steps is None else min(steps, spec.timesteps)
        first, *rest = spec.layers
        x = samples.contiguous(memory_format=torch.channels_last)
        encoded = self._encode(first, x)[:count]
        done = {first.name: encoded}
        hidden: dict[str, Tensor] = {}
        sources: dict[str, Tensor] = {}
        for layer in rest:
            reads = [done[name] for name in self._reads[layer.name]]
            spikes = reads[0] if len(reads) == 1 else torch.stack(reads).sum(0)
            sources[layer.name] = spikes
            folded = spikes.flatten(0, 1)
            if layer.kind == "merge":
                done[layer.name] = spikes
            elif layer.kind in ("or-pool", "avg-pool"):
                done[layer.name] = self._pool(layer, folded).unflatten(0, (count, -1))
            elif layer.kind == "output":
                currents = self.linear[layer.name](_flat(folded)).unflatten(0, (count, -1))
                return Activity(self._readout(currents), currents, encoded, hidden, sources)
            else:
                currents = self._normed(layer, folded).unflatten(0, (count, -1))
                done[layer.name] = hidden[layer.name] = self.neuron[layer.name](currents)
        raise AssertionError("unreachable: a checked spec ends with its output layer")

    def _encode(self, layer: LayerSpec, x: Tensor) -> Tensor:
        """float[T, N, ...]: the first layer's spikes."""
        if layer.kind in SPIKING:
            current = self._normed(layer, x)
            spikes: Tensor = self.neuron[layer.name](
                current.expand(self.spec.timesteps, *current.shape)
            )
            return spikes
        phi = x if layer.kind == "encode-raw" else self._normed(layer, x)
        if layer.pool > 1:
            phi = functional.max_pool2d(phi, self.spec.window(layer.pool, 1))
        if layer.kind == "encode-raw":
            return latency_encode(phi.clamp(0.0, 1.0), self.spec.timesteps, self.encoder.gradient)
        encoded: Tensor = self.encoder(phi)
        return encoded

    def _pool(self, layer: LayerSpec, folded: Tensor) -> Tensor:
        pool = functional.max_pool2d if layer.kind == "or-pool" else functional.avg_pool2d
        return pool(folded, self.spec.window(layer.kernel, 1), self.spec.window(layer.stride, 1))

    def _normed(self, layer: LayerSpec, x: Tensor) -> Tensor:
        if layer.kind not in CONVS:
            x = _flat(x)
        out: Tensor = self.linear[layer.name](x)
        return self.norm[layer.name](out) if self.spec.norm else out

    def output_leaks(self) -> Tensor | float:
        """The output membranes' leak, float[classes] if learned: exactly the device's."""
        if self.spec.learn_output_leak:
            return rounded_leak(self.output_leak_logit)
        return self.output_leak

    def _readout(self, currents: Tensor) -> Tensor:
        """U[t] = output_leak * U[t-1] + O[t], U[0] = 0; currents float[T, N, classes]."""
        leak = self.output_leaks()
        steps = currents.unbind(0)
        membranes = [steps[0]]
        for current in steps[1:]:
            if isinstance(leak, Tensor):
                membranes.append(torch.addcmul(current, membranes[-1], leak))
            else:
                membranes.append(torch.add(current, membranes[-1], alpha=leak))
        return torch.stack(membranes)


def _flat(x: Tensor) -> Tensor:
    """Channel-last flattened order; a view for channel-last maps."""
    return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x
