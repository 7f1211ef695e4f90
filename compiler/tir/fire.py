"""Compare, emit, soft reset: where u >= theta, queue the neuron's address and u <- u - theta."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, table


def fire(
    symbol: str, *, positions: int, channels: int, width: str, theta: str, event: str
) -> Kernel:
    """One pass over membranes u[positions, channels]; out[0] = events queued."""

    @T.prim_func
    def main(
        theta_p: T.handle(theta),
        u_p: T.handle(width),
        queue_p: T.handle(event),
        out_p: T.handle("int32"),
    ):
        limit = T.decl_buffer((channels,), theta, data=theta_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        queue = T.decl_buffer((positions * channels,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for p in range(positions):
            for c in range(channels):
                if T.Cast("int32", u[p * channels + c]) >= T.Cast("int32", limit[c]):
                    u[p * channels + c] = T.Cast(
                        width,
                        T.Cast("int32", u[p * channels + c]) - T.Cast("int32", limit[c]),
                    )
                    queue[count[0]] = T.Cast(event, p * channels + c)
                    count[0] = count[0] + 1
        out[0] = count[0]

    params = (
        table("theta_p", theta),
        pointer("u_p", width),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
