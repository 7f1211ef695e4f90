"""Compare, emit, reset: where u >= theta, queue the neuron's address."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, table


def fire(
    symbol: str, *, positions: int, channels: int, width: str, theta: str, event: str, hard: bool
) -> Kernel:
    """One pass over membranes u[positions, channels]; u <- u - theta, or 0 if `hard`; out[0] = events."""

    def rested(u: Any, limit: Any) -> Any:
        return T.int32(0) if hard else u - limit

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
                        rested(T.Cast("int32", u[p * channels + c]), T.Cast("int32", limit[c])),
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
