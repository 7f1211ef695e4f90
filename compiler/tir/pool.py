"""Pooling of event queues: each event goes to the windows it lies in; OR-pool lets only the first one pass."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.ir import Pair, Shape, pool_shape
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def or_pool(
    symbol: str, *, source: Shape, kernel: Pair, stride: Pair, capacity: int, event: str
) -> Kernel:
    """out[0] = events queued; `seen` is one byte of scratch per pooled unit."""
    _, width, channels = source
    height_out, width_out, _ = pool_shape(source, kernel, stride)
    (kh, kw), (sy, sx) = kernel, stride
    units = height_out * width_out * channels

    @T.prim_func
    def main(
        in_p: T.handle(event),
        n: T.int32,
        seen_p: T.handle("uint8"),
        queue_p: T.handle(event),
        out_p: T.handle("int32"),
    ):
        events = T.decl_buffer((capacity,), event, data=in_p)
        seen = T.decl_buffer((units,), "uint8", data=seen_p)
        queue = T.decl_buffer((units,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for i in range(units):
            seen[i] = T.uint8(0)
        for e in range(n):
            a: T.let = T.Cast("int32", events[e])
            c: T.let = T.truncmod(a, channels)
            x: T.let = T.truncmod(T.truncdiv(a, channels), width)
            y: T.let = T.truncdiv(a, channels * width)
            y0: T.let = T.truncdiv(T.max(y - kh + sy, 0), sy)
            x0: T.let = T.truncdiv(T.max(x - kw + sx, 0), sx)
            y1: T.let = T.min(T.truncdiv(y, sy) + 1, height_out)
            x1: T.let = T.min(T.truncdiv(x, sx) + 1, width_out)
            for oy in range(y0, y1):
                for ox in range(x0, x1):
                    unit: T.let = (oy * width_out + ox) * channels + c
                    if seen[unit] == T.uint8(0):
                        seen[unit] = T.uint8(1)
                        queue[count[0]] = T.Cast(event, unit)
                        count[0] = count[0] + 1
        out[0] = count[0]

    params = (
        table("in_p", event),
        scalar("n"),
        pointer("seen_p", "uint8"),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def sum_pool(
    symbol: str,
    *,
    source: Shape,
    kernel: Pair,
    stride: Pair,
    capacity: int,
    capacity_out: int,
    event: str,
) -> Kernel:
    """Every event passes under the address of each window it lies in; out[0] = events queued."""
    _, width, channels = source
    height_out, width_out, _ = pool_shape(source, kernel, stride)
    (kh, kw), (sy, sx) = kernel, stride

    @T.prim_func
    def main(in_p: T.handle(event), n: T.int32, queue_p: T.handle(event), out_p: T.handle("int32")):
        events = T.decl_buffer((capacity,), event, data=in_p)
        queue = T.decl_buffer((capacity_out,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for e in range(n):
            a: T.let = T.Cast("int32", events[e])
            c: T.let = T.truncmod(a, channels)
            x: T.let = T.truncmod(T.truncdiv(a, channels), width)
            y: T.let = T.truncdiv(a, channels * width)
            y0: T.let = T.truncdiv(T.max(y - kh + sy, 0), sy)
            x0: T.let = T.truncdiv(T.max(x - kw + sx, 0), sx)
            y1: T.let = T.min(T.truncdiv(y, sy) + 1, height_out)
            x1: T.let = T.min(T.truncdiv(x, sx) + 1, width_out)
            for oy in range(y0, y1):
                for ox in range(x0, x1):
                    queue[count[0]] = T.Cast(event, (oy * width_out + ox) * channels + c)
                    count[0] = count[0] + 1
        out[0] = count[0]

    params = (
        table("in_p", event),
        scalar("n"),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
