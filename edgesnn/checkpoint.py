"""Checkpoints: a trained network as tensors and plain values, and nothing that could run.

A checkpoint is a torch archive read with `weights_only=True`. Its table is checked against the
network it describes before anything is used, so a damaged or foreign file ends in one line.
Importing this module does not import torch; reading and writing do.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesnn.coding.readout import EXITS
from edgesnn.compiler import ir
from edgesnn.compiler.graph import (
    BatchNorm,
    Conv,
    CurrentEncode,
    Dense,
    EventInput,
    Graph,
    LatencyEncode,
    Layer,
    Merge,
    Output,
    Pool,
    ReadoutSpec,
    SampleInput,
    Spiking,
)
from edgesnn.networks.spec import (
    CONVS,
    ENCODERS,
    EVENTS,
    INPUT,
    LATENCY_ENCODERS,
    SPIKING,
    LayerSpec,
    NetworkSpec,
)
from edgesnn.runtime.files import write_atomic
from edgesnn.stream_table import stream_from_table, stream_to_table
from edgesnn.targets.errors import EdgesnnError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "edgesnn-checkpoint"
# 1 lacks "weights", and describes its network in fewer words; 2 lacks "stream".
VERSION = 3
FIELDS = {
    "format",
    "version",
    "network",
    "state",
    "input",
    "readout",
    "weights",
    "class_names",
    "data",
    "report",
    "stream",
}
DTYPES = ("uint8", "int8", "int16")  # of raw samples
READOUTS = EXITS
WEIGHTS = ("int8", "int6", "int4", "ternary", "power-of-two")
_EPS = 1e-5  # of every batch norm


@dataclass(frozen=True)
class Checkpoint:
    """A trained network.

    state: name -> tensor as `SpikingNetwork.state_dict()` names them. scale: a sample is
    scale * (raw - zero_point) of raw `dtype`. readout: kind (one of READOUTS) and value chosen on
    validation data. weights: the format that it was trained for (one of WEIGHTS). data: what it was
    trained on. report: what training measured, plain values. stream: how its samples come out of a
    signal, None if they are handed over whole.
    """

    network: NetworkSpec
    state: dict[str, Tensor]
    scale: float
    readout: ReadoutSpec
    class_names: tuple[str, ...]
    data: str
    report: dict[str, Any]
    dtype: str = "uint8"
    zero_point: int = 0
    weights: str = "int8"
    stream: ir.Stream | None = None


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write to a temporary name in the same folder, then rename. EdgesnnError if that fails."""
    write_archive(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "network": checkpoint.network.to_dict(),
            "state": {k: v.detach().cpu().contiguous() for k, v in checkpoint.state.items()},
            "input": {
                "dtype": checkpoint.dtype,
                "scale": checkpoint.scale,
                "zero_point": checkpoint.zero_point,
            },
            "readout": {"kind": checkpoint.readout.kind, "value": checkpoint.readout.value},
            "weights": checkpoint.weights,
            "class_names": list(checkpoint.class_names),
            "data": checkpoint.data,
            "report": checkpoint.report,
            "stream": stream_to_table(checkpoint.stream),
        },
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint; EdgesnnError (one line) for anything that is not a sound one."""
    table = read_archive(path, FORMAT, VERSION, "checkpoint")
    try:
        return _checked(table)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def load_graph(path: Path) -> Graph:
    """The float layer graph of a checkpoint, ready for lowering (channel-last, float64)."""
    path = Path(path)
    checkpoint = load_checkpoint(path)
    try:
        return to_graph(checkpoint)
    except UsageError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from None


# What checking and converting raise for values that do not belong there.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    EdgesnnError,
)


def _damaged(path: Path, error: Exception) -> EdgesnnError:
    if isinstance(error, KeyError):
        reason = f"{error.args[0]!r} is missing"
    elif isinstance(error, MemoryError):
        reason = "it needs more memory than there is"
    else:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    return EdgesnnError(f"{path} is a damaged checkpoint: {reason[:300]}")


def to_graph(checkpoint: Checkpoint) -> Graph:
    """A checkpoint's network in the compiler's terms. UsageError for neurons that cannot be compiled."""
    spec = checkpoint.network
    state = {k: v.detach().cpu().numpy().astype(np.float64) for k, v in checkpoint.state.items()}
    reads, shapes = spec.sources(), spec.shapes()

    def linear(layer: LayerSpec) -> Dense | Conv:
        if layer.kind == "encode-raw":
            return _identity(spec.input_shape[2])
        weight = state[f"linear.{layer.name}.weight"]
        bias = state.get(f"linear.{layer.name}.bias")
        if layer.kind not in CONVS:
            return Dense(weight, bias)
        # (O, I, kh, kw) -> (O, kh, kw, I)
        weight = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        top, left = spec.window(layer.padding, 0)
        return Conv(weight, bias, spec.window(layer.stride, 1), (top, left, top, left))

    def norm(layer: LayerSpec) -> BatchNorm | None:
        at = f"norm.{layer.name}."
        if at + "weight" not in state:
            return None
        return BatchNorm(
            gamma=state[at + "weight"],
            beta=state[at + "bias"],
            mean=state[at + "running_mean"],
            var=state[at + "running_var"],
            eps=_EPS,
        )

    def spiking(layer: LayerSpec) -> dict[str, Any]:
        neuron = spec.neuron_of(layer)
        if neuron.kind == "psn":
            raise UsageError(
                f"{layer.name}: psn neurons mix all steps, the later ones too, and cannot run on a "
                "device; train with --neuron lif or amos"
            )
        leak = neuron.leak
        if neuron.learn_leak:
            leak = _learned_leaks(checkpoint.state[f"neuron.{layer.name}.leak_logit"])[0]
        reset = "amos" if neuron.kind == "amos" else neuron.reset
        return {"leak": leak, "v_threshold": neuron.v_threshold, "reset": reset}

    layers: list[Layer] = []
    first = spec.encoder.name if spec.takes_events else None  # stands for the input itself
    for layer in spec.layers:
        name = layer.name
        sources = tuple(INPUT if read == first else read for read in reads[name])
        source = sources[0]
        if layer.kind == EVENTS:
            continue
        if layer.kind in LATENCY_ENCODERS:
            pool = spec.window(layer.pool, 1)
            activation = "identity" if layer.kind == "encode-raw" else "sigmoid"
            encode = LatencyEncode(name, source, linear(layer), norm(layer), pool, activation)
            layers.append(encode)
        elif layer.kind in ("or-pool", "avg-pool"):
            kind = layer.kind.removesuffix("-pool")
            windows = spec.window(layer.kernel, 1), spec.window(layer.stride, 1)
            layers.append(Pool(name, source, kind, *windows))
        elif layer.kind == "merge":
            layers.append(Merge(name, sources))
        elif layer.kind == "output":
            dense = linear(layer)
            assert isinstance(dense, Dense)
            leak: float | tuple[float, ...] = spec.output_leak
            if spec.learn_output_leak:
                leak = tuple(_learned_leaks(checkpoint.state["output_leak_logit"]))
            layers.append(Output(name, source, dense, None, leak))
        elif layer.kind in ENCODERS:
            layers.append(CurrentEncode(name, source, linear(layer), norm(layer), **spiking(layer)))
        else:
            forced = spec.neuron_of(layer).forced
            rule = {**spiking(layer), "forced": forced}
            layers.append(Spiking(name, source, linear(layer), norm(layer), **rule))
    assert len(layers) == len(shapes) - spec.takes_events
    kind = "first-spike" if checkpoint.readout.kind == "selector" else checkpoint.readout.kind
    return Graph(
        name=spec.name,
        input=EventInput(shapes[first])
        if first is not None
        else SampleInput(
            spec.input_shape, checkpoint.dtype, checkpoint.scale, checkpoint.zero_point
        ),
        timesteps=spec.timesteps,
        layers=tuple(layers),
        readout=ReadoutSpec(kind, checkpoint.readout.value),
        class_names=checkpoint.class_names,
        stream=checkpoint.stream,
    )


def _identity(channels: int) -> Conv:
    """Each channel on its own, times one."""
    return Conv(np.ones((channels, 1, 1, 1)), groups=channels)


def _learned_leaks(logit: Tensor) -> list[float]:
    """The leaks that a learned logit stands for, as training used them: what shifts represent."""
    from edgesnn.neurons.leak import rounded_leak

    leaks: list[float] = rounded_leak(logit.detach().cpu()).reshape(-1).tolist()
    return leaks


def state_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of `spec` holds, and its shape."""
    out: dict[str, tuple[int, ...]] = {}
    reads, shapes = spec.sources(), {INPUT: spec.input_shape, **spec.shapes()}
    for layer in spec.layers:
        if layer.out == 0:
            continue
        height, width, channels = shapes[reads[layer.name][0]]
        name = f"linear.{layer.name}."
        if layer.kind in CONVS:
            out[name + "weight"] = (layer.out, channels, *spec.window(layer.kernel, 1))
        else:
            out[name + "weight"] = (layer.out, height * width * channels)
        if layer.kind == "output" or not spec.norm:
            out[name + "bias"] = (layer.out,)
        if layer.kind in SPIKING:
            neuron = spec.neuron_of(layer)
            if neuron.learn_leak:
                out[f"neuron.{layer.name}.leak_logit"] = ()
            if neuron.kind == "psn":
                out[f"neuron.{layer.name}.weight"] = (spec.timesteps, spec.timesteps)
                out[f"neuron.{layer.name}.bias"] = (spec.timesteps, 1)
        if layer.kind == "output" or not spec.norm:
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            out[f"norm.{layer.name}.{part}"] = (layer.out,)
        out[f"norm.{layer.name}.num_batches_tracked"] = ()
    if spec.learn_output_leak:
        out["output_leak_logit"] = (spec.classes,)
    return out


