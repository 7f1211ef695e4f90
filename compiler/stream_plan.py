"""What a stream needs at run time besides the model's arena, byte for byte as the C core lays it out."""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds
from edgesnn.compiler.front_end import points

_ALIGN = 8


def stream_memory(program: ir.Program, bounds: Bounds) -> int:
    """Bytes of memory that a program's stream is handed (esnn_stream_init).

    Of window mode, in the order of esnn_stream.c: the transform's work int32[N] and, behind the votes
    uint32[smooth], the newest samples of sound int16[frame], both with a log-mel front end only; then the newest
    rows, as many as the input holds. Events are counted in the model's own arena: 0.
    """
    source, stream = program.input, program.stream
    if not isinstance(stream, ir.WindowStream):
        return 0
    assert isinstance(source, ir.SampleInput)
    total = 4 * stream.smooth + bounds.nodes[source.name].neurons * np.dtype(source.dtype).itemsize
    if isinstance(stream.front, ir.LogMel):
        total += 4 * points(stream.front) + 2 * len(stream.front.window)
    return -(-total // _ALIGN) * _ALIGN
