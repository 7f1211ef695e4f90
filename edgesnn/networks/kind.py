"""What a named network is: how its layers are made, and how it is trained by default (no torch)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgesnn.networks.spec import LayerSpec, Shape


@dataclass(frozen=True)
class Recipe:
    """Training defaults of a net. epochs: on a set of tens of thousands of samples.

    rate_penalty, early_penalty: weights of the two spike penalties; encoder_bias: the initial bias
    of the encoder's batch norm, below 0 for fewer and later encoder spikes. schedule: of the learning
    rate, "one-cycle" or "cosine". leak, output_leak: of hidden and output membranes.
    """

    epochs: int
    rate_penalty: float
    early_penalty: float
    encoder_bias: float
    batch: int = 100
    lr: float = 3e-3
    augment: str = "shift"
    schedule: str = "one-cycle"
    label_smoothing: float = 0.0
    leak: float = 0.5
    output_leak: float = 0.5
    exit: str = "first-spike"
    loss: str = "tad"


# The papers' large nets: 200 epochs of AdamW, the rate falling as a cosine, no penalty on spikes.
PAPERS = Recipe(
    epochs=200,
    rate_penalty=0.0,
    early_penalty=0.0,
    encoder_bias=0.0,
    batch=128,
    lr=1e-3,
    augment="flip",
    schedule="cosine",
)


@dataclass(frozen=True)
class NetworkKind:
    """A named network: what it is, its layers for samples of a shape and a number of classes, its recipe."""

    name: str
    title: str
    layers: Callable[[Shape, int], tuple[LayerSpec, ...]]
    recipe: Recipe


def side(shape: Shape) -> int:
    """The shorter side of a map that windows move along; a signal (height 1) has only its length."""
    return shape[1] if shape[0] == 1 else min(shape[:2])
