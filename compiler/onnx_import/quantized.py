"""QuantizeLinear and DequantizeLinear: constants are computed, activations give a unit its step and ceiling.

q = saturate(round(x / scale) + zero), y = (q - zero) * scale.
"""

from __future__ import annotations

import numpy as np

from edgesnn.compiler.ann import INPUT
from edgesnn.compiler.onnx_import.node import Node
from edgesnn.compiler.onnx_import.refusal import Refusal
from edgesnn.compiler.onnx_import.tensor import Quantized, Ready, Tensor

_LEVELS = {
    "UINT2": (0, 3),
    "INT2": (-2, 1),
    "UINT4": (0, 15),
    "INT4": (-8, 7),
    "UINT8": (0, 255),
    "INT8": (-128, 127),
    "UINT16": (0, 65535),
    "INT16": (-32768, 32767),
    "INT32": (-(1 << 31), (1 << 31) - 1),
}


def quantize(node: Node) -> np.ndarray:
    """QuantizeLinear of a constant, as int64."""
    x = node.numbers(0, "input")
    scale, zero = _spread(node, x.ndim, x.shape)
    low, high = _LEVELS[_kind(node)]
    return np.clip(np.rint(x / scale) + zero, low, high).astype(np.int64)


def dequantize(node: Node) -> np.ndarray:
    """DequantizeLinear of a constant, as float64."""
    x = node.numbers(0, "input")
    scale, zero = _spread(node, x.ndim, x.shape)
    return np.asarray((x - zero) * scale)


def _spread(node: Node, ndim: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, broadcast over a constant: one for all, one a channel, or one a block."""
    scale = node.numbers(1, "scale")
    zero = node.numbers(2, "zero point") if node.has(2) else np.zeros_like(scale)
    if (scale <= 0).any():
        raise Refusal("its scale is not positive")
    axis, block = int(node.attribute("axis", 1)), int(node.attribute("block_size", 0))
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(-1)[0]
    if block:
        scale, zero = (
            np.repeat(a, block, axis).take(range(shape[axis]), axis) for a in (scale, zero)
        )
        return scale, zero
    along = [1] * ndim
    along[axis] = -1
    return scale.reshape(along), zero.reshape(along)


def _kind(node: Node) -> str:
    """Element type of a QuantizeLinear's result."""
    from edgesnn.compiler.onnx_import.read import dtype_name

    kind = dtype_name(int(node.attribute("output_dtype", 0)))
    if kind == "UNDEFINED" and node.has(2):
        name = node.proto.input[2]
        kind = node.types.get(name) or node.array(2, "zero point").dtype.name.upper()
    kind = "UINT8" if kind == "UNDEFINED" else kind
    if kind not in _LEVELS:
        raise Refusal(f"quantises to {kind.lower()}; use integers of 2 to 16 bits")
    return kind


def _one(node: Node) -> tuple[float, int]:
    """Scale and zero point of an activation."""
    scale = node.numbers(1, "scale").ravel()
    zero = node.numbers(2, "zero point").ravel() if node.has(2) else np.zeros(1)
    if (scale != scale[0]).any() or (zero != zero[0]).any():
        raise Refusal("quantises an activation per channel; quantise it per tensor")
    if scale[0] <= 0:
        raise Refusal("its scale is not positive")
    return float(scale[0]), int(zero[0])


def quantize_linear(node: Node) -> Quantized:
    """QuantizeLinear of an activation."""
    scale, zero = _one(node)
    low, high = _LEVELS[_kind(node)]
    return _bounded(node, node.tensor(), scale, zero, low, high)


def clip_quantized(node: Node, value: Quantized) -> Quantized:
    """Clip between QuantizeLinear and DequantizeLinear: fewer levels than the type has."""
    low = int(node.array(1, "minimum")) if node.has(1) else -(1 << 31)
    high = int(node.array(2, "maximum")) if node.has(2) else 1 << 31
    return _bounded(node, value.tensor, value.scale, value.zero, low, high)


def dequantize_linear(node: Node) -> Tensor:
    """DequantizeLinear of an activation that a QuantizeLinear made, or of an input that is fed as integers."""
    value = node.values[0]
    if isinstance(value, Tensor) and "INT" in node.source.input_type and _is_fed(value):
        scale, zero = (np.float64(v) for v in _one(node))
        return Tensor(node.units.scaled(value.state, scale, -zero * scale, node.layer), value.axes)
    if not isinstance(value, Quantized):
        raise Refusal("reads what no QuantizeLinear made")
    if _one(node) != (value.scale, value.zero):
        raise Refusal("has another scale or zero point than its QuantizeLinear")
    return value.tensor


def _is_fed(tensor: Tensor) -> bool:
    return isinstance(tensor.state, Ready) and tensor.state.source == INPUT


def _bounded(node: Node, tensor: Tensor, scale: float, zero: int, low: int, high: int) -> Quantized:
    """The unit of a quantised activation takes its levels if none of them is negative.

    Rounding of 8 bits or more is left out where no rectifier stands (the input, sums, the scores): those values
    are carried more finely than that in any case.
    """
    units, state = node.units, tensor.state
    if not low <= zero < high:
        raise Refusal(f"its zero point {zero} is not one of its levels {low} to {high}")
    fed = _is_fed(tensor)
    if not fed and (zero == low or units.is_nonnegative(state)):
        state = units.activated(
            state, node.layer, rectified=True, ceiling=(high - zero) * scale, step=scale
        )
        return Quantized(Tensor(state, tensor.axes), scale, zero, True)
    if high - low < 255:
        where = "the input" if fed else "a value that no ReLU bounds from below"
        raise Refusal(
            f"quantises {where} to {high - low + 1} levels; quantise after the ReLU, or use 8 bits here"
        )
    units.notes.append(f"{node.label}: rounding to {high - low + 1} levels left out")
    return Quantized(tensor, scale, zero, False)
