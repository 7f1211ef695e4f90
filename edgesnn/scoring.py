"""What the detections in a labelled recording are worth: right answers, and how long they took."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgesnn.data.recording import Recording


@dataclass(frozen=True)
class ClassScore:
    """Intervals of one class: how many, answered right, answered by nothing; wrong answers by class name."""

    intervals: int
    right: int
    missed: int
    wrong: dict[str, int]


@dataclass(frozen=True)
class Score:
    """The answers to a recording's intervals.

    answered: intervals with a detection. extra: further detections before the next interval. false_alarms:
    detections before the first interval. from_start, from_end: milliseconds of signal from an interval's start
    (end) to its answer, of the answered ones, in order; an answer before the end is negative there.
    """

    intervals: int
    right: int
    answered: int
    extra: int
    false_alarms: int
    from_start: tuple[float, ...] = ()
    from_end: tuple[float, ...] = ()
    classes: dict[str, ClassScore] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of the intervals that are answered right, 0...1."""
        return self.right / self.intervals

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `latency_ms` has mean, p50 and p95 of both, null where nothing is answered."""
        return {
            "intervals": self.intervals,
            "right": self.right,
            "accuracy": self.accuracy,
            "answered": self.answered,
            "extra": self.extra,
            "false_alarms": self.false_alarms,
            "latency_ms": {
                "from_start": _figures(self.from_start),
                "from_end": _figures(self.from_end),
            },
            "classes": {
                name: {
                    "intervals": one.intervals,
                    "right": one.right,
                    "missed": one.missed,
                    "wrong": one.wrong,
                }
                for name, one in self.classes.items()
            },
        }


def score(
    intervals: np.ndarray,
    labels: np.ndarray,
    length: int,
    detections: Sequence[tuple[int, int]],
    *,
    class_names: Sequence[str],
    background: Collection[int] = (),
    unit_ms: float = 1.0,
) -> Score:
    """Judge detections (time, class), times not descending, by labelled intervals int64[k, 2] of a signal.

    The answer to interval i is the first detection with start[i] < time <= start[i + 1], of the last one up to
    `length`. Without one the interval is right only where its label is a background class: there saying nothing
    is the answer. All times are in the signal's units, each of `unit_ms` milliseconds.
    """
    starts = intervals[:, 0].tolist()
    ends = [*starts[1:], length]
    answers: list[tuple[int, int] | None] = [None] * len(starts)
    extra = false_alarms = 0
    i = -1  # the interval whose span has been reached
    for time, label in detections:
        while i + 1 < len(starts) and time > starts[i + 1]:
            i += 1
        if i < 0:
            false_alarms += 1
        elif answers[i] is not None or time > ends[i]:
            extra += 1
        else:
            answers[i] = (time, label)
    right = [_is_right(int(y), a, background) for y, a in zip(labels, answers, strict=True)]
    found = [(a[0], span) for a, span in zip(answers, intervals.tolist(), strict=True) if a]
    return Score(
        len(starts),
        sum(right),
        len(found),
        extra,
        false_alarms,
        tuple((time - start) * unit_ms for time, (start, _) in found),
        tuple((time - end) * unit_ms for time, (_, end) in found),
        _by_class(labels, answers, right, class_names),
    )


def score_recording(
    recording: Recording,
    detections: Sequence[tuple[int, int]],
    background: Collection[int],
    unit_seconds: float,
) -> Score:
    """`score` of a recording, of whose units each is so many seconds."""
    return score(
        recording.intervals,
        recording.labels,
        recording.length,
        detections,
        class_names=recording.class_names,
        background=background,
        unit_ms=1e3 * unit_seconds,
    )


def _is_right(label: int, answer: tuple[int, int] | None, background: Collection[int]) -> bool:
    return label in background if answer is None else label == answer[1]


def _by_class(
    labels: np.ndarray,
    answers: Sequence[tuple[int, int] | None],
    right: Sequence[bool],
    names: Sequence[str],
) -> dict[str, ClassScore]:
    out = {}
    for label in sorted(set(labels.tolist())):
        mine = [i for i, y in enumerate(labels) if y == label]
        wrong: dict[str, int] = {}
        for i in mine:
            answer = answers[i]
            if not right[i] and answer is not None:
                wrong[names[answer[1]]] = wrong.get(names[answer[1]], 0) + 1
        missed = sum(answers[i] is None and not right[i] for i in mine)
        out[names[label]] = ClassScore(len(mine), sum(right[i] for i in mine), missed, wrong)
    return out


def _figures(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    array = np.array(values)
    p50, p95 = np.percentile(array, [50, 95], method="inverted_cdf")
    return {"mean": float(array.mean()), "p50": float(p50), "p95": float(p95)}
