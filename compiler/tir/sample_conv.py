"""An encoder's integer layer on the samples, a strip of rows at a time: sums of weighted samples by scatter.

Samples equal to the zero point are skipped. The strip has a margin on both sides in which taps outside the
map land unread, so the inner loop has no bounds test; only the strip is ever stored.
"""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.layout import ScatterConv
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def sample_conv(
    symbol: str, *, layout: ScatterConv, rows: int, sample: str, zero_point: int, sums: str
) -> Kernel:
    """strip[r, column, o] = the layer's output at row first + r, for r in 0...rows-1."""
    h, w, ci = layout.source
    co = layout.target[2]
    (sy, sx), (top, left), (ty, tx) = layout.stride, layout.padding, layout.taps
    inputs_per_group, per = layout.per_group
    columns, margin = layout.strip
    block = ty * tx * per
    total = layout.weights.size
    # Without groups the channels of neighbouring outputs are neighbours: one segment for all taps of a row.
    segments, length = (1, tx * per) if layout.groups == 1 else (tx, per)

    @T.prim_func
    def main(
        x_p: T.handle(sample),
        weights_p: T.handle("int8"),
        first: T.int32,
        strip_p: T.handle(sums),
    ):
        x = T.decl_buffer((h * w * ci,), sample, data=x_p)
        weights = T.decl_buffer((total,), "int8", data=weights_p)
        strip = T.decl_buffer((rows * columns * co,), sums, data=strip_p)
        for i in range(rows * columns * co):
            strip[i] = T.Cast(sums, 0)
        for r in range(rows):
            for jy in range(ty):
                for ry in range(sy):
                    iy: T.let = (first + r + jy) * sy + ry - top
                    if T.And(iy >= 0, iy < h):
                        for ix in range(w):
                            for c in range(ci):
                                v: T.let = T.Cast("int32", x[(iy * w + ix) * ci + c]) - zero_point
                                if v != 0:
                                    qx: T.let = T.truncdiv(ix + left, sx)
                                    rx: T.let = T.truncmod(ix + left, sx)
                                    at: T.let = ((c * sy + ry) * sx + rx) * block + jy * (tx * per)
                                    into: T.let = (
                                        r * columns + qx - (tx - 1) + margin
                                    ) * co + T.truncdiv(c, inputs_per_group) * per
                                    for j in range(segments):
                                        for k in range(length):
                                            strip[into + j * co + k] = strip[
                                                into + j * co + k
                                            ] + T.Cast(
                                                sums,
                                                v * T.Cast("int32", weights[at + j * length + k]),
                                            )

    params = (
        table("x_p", sample),
        table("weights_p", "int8"),
        scalar("first"),
        pointer("strip_p", sums),
    )
    return make_kernel(symbol, params, main)


def copy_row(symbol: str, *, layout: ScatterConv, sums: str) -> Kernel:
    """current[row] = the part of a one-row strip that lies in the map."""
    oh, ow, co = layout.target
    columns, margin = layout.strip

    @T.prim_func
    def main(strip_p: T.handle(sums), row: T.int32, current_p: T.handle(sums)):
        strip = T.decl_buffer((columns * co,), sums, data=strip_p)
        current = T.decl_buffer((oh * ow * co,), sums, data=current_p)
        for i in range(ow * co):
            current[row * (ow * co) + i] = strip[margin * co + i]

    params = (table("strip_p", sums), scalar("row"), pointer("current_p", sums))
    return make_kernel(symbol, params, main)
