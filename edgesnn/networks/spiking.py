"""The trainable form of a `NetworkSpec`: an encoder, spiking layers, membranes that a readout looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgesnn.coding.latency import LatencyEncoder, latency_encode
from edgesnn.networks.arithmetic import (
    RmsNorm,
    batch_norm,
    channel_last,
    currents,
    direct_spikes,
    event_steps,
    leaky_membranes,
    max_pooled,
    merged,
    pooled,
    potential,
)
from edgesnn.networks.spec import (
    CONVS,
    EVENTS,
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
    encoder: the spikes of the first layer (of events, they themselves). hidden: those of each further
    spiking layer, by name. sources: what each layer after the first received; a merge's is the sum of its own.
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
    batch together, so it folds into one set of weights for all steps. A net of events has a norm
    without an offset instead (`RmsNorm`), and its output has no bias to learn.

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
            linear = self.linear[layer.name] = self._linear(layer, source)
            if layer.kind in SPIKING:
                neuron = spec.neuron_of(layer)
                self.neuron[layer.name] = population(neuron, spec.timesteps, neuron_mode)
            if layer.kind == "output" or not spec.norm:
                continue
            if spec.takes_events:
                self.norm[layer.name] = RmsNorm(layer.out, 0.5 * spec.neuron_of(layer).v_threshold)
                continue
            start = encoder_bias if layer.kind in LATENCY_ENCODERS else spec.neuron_of(layer)
            self.norm[layer.name] = batch_norm(linear, start)
        if spec.takes_events:
            output = self.linear[spec.output.name]
            assert isinstance(output, nn.Linear)
            nn.init.zeros_(output.bias).requires_grad_(False)
        self.output_leak = shift_representable(spec.output_leak)
        if spec.learn_output_leak:
            logits = torch.full((spec.classes,), leak_logit(spec.output_leak))
            self.output_leak_logit = nn.Parameter(logits)
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
        if first.kind == EVENTS:
            encoded = event_steps(samples, spec.timesteps)[:count]
        else:
            encoded = self._encode(first, channel_last(samples))[:count]
        done = {first.name: encoded}
        hidden: dict[str, Tensor] = {}
        sources: dict[str, Tensor] = {}
        for layer in rest:
            spikes = merged([done[name] for name in self._reads[layer.name]])
            sources[layer.name] = spikes
            if layer.kind == "merge":
                done[layer.name] = spikes
            elif layer.kind in ("or-pool", "avg-pool"):
                kernel, stride = spec.window(layer.kernel, 1), spec.window(layer.stride, 1)
                done[layer.name] = pooled(layer.kind, spikes, kernel, stride)
            elif layer.kind == "output":
                received = currents(self.linear[layer.name], None, spikes)
                membranes = leaky_membranes(received, self.output_leaks())
                return Activity(membranes, received, encoded, hidden, sources)
            else:
                received = currents(*self._normed(layer), spikes)
                done[layer.name] = hidden[layer.name] = self.neuron[layer.name](received)
        raise AssertionError("unreachable: a checked spec ends with its output layer")

    def _encode(self, layer: LayerSpec, x: Tensor) -> Tensor:
        """float[T, N, ...]: the first layer's spikes."""
        steps = self.spec.timesteps
        phi = x if layer.kind == "encode-raw" else potential(*self._normed(layer), x)
        if layer.kind in SPIKING:
            return direct_spikes(self.neuron[layer.name], phi, steps)
        phi = max_pooled(phi, self.spec.window(layer.pool, 1))
        if layer.kind == "encode-raw":
            return latency_encode(phi.clamp(0.0, 1.0), steps, self.encoder.gradient)
        encoded: Tensor = self.encoder(phi)
        return encoded

    def _normed(self, layer: LayerSpec) -> tuple[nn.Module, nn.Module | None]:
        """A layer's linear map, and its batch norm if it has one."""
        return self.linear[layer.name], self.norm[layer.name] if self.spec.norm else None

    def output_leaks(self) -> Tensor | float:
        """The output membranes' leak, float[classes] if learned: exactly the device's."""
        if self.spec.learn_output_leak:
            return rounded_leak(self.output_leak_logit)
        return self.output_leak
