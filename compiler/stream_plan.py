"""What a stream needs at run time besides the model's arena, byte for byte as the C core lays it out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds
from edgesnn.compiler.front_end import points
from edgesnn.compiler.stream import window_shape
from edgesnn.runtime.bundle import StreamInfo

_ALIGN = 8


def stream_memory(program: ir.Program, bounds: Bounds) -> int:
    """Bytes of memory that a program's stream is handed (esnn_stream_init).

    Of window mode, in the order of esnn_stream.c: the transform's work int32[N] and, behind the votes
    uint32[smooth], the newest samples of sound int16[frame], both with a log-mel front end only; then the
    newest rows, as many as the input holds. Events are marked in the model's own arena: 0.
    """
    source, stream = program.input, program.stream
    if not isinstance(stream, ir.WindowStream):
        return 0
    assert isinstance(source, ir.SampleInput)
    total = 4 * stream.smooth + bounds.nodes[source.name].neurons * np.dtype(source.dtype).itemsize
    if isinstance(stream.front, ir.LogMel):
        total += 4 * points(stream.front) + 2 * len(stream.front.window)
    return -(-total // _ALIGN) * _ALIGN


def stream_report(program: ir.Program, bounds: Bounds) -> dict[str, Any] | None:
    """The manifest's "stream" (runtime/bundle.py, StreamInfo): None where there is none."""
    stream = program.stream
    if stream is None:
        return None
    found: dict[str, Any] = dict.fromkeys(f.name for f in fields(StreamInfo))
    found |= {"refractory": stream.refractory, "memory_bytes": stream_memory(program, bounds)}
    if isinstance(stream, ir.EventStream):
        own = {"mode": "continuous", "source": "events", "values": 1, "step_us": stream.step_us}
        return {**found, **own, "background": []}
    shape = window_shape(program)
    return {
        **found,
        "mode": "window",
        "source": "sound" if isinstance(stream.front, ir.LogMel) else "rows",
        "dtype": shape.dtype,
        "values": shape.values,
        "rate": stream.front.rate,
        "rows": shape.rows,
        "hop": shape.hop,
        "frame": shape.frame,
        "row_samples": shape.row_hop,
        "smooth": stream.smooth,
        "votes": stream.votes,
        "background": list(stream.background),
    }
