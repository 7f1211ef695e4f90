"""Spike addition: append one source's events to a merged queue."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.layout import SpikeMap
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table
from edgesnn.compiler.tir.rows import first_bit


def merge_map(symbol: str, *, spikes: SpikeMap, capacity_out: int, event: str) -> Kernel:
    """The addresses of a spike map's events at the end of the queue; out[0] += their number."""
    positions, channels = spikes.positions, spikes.shape[2]
    word, words, bits = spikes.dtype, spikes.words, spikes.bits

    @T.prim_func
    def main(in_p: T.handle(word), queue_p: T.handle(event), out_p: T.handle("int32")):
        spiked = T.decl_buffer((positions * words,), word, data=in_p)
        queue = T.decl_buffer((capacity_out,), event, data=queue_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        rest = T.alloc_buffer((1,), "uint32")
        for p in range(positions):
            for k in range(words):
                rest[0] = T.Cast("uint32", spiked[p * words + k])
                while rest[0] != T.uint32(0):
                    queue[out[0]] = T.Cast(event, p * channels + k * bits + first_bit(rest[0]))
                    rest[0] = T.bitwise_and(rest[0], rest[0] - T.uint32(1))
                    out[0] = out[0] + 1

    params = (table("in_p", word), pointer("queue_p", event), pointer("out_p", "int32"))
    return make_kernel(symbol, params, main)


def merge_queue(symbol: str, *, capacity: int, capacity_out: int, event: str) -> Kernel:
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
