"""Units from the operations of a graph, one after another.

What fits into a unit is merged into it; else the unit is finished and a new one is begun with an identity,
which is a depthwise 1x1 convolution of ones.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import replace
from math import prod

import numpy as np

from edgesnn.compiler.ann import (
    INPUT,
    Ann,
    AnnInput,
    Term,
    Unit,
    Window,
    pooled_shape,
    term_shape,
)
from edgesnn.compiler.graph import Conv, Dense, Shape
from edgesnn.compiler.onnx_import.refusal import Refusal
from edgesnn.compiler.onnx_import.tensor import (
    NO_PADDING,
    Axes,
    Labels,
    Open,
    Padding,
    Part,
    Ready,
    Tensor,
)

ROLES = ("H", "W", "C")
_MAX_MAP = (
    1 << 24
)  # values; a microcontroller has far less, and a damaged file may ask for anything
_MAX_LAST = 1 << 26  # weights of the last layer, dense


class Input:
    """The network's input: which fed axis is height, width, channel, and the affine map before all layers.

    An axis is bound to a role by the first node that shows it (a convolution, constants per channel).
    """

    def __init__(self, fed_shape: tuple[int, ...]) -> None:
        self.fed_shape = fed_shape
        self.sizes = {f"fed{i}": n for i, n in enumerate(fed_shape)}
        self.parts: dict[str, Labels] = {}
        self.roles: dict[str, str] = {}
        self.affine: tuple[np.ndarray, np.ndarray] | None = None

    def axes(self) -> Axes:
        """Axes of the tensor that is fed."""
        return tuple((f"fed{i}",) if n > 1 else () for i, n in enumerate(self.fed_shape))

    def bind(self, label: str, role: str) -> None:
        """Say what a fed axis is; Refusal if it is something else already."""
        known = self.roles.get(label)
        if known is None and role not in self.roles.values():
            self.roles[label] = role
        elif known != role:
            raise Refusal("the input is read with its axes in another order than before")

    def split(self, label: str, sizes: list[int]) -> Labels:
        """Part a fed axis, as a Reshape does that makes an image of a vector; the labels of its parts."""
        self.parts[label] = tuple(f"{label}.{i}" for i in range(len(sizes)))
        self.sizes.update(zip(self.parts[label], sizes, strict=True))
        return self.parts[label]

    def expand(self, labels: Labels) -> Labels:
        """Labels with the parts of a fed axis in its place."""
        return tuple(part for label in labels for part in self.parts.get(label, (label,)))

    def complete(self) -> None:
        """Bind what no layer has shown: 1 axis is channels, 2 are height and width, 3 lie as images do."""
        labels = self.expand(tuple(f"fed{i}" for i in range(len(self.fed_shape))))
        shape = [self.sizes[x] for x in labels]
        default: tuple[str, ...] = ("C",)
        if len(shape) == 2:
            default = ("H", "W")
        elif len(shape) == 3:
            last = shape[2] <= 4 < shape[0]
            default = ("H", "W", "C") if last else ("C", "H", "W")
        # Axes of length 1 come last: they take what is left.
        for axis in sorted(range(len(shape)), key=lambda i: shape[i] == 1):
            label = labels[axis]
            if label in self.roles:
                continue
            taken = self.roles.values()
            order = (default[axis], *default, *ROLES)
            free = [r for r in order if r not in taken]
            if not free:
                raise Refusal("the input has more than three axes that are longer than 1")
            self.roles[label] = free[0]

    def shape(self) -> Shape:
        """Shape (H, W, C) of the map."""
        self.complete()
        size = {role: self.sizes[label] for label, role in self.roles.items()}
        return (size.get("H", 1), size.get("W", 1), size.get("C", 1))

    def finished(self) -> AnnInput:
        """The input as conversion takes it."""
        shape = self.shape()
        # A fed axis that was parted stands at its first part; to_map then parts it by its reshape.
        labels = {role: label for label, role in self.roles.items()}
        fed = [labels[r] for r in ROLES if r in labels]
        for label, parts in self.parts.items():
            if parts[0] not in fed or fed[(at := fed.index(parts[0])) :][: len(parts)] != list(
                parts
            ):
                raise Refusal(
                    f"axis {int(label[3:]) + 1} of the input is parted with channels first; feed a map instead"
                )
            fed[at + 1 : at + len(parts)] = []
        axis = {self.roles[x]: int(x[3:].split(".")[0]) for x in fed}
        scale, offset = self.affine or (np.float64(1), np.float64(0))
        return AnnInput(
            shape=shape,
            fed_shape=self.fed_shape,
            axes=(axis.get("H", -1), axis.get("W", -1), axis.get("C", -1)),
            scale=np.broadcast_to(scale, shape[2:]).astype(np.float64),
            offset=np.broadcast_to(offset, shape[2:]).astype(np.float64),
        )


class Units:
    """The units found so far, and the operations that a graph is made of."""

    def __init__(self, fed_shape: tuple[int, ...]) -> None:
        self.input = Input(fed_shape)
        self.units: dict[str, Unit] = {}
        self.orders: dict[str, tuple[Labels, ...]] = {}
        self.shapes: dict[str, Shape] = {}
        self.notes: list[str] = []

    # Tensors

    def fed(self) -> Tensor:
        """What is fed."""
        return Tensor(Ready(INPUT, np.float64(1), np.float64(0)), self.input.axes())

    def resolve(self, axes: Axes) -> Axes:
        """Axes with the roles that are known by now in place of fed axes."""
        return tuple(
            tuple(self.input.roles.get(x, x) for x in self.input.expand(labels)) for labels in axes
        )

    def size(self, tensor: Tensor, label: str) -> int:
        """Length of a label of a tensor."""
        if label.startswith("fed"):
            return self.input.sizes[label]
        return self.shape(tensor.state)[ROLES.index(label)]

    def dims(self, tensor: Tensor) -> tuple[int, ...]:
        """Shape of a tensor without its batch axis."""
        return tuple(prod(self.size(tensor, x) for x in labels) for labels in tensor.axes)

    def shape(self, state: Ready | Open) -> Shape:
        """Shape (H, W, C) of the map that a state is."""
        if isinstance(state, Open):
            return state.shape
        h, w, c = self.source_shape(state.source)
        top, left, bottom, right = state.padding
        return (h + top + bottom, w + left + right, c)

    def source_shape(self, source: str) -> Shape:
        """Shape of the input or of a finished unit."""
        return self.input.shape() if source == INPUT else self.shapes[source]

    def images(self, tensor: Tensor) -> Labels:
        """Spatial labels of a tensor that a convolution or pool reads, channels first: (H, W), (W,) or (H,)."""
        if len(tensor.axes) not in (2, 3):
            raise Refusal(
                f"its input has {len(tensor.axes) + 1} axes; 1-D and 2-D maps (N, C, L and N, C, H, W) are read"
            )
        axes = self.resolve(tensor.axes)
        spatial: Labels = ("H", "W")
        if len(axes) == 2:
            spatial = ("H",) if axes[1] == ("H",) else ("W",)
        for labels, role in zip(axes, ("C", *spatial), strict=True):
            if len(labels) == 1 and labels[0].startswith("fed"):
                self.input.bind(labels[0], role)
            elif labels not in ((), (role,)):
                raise Refusal("its input's axes are not in the order channel, height, width")
        return spatial

    def arranged(self, state: Ready | Open, *roles: str) -> Tensor:
        """A tensor with one role an axis."""
        shape = dict(zip(ROLES, self.shape(state), strict=True))
        return Tensor(state, tuple((r,) if r and shape[r] > 1 else () for r in roles))

    def roles(self, tensor: Tensor) -> Labels:
        """What each axis of a tensor is; those of length 1 by where they stand."""
        if any(x.startswith("fed") for labels in self.resolve(tensor.axes) for x in labels):
            self.input.complete()
        axes = self.resolve(tensor.axes)
        for order in ("CHW", "HWC", "CW", "WC", "CH", "HC", "C"):
            if len(order) == len(axes) and all(
                a in ((), (r,)) for a, r in zip(axes, order, strict=True)
            ):
                return tuple(order)
        raise Refusal("its axes are not height, width and channels")

    def padded(self, state: Ready | Open, pads: Padding) -> Ready:
        """A map with zeros around it; the next convolution takes them over."""
        ready = self.close(state)
        top, left, bottom, right = (a + b for a, b in zip(ready.padding, pads, strict=True))
        state = replace(ready, padding=(top, left, bottom, right))
        _need_map(self.shape(state))
        return state

    def per_channel(self, tensor: Tensor, constant: np.ndarray) -> np.ndarray:
        """A constant that is broadcast over a tensor, as float64[] or [C]; Refusal if it differs by pixel."""
        dims = self.dims(tensor)
        array = np.asarray(constant, np.float64)
        while array.ndim > len(dims) and len(array) == 1:
            array = array[0]
        if array.ndim > len(dims) or any(
            n not in (1, d) for n, d in zip(array.shape[::-1], dims[::-1], strict=False)
        ):
            raise Refusal(
                f"its constant of shape {constant.shape} does not fit a map of shape (N, {_row(dims)})"
            )
        if array.size == 1:
            return array.reshape(())
        labels = [x for axis in tensor.axes for x in axis]
        full = np.broadcast_to(array, dims).reshape([self.size(tensor, x) for x in labels])
        varying = []
        for i, label in enumerate(labels):
            first = full.take([0], i)
            if (full == first).all():
                full = first
            else:
                varying.append(label)
        if not varying:
            return full.reshape(())
        role = self.input.roles.get(varying[0], varying[0])
        if len(varying) == 1 and role.startswith("fed"):
            self.input.bind(role, "C")
        elif len(varying) > 1 or role != "C":
            raise Refusal(
                "its constant differs from pixel to pixel; use one value, or one a channel"
            )
        return full.reshape(-1)

    # States

    def close(self, state: Ready | Open) -> Ready:
        """Finish a unit, if it is not finished."""
        if isinstance(state, Ready):
            return state
        if state.ceiling is not None and not self.is_nonnegative(state):
            raise Refusal(
                "bounds a value from above that no ReLU bounds from below; put a ReLU there"
            )
        # What cannot be negative is marked rectified: TSA-ReLU populations then carry it as it is.
        return self._finish(replace(state, rectified=self.is_nonnegative(state)))

    def _finish(self, state: Open) -> Ready:
        name = _unique(state.name, self.units)
        self.units[name] = Unit(
            name=name,
            terms=tuple(Term(p.source, p.linear) for p in state.parts),
            bias=np.broadcast_to(state.bias, state.shape[2:]).astype(np.float64),
            pool=state.pool,
            rectified=state.rectified,
            ceiling=state.ceiling,
            step=state.step,
        )
        self.orders[name] = tuple(p.order for p in state.parts)
        self.shapes[name] = state.shape
        return Ready(name, np.float64(1), np.float64(0))

    def is_nonnegative(self, state: Ready | Open) -> bool:
        """True if no value of it can be negative."""
        if isinstance(state, Ready):
            positive = bool((state.scale >= 0).all() and (state.offset >= 0).all())
            return positive and state.source != INPUT and self.units[state.source].rectified
        return state.rectified or bool(
            all(p.source != INPUT and self.units[p.source].rectified for p in state.parts)
            and all((p.linear.weight >= 0).all() for p in state.parts)
            and (state.bias >= 0).all()
        )

    def _settled(self, state: Ready) -> Ready:
        """The state relative to what layers see of the input: its first affine map becomes the input's own."""
        if state.source != INPUT:
            return state
        if self.input.affine is None:
            self.input.affine = (state.scale, state.offset)
        scale, offset = self.input.affine
        if np.array_equal(state.scale, scale) and np.array_equal(state.offset, offset):
            return replace(state, scale=np.float64(1), offset=np.float64(0))
        if (scale == 0).any():
            raise Refusal("reads the input, which is multiplied by 0 elsewhere")
        ratio = state.scale / scale
        return replace(state, scale=ratio, offset=state.offset - ratio * offset)

    def identity(self, state: Ready, name: str) -> Open:
        """A unit that is the state itself, its scale, offset and padding."""
        return self._plain(self._settled(state), name)

    def _plain(self, state: Ready, name: str) -> Open:
        """A unit that is a settled state itself."""
        if (state.offset != 0).any() and state.padding != NO_PADDING:
            # Padding is zero after the offset: two units.
            inner = self._finish(self._plain(replace(state, padding=NO_PADDING), name))
            state = replace(inner, padding=state.padding)
        channels = self.source_shape(state.source)[2]
        scale = np.broadcast_to(state.scale, (channels,)).astype(np.float64)
        conv = Conv(scale.reshape(channels, 1, 1, 1), padding=state.padding, groups=channels)
        bias = np.broadcast_to(state.offset, (channels,)).astype(np.float64)
        return Open(name, (Part(state.source, conv),), bias, self.shape(state))

    def convolved(self, state: Ready | Open, conv: Conv, bias: np.ndarray, name: str) -> Open:
        """conv(state) + bias."""
        ready = self._settled(self.close(state))
        top, left, bottom, right = (a + b for a, b in zip(conv.padding, ready.padding, strict=True))
        padding = (top, left, bottom, right)
        if (ready.offset != 0).any() and padding != NO_PADDING:
            # Folded into the bias, the offset would reach what is padded too.
            ready = self._finish(self._plain(replace(ready, padding=NO_PADDING), name + "_in"))
        weight = np.asarray(conv.weight, np.float64)
        out, _, _, inputs = weight.shape
        channels = self.source_shape(ready.source)[2]
        if channels != inputs * conv.groups or out % conv.groups:
            raise Refusal(
                f"its weight reads {inputs * conv.groups} channels, its input has {channels}"
            )
        group = np.arange(out) // (out // conv.groups)
        read = group[:, None] * inputs + np.arange(inputs)  # channel that weight[o, ..., i] reads
        offset = np.broadcast_to(ready.offset, (channels,))[read]
        scale = np.broadcast_to(ready.scale, (channels,))[read]
        bias = np.asarray(bias, np.float64) + (weight.sum((1, 2)) * offset).sum(1)
        weight = weight * scale[:, None, None, :]
        linear = replace(conv, weight=weight, bias=None, padding=padding)
        shape = term_shape(
            Term(ready.source, linear), {ready.source: self.source_shape(ready.source)}
        )
        _need_map(shape)
        return Open(name, (Part(ready.source, linear),), bias, shape)

    def dense(self, tensor: Tensor, weight: np.ndarray, bias: np.ndarray, name: str) -> Open:
        """weight @ flattened tensor + bias, inputs counted as the labels run; weight float64[out, n]."""
        order = tuple(x for labels in tensor.axes for x in self.input.expand(labels))
        sizes = [self.size(tensor, x) for x in order]
        weight = np.asarray(weight, np.float64)
        if weight.shape[1] != prod(sizes):
            raise Refusal(f"its weight reads {weight.shape[1]} values, its input has {prod(sizes)}")
        ready = self._settled(self.close(tensor.state))
        if ready.padding != NO_PADDING:
            ready = self._finish(self._plain(ready, name + "_in"))
        wide = weight.reshape(-1, *sizes)
        along = [
            1 if self.input.roles.get(x, x) != "C" else n for x, n in zip(order, sizes, strict=True)
        ]
        offset = ready.offset.reshape(along) if ready.offset.ndim else ready.offset
        scale = ready.scale.reshape(along) if ready.scale.ndim else ready.scale
        bias = np.asarray(bias, np.float64) + (wide * offset).reshape(len(weight), -1).sum(1)
        linear = Dense((wide * scale).reshape(weight.shape))
        return Open(name, (Part(ready.source, linear, order),), bias, (1, 1, len(weight)))

    def scaled(
        self, state: Ready | Open, scale: np.ndarray, offset: np.ndarray, name: str
    ) -> Ready | Open:
        """scale * state + offset; scale and offset float64[] or [C]."""
        if isinstance(state, Ready) and state.padding != NO_PADDING:
            state = self.identity(state, name)
        # A maximum and a positive factor may change places.
        if isinstance(state, Open) and not (
            state.pointwise and (state.pool is None or (scale >= 0).all())
        ):
            state = self.close(state)
        if isinstance(state, Ready):
            return replace(state, scale=state.scale * scale, offset=state.offset * scale + offset)
        per_out = np.broadcast_to(scale, state.shape[2:])
        parts = tuple(
            replace(
                p,
                linear=replace(
                    p.linear,
                    weight=p.linear.weight * per_out.reshape(-1, *[1] * (p.linear.weight.ndim - 1)),
                ),
            )
            for p in state.parts
        )
        return replace(state, parts=parts, bias=state.bias * scale + offset)

    def added(self, a: Ready | Open, b: Ready | Open, name: str) -> Open:
        """a + b; their shapes are equal."""
        first, second = self._summand(a, name), self._summand(b, name)
        begun = [s.name for s in (a, b) if isinstance(s, Open) and s.linear]
        return Open(
            begun[0] if begun else name,
            first.parts + second.parts,
            first.bias + second.bias,
            first.shape,
        )

    def _summand(self, state: Ready | Open, name: str) -> Open:
        if isinstance(state, Open) and state.linear:
            return state
        return self.identity(self.close(state), name)

    def pooled(self, state: Ready | Open, pool: Window, name: str) -> Open:
        """maxpool(state); behind an activation too: a maximum and what never falls may change places."""
        if isinstance(state, Open) and state.pool is not None:
            state = self.close(state)
        if isinstance(state, Ready):
            ceiling, step = self._levels(state)
            rectified = self.is_nonnegative(state)
            state = replace(
                self.identity(state, name), rectified=rectified, ceiling=ceiling, step=step
            )
        shape = pooled_shape(state.shape, pool)
        _need_map(shape)
        return replace(state, pool=pool, shape=shape)

    def activated(
        self,
        state: Ready | Open,
        name: str,
        rectified: bool = False,
        ceiling: float | None = None,
        step: float | None = None,
    ) -> Ready | Open:
        """min(max(state, 0), ceiling), rounded to multiples of step; each only if given."""
        if isinstance(state, Ready):
            known, steps = self._levels(state)
            lower = not rectified or self.is_nonnegative(state)
            upper = ceiling is None or (known is not None and known <= ceiling)
            if lower and upper and step in (None, steps):
                return state
            state = self.identity(state, name)
        elif state.step is not None:
            # A bound after rounding is the same before it if it is a multiple of the step.
            lower = not rectified or self.is_nonnegative(state)
            whole = ceiling is None or _is_multiple(ceiling, state.step)
            bounded = ceiling is None or (state.ceiling is not None and state.ceiling <= ceiling)
            if not (lower and (whole or bounded) and step in (None, state.step)):
                state = self.identity(self.close(state), name)
        ceilings = [c for c in (state.ceiling, ceiling) if c is not None]
        return replace(
            state,
            rectified=state.rectified or rectified,
            ceiling=min(ceilings) if ceilings else None,
            step=step if step is not None else state.step,
        )

    def _levels(self, state: Ready) -> tuple[float | None, float | None]:
        """Ceiling and step of a finished unit as it is, None if it is scaled, shifted or padded."""
        plain = bool((state.scale == 1).all() and (state.offset == 0).all())
        if state.source == INPUT or not plain:
            return None, None
        unit = self.units[state.source]
        return unit.ceiling, unit.step

    # The end

    def finished(self, name: str, output: Tensor) -> Ann:
        """The network with the class scores `output`. The last unit is dense, without pool and activation."""
        order = tuple(x for labels in self.resolve(output.axes) for x in labels)
        state = output.state
        if not (isinstance(state, Open) and state.linear and order in ((), ("C",))):
            classes = prod(self.dims(output))
            if classes**2 > _MAX_LAST:
                raise Refusal(f"its output has {classes:,} values; convert a classifier")
            state = self.dense(output, np.eye(classes), np.zeros(classes), "scores")
        last = self._finish(state).source
        units = {n: self._ordered(u) for n, u in self.units.items()}
        terms = tuple(
            Term(t.source, _as_dense(t.linear, self.source_shape(t.source)))
            for t in units[last].terms
        )
        units[last] = replace(units[last], terms=terms)
        return Ann(name, self.input.finished(), tuple(units.values()), notes=tuple(self.notes))

    def _ordered(self, unit: Unit) -> Unit:
        """Dense weights in channel-last order, now that the input's axes are known."""
        terms = []
        for term, order in zip(unit.terms, self.orders[unit.name], strict=True):
            linear = term.linear
            if isinstance(linear, Dense):
                h, w, c = self.source_shape(term.source)
                size = {"H": h, "W": w, "C": c}
                labels = list(self.resolve((order,))[0])
                wide = linear.weight.reshape(-1, *(size[x] for x in labels))
                axes = [labels.index(r) + 1 for r in ROLES if r in labels]
                linear = Dense(
                    np.ascontiguousarray(wide.transpose(0, *axes).reshape(linear.weight.shape))
                )
            terms.append(Term(term.source, linear))
        return replace(unit, terms=tuple(terms))


