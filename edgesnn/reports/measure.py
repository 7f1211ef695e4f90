"""Run a network over a data set and count what it does, up to each sample's exit and without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from edgesnn.checkpoint import Checkpoint, to_graph
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import fan_out as event_fan_out
from edgesnn.data.dataset import Dataset
from edgesnn.networks.spec import CONVS, EVENTS, NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.quantisation.network import KEPT_VALUES, IntegerNetwork, integer_network
from edgesnn.reports.tables import Batch, Subject, figures
from edgesnn.targets.errors import UsageError
from edgesnn.training.evaluate_float import fan_out, samples_tensor

BATCH = 250
MAX_THREADS = 1024


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
    """`figures` of a checkpoint: of the device's integers in the format `weights`, else in floating point."""
    spec, shapes = checkpoint.network, checkpoint.network.shapes()
    layers = [
        (x.name, x.kind, int(np.prod(shapes[x.name])))
        for x in spec.layers
        if x.kind not in ("merge", "or-pool", "avg-pool")
    ]
    names = [name for name, _, _ in layers]
    # What a batch keeps at once: all spikes of all steps.
    per_sample = spec.timesteps * sum(int(np.prod(shape)) for shape in shapes.values())
    batch = max(1, min(BATCH, KEPT_VALUES // per_sample))
    value, unit = checkpoint.readout.value, 1.0
    if integer:
        net = integer_network(to_graph(checkpoint), weights)
        batches = _integer_batches(net, data, names, batch)
        rule = net.program().readout
        value = rule.value if isinstance(rule, ir.FirstSpike | ir.Margin) else 0
        unit = _output_scale(net, data)
    else:
        batches = _float_batches(checkpoint, data, names, batch)
    kind = checkpoint.readout.kind
    form = weights if integer else "float"
    subject = Subject(form, spec.timesteps, layers, dense_macs(spec), kind, value, unit)
    # The exit's value as the checkpoint has it, which integers round.
    return {**figures(subject, batches, data), "threshold": checkpoint.readout.value}


def dense_macs(spec: NetworkSpec) -> dict[str, int]:
    """Multiply-accumulates of every linear map for one sample, as a dense network of this shape does them."""
    shapes, reads = {"input": spec.input_shape, **spec.shapes()}, spec.sources()
    out: dict[str, int] = {}
    for layer in spec.layers:
        source = shapes[reads[layer.name][0]]
        if layer.kind in CONVS:
            height, width, _ = shapes[layer.name]
            kernel = spec.window(layer.kernel, 1)
            padding, stride = spec.window(layer.padding, 0), spec.window(layer.stride, 1)
            if layer.pool > 1:
                height = (source[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1
                width = (source[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1
            out[layer.name] = height * width * layer.out * source[2] * kernel[0] * kernel[1]
        elif layer.out:
            out[layer.name] = source[0] * source[1] * source[2] * layer.out
        elif layer.kind in ("encode-raw", EVENTS):
            out[layer.name] = 0
    return out


def _float_batches(
    checkpoint: Checkpoint, data: Dataset, names: list[str], batch: int
) -> Iterator[Batch]:
    spec = checkpoint.network
    net = SpikingNetwork(spec)
    net.load_state_dict(checkpoint.state)
    net.eval()
    fans = {
        x.name: fan_out(spec, x) for x in spec.layers[1:] if x.kind in ("conv", "dense", "output")
    }
    for i in range(0, len(data), batch):
        samples = samples_tensor(data.x[i : i + batch], checkpoint.scale, checkpoint.zero_point)
        with torch.inference_mode():
            act = net(samples)
        spikes = {spec.encoder.name: act.encoder, **act.hidden}
        nothing = np.zeros(act.membranes.shape[:2])
        yield Batch(
            act.membranes.numpy(),
            np.stack([_summed(spikes[x]) if x in spikes else nothing for x in names]),
            np.stack([_summed(act.sources[x] * fans[x]) if x in fans else nothing for x in names]),
        )


def _integer_batches(
    net: IntegerNetwork, data: Dataset, names: list[str], batch: int
) -> Iterator[Batch]:
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
    for i in range(0, len(data), batch):
        with torch.no_grad():
            act = net(data.x[i : i + batch], trace=True)
        membranes = act.membranes.to(torch.int64).numpy()
        nothing = np.zeros(membranes.shape[:2])
        if isinstance(
            program.input, ir.EventInput
        ):  # in the program the sensor itself, here a layer
            act.events[names[0]] = act.events[program.input.name]
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
