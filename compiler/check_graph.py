"""What a well-formed float graph is; importers and training hand over nothing else."""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.targets.errors import EdgesnnError


def check_graph(graph: g.Graph) -> None:
    """Raise EdgesnnError naming the layer unless the graph can be lowered."""
    known = {"input"}
    if not graph.layers or not isinstance(graph.layers[-1], g.Output):
        raise EdgesnnError(f"{graph.name}: the last layer has to be the Output")
    if graph.readout.kind not in ("first-spike", "margin"):
        raise EdgesnnError(
            f"{graph.name}: readout {graph.readout.kind!r}; first-spike and margin can be lowered"
        )
    if graph.input.dtype not in ir.SAMPLE_RANGE:
        raise EdgesnnError(
            f"{graph.name}: input dtype {graph.input.dtype!r}; use uint8, int8 or int16"
        )
    for layer in graph.layers:
        if layer.source not in known:
            raise EdgesnnError(
                f"{layer.name}: its source {layer.source!r} does not stand before it"
            )
        if layer.name in known:
            raise EdgesnnError(f"{layer.name}: two layers bear this name")
        if (layer.source == "input") != isinstance(layer, g.LatencyEncode):
            raise EdgesnnError(f"{layer.name}: samples go into an encoder, and only samples do")
        known.add(layer.name)
        if isinstance(layer, g.Pool):
            if layer.kind not in ("or", "avg"):
                raise EdgesnnError(f"{layer.name}: pooling kind {layer.kind!r}; use 'or' or 'avg'")
            continue
        _check_linear(layer)
        if isinstance(layer, g.Spiking | g.Output) and not 0.0 <= layer.leak <= 1.0:
            raise EdgesnnError(f"{layer.name}: leak {layer.leak} is outside 0...1")
        if isinstance(layer, g.Spiking) and not layer.v_threshold > 0:
            raise EdgesnnError(f"{layer.name}: the threshold {layer.v_threshold} is not positive")


def _check_linear(layer: g.LatencyEncode | g.Spiking | g.Output) -> None:
    w, out = layer.linear.weight, len(layer.linear.weight)
    if w.ndim != (2 if isinstance(layer.linear, g.Dense) else 4) or w.size == 0:
        raise EdgesnnError(f"{layer.name}: weights of shape {w.shape} do not fit the layer")
    found = [("weight", w), ("bias", layer.linear.bias)]
    if layer.norm is not None:
        n = layer.norm
        found += [("gamma", n.gamma), ("beta", n.beta), ("mean", n.mean), ("var", n.var)]
    for name, array in found:
        if array is None:
            continue
        if name != "weight" and array.shape != (out,):
            raise EdgesnnError(f"{layer.name}: {name} has shape {array.shape}, expected ({out},)")
        if not np.all(np.isfinite(array)):
            raise EdgesnnError(f"{layer.name}: {name} holds NaN or infinity; train again")
