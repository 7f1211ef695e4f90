"""The latency encoder after its layer: max-pool and thresholds to spike times; then one queue a step."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.ir import Pair
from edgesnn.compiler.layout import ScatterConv
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def spike_times(symbol: str, *, layout: ScatterConv, pool: Pair, steps: int, sums: str) -> Kernel:
    """times of pooled row `row` from its strip: t_s in 1...steps; thresholds int32[O, steps - 1]."""
    co = layout.target[2]
    ph, pw = pool
    pooled_h, pooled_w = layout.target[0] // ph, layout.target[1] // pw
    columns, margin = layout.strip
    units = pooled_h * pooled_w * co
    padded = -(-units // 4) * 4
    limits = max(steps - 1, 1)

    @T.prim_func
    def main(
        strip_p: T.handle(sums),
        thresholds_p: T.handle("int32"),
        row: T.int32,
        times_p: T.handle("uint8"),
    ):
        strip = T.decl_buffer((ph * columns * co,), sums, data=strip_p)
        thresholds = T.decl_buffer((co * limits,), "int32", data=thresholds_p)
        times = T.decl_buffer((padded,), "uint8", data=times_p)
        best = T.alloc_buffer((1,), "int32")
        late = T.alloc_buffer((1,), "int32")
        for i in range(padded - units):
            times[units + i] = T.uint8(0)  # emit_times reads whole words; no step is 0
        for column in range(pooled_w):
            for o in range(co):
                best[0] = T.Cast("int32", strip[(column * pw + margin) * co + o])
                for py in range(ph):
                    for px in range(pw):
                        best[0] = T.max(
                            best[0],
                            T.Cast(
                                "int32",
                                strip[(py * columns + column * pw + px + margin) * co + o],
                            ),
                        )
                late[0] = 1
                for k in range(steps - 1):
                    if best[0] < thresholds[o * limits + k]:
                        late[0] = late[0] + 1
                times[(row * pooled_w + column) * co + o] = T.Cast("uint8", late[0])

    params = (
        table("strip_p", sums),
        table("thresholds_p", "int32"),
        scalar("row"),
        pointer("times_p", "uint8"),
    )
    return make_kernel(symbol, params, main)


def emit_times(symbol: str, *, units: int, event: str) -> Kernel:
    """Queue every unit whose spike time is t; out[0] = events queued. Four units are tested at a time."""
    words = -(-units // 4)

    @T.prim_func
    def main(
        times_p: T.handle("uint32"), t: T.int32, queue_p: T.handle(event), out_p: T.handle("int32")
    ):
        times = T.decl_buffer((words,), "uint32", data=times_p)
        queue = T.decl_buffer((units,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        pattern: T.let = T.Cast("uint32", t) * T.uint32(0x01010101)
        for i in range(words):
            same: T.let = T.bitwise_xor(times[i], pattern)
            # Bytes are below 128, so adding 127 carries into a byte's top bit unless the byte is 0.
            busy: T.let = T.bitwise_and(
                T.shift_right(same + T.uint32(0x7F7F7F7F), T.uint32(7)), T.uint32(0x01010101)
            )
            if busy != T.uint32(0x01010101):
                for k in range(4):
                    if T.bitwise_and(
                        T.shift_right(same, T.Cast("uint32", k * 8)), T.uint32(255)
                    ) == T.uint32(0):
                        queue[count[0]] = T.Cast(event, i * 4 + k)
                        count[0] = count[0] + 1
        out[0] = count[0]

    params = (
        table("times_p", "uint32"),
        scalar("t"),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
