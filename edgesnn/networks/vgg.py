"""VGG-11 and VGG-16 without their two hidden dense layers (LE/TAD paper, section IV-A; no torch)."""

from __future__ import annotations

from collections.abc import Callable

from edgesnn.networks.kind import PAPERS, NetworkKind, side
from edgesnn.networks.spec import LayerSpec, Shape

# Channels of the 3x3 convolutions; POOL is a pool of 2.
POOL = 0
VGG11 = (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
VGG16 = (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3, POOL)


def _vgg(plan: tuple[int, ...]) -> Callable[[Shape, int], tuple[LayerSpec, ...]]:
    """The first convolution is the encoder, a pool right after it comes before its sigmoid; the others are

    or-pools. Pools that would leave nothing of a small sample's map are left out.
    """

    def layers(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
        left = side(shape)
        pool = 2 if plan[1] == POOL and left >= 2 else 1
        left //= pool
        out = [LayerSpec("encode-conv", "encoder", plan[0], 3, padding=1, pool=pool)]
        convs, pools = 1, 0
        for width in plan[2:] if plan[1] == POOL else plan[1:]:
            if width != POOL:
                convs += 1
                out.append(LayerSpec("conv", f"conv{convs}", width, 3, padding=1))
            elif left >= 2:
                pools, left = pools + 1, left // 2
                out.append(LayerSpec("or-pool", f"pool{pools}", kernel=2, stride=2))
        return (*out, LayerSpec("output", "output", out=classes))

    return layers


VGGS = (
    NetworkKind(
        "vgg11", "VGG-11: LE conv 3x3x64, 7 spiking convs 3x3, OR-pools", _vgg(VGG11), PAPERS
    ),
    NetworkKind(
        "vgg16", "VGG-16: LE conv 3x3x64, 12 spiking convs 3x3, OR-pools", _vgg(VGG16), PAPERS
    ),
)
