"""psn-net: the CIFAR net of parallel spiking neurons (PSN paper, Fang et al. 2023; AMOS paper; no torch)."""

from __future__ import annotations

from edgesnn.networks.kind import PAPERS, NetworkKind, side
from edgesnn.networks.spec import LayerSpec, Shape


def _psn_net(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    """Six 3x3 convolutions of 256 channels, the first one the encoder; average pool 2 after every third."""
    left = side(shape)
    layers = [LayerSpec("encode-conv", "encoder", 256, 3, padding=1)]
    for n in range(2, 7):
        layers.append(LayerSpec("conv", f"conv{n}", 256, 3, padding=1))
        if n % 3 == 0 and left >= 2:
            left //= 2
            layers.append(LayerSpec("avg-pool", f"pool{n // 3}", kernel=2, stride=2))
    return (
        *layers,
        LayerSpec("dense", "dense", out=2048),
        LayerSpec("output", "output", out=classes),
    )


PSN_NET = NetworkKind(
    "psn-net",
    "LE conv 3x3x256, 5 spiking convs 3x3x256, average pools, spiking dense 2048",
    _psn_net,
    PAPERS,
)
