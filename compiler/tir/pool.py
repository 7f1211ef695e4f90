"""Pooling of spikes. OR-pool joins a window's words; sum-pool queues each event once for every window."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.ir import Pair, Shape, pool_shape
from edgesnn.compiler.layout import SpikeMap
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table
from edgesnn.compiler.tir.rows import count_bits, first_bit


def or_pool(symbol: str, *, spikes: SpikeMap, kernel: Pair, stride: Pair) -> Kernel:
    """Spike map to spike map of as many channels; out[0] = events."""
    height, width, _ = spikes.shape
    height_out, width_out, _ = pool_shape(spikes.shape, kernel, stride)
    (kh, kw), (sy, sx) = kernel, stride
    word, words = spikes.dtype, spikes.words

    @T.prim_func
    def main(in_p: T.handle(word), spikes_p: T.handle(word), out_p: T.handle("int32")):
        spiked = T.decl_buffer((height * width * words,), word, data=in_p)
        pooled = T.decl_buffer((height_out * width_out * words,), word, data=spikes_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        any_ = T.alloc_buffer((1,), "uint32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for oy in range(height_out):
            for ox in range(width_out):
                for k in range(words):
                    any_[0] = T.uint32(0)
                    for j in range(kh):
                        for i in range(kw):
                            any_[0] = T.bitwise_or(
                                any_[0],
                                T.Cast(
                                    "uint32",
                                    spiked[((oy * sy + j) * width + ox * sx + i) * words + k],
                                ),
                            )
                    pooled[(oy * width_out + ox) * words + k] = T.Cast(word, any_[0])
                    if any_[0] != T.uint32(0):
                        count[0] = count[0] + count_bits(any_[0])
        out[0] = count[0]

    params = (table("in_p", word), pointer("spikes_p", word), pointer("out_p", "int32"))
    return make_kernel(symbol, params, main)


def _to_windows(source: Shape, kernel: Pair, stride: Pair, event: str) -> Any:
    """Inline: the event of channel c at (y, x) into the queue, once for each window it lies in."""
    channels = source[2]
    height_out, width_out, _ = pool_shape(source, kernel, stride)
    (kh, kw), (sy, sx) = kernel, stride

    @T.inline
    def spread(queue: Any, count: Any, y: Any, x: Any, c: Any):
        y0: T.let = T.truncdiv(T.max(y - kh + sy, 0), sy)
        x0: T.let = T.truncdiv(T.max(x - kw + sx, 0), sx)
        y1: T.let = T.min(T.truncdiv(y, sy) + 1, height_out)
        x1: T.let = T.min(T.truncdiv(x, sx) + 1, width_out)
        # Not range(y0, y1): TVM's simplifier trips over loops that begin at a loop's variable.
        for j in range(T.max(y1 - y0, 0)):
            for i in range(T.max(x1 - x0, 0)):
                queue[count[0]] = T.Cast(event, ((y0 + j) * width_out + x0 + i) * channels + c)
                count[0] = count[0] + 1

    return spread


def sum_pool_map(
    symbol: str, *, spikes: SpikeMap, kernel: Pair, stride: Pair, capacity_out: int, event: str
) -> Kernel:
    """Every event of a spike map passes under the address of each window it lies in; out[0] = events queued."""
    height, width, _ = spikes.shape
    word, words, bits = spikes.dtype, spikes.words, spikes.bits
    spread = _to_windows(spikes.shape, kernel, stride, event)

    @T.prim_func
    def main(in_p: T.handle(word), queue_p: T.handle(event), out_p: T.handle("int32")):
        spiked = T.decl_buffer((height * width * words,), word, data=in_p)
        queue = T.decl_buffer((capacity_out,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        rest = T.alloc_buffer((1,), "uint32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for y in range(height):
            for x in range(width):
                for k in range(words):
                    rest[0] = T.Cast("uint32", spiked[(y * width + x) * words + k])
                    while rest[0] != T.uint32(0):
                        c: T.let = k * bits + first_bit(rest[0])
                        rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                        spread(queue, count, y, x, c)
        out[0] = count[0]

    params = (table("in_p", word), pointer("queue_p", event), pointer("out_p", "int32"))
    return make_kernel(symbol, params, main)


def sum_pool_queue(
    symbol: str,
    *,
    source: Shape,
    kernel: Pair,
    stride: Pair,
    capacity: int,
    capacity_out: int,
    event: str,
) -> Kernel:
    """The same for a queue of n addresses."""
    _, width, channels = source
    spread = _to_windows(source, kernel, stride, event)

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
            spread(queue, count, y, x, c)
        out[0] = count[0]

    params = (
        table("in_p", event),
        scalar("n"),
        pointer("queue_p", event),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
