"""When a latency-coded net answers, and what: the readouts that lower to the device (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.targets.errors import UsageError

# "selector" is first-spike over membranes with one leak per class (temporal selector decoder, AMOS paper).
EXITS = ("first-spike", "margin", "selector", "rate")
EARLY_EXITS = ("first-spike", "margin", "selector")  # those with a value to choose


@dataclass(frozen=True)
class Decisions:
    """The answers to N samples. labels: int64[N]; steps: int64[N], 1...T; exited: bool[N]."""

    labels: np.ndarray
    steps: np.ndarray
    exited: np.ndarray


def criterion(membranes: np.ndarray, kind: str) -> np.ndarray:
    """What is compared with the readout's value: [T, N] from membranes [T, N, classes].

    "first-spike" and "selector": the largest membrane (some U >= v is a spike); "margin": the largest
    minus the second.
    """
    if kind == "rate":
        raise UsageError("a rate readout has no value: it always takes all steps")
    if kind not in EXITS:
        raise UsageError(f"unknown exit {kind!r}: one of {', '.join(EXITS)}")
    if kind != "margin":
        return np.asarray(membranes.max(axis=-1))
    if membranes.shape[-1] < 2:
        raise UsageError("a margin exit needs at least two classes")
    top = np.partition(membranes, -2, axis=-1)
    return np.asarray(top[..., -1] - top[..., -2])


def decode(membranes: np.ndarray, kind: str, value: float) -> Decisions:
    """Stop at the first step whose criterion reaches `value`; the answer is argmax U there.

    membranes: [T, N, classes], the output membranes U[t] before any reset. Simultaneous output
    spikes are told apart by the largest membrane (LE/TAD paper, eqs. 10-11), equal membranes by the
    lowest index. Without an exit by T the answer is argmax U[T]. kind "rate" never exits and has no
    value: with an output leak of 1 (which the net must have) U[T] is the sum of the currents.
    """
    last, samples = membranes.shape[0] - 1, membranes.shape[1]
    if kind == "rate":
        exited = np.zeros(samples, dtype=bool)
        steps = np.full(samples, last)
    else:
        reached = criterion(membranes, kind) >= value
        exited = np.asarray(reached.any(axis=0))
        steps = np.where(exited, reached.argmax(axis=0), last)
    labels = membranes[steps, np.arange(samples)].argmax(axis=-1)
    return Decisions(labels.astype(np.int64), steps.astype(np.int64) + 1, exited)
