"""Front ends: what turns a sensor's signal into rows of a program's input. The definition, in numpy integers.

`log_mel_rows` executes the equations of `ir.LogMel`, every rounding included; the C core (`esnn_log_mel.c`) and
training's features are judged by it, or are it. `make_log_mel` makes the tables.
"""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import ir
from edgesnn.targets.errors import UsageError

MIN_POINTS, MAX_POINTS = 16, 4096
# 256 log2(E + 256) is below it: E < 2^48.
MAX_LOG = 256 * 49
# 256 log2(1 + (i + 1/2) / 64): the fraction of a logarithm by the six bits behind the leading one.
LOG2_TABLE = np.rint(256 * np.log2(1 + (np.arange(64) + 0.5) / 64)).astype(np.int64)


def points(front: ir.LogMel) -> int:
    """N: length of the Fourier transform."""
    return 4 * (len(front.quarter) - 1)


def bands(front: ir.LogMel) -> int:
    """Values of a row."""
    return len(front.offset)


def make_log_mel(
    rate: int,
    *,
    frame: int,
    hop: int,
    bands: int,
    low: float = 20.0,
    high: float | None = None,
    offset: np.ndarray | int = 0,
    gain: int = 1,
) -> ir.LogMel:
    """Tables of a Hann window of `frame` samples and of `bands` triangles between `low` and `high` Hz.

    They are equally wide in mel = 2595 log10(1 + f / 700). high: default rate / 2. UsageError for what makes no
    filter bank.
    """
    high = rate / 2 if high is None else high
    n = max(MIN_POINTS, 1 << (frame - 1).bit_length())
    if frame < 2 or hop < 1 or n > MAX_POINTS:
        raise UsageError(
            f"log-mel: frame {frame} and hop {hop} do not fit; a frame has 2 to {MAX_POINTS}"
        )
    if not 0 <= low < high <= rate / 2 or bands < 1:
        raise UsageError(f"log-mel: {bands} bands from {low:g} to {high:g} Hz do not fit {rate} Hz")
    # Periodic Hann, so that neighbouring frames add up evenly.
    window = np.rint(32767 * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)))
    edges = np.linspace(_mel(low), _mel(high), bands + 2)
    place = (_mel(np.arange(n // 2 + 1) * rate / n) - edges[0]) / (edges[1] - edges[0])
    inside = (place >= 0) & (place < bands + 1)
    band = np.where(inside, np.floor(place), -1).astype(np.int16)
    rise = np.where(inside, np.rint(256 * (place - np.floor(place))), 0).astype(np.int16)
    covered = np.union1d(band[rise > 0], band[inside & (rise < 256)] - 1)
    if not np.isin(np.arange(bands), covered).all():
        raise UsageError(f"log-mel: {bands} bands are too many for {n} points at {rate} Hz")
    return ir.LogMel(
        rate,
        hop,
        window.astype(np.int16),
        quarter_wave(n).astype(np.int32),
        band,
        rise,
        np.broadcast_to(np.asarray(offset, dtype=np.int32), (bands,)).copy(),
        gain,
    )


def quarter_wave(n: int) -> np.ndarray:
    """cos(2 pi i / n) in Q31, i = 0...n/4, 1 cut to 2^31 - 1: int64[n/4 + 1]."""
    wave = np.rint(2.0**31 * np.cos(2 * np.pi * np.arange(n // 4 + 1) / n)).astype(np.int64)
    return np.minimum(wave, 2**31 - 1)


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def log_energies(front: ir.LogMel, samples: np.ndarray) -> np.ndarray:
    """256 log2(E + 256) of every complete frame, int64[rows, bands]; samples int16[n]."""
    length, n = len(front.window), points(front)
    x = np.asarray(samples, dtype=np.int16).reshape(-1)
    if len(x) < length:
        return np.zeros((0, bands(front)), dtype=np.int64)
    starts = np.arange(0, len(x) - length + 1, front.hop)
    out = np.zeros((len(starts), bands(front)), dtype=np.int64)
    for first in range(0, len(starts), 1024):  # bounds the memory
        at = starts[first : first + 1024]
        frames = x[at[:, None] + np.arange(length)].astype(np.int64)
        v = np.zeros((len(at), n), dtype=np.int64)
        v[:, :length] = (frames * front.window) >> 1
        out[first : first + 1024] = _log2(_filtered(front, _power(front, v)))
    return out


def quantise_rows(front: ir.LogMel, energies: np.ndarray) -> np.ndarray:
    """uint8 rows of log energies."""
    scaled = ((energies - front.offset) * front.gain) >> 12
    return np.asarray(np.clip(scaled, 0, 255).astype(np.uint8))


def log_mel_rows(front: ir.LogMel, samples: np.ndarray) -> np.ndarray:
    """uint8[rows, bands] of int16 samples: one row for every complete frame."""
    return quantise_rows(front, log_energies(front, samples))


def _high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """floor(a b / 2^32): the high word of a product."""
    return (a * b) >> 32


def _twiddle(front: ir.LogMel, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2 pi i / N in Q31, 0 <= i <= N/2, from the quarter wave."""
    q = front.quarter.astype(np.int64)
    n = len(q) - 1  # N / 4
    i = np.asarray(i)
    first = i <= n
    cosine = np.where(first, q[np.minimum(i, n)], -q[np.minimum(2 * n - i, n)])
    sine = np.where(first, q[np.maximum(n - i, 0)], q[np.maximum(i - n, 0)])
    return cosine, sine


def _power(front: ir.LogMel, v: np.ndarray) -> np.ndarray:
    """p[k] of windowed samples v int64[frames, N], |v| < 2^29: int64[frames, N/2 + 1].

    A transform of N/2 complex points z[j] = v[2j] + i v[2j + 1], decimated in time, halved in every stage (so
    nothing grows), then untangled into the N/2 + 1 bins of a real signal.
    """
    n = v.shape[1]
    m = n // 2
    bits = m.bit_length() - 1
    order = np.zeros(m, dtype=np.int64)
    for b in range(bits):
        order |= ((np.arange(m) >> b) & 1) << (bits - 1 - b)
    re, im = v[:, 0::2][:, order].copy(), v[:, 1::2][:, order].copy()
    half = 1
    while half < m:
        c, s = _twiddle(front, np.arange(half) * (n // (2 * half)))
        pairs_re, pairs_im = (
            re.reshape(-1, m // (2 * half), 2, half),
            im.reshape(-1, m // (2 * half), 2, half),
        )
        ar, br = pairs_re[:, :, 0].copy() >> 1, pairs_re[:, :, 1].copy()
        ai, bi = pairs_im[:, :, 0].copy() >> 1, pairs_im[:, :, 1].copy()
        tr, ti = _high(br, c) + _high(bi, s), _high(bi, c) - _high(br, s)
        pairs_re[:, :, 0], pairs_re[:, :, 1] = ar + tr, ar - tr
        pairs_im[:, :, 0], pairs_im[:, :, 1] = ai + ti, ai - ti
        half *= 2
    k = np.arange(m + 1)
    ar, ai = re[:, k % m], im[:, k % m]
    br, bi = re[:, (m - k) % m], -im[:, (m - k) % m]
    er, ei = (ar + br) >> 1, (ai + bi) >> 1
    odd_re, odd_im = (ai - bi) >> 1, (br - ar) >> 1  # -i (A - B) / 2
    c, s = _twiddle(front, k)
    xr = (er >> 1) + _high(odd_re, c) + _high(odd_im, s)
    xi = (ei >> 1) + _high(odd_im, c) - _high(odd_re, s)
    return (xr * xr + xi * xi) >> 26


def _filtered(front: ir.LogMel, p: np.ndarray) -> np.ndarray:
    """E[b] of every frame, int64[frames, bands]."""
    count = bands(front)
    matrix = np.zeros((len(front.band), count + 1), dtype=np.int64)
    for k, (b, rise) in enumerate(zip(front.band.tolist(), front.rise.tolist(), strict=True)):
        if b >= 0:
            matrix[k, b] += rise  # band `count` has a falling side only
            if b >= 1:
                matrix[k, b - 1] += 256 - rise
    return p @ matrix[:, :count]


def _log2(energy: np.ndarray) -> np.ndarray:
    """256 log2(E + 256), E int64 below 2^62. The floor is that of one unit of p."""
    e = energy + 256
    n = np.zeros_like(e)
    for shift in (32, 16, 8, 4, 2, 1):
        large = (e >> (n + shift)) > 0
        n = n + np.where(large, shift, 0)
    return n * 256 + LOG2_TABLE[(e >> (n - 6)) & 63]
