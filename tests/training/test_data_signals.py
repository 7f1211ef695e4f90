"""A user's own signals: windows with a rate, and one long recording, made up of chirps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn import api
from edgesnn.checkpoint import load_graph
from edgesnn.compiler import ir
from edgesnn.compiler.lower import lower
from edgesnn.compiler.stream import StreamInterpreter
from edgesnn.data import load
from edgesnn.data.dataset import stratified_split
from edgesnn.data.recordings import load_recording
from edgesnn.scoring import score
from edgesnn.targets.errors import EdgesnnError

RATE = 4000
SLOPES = {"up": 900.0, "down": -900.0}


def chirp(
    seconds: float, slope: float, rate: int, start: float, random: np.random.Generator
) -> Any:
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (start * t + slope / 2 * t * t)
    return 3000 * np.sin(phase + random.uniform(0, 6)) * np.hanning(len(t)) ** 0.3


def long_recording(path: Path, **other: Any) -> Path:
    """Sound: 40 chirps, up or down, with rests between."""
    random = np.random.default_rng(5)
    parts, spans, labels = [np.zeros(RATE // 2)], [], []
    at = RATE // 2
    for i in range(40):
        label = int(random.integers(2)) if i > 1 else i
        slope = list(SLOPES.values())[label] * random.uniform(0.8, 1.2)
        sound = chirp(random.uniform(0.5, 0.7), slope, RATE, 500 if slope > 0 else 1100, random)
        rest = np.zeros(int(random.uniform(0.6, 1.0) * RATE))
        spans.append((at, at + len(sound)))
        labels.append(label)
        parts += [sound, rest]
        at += len(sound) + len(rest)
    signal = np.concatenate(parts)
    signal = signal + 5 * random.standard_normal(len(signal))
    arrays = {
        "signal": signal.astype(np.int16),
        "rate": RATE,
        "intervals": np.array(spans),
        "labels": np.array(labels),
        "class_names": np.array(list(SLOPES)),
    }
    arrays |= other
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return long_recording(tmp_path / "chirps.npz")


def test_a_recording_becomes_windows(sound: Path) -> None:
    train, test = load(str(sound), "train"), load(str(sound), "test")
    assert train.class_names == ("up", "down", "_background_")
    assert isinstance(train.stream, ir.WindowStream)
    assert isinstance(train.stream.front, ir.LogMel)
    assert train.stream.background == (2,)
    assert train.x.dtype == np.uint8
    assert train.shape == test.shape
    assert train.shape[1:] == (24, 1)
    assert np.bincount(train.y).min() > 50
    assert len(test) == 7
    assert set(test.y) == {0, 1}
    assert train.groups is not None
    kept, held = stratified_split(train.y, 0.15, 0, train.groups)
    assert not set(train.groups[kept]) & set(train.groups[held])
    assert np.array_equal(train.x, load(str(sound), "train").x)


def test_its_test_split_is_one_signal_again(sound: Path) -> None:
    recording = load_recording(str(sound))
    with np.load(sound) as a:
        assert recording.signal.dtype == np.int16
        assert recording.rate == RATE
        first, last = recording.intervals[-1]
        begin, end = a["intervals"][-1]
        assert np.array_equal(recording.signal[first:last, 0], a["signal"][begin:end])
        assert recording.labels[-1] == a["labels"][-1]
        assert len(recording.labels) + len(load_recording(str(sound), "train").labels) == 40


def test_a_net_learns_chirps_and_hears_them_in_a_stream(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "chirps.pt"
    how = {"augment": "none", "epochs": 6, "batch": 16, "exit": "margin", "threads": 1}
    api.train("mcu-sound", str(sound), out, **how)
    program = lower(load_graph(out))
    recording = load_recording(str(sound))
    found = [
        (decision.time, decision.smoothed)
        for decision in StreamInterpreter(program).push(recording.signal)
        if decision.detected and decision.smoothed is not None
    ]
    result = score(
        recording.intervals,
        recording.labels,
        recording.length,
        found,
        class_names=program.class_names,
        background=(2,),
        unit_ms=1000 / RATE,
    )
    assert result.accuracy >= 6 / 7
    assert result.false_alarms == 0


def test_rows_of_several_channels(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    signal = random.integers(-50, 50, (6000, 3)).astype(np.int16)
    starts = 100 + 140 * np.arange(40)
    path = tmp_path / "imu.npz"
    np.savez(
        path,
        signal=signal,
        rate=50.0,
        intervals=np.stack([starts, starts + 60], axis=1),
        labels=np.arange(40) % 2,
        is_test=np.arange(40) % 4 == 3,
        window=1.0,
        hop=5,
        smooth=2,
        votes=2,
        refractory=1,
    )
    data = load(str(path), "train")
    assert data.shape == (1, 50, 3)
    assert data.stream is not None
    assert vars(data.stream) | {"front": None} == vars(
        ir.WindowStream(ir.Rows(50.0), 5, 2, 2, 1, (2,))
    ) | {"front": None}
    assert len(load(str(path), "test")) == 10
    assert len(load_recording(str(path)).labels) == 10


def windows(path: Path, **other: Any) -> Path:
    """Two classes of int16 signals [N, C, L] at 100 rows a second."""
    random = np.random.default_rng(2)
    arrays = {}
    for split, count in (("train", 120), ("test", 30)):
        y = np.arange(count) % 2
        slopes = (2.0, -2.0)
        x = [chirp(0.64, slopes[k], 100, 3 if k == 0 else 5, random) for k in y]
        arrays |= {f"x_{split}": np.array(x)[:, None].astype(np.int16), f"y_{split}": y}
    np.savez(path, **arrays, **other)
    return path


def test_windows_with_a_rate_are_a_stream(tmp_path: Path) -> None:
    path = windows(tmp_path / "w.npz", rate=100)
    data = load(str(path), "test")
    assert isinstance(data.stream, ir.WindowStream)
    assert data.stream.hop == 64
    assert data.stream.background == ()
    recording = load_recording(str(path))
    assert np.array_equal(recording.signal.reshape(30, 64), data.x[:, 0, :, 0])
    assert np.array_equal(recording.labels, data.y)
    assert load(str(windows(tmp_path / "without.npz")), "test").stream is None


def test_streamed_windows_get_the_answers_of_windows(tmp_path: Path) -> None:
    path = windows(tmp_path / "w.npz", rate=100.0)
    out = tmp_path / "w.pt"
    api.train("mcu-signal", str(path), out, augment="none", epochs=4, threads=1)
    engine = StreamInterpreter(lower(load_graph(out)))
    decisions = engine.push(load_recording(str(path)).signal)
    test = load(str(path), "test")
    assert [d.decision.label for d in decisions] == [engine.infer(x).label for x in test.x]
    assert all(d.detected for d in decisions)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"signal": np.zeros(4000)}, "signal is float64"),
        ({"signal": np.zeros((2, 3, 4), np.int16)}, r"not int16, int8 or uint8 \[n\]"),
        ({"signal": np.zeros(4000, np.int16)}, "outside 0...4000"),
        ({"intervals": np.zeros((40, 3), np.int64)}, r"not whole numbers \[k, 2\]"),
        ({"intervals": np.zeros((40, 2), np.int64)}, "it is empty"),
        ({"labels": np.zeros(3, np.int64)}, "40 intervals have 3 labels"),
        ({"labels": np.full(40, 7)}, "row 0 of labels has label 7"),
        ({"labels": np.zeros(40, np.int64)}, "class 1 .down. has no sample"),
        ({"labels": np.zeros(40)}, "not one whole number"),
        ({"rate": 0}, "rate is 0, not one number above 0"),
        ({"rate": np.array([1, 2])}, "rate is"),
        ({"window": 1e-4}, "not two rows long"),
        ({"window": 0.1, "labels": np.arange(40) % 2, "votes": 9}, "votes 9 are more than the 3"),
        ({"front_end": "wavelet"}, "front_end is 'wavelet', not one of log-mel, rows"),
        (
            {"signal": np.zeros((400_000, 2), np.int16), "front_end": "log-mel"},
            "one channel of int16",
        ),
        ({"is_test": np.zeros(40, bool)}, "none to test with"),
        ({"is_test": np.zeros(4, bool)}, "not one bool for each of 40"),
        ({"background": np.array([9])}, "no list of classes 0...1"),
        ({"background": np.array([], np.int64)}, "background names no class"),
        ({"hop": 0}, "hop is 0, not one whole number from 1"),
        ({"window": 30.0}, "shows class"),
    ],
)
def test_what_is_wrong_is_one_line(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = long_recording(tmp_path / "bad.npz", **other)
    with pytest.raises(EdgesnnError, match=message) as caught:
        load(str(path), "train")
    assert "\n" not in str(caught.value)


def test_few_intervals_need_is_test(tmp_path: Path) -> None:
    with np.load(long_recording(tmp_path / "a.npz")) as a:
        arrays = {k: a[k][:4] if k in ("intervals", "labels") else a[k] for k in a.files}
    np.savez(tmp_path / "few.npz", **arrays)
    with pytest.raises(EdgesnnError, match="is_test says which"):
        load(str(tmp_path / "few.npz"), "train")


def test_what_is_no_signal_cannot_be_streamed(tmp_path: Path) -> None:
    path = windows(tmp_path / "w.npz")
    with pytest.raises(EdgesnnError, match="neither `signal` nor `rate`"):
        load_recording(str(path))
