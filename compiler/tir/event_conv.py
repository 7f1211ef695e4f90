"""Convolution of events by scatter: each event adds its weights to the membranes that its taps reach.

For an event at (y, x, i): padded position Y = y + top = qy * sy + ry; targets are the outputs qy - j that
lie in the map, with the taps of phase ry (layout.py). Without groups a row of targets is one contiguous
segment of membranes and of weights, so the inner loop is a plain vector addition.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.layout import ScatterConv
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def event_conv(
    symbol: str, *, layout: ScatterConv, capacity: int, width: str, event: str
) -> Kernel:
    """weights as in layout.py; fan tables rows[H], columns[W]; out[1] += SOPs inside the map."""
    h, w, ci = layout.source
    oh, ow, co = layout.target
    (sy, sx), (top, left), (ty, tx) = layout.stride, layout.padding, layout.taps
    inputs_per_group, per = layout.per_group
    block = ty * tx * per  # weights of one channel and phase
    total = layout.weights.size
    joined = layout.groups == 1

    def segments(columns: Any) -> Any:
        return T.int32(1) if joined else columns

    def length(columns: Any) -> Any:
        return columns * co if joined else T.int32(per)

    @T.prim_func
    def main(
        in_p: T.handle(event),
        n: T.int32,
        weights_p: T.handle("int8"),
        rows_p: T.handle("int32"),
        columns_p: T.handle("int32"),
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        events = T.decl_buffer((capacity,), event, data=in_p)
        weights = T.decl_buffer((total,), "int8", data=weights_p)
        rows = T.decl_buffer((h,), "int32", data=rows_p)
        columns = T.decl_buffer((w,), "int32", data=columns_p)
        u = T.decl_buffer((oh * ow * co,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        sops = T.alloc_buffer((1,), "int32")
        sops[0] = 0
        for e in range(n):
            a: T.let = T.Cast("int32", events[e])
            c: T.let = T.truncmod(a, ci)
            x: T.let = T.truncmod(T.truncdiv(a, ci), w)
            y: T.let = T.truncdiv(a, ci * w)
            qy: T.let = T.truncdiv(y + top, sy)
            qx: T.let = T.truncdiv(x + left, sx)
            ry: T.let = T.truncmod(y + top, sy)
            rx: T.let = T.truncmod(x + left, sx)
            y0: T.let = T.max(qy - (ty - 1), 0)
            y1: T.let = T.min(qy + 1, oh)
            x0: T.let = T.max(qx - (tx - 1), 0)
            x1: T.let = T.min(qx + 1, ow)
            first: T.let = T.truncdiv(c, inputs_per_group) * per
            start: T.let = ((c * sy + ry) * sx + rx) * block + (
                qy * tx + (tx - 1) - (qx - x0)
            ) * per
            for oy in range(y0, y1):
                into: T.let = (oy * ow + x0) * co + first
                at: T.let = start - oy * (tx * per)
                for j in range(segments(x1 - x0)):
                    for k in range(length(x1 - x0)):
                        u[into + j * co + k] = u[into + j * co + k] + T.Cast(
                            width, weights[at + j * per + k]
                        )
            sops[0] = sops[0] + rows[y] * columns[x]
        out[1] = out[1] + sops[0]

    params = (
        table("in_p", event),
        scalar("n"),
        table("weights_p", "int8"),
        table("rows_p", "int32"),
        table("columns_p", "int32"),
        pointer("u_p", width),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
