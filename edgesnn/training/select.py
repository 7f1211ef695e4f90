"""Choose the readout's value on validation data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.coding.readout import criterion

CANDIDATES = np.arange(1, 65) * 0.25  # membrane units
TOLERANCE = 0.001  # accuracy given up for speed, as a fraction; at least one sample


@dataclass(frozen=True)
class Chosen:
    """value of the exit, and what it does on the data it was chosen on."""

    value: float
    accuracy: float
    mean_steps: float


def select_exit(membranes: np.ndarray, y: np.ndarray, kind: str) -> Chosen:
    """The value with the fewest mean steps within 0.1 points (or one sample) of the best accuracy.

    membranes: float[T, N, classes] on validation samples, y: int64[N]. Candidates are 0.25,
    0.5 ... 16; equal steps go to the higher accuracy, then to the larger value.
    """
    reached = criterion(membranes, kind)
    correct = membranes.argmax(axis=-1) == y
    last = membranes.shape[0] - 1
    columns = np.arange(len(y))
    tried = []
    for value in CANDIDATES:
        out = reached >= value
        steps = np.where(out.any(axis=0), out.argmax(axis=0), last)
        tried.append(
            Chosen(float(value), float(correct[steps, columns].mean()), float((steps + 1).mean()))
        )
    best = max(c.accuracy for c in tried)
    # The slack is for the last bit of the means, not for accuracy.
    good = [c for c in tried if c.accuracy >= best - max(TOLERANCE, 1 / len(y)) - 1e-9]
    return min(good, key=lambda c: (c.mean_steps, -c.accuracy, -c.value))
