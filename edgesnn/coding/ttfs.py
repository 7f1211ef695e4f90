"""Decoders of output spike times alone, for comparison (AMOS paper, table 4); they do not lower.

Both read S[t, c] = 1 where U[t, c] >= threshold, the membranes U[t] not being reset; t = 0...T-1.
membranes: [T, N, classes]. A sample without any spike has only ties, and class 0 by the lowest index.
"""

from __future__ import annotations

import numpy as np

from edgesnn.coding.readout import Decisions


def tq_ttfs(membranes: np.ndarray, threshold: float) -> Decisions:
    """Class of the earliest spike: argmin_c min{t : S[t, c] = 1}; steps up to that spike, else T.

    First spike without the membrane tie-break, ties to the lowest index (TQ-TTFS, Yang et al. 2024).
    """
    spikes = membranes >= threshold
    steps = membranes.shape[0]
    times = np.where(spikes.any(axis=0), spikes.argmax(axis=0), steps)  # [N, classes], T is never
    first = times.min(axis=-1)
    return Decisions(
        times.argmin(axis=-1).astype(np.int64),
        np.minimum(first + 1, steps).astype(np.int64),
        first < steps,
    )


def twd(membranes: np.ndarray, threshold: float) -> Decisions:
    """Temporal weighting decoding: argmax_c sum_t w[t] S[t, c], w[t] = T - t; always all T steps.

    After ETTFS (Che et al. 2024), which sums the output spikes with weights that fall with time. The AMOS
    paper gives no weights; these are the linear ones. Ties go to the lowest index.
    """
    spikes = membranes >= threshold
    steps, samples = membranes.shape[:2]
    score = np.tensordot(np.arange(steps, 0, -1), spikes.astype(np.int64), axes=1)
    return Decisions(
        score.argmax(axis=-1).astype(np.int64),
        np.full(samples, steps, dtype=np.int64),
        np.zeros(samples, dtype=bool),
    )
