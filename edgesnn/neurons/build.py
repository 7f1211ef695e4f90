"""A population of neurons from its description."""

from __future__ import annotations

from torch import nn

from edgesnn.networks.spec import NeuronSpec
from edgesnn.neurons.amos import Amos
from edgesnn.neurons.lif import Lif
from edgesnn.targets.errors import UsageError


def population(spec: NeuronSpec, timesteps: int, mode: str = "auto") -> nn.Module:
    """The neurons of `spec`: float[T, ...] currents to float[T, ...] spikes."""
    if spec.kind == "amos":
        return Amos(
            spec.leak,
            spec.v_threshold,
            spec.width,
            forced=spec.forced,
            surrogate_name=spec.surrogate,
            mode=mode,
        )
    if spec.kind in ("lif", "if") and spec.reset == "soft" and not spec.learn_leak:
        return Lif(spec.leak, spec.v_threshold, spec.width)
    raise UsageError(f"{spec.kind} neurons, {spec.reset} reset, are not built yet")
