"""Spike addition: append one source's events to a merged queue."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def merge(symbol: str, *, capacity: int, capacity_out: int, event: str) -> Kernel:
    """queue[out[0] + i] = in[i]; out[0] += n."""

    @T.prim_func
    def main(in_p: T.handle(event), n: T.int32, queue_p: T.handle(event), out_p: T.handle("int32")):
        events = T.decl_buffer((capacity,), event, data=in_p)
        queue = T.decl_buffer((capacity_out,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        for i in range(n):
            queue[out[0] + i] = events[i]
        out[0] = out[0] + n

    params = (
        table("in_p", event),
        scalar("n"),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
