"""Where windows are cut out of a labelled stream to learn from: whole events, parts of them, rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WHOLE = 0.98  # of which so much is in a window, an event has the label of it
LITTLE = 0.4  # of which less is in a window, an event does not matter


@dataclass(frozen=True, eq=False)
class Labelled:
    """A stream [n, values] or [n] and where its events are.

    spans int64[k, 2]: [first, last) of what was recorded; cores int64[k, 2]: of what makes the event, inside;
    labels int64[k].
    """

    signal: np.ndarray
    spans: np.ndarray
    cores: np.ndarray
    labels: np.ndarray


def core(energy: np.ndarray, tail: float) -> tuple[int, int]:
    """[first, last) of a recording without what holds a share `tail` of its energy at either end."""
    total = np.cumsum(energy, dtype=np.float64)
    first, last = np.searchsorted(total, np.array([tail, 1 - tail]) * total[-1])
    return int(first), int(min(last + 1, len(energy)))


def place(
    starts: np.ndarray,
    length: int,
    said: Labelled,
    background: int,
    random: np.random.Generator,
    *,
    whole: int,
    part: int,
    rest: int,
    most: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Which windows [start, start + length) to learn from, and their labels, int64[n] each.

    Of every event `whole` windows that hold all of it and of no other event; `part` that hold from a tenth to
    `most` of it, its end missing, which are background; and `rest` windows that hold little of any. An event
    longer than a window is whole where it fills it. What has the label background needs to fill a window.
    """
    first, last = said.cores[:, 0], said.cores[:, 1]
    heard = np.minimum(starts[:, None] + length, last) - np.maximum(starts[:, None], first)
    share = np.clip(heard, 0, None) / np.minimum(last - first, length)
    full = share >= WHOLE
    chosen, labels = [], []

    def take(which: np.ndarray, label: int, many: int) -> None:
        found = random.permutation(np.flatnonzero(which))[:many]
        chosen.extend(found.tolist())
        labels.extend([label] * len(found))

    alone = full.sum(axis=1) == 1
    coming = starts[:, None] < first  # the event's beginning is in the window
    for k, label in enumerate(said.labels.tolist()):
        take(alone & full[:, k], label, whole)
        others = np.delete(share, k, axis=1).max(axis=1, initial=0) < LITTLE
        begun = (share[:, k] > 0.1) & (share[:, k] < most)
        take(begun & coming[:, k] & others, background, part)
    take(share.max(axis=1, initial=0) < LITTLE, background, rest)
    return np.array(chosen, dtype=np.int64), np.array(labels, dtype=np.int64)
