"""The networks that `edgesnn train --net` knows, sized for the data set at hand (no torch here)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgesnn.networks.spec import LayerSpec, NetworkSpec, NeuronSpec
from edgesnn.targets.errors import UsageError

Shape = tuple[int, int, int]
SMALL_SIDE = 16  # maps below this side get 3x3 kernels with padding: 5x5 ones would leave nothing


@dataclass(frozen=True)
class Recipe:
    """Training defaults of a net. epochs: on a set of tens of thousands of samples.

    rate_penalty, early_penalty: weights of the two spike penalties; encoder_bias: the initial bias
    of the encoder's batch norm, below 0 for fewer and later encoder spikes.
    """

    epochs: int
    rate_penalty: float
    early_penalty: float
    encoder_bias: float


@dataclass(frozen=True)
class NetworkKind:
    """A named network: what it is, how its layers are made, and how it is trained by default."""

    name: str
    title: str
    layers: Callable[[Shape, int], tuple[LayerSpec, ...]]
    recipe: Recipe


def _mlp(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    return (
        LayerSpec("encode-dense", "encoder", out=128),
        LayerSpec("dense", "hidden", out=64),
        LayerSpec("output", "output", out=classes),
    )


def _lenet_s(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    if min(shape[:2]) < SMALL_SIDE:
        encoder = LayerSpec("encode-conv", "encoder", out=16, kernel=3, padding=1)
        conv = LayerSpec("conv", "conv", out=32, kernel=3, padding=1)
    else:
        encoder = LayerSpec("encode-conv", "encoder", out=16, kernel=5, stride=2)
        conv = LayerSpec("conv", "conv", out=32, kernel=5)
    return (
        encoder,
        conv,
        LayerSpec("or-pool", "pool", kernel=2, stride=2),
        LayerSpec("dense", "dense", out=128),
        LayerSpec("output", "output", out=classes),
    )


def _lenet(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    return (
        LayerSpec("encode-conv", "encoder", out=16, kernel=5, padding=2, pool=2),
        LayerSpec("conv", "conv", out=32, kernel=5, padding=2),
        LayerSpec("or-pool", "pool", kernel=2, stride=2),
        LayerSpec("dense", "dense", out=128),
        LayerSpec("output", "output", out=classes),
    )


NETWORKS: dict[str, NetworkKind] = {
    kind.name: kind
    for kind in (
        NetworkKind(
            "mcu-mlp",
            "LE dense 128, spiking dense 64",
            _mlp,
            Recipe(epochs=15, rate_penalty=0.02, early_penalty=0.1, encoder_bias=-0.5),
        ),
        NetworkKind(
            "mcu-lenet-s",
            "LE conv 5x5x16 stride 2, spiking conv 5x5x32, OR-pool 2, spiking dense 128",
            _lenet_s,
            Recipe(epochs=16, rate_penalty=0.02, early_penalty=0.1, encoder_bias=-0.5),
        ),
        NetworkKind(
            "mcu-lenet",
            "LE conv 5x5x16 max-pool 2, spiking conv 5x5x32, OR-pool 2, spiking dense 128",
            _lenet,
            Recipe(epochs=7, rate_penalty=0.05, early_penalty=0.2, encoder_bias=-1.0),
        ),
    )
}


def network_kind(name: str) -> NetworkKind:
    """The network of that name; UsageError naming the choices."""
    if name not in NETWORKS:
        raise UsageError(f"unknown net {name!r}: one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def network_spec(
    name: str, input_shape: Shape, classes: int, timesteps: int, neuron: str = "lif"
) -> NetworkSpec:
    """The named network for samples of `input_shape` (height, width, channels)."""
    if timesteps < 1:
        raise UsageError(f"timesteps {timesteps} is not at least 1")
    if classes < 2:
        raise UsageError(f"{classes} class: a classifier needs at least 2")
    layers = network_kind(name).layers(input_shape, classes)
    spec = NetworkSpec(name, input_shape, classes, timesteps, layers, NeuronSpec(neuron))
    spec.shapes()
    return spec
