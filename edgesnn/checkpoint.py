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
from edgesnn.compiler.graph import (
    BatchNorm,
    Conv,
    Dense,
    Graph,
    LatencyEncode,
    Layer,
    Output,
    Pool,
    ReadoutSpec,
    SampleInput,
    Spiking,
)
from edgesnn.networks.spec import LayerSpec, NetworkSpec
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "edgesnn-checkpoint"
VERSION = 1
FIELDS = {
    "format",
    "version",
    "network",
    "state",
    "input",
    "readout",
    "class_names",
    "data",
    "report",
}
_EPS = 1e-5  # of every batch norm


@dataclass(frozen=True)
class Checkpoint:
    """A trained network.

    state: name -> tensor as `LatencyNetwork.state_dict()` names them. scale: a sample is
    scale * raw (uint8). readout: kind and value chosen on validation data. data: what it was
    trained on. report: what training measured, plain values.
    """

    network: NetworkSpec
    state: dict[str, Tensor]
    scale: float
    readout: ReadoutSpec
    class_names: tuple[str, ...]
    data: str
    report: dict[str, Any]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write to a temporary name in the same folder, then rename. EdgesnnError if that fails."""
    write_archive(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "network": checkpoint.network.to_dict(),
            "state": {k: v.detach().cpu().contiguous() for k, v in checkpoint.state.items()},
            "input": {"dtype": "uint8", "scale": checkpoint.scale, "zero_point": 0},
            "readout": {"kind": checkpoint.readout.kind, "value": checkpoint.readout.value},
            "class_names": list(checkpoint.class_names),
            "data": checkpoint.data,
            "report": checkpoint.report,
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
    """A checkpoint's network in the compiler's terms."""
    spec = checkpoint.network
    state = {k: v.detach().cpu().numpy().astype(np.float64) for k, v in checkpoint.state.items()}

    def linear(layer: LayerSpec) -> Dense | Conv:
        weight = state[f"linear.{layer.name}.weight"]
        bias = state.get(f"linear.{layer.name}.bias")
        if weight.ndim == 4:  # (O, I, kh, kw) -> (O, kh, kw, I)
            weight = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
            return Conv(weight, bias, (layer.stride,) * 2, (layer.padding,) * 4)
        return Dense(weight, bias)

    def norm(layer: LayerSpec) -> BatchNorm:
        at = f"norm.{layer.name}."
        return BatchNorm(
            gamma=state[at + "weight"],
            beta=state[at + "bias"],
            mean=state[at + "running_mean"],
            var=state[at + "running_var"],
            eps=_EPS,
        )

    layers: list[Layer] = []
    source = "input"
    for layer in spec.layers:
        if layer.kind.startswith("encode"):
            layers.append(LatencyEncode(layer.name, source, linear(layer), norm(layer), layer.pool))
        elif layer.kind == "or-pool":
            layers.append(Pool(layer.name, source, "or", layer.kernel, layer.stride))
        elif layer.kind == "output":
            dense = linear(layer)
            assert isinstance(dense, Dense)
            layers.append(Output(layer.name, source, dense, None, spec.output_leak))
        else:
            reset = "amos" if spec.neuron == "amos" else "soft"
            constants = (spec.leak, spec.v_threshold, reset)
            layers.append(Spiking(layer.name, source, linear(layer), norm(layer), *constants))
        source = layer.name
    return Graph(
        name=spec.name,
        input=SampleInput(spec.input_shape, "uint8", checkpoint.scale, 0),
        timesteps=spec.timesteps,
        layers=tuple(layers),
        readout=checkpoint.readout,
        class_names=checkpoint.class_names,
    )


def state_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of `spec` holds, and its shape."""
    out: dict[str, tuple[int, ...]] = {}
    sources = (spec.input_shape, *spec.shapes()[:-1])
    for layer, (height, width, channels) in zip(spec.layers, sources, strict=True):
        if layer.kind == "or-pool":
            continue
        name = f"linear.{layer.name}."
        if layer.kind in ("encode-conv", "conv"):
            out[name + "weight"] = (layer.out, channels, layer.kernel, layer.kernel)
        else:
            out[name + "weight"] = (layer.out, height * width * channels)
        if layer.kind == "output":
            out[name + "bias"] = (layer.out,)
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            out[f"norm.{layer.name}.{part}"] = (layer.out,)
        out[f"norm.{layer.name}.num_batches_tracked"] = ()
    return out


def _checked(table: dict[str, Any]) -> Checkpoint:
    import torch

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
    scale = table["input"]["scale"]
    if not isinstance(scale, float) or not 0.0 < scale < float("inf"):
        raise ValueError(f"input.scale is {scale!r}, not a positive number")
    if table["input"]["dtype"] != "uint8" or table["input"]["zero_point"] != 0:
        raise ValueError("input is not uint8 with zero point 0")
    kind, value = table["readout"]["kind"], table["readout"]["value"]
    if kind not in EXITS or not isinstance(value, float) or not np.isfinite(value):
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
        spec, state, scale, ReadoutSpec(kind, value), tuple(names), table["data"], table["report"]
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
