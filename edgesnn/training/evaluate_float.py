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
from edgesnn.networks.latency import LatencyNetwork
from edgesnn.networks.spec import LayerSpec

BATCH = 250


def samples_tensor(x: np.ndarray, scale: float) -> Tensor:
    """float32[N, C, H, W] (channel-last in memory) from raw uint8[N, H, W, C]."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).to(torch.float32).mul_(scale)


def output_membranes(net: LatencyNetwork, x: np.ndarray, scale: float) -> np.ndarray:
    """float32[T, N, classes]: U[t] of every sample, all T steps, in inference mode."""
    net.eval()
    with torch.inference_mode():
        parts = [
            net(samples_tensor(x[i : i + BATCH], scale)).membranes for i in range(0, len(x), BATCH)
        ]
        return torch.cat(parts, dim=1).numpy()


def fan_out(layer: LayerSpec, source: tuple[int, int, int], target: tuple[int, int, int]) -> Tensor:
    """float[1, H, W] or scalar: membranes inside the map that one event of the source reaches."""
    if layer.kind != "conv":
        return torch.tensor(float(layer.out))
    ones = torch.ones(1, 1, target[0], target[1])
    kernel = torch.ones(1, 1, layer.kernel, layer.kernel)
    covered = functional.conv_transpose2d(ones, kernel, stride=layer.stride)[0]
    # Positions of the padded source; those past the last window reach nothing.
    full = torch.zeros(1, source[0] + 2 * layer.padding, source[1] + 2 * layer.padding)
    full[:, : covered.shape[1], : covered.shape[2]] = covered
    inner = full[
        :, layer.padding : layer.padding + source[0], layer.padding : layer.padding + source[1]
    ]
    return inner * layer.out


def evaluate(net: LatencyNetwork, data: Dataset, readout: ReadoutSpec) -> dict[str, Any]:
    """Run every sample with the early exit; plain values.

    accuracy: 0...1; mean_timesteps, timesteps_histogram (steps 1...T); no_output_spike: samples
    that never exited; spikes_per_neuron {hidden, all} and sops_mean up to and including the exit
    step (a SOP is one weight added to one membrane inside the map; the encoder does none).
    """
    net.eval()
    spec = net.spec
    shapes = dict(zip((layer.name for layer in spec.layers), spec.shapes(), strict=True))
    sources = dict(zip(shapes, (spec.input_shape, *spec.shapes()[:-1]), strict=True))
    fans = {
        layer.name: fan_out(layer, sources[layer.name], shapes[layer.name])
        for layer in spec.layers[1:]
        if layer.kind != "or-pool"
    }
    correct, missed, steps = 0, 0, []
    encoder, hidden, sops = 0.0, 0.0, 0.0
    with torch.inference_mode():
        for i in range(0, len(data), BATCH):
            act = net(samples_tensor(data.x[i : i + BATCH], data.scale))
            decided = decode(act.membranes.numpy(), readout.kind, readout.value)
            correct += int((decided.labels == data.y[i : i + BATCH]).sum())
            missed += int((~decided.exited).sum())
            steps.append(decided.steps)
            ran = torch.arange(1, spec.timesteps + 1)[:, None] <= torch.from_numpy(decided.steps)
            encoder += float(_events(act.encoder)[ran].sum())
            hidden += sum(float(_events(s)[ran].sum()) for s in act.hidden)
            sops += sum(
                float(_events(act.sources[name] * fan)[ran].sum()) for name, fan in fans.items()
            )
    all_steps = np.concatenate(steps)
    neurons = {layer.name: int(np.prod(shapes[layer.name])) for layer in spec.layers}
    in_hidden = sum(neurons[layer.name] for layer in spec.layers if layer.kind in ("conv", "dense"))
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
