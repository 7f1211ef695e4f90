"""Canonic signed spikes: digits of samples, integration in a window, ternary fire, readout (ir.Tsa, CssOutput).

What arrives in a step is added up in z by the kernels of deliver.py: the weights of negative spikes first,
then z is negated, then the weights of positive ones. z is as narrow as the proof allows; h and g are int32.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.ir import Padding, Pair, Shape, Shifts, pool_shape
from edgesnn.compiler.layout import SpikeMap
from edgesnn.compiler.styles import Style
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table
from edgesnn.compiler.tir.membrane import stored_as
from edgesnn.compiler.tir.readout import leading
from edgesnn.compiler.tir.rows import count_bits


def amplified(u: Any, terms: Shifts) -> Any:
    """Sum of sign * (u >> shift); u + u for beta = 2, since C leaves u << 1 of a negative u open."""
    total = T.int32(0)
    for sign, shift in terms:
        term = T.shift_right(u, T.int32(shift)) if shift else u
        total = total + term if sign > 0 else total - term
    return total


def clear_words(symbol: str, *, words: int) -> Kernel:
    """A window begins: membranes of 32 bits are 0."""

    @T.prim_func
    def main(u_p: T.handle("int32")):
        u = T.decl_buffer((words,), "int32", data=u_p)
        for i in range(words):
            u[i] = 0

    return make_kernel(symbol, (pointer("u_p", "int32"),), main)


def css_encode(symbol: str, *, spikes: SpikeMap, tables: int) -> Kernel:
    """Digit `digit` (0...T - 1) of every sample as signed spikes; out[0] = events. spikes: of one sign.

    digits uint32[tables * 256]: bit t of a word is set where digit t is +1, bit 16 + t where it is -1.
    """
    positions, channels = spikes.positions, spikes.shape[2]
    word, words, bits = spikes.dtype, spikes.words, spikes.bits
    half = positions * words
    row = 256 if tables > 1 else 0

    @T.prim_func
    def main(
        x_p: T.handle("uint8"),
        digits_p: T.handle("uint32"),
        digit: T.int32,
        spikes_p: T.handle(word),
        out_p: T.handle("int32"),
    ):
        x = T.decl_buffer((positions * channels,), "uint8", data=x_p)
        digits = T.decl_buffer((tables * 256,), "uint32", data=digits_p)
        spiked = T.decl_buffer((2 * half,), word, data=spikes_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        plus = T.alloc_buffer((1,), "uint32")
        minus = T.alloc_buffer((1,), "uint32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for p in range(positions):
            for k in range(words):
                plus[0] = T.uint32(0)
                minus[0] = T.uint32(0)
                for j in range(T.min(channels - k * bits, bits)):
                    code: T.let = T.shift_right(
                        digits[
                            (k * bits + j) * row + T.Cast("int32", x[p * channels + k * bits + j])
                        ],
                        T.Cast("uint32", digit),
                    )
                    plus[0] = T.bitwise_or(
                        plus[0],
                        T.shift_left(T.bitwise_and(code, T.uint32(1)), T.Cast("uint32", j)),
                    )
                    minus[0] = T.bitwise_or(
                        minus[0],
                        T.shift_left(
                            T.bitwise_and(T.shift_right(code, T.uint32(16)), T.uint32(1)),
                            T.Cast("uint32", j),
                        ),
                    )
                spiked[p * words + k] = T.Cast(word, plus[0])
                spiked[half + p * words + k] = T.Cast(word, minus[0])
                if T.bitwise_or(plus[0], minus[0]) != T.uint32(0):
                    count[0] = count[0] + count_bits(plus[0]) + count_bits(minus[0])
        out[0] = count[0]

    params = (
        table("x_p", "uint8"),
        table("digits_p", "uint32"),
        scalar("digit"),
        pointer("spikes_p", word),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def negate(symbol: str, *, units: int, width: str, style: Style) -> Kernel:
    """z <- -z; where pairs of membranes are stored biased, `units` is even."""
    biased = style.biased
    lanes = 2 if biased else 1

    def negated(old: Any, lane: int) -> Any:
        u = stored_as(lane, T.Cast("int32", old), biased)
        return T.Cast(width, stored_as(lane, T.int32(0) - u, biased))

    @T.prim_func
    def main(z_p: T.handle(width)):
        z = T.decl_buffer((units,), width, data=z_p)
        for i in range(units // lanes):
            z[i * lanes] = negated(z[i * lanes], 0)
            if T.bool(lanes == 2):
                z[i * lanes + lanes - 1] = negated(z[i * lanes + lanes - 1], 1)

    return make_kernel(symbol, (pointer("z_p", width),), main)


def integrate(
    symbol: str,
    *,
    positions: int,
    channels: int,
    stored: int,
    width: str,
    amplification: Shifts,
    style: Style,
) -> Kernel:
    """h <- amp(h) + z + bias: h int32[positions, channels], z[positions, stored], bias int32[channels]."""
    biased = style.biased

    def value(z: Any, lane: int) -> Any:
        return stored_as(lane, T.Cast("int32", z), biased)

    def next_value(h: Any, z: Any, bias: Any, lane: int) -> Any:
        return amplified(h, amplification) + value(z, lane) + bias

    pairs, odd = (channels // 2, channels % 2) if biased else (0, 0)

    @T.prim_func
    def each(z_p: T.handle(width), bias_p: T.handle("int32"), h_p: T.handle("int32")):
        z = T.decl_buffer((positions * stored,), width, data=z_p)
        bias = T.decl_buffer((channels,), "int32", data=bias_p)
        h = T.decl_buffer((positions * channels,), "int32", data=h_p)
        for p in range(positions):
            for c in range(channels):
                h[p * channels + c] = next_value(h[p * channels + c], z[p * stored + c], bias[c], 0)

    @T.prim_func
    def paired(z_p: T.handle(width), bias_p: T.handle("int32"), h_p: T.handle("int32")):
        z = T.decl_buffer((positions * stored,), width, data=z_p)
        bias = T.decl_buffer((channels,), "int32", data=bias_p)
        h = T.decl_buffer((positions * channels,), "int32", data=h_p)
        for p in range(positions):
            for c in range(pairs):
                h[p * channels + 2 * c] = next_value(
                    h[p * channels + 2 * c], z[p * stored + 2 * c], bias[2 * c], 0
                )
                h[p * channels + 2 * c + 1] = next_value(
                    h[p * channels + 2 * c + 1], z[p * stored + 2 * c + 1], bias[2 * c + 1], 1
                )
            if T.bool(odd == 1):
                h[p * channels + channels - 1] = next_value(
                    h[p * channels + channels - 1],
                    z[p * stored + channels - 1],
                    bias[channels - 1],
                    0,
                )

    params = (table("z_p", width), table("bias_p", "int32"), pointer("h_p", "int32"))
    return make_kernel(symbol, params, paired if biased else each)


def amplify(symbol: str, *, units: int, amplification: Shifts) -> Kernel:
    """h <- amp(h), in the steps of a window in which nothing arrives any more."""

    @T.prim_func
    def main(h_p: T.handle("int32")):
        h = T.decl_buffer((units,), "int32", data=h_p)
        for i in range(units):
            h[i] = amplified(h[i], amplification)

    return make_kernel(symbol, (pointer("h_p", "int32"),), main)


def tsa_fire(
    symbol: str,
    *,
    source: Shape,
    pool: Pair,
    stride: Pair,
    padding: Padding,
    spikes: SpikeMap,
    amplification: Shifts,
    rectified: bool,
    signed: bool,
) -> Kernel:
    """g <- amp(g), o = max(h of the window, and 0 if rectified) - g, spikes, g <- g + s v; out[0] = events.

    h int32 of shape `source`, g int32 of the pooled map, amplitudes v int32[channels]; spikes: of one sign.
    """
    height, width, channels = source
    (kh, kw), (sy, sx), (top, left, bottom, right) = pool, stride, padding
    oh, ow, _ = pool_shape((height + top + bottom, width + left + right, channels), pool, stride)
    word, words, bits = spikes.dtype, spikes.words, spikes.bits
    half, lowest = spikes.positions * words, -(2**31)
    single = pool == (1, 1) and stride == (1, 1)
    padded = any(padding)

    def least(v: Any) -> Any:
        return T.shift_right(v, T.int32(1)) if signed else v

    @T.inline
    def peak(best: Any, h: Any, y: Any, x: Any, c: Any):
        if T.bool(single):
            best[0] = h[(y * width + x) * channels + c]
        else:
            best[0] = lowest
            for j in range(kh):
                for i in range(kw):
                    if T.bool(padded):
                        if T.And(
                            T.And(y * sy + j >= top, y * sy + j < height + top),
                            T.And(x * sx + i >= left, x * sx + i < width + left),
                        ):
                            if (
                                h[((y * sy + j - top) * width + x * sx + i - left) * channels + c]
                                > best[0]
                            ):
                                best[0] = h[
                                    ((y * sy + j - top) * width + x * sx + i - left) * channels + c
                                ]
                    else:
                        if h[((y * sy + j) * width + x * sx + i) * channels + c] > best[0]:
                            best[0] = h[((y * sy + j) * width + x * sx + i) * channels + c]
        if T.bool(rectified):
            if best[0] < 0:
                best[0] = 0

    @T.prim_func
    def main(
        h_p: T.handle("int32"),
        v_p: T.handle("int32"),
        g_p: T.handle("int32"),
        spikes_p: T.handle(word),
        out_p: T.handle("int32"),
    ):
        h = T.decl_buffer((height * width * channels,), "int32", data=h_p)
        v = T.decl_buffer((channels,), "int32", data=v_p)
        g = T.decl_buffer((oh * ow * channels,), "int32", data=g_p)
        spiked = T.decl_buffer((2 * half,), word, data=spikes_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        plus = T.alloc_buffer((1,), "uint32")
        minus = T.alloc_buffer((1,), "uint32")
        best = T.alloc_buffer((1,), "int32")
        last = T.alloc_buffer((1,), "int32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for y in range(oh):
            for x in range(ow):
                for k in range(words):
                    plus[0] = T.uint32(0)
                    minus[0] = T.uint32(0)
                    for j in range(T.min(channels - k * bits, bits)):
                        c: T.let = k * bits + j
                        peak(best, h, y, x, c)
                        last[0] = amplified(g[(y * ow + x) * channels + c], amplification)
                        best[0] = best[0] - last[0]
                        if best[0] >= least(v[c]):
                            plus[0] = T.bitwise_or(
                                plus[0], T.shift_left(T.uint32(1), T.Cast("uint32", j))
                            )
                            last[0] = last[0] + v[c]
                        elif T.And(T.bool(signed), best[0] <= 0 - least(v[c])):
                            minus[0] = T.bitwise_or(
                                minus[0], T.shift_left(T.uint32(1), T.Cast("uint32", j))
                            )
                            last[0] = last[0] - v[c]
                        g[(y * ow + x) * channels + c] = last[0]
                    spiked[(y * ow + x) * words + k] = T.Cast(word, plus[0])
                    spiked[half + (y * ow + x) * words + k] = T.Cast(word, minus[0])
                    if T.bitwise_or(plus[0], minus[0]) != T.uint32(0):
                        count[0] = count[0] + count_bits(plus[0]) + count_bits(minus[0])
        out[0] = count[0]

    params = (
        table("h_p", "int32"),
        table("v_p", "int32"),
        pointer("g_p", "int32"),
        pointer("spikes_p", word),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def css_lead(symbol: str, *, classes: int, rows: int, pairs: bool) -> Kernel:
    """The leader k decides where U_k - U_j >= needed[row] for all others j; out[0] as of every readout.

    needed int32[rows], or with `pairs` [rows, K, K], of which [row, k, j] holds (exits.lead_needed).
    """
    lead = leading(classes)
    size = rows * classes * classes if pairs else rows

    def at(row: Any, k: Any, j: Any) -> Any:
        return (row * classes + k) * classes + j if pairs else row

    @T.prim_func
    def main(
        u_p: T.handle("int32"),
        needed_p: T.handle("int32"),
        row: T.int32,
        out_p: T.handle("int32"),
    ):
        u = T.decl_buffer((classes,), "int32", data=u_p)
        needed = T.decl_buffer((size,), "int32", data=needed_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        best = T.alloc_buffer((1,), "int32")
        lead(best, u)
        out[0] = best[0] + 1
        for j in range(classes):
            if T.And(
                j != best[0],
                T.Cast("int64", u[best[0]]) - T.Cast("int64", u[j])
                < T.Cast("int64", needed[at(row, best[0], j)]),
            ):
                out[0] = -1 - best[0]

    params = (
        table("u_p", "int32"),
        table("needed_p", "int32"),
        scalar("row"),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def css_narrowed(symbol: str, *, classes: int, units: int, stored: int, weight: str) -> Kernel:
    """The sound exit for beta = 2, narrowed by units of the source whose prefix value is 0 (exits.is_settled).

    reach int32[K, K] is exits.pair_reach, correction int32[K]; weights are those of the output, [units, stored]
    as its style packs them: class k's at place[k], all with the same offset.
    """
    lead = leading(classes)

    @T.prim_func
    def main(
        u_p: T.handle("int32"),
        reach_p: T.handle("int32"),
        correction_p: T.handle("int32"),
        weights_p: T.handle(weight),
        place_p: T.handle("int32"),
        g_p: T.handle("int32"),
        left: T.int32,
        out_p: T.handle("int32"),
    ):
        u = T.decl_buffer((classes,), "int32", data=u_p)
        reach = T.decl_buffer((classes * classes,), "int32", data=reach_p)
        correction = T.decl_buffer((classes,), "int32", data=correction_p)
        weights = T.decl_buffer((units * stored,), weight, data=weights_p)
        place = T.decl_buffer((classes,), "int32", data=place_p)
        g = T.decl_buffer((units,), "int32", data=g_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        best = T.alloc_buffer((1,), "int32")
        taken = T.alloc_buffer((1,), "int32")
        ahead = T.alloc_buffer((1,), "int64")
        scale = T.alloc_buffer((1,), "int64")
        scale[0] = T.shift_left(T.int64(1), T.Cast("int64", left))
        lead(best, u)
        out[0] = best[0] + 1
        for j in range(classes):
            if T.And(j != best[0], out[0] > 0):
                # What j can catch up with while every unit may say anything.
                taken[0] = reach[best[0] * classes + j]
                ahead[0] = (T.Cast("int64", u[best[0]]) - T.Cast("int64", u[j])) * scale[0] + (
                    T.Cast("int64", correction[best[0]]) - T.Cast("int64", correction[j])
                )
                if j < best[0]:
                    ahead[0] = ahead[0] - T.int64(1)
                if ahead[0] < T.Cast("int64", taken[0]) * scale[0] - T.Cast("int64", taken[0]):
                    for i in range(units):
                        if g[i] == 0:
                            taken[0] = taken[0] - T.max(
                                T.Cast("int32", weights[i * stored + place[best[0]]])
                                - T.Cast("int32", weights[i * stored + place[j]]),
                                0,
                            )
                    if ahead[0] < T.Cast("int64", taken[0]) * scale[0] - T.Cast("int64", taken[0]):
                        out[0] = -1 - best[0]

    params = (
        table("u_p", "int32"),
        table("reach_p", "int32"),
        table("correction_p", "int32"),
        table("weights_p", weight),
        table("place_p", "int32"),
        table("g_p", "int32"),
        scalar("left"),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
