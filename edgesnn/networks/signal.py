"""mcu-signal: a small net for one-dimensional samples, i.e. maps of height 1 (no torch)."""

from __future__ import annotations

import math

from edgesnn.networks.kind import NetworkKind, Recipe, side
from edgesnn.networks.spec import LayerSpec, Shape

ENCODED = 128  # samples of a map after the encoder, at most; a longer signal gets a longer stride
MOST_STRIDE = 16
DENSE_INPUT = 16  # samples of a map before the dense layer, at most


def _signal(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    length = side(shape)
    stride = min(math.ceil(length / ENCODED), MOST_STRIDE)
    left = (length - 1) // stride + 1
    # Two pools share the rest.
    pool = math.ceil(math.sqrt(left / DENSE_INPUT))
    pools = [LayerSpec("or-pool", f"pool{n}", kernel=pool, stride=pool) for n in (1, 2)]
    layers = (
        LayerSpec("encode-conv", "encoder", 16, 2 * stride + 1, stride, stride),
        LayerSpec("conv", "conv1", 32, 5, padding=2),
        pools[0],
        LayerSpec("conv", "conv2", 32, 5, padding=2),
        pools[1],
        LayerSpec("dense", "dense", out=64),
        LayerSpec("output", "output", out=classes),
    )
    return tuple(layer for layer in layers if pool > 1 or layer not in pools)


SIGNAL = NetworkKind(
    "mcu-signal",
    "for signals: LE conv 1xk x16 with a stride, 2 spiking convs 1x5x32, OR-pools, spiking dense 64",
    _signal,
    Recipe(epochs=20, rate_penalty=0.02, early_penalty=0.1, encoder_bias=-0.5),
)
