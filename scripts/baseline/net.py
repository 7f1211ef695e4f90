"""The dense int8 network of a program's topology, and what it computes, in numpy.

Convolutions, pools and dense layers of a program in a row, with its int8 weights: 8-bit activations, int32
sums, one fixed-point requantisation per channel, ReLU. Populations become ReLU layers, OR-pools max-pools,
sum-pools average pools. It is not trained and claims no accuracy: the instructions of a dense network do not
depend on values, so any scales do that keep activations within int8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgesnn.compiler import ir
from edgesnn.targets.errors import EdgesnnError

SHIFT = 32  # requantised = (sum * multiplier + 2^31) >> 32: the upper word of a product
HIGHEST = 127
_FRAMES = 8  # random frames that the scales are taken from


@dataclass(frozen=True, eq=False)
class Layer:
    """y = clip((max over the window of conv(x) + bias) * multiplier >> 32, 0, 127), per output channel.

    weight int8[O, kh, kw, I] on the map `source` (H, W, C), padded by `zero_point`; a dense layer is a 1x1
    convolution on (1, 1, n). pool: window and stride of the max-pool that the layer ends in. bias int32[O],
    with the zero point's share taken off; multiplier int32[O], None for the last layer: its sums are the
    answer. rectified: x is the output of another layer, 0...127.
    """

    name: str
    source: ir.Shape
    target: ir.Shape
    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray | None
    stride: ir.Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: ir.Pair = (1, 1)
    groups: int = 1
    pool: ir.Pair = (1, 1)
    dtype: str = "int8"
    zero_point: int = 0
    rectified: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding's included, as the kernels do and others count them."""
        h, w, _ = self.target
        return h * w * self.pool[0] * self.pool[1] * self.weight.size


@dataclass(frozen=True)
class Pool:
    """Windows (height, width) of a map at any stride: the largest value, or the rounded mean."""

    name: str
    source: ir.Shape
    target: ir.Shape
    kernel: ir.Pair
    stride: ir.Pair
    mean: bool
    macs: int = 0

    @property
    def multiplier(self) -> int:
        """mean = (sum * multiplier + 2^15) >> 16"""
        return round(2**16 / (self.kernel[0] * self.kernel[1]))


@dataclass(frozen=True, eq=False)
class Net:
    """Layers in a row on frames of `dtype` and shape `source`."""

    name: str
    source: ir.Shape
    dtype: str
    zero_point: int
    layers: tuple[Layer | Pool, ...]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


def dense_net(program: ir.Program) -> Net:
    """The baseline of a program. EdgesnnError names what has no dense counterpart here."""
    source = program.input
    if not isinstance(source, ir.SampleInput):
        raise EdgesnnError(f"{program.name} takes events; the dense baseline is for samples")
    shapes, before = ir.shapes(program), source.name
    layers: list[Layer | Pool] = []
    for node in program.nodes[1:]:
        projections = ir.projections(node)
        if ir.sources(node) != (before,) or len(projections) > 1:
            raise EdgesnnError(f"{program.name}: {node.name} is no layer in a row of layers")
        if isinstance(node, ir.OrPool | ir.SumPool):
            shape = shapes[node.name]
            mean = isinstance(node, ir.SumPool)
            if not _fuse(layers, shape, node, mean):
                pool = Pool(node.name, shapes[before], shape, node.kernel, node.stride, mean)
                layers.append(pool)
        else:
            layers += _layer(node, projections[0], shapes)
        before = node.name
    first, last = layers[0], layers[-1]
    assert isinstance(first, Layer) and isinstance(last, Layer)
    layers[0] = replace(
        first,
        dtype=source.dtype,
        zero_point=source.zero_point,
        rectified=False,
        bias=first.bias - _share(first, source),
    )
    net = Net(program.name, source.shape, source.dtype, source.zero_point, tuple(layers))
    return _scaled(net)


def _share(layer: Layer, source: ir.SampleInput) -> np.ndarray:
    return (layer.weight.sum((1, 2, 3), dtype=np.int64) * source.zero_point).astype(np.int32)


def _fuse(layers: list[Layer | Pool], target: ir.Shape, node: ir.Operator, mean: bool) -> bool:
    """Let the convolution before end in a small max-pool: no full-size map, fewer requantisations."""
    last = layers[-1]
    assert isinstance(node, ir.OrPool | ir.SumPool)
    small = node.kernel == node.stride and node.kernel[0] * node.kernel[1] <= 4
    if not isinstance(last, Layer) or mean or not small or last.pool != (1, 1):
        return False
    layers[-1] = replace(last, target=target, pool=node.kernel)
    return True


