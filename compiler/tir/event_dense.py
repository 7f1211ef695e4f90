"""Dense projection of events: u[o] += weight[address, o] for every event."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def event_dense(
    symbol: str, *, inputs: int, outputs: int, capacity: int, width: str, event: str
) -> Kernel:
    """weights int8[inputs, outputs]; out[1] += SOPs."""

    @T.prim_func
    def main(
        in_p: T.handle(event),
        n: T.int32,
        weights_p: T.handle("int8"),
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        events = T.decl_buffer((capacity,), event, data=in_p)
        weights = T.decl_buffer((inputs * outputs,), "int8", data=weights_p)
        u = T.decl_buffer((outputs,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        for e in range(n):
            row: T.let = T.Cast("int32", events[e]) * outputs
            for o in range(outputs):
                u[o] = u[o] + T.Cast(width, weights[row + o])
        out[1] = out[1] + n * outputs

    params = (
        table("in_p", event),
        scalar("n"),
        table("weights_p", "int8"),
        pointer("u_p", width),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
