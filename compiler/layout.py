"""How spikes lie in memory and weights in flash.

The spikes of a map in one step are bits, a few words a position: an OR-pool is an OR, an empty position one
comparison, and the memory is a sixteenth of a queue of 16-bit addresses. Only what can emit an address twice
in a step (SumPool, Merge) keeps a queue.

Weights are laid out so that every event's targets are contiguous, with no bounds test inside a row segment.

A convolution with stride s scatters an event at padded position q * s + r only through the taps k = r + j *
s, to outputs q - j. Weights are therefore stored by phase r and, along a row, with j reversed: increasing
addresses are increasing outputs. Dilation is expanded with zero taps; phases are padded with zero taps to
equal length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.compiler import ir


@dataclass(frozen=True)
class SpikeMap:
    """The spikes of a map in one step: channel c of a position is bit c % bits of its word c // bits."""

    shape: ir.Shape

    @property
    def bits(self) -> int:
        """Width of a word: 8, 16 or 32, the narrowest that holds all channels, else 32."""
        return next((b for b in (8, 16) if self.shape[2] <= b), 32)

    @property
    def dtype(self) -> str:
        return f"uint{self.bits}"

    @property
    def words(self) -> int:
        """Words a position."""
        return -(-self.shape[2] // self.bits)

    @property
    def positions(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def plane(self) -> int:
        """Bytes of one step, in whole 32-bit words."""
        return -(-self.positions * self.words * self.bits // 32) * 4


def padded(channels: int, lanes: int) -> int:
    """Channels rounded up to whole groups of `lanes`."""
    return -(-channels // lanes) * lanes


@dataclass(frozen=True)
class ScatterConv:
    """Weights of a convolution laid out for scattering.

    weights: int8 or int16[C_in, sy, sx, taps_y, taps_x, O / groups], taps reversed in x only; contiguous.
    source, target: map shapes; target's channels are padded where asked, without groups with zero weights.
    outputs: O, padded as the weights are. per_group: (C_in / groups, O / groups).
    """

    weights: np.ndarray
    source: ir.Shape
    target: ir.Shape
    stride: tuple[int, int]
    padding: tuple[int, int]  # top, left
    taps: tuple[int, int]
    groups: int
    outputs: int

    @property
    def per_group(self) -> tuple[int, int]:
        return self.source[2] // self.groups, self.outputs // self.groups

    @property
    def strip(self) -> tuple[int, int]:
        """(columns, left margin) of a row buffer that holds every target of every tap, in the map or not."""
        left = self.padding[1] // self.stride[1]
        margin = max(self.taps[1] - 1 - left, 0)
        last = (self.source[1] - 1 + self.padding[1]) // self.stride[1]
        return max(last, self.target[1] - 1) + margin + 1, margin


def scatter_conv(p: ir.Projection, source: ir.Shape, lanes: int = 1) -> ScatterConv:
    """Lay out a projection; a dense one is a 1 x 1 convolution on the flattened map (1, 1, n).

    The output channels are padded to a multiple of `lanes`.
    """
    target = ir.conv_shape(p, source)
    weight = p.weight
    if lanes > 1:
        target = (target[0], target[1], padded(target[2], lanes))
        if isinstance(p, ir.Dense) or p.groups == 1:
            extra = target[2] - weight.shape[0]
            weight = np.pad(weight, [(0, extra), *[(0, 0)] * (weight.ndim - 1)])
    if isinstance(p, ir.Dense):
        weights = np.ascontiguousarray(weight.T).reshape(weight.shape[1], 1, 1, 1, 1, -1)
        flat = (1, 1, ir.size(source))
        return ScatterConv(weights, flat, target, (1, 1), (0, 0), (1, 1), 1, target[2])
    o, kh, kw, i = weight.shape
    (sy, sx), (dy, dx) = p.stride, p.dilation
    full_h, full_w = dy * (kh - 1) + 1, dx * (kw - 1) + 1
    taps_y, taps_x = -(-full_h // sy), -(-full_w // sx)
    expanded = np.zeros((o, taps_y * sy, taps_x * sx, i), dtype=weight.dtype)
    expanded[:, :full_h:dy, :full_w:dx] = weight
    by_phase = expanded.reshape(o, taps_y, sy, taps_x, sx, i)[:, :, :, ::-1]
    # (groups, O/g, jy, ry, jx, rx, I) -> (groups, I, ry, rx, jy, jx, O/g)
    grouped = by_phase.reshape(p.groups, o // p.groups, taps_y, sy, taps_x, sx, i)
    ordered = grouped.transpose(0, 6, 3, 5, 2, 4, 1)
    weights = np.ascontiguousarray(ordered).reshape(
        p.groups * i, sy, sx, taps_y, taps_x, o // p.groups
    )
    pads, taps = (p.padding[0], p.padding[1]), (taps_y, taps_x)
    outputs = o if p.groups > 1 else target[2]
    return ScatterConv(weights, source, target, p.stride, pads, taps, p.groups, outputs)


def row_taps(p: ir.Conv) -> np.ndarray:
    """int64[sy, taps_y + 1]: how many of a phase's first n row taps are weights, not padding or dilation."""
    full, stride = p.dilation[0] * (p.weight.shape[1] - 1) + 1, p.stride[0]
    taps = -(-full // stride)
    real = np.zeros(taps * stride, dtype=np.int64)
    real[: full : p.dilation[0]] = 1
    return np.pad(np.cumsum(real.reshape(taps, stride).T, axis=1), ((0, 0), (1, 0)))


@dataclass(frozen=True)
class Strip:
    """An encoder's weights for a strip of output rows by scatter, as words (micro/esnn_strip.h).

    words: uint32[C_in, sx, groups of taps in y, taps in x, O], taps reversed in x. A word is one weight, or
    with `pairs` those of two rows of taps as int16, the upper row in the low half. O is padded to fours.
    height: taps in y with dilation; conv: the geometry of the strip in memory.
    """

    words: np.ndarray
    pairs: bool
    height: int
    conv: ScatterConv


def strip_layout(p: ir.Projection, source: ir.Shape, *, pairs: bool) -> Strip:
    """Lay out an encoder's weights; groups are not supported. A dense layer is a 1 x 1 convolution."""
    conv = scatter_conv(p, source, 4)
    if isinstance(p, ir.Dense):
        words = conv.weights.astype(np.int64)  # one row of taps: nothing to pair
        return Strip(_two_complement(words), False, 1, conv)
    _, kh, kw, i = p.weight.shape
    (_, sx), (dy, dx) = p.stride, p.dilation
    full_h, taps = dy * (kh - 1) + 1, conv.taps[1]
    rows = full_h + full_h % 2 if pairs else full_h
    expanded = np.zeros((conv.target[2], rows, taps * sx, i), dtype=np.int64)
    expanded[: p.weight.shape[0], :full_h:dy, : dx * (kw - 1) + 1 : dx] = p.weight
    by_phase = expanded.reshape(conv.target[2], rows, taps, sx, i)[:, :, ::-1]
    ordered = by_phase.transpose(4, 3, 1, 2, 0)  # I, rx, ky, jx, O
    if pairs:
        ordered = (ordered[:, :, 0::2] & 0xFFFF) | (ordered[:, :, 1::2] & 0xFFFF) << 16
    return Strip(_two_complement(ordered), pairs, full_h, conv)


def _two_complement(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values & 0xFFFFFFFF).astype(np.uint32)


@dataclass(frozen=True)
class Gather:
    """An encoder's weights for dot products of int8 vectors (micro/esnn_gather.h).

    weights: int8[O, 16 * chunks], a patch's taps in order (y, x, channel), then zeros; O is padded to fours.
    taps: (rows, bytes of a row) with dilation. before, line: bytes of padding before a row, of a padded row.
    """

    weights: np.ndarray
    taps: tuple[int, int]
    before: int
    line: int
    conv: ScatterConv

    @property
    def chunks(self) -> int:
        return self.weights.shape[1] // 16

    def scratch(self, pool: ir.Pair) -> int:
        """Bytes that one row of pooled outputs needs: best sums, busy columns, padded rows, patches."""
        rows = (pool[0] - 1) * self.conv.stride[0] + self.taps[0]
        parts = (4 * self.conv.target[2], self.line + 16, rows * self.line + 16)
        return sum(padded(n, 16) for n in parts) + pool[0] * pool[1] * 16 * self.chunks + 32


def gather_layout(p: ir.Projection, source: ir.Shape) -> Gather:
    """Lay out an encoder's weights; groups are not supported. A dense layer is a 1 x 1 convolution."""
    conv = scatter_conv(p, source, 4)
    if isinstance(p, ir.Dense):
        taken, full_w = p.weight[:, None, None, :], 1
    else:
        _, kh, kw, i = p.weight.shape
        (dy, dx), full_w = p.dilation, p.dilation[1] * (kw - 1) + 1
        taken = np.zeros((p.weight.shape[0], dy * (kh - 1) + 1, full_w, i), dtype=np.int8)
        taken[:, ::dy, ::dx] = p.weight
    channels = conv.source[2]
    flat = taken.reshape(taken.shape[0], -1)
    weights = np.zeros((conv.target[2], padded(flat.shape[1], 16)), dtype=np.int8)
    weights[: flat.shape[0], : flat.shape[1]] = flat
    before = conv.padding[1] * channels
    # The last window may begin beyond the samples: a row ends where its taps do.
    reach = ((conv.target[1] - 1) * conv.stride[1] + full_w) * channels
    line = max(reach, before + conv.source[1] * channels)
    return Gather(weights, (taken.shape[1], full_w * channels), before, line, conv)