def _checked(table: dict[str, Any]) -> Checkpoint:
    import torch

    if table["version"] == 1:
        table = {"weights": "int8", **table}
    if table["version"] <= 2:
        table = {"stream": None, **table}
    if set(table) != FIELDS:
        odd = ", ".join(sorted(map(str, set(table) ^ FIELDS)))
        raise ValueError(f"missing or unknown fields: {odd}")
    spec = NetworkSpec.from_dict(table["network"])
    shapes = state_shapes(spec)
    state = table["state"]
    if not isinstance(state, dict) or set(state) != set(shapes):
        tensors = ", ".join(sorted(map(str, set(state) ^ set(shapes))))
        raise ValueError(f"missing or unknown tensors: {tensors}")
    for name, shape in shapes.items():
        tensor = state[name]
        # The kind of tensor first: the checks of values below do not work on every kind.
        if isinstance(tensor, torch.Tensor):
            counter = name.endswith("num_batches_tracked")
            dtypes = (torch.int64,) if counter else (torch.float32, torch.float64)
            if (
                tensor.layout != torch.strided
                or tensor.device.type != "cpu"
                or tensor.dtype not in dtypes
                or not tensor.is_contiguous()
            ):
                raise ValueError(f"{name} is not a plain {dtypes[0]} tensor")
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
            found = (
                tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            )
            raise ValueError(f"{name} is {found}, not {shape}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has values that are not finite")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{name} has negative values")
    for part in ("input", "readout"):
        if not isinstance(table[part], dict):
            raise ValueError(f"{part} is not a table")
    scale = table["input"]["scale"]
    if not isinstance(scale, float) or not 0.0 < scale < float("inf"):
        raise ValueError(f"input.scale is {scale!r}, not a positive number")
    dtype, zero_point = table["input"]["dtype"], table["input"]["zero_point"]
    if dtype not in DTYPES:
        raise ValueError(f"input.dtype is {dtype!r}, not one of {', '.join(DTYPES)}")
    limits = np.iinfo(dtype)
    whole = isinstance(zero_point, int) and not isinstance(zero_point, bool)
    if not whole or not limits.min <= zero_point <= limits.max:
        raise ValueError(f"input.zero_point is {zero_point!r}, not a whole number of {dtype}")
    if table["weights"] not in WEIGHTS:
        raise ValueError(f"weights are {table['weights']!r}, not one of {', '.join(WEIGHTS)}")
    kind, value = table["readout"]["kind"], table["readout"]["value"]
    if kind not in READOUTS or not isinstance(value, float) or not np.isfinite(value):
        raise ValueError(f"readout {kind!r} {value!r} is unknown")
    names = table["class_names"]
    if (
        not isinstance(names, list)
        or len(names) != spec.classes
        or not all(isinstance(n, str) and n.isprintable() for n in names)
    ):
        raise ValueError(f"class_names are not {spec.classes} names")
    if not isinstance(table["data"], str) or not isinstance(table["report"], dict):
        raise ValueError("data or report has the wrong type")
    if not _plain(table["report"]):
        raise ValueError("report holds something other than plain values")
    return Checkpoint(
        spec,
        state,
        scale,
        ReadoutSpec(kind, value),
        tuple(names),
        table["data"],
        table["report"],
        dtype,
        zero_point,
        table["weights"],
        stream_from_table(table["stream"]),
    )


