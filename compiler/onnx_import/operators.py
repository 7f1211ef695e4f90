"""What each ONNX operator means for the units: one function each, listed in OPERATORS."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from edgesnn.compiler.ann import Window
from edgesnn.compiler.graph import Conv
from edgesnn.compiler.onnx_import.node import Node
from edgesnn.compiler.onnx_import.quantized import (
    clip_quantized,
    dequantize_linear,
    quantize_linear,
)
from edgesnn.compiler.onnx_import.read import dtype_name
from edgesnn.compiler.onnx_import.refusal import ACTIVATIONS, Refusal
from edgesnn.compiler.onnx_import.tensor import (
    Axes,
    Labels,
    Open,
    Padding,
    Quantized,
    Scores,
    Tensor,
    Value,
)
from edgesnn.compiler.onnx_import.units import Units

# Elementwise operators that are refused; behind them the walk goes on.
PASSING = ACTIVATIONS | {"Clip", "Relu", "Softmax"}
ENDINGS = frozenset({"ArgMax", "LogSoftmax", "Softmax"})
_ONE, _NONE = np.float64(1), np.float64(0)


# Linear layers


def conv(node: Node) -> Tensor:
    """Conv, 1-D and 2-D."""
    x = node.tensor()
    weight = node.numbers(1, "weight")
    spatial = node.units.images(x)
    if weight.ndim != len(spatial) + 2:
        raise Refusal(f"its weight has {weight.ndim} axes, its input {len(spatial) + 2}")
    bias = node.numbers(2, "bias") if node.has(2) else np.zeros(len(weight))
    if bias.size != len(weight):
        raise Refusal(f"its bias has {bias.size} values, its weight {len(weight)} outputs")
    kernel = weight.shape[2:]
    strides, dilations = _each(node, "strides", kernel), _each(node, "dilations", kernel)
    pads = _pads(node, x, kernel, strides, dilations)
    layer = Conv(
        weight=_plane(weight, spatial),
        stride=_pair(strides, spatial),
        padding=_frame(pads, spatial),
        dilation=_pair(dilations, spatial),
        groups=int(node.attribute("group", 1)),
    )
    state = node.units.convolved(x.state, layer, bias.reshape(-1), node.layer)
    return node.units.arranged(state, "C", *spatial)


def gemm(node: Node) -> Tensor:
    """Gemm: alpha * x @ weight + beta * bias."""
    x, weight = node.tensor(), node.numbers(1, "weight")
    if node.attribute("transA", 0):
        raise Refusal("transposes its input (transA)")
    if len(x.axes) != 1:
        raise Refusal("its input is not flat; put a Flatten before it")
    if not node.attribute("transB", 0):
        weight = weight.T
    weight = weight * float(node.attribute("alpha", 1.0))
    bias = np.zeros(1)
    if node.has(2):
        bias = node.numbers(2, "bias") * float(node.attribute("beta", 1.0))
        if bias.size not in (1, len(weight)):
            raise Refusal(f"its bias is of shape {bias.shape}, its output has {len(weight)} values")
    state = node.units.dense(x, weight, np.broadcast_to(bias.reshape(-1), len(weight)), node.layer)
    return node.units.arranged(state, "C")


def matmul(node: Node) -> Tensor:
    """MatMul by a constant matrix: a dense layer, or over the last axis of a map a 1x1 convolution."""
    x, weight = node.tensor(), node.numbers(1, "weight")
    while weight.ndim > 2 and len(weight) == 1:
        weight = weight[0]
    if weight.ndim != 2:
        raise Refusal(f"its weight has {weight.ndim} axes; 2 are read")
    units = node.units
    *others, last = units.resolve(x.axes)
    if not any(others):
        state = units.dense(x, weight.T, np.zeros(weight.shape[1]), node.layer)
        axes: Axes = (*others, ("C",) if weight.shape[1] > 1 else ())
        return Tensor(state, axes)
    for labels in reversed([*others, last]):
        if len(labels) == 1 and labels[0].startswith("fed"):
            role = (
                "C"
                if labels is last
                else next(r for r in ("W", "H", "C") if r not in units.input.roles.values())
            )
            units.input.bind(labels[0], role)
    *others, last = units.resolve(x.axes)
    if last not in ((), ("C",)):
        raise Refusal("multiplies an axis that is not the channels")
    out = units.convolved(
        x.state, Conv(weight.T[:, None, None, :]), np.zeros(weight.shape[1]), node.layer
    )
    return Tensor(out, (*others, ("C",) if weight.shape[1] > 1 else ()))


def batch_normalization(node: Node) -> Tensor:
    """BatchNormalization: gamma * (x - mean) / sqrt(var + eps) + beta, per channel."""
    x = node.tensor()
    if node.attribute("training_mode", 0):
        raise Refusal("is in training mode; export the network in evaluation mode")
    gamma, beta, mean, var = (
        node.numbers(i, w) for i, w in enumerate(("scale", "bias", "mean", "variance"), 1)
    )
    scale = gamma / np.sqrt(var + float(node.attribute("epsilon", 1e-5)))
    if not np.isfinite(scale).all():
        raise Refusal("its variance is negative")
    along = (-1, *[1] * (len(x.axes) - 1))
    return _affine(node, x, scale.reshape(along), (beta - mean * scale).reshape(along))


def average_pool(node: Node) -> Tensor:
    """AveragePool: a depthwise convolution with 1 / (kh * kw)."""
    x = node.tensor()
    spatial = node.units.images(x)
    kernel = tuple(int(k) for k in node.attribute("kernel_shape"))
    strides, dilations = _each(node, "strides", kernel), _each(node, "dilations", kernel)
    pads = _pads(node, x, kernel, strides, dilations)
    if any(pads) and not node.attribute("count_include_pad", 0):
        raise Refusal(
            "divides by fewer values at the border; pool without padding or with count_include_pad"
        )
    if node.attribute("ceil_mode", 0) and any(_overhang(node, x, kernel, strides, dilations, pads)):
        raise Refusal(
            "its last window reaches over the border (ceil_mode); choose a size that fits"
        )
    channels = node.units.shape(x.state)[2]
    weight = np.full((channels, 1, *kernel), 1 / prod(kernel))
    layer = Conv(
        weight=_plane(weight, spatial),
        stride=_pair(strides, spatial),
        padding=_frame(pads, spatial),
        dilation=_pair(dilations, spatial),
        groups=channels,
    )
    state = node.units.convolved(x.state, layer, np.zeros(channels), node.layer)
    return node.units.arranged(state, "C", *spatial)


def global_average_pool(node: Node) -> Tensor:
    """GlobalAveragePool: the mean over all positions."""
    spatial = node.units.images(node.tensor())
    return _mean(node, spatial, ("C", *[""] * len(spatial)))


def reduce_mean(node: Node) -> Tensor:
    """ReduceMean over height, width or both."""
    x = node.tensor()
    axes = node.integers(1, "axes")
    if not axes:
        if axes is not None and node.attribute("noop_with_empty_axes", 0):
            return x
        raise Refusal("takes the mean over the batch; name the spatial axes")
    reduced = {_axis(a, x) for a in axes}
    if any(label.startswith("fed") for labels in x.axes for label in labels):
        node.units.input.complete()
    resolved = node.units.resolve(x.axes)
    gone = tuple(label for i in sorted(reduced) for label in resolved[i])
    if "C" in gone:
        raise Refusal("takes the mean over channels; take it over height and width")
    keep = node.attribute("keepdims", 1)
    left: list[Labels] = []
    for i, labels in enumerate(resolved):
        if i not in reduced:
            left.append(labels)
        elif keep:
            left.append(())
    state = _mean_state(node, gone)
    return Tensor(state, tuple(left))


def _mean(node: Node, spatial: Labels, roles: tuple[str, ...]) -> Tensor:
    return node.units.arranged(_mean_state(node, spatial), *roles)


def _mean_state(node: Node, spatial: Labels) -> Open:
    x = node.tensor()
    h, w, channels = node.units.shape(x.state)
    kernel = (h if "H" in spatial else 1, w if "W" in spatial else 1)
    weight = np.full((channels, *kernel, 1), 1 / prod(kernel))
    return node.units.convolved(
        x.state, Conv(weight, groups=channels), np.zeros(channels), node.layer
    )


# Elementwise


def add(node: Node) -> Tensor:
    """Add of two maps (a unit of several terms), or of a constant."""
    return _sum(node, 1.0)


def sub(node: Node) -> Tensor:
    """Sub, like Add."""
    return _sum(node, -1.0)


def _sum(node: Node, sign: float) -> Tensor:
    constant = [i for i in (0, 1) if isinstance(node.values[i], np.ndarray)]
    if constant:
        x, value = node.tensor(1 - constant[0]), _factor(node, constant[0])
        if constant[0] == 1:
            return _affine(node, x, _ONE, sign * value)
        return _affine(node, x, np.float64(sign), value)
    a, b = node.tensor(0), node.tensor(1)
    units = node.units
    shapes = units.dims(a), units.dims(b)
    if shapes[0] != shapes[1]:
        first, second = ("(N, " + ", ".join(map(str, s)) + ")" for s in shapes)
        raise Refusal(f"its inputs are of shapes {first} and {second}; they have to be equal")
    for state in (a.state, b.state):
        units.shape(state)  # binds the input's axes
    if units.resolve(a.axes) != units.resolve(b.axes):
        raise Refusal("its inputs are laid out in different orders")
    other = b.state if sign == 1 else units.scaled(b.state, np.float64(-1), _NONE, node.layer)
    return Tensor(units.added(a.state, other, node.layer), a.axes)


def mul(node: Node) -> Tensor:
    """Mul by a constant."""
    constant = [i for i in (0, 1) if isinstance(node.values[i], np.ndarray)]
    if not constant:
        raise Refusal("multiplies two maps; only constants are read")
    return _affine(node, node.tensor(1 - constant[0]), _factor(node, constant[0]), _NONE)


def div(node: Node) -> Tensor:
    """Div by a constant."""
    if not isinstance(node.values[1], np.ndarray):
        raise Refusal("divides by a map; only constants are read")
    divisor = _factor(node, 1)
    if (divisor == 0).any():
        raise Refusal("divides by 0")
    return _affine(node, node.tensor(), 1 / divisor, _NONE)


def neg(node: Node) -> Tensor:
    """Neg."""
    return _affine(node, node.tensor(), np.float64(-1), _NONE)


def _factor(node: Node, index: int) -> np.ndarray:
    """A constant that a map is added to, multiplied with or divided by."""
    if node.array(index, "constant").dtype.kind in "iub":
        raise Refusal("computes with whole numbers, which wrap or round; cast to float before it")
    return node.numbers(index, "constant")


def _affine(node: Node, x: Tensor, scale: np.ndarray, offset: np.ndarray) -> Tensor:
    units = node.units
    a, b = units.per_channel(x, scale), units.per_channel(x, offset)
    return Tensor(units.scaled(x.state, a, b, node.layer), x.axes)


# Activations


def relu(node: Node) -> Tensor:
    """Relu."""
    x = node.tensor()
    return Tensor(node.units.activated(x.state, node.layer, rectified=True), x.axes)


def clip(node: Node) -> Value:
    """Clip with minimum 0 (ReLU6 and the like); on quantised integers it leaves fewer levels."""
    first = node.values[0]
    if isinstance(first, Quantized):
        return clip_quantized(node, first)
    return _clipped(node, _bound(node, 1, -np.inf), _bound(node, 2, np.inf))


def round_(node: Node) -> Tensor:
    """Round of a value that cannot be negative: quantisation written out as Round(Clip(x / scale)) * scale."""
    x = node.tensor()
    if not node.units.is_nonnegative(x.state):
        raise Refusal("rounds a value that no ReLU bounds from below; round after the ReLU")
    return Tensor(node.units.activated(x.state, node.layer, rectified=True, step=1.0), x.axes)


def maximum(node: Node) -> Tensor:
    """Max with a constant."""
    return _clipped(node, *_other(node, low=True))


def minimum(node: Node) -> Tensor:
    """Min with a constant."""
    return _clipped(node, *_other(node, low=False))


def _other(node: Node, low: bool) -> tuple[float, float]:
    constant = [i for i, v in enumerate(node.values) if isinstance(v, np.ndarray)]
    if len(node.values) != 2 or len(constant) != 1:
        raise Refusal("takes several maps; one map and one constant are read")
    node.values.sort(key=lambda v: isinstance(v, np.ndarray))
    bound = _bound(node, 1, 0.0)
    return (bound, np.inf) if low else (-np.inf, bound)


def _bound(node: Node, index: int, default: float) -> float:
    if not node.has(index):
        return default
    value = node.array(index, "bound").astype(np.float64).ravel()
    if np.isnan(value).any() or (value != value[0]).any():
        raise Refusal("its bounds are NaN or differ by channel")
    return float(value[0])


def _clipped(node: Node, low: float, high: float) -> Tensor:
    x, units = node.tensor(), node.units
    huge = float(np.finfo(np.float32).max)
    if low > 0 or (low < 0 and low > -huge and not units.is_nonnegative(x.state)):
        raise Refusal(f"bounds from below at {low:g}; only 0 is read (ReLU, ReLU6)")
    if high <= 0:
        raise Refusal(f"bounds from above at {high:g}; only what is more than 0 is read")
    ceiling = None if high >= huge else high
    if low > -huge or ceiling is not None:
        state = units.activated(x.state, node.layer, rectified=low == 0, ceiling=ceiling)
        return Tensor(state, x.axes)
    return x


# Pooling


def max_pool(node: Node) -> Tensor:
    """MaxPool without dilation."""
    x = node.tensor()
    spatial = node.units.images(x)
    kernel = tuple(int(k) for k in node.attribute("kernel_shape"))
    strides, dilations = _each(node, "strides", kernel), _each(node, "dilations", kernel)
    if any(d != 1 for d in dilations):
        raise Refusal("its window is dilated; use a MaxPool without dilation")
    pads = list(_pads(node, x, kernel, strides, dilations))
    if node.attribute("ceil_mode", 0):
        # Padding never wins a maximum: padding below and right makes the last window whole.
        for i, more in enumerate(_overhang(node, x, kernel, strides, dilations, tuple(pads))):
            pads[len(kernel) + i] += more
    window = Window(_pair(kernel, spatial), _pair(strides, spatial), _frame(tuple(pads), spatial))
    state = node.units.pooled(x.state, window, node.layer)
    return node.units.arranged(state, "C", *spatial)


def pad(node: Node) -> Tensor:
    """Pad with zeros above, below and beside a map."""
    x, units = node.tensor(), node.units
    rank = len(x.axes) + 1
    value = node.numbers(2, "value") if node.has(2) else np.zeros(1)
    if node.attribute("mode", "constant") != "constant" or (value != 0).any():
        raise Refusal("pads with something else than zeros")
    given = [int(p) for p in node.array(1, "pads").ravel()]
    named = node.integers(3, "axes")
    axes = list(range(rank)) if named is None else [a % rank for a in named]
    if len(given) != 2 * len(axes) or min(given) < 0:
        raise Refusal(f"its pads {given} do not fit, or crop")
    roles = ("N", *units.roles(x))
    begin, end = {"H": 0, "W": 0}, {"H": 0, "W": 0}
    for i, axis in enumerate(axes):
        if not (given[i] or given[len(axes) + i]):
            continue
        if roles[axis] not in begin:
            raise Refusal("pads another axis than height and width")
        begin[roles[axis]], end[roles[axis]] = given[i], given[len(axes) + i]
    state = units.padded(x.state, (begin["H"], begin["W"], end["H"], end["W"]))
    return units.arranged(state, *roles[1:])


def global_max_pool(node: Node) -> Tensor:
    """GlobalMaxPool."""
    x = node.tensor()
    spatial = node.units.images(x)
    h, w, _ = node.units.shape(x.state)
    state = node.units.pooled(x.state, Window((h, w), (1, 1)), node.layer)
    return node.units.arranged(state, "C", *[""] * len(spatial))


# Views


def identity(node: Node) -> Value:
    """Identity."""
    value = node.values[0]
    assert value is not None
    return value


def dropout(node: Node) -> Tensor:
    """Dropout, which does nothing in inference."""
    if node.has(2) and bool(node.array(2, "training mode").ravel()[0]):
        raise Refusal("is in training mode; export the network in evaluation mode")
    return node.tensor()


def cast(node: Node) -> Tensor:
    """Cast to a floating-point type."""
    kind = dtype_name(int(node.attribute("to")))
    if kind not in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"):
        raise Refusal(f"casts to {kind.lower()}, which rounds; only floating-point types are read")
    return node.tensor()


def cast_like(node: Node) -> Value:
    """CastLike of a constant, or to the type of a floating-point constant."""
    if isinstance(node.values[0], np.ndarray):
        return node.values[0]
    if isinstance(node.values[1], np.ndarray) and node.values[1].dtype.kind in "iub":
        raise Refusal("casts to an integer type, which rounds")
    return node.tensor()


def transpose(node: Node) -> Value:
    """Transpose of all axes but the batch."""
    x, wrap = _viewed(node)
    rank = len(x.axes) + 1
    perm = [int(p) % rank for p in node.attribute("perm", range(rank)[::-1])]
    if perm[0] != 0:
        raise Refusal("moves the batch axis")
    return wrap(tuple(x.axes[p - 1] for p in perm[1:]))


def reshape(node: Node) -> Value:
    """Reshape that joins neighbouring axes, or parts what was joined."""
    x, wrap = _viewed(node)
    target = [int(n) for n in node.array(1, "shape").ravel()]
    dims = node.units.dims(x)
    batch, size = node.source.batch, prod(dims)
    if not node.attribute("allowzero", 0):
        target = [(batch, *dims)[i] if n == 0 else n for i, n in enumerate(target)]
    # A graph traced with one sample may say 1 where it means the batch.
    for count in (batch, 1):
        shape = list(target)
        if -1 in shape:
            rest = -prod(shape)
            shape[shape.index(-1)] = count * size // rest if rest else 0
        if shape and shape[0] == count and prod(shape[1:]) == size:
            return wrap(_parted(node.units, x, shape[1:]))
    raise Refusal("does not leave the batch axis alone; reshape to (-1, ...)")


def flatten(node: Node) -> Value:
    """Flatten of all axes but the batch."""
    x, wrap = _viewed(node)
    rank = len(x.axes) + 1
    axis = int(node.attribute("axis", 1))
    axis += rank if axis < 0 else 0
    if axis < 1 or any(x.axes[: axis - 1]):
        raise Refusal("joins the batch axis with others; flatten from axis 1")
    return wrap((tuple(label for labels in x.axes for label in labels),))


def squeeze(node: Node) -> Value:
    """Squeeze."""
    x, wrap = _viewed(node)
    axes = node.integers(1, "axes")
    if axes is None:
        if node.source.batch == 1:
            raise Refusal("drops the batch axis; name its axes")
        gone = {i for i, labels in enumerate(x.axes) if not labels}
    else:
        gone = {_axis(a, x) for a in axes}
    if any(x.axes[i] for i in gone):
        raise Refusal("drops an axis that is longer than 1")
    return wrap(tuple(labels for i, labels in enumerate(x.axes) if i not in gone))


def unsqueeze(node: Node) -> Value:
    """Unsqueeze."""
    x, wrap = _viewed(node)
    axes = node.integers(1, "axes") or []
    rank = len(x.axes) + 1 + len(axes)
    new = {a % rank for a in axes}
    if 0 in new:
        raise Refusal("puts an axis before the batch")
    rest = iter(x.axes)
    return wrap(tuple(() if i in new else next(rest) for i in range(1, rank)))


def _viewed(node: Node) -> tuple[Tensor, Callable[[Axes], Value]]:
    """The tensor that a view reads, and what makes the view from new axes; quantised integers may be viewed."""
    value = node.values[0]
    if isinstance(value, Quantized):
        q = value
        inner = q.tensor
        return inner, lambda axes: Quantized(Tensor(inner.state, axes), q.scale, q.zero, q.applied)
    x = node.tensor()
    return x, lambda axes: Tensor(x.state, axes)


def _parted(units: Units, x: Tensor, dims: list[int]) -> Axes:
    """Axes of lengths `dims` that run through the labels of a tensor in the same order."""
    labels = [label for axis in x.axes for label in axis]
    axes = []
    for i, n in enumerate(dims):
        if labels and units.size(x, labels[0]) > n > 1 and _is_loose(units, labels[0]):
            # Only the input may be parted: nothing has been computed of it yet.
            whole, parts = units.size(x, labels[0]), [m for m in dims[i:] if m > 1]
            while parts and prod(parts) > whole:
                parts.pop()
            if prod(parts) == whole:
                labels[:1] = units.input.split(labels[0], parts)
        taken: list[str] = []
        while labels and prod(units.size(x, t) for t in taken) < n:
            taken.append(labels.pop(0))
        if prod(units.size(x, t) for t in taken) != n:
            raise Refusal(
                "splits an axis; only neighbouring axes are joined, or parted again where they were joined"
            )
        axes.append(tuple(taken))
    return tuple(axes)


def _is_loose(units: Units, label: str) -> bool:
    known = units.input
    return (
        label.startswith("fed") and not {label} & {*known.roles, *known.parts} and "." not in label
    )


# Shapes and endings


def shape(node: Node) -> np.ndarray:
    """Shape; a free batch is ANY_BATCH."""
    x, _ = _viewed(node)
    full = (node.source.batch, *node.units.dims(x))
    start, end = node.attribute("start", 0), node.attribute("end", len(full))
    return np.array(full[start:end], np.int64)


def size(node: Node) -> np.ndarray:
    """Size."""
    x, _ = _viewed(node)
    return np.array(node.source.batch * prod(node.units.dims(x)), np.int64)


def softmax(node: Node) -> Scores:
    """Softmax or LogSoftmax at the end: the class stays the same."""
    return _ending(node, -1)


def arg_max(node: Node) -> Scores:
    """ArgMax at the end: the class itself."""
    return _ending(node, 0)


def _ending(node: Node, default: int) -> Scores:
    value = node.values[0]
    if isinstance(value, Scores):
        return value
    x = node.tensor()
    axis = _axis(int(node.attribute("axis", default)), x)
    if any(n > 1 for i, n in enumerate(node.units.dims(x)) if i != axis):
        raise Refusal("does not run over the classes alone")
    return Scores(x)


# Windows


def _axis(axis: int, x: Tensor) -> int:
    """Index into Tensor.axes of an axis of the ONNX tensor."""
    rank = len(x.axes) + 1
    if not -rank <= axis < rank:
        raise Refusal(f"names axis {axis} of {rank}")
    if axis % rank == 0:
        raise Refusal("runs over the batch axis")
    return axis % rank - 1


def _each(node: Node, name: str, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Strides or dilations, 1 if not given."""
    found = tuple(int(v) for v in node.attribute(name) or [1] * len(kernel))
    if len(found) != len(kernel) or min(found) < 1:
        raise Refusal(f"its {name} {found} do not fit its window {kernel}")
    return found


