"""edgesnn: spiking networks trained for latency, compiled to integer event programs.

The public names are loaded when they are first used: `import edgesnn` loads no torch and no tvm.

>>> import edgesnn
>>> edgesnn.Session.__name__
'Session'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesnn.api import compile, convert, inspect, load_program, train
    from edgesnn.conversion.conversion import Conversion
    from edgesnn.runtime.bundle import Bundle
    from edgesnn.runtime.engine import Decision, Trace
    from edgesnn.runtime.session import Session
    from edgesnn.runtime.stream import Stream
    from edgesnn.targets.errors import EdgesnnError, UsageError

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "edgesnn.runtime.bundle",
    "Conversion": "edgesnn.conversion.conversion",
    "Decision": "edgesnn.runtime.engine",
    "EdgesnnError": "edgesnn.targets.errors",
    "Session": "edgesnn.runtime.session",
    "Stream": "edgesnn.runtime.stream",
    "Trace": "edgesnn.runtime.engine",
    "UsageError": "edgesnn.targets.errors",
    "compile": "edgesnn.api",
    "convert": "edgesnn.api",
    "inspect": "edgesnn.api",
    "load_program": "edgesnn.api",
    "train": "edgesnn.api",
}

__all__ = [
    "Bundle",
    "Conversion",
    "Decision",
    "EdgesnnError",
    "Session",
    "Stream",
    "Trace",
    "UsageError",
    "__version__",
    "compile",
    "convert",
    "inspect",
    "load_program",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgesnn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
