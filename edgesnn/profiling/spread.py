"""Mean and percentiles of measured values."""

from __future__ import annotations

import numpy as np


def spread(values: np.ndarray) -> dict[str, float]:
    """mean, p50, p95, p99, max; a percentile is a value that occurred (nearest rank).

    >>> spread(np.array([1, 2, 3, 10]))["p50"]
    2.0
    """
    ranks = {f"p{q}": float(np.percentile(values, q, method="inverted_cdf")) for q in (50, 95, 99)}
    return {"mean": float(values.mean()), **ranks, "max": float(values.max())}