def _lengths(node: Node, x: Tensor) -> tuple[int, ...]:
    node.units.shape(x.state)
    return node.units.dims(x)[1:]


def _pads(
    node: Node,
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...]:
    """Padding at all beginnings, then at all ends, as ONNX counts it."""
    lengths = _lengths(node, x)
    if len(kernel) != len(lengths):
        raise Refusal(f"its window {kernel} does not fit a map of {len(lengths)} axes")
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        given = node.attribute("pads") if auto == "NOTSET" else None
        pads = tuple(int(p) for p in given or [0] * (2 * len(kernel)))
        if len(pads) != 2 * len(kernel) or min(pads) < 0:
            raise Refusal(f"its pads {pads} do not fit its window {kernel}")
        return pads
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refusal(f"has auto_pad {auto}")
    begins, ends = [], []
    for n, k, s, d in zip(lengths, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        less = total // 2
        begins.append(less if auto == "SAME_UPPER" else total - less)
        ends.append(total - begins[-1])
    return (*begins, *ends)


def _overhang(
    node: Node,
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
) -> list[int]:
    """How far the last window of each axis reaches over the padded map with ceil_mode.

    A window that would begin in the padding at the end is left out (ONNX, MaxPool since opset 19).
    """
    more = []
    for i, n in enumerate(_lengths(node, x)):
        begin, end = pads[i], pads[len(kernel) + i]
        window = dilations[i] * (kernel[i] - 1) + 1
        count = -(-(n + begin + end - window) // strides[i]) + 1
        if (count - 1) * strides[i] >= n + begin:
            count -= 1
        more.append(max(0, (count - 1) * strides[i] + window - (n + begin + end)))
    return more


def _plane(weight: np.ndarray, spatial: Labels) -> np.ndarray:
    """A weight (out, in, *kernel) as (out, kh, kw, in)."""
    if spatial == ("W",):
        weight = weight[:, :, None, :]
    elif spatial == ("H",):
        weight = weight[:, :, :, None]
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1))


