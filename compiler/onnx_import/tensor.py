"""What an ONNX value is while a graph is walked: a state (what is computed) and axes (how it lies in memory).

Conversion counts every map as (H, W, C); exporters lay them out as they like. So a tensor keeps, for every axis
after the batch, the labels that it runs through, slowest first: N, C, H, W is ("C",), ("H",), ("W",), flattened
("C", "H", "W"). Labels of length 1 are left out. Transpose, Reshape, Flatten, Squeeze and Unsqueeze only change
axes. Axes of the network's input are called "fed0", "fed1", ... until the first layer shows what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.compiler.ann import Window
from edgesnn.compiler.graph import Conv, Dense, Shape

Labels = tuple[str, ...]
Axes = tuple[Labels, ...]
Padding = tuple[int, int, int, int]
NO_PADDING: Padding = (0, 0, 0, 0)


@dataclass(frozen=True)
class Part:
    """One summand of a unit in the making. order: labels in which a dense weight counts its inputs."""

    source: str
    linear: Dense | Conv
    order: Labels = ()


@dataclass(frozen=True)
class Ready:
    """scale * source + offset, then padded with zeros; the source is the input or a finished unit.

    scale, offset: float64[] or [C].
    """

    source: str
    scale: np.ndarray
    offset: np.ndarray
    padding: Padding = NO_PADDING


@dataclass(frozen=True)
class Open:
    """A unit in the making, activation(maxpool(sum of parts + bias)); the fields are those of ann.Unit.

    shape: of the map, after pooling. name: of the layer that began it.
    """

    name: str
    parts: tuple[Part, ...]
    bias: np.ndarray
    shape: Shape
    pool: Window | None = None
    rectified: bool = False
    ceiling: float | None = None
    step: float | None = None

    @property
    def linear(self) -> bool:
        """Nothing but a sum so far."""
        return self.pool is None and self.pointwise

    @property
    def pointwise(self) -> bool:
        """Neither rectified nor bounded nor rounded so far."""
        return not self.rectified and self.ceiling is None and self.step is None


@dataclass(frozen=True)
class Tensor:
    """A value of the graph: its state, and the labels of every axis after the batch axis."""

    state: Ready | Open
    axes: Axes


@dataclass(frozen=True)
class Quantized:
    """The whole numbers between a QuantizeLinear and its DequantizeLinear.

    tensor: what DequantizeLinear makes of them. applied: the levels bound the tensor; if not, the rounding was
    found harmless and left out.
    """

    tensor: Tensor
    scale: float
    zero: int
    applied: bool


@dataclass(frozen=True)
class Scores:
    """What stands after a Softmax or ArgMax at the end: only the class counts."""

    tensor: Tensor


@dataclass(frozen=True)
class Unknown:
    """What a node gives that cannot be converted. shape: it is a shape, or computed from shapes."""

    shape: bool = False


Value = np.ndarray | Tensor | Quantized | Scores | Unknown