def _need_map(shape: Shape) -> None:
    """Refusal unless a map of this shape can be."""
    if min(shape) < 1:
        raise Refusal("its window is larger than its input")
    if prod(shape) > _MAX_MAP:
        raise Refusal(f"makes a map of {prod(shape):,} values; at most {_MAX_MAP:,} are read")


def _as_dense(linear: Dense | Conv, shape: Shape) -> Dense:
    """A convolution with a single output position, as a dense layer."""
    if isinstance(linear, Dense):
        return linear
    h, w, c = shape
    out, kh, kw, inputs = linear.weight.shape
    if out * h * w * c > _MAX_LAST:
        raise Refusal("its last layer is a convolution too large for a dense layer; pool before it")
    weight = np.zeros((out, h, w, c))
    group = np.arange(out) // (out // linear.groups)
    read = group[:, None] * inputs + np.arange(inputs)
    for ky in range(kh):
        for kx in range(kw):
            y = ky * linear.dilation[0] - linear.padding[0]
            x = kx * linear.dilation[1] - linear.padding[1]
            if 0 <= y < h and 0 <= x < w:
                weight[np.arange(out)[:, None], y, x, read] += linear.weight[:, ky, kx, :]
    return Dense(weight.reshape(out, -1))


def _is_multiple(value: float, step: float) -> bool:
    return abs(value / step - round(value / step)) < 1e-4


def _row(dims: tuple[int, ...]) -> str:
    return ", ".join(map(str, dims))


def _unique(name: str, taken: dict[str, Unit]) -> str:
    """An identifier that no unit bears, close to `name`."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "layer"
    if word[0].isdigit() or keyword.iskeyword(word) or word == INPUT:
        word = f"layer_{word}"
    found, number = word, 2
    while found in taken:
        found, number = f"{word}_{number}", number + 1
    return found
