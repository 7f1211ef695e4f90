"""Projections: every event of the source adds its weights to the membranes that it reaches, by scatter.

Convolution: for an event at (y, x, c), Y = y + top = qy * sy + ry with padding; targets are the outputs qy - j
that lie in the map, with the taps of phase ry (layout.py). Without groups a row of targets is one contiguous
segment of membranes and of weights. The bounds of a position are found once for all its events. A band is some
consecutive rows of the map: only the source rows that reach it are looked at, only its targets are added to.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.layout import ScatterConv, SpikeMap
from edgesnn.compiler.styles import Style, small
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table
from edgesnn.compiler.tir.rows import add_four, add_held, add_rows, first_bit


def _weights(layout: ScatterConv, style: Style) -> tuple[int, str]:
    dtype = style.weight if style.micro else layout.weights.dtype.name
    return layout.weights.size // style.outputs_per_word, dtype


def _one_event(layout: ScatterConv, style: Style, width: str) -> Any:
    """Inline delivery of channel c's event at a position whose bounds are known."""
    _, ow, co = layout.target
    _, tx = layout.taps
    inputs_per_group, per = layout.per_group
    step = tx * per
    add = add_rows(style, width, small(layout.weights))

    @T.inline
    def joined(u: Any, weights: Any, c: Any, at: Any, y0: Any, rows: Any, x0: Any, columns: Any):
        add(u, weights, (y0 * ow + x0) * co, at, columns * co, rows, ow * co, -step)

    @T.inline
    def grouped(u: Any, weights: Any, c: Any, at: Any, y0: Any, rows: Any, x0: Any, columns: Any):
        first: T.let = T.truncdiv(c, inputs_per_group) * per
        for r in range(rows):
            for j in range(columns):
                for k in range(per):
                    u[((y0 + r) * ow + x0 + j) * co + first + k] = u[
                        ((y0 + r) * ow + x0 + j) * co + first + k
                    ] + T.Cast(width, weights[at - r * step + j * per + k])

    return joined if layout.groups == 1 else grouped


def _without_three(word: Any) -> Any:
    """A word without its three lowest bits: not 0 where it has four or more."""
    for _ in range(3):
        word = T.bitwise_and(word, word - T.uint32(1))
    return word


