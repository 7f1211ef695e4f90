"""An ordinary feed-forward network (ReLU, floating point), as importers hand it to conversion.

The same conventions as in graph.py: maps are channel-last (H, W, C), a 1-D signal has height 1, dense weights
count their inputs in the channel-last flattened order. What an importer finds is brought into one form: units
that add up linear terms, then pool, then rectify. Batch norm is folded, average pooling is a depthwise
convolution, a residual addition is a unit of several terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgesnn.compiler.graph import Conv, Dense, Shape

INPUT = "input"


@dataclass(frozen=True)
class Term:
    """One summand, linear(source); the bias inside `linear` is None, the unit has it."""

    source: str
    linear: Dense | Conv


@dataclass(frozen=True)
class Window:
    """Max-pooling; padding (top, left, bottom, right) never wins."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Unit:
    """y = activation(maxpool(sum of terms + bias)), bias float64[out channels].

    rectified: the activation is max(., 0), else none. ceiling: it is also min(., ceiling) (ReLU6, a quantiser's
    largest level). step: y is rounded to its nearest multiple, half up (a quantised network), None if not.
    """

    name: str
    terms: tuple[Term, ...]
    bias: np.ndarray
    pool: Window | None = None
    rectified: bool = True
    ceiling: float | None = None
    step: float | None = None


@dataclass(frozen=True)
class AnnInput:
    """What the network takes and what it makes of it before its first layer.

    shape: (H, W, C). axes: the axes of a fed sample (without the batch axis) in the order height, width,
    channel; -1 for one it lacks. fed_shape: shape of a fed sample. scale, offset: float64[C]: layers see
    scale * fed + offset.
    """

    shape: Shape
    fed_shape: tuple[int, ...]
    axes: tuple[int, int, int]
    scale: np.ndarray
    offset: np.ndarray

    def to_map(self, fed: np.ndarray) -> np.ndarray:
        """Samples as they are fed [N, *fed_shape] to maps [N, H, W, C] of the same values."""
        present = [a for a in self.axes if a >= 0]
        return fed.transpose(0, *(a + 1 for a in present)).reshape(len(fed), *self.shape)


@dataclass(frozen=True)
class Ann:
    """Units in topological order; each reads INPUT or units before it. The last is linear: the class scores.

    notes: what an importer left out because it does no harm, a line each.
    """

    name: str
    input: AnnInput
    units: tuple[Unit, ...]
    class_names: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


def unit_shapes(ann: Ann) -> dict[str, Shape]:
    """Map shape (H, W, C) of the input and of every unit, after pooling."""
    out: dict[str, Shape] = {INPUT: ann.input.shape}
    for unit in ann.units:
        shape = term_shape(unit.terms[0], out)
        if unit.pool is not None:
            shape = pooled_shape(shape, unit.pool)
        out[unit.name] = shape
    return out


def term_shape(term: Term, shapes: dict[str, Shape]) -> Shape:
    """Shape of the map that a term adds to, before pooling."""
    if isinstance(term.linear, Dense):
        return (1, 1, len(term.linear.weight))
    (h, w, _), p = shapes[term.source], term.linear
    top, left, bottom, right = p.padding
    o, kh, kw, _ = p.weight.shape
    oh = (h + top + bottom - p.dilation[0] * (kh - 1) - 1) // p.stride[0] + 1
    ow = (w + left + right - p.dilation[1] * (kw - 1) - 1) // p.stride[1] + 1
    return (oh, ow, o)


def pooled_shape(shape: Shape, pool: Window) -> Shape:
    """Shape after max-pooling."""
    (h, w, c), (top, left, bottom, right) = shape, pool.padding
    (kh, kw), (sy, sx) = pool.kernel, pool.stride
    return ((h + top + bottom - kh) // sy + 1, (w + left + right - kw) // sx + 1, c)
