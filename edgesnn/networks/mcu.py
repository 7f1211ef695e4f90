"""Small nets for microcontrollers: mcu-mlp, mcu-lenet-s, mcu-lenet (no torch)."""

from __future__ import annotations

from edgesnn.networks.kind import NetworkKind, Recipe
from edgesnn.networks.spec import LayerSpec, Shape

SMALL_SIDE = 16  # maps below this side get 3x3 kernels with padding: 5x5 ones would leave nothing


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


MCU = (
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
