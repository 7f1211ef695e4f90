"""The latency encoder: integer convolution of samples, max-pool, thresholds to spike times; then one queue a
step.

The map is computed in strips of `pool` rows, so that only the strip's accumulators and one byte per unit
(its spike time) are ever stored. Samples equal to the zero point are skipped. The strip has a margin on
both sides in which taps outside the map land unread, so the inner loop has no bounds test.
"""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.layout import ScatterConv
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def latency_encode(
    symbol: str,
    *,
    layout: ScatterConv,
    pool: int,
    steps: int,
    sample: str,
    zero_point: int,
    width: str,
) -> Kernel:
    """times[unit] = t_s in 1...steps; thresholds int32[O, steps - 1]; strip is scratch of `width`."""
    h, w, ci = layout.source
    _, ow, co = layout.target
    (sy, sx), (top, left), (ty, tx) = layout.stride, layout.padding, layout.taps
    inputs_per_group, per = layout.per_group
    pooled_h, pooled_w = layout.target[0] // pool, ow // pool
    columns, margin = layout.strip
    block = ty * tx * per
    total = layout.weights.size
    # Without groups the channels of neighbouring outputs are neighbours: one segment for all taps of a row.
    segments, length = (1, tx * per) if layout.groups == 1 else (tx, per)
    units = pooled_h * pooled_w * co
    padded = -(-units // 4) * 4
    limits = max(steps - 1, 1)

    @T.prim_func
    def main(
        x_p: T.handle(sample),
        weights_p: T.handle("int8"),
        thresholds_p: T.handle("int32"),
        strip_p: T.handle(width),
        times_p: T.handle("uint8"),
    ):
        x = T.decl_buffer((h * w * ci,), sample, data=x_p)
        weights = T.decl_buffer((total,), "int8", data=weights_p)
        thresholds = T.decl_buffer((co * limits,), "int32", data=thresholds_p)
        strip = T.decl_buffer((pool * columns * co,), width, data=strip_p)
        times = T.decl_buffer((padded,), "uint8", data=times_p)
        best = T.alloc_buffer((1,), "int32")
        late = T.alloc_buffer((1,), "int32")
        for i in range(padded - units):
            times[units + i] = T.uint8(0)  # emit_times reads whole words; no step is 0
        for row in range(pooled_h):
            for i in range(pool * columns * co):
                strip[i] = T.Cast(width, 0)
            for r in range(pool):
                for jy in range(ty):
                    for ry in range(sy):
                        iy: T.let = (row * pool + r + jy) * sy + ry - top
                        if T.And(iy >= 0, iy < h):
                            for ix in range(w):
                                for c in range(ci):
                                    v: T.let = (
                                        T.Cast("int32", x[(iy * w + ix) * ci + c]) - zero_point
                                    )
                                    if v != 0:
                                        qx: T.let = T.truncdiv(ix + left, sx)
                                        rx: T.let = T.truncmod(ix + left, sx)
                                        at: T.let = ((c * sy + ry) * sx + rx) * block + jy * (
                                            tx * per
                                        )
                                        into: T.let = (
                                            r * columns + qx - (tx - 1) + margin
                                        ) * co + T.truncdiv(c, inputs_per_group) * per
                                        for j in range(segments):
                                            for k in range(length):
                                                strip[into + j * co + k] = strip[
                                                    into + j * co + k
                                                ] + T.Cast(
                                                    width,
                                                    v
                                                    * T.Cast("int32", weights[at + j * length + k]),
                                                )
            for column in range(pooled_w):
                for o in range(co):
                    best[0] = T.Cast("int32", strip[(column * pool + margin) * co + o])
                    for py in range(pool):
                        for px in range(pool):
                            best[0] = T.max(
                                best[0],
                                T.Cast(
                                    "int32",
                                    strip[(py * columns + column * pool + px + margin) * co + o],
                                ),
                            )
                    late[0] = 1
                    for k in range(steps - 1):
                        if best[0] < thresholds[o * limits + k]:
                            late[0] = late[0] + 1
                    times[(row * pooled_w + column) * co + o] = T.Cast("uint8", late[0])

    params = (
        table("x_p", sample),
        table("weights_p", "int8"),
        table("thresholds_p", "int32"),
        pointer("strip_p", width),
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
