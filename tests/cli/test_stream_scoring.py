"""The score of detections in a labelled recording, and what a recording is checked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgesnn.data.recording import Recording
from edgesnn.scoring import Score, score
from edgesnn.targets.errors import EdgesnnError

NAMES = ("rest", "yes", "no")
SPANS = np.array([[100, 200], [300, 400], [500, 600]])


def _score(detections: list[tuple[int, int]], labels: tuple[int, ...] = (1, 2, 0)) -> Score:
    return score(
        SPANS,
        np.array(labels),
        700,
        detections,
        class_names=NAMES,
        background={0},
        unit_ms=0.5,
    )


def test_the_first_detection_after_a_start_is_the_answer() -> None:
    found = _score([(50, 1), (100, 2), (150, 1), (160, 2), (300, 2), (301, 2), (500, 1), (501, 1)])
    # At a start itself a detection still belongs to the span before.
    assert (found.false_alarms, found.extra, found.answered) == (2, 3, 3)
    assert found.right == 2 and found.accuracy == 2 / 3
    assert found.from_start == (25.0, 0.5, 0.5) and found.from_end == (-25.0, -49.5, -49.5)
    assert found.classes["rest"].wrong == {"yes": 1} and found.classes["rest"].right == 0


def test_saying_nothing_is_right_of_background_only() -> None:
    found = _score([])
    assert (found.right, found.answered, found.extra, found.false_alarms) == (1, 0, 0, 0)
    assert [c.missed for c in found.classes.values()] == [0, 1, 1]
    report = found.to_dict()
    assert report["latency_ms"] == {"from_start": None, "from_end": None}
    assert report["classes"]["yes"] == {"intervals": 1, "right": 0, "missed": 1, "wrong": {}}


def test_detections_beyond_the_end_answer_nothing() -> None:
    found = _score([(700, 0), (701, 0)])
    assert (found.answered, found.extra) == (1, 1)
    assert found.right == 1  # a background class may also be said
    assert _score([(701, 0)]).answered == 0


def test_several_spans_may_pass_without_an_answer() -> None:
    found = _score([(650, 1)], (1, 2, 1))
    assert (found.right, found.answered) == (1, 1)
    figures = found.to_dict()["latency_ms"]
    assert figures["from_start"] == {"mean": 75.0, "p50": 75.0, "p95": 75.0}
    assert figures["from_end"]["mean"] == 25.0


def test_random_scores_add_up() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = np.sort(rng.integers(0, 800, rng.integers(0, 12)))
        detections = [(int(t), int(rng.integers(0, 3))) for t in times]
        found = _score(detections, tuple(rng.integers(0, 3, 3)))
        assert found.answered + found.extra + found.false_alarms == len(detections)
        classes = found.classes.values()
        assert sum(c.intervals for c in classes) == 3 == found.intervals
        assert all(c.right + c.missed + sum(c.wrong.values()) == c.intervals for c in classes)
        assert found.right == sum(c.right for c in classes)


# --- recordings -----------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "name": "words",
    "split": "test",
    "signal": np.zeros((700, 1), np.int16),
    "length": 700,
    "intervals": SPANS,
    "labels": np.array([1, 2, 0]),
    "class_names": NAMES,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signal": np.zeros((700, 1))}, "float64"),
        ({"signal": np.zeros(700, np.int16)}, "[rows, values]"),
        ({"length": 600}, "700 rows, its length is 600"),
        ({"intervals": SPANS[:, 0]}, "whole numbers [k, 2]"),
        ({"intervals": SPANS / 2}, "whole numbers [k, 2]"),
        ({"intervals": SPANS[:2]}, "2 intervals have 3 labels"),
        ({"intervals": SPANS[::-1]}, "begins before"),
        ({"intervals": SPANS + np.array([0, 150])}, "interval 1 begins before interval 0 ends"),
        ({"intervals": SPANS * np.array([1, 0])}, "interval 0 is [100, 0): it is empty"),
        ({"intervals": SPANS + 101}, "outside 0...700"),
        ({"intervals": SPANS[:0], "labels": np.zeros(0, int)}, "no labelled interval"),
        ({"labels": np.array([1, 2, 3])}, "label 3"),
        ({"signal": np.zeros((4, 3), np.int64)}, "no events"),
        ({"signal": np.array([[5, 0], [4, 0]])}, "event 1 is earlier"),
        ({"signal": np.array([[5, 0], [700, 0]])}, "times in 0...699"),
        ({"signal": np.array([[5, -1]])}, "addresses from 0"),
    ],
)
def test_recordings_are_checked(changes: dict[str, Any], words: str) -> None:
    Recording(**GOOD)
    with pytest.raises(EdgesnnError) as caught:
        Recording(**{**GOOD, **changes})
    assert words in str(caught.value) and str(caught.value).startswith("words: ")


def test_the_first_intervals_of_a_recording() -> None:
    whole = Recording(**GOOD, rate=8000.0)
    two = whole.first(2)
    assert (two.length, len(two.signal), len(two.labels), two.rate) == (500, 500, 2, 8000.0)
    assert whole.first(3) is whole and whole.first(9) is whole
    events = np.array([[10, 1], [499, 2], [500, 3]])
    part = Recording(**{**GOOD, "signal": events}).first(2)
    assert part.is_events and part.signal.tolist() == [[10, 1], [499, 2]]