def conv_map(
    symbol: str, *, layout: ScatterConv, spikes: SpikeMap, style: Style, width: str, band: int
) -> Kernel:
    """Events of a spike map into the membranes u[band, OW, O] of the rows `row`...row + band - 1 of the map.

    Tables taps[stride, taps + 1] (layout.row_taps) and columns[W] (bounds.fan_tables); out[1] += SOPs in them.
    """
    h, w, _ = layout.source
    _, ow, co = layout.target
    (sy, sx), (top, left), (ty, tx) = layout.stride, layout.padding, layout.taps
    _, per = layout.per_group
    block = ty * tx * per  # weights of one channel and phase
    total, weight = _weights(layout, style)
    word, words, bits = spikes.dtype, spikes.words, spikes.bits
    deliver = _one_event(layout, style, width)
    several, four = style.four and layout.groups == 1, add_four(style, small(layout.weights))

    @T.prim_func
    def main(
        in_p: T.handle(word),
        weights_p: T.handle(weight),
        taps_p: T.handle("int32"),
        columns_p: T.handle("int32"),
        row: T.int32,
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        spiked = T.decl_buffer((h * w * words,), word, data=in_p)
        weights = T.decl_buffer((total,), weight, data=weights_p)
        taps = T.decl_buffer((sy * (ty + 1),), "int32", data=taps_p)
        columns = T.decl_buffer((w,), "int32", data=columns_p)
        u = T.decl_buffer((band * ow * co,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        rest = T.alloc_buffer((1,), "uint32")
        tail = T.alloc_buffer((1,), "uint32")
        at = T.alloc_buffer((4,), "int32")
        sops = T.alloc_buffer((1,), "int32")
        sops[0] = 0
        for y in range(T.max(row * sy - top, 0), T.min((row + band + ty - 1) * sy - top, h)):
            qy: T.let = T.truncdiv(y + top, sy)
            ry: T.let = T.truncmod(y + top, sy)
            y0: T.let = T.max(qy - (ty - 1), row)
            y1: T.let = T.min(qy + 1, row + band)
            # Of the taps between the first and the last target some may be padding or dilation.
            real: T.let = taps[ry * (ty + 1) + qy + 1 - y0] - taps[ry * (ty + 1) + qy + 1 - y1]
            for x in range(w):
                for k in range(words):
                    rest[0] = T.Cast("uint32", spiked[(y * w + x) * words + k])
                    if rest[0] != T.uint32(0):
                        qx: T.let = T.truncdiv(x + left, sx)
                        rx: T.let = T.truncmod(x + left, sx)
                        x0: T.let = T.max(qx - (tx - 1), 0)
                        x1: T.let = T.min(qx + 1, ow)
                        start: T.let = (ry * sx + rx) * block + (
                            (qy - y0) * tx + (tx - 1) - (qx - x0)
                        ) * per
                        if T.bool(several):
                            tail[0] = _without_three(rest[0])
                            while tail[0] != T.uint32(0):
                                for i in T.unroll(4):
                                    at[i] = (k * bits + first_bit(rest[0])) * (
                                        sy * sx * block
                                    ) + start
                                    rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                                four(
                                    u,
                                    weights,
                                    ((y0 - row) * ow + x0) * co,
                                    at,
                                    T.max(x1 - x0, 0) * co,
                                    y1 - y0,
                                    ow * co,
                                    -(tx * per),
                                )
                                sops[0] = sops[0] + 4 * real * columns[x]
                                tail[0] = _without_three(rest[0])
                        while rest[0] != T.uint32(0):
                            c: T.let = k * bits + first_bit(rest[0])
                            rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                            deliver(
                                u,
                                weights,
                                c,
                                c * (sy * sx * block) + start,
                                y0 - row,
                                y1 - y0,
                                x0,
                                T.max(x1 - x0, 0),
                            )
                            sops[0] = sops[0] + real * columns[x]
        out[1] = out[1] + sops[0]

    params = (
        table("in_p", word),
        table("weights_p", weight),
        table("taps_p", "int32"),
        table("columns_p", "int32"),
        scalar("row"),
        pointer("u_p", width),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def conv_queue(
    symbol: str, *, layout: ScatterConv, capacity: int, event: str, style: Style, width: str
) -> Kernel:
    """Events of a queue of n addresses, in which one may stand more than once, into the whole map.

    Fan tables rows[H], columns[W]; out[1] += SOPs.
    """
    h, w, ci = layout.source
    oh, ow, co = layout.target
    (sy, sx), (top, left), (ty, tx) = layout.stride, layout.padding, layout.taps
    _, per = layout.per_group
    block = ty * tx * per
    total, weight = _weights(layout, style)
    deliver = _one_event(layout, style, width)

    @T.prim_func
    def main(
        in_p: T.handle(event),
        n: T.int32,
        weights_p: T.handle(weight),
        rows_p: T.handle("int32"),
        columns_p: T.handle("int32"),
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        events = T.decl_buffer((capacity,), event, data=in_p)
        weights = T.decl_buffer((total,), weight, data=weights_p)
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
            start: T.let = ((c * sy + ry) * sx + rx) * block + (
                (qy - y0) * tx + (tx - 1) - (qx - x0)
            ) * per
            deliver(u, weights, c, start, y0, T.max(y1 - y0, 0), x0, T.max(x1 - x0, 0))
            sops[0] = sops[0] + rows[y] * columns[x]
        out[1] = out[1] + sops[0]

    params = (
        table("in_p", event),
        scalar("n"),
        table("weights_p", weight),
        table("rows_p", "int32"),
        table("columns_p", "int32"),
        pointer("u_p", width),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def dense_map(
    symbol: str, *, layout: ScatterConv, spikes: SpikeMap, outputs: int, style: Style, width: str
) -> Kernel:
    """u[o] += weight[address, o] for every event; out[1] += SOPs (`outputs` each, padding not counted)."""
    positions, channels, bits = spikes.positions, spikes.shape[2], spikes.bits
    word, words, stored = spikes.dtype, spikes.words, layout.target[2]
    total, weight = _weights(layout, style)
    add = add_rows(style, width, small(layout.weights))
    four, held = add_four(style, small(layout.weights)), add_held(style)
    room = max(style.held, 4)

    @T.prim_func
    def each(
        in_p: T.handle(word),
        weights_p: T.handle(weight),
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        spiked = T.decl_buffer((positions * words,), word, data=in_p)
        weights = T.decl_buffer((total,), weight, data=weights_p)
        u = T.decl_buffer((stored,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        rest = T.alloc_buffer((1,), "uint32")
        tail = T.alloc_buffer((1,), "uint32")
        at = T.alloc_buffer((4,), "int32")
        sops = T.alloc_buffer((1,), "int32")
        sops[0] = 0
        for p in range(positions):
            for k in range(words):
                rest[0] = T.Cast("uint32", spiked[p * words + k])
                if T.bool(style.four):
                    tail[0] = _without_three(rest[0])
                    while tail[0] != T.uint32(0):
                        for i in T.unroll(4):
                            at[i] = (p * channels + k * bits + first_bit(rest[0])) * stored
                            rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                        four(u, weights, 0, at, stored, 1, 0, 0)
                        sops[0] = sops[0] + 4 * outputs
                        tail[0] = _without_three(rest[0])
                while rest[0] != T.uint32(0):
                    a: T.let = p * channels + k * bits + first_bit(rest[0])
                    rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                    add(u, weights, 0, a * stored, stored, 1, 0, 0)
                    sops[0] = sops[0] + outputs
        out[1] = out[1] + sops[0]

    @T.prim_func
    def together(
        in_p: T.handle(word),
        weights_p: T.handle(weight),
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        spiked = T.decl_buffer((positions * words,), word, data=in_p)
        weights = T.decl_buffer((total,), weight, data=weights_p)
        u = T.decl_buffer((stored,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        rest = T.alloc_buffer((1,), "uint32")
        at = T.alloc_buffer((room,), "int32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for p in range(positions):
            for k in range(words):
                rest[0] = T.Cast("uint32", spiked[p * words + k])
                while rest[0] != T.uint32(0):
                    at[count[0]] = (p * channels + k * bits + first_bit(rest[0])) * stored
                    rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                    count[0] = count[0] + 1
                    if count[0] == room:
                        held(u, weights, at, room, stored)
                        count[0] = 0
                        out[1] = out[1] + room * outputs
        if count[0] != 0:
            held(u, weights, at, count[0], stored)
        out[1] = out[1] + count[0] * outputs

    params = (
        table("in_p", word),
        table("weights_p", weight),
        pointer("u_p", width),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, together if style.held else each)


def dense_queue(
    symbol: str,
    *,
    layout: ScatterConv,
    capacity: int,
    event: str,
    outputs: int,
    style: Style,
    width: str,
) -> Kernel:
    """The same for a queue of n addresses."""
    stored = layout.target[2]
    total, weight = _weights(layout, style)
    add = add_rows(style, width, small(layout.weights))

    @T.prim_func
    def main(
        in_p: T.handle(event),
        n: T.int32,
        weights_p: T.handle(weight),
        u_p: T.handle(width),
        out_p: T.handle("int32"),
    ):
        events = T.decl_buffer((capacity,), event, data=in_p)
        weights = T.decl_buffer((total,), weight, data=weights_p)
        u = T.decl_buffer((stored,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        for e in range(n):
            add(u, weights, 0, T.Cast("int32", events[e]) * stored, stored, 1, 0, 0)
        out[1] = out[1] + n * outputs

    params = (
        table("in_p", event),
        scalar("n"),
        table("weights_p", weight),
        pointer("u_p", width),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
