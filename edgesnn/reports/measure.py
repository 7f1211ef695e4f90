"""Run a network over a data set and count what it does, up to each sample's exit and without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgesnn.checkpoint import Checkpoint, to_graph
from edgesnn.coding.readout import EARLY_EXITS, decode
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import fan_out as event_fan_out
from edgesnn.data.dataset import Dataset
from edgesnn.networks.spec import CONVS, NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.quantisation.network import IntegerNetwork, integer_network
from edgesnn.reports.energy import energy
from edgesnn.targets.errors import UsageError
from edgesnn.training.evaluate_float import fan_out, samples_tensor
from edgesnn.training.select import fine_candidates, trade_off

BATCH = 250
MAX_THREADS = 1024
BINS = 10  # of difficulty, equally many samples each
CURVE = 60  # points of a trade-off curve at most


@dataclass
class Batch:
    """membranes: [T, N, classes]; spikes, sops: [layers, T, N], sums over each sample's units."""

    membranes: np.ndarray
    spikes: np.ndarray
    sops: np.ndarray


@contextmanager
def on_threads(threads: int | None) -> Iterator[None]:
    """So many processor threads for torch, those of before afterwards; UsageError for a silly number."""
    before = torch.get_num_threads()
    if threads is not None:
        if not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"threads {threads} is not from 1 to {MAX_THREADS}")
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(checkpoint: Checkpoint, data: Dataset, integer: bool, weights: str) -> dict[str, Any]:
    """Everything that `edgesnn evaluate` reports of one form of a checkpoint, plain values.

    integer: the device's integers in the format `weights`, else floating point. Shares are 0...1; per_layer:
    spikes per neuron (total and by step) and synaptic operations up to the exit; curves: accuracy against
    mean steps over thresholds; difficulty: 1 - the margin of softmax(U[T]) between the best two classes.
    """
    spec = checkpoint.network
    shapes = spec.shapes()
    layers = [x for x in spec.layers if x.kind not in ("merge", "or-pool", "avg-pool")]
    neurons = np.array([int(np.prod(shapes[x.name])) for x in layers], dtype=float)
    neurons[-1] = 1.0  # the output spikes at most once, and is not counted
    value = checkpoint.readout.value
    kind = checkpoint.readout.kind
    unit = 1.0
    if integer:
        net = integer_network(to_graph(checkpoint), weights)
        batches = _integer_batches(net, data, [x.name for x in layers])
        rule = net.program().readout
        value = 0 if isinstance(rule, ir.Rate) else rule.value
        unit = _output_scale(net, data)
    else:
        batches = _float_batches(checkpoint, data, [x.name for x in layers])
    parts, steps, labels, exited = [], [], [], []
    ran = np.zeros((2, len(layers), spec.timesteps))  # spikes, sops up to the exit
    full = np.zeros((2, len(layers), spec.timesteps))
    for batch in batches:
        decided = decode(batch.membranes, kind, value)
        alive = np.arange(spec.timesteps)[:, None] < decided.steps[None, :]
        for i, counts in enumerate((batch.spikes, batch.sops)):
            ran[i] += (counts * alive).sum(axis=-1)
            full[i] += counts.sum(axis=-1)
        parts.append(batch.membranes)
        steps.append(decided.steps)
        labels.append(decided.labels)
        exited.append(decided.exited)
    membranes = np.concatenate(parts, axis=1)
    step, label = np.concatenate(steps), np.concatenate(labels)
    n = len(data)
    right = label == data.y
    spikes, sops = ran / n
    hidden = slice(1, -1)
    macs = dense_macs(spec)
    whole = (float(spec.timesteps), float(full[0].sum()) / n)
    return {
        "form": weights if integer else "float",
        "samples": n,
        "accuracy": float(right.mean()),
        "mean_timesteps": float(step.mean()),
        "timesteps_histogram": {
            str(t): int(c)
            for t, c in enumerate(np.bincount(step, minlength=spec.timesteps + 1))
            if t
        },
        "no_output_spike": int((~np.concatenate(exited)).sum()),
        "exit": kind,
        "threshold": checkpoint.readout.value,
        "spikes_per_neuron": {
            "hidden": float(spikes[hidden].sum() / max(neurons[hidden].sum(), 1.0)),
            "all": float(spikes[:-1].sum() / neurons[:-1].sum()),
        },
        "sops_mean": float(sops.sum()),
        "encoder_macs": macs[spec.encoder.name],
        "per_layer": [
            {
                "name": x.name,
                "kind": x.kind,
                "neurons": int(np.prod(shapes[x.name])),
                "spikes_per_neuron": float(spikes[i].sum() / neurons[i]),
                "spikes_per_neuron_by_step": [float(v) for v in spikes[i] / neurons[i]],
                "sops_mean": float(sops[i].sum()),
            }
            for i, x in enumerate(layers)
        ],
        "accuracy_per_class": _per_class(label, data),
        "confusion": _confusion(label, data.y, spec.classes),
        "curves": _curves(membranes, data.y, kind, unit),
        "difficulty": _difficulty(membranes * unit, step, right),
        "energy": energy(
            macs,
            spec.encoder.name,
            float(sops.sum()),
            float(step.mean()),
            float(spikes.sum()),
            whole,
        ),
    }


