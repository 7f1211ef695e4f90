"""scripts/votes.py: rules of decision on what training held out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.data import load, wand
from edgesnn.data.dataset import stratified_split
from edgesnn.data.recording import Recording


@pytest.fixture
def votes(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("votes", repo / "scripts" / "votes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gestures(folder: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [14, 14, 7])
    rows = np.where(labels == 2, 900, 300)
    np.savez(
        folder / wand.PACK,
        data=random.standard_normal((rows.sum(), 6)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(rows)]),
        labels=labels,
        is_test=np.arange(35) % 7 == 6,
    )


def test_what_is_held_out_is_what_training_holds_out(
    votes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gestures(tmp_path)
    monkeypatch.setenv("EDGESNN_DATA", str(tmp_path))
    recording = votes.held_out("wand", seed=3, fraction=0.3)
    data = load("wand", "train")
    _, held = stratified_split(data.y, 0.3, 3, data.groups)
    assert data.groups is not None
    decks = np.unique(data.groups[held])
    assert 1 <= len(decks) < wand.DECKS
    assert len(recording.labels) == sum(
        len(range(d, 24, 6)) + 2 * len(range(d, 6, 6)) for d in decks
    )


def test_a_rule_is_judged_by_its_detections(votes: ModuleType) -> None:
    spans = np.array([[10, 20], [40, 50], [70, 80]])
    signal = Recording(
        "x", "train", np.zeros((100, 1), np.int16), 100, spans, np.array([0, 1, 0]), ("a", "b", "-")
    )
    times = np.arange(1, 101)
    labels = np.full(100, 2)
    labels[15:25], labels[45:55] = 0, 1
    labels[75:76] = 0  # one window of the last
    strict = ir.WindowStream(ir.Rows(1.0), 1, 3, 2, 0, (2,))
    result = votes.judged(strict, times, labels, signal)
    assert (result.right, result.extra, result.false_alarms) == (2, 0, 0)
    assert "66.67 %" in votes.line(strict, result)
    quick = ir.WindowStream(ir.Rows(1.0), 1, 1, 1, 0, (2,))
    assert votes.judged(quick, times, labels, signal).right == 3
