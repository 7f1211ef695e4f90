"""The latency encoder by micro-kernels: a strip of output rows by scatter, then its spikes by step
(micro/esnn_strip.h); or by dot products of vectors (micro/esnn_gather.h).
"""

from __future__ import annotations

import numpy as np
from tvm.script import tirx as T

from edgesnn.compiler.ir import Pair
from edgesnn.compiler.layout import Gather, SpikeMap, Strip
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table

_DTYPES = {"uint8": 0, "int8": 1, "int16": 2}


def limits_table(
    thresholds: np.ndarray, lo: np.ndarray, hi: np.ndarray, shift: np.ndarray, stored: int
) -> np.ndarray:
    """Thresholds int32[O, T - 1] as int64[T - 1, stored]: clipped to just above what a sum can reach, which
    changes no comparison, so that the difference of a sum and a limit fits its register; less `shift`; padding
    is never reached.
    """
    limits = (np.clip(thresholds.astype(np.int64), lo[:, None], hi[:, None] + 1) - shift[:, None]).T
    extra = stored - limits.shape[1]
    return np.pad(limits, [(0, 0), (0, extra)], constant_values=1)


def blank_table(thresholds: np.ndarray, spikes: SpikeMap, steps: int) -> np.ndarray:
    """[T, words + 1]: each step's words, and number of spikes, for a position whose sums are all 0."""
    at = (thresholds > 0).sum(axis=1) if steps > 1 else np.zeros(spikes.shape[2], dtype=np.int64)
    out = np.zeros((steps, spikes.words + 1), dtype=np.int64)
    for c, t in enumerate(at):
        out[t, c // spikes.bits] |= 1 << c % spikes.bits
        out[t, -1] += 1
    return out


def encode_strip(
    symbol: str,
    *,
    strip: Strip,
    sample: str,
    zero_point: int,
    pool: Pair,
    spikes: SpikeMap,
    steps: int,
) -> Kernel:
    """Pooled row `row` of the encoder in the steps t = begin + 1 ... end: planes[T] of spikes, counts[t - 1] +=
    events of step t.
    """
    conv = strip.conv
    h, w, ci = conv.source
    co = conv.target[2]
    (sy, sx), (top, left), taps = conv.stride, conv.padding, conv.taps[1]
    columns, margin = conv.strip
    ph, pw = pool
    across = conv.target[1] // pw
    channels, bits, words, word = spikes.shape[2], spikes.bits, spikes.words, spikes.dtype
    plane = spikes.plane * 8 // bits
    dtype, height, pairs = _DTYPES[sample], strip.height, int(strip.pairs)
    size, limits = strip.words.size, max(steps - 1, 1) * co

    @T.prim_func
    def main(
        x_p: T.handle(sample),
        weights_p: T.handle("uint32"),
        limits_p: T.handle("int32"),
        blank_p: T.handle("uint32"),
        row: T.int32,
        begin: T.int32,
        end: T.int32,
        strip_p: T.handle("int32"),
        planes_p: T.handle(word),
        counts_p: T.handle("int32"),
    ):
        x = T.decl_buffer((h * w * ci,), sample, data=x_p)
        weights = T.decl_buffer((size,), "uint32", data=weights_p)
        limit = T.decl_buffer((limits,), "int32", data=limits_p)
        blank = T.decl_buffer((steps * (words + 1),), "uint32", data=blank_p)
        sums = T.decl_buffer((ph * columns * co,), "int32", data=strip_p)
        planes = T.decl_buffer((plane * steps,), word, data=planes_p)
        counts = T.decl_buffer((steps,), "int32", data=counts_p)
        touched = T.alloc_buffer((2,), "int32")
        T.evaluate(
            T.call_extern(
                "int32",
                "esnn_strip",
                T.address_of(sums[0]),
                T.address_of(weights[0]),
                T.address_of(x[0]),
                row * ph,
                T.address_of(touched[0]),
                dtype,
                zero_point,
                ph,
                columns,
                margin,
                h,
                w,
                ci,
                co,
                sy,
                sx,
                top,
                left,
                height,
                taps,
                pairs,
            )
        )
        T.evaluate(
            T.call_extern(
                "int32",
                "esnn_strip_spikes",
                T.address_of(sums[0]),
                T.address_of(limit[0]),
                T.address_of(blank[0]),
                row,
                T.address_of(planes[0]),
                T.address_of(counts[0]),
                T.address_of(touched[0]),
                begin,
                end,
                columns,
                margin,
                co,
                channels,
                ph,
                pw,
                across,
                bits,
                words,
                plane,
                steps,
            )
        )

    params = (
        table("x_p", sample),
        table("weights_p", "uint32"),
        table("limits_p", "int32"),
        table("blank_p", "uint32"),
        scalar("row"),
        scalar("begin"),
        scalar("end"),
        pointer("strip_p", "int32"),
        pointer("planes_p", word),
        pointer("counts_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def encode_gather(
    symbol: str,
    *,
    gather: Gather,
    sample: str,
    zero_point: int,
    pool: Pair,
    spikes: SpikeMap,
    steps: int,
) -> Kernel:
    """The same as `encode_strip` by dot products. The limits contain `gather_shift` for uint8 samples."""
    conv = gather.conv
    h, w, ci = conv.source
    co, (sy, sx), top = conv.target[2], conv.stride, conv.padding[0]
    taps_y, taps = gather.taps
    line, before, chunks = gather.line, gather.before, gather.chunks
    ph, pw = pool
    across, width, after = conv.target[1] // pw, w * ci, sx * ci
    channels, bits, words, word = spikes.shape[2], spikes.bits, spikes.words, spikes.dtype
    plane = spikes.plane * 8 // bits
    size, limits, scratch = gather.weights.size, max(steps - 1, 1) * co, gather.scratch(pool)
    flip = 128 if sample == "uint8" else 0
    none = (zero_point & 255) ^ flip

    @T.prim_func
    def main(
        x_p: T.handle(sample),
        weights_p: T.handle("int8"),
        limits_p: T.handle("int32"),
        blank_p: T.handle("uint32"),
        row: T.int32,
        begin: T.int32,
        end: T.int32,
        scratch_p: T.handle("uint8"),
        planes_p: T.handle(word),
        counts_p: T.handle("int32"),
    ):
        x = T.decl_buffer((h * width,), sample, data=x_p)
        weights = T.decl_buffer((size,), "int8", data=weights_p)
        limit = T.decl_buffer((limits,), "int32", data=limits_p)
        blank = T.decl_buffer((steps * (words + 1),), "uint32", data=blank_p)
        room = T.decl_buffer((scratch,), "uint8", data=scratch_p)
        planes = T.decl_buffer((plane * steps,), word, data=planes_p)
        counts = T.decl_buffer((steps,), "int32", data=counts_p)
        T.evaluate(
            T.call_extern(
                "int32",
                "esnn_gather",
                T.address_of(x[0]),
                T.address_of(weights[0]),
                T.address_of(limit[0]),
                T.address_of(blank[0]),
                row,
                begin,
                end,
                T.address_of(room[0]),
                T.address_of(planes[0]),
                T.address_of(counts[0]),
                h,
                width,
                line,
                before,
                top,
                sy,
                after,
                taps_y,
                taps,
                chunks,
                co,
                channels,
                ph,
                pw,
                across,
                bits,
                words,
                plane,
                steps,
                flip,
                none,
            )
        )

    params = (
        table("x_p", sample),
        table("weights_p", "int8"),
        table("limits_p", "int32"),
        table("blank_p", "uint32"),
        scalar("row"),
        scalar("begin"),
        scalar("end"),
        pointer("scratch_p", "uint8"),
        pointer("planes_p", word),
        pointer("counts_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def gather_shift(weights: np.ndarray, sample: str, zero_point: int) -> np.ndarray:
    """int64[O]: what a dot product of flipped samples s lacks: x - zero_point = s + (128 or 0) - zero_point."""
    middle = 128 if sample == "uint8" else 0
    return (middle - zero_point) * weights.astype(np.int64).sum(axis=1)
