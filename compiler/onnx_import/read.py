"""An ONNX file to the parts of it that count: checked, local functions inlined, dead nodes left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesnn.targets.errors import EdgesnnError, UsageError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

MIN_OPSET = 13
MAX_INPUT = 1 << 24
# Stands for a batch axis of no fixed length while shapes are computed: no length that a map could have.
ANY_BATCH = 1_000_003

STANDARD = ("", "ai.onnx")
_INPUT_TYPES = (
    "FLOAT",
    "FLOAT16",
    "DOUBLE",
    "BFLOAT16",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
)


@dataclass(frozen=True)
class Source:
    """The live part of an ONNX graph.

    file: what messages call it. batch: length of the batch axis, ANY_BATCH if free. fed_shape: of a sample.
    constants: initializers by name; types: their element types where numpy has none (4-bit integers).
    readers: how many live inputs (the graph's output too) read a value, its Shape aside.
    """

    file: str
    name: str
    opset: int
    nodes: tuple[NodeProto, ...]
    constants: dict[str, np.ndarray]
    types: dict[str, str]
    input_name: str
    input_type: str
    batch: int
    fed_shape: tuple[int, ...]
    output_name: str
    readers: Counter[str]


def read(path_or_bytes: str | Path | bytes, name: str | None) -> Source:
    """Read and check the file; EdgesnnError or UsageError with one line if it cannot be used."""
    try:
        import onnx
        from onnx import inliner
    except ImportError as error:
        raise EdgesnnError(
            f"reading ONNX needs the onnx package ({error}); run `pip install 'edgesnn[onnx]'`"
        ) from None
    folder: Path | None = None
    if isinstance(path_or_bytes, bytes):
        data, file = path_or_bytes, name or "the ONNX model"
        name = name or "network"
    else:
        path = Path(path_or_bytes)
        file, folder = path.name, path.parent
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's own error classes differ from release to release
        model = None
    if model is None or not _is_whole(model):
        raise EdgesnnError(f"{file}: is no ONNX file, or is cut short; export or copy it again")
    opset = _opset(model, file)
    _load_external(model, folder, file)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:
            raise EdgesnnError(f"{file}: its functions cannot be inlined: {_line(error)}") from None
    return _source(model.graph, file, name or Path(file).stem, opset)


def dtype_name(data_type: int) -> str:
    """ONNX's name of an element type: "FLOAT", "INT4"."""
    from onnx import TensorProto

    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)) if known else f"TYPE {data_type}"


def array(tensor: TensorProto) -> np.ndarray:
    """The values of a tensor; 2- and 4-bit integers as int8 or uint8."""
    from onnx import numpy_helper

    values = np.asarray(numpy_helper.to_array(tensor))
    kind = dtype_name(tensor.data_type)
    if kind in ("INT4", "INT2"):
        return values.astype(np.int8)
    return values.astype(np.uint8) if kind in ("UINT4", "UINT2") else values


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_whole(model: ModelProto) -> bool:
    """True if the fields are there that no model lacks; names that are no text are bytes to protobuf."""
    graph = model.graph
    names: list[object] = [v.name for v in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    return (
        bool(model.ir_version)
        and model.HasField("graph")
        and not any(isinstance(n, bytes) for n in names)
    )


def _opset(model: ModelProto, file: str) -> int:
    found = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if not found:
        raise EdgesnnError(f"{file}: names no opset of ONNX; export it again")
    if min(found) < MIN_OPSET:
        raise EdgesnnError(
            f"{file}: is of opset {min(found)}, too old; export it again with opset {MIN_OPSET} or newer"
        )
    return int(max(found))


def _load_external(model: ModelProto, folder: Path | None, file: str) -> None:
    """Weights that lie in files of their own."""
    from onnx import external_data_helper

    wanted = set()
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            wanted |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    if not wanted:
        return
    if folder is None:
        raise EdgesnnError(
            f"{file}: its weights lie in other files ({', '.join(sorted(wanted))}); load it by its path"
        )
    missing = sorted(w for w in wanted if not (folder / w).is_file())
    if missing:
        raise EdgesnnError(
            f"{file}: its weights lie in {', '.join(missing)}, which is missing; put it beside the .onnx file"
        )
    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:
        raise EdgesnnError(
            f"{file}: weights in {', '.join(sorted(wanted))} cannot be read: {_line(error)}"
        ) from None


def _source(graph: GraphProto, file: str, name: str, opset: int) -> Source:
    if not graph.node:
        raise EdgesnnError(f"{file}: its graph is empty; export a network with at least one layer")
    constants, types = {}, {}
    for tensor in graph.initializer:
        try:
            constants[tensor.name] = array(tensor)
        except Exception as error:
            raise EdgesnnError(
                f"{file}: weight {tensor.name} cannot be read: {_line(error)}"
            ) from None
        types[tensor.name] = dtype_name(tensor.data_type)
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs) or "none"
        raise EdgesnnError(
            f"{file}: has {len(inputs)} inputs ({names}); export it with exactly one"
        )
    if len(graph.output) != 1:
        names = ", ".join(o.name for o in graph.output) or "none"
        raise EdgesnnError(
            f"{file}: has {len(graph.output)} outputs ({names}); export the class scores alone"
        )
    fed = inputs[0]
    tensor_type = fed.type.tensor_type
    kind = dtype_name(tensor_type.elem_type)
    if kind not in _INPUT_TYPES:
        raise EdgesnnError(
            f"{file}: input {fed.name} is of type {kind.lower()}; feed float, or an integer of 8 to 32 bits"
        )
    dims = tensor_type.shape.dim if tensor_type.HasField("shape") else []
    if not 2 <= len(dims) <= 4:
        raise EdgesnnError(
            f"{file}: input {fed.name} has {len(dims)} axes; "
            "the batch and 1 to 3 more are read, such as N, C, H, W"
        )
    free = [d.dim_param or "?" for d in dims[1:] if d.dim_value < 1]
    if free:
        raise EdgesnnError(
            f"{file}: input {fed.name} is of no fixed size (axis {', '.join(free)}); "
            "export it with only the batch axis free"
        )
    if prod(d.dim_value for d in dims[1:]) > MAX_INPUT:
        raise EdgesnnError(f"{file}: input {fed.name} has more than {MAX_INPUT:,} values a sample")
    nodes = _live(graph)
    readers = Counter({graph.output[0].name: 1})
    for node in nodes:
        if node.op_type not in ("Shape", "Size"):
            values = node.input[:1] if node.op_type == "CastLike" else node.input
            readers.update(i for i in values if i)
    return Source(
        file=file,
        name=name,
        opset=opset,
        nodes=nodes,
        constants=constants,
        types=types,
        input_name=fed.name,
        input_type=kind,
        batch=int(dims[0].dim_value) if dims[0].dim_value > 0 else ANY_BATCH,
        fed_shape=tuple(int(d.dim_value) for d in dims[1:]),
        output_name=graph.output[0].name,
        readers=readers,
    )


def _live(graph: GraphProto) -> tuple[NodeProto, ...]:
    """The nodes that the output depends on, in the graph's order."""
    needed = {graph.output[0].name}
    live = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            live.append(node)
            needed |= set(node.input)
    return tuple(reversed(live))
