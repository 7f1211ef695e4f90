"""A spiking network as plain values: what a checkpoint stores and a net is built from (no torch)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.targets.errors import UsageError

Shape = tuple[int, int, int]  # (height, width, channels)
Pair = tuple[int, int]  # (along the height, along the width)

# What each kind uses of a layer's fields beyond kind, name and sources; the others keep their defaults.
_CONV = {"out", "kernel", "stride", "padding"}
USED = {
    "events": set(),
    "encode-conv": _CONV | {"pool"},
    "encode-dense": {"out"},
    "encode-raw": {"pool"},
    "direct-conv": _CONV | {"neuron"},
    "direct-dense": {"out", "neuron"},
    "conv": _CONV | {"neuron"},
    "dense": {"out", "neuron"},
    "or-pool": {"kernel", "stride"},
    "avg-pool": {"kernel", "stride"},
    "merge": set(),
    "output": {"out"},
}
KINDS = tuple(USED)
EVENTS = "events"
ENCODERS = (EVENTS, "encode-conv", "encode-dense", "encode-raw", "direct-conv", "direct-dense")
CONVS = ("encode-conv", "direct-conv", "conv")
LATENCY_ENCODERS = ("encode-conv", "encode-dense", "encode-raw")
SPIKING = ("direct-conv", "direct-dense", "conv", "dense")  # layers with a population of neurons
NEURONS = ("lif", "if", "amos", "psn")
RESETS = ("soft", "hard")
SURROGATES = ("triangle", "rectangle", "atan", "sigmoid")  # neurons/surrogate.py
INPUT = "input"
FLOAT32_MAX = 3e38  # networks compute in float32; about what that holds


@dataclass(frozen=True)
class NeuronSpec:
    """A population's rule. kind: lif, if (leak 1), amos (at most one spike) or psn (baseline, not deployable).

    leak: alpha in u <- alpha u + I, the initial one if learn_leak (then one per layer is learned);
    reset: soft or hard (lif, if); forced: an amos neuron fires at T at the latest; surrogate, width: the
    derivative of the spike in training, and its width in units of the membrane.
    """

    kind: str = "lif"
    leak: float = 0.5
    v_threshold: float = 1.0
    reset: str = "soft"
    forced: bool = False
    learn_leak: bool = False
    surrogate: str = "triangle"
    width: float = 1.0

    def check(self) -> None:
        """ValueError with the first value that makes no sense."""
        if self.kind not in NEURONS:
            raise ValueError(f"neuron {self.kind!r}: one of {', '.join(NEURONS)}")
        if not 0.0 <= self.leak <= 1.0:
            raise ValueError(f"leak {self.leak!r} is not in [0, 1]")
        if self.kind == "if" and (self.leak != 1.0 or self.learn_leak):
            raise ValueError("an if neuron does not leak: its leak is 1")
        if not 0.0 < self.v_threshold < FLOAT32_MAX:
            raise ValueError(f"v_threshold {self.v_threshold!r} is not positive and finite")
        if not 0.0 < self.width < FLOAT32_MAX:
            raise ValueError(f"surrogate width {self.width!r} is not positive and finite")
        if self.surrogate not in SURROGATES:
            raise ValueError(f"surrogate {self.surrogate!r}: one of {', '.join(SURROGATES)}")
        if self.reset not in RESETS:
            raise ValueError(f"reset {self.reset!r}: one of {', '.join(RESETS)}")
        if self.reset == "hard" and self.kind not in ("lif", "if"):
            raise ValueError(f"{self.kind} neurons are not reset")
        if self.forced and self.kind != "amos":
            raise ValueError("forced is for amos neurons")
        if self.learn_leak and self.kind not in ("lif", "amos"):
            raise ValueError(f"{self.kind} neurons have no leak to learn")


def neuron_spec(neuron: str | NeuronSpec) -> NeuronSpec:
    """A rule by its kind alone, or as it is."""
    if isinstance(neuron, NeuronSpec):
        return neuron
    return NeuronSpec(neuron, leak=1.0) if neuron == "if" else NeuronSpec(neuron)


@dataclass(frozen=True)
class LayerSpec:
    """One layer. out: channels or units; kernel, stride, padding: in samples; pool: see below.

    kind, by what it does:
    events: the sample is the events of all steps, channel t C + c for step t = 0...T-1: nothing to encode;
    encode-conv, encode-dense: linear map, batch norm, max-pool `pool` (1 is none), sigmoid, spike time;
    encode-raw: the sample itself, in [0, 1], is the spike time's value; direct-conv, direct-dense: linear
    map and batch norm of the sample are a constant current into spiking neurons; conv, dense: spiking,
    i.e. linear map, batch norm, neurons; or-pool, avg-pool: windows of `kernel`; merge: spikes of all its
    sources (SEW addition); output: linear map into membranes that the readout looks at.

    sources: names of the layers it reads; () is the layer before (for an encoder: the samples).
    neuron: the network's if None.
    """

    kind: str
    name: str
    out: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pool: int = 1
    sources: tuple[str, ...] = ()
    neuron: NeuronSpec | None = None


@dataclass(frozen=True)
class NetworkSpec:
    """An acyclic net of layers in topological order: an encoder first, the output last.

    input_shape: (height, width, channels) of a sample, of events with the channels of all T steps. A signal
    has height 1: all windows are then 1 x k.
    neuron: of every spiking layer that names none. U[t] = output_leak * U[t-1] + O[t] are the output
    membranes; learn_output_leak: one learned leak per class (temporal selector).
    norm: batch norm in every layer but the output; without it every linear map has a bias.
    """

    name: str
    input_shape: Shape
    classes: int
    timesteps: int
    layers: tuple[LayerSpec, ...]
    neuron: NeuronSpec = field(default=NeuronSpec())
    output_leak: float = 0.5
    learn_output_leak: bool = False
    norm: bool = True

    @property
    def encoder(self) -> LayerSpec:
        return self.layers[0]

    @property
    def output(self) -> LayerSpec:
        return self.layers[-1]

    @property
    def takes_events(self) -> bool:
        """Whether a sensor sends the first spikes. Without events such a net is silent (see `RmsNorm`)."""
        return self.encoder.kind == EVENTS

    def window(self, size: int, along_height: int) -> Pair:
        """(height, width) of a window of `size`; along_height stands for the height of a signal."""
        return (along_height if self.input_shape[0] == 1 else size, size)

    def neuron_of(self, layer: LayerSpec) -> NeuronSpec:
        """The rule of a spiking layer's population."""
        return layer.neuron or self.neuron

    def sources(self) -> dict[str, tuple[str, ...]]:
        """What every layer reads, by name; INPUT stands for the samples."""
        out: dict[str, tuple[str, ...]] = {}
        before = INPUT
        for layer in self.layers:
            out[layer.name] = layer.sources or (before,)
            before = layer.name
        return out

    def shapes(self) -> dict[str, Shape]:
        """(height, width, channels) of each layer's output; UsageError if the layers do not fit."""
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
            raise UsageError(f"network {self.name}: layer names are not distinct plain words")
        if INPUT in names:
            raise UsageError(f"network {self.name}: {INPUT!r} is the samples' name, not a layer's")
        known: dict[str, Shape] = {INPUT: self.input_shape}
        binary = {INPUT: False}  # whether a unit emits at most one spike a step
        unread = set(names[:-1])
        reads = self.sources()
        for i, layer in enumerate(self.layers):
            self._check_layer(i, layer)
            sources = reads[layer.name]
            for source in sources:
                if source not in known:
                    raise UsageError(f"layer {layer.name}: {source!r} does not stand before it")
                if (source == INPUT) != (i == 0):
                    raise UsageError(f"layer {layer.name}: the encoder and no other reads samples")
            unread -= set(sources)
            if layer.kind == "or-pool" and not binary[sources[0]]:
                raise UsageError(
                    f"layer {layer.name}: an or-pool takes the spikes of one population; "
                    "pool before the merge, or use avg-pool"
                )
            known[layer.name] = self._shape(layer, [known[source] for source in sources])
            binary[layer.name] = layer.kind not in ("merge", "avg-pool")
            if min(known[layer.name]) < 1:
                size = "x".join(str(n) for n in self.input_shape)
                raise UsageError(f"network {self.name}: {size} samples are too small for it")
        if unread:
            raise UsageError(f"network {self.name}: nothing reads {', '.join(sorted(unread))}")
        if not self.layers or self.output.out != self.classes:
            raise UsageError(f"network {self.name}: its output has not {self.classes} classes")
        del known[INPUT]
        return known

    def _check_layer(self, i: int, layer: LayerSpec) -> None:
        if layer.kind not in KINDS:
            raise UsageError(f"layer {layer.name}: unknown kind {layer.kind!r}")
        if (layer.kind in ENCODERS) != (i == 0):
            raise UsageError(f"network {self.name}: the first layer and no other is an encoder")
        if (layer.kind == "output") != (i == len(self.layers) - 1):
            raise UsageError(f"network {self.name}: the last layer and no other is the output")
        for f in fields(LayerSpec):
            unused = f.name not in USED[layer.kind] | {"kind", "name", "sources"}
            if unused and getattr(layer, f.name) != f.default:
                raise UsageError(f"layer {layer.name}: {layer.kind} has no {f.name}")
        if min(layer.kernel, layer.stride, layer.pool) < 1 or layer.padding < 0:
            raise UsageError(f"layer {layer.name}: kernel, stride and pool are at least 1")
        if layer.padding >= layer.kernel:
            raise UsageError(f"layer {layer.name}: padding is smaller than the kernel")
        if "out" in USED[layer.kind] and layer.out < 1:
            raise UsageError(f"layer {layer.name}: needs at least one output")
        if layer.kind == "merge" and len(set(layer.sources)) < max(2, len(layer.sources)):
            raise UsageError(f"layer {layer.name}: a merge names two or more different sources")
        if layer.kind != "merge" and len(layer.sources) > 1:
            raise UsageError(f"layer {layer.name}: only a merge has several sources")
        if layer.kind in SPIKING:
            try:
                self.neuron_of(layer).check()
            except ValueError as error:
                raise UsageError(f"layer {layer.name}: {error}") from None
            if layer.kind in ENCODERS and self.neuron_of(layer).kind == "amos":
                # The program's current encoder has resets only; better told before training than after.
                raise UsageError(
                    f"layer {layer.name}: direct coding has lif or if neurons, not amos; "
                    "use a latency encoder, or other neurons"
                )

    def _shape(self, layer: LayerSpec, sources: list[Shape]) -> Shape:
        height, width, channels = sources[0]
        if layer.kind == "merge":
            if len(set(sources)) > 1:
                raise UsageError(f"layer {layer.name}: its sources are maps of different shapes")
            return sources[0]
        if layer.kind == EVENTS:
            if channels % self.timesteps:
                raise UsageError(
                    f"network {self.name} takes events, and {channels} channels are not {self.timesteps} "
                    "steps of them: choose data of events, such as nmnist-events"
                )
            return (height, width, channels // self.timesteps)
        if "out" in USED[layer.kind] and "kernel" not in USED[layer.kind]:
            return (1, 1, layer.out)
        if "kernel" in USED[layer.kind]:
            kernel, stride = self.window(layer.kernel, 1), self.window(layer.stride, 1)
            padding = self.window(layer.padding, 0)
            height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
            width = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
        pool = self.window(layer.pool, 1)
        return (height // pool[0], width // pool[1], layer.out or channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: str, int, float, bool, list, dict, None."""
        plain = asdict(self)
        plain["input_shape"] = list(self.input_shape)
        plain["layers"] = [
            {**layer, "sources": list(layer["sources"])} for layer in plain["layers"]
        ]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> NetworkSpec:
        """The inverse of `to_dict`; ValueError with what is wrong."""
        values = _checked(_modern(plain), cls, "network")
        if not isinstance(values["layers"], list):
            raise ValueError("network.layers is not a list")
        values["layers"] = tuple(_layer(x) for x in values["layers"])
        values["neuron"] = _neuron(values["neuron"], "network.neuron")
        shape = values["input_shape"]
        if not isinstance(shape, list) or len(shape) != 3 or not all(_positive(n) for n in shape):
            raise ValueError(f"network.input_shape {shape!r} is not (height, width, channels)")
        values["input_shape"] = tuple(shape)
        if not (_positive(values["classes"]) and _positive(values["timesteps"])):
            raise ValueError("network.classes and network.timesteps are not positive")
        if values["timesteps"] > MAX_TIMESTEPS:
            raise ValueError(
                f"network.timesteps {values['timesteps']} is not from 1 to {MAX_TIMESTEPS}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", values["name"]):
            raise ValueError("network.name is not a plain word of up to 64 letters")
        if not 0.0 <= values["output_leak"] <= 1.0:
            raise ValueError(f"network.output_leak {values['output_leak']!r} is not in [0, 1]")
        return cls(**values)


def _modern(plain: object) -> object:
    """The table of a checkpoint of edgesnn 0.1.0 (neuron a name, constants of the whole net) as one of now."""
    if not isinstance(plain, dict) or "leak" not in plain or "v_threshold" not in plain:
        return plain
    plain = dict(plain)
    rule = {"kind": plain.pop("neuron", "lif"), "leak": plain.pop("leak")}
    rule["v_threshold"] = plain.pop("v_threshold")
    plain["neuron"] = {**asdict(NeuronSpec()), **rule}
    layers = plain.get("layers")
    if isinstance(layers, list) and all(isinstance(layer, dict) for layer in layers):
        plain["layers"] = [{**layer, "sources": [], "neuron": None} for layer in layers]
    return {**plain, "learn_output_leak": False, "norm": True}


def _layer(plain: object) -> LayerSpec:
    values = _checked(plain, LayerSpec, "layer")
    sources = values["sources"]
    if not isinstance(sources, list) or not all(isinstance(s, str) for s in sources):
        raise ValueError("layer.sources is not a list of names")
    values["sources"] = tuple(sources)
    if values["neuron"] is not None:
        values["neuron"] = _neuron(values["neuron"], "layer.neuron")
    return LayerSpec(**values)


def _neuron(plain: object, what: str) -> NeuronSpec:
    neuron = NeuronSpec(**_checked(plain, NeuronSpec, what))
    try:
        neuron.check()
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return neuron


def _positive(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0


_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
}


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
        truth = isinstance(value, bool) and kind != "bool"
        if expected is not None and (not isinstance(value, expected) or truth):
            raise ValueError(f"{what}.{name} is {value!r}, not {kind}")
    try:  # whole numbers in place of floats, too: later arithmetic may not hold them
        return {k: float(v) if names[k] == "float" else v for k, v in plain.items()}
    except OverflowError:
        raise ValueError(f"{what} has a number larger than any float") from None