def _pair(values: tuple[int, ...], spatial: Labels) -> tuple[int, int]:
    found = dict(zip(spatial, values, strict=True))
    return (found.get("H", 1), found.get("W", 1))


def _frame(pads: tuple[int, ...], spatial: Labels) -> Padding:
    """ONNX pads as (top, left, bottom, right)."""
    n = len(spatial)
    begin, end = (
        dict(zip(spatial, pads[:n], strict=True)),
        dict(zip(spatial, pads[n:], strict=True)),
    )
    return (begin.get("H", 0), begin.get("W", 0), end.get("H", 0), end.get("W", 0))


OPERATORS: dict[str, Callable[[Node], Value]] = {
    "Add": add,
    "ArgMax": arg_max,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "CastLike": cast_like,
    "Clip": clip,
    "Conv": conv,
    "DequantizeLinear": dequantize_linear,
    "Div": div,
    "Dropout": dropout,
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "Identity": identity,
    "LogSoftmax": softmax,
    "MatMul": matmul,
    "Max": maximum,
    "MaxPool": max_pool,
    "Min": minimum,
    "Mul": mul,
    "Neg": neg,
    "Pad": pad,
    "QuantizeLinear": quantize_linear,
    "ReduceMean": reduce_mean,
    "Relu": relu,
    "Reshape": reshape,
    "Round": round_,
    "Shape": shape,
    "Size": size,
    "Softmax": softmax,
    "Squeeze": squeeze,
    "Sub": sub,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
