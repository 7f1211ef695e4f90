"""fsdd, kws12 and wand from packs of made-up signals in the packs' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.front_end import log_mel_rows
from edgesnn.data import fsdd, kws12, load, names, wand
from edgesnn.data.dataset import stratified_split
from edgesnn.data.recordings import load_recording
from edgesnn.targets.errors import EdgesnnError

Arrays = dict[str, Any]


def write(folder: Path, pack: str, arrays: Arrays) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / pack, **arrays)
    return folder


def words() -> Arrays:
    """Two speakers, ten digits, four recordings of each, of which the first is for testing."""
    random = np.random.default_rng(0)
    samples, about = [], []
    for speaker in range(2):
        for digit in range(10):
            for index in range(4):
                n = int(random.integers(2000, 5000))
                t = np.arange(n) / fsdd.RATE
                tone = np.sin(2 * np.pi * (300 + 200 * digit + 20 * speaker) * t)
                samples.append((4000 * tone * np.hanning(n)).astype(np.int16))
                about.append((digit, speaker, index))
    labels, speaker, index = np.array(about, dtype=np.uint8).T
    return {
        "samples": np.concatenate(samples),
        "offsets": np.cumsum([0, *map(len, samples)]),
        "labels": labels,
        "speaker": speaker,
        "index": index,
        "is_test": index == 0,
        "speaker_names": np.array(["a", "b"]),
        "sample_rate": np.int32(fsdd.RATE),
    }


def clips() -> Arrays:
    random = np.random.default_rng(1)
    out: Arrays = {"log_min": np.float32(-13.8), "log_max": np.float32(10.0)}
    for split, n in (("train", 60), ("test", 24)):
        out[f"x_{split}"] = random.integers(0, 256, (n, kws12.ROWS, kws12.BANDS), dtype=np.uint8)
        out[f"y_{split}"] = np.arange(n).astype(np.uint8) % 12
        out[f"speaker_{split}"] = (np.arange(n) // 3).astype(np.int32)
    return out | {"class_names": np.array([f"word{i}" for i in range(12)])}


def gestures() -> Arrays:
    """12 gestures of each of two kinds, 3 s, and four recordings of other movement, 20 s."""
    random = np.random.default_rng(2)
    rows, labels, is_test = [], [], []
    for label, count, n in ((0, 12, 300), (1, 12, 300), (2, 4, 2000)):
        for i in range(count):
            t = np.arange(n) / 100
            moved = np.zeros((n, 6))
            moved[:, 2] = 9.8
            moved[:, 3 + label] = 5 * np.sin(6 * t) * (np.hanning(n) if label < 2 else 1)
            rows.append(moved + 0.01 * random.standard_normal((n, 6)))
            labels.append(label)
            is_test.append(i % 4 == 3)
    data = np.concatenate(rows).astype(np.float32)
    return {
        "data": data,
        "time_ms": np.zeros(len(data), np.float32),
        "offsets": np.cumsum([0, *map(len, rows)]),
        "labels": np.array(labels, np.uint8),
        "is_test": np.array(is_test),
        "names": np.array([f"r{i}" for i in range(len(rows))]),
        "channels": np.array([f"c{i}" for i in range(6)]),
        "class_names": np.array(["a", "b", "c"]),
    }


PACKS = {
    "fsdd": (fsdd.PACK, words),
    "kws12": (kws12.PACK, clips),
    "wand": (wand.PACK, gestures),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    for pack, make in PACKS.values():
        write(tmp_path / "data", pack, make())
    return tmp_path / "data"


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_is_a_data_set_and_a_recording(name: str, packs: Path) -> None:
    assert name in names()
    train, test = load(name, "train", packs), load(name, "test", packs)
    assert train.shape == test.shape
    assert train.dtype == test.dtype
    assert isinstance(train.stream, ir.WindowStream)
    assert train.stream is test.stream
    assert set(train.y) == set(range(train.classes))
    again = load(name, "train", packs)
    assert np.array_equal(train.x, again.x)
    assert np.array_equal(train.y, again.y)
    assert train.groups is not None
    kept, held = stratified_split(train.y, 0.25, 0, train.groups)
    assert not set(train.groups[kept]) & set(train.groups[held])
    assert len(np.unique(train.y[held])) == train.classes
    recording = load_recording(name, "test", packs)
    assert recording.class_names == test.class_names
    assert recording.rate == train.stream.front.rate
    assert np.bincount(recording.labels).tolist() == np.bincount(test.y).tolist()
    assert np.array_equal(recording.signal, load_recording(name, "test", packs).signal)


def test_words_lie_in_the_recording_as_they_were_recorded(packs: Path) -> None:
    recording, arrays = load_recording("fsdd", "test", packs), words()
    assert recording.signal.dtype == np.int16
    assert recording.signal.shape == (recording.length, 1)
    pieces = np.split(arrays["samples"], arrays["offsets"][1:-1])
    known = {p.tobytes(): label for p, label in zip(pieces, arrays["labels"], strict=True)}
    for (first, last), label in zip(recording.intervals, recording.labels, strict=True):
        assert known[recording.signal[first:last, 0].tobytes()] == label
    rests = (recording.intervals[1:, 0] - recording.intervals[:-1, 1]) / fsdd.RATE
    assert rests.min() >= 0.59
    assert rests.max() <= 1.21


def test_windows_of_words_are_rows_of_the_front_end(packs: Path) -> None:
    train = load("fsdd", "train", packs)
    assert np.bincount(train.y)[:10].tolist() == [2 * 6 * fsdd.PASSES] * 10
    assert (np.bincount(train.groups) > 0).tolist() == [False, True, True, True]
    # The centred word of a test window, found again by its energy.
    test, recording = load("fsdd", "test", packs), load_recording("fsdd", "test", packs)
    k = int(np.flatnonzero(recording.labels == test.y[0])[0])
    first, last = recording.intervals[k]
    rows = log_mel_rows(fsdd.FRONT, recording.signal[first:last])
    assert rows.max() == pytest.approx(test.x[test.y == test.y[0]].max(), abs=12)


def test_held_out_words_can_be_streamed(packs: Path) -> None:
    held = fsdd.recording_of(fsdd.words_of_groups([2], packs), "train")
    assert len(held.labels) == 20
    moved = wand.recording_of(wand.pieces_of_decks([0], packs), "train")
    assert len(moved.labels) == 3 + 5  # gestures, and pieces of 4 s of one recording


def test_a_streamed_clip_is_the_clip(packs: Path) -> None:
    recording, test = load_recording("kws12", "test", packs), load("kws12", "test", packs)
    assert test.stream is not None
    streamed = recording.signal.reshape(24, kws12.ROWS, kws12.BANDS)
    known = {clip.tobytes(): label for clip, label in zip(test.x[..., 0], test.y, strict=True)}
    assert [known[clip.tobytes()] for clip in streamed] == recording.labels.tolist()
    assert len(known) == 24
    assert recording.intervals[3].tolist() == [3 * kws12.ROWS, 4 * kws12.ROWS]


def test_gestures_are_averaged_counts(packs: Path) -> None:
    recording, arrays = load_recording("wand", "train", packs), gestures()
    first, last = recording.intervals[np.flatnonzero(recording.labels == 2)[0]]
    found = recording.signal[first:last]
    assert found.shape == (wand.PIECE * wand.RATE, 6)
    assert found[:, 2].mean() == pytest.approx(9.8 * 512, rel=0.01)
    gentle = arrays["data"][:300].reshape(75, 4, 6).mean(axis=1)
    firsts = recording.intervals[recording.labels == 0]
    candidates = [recording.signal[a:b] for a, b in firsts]
    assert any(np.abs(c[:, 3] - 1024 * gentle[:, 3]).max() <= 0.51 for c in candidates)


@pytest.mark.parametrize("name", PACKS)
def test_a_missing_pack_says_where_it_goes(name: str, tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match=f"{PACKS[name][0]} is not in .*--data-dir"):
        load(name, "test", tmp_path)


def _without_labels(a: Arrays) -> None:
    del a["labels"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("fsdd", _without_labels, "has no array labels"),
        ("fsdd", {"samples": np.zeros(9)}, "samples is float64"),
        ("fsdd", {"offsets": np.arange(81)}, "does not run from 0"),
        ("fsdd", {"labels": np.zeros(3, np.uint8)}, "80 recordings have 3 entries in labels"),
        ("fsdd", {"labels": np.full(80, 10, np.uint8)}, "recording 0 is no digit: label 10"),
        ("fsdd", {"sample_rate": np.int32(16000)}, "sample_rate is 16000, not 8000"),
        ("fsdd", {"is_test": np.ones(80, bool)}, "no recording is of the train split"),
        ("kws12", {"x_train": np.zeros((5, 40, 49), np.uint8)}, r"x_train is uint8\(5, 40, 49\)"),
        ("kws12", {"y_train": np.zeros(3, np.uint8)}, "x_train has 60 rows, y_train has 3"),
        ("kws12", {"y_train": np.full(60, 12, np.uint8)}, "label 12"),
        ("kws12", {"speaker_train": np.zeros(5, np.int32)}, "5 speakers"),
        ("wand", {"data": np.zeros((9, 5), np.float32)}, "data is float32"),
        ("wand", {"labels": np.full(28, 3, np.uint8)}, "recording 0 is no gesture: label 3"),
        ("wand", {"is_test": np.zeros(4, bool)}, "28 recordings have 4 entries in is_test"),
        ("wand", {"is_test": np.ones(28, bool)}, "train split has no gesture"),
    ],
)
def test_damaged_packs_are_one_line(name: str, change: Any, message: str, tmp_path: Path) -> None:
    pack, make = PACKS[name]
    arrays = make()
    if callable(change):
        change(arrays)
    else:
        arrays |= change
    with pytest.raises(EdgesnnError, match=message) as caught:
        load(name, "train", write(tmp_path / "data", pack, arrays))
    assert "\n" not in str(caught.value)


def test_a_row_that_is_no_number_is_named(tmp_path: Path) -> None:
    arrays = gestures()
    arrays["data"][1234, 2] = np.nan
    with pytest.raises(EdgesnnError, match="row 1234 of data is not finite"):
        load("wand", "test", write(tmp_path / "data", wand.PACK, arrays))


def test_a_truncated_pack_is_one_line(packs: Path) -> None:
    raw = (packs / fsdd.PACK).read_bytes()
    (packs / fsdd.PACK).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(EdgesnnError, match=r"not a readable \.npz") as caught:
        load("fsdd", "test", packs)
    assert "\n" not in str(caught.value)
