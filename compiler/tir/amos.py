"""At most one spike: where u >= theta for the first time in the inference, queue the neuron's address."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def amos_fire(
    symbol: str,
    *,
    positions: int,
    channels: int,
    width: str,
    theta: str,
    event: str,
    forced_at: int,
) -> Kernel:
    """fired[unit] is 1 after its spike; `forced_at` is T when the silent ones fire then, else 0.

    `t` = 1 forgets the spikes of the last inference. out[0] = events.
    """

    @T.prim_func
    def main(
        theta_p: T.handle(theta),
        u_p: T.handle(width),
        t: T.int32,
        fired_p: T.handle("uint8"),
        queue_p: T.handle(event),
        out_p: T.handle("int32"),
    ):
        limit = T.decl_buffer((channels,), theta, data=theta_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        fired = T.decl_buffer((positions * channels,), "uint8", data=fired_p)
        queue = T.decl_buffer((positions * channels,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        if t == 1:
            for i in range(positions * channels):
                fired[i] = T.uint8(0)
        for p in range(positions):
            for c in range(channels):
                if fired[p * channels + c] == T.uint8(0):
                    if T.Or(
                        T.Cast("int32", u[p * channels + c]) >= T.Cast("int32", limit[c]),
                        t == forced_at,
                    ):
                        fired[p * channels + c] = T.uint8(1)
                        queue[count[0]] = T.Cast(event, p * channels + c)
                        count[0] = count[0] + 1
        out[0] = count[0]

    params = (
        table("theta_p", theta),
        table("u_p", width),
        scalar("t"),
        pointer("fired_p", "uint8"),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
