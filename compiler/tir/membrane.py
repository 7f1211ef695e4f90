"""Reading and writing stored membranes: biased ones (styles.py) have the top bit flipped at even indices."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

_TOP = -(2**15)


def stored_as(lane: Any, value: Any, biased: bool) -> Any:
    """The int32 `value` as it is stored, or the stored one as a value: the map is its own inverse."""
    if not biased:
        return value
    return T.bitwise_xor(value, T.int32(_TOP)) if int(lane) % 2 == 0 else value
