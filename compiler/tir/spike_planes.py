"""The latency encoder after its layer: max-pool and thresholds to spike times, as one spike map a step."""

from __future__ import annotations

from tvm.script import tirx as T

from edgesnn.compiler.ir import Pair
from edgesnn.compiler.layout import ScatterConv, SpikeMap
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table


def clear_planes(symbol: str, *, words: int, steps: int) -> Kernel:
    """Nothing spikes yet in any step; words: 32-bit words of all steps' maps."""

    @T.prim_func
    def main(planes_p: T.handle("uint32"), counts_p: T.handle("int32")):
        planes = T.decl_buffer((words,), "uint32", data=planes_p)
        counts = T.decl_buffer((steps,), "int32", data=counts_p)
        for i in range(words):
            planes[i] = T.uint32(0)
        for t in range(steps):
            counts[t] = 0

    return make_kernel(symbol, (pointer("planes_p", "uint32"), pointer("counts_p", "int32")), main)


def spike_planes(
    symbol: str, *, layout: ScatterConv, pool: Pair, spikes: SpikeMap, steps: int, sums: str
) -> Kernel:
    """Spikes of pooled row `row` from its strip: bits of each unit's step t_s. thresholds int32[O, steps - 1].

    Thresholds do not increase with the step, so the search starts with the last step, where most units end.
    counts[t - 1] += events of step t.
    """
    co = layout.target[2]
    ph, pw = pool
    pooled_w = layout.target[1] // pw
    columns, margin = layout.strip
    word, words, bits = spikes.dtype, spikes.words, spikes.bits
    plane = spikes.plane * 8 // bits
    channels = spikes.shape[2]
    limits = max(steps - 1, 1)

    @T.prim_func
    def main(
        strip_p: T.handle(sums),
        thresholds_p: T.handle("int32"),
        row: T.int32,
        planes_p: T.handle(word),
        counts_p: T.handle("int32"),
    ):
        strip = T.decl_buffer((ph * columns * co,), sums, data=strip_p)
        thresholds = T.decl_buffer((channels * limits,), "int32", data=thresholds_p)
        planes = T.decl_buffer((plane * steps,), word, data=planes_p)
        counts = T.decl_buffer((steps,), "int32", data=counts_p)
        best = T.alloc_buffer((1,), "int32")
        late = T.alloc_buffer((1,), "int32")
        rest = T.alloc_buffer((1,), "uint32")
        silent = T.alloc_buffer((1,), "int32")
        silent[0] = 0
        for column in range(pooled_w):
            for k in range(words):
                at: T.let = (row * pooled_w + column) * words + k
                rest[0] = T.uint32(0)
                for j in range(T.min(channels - k * bits, bits)):
                    o: T.let = k * bits + j
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
                    late[0] = steps - 1
                    while T.And(late[0] > 0, best[0] >= thresholds[o * limits + late[0] - 1]):
                        late[0] = late[0] - 1
                    if late[0] == steps - 1:
                        rest[0] = T.bitwise_or(
                            rest[0], T.shift_left(T.uint32(1), T.Cast("uint32", j))
                        )
                        silent[0] = silent[0] + 1
                    else:
                        planes[late[0] * plane + at] = T.Cast(
                            word,
                            T.bitwise_or(
                                T.Cast("uint32", planes[late[0] * plane + at]),
                                T.shift_left(T.uint32(1), T.Cast("uint32", j)),
                            ),
                        )
                        counts[late[0]] = counts[late[0]] + 1
                planes[(steps - 1) * plane + at] = T.Cast(word, rest[0])
        counts[steps - 1] = counts[steps - 1] + silent[0]

    params = (
        table("strip_p", sums),
        table("thresholds_p", "int32"),
        scalar("row"),
        pointer("planes_p", word),
        pointer("counts_p", "int32"),
    )
    return make_kernel(symbol, params, main)
