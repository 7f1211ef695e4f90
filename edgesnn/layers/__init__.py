"""Layers for a torch module of your own that trains here and compiles for a device (docs/MODULES.md)."""

from edgesnn.layers.base import Layer
from edgesnn.layers.encoders import (
    DirectConv,
    DirectDense,
    EncodeConv,
    EncodeDense,
    EncodeRaw,
    Events,
)
from edgesnn.layers.output import Output
from edgesnn.layers.pools import AvgPool, OrPool
from edgesnn.layers.spiking import SpikingConv, SpikingDense

__all__ = [
    "AvgPool",
    "DirectConv",
    "DirectDense",
    "EncodeConv",
    "EncodeDense",
    "EncodeRaw",
    "Events",
    "Layer",
    "OrPool",
    "Output",
    "SpikingConv",
    "SpikingDense",
]
