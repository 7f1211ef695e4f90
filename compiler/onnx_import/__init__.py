"""ONNX in: `load_onnx` turns an exported feed-forward network into an Ann. docs/ONNX.md says what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesnn.compiler.ann import Ann
from edgesnn.compiler.onnx_import.network import network
from edgesnn.compiler.onnx_import.read import read
from edgesnn.targets.errors import EdgesnnError


def load_onnx(path_or_bytes: str | Path | bytes, name: str | None = None) -> Ann:
    """The network in an ONNX file (a path, or the file's bytes), opset 13 or newer.

    `name` is the network's; without it the file's name without its ending, "network" for bytes. Raises
    UsageError if there is no such file, else EdgesnnError: one line that says all that cannot be converted.
    """
    try:
        with np.errstate(all="ignore"):  # what overflows is found as not finite
            return network(read(path_or_bytes, name))
    except EdgesnnError as error:
        # Names come from the file: whatever they hold, the message stays one line.
        line = "".join(c if c.isprintable() else "?" for c in str(error))
        raise type(error)(line) from None


__all__ = ["load_onnx"]
