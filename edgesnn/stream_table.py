"""How a signal becomes inferences, as a checkpoint stores it: plain values and tensors."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from edgesnn.compiler import ir


def stream_to_table(stream: ir.Stream | None) -> dict[str, Any] | None:
    """{"kind": name of the dataclass, **its fields}; arrays become tensors, tuples lists."""
    return None if stream is None else typing.cast(dict[str, Any], _plain(stream))


def stream_from_table(table: object) -> ir.Stream | None:
    """The inverse; ValueError with what is wrong. Whether it suits a network, lowering checks."""
    if table is None:
        return None
    stream = _read(table, ir.Stream, "stream")
    counts: dict[str, tuple[int, int]]
    if isinstance(stream, ir.EventStream):
        counts = {"step_us": (stream.step_us, 1), "refractory": (stream.refractory, 0)}
    else:
        counts = {
            "hop": (stream.hop, 1),
            "smooth": (stream.smooth, 1),
            "votes": (stream.votes, 1),
            "refractory": (stream.refractory, 0),
        }
        if not 0 < stream.front.rate < float("inf"):
            raise ValueError(f"stream.front.rate is {stream.front.rate!r}, not above 0")
    for name, (value, least) in counts.items():
        if value < least:
            raise ValueError(f"stream.{name} is {value}, less than {least}")
    return typing.cast(ir.Stream, stream)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        import torch

        return torch.from_numpy(np.ascontiguousarray(value).copy())
    if is_dataclass(value):
        return {
            "kind": type(value).__name__,
            **{f.name: _plain(getattr(value, f.name)) for f in fields(value)},
        }
    return list(value) if isinstance(value, tuple) else value


def _read(value: Any, hint: Any, where: str) -> Any:
    """A value by its type annotation: the dataclasses themselves are the schema."""
    if hint is np.ndarray:
        return _array(value, where)
    if isinstance(hint, types.UnionType):
        kinds = {kind.__name__: kind for kind in typing.get_args(hint)}
        kind = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"{where} is {str(kind)[:40]!r}, not one of {', '.join(kinds)}")
        return _read(value, kinds[kind], where)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        if set(value) != {"kind", *hints}:
            odd = ", ".join(sorted(map(str, set(value) ^ {"kind", *hints})))
            raise ValueError(f"{where} has missing or unknown fields: {odd}")
        read = {name: _read(value[name], kind, f"{where}.{name}") for name, kind in hints.items()}
        return typing.cast(Any, hint)(**read)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        return tuple(_read(v, typing.get_args(hint)[0], where) for v in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where} is {str(value)[:40]!r}, not {hint.__name__}")
    return value


def _array(value: Any, where: str) -> np.ndarray:
    import torch

    whole = (torch.int8, torch.int16, torch.int32)
    if (
        not isinstance(value, torch.Tensor)
        or value.layout != torch.strided
        or value.device.type != "cpu"
        or value.dtype not in whole
        or value.ndim != 1
        or not value.is_contiguous()
    ):
        raise ValueError(f"{where} is not a plain vector of whole numbers")
    return value.numpy().copy()
