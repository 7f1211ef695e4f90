"""mcu-events: a small net that takes the events of a sensor, for microcontrollers (no torch)."""

from __future__ import annotations

from edgesnn.networks.kind import NetworkKind, Recipe
from edgesnn.networks.spec import EVENTS, LayerSpec, Shape


def _events(shape: Shape, classes: int) -> tuple[LayerSpec, ...]:
    return (
        LayerSpec(EVENTS, "events"),
        LayerSpec("or-pool", "pool", kernel=2, stride=2),
        LayerSpec("conv", "conv1", out=16, kernel=5, stride=2, padding=2),
        LayerSpec("conv", "conv2", out=32, kernel=3, stride=2, padding=1),
        LayerSpec("dense", "dense", out=128),
        LayerSpec("output", "output", out=classes),
    )


EVENT_NETS = (
    NetworkKind(
        "mcu-events",
        "takes events: OR-pool 2, spiking convs 5x5x16 and 3x3x32 of stride 2, spiking dense 128",
        _events,
        Recipe(
            epochs=60,
            rate_penalty=0.02,
            early_penalty=0.0,
            encoder_bias=0.0,
            batch=50,
            augment="affine",
            label_smoothing=0.02,
            leak=0.75,
            output_leak=0.9375,
            exit="margin",
        ),
    ),
)