def _layer(node: ir.Node, p: ir.Projection, shapes: dict[str, ir.Shape]) -> list[Layer | Pool]:
    source = shapes[p.source]
    full = ir.conv_shape(p, source)
    channels = full[2]
    bias = getattr(node, "bias", np.zeros(channels, np.int32)).astype(np.int32)
    multiplier = None if isinstance(node, ir.Accumulator) else np.zeros(channels, np.int32)
    if isinstance(p, ir.Dense):
        weight, n = p.weight[:, None, None, :], ir.size(source)
        return [Layer(node.name, (1, 1, n), full, weight, bias, multiplier)]
    layer = Layer(
        node.name,
        source,
        full,
        p.weight,
        bias,
        multiplier,
        p.stride,
        p.padding,
        p.dilation,
        p.groups,
    )
    out: list[Layer | Pool] = [layer]
    if isinstance(node, ir.LatencyEncoder) and node.pool != (1, 1):
        pool = ir.OrPool(f"{node.name}-pool", node.name, node.pool, node.pool)
        target = shapes[node.name]
        if not _fuse(out, target, pool, False):
            out.append(Pool(pool.name, full, target, node.pool, node.pool, False))
    return out


def _scaled(net: Net) -> Net:
    """Each channel's largest sum over a few random frames becomes the largest activation."""
    rng = np.random.default_rng(0)
    info = np.iinfo(net.dtype)
    x = rng.integers(info.min, info.max + 1, (_FRAMES, *net.source)).astype(np.int64)
    layers: list[Layer | Pool] = []
    for layer in net.layers:
        if isinstance(layer, Layer) and layer.multiplier is not None:
            top = _sums(layer, x).max((0, 1, 2))
            scale = HIGHEST / np.maximum(top, 2 * HIGHEST + 1)
            layer = replace(layer, multiplier=np.rint(scale * 2.0**SHIFT).astype(np.int32))
        layers.append(layer)
        x = forward(layer, x)
    return Net(net.name, net.source, net.dtype, net.zero_point, tuple(layers))


def _sums(layer: Layer, x: np.ndarray) -> np.ndarray:
    """int64[N, H, W, O]: the layer's pooled sums."""
    (top, left, bottom, right), (dy, dx) = layer.padding, layer.dilation
    o, kh, kw, inputs = layer.weight.shape
    x = x.reshape(len(x), *layer.source)
    edges = ((0, 0), (top, bottom), (left, right), (0, 0))
    x = np.pad(x, edges, constant_values=layer.zero_point)
    windows = sliding_window_view(x, (dy * (kh - 1) + 1, dx * (kw - 1) + 1), (1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1], :, ::dy, ::dx]
    per = o // layer.groups
    sums = [
        np.einsum(
            "nyxckl,oklc->nyxo",
            windows[:, :, :, g * inputs : (g + 1) * inputs],
            layer.weight[g * per : (g + 1) * per].astype(np.int64),
            optimize=True,
        )
        for g in range(layer.groups)
    ]
    return _windows(np.concatenate(sums, 3), layer.pool, layer.pool).max((4, 5)) + layer.bias


def _windows(x: np.ndarray, kernel: ir.Pair, stride: ir.Pair) -> np.ndarray:
    return sliding_window_view(x, kernel, (1, 2))[:, :: stride[0], :: stride[1]]


def forward(layer: Layer | Pool, x: np.ndarray) -> np.ndarray:
    """int64[N, ...] -> int64[N, H, W, C]"""
    if isinstance(layer, Pool):
        windows = _windows(x.reshape(len(x), *layer.source), layer.kernel, layer.stride)
        if not layer.mean:
            return windows.max((4, 5))
        return (windows.sum((4, 5)) * layer.multiplier + 2**15) >> 16
    sums = _sums(layer, x)
    if layer.multiplier is None:
        return sums
    scaled = (sums * layer.multiplier + 2 ** (SHIFT - 1)) >> SHIFT
    return np.clip(scaled, 0, HIGHEST)


def infer(net: Net, frames: np.ndarray) -> np.ndarray:
    """The sums of the last layer, int64[N, classes], for raw frames [N, H, W, C]."""
    x = frames.astype(np.int64)
    for layer in net.layers:
        x = forward(layer, x)
    return x.reshape(len(x), -1)
