"""The float layer graph: what training and importers hand to `lower`, and nothing else.

Plain dataclasses with numpy arrays, no torch. Conventions:

* Maps are channel-last. A 1-D signal is a map of height 1; a vector of n samples has shape (1, 1, n).
* Convolution weights are (out, kernel_h, kernel_w, in // groups); dense weights are (out, n) with n in the
  channel-last flattened order of the source map, i.e. index (y * W + x) * C + c.
* `padding` is (top, left, bottom, right), in samples of value 0.
* Layers stand in topological order and name their source; the graph's input is named "input".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgesnn.compiler import ir

Shape = tuple[int, int, int]  # (height, width, channels)


@dataclass(frozen=True)
class BatchNorm:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, per channel; arrays are float64[C]."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    eps: float = 1e-5


@dataclass(frozen=True)
class Dense:
    """y[o] = sum_i weight[o, i] x[i] (+ bias[o]); weight float[out, in]."""

    weight: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Conv:
    """2-D cross-correlation; weight float[out, kh, kw, in // groups], bias float[out] or None."""

    weight: np.ndarray
    bias: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class LatencyEncode:
    """t_s = ceil((1 - F) * T), clipped to 1...T, one spike per unit, with F = sigmoid(maxpool(bn(linear(x))))

    (LE/TAD paper, eqs. 5-8). `activation` "identity" leaves the sigmoid out: raw pixels in [0, 1] as times.
    `pool`, one number or (height, width), is window and stride of a max-pool without padding; 1 is none.
    """

    name: str
    source: str
    linear: Dense | Conv
    norm: BatchNorm | None = None
    pool: int | tuple[int, int] = 1
    activation: str = "sigmoid"


@dataclass(frozen=True)
class CurrentEncode:
    """Direct coding: bn(linear(x)) is a constant current into spiking neurons; the rest as in Spiking."""

    name: str
    source: str
    linear: Dense | Conv
    norm: BatchNorm | None = None
    leak: float = 0.5
    v_threshold: float = 1.0
    reset: str = "soft"


@dataclass(frozen=True)
class Spiking:
    """u <- leak * u + bn(linear(s)); spike when u >= v_threshold (LE/TAD paper, eqs. 2-4), then `reset`:

    "soft", u <- u - v_threshold; "hard", u <- 0; "amos", no reset, but at most one spike per inference (AMOS
    paper, eqs. 1-4), at T at the latest if `forced`. The AMOS input gain 1 / tau_m stands in linear or norm.
    `leak` in [0, 1] is lowered to at most three signed shifts; 1 is an integrate-and-fire neuron.
    """

    name: str
    source: str
    linear: Dense | Conv
    norm: BatchNorm | None = None
    leak: float = 0.5
    v_threshold: float = 1.0
    reset: str = "soft"
    forced: bool = False


@dataclass(frozen=True)
class Merge:
    """Addition of the spikes of several sources with maps of one shape (SEW): s = s_1 + s_2 + ..."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """Pooling of binary spikes without padding: kind "or" (max) or "avg"; kernel and stride are one number or

    (height, width).
    """

    name: str
    source: str
    kind: str
    kernel: int | tuple[int, int]
    stride: int | tuple[int, int]


@dataclass(frozen=True)
class Output:
    """U <- leak * U + linear(s); no threshold, no reset: the readout looks at U after each step.

    `leak` is one number, or one per class (temporal selector decoder).
    """

    name: str
    source: str
    linear: Dense
    norm: BatchNorm | None = None
    leak: float | tuple[float, ...] = 0.5


Encode = LatencyEncode | CurrentEncode
Linear = LatencyEncode | CurrentEncode | Spiking | Output
Layer = LatencyEncode | CurrentEncode | Spiking | Pool | Merge | Output


def pair(extent: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an extent that may be one number for both."""
    return extent if isinstance(extent, tuple) else (extent, extent)


def layer_sources(layer: Layer) -> tuple[str, ...]:
    """Names of the layers (or "input") that a layer reads."""
    return layer.sources if isinstance(layer, Merge) else (layer.source,)


@dataclass(frozen=True)
class SampleInput:
    """Raw samples of `dtype` ("uint8", "int8", "int16"); the net was trained on scale * (raw - zero_point)."""

    shape: Shape
    dtype: str = "uint8"
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class EventInput:
    """Address events of a sensor, at most one of an address and step; spiking layers and pools read them."""

    shape: Shape


@dataclass(frozen=True)
class ReadoutSpec:
    """kind "first-spike": stop when some U >= value; "margin": when the top two differ by >= value; "rate":
    never, argmax of the summed output currents (leak 1).

    `value` is in the units of the output membrane U of the float net.
    """

    kind: str
    value: float


@dataclass(frozen=True)
class Graph:
    """A trained float network, in inference form. stream: how its samples come out of a signal, if they do."""

    name: str
    input: SampleInput | EventInput
    timesteps: int
    layers: tuple[Layer, ...]
    readout: ReadoutSpec
    class_names: tuple[str, ...] = field(default=())
    stream: ir.Stream | None = None
