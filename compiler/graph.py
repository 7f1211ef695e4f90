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
    """t_s = ceil((1 - sigmoid(maxpool(bn(linear(x))))) * T), one spike per unit (LE/TAD paper, eqs. 5-8).

    `pool` is the window and stride of a max-pool without padding, applied before the sigmoid; 1 is none.
    """

    name: str
    source: str
    linear: Dense | Conv
    norm: BatchNorm | None = None
    pool: int = 1


@dataclass(frozen=True)
class Spiking:
    """u <- leak * u + bn(linear(s)); spike when u >= v_threshold; then u <- u - v_threshold (eqs. 2-4).

    `leak` in [0, 1] is lowered to at most three signed shifts; 1 is an integrate-and-fire neuron.
    """

    name: str
    source: str
    linear: Dense | Conv
    norm: BatchNorm | None = None
    leak: float = 0.5
    v_threshold: float = 1.0


@dataclass(frozen=True)
class Pool:
    """Pooling of binary spikes without padding: kind "or" (max) or "avg"."""

    name: str
    source: str
    kind: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class Output:
    """U <- leak * U + linear(s); no threshold, no reset: the readout looks at U after each step."""

    name: str
    source: str
    linear: Dense
    norm: BatchNorm | None = None
    leak: float = 0.5


Layer = LatencyEncode | Spiking | Pool | Output


@dataclass(frozen=True)
class SampleInput:
    """Raw samples of `dtype` ("uint8", "int8", "int16"); the net was trained on scale * (raw - zero_point)."""

    shape: Shape
    dtype: str = "uint8"
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class ReadoutSpec:
    """kind "first-spike": stop when some U >= value; kind "margin": when the top two differ by >= value.

    `value` is in the units of the output membrane U of the float net.
    """

    kind: str
    value: float


@dataclass(frozen=True)
class Graph:
    """A trained float network, in inference form."""

    name: str
    input: SampleInput
    timesteps: int
    layers: tuple[Layer, ...]
    readout: ReadoutSpec
    class_names: tuple[str, ...] = field(default=())
