"""Margins with which a program stops earlier than it could prove to be right."""

from __future__ import annotations

import numpy as np

NEVER = 2**31 - 1


def choose_margins(history: np.ndarray, confidence: float) -> tuple[int, ...]:
    """One margin per output step from U int64[N, P, classes] of calibration samples.

    In every step the least margin is taken with which, of the samples that are still running and that it
    stops, at most 1 - confidence have another class than at the full length (one is added to those that
    differ: none of few is no evidence). So at most that share of all answers differs. The last step stops all.
    """
    n, steps, _ = history.shape
    final = history[:, -1].argmax(axis=1)
    running = np.ones(n, dtype=bool)
    margins = []
    for p in range(steps - 1):
        u = history[running, p]
        two = np.sort(u, axis=1)[:, -2:]
        lead = two[:, 1] - two[:, 0]
        wrong = u.argmax(axis=1) != final[running]
        order = np.argsort(-lead, kind="stable")
        count = np.arange(1, len(order) + 1)
        fits = np.cumsum(wrong[order]) + 1 <= (1.0 - confidence) * (count + 1)
        # A margin stops all samples of the same lead, so only the last of them may be the end.
        fits &= np.append(lead[order][1:] != lead[order][:-1], True) if len(order) else fits
        margin = int(lead[order][np.nonzero(fits)[0][-1]]) if fits.any() else NEVER
        margins.append(margin)
        stopped = np.zeros(n, dtype=bool)
        stopped[running] = lead >= margin
        running &= ~stopped
    return (*margins, 0)
