"""Least squares with coefficients that are not negative: what a step or an operation costs."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def nonnegative(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients c >= 0, float64[k], with the least |terms @ c - values|^2; terms [N, k], k small.

    The solution has some coefficients at 0 and is the ordinary one in the others: all choices are tried.

    >>> nonnegative(np.array([[1, 1], [1, 2], [1, 3]]), np.array([5, 7, 9])).round(6)
    array([3., 2.])
    >>> nonnegative(np.array([[1, 1], [1, 2], [1, 3]]), np.array([9, 7, 5])).round(6)
    array([7., 0.])
    """
    a, b = terms.astype(np.float64), values.astype(np.float64)
    k = a.shape[1]
    best, least = np.zeros(k), float(b @ b)
    for count in range(1, k + 1):
        for kept in combinations(range(k), count):
            part = a[:, kept]
            scale = np.abs(part).max(axis=0)
            if not scale.all():
                continue
            found = np.linalg.lstsq(part / scale, b, rcond=None)[0] / scale
            rest = b - part @ found
            if (found >= 0).all() and float(rest @ rest) < least:
                best, least = np.zeros(k), float(rest @ rest)
                best[list(kept)] = found
    return best
