"""What a well-formed float graph is; importers and training hand over nothing else."""

from __future__ import annotations

import math

import numpy as np

from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.targets.errors import EdgesnnError

READOUTS = ("first-spike", "margin", "rate")
ACTIVATIONS = ("sigmoid", "identity")


def check_graph(graph: g.Graph) -> None:
    """Raise EdgesnnError naming the layer unless the graph can be lowered."""
    known = {"input"}
    if not graph.layers or not isinstance(graph.layers[-1], g.Output):
        raise EdgesnnError(f"{graph.name}: the last layer has to be the Output")
    if graph.readout.kind not in READOUTS:
        raise EdgesnnError(
            f"{graph.name}: readout {graph.readout.kind!r}; use one of {', '.join(READOUTS)}"
        )
    if graph.readout.kind == "rate" and graph.layers[-1].leak != 1.0:
        raise EdgesnnError(f"{graph.name}: a rate readout sums currents; its output's leak is 1")
    if not 1 <= graph.timesteps <= MAX_TIMESTEPS:
        raise EdgesnnError(f"{graph.name}: {graph.timesteps} timesteps; use 1 to {MAX_TIMESTEPS}")
    samples = isinstance(graph.input, g.SampleInput)
    if isinstance(graph.input, g.SampleInput):
        _check_samples(graph.name, graph.input)
    if isinstance(graph.stream, ir.EventStream):
        _check_continuous(graph)
    for layer in graph.layers:
        for source in g.layer_sources(layer):
            if source not in known:
                raise EdgesnnError(f"{layer.name}: its source {source!r} does not stand before it")
            if (samples and source == "input") != isinstance(layer, g.Encode):
                raise EdgesnnError(f"{layer.name}: samples go into an encoder, and only samples do")
        if layer.name in known:
            raise EdgesnnError(f"{layer.name}: two layers bear this name")
        known.add(layer.name)
        if isinstance(layer, g.Pool):
            if layer.kind not in ("or", "avg"):
                raise EdgesnnError(f"{layer.name}: pooling kind {layer.kind!r}; use 'or' or 'avg'")
            if min(*g.pair(layer.kernel), *g.pair(layer.stride)) < 1:
                raise EdgesnnError(f"{layer.name}: pooling kernel and stride are at least 1")
        elif isinstance(layer, g.Merge):
            if len(layer.sources) < 2:
                raise EdgesnnError(f"{layer.name}: a merge has at least two sources")
        else:
            _check_linear(layer)
            _check_dynamics(layer)


def _check_continuous(graph: g.Graph) -> None:
    """A stream of events has no end: every membrane leaks towards 0, and nothing counts on a first step."""
    if not isinstance(graph.input, g.EventInput):
        raise EdgesnnError(f"{graph.name}: a stream of events needs a network that takes events")
    if graph.readout.kind == "rate":
        raise EdgesnnError(f"{graph.name}: a stream of events has no last step for a rate readout")
    for layer in graph.layers:
        if isinstance(layer, g.Spiking) and layer.reset == "amos":
            raise EdgesnnError(
                f"{layer.name}: neurons of one spike per inference cannot run on in a stream of events; "
                "use lif neurons"
            )
        leaks = layer.leak if isinstance(layer, g.Spiking | g.Output) else ()
        if max(leaks if isinstance(leaks, tuple) else (leaks,), default=0.0) >= 1.0:
            raise EdgesnnError(
                f"{layer.name}: a leak of 1 forgets nothing, and a stream of events has no end; use one below"
            )


def _check_samples(name: str, source: g.SampleInput) -> None:
    if source.dtype not in ir.SAMPLE_RANGE:
        raise EdgesnnError(f"{name}: input dtype {source.dtype!r}; use uint8, int8 or int16")
    if not (math.isfinite(source.scale) and source.scale > 0):
        raise EdgesnnError(f"{name}: input scale {source.scale} is not positive")


def _check_dynamics(layer: g.Linear) -> None:
    if isinstance(layer, g.LatencyEncode):
        if layer.activation not in ACTIVATIONS:
            raise EdgesnnError(
                f"{layer.name}: activation {layer.activation!r}; use one of {', '.join(ACTIVATIONS)}"
            )
        return
    leaks = layer.leak if isinstance(layer.leak, tuple) else (layer.leak,)
    if len(leaks) not in (1, len(layer.linear.weight)):
        raise EdgesnnError(
            f"{layer.name}: {len(leaks)} leaks for {len(layer.linear.weight)} classes"
        )
    for leak in leaks:
        if not 0.0 <= leak <= 1.0:
            raise EdgesnnError(f"{layer.name}: leak {leak} is outside 0...1")
    if isinstance(layer, g.Output):
        return
    if not layer.v_threshold > 0:
        raise EdgesnnError(f"{layer.name}: the threshold {layer.v_threshold} is not positive")
    resets = ("soft", "hard", "amos") if isinstance(layer, g.Spiking) else ("soft", "hard")
    if layer.reset not in resets:
        raise EdgesnnError(f"{layer.name}: reset {layer.reset!r}; use one of {', '.join(resets)}")


def _check_linear(layer: g.Linear) -> None:
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
