"""The networks that `edgesnn train --net` knows by name, sized for the data set at hand (no torch here)."""

from __future__ import annotations

from dataclasses import replace

from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.networks.events import EVENT_NETS
from edgesnn.networks.kind import NetworkKind
from edgesnn.networks.mcu import MCU
from edgesnn.networks.psn_net import PSN_NET
from edgesnn.networks.resnet import RESNETS
from edgesnn.networks.signal import SIGNAL
from edgesnn.networks.spec import EVENTS, LayerSpec, NetworkSpec, NeuronSpec, Shape, neuron_spec
from edgesnn.networks.spectrogram import SOUND
from edgesnn.networks.vgg import VGGS
from edgesnn.targets.errors import UsageError

NETWORKS: dict[str, NetworkKind] = {
    kind.name: kind for kind in (*MCU, SIGNAL, SOUND, *EVENT_NETS, *RESNETS, *VGGS, PSN_NET)
}
# What stands first: the learned features' latency, the samples' own latency, or their constant current.
ENCODER_FORMS = ("latency", "raw", "direct")


def network_kind(name: str) -> NetworkKind:
    """The network of that name; UsageError naming the choices."""
    if name not in NETWORKS:
        raise UsageError(f"unknown net {name!r}: one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def network_spec(
    name: str,
    input_shape: Shape,
    classes: int,
    timesteps: int,
    neuron: str | NeuronSpec = "lif",
    *,
    encoder: str = "latency",
    output_leak: float = 0.5,
    learn_output_leak: bool = False,
) -> NetworkSpec:
    """The named network for samples of `input_shape` (height, width, channels).

    encoder: "latency", the first layer's features are spike times (LE); "raw", the samples are, and the
    first layer is a spiking one; "direct", the first layer's output is a constant current into neurons.
    """
    check_sizes(classes, timesteps)
    if encoder not in ENCODER_FORMS:
        raise UsageError(f"unknown encoder {encoder!r}: one of {', '.join(ENCODER_FORMS)}")
    layers = network_kind(name).layers(input_shape, classes)
    if layers[0].kind != EVENTS:
        layers = _encoded(layers, encoder)
    elif encoder != "latency":
        raise UsageError(f"{name} takes events, which are spikes already: leave the encoder out")
    spec = NetworkSpec(
        name,
        input_shape,
        classes,
        timesteps,
        layers,
        neuron_spec(neuron),
        output_leak,
        learn_output_leak,
    )
    spec.shapes()
    return spec


def check_sizes(classes: int, timesteps: int) -> None:
    """UsageError for numbers that no network has."""
    if timesteps < 1:
        raise UsageError(f"timesteps {timesteps} is not at least 1")
    if timesteps > MAX_TIMESTEPS:
        raise UsageError(f"timesteps {timesteps} is more than {MAX_TIMESTEPS}")
    if classes < 2:
        raise UsageError(f"{classes} class: a classifier needs at least 2")


def _encoded(layers: tuple[LayerSpec, ...], form: str) -> tuple[LayerSpec, ...]:
    """The layers with another first one in place of `encode-conv` or `encode-dense`."""
    first, *rest = layers
    if form == "latency":
        return layers
    shape = first.kind.removeprefix("encode-")
    if form == "raw":
        head = [
            LayerSpec("encode-raw", first.name),
            replace(first, kind=shape, name="features", pool=1),
        ]
    else:
        head = [replace(first, kind=f"direct-{shape}", pool=1)]
    if first.pool > 1:
        name = f"{head[-1].name}_pool"
        head.append(LayerSpec("or-pool", name, kernel=first.pool, stride=first.pool))
    last = head[-1].name
    named = {first.name: last}
    return (
        *head,
        *(replace(x, sources=tuple(named.get(s, s) for s in x.sources)) for x in rest),
    )