def _plain(value: object) -> bool:
    """Whether `value` is made of what JSON knows, and of nothing else."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int | float)


def write_archive(path: Path, table: dict[str, Any]) -> None:
    """torch.save to a temporary name beside `path`, then rename."""
    import torch

    buffer = io.BytesIO()
    torch.save(table, buffer)
    write_atomic(path, buffer.getvalue())


def read_archive(path: Path, kind: str, version: int, what: str) -> dict[str, Any]:
    """The table of a torch archive of format `kind` and a version up to `version`."""
    import torch

    if not path.exists():
        raise EdgesnnError(f"{path}: no such file")
    try:
        # torch does not compare the checksums of its own archive: a flipped bit would go unnoticed.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise EdgesnnError(f"{path} is damaged: the checksum of {damaged} differs")
        table = torch.load(path, map_location="cpu", weights_only=True)
    except EdgesnnError:
        raise
    except OSError as error:
        raise EdgesnnError(f"cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise EdgesnnError(
            f"{path} is not an edgesnn {what}: it holds more than tensors and plain values, and is not "
            "loaded"
        ) from None
    except Exception as error:  # torch raises many kinds; whatever it is, the file is not readable
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgesnnError(
            f"{path} is not an edgesnn {what}, or it is damaged ({reason})"
        ) from None
    if not isinstance(table, dict) or table.get("format") != kind:
        raise EdgesnnError(f"{path} is not an edgesnn {what}")
    found = table.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise EdgesnnError(f"{path} is a damaged {what}: version {found!r}")
    if found > version:
        raise EdgesnnError(
            f"{path} is a {what} of version {found}, this edgesnn reads up to {version}: update it"
        )
    return table
