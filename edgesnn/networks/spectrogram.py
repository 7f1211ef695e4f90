"""mcu-sound: a small net for spectrograms, i.e. maps of time down and bands across (no torch)."""

from __future__ import annotations

from edgesnn.networks.kind import NetworkKind, Recipe, side
from edgesnn.networks.spec import LayerSpec, Shape


def _sound(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    left = (side(shape) - 1) // 2 + 1
    layers = [LayerSpec("encode-conv", "encoder", 16, 5, 2, 2)]
    for n, channels in enumerate((32, 48), 1):
        layers.append(LayerSpec("conv", f"conv{n}", channels, 3, padding=1))
        if left > 1:  # small maps are left as they are
            layers.append(LayerSpec("or-pool", f"pool{n}", kernel=2, stride=2))
            left //= 2
    return (
        *layers,
        LayerSpec("dense", "dense", out=64),
        LayerSpec("output", "output", out=classes),
    )


SOUND = NetworkKind(
    "mcu-sound",
    "for spectrograms: LE conv 5x5x16 stride 2, spiking convs 3x3 x32 and x48, OR-pools 2, spiking dense 64",
    _sound,
    Recipe(
        epochs=30,
        rate_penalty=0.05,
        early_penalty=0.2,
        encoder_bias=-1.0,
        augment="spectrogram",
        label_smoothing=0.1,
        exit="margin",
    ),
)
