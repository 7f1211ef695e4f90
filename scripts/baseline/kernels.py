"""TIR kernels of the dense baseline: direct convolution without im2col, channel-last, on padded maps.

A tile of output pixels times a block of channels is summed in registers; the weights are laid out so that the
block reads them in a row; a max-pool compares the tile's sums before the one requantisation; every layer writes
into the middle of a map that already has the next one's border, so nothing tests bounds. It is what TVM and a C
compiler make of plain loops: no dual multiply-accumulate of the DSP extension is written here, and GCC finds
none in C.

Maxima are `if`s: of two T.max in a row on one buffer element, TVM's C output lets the second read what was
there before the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script import tirx as T

from baseline.net import HIGHEST, SHIFT, Layer, Pool
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, table

Border = tuple[int, int, int, int]  # top, left, bottom, right
NO_BORDER = (0, 0, 0, 0)


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, min(n, most) + 1) if n % d == 0)


def _tile(layer: Layer, registers: int) -> tuple[int, int, int]:
    """(rows, columns, channels) whose sums are kept at once; with a pool the pixels are its window."""
    rows, columns = layer.pool
    if rows * columns == 1:
        columns = min(max(1, registers // 2), 4, layer.target[1])
    per_group = layer.weight.shape[0] // layer.groups
    return rows, columns, _divisor(per_group, max(1, registers // (rows * columns)))


def packed_weights(layer: Layer, registers: int) -> np.ndarray:
    """int8, flat, in the order [block of channels, ky, kx, i, channel of the block]"""
    block = _tile(layer, registers)[2]
    o, kh, kw, i = layer.weight.shape
    w = layer.weight.reshape(o // block, block, kh, kw, i)
    return np.ascontiguousarray(w.transpose(0, 2, 3, 4, 1)).reshape(-1)


def _requantised(total: Any, multiplier: Any) -> Any:
    """clip(total * multiplier >> 32, 0, 127), rounded"""
    product = T.Cast("int64", total) * T.Cast("int64", multiplier)
    rounded = T.shift_right(product + T.int64(1 << (SHIFT - 1)), T.int64(SHIFT))
    return T.Cast("int8", T.min(T.max(T.Cast("int32", rounded), 0), HIGHEST))


def conv(symbol: str, layer: Layer, border: Border, registers: int) -> Kernel:
    """Convolution (or dense layer), max-pool, requantisation and ReLU; `border` is that of the output's map.

    registers: how many sums to keep at a time.
    """
    _, width, channels = layer.source
    top, left, bottom, right = layer.padding
    height = layer.source[0] + top + bottom
    width += left + right
    oh, ow, co = layer.target
    kh, kw, inputs = layer.weight.shape[1:]
    (sy, sx), (dy, dx), (py, px) = layer.stride, layer.dilation, layer.pool
    rows, columns, block = _tile(layer, registers)
    pixels, pooled = rows * columns, py * px > 1
    # Without a pool a tile is a row of pixels; the last one may overlap the one before.
    tiles, step, last = (ow, px, ow * px) if pooled else (-(-ow // columns), columns, ow - columns)
    # Taps of a row are neighbours in memory unless they are dilated or of one group of several.
    joined = dx == 1 and layer.groups == 1
    segments, length = (1, kw * inputs) if joined else (kw, inputs)
    unroll = _divisor(length, 8)
    per_group = co // layer.groups
    taps = kh * kw * inputs
    final = layer.multiplier is None
    out = "int32" if final else "int8"
    out_width, out_total = ow + border[1] + border[3], border[0] + oh + border[2]
    # Unsigned where that makes no difference: the smallest cores load signed bytes in two instructions.
    dtype = "uint8" if layer.rectified else layer.dtype
    out_top, out_left = border[0], border[1]
    results = 1 if pooled else pixels
    window = pixels if pooled else 1

    @T.prim_func
    def main(
        x_p: T.handle(dtype),
        weights_p: T.handle("int8"),
        bias_p: T.handle("int32"),
        multiplier_p: T.handle("int32"),
        y_p: T.handle(out),
    ):
        x = T.decl_buffer((height * width * channels,), dtype, data=x_p)
        weights = T.decl_buffer((co * taps,), "int8", data=weights_p)
        bias = T.decl_buffer((co,), "int32", data=bias_p)
        multiplier = T.decl_buffer((co,), "int32", data=multiplier_p)
        y = T.decl_buffer((out_total * out_width * co,), out, data=y_p)
        sums = T.alloc_buffer((pixels * block,), "int32")
        for oy in range(oh):
            for tile in range(tiles):
                ox: T.let = T.min(tile * step, last)
                for part in range(T.truncdiv(co, block)):
                    first: T.let = T.truncdiv(part * block, per_group) * inputs
                    for i in T.unroll(pixels * block):
                        sums[i] = bias[part * block + T.truncmod(i, block)]
                    for ky in range(kh):
                        for s in range(segments):
                            for j in range(T.truncdiv(length, unroll)):
                                at: T.let = (
                                    ((oy * py * sy + ky * dy) * width + ox * sx + s * dx) * channels
                                    + first
                                    + j * unroll
                                )
                                tap: T.let = (
                                    part * taps + (ky * segments + s) * length + j * unroll
                                ) * block
                                for u in T.unroll(unroll):
                                    for p in T.unroll(pixels):
                                        v: T.let = T.Cast(
                                            "int32",
                                            x[
                                                at
                                                + u
                                                + (
                                                    T.truncdiv(p, columns) * sy * width
                                                    + T.truncmod(p, columns) * sx
                                                )
                                                * channels
                                            ],
                                        )
                                        for b in T.unroll(block):
                                            sums[p * block + b] = sums[p * block + b] + v * T.Cast(
                                                "int32", weights[tap + u * block + b]
                                            )
                    for q in T.unroll(results):
                        for b in T.unroll(block):
                            for p in T.unroll(window - 1):
                                if sums[q * block + b] < sums[(q + p + 1) * block + b]:
                                    sums[q * block + b] = sums[(q + p + 1) * block + b]
                            into: T.let = (
                                ((oy + out_top) * out_width + T.truncdiv(ox, px) + q + out_left)
                                * co
                                + part * block
                                + b
                            )
                            if T.bool(final):
                                y[into] = T.Cast(out, sums[q * block + b])
                            else:
                                y[into] = _requantised(
                                    sums[q * block + b], multiplier[part * block + b]
                                )

    params = (
        table("x_p", dtype),
        table("weights_p", "int8"),
        table("bias_p", "int32"),
        table("multiplier_p", "int32"),
        pointer("y_p", out),
    )
    return make_kernel(symbol, params, main)


VECTOR = 16  # bytes
VECTOR_SUMS = 8  # twice the sums that `dot` keeps: a pixel's samples are read once for all channels


def takes_dot(layer: Layer) -> bool:
    """Whether `dot` has this layer: taps of a row are neighbours, samples have 8 bits."""
    return layer.dilation[1] == 1 and layer.groups == 1 and layer.dtype != "int16"


def _gathers(layer: Layer) -> bool:
    taps = layer.weight[0].size
    return layer.source[:2] != (1, 1) or layer.dtype != "int8" or taps % VECTOR != 0


def _rounded(taps: int) -> int:
    return -(-taps // VECTOR) * VECTOR


def dot_weights(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """(int8 [output, taps rounded up to whole vectors], bias of samples that are shifted to int8)."""
    o = len(layer.weight)
    flat = layer.weight.reshape(o, -1)
    taps = flat.shape[1]
    weights = np.zeros((o, _rounded(taps)), np.int8)
    weights[:, :taps] = flat
    shift = 128 if layer.dtype == "uint8" else 0
    bias = layer.bias + shift * flat.sum(1, dtype=np.int32)
    return weights.reshape(-1), bias.astype(np.int32)


def dot_scratch(layer: Layer) -> int:
    """Bytes of scratch: the samples of a tile, pixel by pixel."""
    rows, columns, _ = _tile(layer, VECTOR_SUMS)
    return rows * columns * _rounded(layer.weight[0].size) if _gathers(layer) else 0


def dot(symbol: str, layer: Layer, border: Border) -> Kernel:
    """As `conv`, for vector machines: a tile's samples are gathered, then one dot product per sum."""
    _, width, channels = layer.source
    top, left, bottom, right = layer.padding
    height = layer.source[0] + top + bottom
    width += left + right
    oh, ow, co = layer.target
    kh, kw, inputs = layer.weight.shape[1:]
    (sy, sx), dy, (py, px) = layer.stride, layer.dilation[0], layer.pool
    rows, columns, _ = _tile(layer, VECTOR_SUMS)
    pixels, pooled = rows * columns, py * px > 1
    block = _divisor(co, max(1, 4 // pixels))
    tiles, step, last = (ow, px, ow * px) if pooled else (-(-ow // columns), columns, ow - columns)
    length, taps = kw * inputs, _rounded(kh * kw * inputs)
    gathers, dtype = _gathers(layer), layer.dtype
    shift = 128 if dtype == "uint8" else 0
    final = layer.multiplier is None
    out = "int32" if final else "int8"
    out_width, out_height = ow + border[1] + border[3], border[0] + oh + border[2]
    out_top, out_left = border[0], border[1]
    results, window = (1, pixels) if pooled else (pixels, 1)
    scratch = max(1, dot_scratch(layer))

    @T.prim_func
    def main(
        x_p: T.handle(dtype),
        scratch_p: T.handle("int8"),
        weights_p: T.handle("int8"),
        bias_p: T.handle("int32"),
        multiplier_p: T.handle("int32"),
        y_p: T.handle(out),
    ):
        x = T.decl_buffer((height * width * channels,), dtype, data=x_p)
        patch = T.decl_buffer((scratch,), "int8", data=scratch_p)
        weights = T.decl_buffer((co * taps,), "int8", data=weights_p)
        bias = T.decl_buffer((co,), "int32", data=bias_p)
        multiplier = T.decl_buffer((co,), "int32", data=multiplier_p)
        y = T.decl_buffer((out_height * out_width * co,), out, data=y_p)
        sums = T.alloc_buffer((pixels * block,), "int32")
        for oy in range(oh):
            for tile in range(tiles):
                ox: T.let = T.min(tile * step, last)
                if T.bool(gathers):
                    for p in T.unroll(pixels):
                        for ky in range(kh):
                            for i in range(length):
                                patch[p * taps + ky * length + i] = T.Cast(
                                    "int8",
                                    T.Cast(
                                        "int32",
                                        x[
                                            (
                                                ((oy * py + T.truncdiv(p, columns)) * sy + ky * dy)
                                                * width
                                                + (ox + T.truncmod(p, columns)) * sx
                                            )
                                            * channels
                                            + i
                                        ],
                                    )
                                    - shift,
                                )
                for part in range(T.truncdiv(co, block)):
                    for i in T.unroll(pixels * block):
                        sums[i] = bias[part * block + T.truncmod(i, block)]
                    for k in range(taps):
                        for p in T.unroll(pixels):
                            for b in T.unroll(block):
                                if T.bool(gathers):
                                    sums[p * block + b] = sums[p * block + b] + T.Cast(
                                        "int32", patch[p * taps + k]
                                    ) * T.Cast("int32", weights[(part * block + b) * taps + k])
                                else:
                                    sums[p * block + b] = sums[p * block + b] + T.Cast(
                                        "int32", x[k]
                                    ) * T.Cast("int32", weights[(part * block + b) * taps + k])
                    for q in T.unroll(results):
                        for b in T.unroll(block):
                            for p in T.unroll(window - 1):
                                if sums[q * block + b] < sums[(q + p + 1) * block + b]:
                                    sums[q * block + b] = sums[(q + p + 1) * block + b]
                            into: T.let = (
                                ((oy + out_top) * out_width + T.truncdiv(ox, px) + q + out_left)
                                * co
                                + part * block
                                + b
                            )
                            if T.bool(final):
                                y[into] = T.Cast(out, sums[q * block + b])
                            else:
                                y[into] = _requantised(
                                    sums[q * block + b], multiplier[part * block + b]
                                )

    params = (
        table("x_p", dtype),
        pointer("scratch_p", "int8"),
        table("weights_p", "int8"),
        table("bias_p", "int32"),
        table("multiplier_p", "int32"),
        pointer("y_p", out),
    )
    return make_kernel(symbol, params, main)


def pool(symbol: str, layer: Pool, border: Border) -> Kernel:
    """Max-pool or rounded mean of any window and stride, from a map without border into one with `border`."""
    height, width, c = layer.source
    oh, ow, _ = layer.target
    (kh, kw), (sy, sx) = layer.kernel, layer.stride
    out_width, out_height = ow + border[1] + border[3], oh + border[0] + border[2]
    out_top, out_left = border[0], border[1]
    multiplier, mean = layer.multiplier, layer.mean

    @T.prim_func
    def largest(x_p: T.handle("int8"), y_p: T.handle("int8")):
        x = T.decl_buffer((height * width * c,), "int8", data=x_p)
        y = T.decl_buffer((out_height * out_width * c,), "int8", data=y_p)
        best = T.alloc_buffer((1,), "int32")
        for oy in range(oh):
            for ox in range(ow):
                for k in range(c):
                    best[0] = -128
                    for ky in T.unroll(kh):
                        for kx in T.unroll(kw):
                            v: T.let = T.Cast(
                                "int32", x[((oy * sy + ky) * width + ox * sx + kx) * c + k]
                            )
                            if best[0] < v:
                                best[0] = v
                    y[((oy + out_top) * out_width + ox + out_left) * c + k] = T.Cast(
                        "int8", best[0]
                    )

    @T.prim_func
    def average(x_p: T.handle("int8"), y_p: T.handle("int8")):
        x = T.decl_buffer((height * width * c,), "int8", data=x_p)
        y = T.decl_buffer((out_height * out_width * c,), "int8", data=y_p)
        total = T.alloc_buffer((1,), "int32")
        for oy in range(oh):
            for ox in range(ow):
                for k in range(c):
                    total[0] = 0
                    for ky in T.unroll(kh):
                        for kx in T.unroll(kw):
                            total[0] = total[0] + T.Cast(
                                "int32", x[((oy * sy + ky) * width + ox * sx + kx) * c + k]
                            )
                    y[((oy + out_top) * out_width + ox + out_left) * c + k] = T.Cast(
                        "int8", T.shift_right(total[0] * multiplier + 32768, 16)
                    )

    params = (table("x_p", "int8"), pointer("y_p", "int8"))
    return make_kernel(symbol, params, average if mean else largest)


def pad(symbol: str, shape: tuple[int, int, int], dtype: str, border: Border) -> Kernel:
    """Copy a raw frame into the middle of its map."""
    h, w, c = shape
    top, left, bottom, right = border
    width = w + left + right
    total = (h + top + bottom) * width * c

    @T.prim_func
    def main(x_p: T.handle(dtype), y_p: T.handle(dtype)):
        x = T.decl_buffer((h * w * c,), dtype, data=x_p)
        y = T.decl_buffer((total,), dtype, data=y_p)
        for r in range(h):
            for i in range(w * c):
                y[((r + top) * width + left) * c + i] = x[r * (w * c) + i]

    return make_kernel(symbol, (table("x_p", dtype), pointer("y_p", dtype)), main)


def fill(symbol: str, words: int, value: int) -> Kernel:
    """Set a map of `words` 32-bit words to one value: its border, and what is written later anyway."""

    @T.prim_func
    def main(y_p: T.handle("int32")):
        y = T.decl_buffer((words,), "int32", data=y_p)
        for i in range(words):
            y[i] = value

    return make_kernel(symbol, (pointer("y_p", "int32"),), main)
