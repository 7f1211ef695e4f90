"""What the float network does with its exit: accuracy, steps, spikes and synaptic operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgesnn.coding.readout import decode
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data.dataset import Dataset
from edgesnn.data.events import is_events
from edgesnn.networks.spec import LayerSpec, NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork

BATCH = 250


def samples_tensor(x: np.ndarray, scale: float, zero_point: int = 0) -> Tensor:
    """float32[N, C, H, W] (channel-last in memory), scale * (raw - zero_point) of raw[N, H, W, C]."""
    samples = torch.from_numpy(x).permute(0, 3, 1, 2).to(torch.float32)
    if zero_point:
        samples.sub_(zero_point)
    return samples.mul_(scale)


def output_membranes(
    net: SpikingNetwork, x: np.ndarray, scale: float, zero_point: int = 0
) -> np.ndarray:
    """float32[T, N, classes]: U[t] of every sample, all T steps, in inference mode."""
    net.eval()
    device = next(net.parameters()).device
    with torch.inference_mode():
        parts = [
            net(samples_tensor(x[i : i + BATCH], scale, zero_point).to(device)).membranes.cpu()
            for i in range(0, len(x), BATCH)
        ]
        return torch.cat(parts, dim=1).numpy()


def fan_out(spec: NetworkSpec, layer: LayerSpec) -> Tensor:
    """float[1, H, W] or scalar: membranes inside the map that one event of the source reaches.

    What an average pool passes on counts k^2 times: its map holds events divided by k^2.
    """
    shapes, reads = spec.shapes(), spec.sources()
    (source,) = reads[layer.name]
    fan = torch.tensor(float(layer.out))
    if layer.kind == "conv":
        kernel, stride = spec.window(layer.kernel, 1), spec.window(layer.stride, 1)
        (height, width, _), target = shapes[source], shapes[layer.name]
        top, left = spec.window(layer.padding, 0)
        ones = torch.ones(1, 1, *target[:2])
        covered = functional.conv_transpose2d(ones, torch.ones(1, 1, *kernel), stride=stride)[0]
        # Positions of the padded source; those past the last window reach nothing.
        full = torch.zeros(1, height + 2 * top, width + 2 * left)
        full[:, : covered.shape[1], : covered.shape[2]] = covered
        fan = full[:, top : top + height, left : left + width] * layer.out
    kinds = {other.name: other for other in spec.layers}
    while source in kinds and kinds[source].kind in ("avg-pool", "or-pool", "merge"):
        if kinds[source].kind == "avg-pool":
            window = spec.window(kinds[source].kernel, 1)
            fan = fan * (window[0] * window[1])
        source = reads[source][0]
    return fan


def evaluate(net: SpikingNetwork, data: Dataset, readout: ReadoutSpec) -> dict[str, Any]:
    """Run every sample with the early exit; plain values.

    accuracy: 0...1 (of events a sample that never exits is wrong: a stream has no last step to answer
    at); mean_timesteps, timesteps_histogram (steps 1...T); no_output_spike: samples that never exited;
    spikes_per_neuron {hidden, all} and sops_mean up to and including the exit step (a SOP is one weight
    added to one membrane inside the map; the encoder does none).
    """
    net.eval()
    spec = net.spec
    device = next(net.parameters()).device
    shapes = spec.shapes()
    fans = {
        layer.name: fan_out(spec, layer).to(device)
        for layer in spec.layers[1:]
        if layer.kind in ("conv", "dense", "output")
    }
    zero_point = getattr(data, "zero_point", 0)
    correct, missed, steps = 0, 0, []
    encoder, hidden, sops = 0.0, 0.0, 0.0
    with torch.inference_mode():
        for i in range(0, len(data), BATCH):
            samples = samples_tensor(data.x[i : i + BATCH], data.scale, zero_point)
            act = net(samples.to(device))
            decided = decode(act.membranes.cpu().numpy(), readout.kind, readout.value)
            answered = decided.exited if is_events(data) else True
            right = (decided.labels == data.y[i : i + BATCH]) & answered
            correct += int(right.sum())
            missed += int((~decided.exited).sum())
            steps.append(decided.steps)
            ran = torch.arange(1, spec.timesteps + 1)[:, None] <= torch.from_numpy(decided.steps)
            ran = ran.to(device)
            encoder += float(_events(act.encoder)[ran].sum())
            hidden += sum(float(_events(s)[ran].sum()) for s in act.hidden.values())
            sops += sum(
                float(_events(act.sources[name] * fan)[ran].sum()) for name, fan in fans.items()
            )
    all_steps = np.concatenate(steps)
    neurons = {layer.name: int(np.prod(shapes[layer.name])) for layer in spec.layers}
    in_hidden = sum(neurons[name] for name in fans if name != spec.output.name)
    in_encoder = neurons[spec.layers[0].name]
    n = len(data)
    return {
        "samples": n,
        "accuracy": correct / n,
        "mean_timesteps": float(all_steps.mean()),
        "timesteps_histogram": np.bincount(all_steps, minlength=spec.timesteps + 1)[1:].tolist(),
        "no_output_spike": missed,
        "spikes_per_neuron": {
            "hidden": hidden / (n * max(in_hidden, 1)),
            "all": (hidden + encoder) / (n * (in_hidden + in_encoder)),
        },
        "sops_mean": sops / n,
    }


def _events(spikes: Tensor) -> Tensor:
    """float64[T, N]: the sum over each sample's units."""
    return spikes.flatten(2).sum(-1, dtype=torch.float64)
