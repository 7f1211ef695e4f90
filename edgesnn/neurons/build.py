"""A population of neurons from its description."""

from __future__ import annotations

from torch import nn

from edgesnn.networks.spec import NeuronSpec
from edgesnn.neurons.amos import Amos
from edgesnn.neurons.if_neuron import If
from edgesnn.neurons.lif import Lif
from edgesnn.neurons.psn import Psn
from edgesnn.targets.errors import UsageError


def population(spec: NeuronSpec, timesteps: int, mode: str = "auto") -> nn.Module:
    """The neurons of `spec`: float[T, ...] currents to float[T, ...] spikes, T up to `timesteps`.

    mode: "loop", "parallel" or "auto", for neurons that have both forms (amos). The module has
    `v_threshold`; `leak`, the value in use, unless it is a psn; and `leak_logit` if that is learned.
    Raises UsageError for a description that makes no sense.
    """
    try:
        spec.check()
    except ValueError as error:
        raise UsageError(str(error)) from None
    threshold, width, name = spec.v_threshold, spec.width, spec.surrogate
    if spec.kind == "psn":
        return Psn(timesteps, threshold, width, surrogate_name=name)
    if spec.kind == "if":
        return If(threshold, width, reset=spec.reset, surrogate_name=name)
    if spec.kind == "lif":
        return Lif(
            spec.leak,
            threshold,
            width,
            reset=spec.reset,
            surrogate_name=name,
            learn_leak=spec.learn_leak,
        )
    return Amos(
        spec.leak,
        threshold,
        width,
        forced=spec.forced,
        surrogate_name=name,
        learn_leak=spec.learn_leak,
        mode=mode,
    )
