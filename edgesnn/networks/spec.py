"""A latency-coded network as plain values: what a checkpoint stores and a net is built from."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.targets.errors import UsageError

# What each kind uses of a layer's fields; the others keep their defaults.
USED = {
    "encode-conv": {"out", "kernel", "stride", "padding", "pool"},
    "encode-dense": {"out"},
    "conv": {"out", "kernel", "stride", "padding"},
    "or-pool": {"kernel", "stride"},
    "dense": {"out"},
    "output": {"out"},
}
KINDS = tuple(USED)
MIN_TIMESTEPS = 2  # one step cannot tell two times apart
NEURONS = ("lif", "amos")  # of the spiking layers: as often as it reaches threshold, or once


@dataclass(frozen=True)
class LayerSpec:
    """One layer. `kind`: encode-conv, encode-dense, conv, or-pool, dense or output.

    out: channels or units (0 for or-pool); kernel, stride, padding: square, in samples;
    pool: the window of a max-pool before an encoder's sigmoid, 1 is none.
    conv and dense are spiking: linear map, batch norm, LIF. An or-pool's window is `kernel`.
    """

    kind: str
    name: str
    out: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class NetworkSpec:
    """A feed-forward net: one encoder, spiking layers and pools, one output layer, in that order.

    input_shape: (height, width, channels); leak and v_threshold: of every spiking layer;
    output_leak: U[t] = output_leak * U[t-1] + O[t] of the output membranes. neuron: one of NEURONS, for
    every spiking layer.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    timesteps: int
    layers: tuple[LayerSpec, ...]
    leak: float = 0.5
    v_threshold: float = 1.0
    output_leak: float = 0.5
    neuron: str = "lif"

    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(height, width, channels) of each layer's output; UsageError if they do not fit."""
        shape = self.input_shape
        out: list[tuple[int, int, int]] = []
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
            raise UsageError(f"network {self.name}: layer names are not distinct plain words")
        for i, layer in enumerate(self.layers):
            if layer.kind not in KINDS:
                raise UsageError(f"layer {layer.name}: unknown kind {layer.kind!r}")
            if (layer.kind.startswith("encode")) != (i == 0):
                raise UsageError(f"network {self.name}: the first layer and no other is an encoder")
            if (layer.kind == "output") != (i == len(self.layers) - 1):
                raise UsageError(f"network {self.name}: the last layer and no other is the output")
            for field in fields(LayerSpec)[2:]:
                if field.name not in USED[layer.kind] and (
                    getattr(layer, field.name) != field.default
                ):
                    raise UsageError(f"layer {layer.name}: {layer.kind} has no {field.name}")
            if min(layer.kernel, layer.stride, layer.pool) < 1 or layer.padding < 0:
                raise UsageError(f"layer {layer.name}: kernel, stride and pool are at least 1")
            if layer.padding >= layer.kernel:
                raise UsageError(f"layer {layer.name}: padding is smaller than the kernel")
            if layer.kind != "or-pool" and layer.out < 1:
                raise UsageError(f"layer {layer.name}: needs at least one output")
            height, width, channels = shape
            if layer.kind in ("encode-conv", "conv", "or-pool"):
                height = (height + 2 * layer.padding - layer.kernel) // layer.stride + 1
                width = (width + 2 * layer.padding - layer.kernel) // layer.stride + 1
                if layer.kind == "encode-conv":
                    height, width = height // layer.pool, width // layer.pool
                shape = (height, width, channels if layer.kind == "or-pool" else layer.out)
            else:
                shape = (1, 1, layer.out)
            if min(shape) < 1:
                size = "x".join(str(n) for n in self.input_shape)
                raise UsageError(f"network {self.name}: {size} samples are too small for it")
            out.append(shape)
        if not out or self.layers[-1].out != self.classes:
            raise UsageError(f"network {self.name}: its output has not {self.classes} classes")
        return tuple(out)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: str, int, float, list, dict."""
        plain = asdict(self)
        plain["input_shape"] = list(self.input_shape)
        plain["layers"] = [dict(layer) for layer in plain["layers"]]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> NetworkSpec:
        """The inverse of `to_dict`; ValueError with what is wrong."""
        if isinstance(plain, dict):
            plain = {"neuron": "lif", **plain}  # older checkpoints know no other
        values = _checked(plain, cls, "network")
        if values["neuron"] not in NEURONS:
            raise ValueError(f"network.neuron is {values['neuron']!r}, not {' or '.join(NEURONS)}")
        layers = values["layers"]
        if not isinstance(layers, list):
            raise ValueError("network.layers is not a list")
        values["layers"] = tuple(LayerSpec(**_checked(x, LayerSpec, "layer")) for x in layers)
        shape = values["input_shape"]
        if not isinstance(shape, list) or len(shape) != 3 or not all(_positive(n) for n in shape):
            raise ValueError(f"network.input_shape {shape!r} is not (height, width, channels)")
        values["input_shape"] = tuple(shape)
        if not (_positive(values["classes"]) and _positive(values["timesteps"])):
            raise ValueError("network.classes and network.timesteps are not positive")
        if not MIN_TIMESTEPS <= values["timesteps"] <= MAX_TIMESTEPS:
            raise ValueError(
                f"network.timesteps {values['timesteps']} is not from {MIN_TIMESTEPS} "
                f"to {MAX_TIMESTEPS}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", values["name"]):
            raise ValueError("network.name is not a plain word of up to 64 letters")
        for name in ("leak", "output_leak"):
            if not 0.0 <= values[name] <= 1.0:
                raise ValueError(f"network.{name} {values[name]!r} is not in [0, 1]")
        if not 0.0 < values["v_threshold"] < math.inf:
            raise ValueError(f"network.v_threshold {values['v_threshold']!r} is not positive")
        return cls(**values)


def _positive(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0


_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}


def _checked(plain: object, cls: type, what: str) -> dict[str, Any]:
    """`plain` as keyword arguments of the dataclass `cls`: same names, same plain types."""
    if not isinstance(plain, dict):
        raise ValueError(f"{what} is not a table")
    names = {f.name: str(f.type) for f in fields(cls)}
    if set(plain) != set(names):
        odd = sorted(str(k) for k in set(plain) ^ set(names))
        raise ValueError(f"{what} has missing or unknown fields: {', '.join(odd)}")
    for name, kind in names.items():
        expected = _TYPES.get(kind)
        value = plain[name]
        if expected is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise ValueError(f"{what}.{name} is {value!r}, not {kind}")
    return dict(plain)