def dense_macs(spec: NetworkSpec) -> dict[str, int]:
    """Multiply-accumulates of every linear map for one sample, as a dense network of this shape does them."""
    shapes, reads = {"input": spec.input_shape, **spec.shapes()}, spec.sources()
    out: dict[str, int] = {}
    for layer in spec.layers:
        source = shapes[reads[layer.name][0]]
        if layer.kind in CONVS:
            height, width, _ = shapes[layer.name]
            pool, kernel = spec.window(layer.pool, 1), spec.window(layer.kernel, 1)
            padding, stride = spec.window(layer.padding, 0), spec.window(layer.stride, 1)
            if layer.pool > 1:
                height = (source[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1
                width = (source[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1
            assert pool
            out[layer.name] = height * width * layer.out * source[2] * kernel[0] * kernel[1]
        elif layer.out:
            out[layer.name] = source[0] * source[1] * source[2] * layer.out
        elif layer.kind == "encode-raw":
            out[layer.name] = 0
    return out


def _float_batches(checkpoint: Checkpoint, data: Dataset, names: list[str]) -> Iterator[Batch]:
    spec = checkpoint.network
    net = SpikingNetwork(spec)
    net.load_state_dict(checkpoint.state)
    net.eval()
    fans = {
        x.name: fan_out(spec, x) for x in spec.layers[1:] if x.kind in ("conv", "dense", "output")
    }
    for i in range(0, len(data), BATCH):
        samples = samples_tensor(data.x[i : i + BATCH], checkpoint.scale, checkpoint.zero_point)
        with torch.inference_mode():
            act = net(samples)
        spikes = {spec.encoder.name: act.encoder, **act.hidden}
        nothing = np.zeros(act.membranes.shape[:2])
        yield Batch(
            act.membranes.numpy(),
            np.stack([_summed(spikes[x]) if x in spikes else nothing for x in names]),
            np.stack([_summed(act.sources[x] * fans[x]) if x in fans else nothing for x in names]),
        )


def _integer_batches(net: IntegerNetwork, data: Dataset, names: list[str]) -> Iterator[Batch]:
    program = net.program()
    shapes = ir.shapes(program)
    fans = {
        node.name: [
            (p.source, torch.as_tensor(event_fan_out(p, shapes[p.source])))
            for p in node.projections
        ]
        for node in program.nodes
        if isinstance(node, ir.Population)
    }
    for i in range(0, len(data), BATCH):
        with torch.no_grad():
            act = net(data.x[i : i + BATCH], trace=True)
        membranes = act.membranes.to(torch.int64).numpy()
        nothing = np.zeros(membranes.shape[:2])
        sops = [
            sum(
                (_summed(act.events[s].to(torch.float64) * fan) for s, fan in fans.get(x, [])),
                nothing,
            )
            for x in names
        ]
        spikes = [_summed(act.events[x]) if x in act.events else nothing for x in names]
        yield Batch(membranes, np.stack(spikes), np.stack(sops))


def _output_scale(net: IntegerNetwork, data: Dataset) -> float:
    with torch.no_grad():
        return float(net(data.x[:1]).scale)


def _summed(spikes: torch.Tensor) -> np.ndarray:
    """[T, N]: the sum over each sample's units."""
    return spikes.flatten(2).sum(-1, dtype=torch.float64).numpy()


def _per_class(label: np.ndarray, data: Dataset) -> dict[str, float]:
    return {
        name: float((label[data.y == c] == c).mean())
        for c, name in enumerate(data.class_names)
        if (data.y == c).any()
    }


def _confusion(label: np.ndarray, y: np.ndarray, classes: int) -> list[list[int]]:
    """Row: the true class; column: the answer. A net may tell more classes apart than the data has."""
    out = np.zeros((classes, classes), dtype=int)
    np.add.at(out, (y, label), 1)
    return [[int(v) for v in row] for row in out]


def _curves(
    membranes: np.ndarray, y: np.ndarray, kind: str, unit: float
) -> dict[str, list[dict[str, float]]]:
    """Accuracy against mean steps over thresholds, for each early exit; empty for a rate readout."""
    out: dict[str, list[dict[str, float]]] = {}
    for exit in EARLY_EXITS:
        # Leaks per class are the net's: its first spikes are those of a selector, and the other way round.
        other = "first-spike" if kind == "selector" else "selector"
        if kind == "rate" or exit == other:
            continue
        front = trade_off(membranes, y, exit, fine_candidates(membranes, exit))
        keep = np.unique(np.linspace(0, len(front) - 1, CURVE).round().astype(int))
        out[exit] = [
            {
                "value": front[i].value * unit,
                "accuracy": front[i].accuracy,
                "mean_timesteps": front[i].mean_steps,
            }
            for i in keep
        ]
    return out


def _difficulty(
    membranes: np.ndarray, steps: np.ndarray, right: np.ndarray
) -> list[dict[str, float]]:
    last = membranes[-1].astype(np.float64)
    p = np.exp(last - last.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    top = np.sort(p, axis=-1)
    hard = 1.0 - (top[:, -1] - top[:, -2])
    parts = np.array_split(np.argsort(hard, kind="stable"), min(BINS, len(hard)))
    return [
        {
            "difficulty": float(hard[part].mean()),
            "mean_timesteps": float(steps[part].mean()),
            "accuracy": float(right[part].mean()),
        }
        for part in parts
    ]
