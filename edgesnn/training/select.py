"""Choose the readout's value on validation data (numpy only)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgesnn.coding.readout import criterion
from edgesnn.targets.errors import UsageError

CANDIDATES = np.arange(1, 65) * 0.25  # membrane units
FINE = 256  # quantiles tried besides, for a wanted accuracy or step count
TOLERANCE = 0.001  # accuracy given up for speed, as a fraction; at least one sample
SMALL_SET = 5000  # samples of train; below, a larger share is held out
SMALL_VAL_FRACTION = 0.15
VAL_FRACTION = 1.0 / 12.0
_SLACK = 1e-9  # for the last bit of the means, not for accuracy


@dataclass(frozen=True)
class Chosen:
    """value of the exit, and what it does on the data it was chosen on.

    accuracy: 0...1; mean_steps: 1...T; met: whether the wanted accuracy or step count was reached.
    """

    value: float
    accuracy: float
    mean_steps: float
    met: bool = True


def select_exit(
    membranes: np.ndarray,
    y: np.ndarray,
    kind: str,
    *,
    accuracy: float | None = None,
    steps: float | None = None,
    must_exit: bool = False,
    copies: int = 1,
) -> Chosen:
    """The value of exit `kind` on validation samples; membranes: [T, N, classes], y: int64[N].

    accuracy: the fewest mean steps that reach it, else the most accurate value, `met` False. steps: the
    most accurate value of at most so many mean steps, else the fastest, `met` False. Neither: the fewest
    mean steps within 0.1 points (or one sample) of the best accuracy, of the values 0.25, 0.5 ... 16.
    Equal steps go to the higher accuracy, then to the larger value. A rate readout has no value (0).
    must_exit: as in `trade_off`. copies: how often each sample stands in y, changed a little; together they are
    one sample.
    """
    check_wanted(accuracy, steps)
    if kind == "rate":
        right = float((membranes[-1].argmax(axis=-1) == y).mean())
        front = [Chosen(0.0, right, float(len(membranes)))]
    else:
        fine = accuracy is not None or steps is not None
        values = fine_candidates(membranes, kind) if fine else CANDIDATES
        front = trade_off(membranes, y, kind, values, must_exit)
    return pick(front, len(y) // copies, accuracy=accuracy, steps=steps)


def check_wanted(accuracy: float | None, steps: float | None) -> None:
    """UsageError for a wanted accuracy or mean step count that makes no sense."""
    if accuracy is not None and steps is not None:
        raise UsageError("name an --accuracy or a number of --steps, not both")
    if accuracy is not None and not 0.0 < accuracy <= 1.0:
        raise UsageError(f"accuracy {accuracy:g} is not a fraction above 0, up to 1, such as 0.99")
    if steps is not None and not (math.isfinite(steps) and steps >= 1.0):
        raise UsageError(f"steps {steps:g}: a mean number of steps is at least 1")


def default_val_fraction(samples: int) -> float:
    """The share of a train split of so many samples that training holds out unless told otherwise."""
    return SMALL_VAL_FRACTION if samples < SMALL_SET else VAL_FRACTION


def trade_off(
    membranes: np.ndarray, y: np.ndarray, kind: str, values: np.ndarray, must_exit: bool = False
) -> list[Chosen]:
    """What the values do, without those that another one beats: more steps, more accuracy.

    must_exit: a sample without an exit is wrong, for in a stream of events it gets no answer.
    """
    reached = criterion(membranes, kind)
    correct = membranes.argmax(axis=-1) == y
    last = membranes.shape[0] - 1
    columns = np.arange(len(y))
    tried = []
    for value in values:
        out = reached >= value
        exited = out.any(axis=0)
        steps = np.where(exited, out.argmax(axis=0), last)
        right = correct[steps, columns] & (exited | (not must_exit))
        tried.append(Chosen(float(value), float(right.mean()), float((steps + 1).mean())))
    tried.sort(key=lambda c: (c.mean_steps, -c.accuracy, -c.value))
    front = tried[:1]
    for c in tried[1:]:
        if c.accuracy > front[-1].accuracy:
            front.append(c)
    return front


def pick(
    front: Sequence[Chosen],
    samples: int,
    *,
    accuracy: float | None = None,
    steps: float | None = None,
) -> Chosen:
    """The choice of `select_exit` from a trade-off measured on so many samples."""
    if steps is not None:
        fast = [c for c in front if c.mean_steps <= steps + _SLACK]
        return fast[-1] if fast else replace(front[0], met=False)
    best = front[-1]
    if accuracy is None:
        least = best.accuracy - max(TOLERANCE, 1 / samples)
    elif best.accuracy < accuracy - _SLACK:
        return replace(best, met=False)
    else:
        least = accuracy
    return next(c for c in front if c.accuracy >= least - _SLACK)


def fine_candidates(membranes: np.ndarray, kind: str) -> np.ndarray:
    """The usual candidates and quantiles of what the exit looks at before the last step, ascending.

    Rounded to about three digits, so that no choice hangs on the last bit of one sample's membrane; whole
    numbers for integer membranes, and then quantiles alone: those have a scale of their own. All above 0.
    """
    reached = criterion(membranes, kind)
    early = reached[:-1] if len(reached) > 1 else reached
    at = np.quantile(early.astype(np.float64), np.linspace(0.0, 1.0, FINE + 1))
    if np.issubdtype(membranes.dtype, np.integer):
        # The value above every membrane is a candidate, too: never exit.
        return np.unique(np.maximum(np.append(np.ceil(at), np.floor(at[-1]) + 1), 1))
    unit = 10.0 ** (math.floor(math.log10(max(at[-1], 1e-6))) - 3)
    values = np.union1d(np.round(at / unit) * unit, CANDIDATES)
    return np.asarray(values[values > 0.0])
