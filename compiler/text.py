"""The text form of a program: readable, complete when arrays are inlined, and parsed back to the same program.

One node a line, in Python's own call syntax (so that Python's parser reads it, and nothing is evaluated):

    program(name="tiny", timesteps=4, class_names=())
    input = SampleInput(shape=(8, 8, 1), dtype="uint8", scale=0.0625, zero_point=0)
    enc = LatencyEncoder(projection=Dense(source="input", weight=int8[2, 64]("enc.projection.weight")), ...)
    readout(FirstSpike(value=12))
    stream(WindowStream(front=Rows(rate=25.0), hop=4, smooth=3, votes=2, refractory=0, background=(0,)))

The last line stands only where a signal streams in. An array is `dtype[shape](values...)`, or
`dtype[shape]("path")` when it is longer than `inline`; then the parser takes it from the arrays it is given.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.targets.errors import EdgesnnError

_KINDS: dict[str, type] = {
    **ir.NODE_KINDS,
    **ir.PROJECTION_KINDS,
    **ir.READOUT_KINDS,
    **ir.STREAM_KINDS,
}
_DTYPES = ("int8", "int16", "int32")


def to_text(program: ir.Program, *, inline: int | None = None) -> str:
    """Write a program; arrays of more than `inline` elements become references (None: all inlined)."""
    head = (
        f"program(name={program.name!r}, timesteps={program.timesteps}, "
        f"class_names={program.class_names!r})"
    )
    lines = [head]
    for node in program.nodes:
        lines.append(f"{node.name} = {_value(node, node.name, inline, skip='name')}")
    lines.append(f"readout({_value(program.readout, 'readout', inline)})")
    if program.stream is not None:
        lines.append(f"stream({_value(program.stream, 'stream', inline)})")
    return "\n".join(lines) + "\n"


def _value(value: object, path: str, inline: int | None, skip: str = "") -> str:
    if isinstance(value, np.ndarray):
        dims = ", ".join(map(str, value.shape))
        if inline is None or value.size <= inline:
            body = ", ".join(map(str, value.ravel().tolist()))
        else:
            body = repr(path)
        return f"{value.dtype.name}[{dims}]({body})"
    if is_dataclass(value):
        parts = [
            f"{f.name}={_value(getattr(value, f.name), f'{path}.{f.name}', inline)}"
            for f in fields(value)
            if f.name != skip
            and not (f.metadata.get("younger") and getattr(value, f.name) == f.default)
        ]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, tuple):
        items = [_value(v, f"{path}.{i}", inline) for i, v in enumerate(value)]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    return repr(value)


def from_text(text: str, arrays: Mapping[str, np.ndarray] | None = None) -> ir.Program:
    """Parse the text form; `arrays` supplies those that the text names by path.

    Raises EdgesnnError naming the line when the text is not a program.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise EdgesnnError(f"program text is not readable: {e}") from None
    head: dict[str, Any] | None = None
    nodes: list[ir.Node] = []
    readout: Any = None
    stream: Any = None
    for statement in tree.body:
        try:
            if isinstance(statement, ast.Assign):
                (target,) = statement.targets
                if not isinstance(target, ast.Name):
                    raise ValueError("a node is written NAME = Kind(...)")
                nodes.append(_build(statement.value, arrays or {}, {"name": target.id}))
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                call = statement.value
                keyword = call.func.id if isinstance(call.func, ast.Name) else "?"
                if keyword == "program":
                    head = {str(k.arg): _parse(k.value, arrays or {}) for k in call.keywords}
                elif keyword == "readout" and len(call.args) == 1:
                    readout = _parse(call.args[0], arrays or {})
                elif keyword == "stream" and len(call.args) == 1:
                    stream = _parse(call.args[0], arrays or {})
                    if not isinstance(stream, ir.Stream):
                        raise ValueError("stream(...) holds a WindowStream or an EventStream")
                else:
                    raise ValueError(f"unknown statement {keyword!r}")
            else:
                raise ValueError("expected program, NAME = Kind, readout or stream (...)")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as e:
            raise EdgesnnError(f"program text, line {statement.lineno}: {e}") from None
    if head is None or readout is None or not nodes:
        raise EdgesnnError("program text needs a program(...) line, nodes and a readout(...) line")
    try:
        return ir.Program(nodes=tuple(nodes), readout=readout, stream=stream, **head)
    except TypeError as e:
        raise EdgesnnError(f"program text, program(...): {e}") from None


def _parse(node: ast.expr, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Subscript):
            return _array(node, arrays)
        return _build(node, arrays, {})
    if isinstance(node, ast.Tuple):
        return tuple(_parse(item, arrays) for item in node.elts)
    return ast.literal_eval(node)


def _build(node: ast.expr, arrays: Mapping[str, np.ndarray], given: dict[str, Any]) -> Any:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("expected Kind(field=value, ...)")
    kind = _KINDS.get(node.func.id)
    if kind is None:
        raise ValueError(f"unknown kind {node.func.id!r}; known are {', '.join(sorted(_KINDS))}")
    values = {str(k.arg): _parse(k.value, arrays) for k in node.keywords}
    return kind(**given, **values)


def _array(node: ast.Call, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    assert isinstance(node.func, ast.Subscript)
    if not isinstance(node.func.value, ast.Name) or node.func.value.id not in _DTYPES:
        raise ValueError(f"array types are {', '.join(_DTYPES)}")
    dtype = node.func.value.id
    dims = ast.literal_eval(node.func.slice)
    shape = dims if isinstance(dims, tuple) else (dims,)
    values = [ast.literal_eval(a) for a in node.args]
    if len(values) == 1 and isinstance(values[0], str):
        array = arrays[values[0]]
        if array.shape != shape or array.dtype.name != dtype:
            raise ValueError(
                f"array {values[0]} is {array.dtype}{list(array.shape)}, the program says "
                f"{dtype}{list(shape)}"
            )
        return array
    if not all(type(v) is int for v in values):
        raise ValueError("array values are whole numbers")
    array = np.array(values, dtype=np.int64).reshape(shape)
    if array.size and (array.min() < np.iinfo(dtype).min or array.max() > np.iinfo(dtype).max):
        raise ValueError(f"value outside {dtype}")
    return array.astype(dtype)
