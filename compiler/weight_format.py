"""Weight formats: which whole numbers a weight may be, and the scale that fits a channel best.

    int2 ... int8   -L ... L with L = 2^(bits - 1) - 1
    ternary         -1, 0, 1 (int2 under its usual name)
    power-of-two    0 and sign * 2^k with k = 0 ... 6

A weight w stands for scale * integer. Seven and eight bits take the scale from the largest weight. Below, the
scale minimises the squared error sum (w - scale * integer(w))^2: for three levels exactly, else over a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.targets.errors import UsageError

WEIGHT_FORMATS = ("int8", "int6", "int4", "ternary", "power-of-two")
_LIMITS = {"ternary": 1, "power-of-two": 64, **{f"int{n}": (1 << (n - 1)) - 1 for n in range(2, 9)}}
# Largest integer times scale, as a share of the largest weight.
_CLIPS = np.linspace(1.0, 0.4, 13)
_POWER_CLIPS = 2.0 ** np.linspace(0.5, -1.0, 16)


@dataclass(frozen=True)
class WeightFormat:
    """One format. limit: the largest integer."""

    name: str

    @property
    def limit(self) -> int:
        return _LIMITS[self.name]

    def integers(self, w: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """The nearest integers of the format to w / scale: float64[C, ...], float64[C] -> int8[C, ...]."""
        ratio = w / scale.reshape(-1, *([1] * (w.ndim - 1)))
        return self._nearest(ratio).astype(np.int8)

    def scales(self, w: np.ndarray, empty: float | np.ndarray) -> np.ndarray:
        """A scale > 0 per output channel of w float64[C, ...]; `empty` for channels of zeros."""
        flat = w.reshape(len(w), -1)
        top = np.abs(flat).max(axis=1)
        if self.limit > 31 and self.name != "power-of-two":
            return np.where(top > 0, top / self.limit, empty)
        # A channel of zeros takes part with scale 1: all its errors are 0.
        safe = np.where(top > 0, top, 1.0)
        best = _ternary_scales(flat) if self.limit == 1 else self._searched(flat, safe)
        return np.where(top > 0, best, empty)

    def _nearest(self, ratio: np.ndarray) -> np.ndarray:
        if self.name != "power-of-two":
            return np.clip(np.rint(ratio), -self.limit, self.limit)
        _, exponent = np.frexp(np.abs(ratio) * (4 / 3))  # 2^k is nearest in [0.75, 1.5) 2^k
        power = np.ldexp(1.0, np.clip(exponent - 1, 0, 6))
        return np.sign(ratio) * np.where(np.abs(ratio) < 0.5, 0.0, power)

    def _searched(self, flat: np.ndarray, top: np.ndarray) -> np.ndarray:
        best = error = np.zeros(0)
        for clip in _POWER_CLIPS if self.name == "power-of-two" else _CLIPS:
            scale = top * (clip / self.limit)
            miss = flat - self._nearest(flat / scale[:, None]) * scale[:, None]
            square = np.einsum("ci,ci->c", miss, miss)
            if not best.size:
                best, error = scale, square
            best = np.where(square < error, scale, best)
            error = np.minimum(square, error)
        return best


def _ternary_scales(flat: np.ndarray) -> np.ndarray:
    """The exact optimum: with the n largest |w| at +-scale the best scale is their mean and the error

    sum w^2 - (sum of the n largest |w|)^2 / n; every n is tried.
    """
    falling = -np.sort(-np.abs(flat), axis=1)
    count = np.arange(1, flat.shape[1] + 1)
    total = falling.cumsum(axis=1)
    chosen = (total**2 / count).argmax(axis=1)
    return np.asarray(total[np.arange(len(flat)), chosen] / count[chosen])


def weight_format(name: str) -> WeightFormat:
    """The format of that name; UsageError naming the choices."""
    if name not in _LIMITS:
        raise UsageError(f"unknown weight format {name!r}: one of {', '.join(WEIGHT_FORMATS)}")
    return WeightFormat(name)
