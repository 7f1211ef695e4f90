"""Residual nets whose shortcuts add spikes (SEW ResNet, Fang et al. 2021): mcu-resnet8, sew-resnet18."""

from __future__ import annotations

from edgesnn.networks.kind import PAPERS, NetworkKind, Recipe
from edgesnn.networks.spec import LayerSpec, NetworkSpec, Shape


def _resnet(
    shape: Shape, classes: int, widths: tuple[int, ...], blocks: int
) -> tuple[LayerSpec, ...]:
    """A 3x3 stem of widths[0] channels, the encoder; a stack of `blocks` basic blocks for each width, the

    first block of every stack but the first with stride 2; global average pool; output. A block is two 3x3
    convolutions whose spikes are added to those of its input, or, where the shape changes, to those of a
    1x1 convolution of the same stride with neurons of its own.
    """
    layers = [LayerSpec("encode-conv", "encoder", out=widths[0], kernel=3, padding=1)]
    before, channels = "encoder", widths[0]
    for stack, width in enumerate(widths, start=1):
        for block in range(1, blocks + 1):
            at = f"stack{stack}" if blocks == 1 else f"stack{stack}_{block}"
            stride = 2 if stack > 1 and block == 1 else 1
            a, b, shortcut, add = f"{at}_a", f"{at}_b", before, f"{at}_add"
            layers.append(LayerSpec("conv", a, width, 3, stride, 1, sources=(before,)))
            layers.append(LayerSpec("conv", b, width, 3, 1, 1))
            if stride > 1 or width != channels:
                shortcut = f"{at}_shortcut"
                layers.append(LayerSpec("conv", shortcut, width, 1, stride, sources=(before,)))
            layers.append(LayerSpec("merge", add, sources=(b, shortcut)))
            before, channels = add, width
    output = LayerSpec("output", "output", out=classes)
    body = NetworkSpec("resnet", shape, classes, 1, (*layers, output))
    # A map that is not square is averaged in squares of its shorter side.
    height, width, _ = body.shapes()[before]
    window = width if shape[0] == 1 else min(height, width)
    if window > 1:
        layers.append(LayerSpec("avg-pool", "pool", kernel=window, stride=window))
    return (*layers, output)


def _resnet8(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    return _resnet(shape, classes, (16, 32, 64), 1)


def _resnet18(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    return _resnet(shape, classes, (64, 128, 256, 512), 2)


RESNETS = (
    NetworkKind(
        "mcu-resnet8",
        "ResNet-8 of MLPerf Tiny: LE conv 3x3x16, residual stacks of 16, 32, 64 channels, average pool",
        _resnet8,
        Recipe(epochs=40, rate_penalty=0.02, early_penalty=0.1, encoder_bias=-0.5),
    ),
    NetworkKind(
        "sew-resnet18",
        "SEW ResNet-18: LE conv 3x3x64, four stages of two blocks of 64 to 512 channels, average pool",
        _resnet18,
        PAPERS,
    ),
)
