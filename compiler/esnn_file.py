"""The `.esnn` file: a zip of `program.json` and one `.npy` per array. docs/FORMAT.md specifies every field.

Nothing in it is executable, nothing is pickled; the same program gives the same bytes.
"""

from __future__ import annotations

import io
import json
import types
import typing
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.check import check_program
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError

# 4 knows streams, 3 signed spikes; 1 wrote pooling windows as one number. All are read. A program without a
# stream is still written as 3, so that its bytes stay what they were and an older edgesnn reads it.
FORMAT_VERSION = 4
_WITHOUT_STREAM = 3
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: equal programs are equal files
_MAX_JSON = 16 << 20
_MAX_ARRAY = 1 << 30


def program_bytes(program: ir.Program) -> bytes:
    """The file's bytes."""
    found = dict(ir.arrays(program))
    document = {
        "format": "edgesnn-program",
        "version": _WITHOUT_STREAM if program.stream is None else FORMAT_VERSION,
        "program": _encode(program, ""),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as z:
        text = json.dumps(document, indent=1, sort_keys=True).encode()
        z.writestr(zipfile.ZipInfo("program.json", _EPOCH), text)
        for path, array in sorted(found.items()):
            item = io.BytesIO()
            little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
            np.save(item, little, allow_pickle=False)
            z.writestr(zipfile.ZipInfo(f"{path}.npy", _EPOCH), item.getvalue())
    return buffer.getvalue()


def save_program(program: ir.Program, path: Path | str) -> None:
    """Check and write a program; the file appears complete or not at all."""
    check_program(program)
    write_atomic(Path(path), program_bytes(program))


def load_program(path: Path | str) -> ir.Program:
    """Read and check a program. Raises EdgesnnError when the file is missing, damaged or not a program."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise EdgesnnError(f"cannot read {path}: {e.strerror or e}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            document = _read_json(z)
            program = _decode(document["program"], ir.Program, "program", z)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as e:
        raise EdgesnnError(f"{path} is not a complete .esnn file ({e}); compile it again") from None
    except Exception as e:  # whatever zip, JSON and npy make of damaged bytes
        raise EdgesnnError(f"{path} is not a valid edgesnn program: {_one_line(e)}") from None
    try:
        check_program(program)
    except EdgesnnError as e:
        raise EdgesnnError(f"{path} is not a valid edgesnn program: {e}") from None
    return program


def load_bundle_program(bundle: Bundle) -> ir.Program:
    """The program that a bundle was compiled from; EdgesnnError where another one lies in its place."""
    program = load_program(bundle.program_path)
    if program.digest()[: len(bundle.model_id)] != bundle.model_id:
        raise EdgesnnError(
            f"{bundle.program_path} is another program than the bundle's; compile again"
        )
    return program


def _read_json(z: zipfile.ZipFile) -> dict[str, Any]:
    if "program.json" not in z.namelist():
        raise ValueError("it holds no program.json")
    if z.getinfo("program.json").file_size > _MAX_JSON:
        raise ValueError("program.json is implausibly large")
    document = json.loads(z.read("program.json"))
    if not isinstance(document, dict) or document.get("format") != "edgesnn-program":
        raise ValueError("program.json is not an edgesnn program")
    if document.get("version") not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"file version {document.get('version')!r}, this edgesnn reads up to {FORMAT_VERSION}; "
            "use the edgesnn that wrote it or compile again"
        )
    if document["version"] == 1:
        for node in document["program"]["nodes"]:
            square = {k: node[k] for k in ("pool", "kernel", "stride") if type(node.get(k)) is int}
            node.update({k: [n, n] for k, n in square.items()})
    return document


def _encode(value: object, path: str) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": path, "dtype": value.dtype.name, "shape": list(value.shape)}
    if isinstance(value, ir.Program):
        return {
            "name": value.name,
            "timesteps": value.timesteps,
            "nodes": [_encode(n, n.name) for n in value.nodes],
            "readout": _encode(value.readout, "readout"),
            "class_names": list(value.class_names),
            **({"rates": dict(value.rates)} if value.rates else {}),
            **({} if value.stream is None else {"stream": _encode(value.stream, "stream")}),
        }
    if is_dataclass(value):
        items = {f.name: _encode(getattr(value, f.name), f"{path}.{f.name}") for f in fields(value)}
        return {"kind": type(value).__name__, **items}
    if isinstance(value, tuple):
        return [_encode(v, f"{path}.{i}") for i, v in enumerate(value)]
    return value


def _decode(value: Any, hint: Any, where: str, z: zipfile.ZipFile) -> Any:
    """Rebuild a value by its type annotation: the dataclasses themselves are the schema."""
    if hint is np.ndarray:
        return _load_array(value, where, z)
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        by_name = {k.__name__: k for k in get_args(hint) if k is not type(None)}
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind not in by_name:
            raise ValueError(f"{where}: kind {kind!r} is not one of {', '.join(by_name)}")
        return _decode(value, by_name[kind], where, z)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object")
        hints = get_type_hints(hint)
        if hint is ir.Program:
            value = {"rates": {}, **value}
        value = {f.name: f.default for f in fields(hint) if f.metadata.get("younger")} | value
        given = set(value) - {"kind"}
        if given != set(hints):
            odd = ", ".join(sorted(given ^ set(hints)))
            raise ValueError(f"{where}: missing or unknown field(s) {odd}")
        fields_of = {k: _decode(value[k], h, f"{where}.{k}", z) for k, h in hints.items()}
        return typing.cast(Any, hint)(**fields_of)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list")
        args = get_args(hint)
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise ValueError(f"{where}: expected {len(args)} items, found {len(value)}")
        return tuple(
            _decode(v, h, f"{where}[{i}]", z)
            for i, (v, h) in enumerate(zip(value, args, strict=True))
        )
    if get_origin(hint) is Mapping:
        return _decode_rates(value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or isinstance(value, bool) is not (hint is bool):
        raise ValueError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _decode_rates(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object")
    for name, rate in value.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1e12:
            raise ValueError(f"{where}.{name}: expected a number of events, found {rate!r}")
    return {name: float(rate) for name, rate in value.items()}


def _load_array(value: Any, where: str, z: zipfile.ZipFile) -> np.ndarray:
    if not isinstance(value, dict) or set(value) != {"array", "dtype", "shape"}:
        raise ValueError(f"{where}: expected an array reference")
    name = f"{value['array']}.npy"
    if name not in z.namelist():
        raise ValueError(f"{where}: the file holds no {name}")
    if z.getinfo(name).file_size > _MAX_ARRAY:
        raise ValueError(f"{where}: {name} is implausibly large")
    data = z.read(name)
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError(f"{where}: {name} is not a .npy file")
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.name != value["dtype"] or list(array.shape) != value["shape"]:
        raise ValueError(
            f"{where}: {name} holds {array.dtype.name}{list(array.shape)}, "
            f"program.json says {value['dtype']}{value['shape']}"
        )
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def _one_line(e: BaseException) -> str:
    return " ".join(str(e).split()) or type(e).__name__
