"""Events into frames and counts, and N-MNIST as a pack and as the original files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesnn.data import load, nmnist
from edgesnn.data.events import bin_events, count_events
from edgesnn.targets.errors import EdgesnnError

Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def events(n: int, seed: int, side: int = 34) -> Events:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 300_000, n)).astype(np.uint32)
    x, y = rng.integers(0, side, (2, n)).astype(np.uint8)
    return x, y, rng.integers(0, 2, n).astype(np.uint8), t


def test_frames_by_hand() -> None:
    x, y = np.array([0, 2, 2, 1]), np.array([0, 1, 1, 0])
    p, t = np.array([0, 1, 1, 0]), np.array([10, 10, 11, 19])
    frames = bin_events(x, y, p, t, (2, 3), 2)
    assert frames.shape == (2, 2, 3, 2) and frames.dtype == np.uint8
    expected = {(0, 0, 0, 0), (0, 1, 2, 1), (1, 0, 1, 0)}  # two events of one step are one spike
    assert {tuple(i) for i in np.argwhere(frames).tolist()} == expected
    assert frames.max() == 1
    one = bin_events(x[:1], y[:1], p[:1], t[:1], (2, 3), 4)
    assert one.sum() == 1 and one[0].sum() == 1
    none = np.zeros(0, np.uint8)
    assert bin_events(none, none, none, none, (2, 3), 4).sum() == 0


@given(n=st.integers(0, 80), steps=st.integers(1, 9), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_every_event_is_in_its_step(n: int, steps: int, seed: int) -> None:
    x, y, p, t = events(n, seed, 5)
    frames = bin_events(x, y, p, t, (5, 5), steps)
    expected = np.zeros_like(frames)
    for i in range(n):
        at = (int(t[i]) - int(t[0])) * steps // (int(t[-1]) - int(t[0]) + 1)
        expected[at, y[i], x[i], p[i]] = 1
    assert np.array_equal(frames, expected)
    if n:
        assert frames[0].any() and (n == 1 or t[0] == t[-1] or frames[-1].any())


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_counts(sizes: list[int], seed: int) -> None:
    x, y, p, _ = events(sum(sizes), seed, 3)
    offsets = np.cumsum([0, *sizes])
    counts = count_events(x, y, p, offsets, (3, 3))
    expected = np.zeros((len(sizes), 3, 3, 2), int)
    np.add.at(expected, (np.repeat(np.arange(len(sizes)), sizes), y, x, p), 1)
    assert np.array_equal(counts, expected)


def test_counts_stop_at_255() -> None:
    zeros = np.zeros(300, np.uint8)
    counts = count_events(zeros, zeros, zeros, np.array([0, 256, 300]), (2, 2))
    assert counts[:, 0, 0, 0].tolist() == [255, 44]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.array([0, 4])}, r"event 1 has x 4, outside 0...3"),
        ({"y": np.array([-1, 0])}, "event 0 has y -1, outside 0...2"),
        ({"p": np.array([0, 2])}, "event 1 has p 2"),
        ({"p": np.array([0.0, 1.0])}, "float64"),
        ({"x": np.array([0])}, "do not make events"),
        ({"t": np.array([0])}, "2 events have 1 times"),
        ({"steps": 0}, "0 steps"),
    ],
)
def test_bad_events(change: dict[str, np.ndarray], message: str) -> None:
    good = {name: np.array([0, 1]) for name in ("x", "y", "p", "t")}
    arguments: dict = {**good, "shape": (3, 4), "steps": 2, **change}
    with pytest.raises(EdgesnnError, match=message):
        bin_events(**arguments)


def pack(path: Path, **change: np.ndarray) -> dict[str, np.ndarray]:
    table: dict[str, np.ndarray] = {}
    for split, seed in (("train", 1), ("test", 2)):
        x, y, p, t = events(60, seed)
        table |= {f"x_{split}": x, f"y_{split}": y, f"p_{split}": p, f"t_{split}": t}
        table[f"off_{split}"] = np.array([0, 25, 25, 60])
        table[f"label_{split}"] = np.array([7, 0, 3], np.uint8)
    table |= change
    np.savez(path / nmnist.PACK, **table)
    return table


def test_the_pack(tmp_path: Path) -> None:
    table = pack(tmp_path)
    data = load("nmnist-small", "test", tmp_path)
    assert (data.shape, data.dtype, len(data)) == ((34, 34, 2), "uint8", 3)
    assert data.y.tolist() == [7, 0, 3]
    assert data.x.sum(axis=(1, 2, 3)).tolist() == [25, 0, 35]
    x, y, p = (table[f"{n}_test"][0] for n in "xyp")
    assert data.x[0, y, x, p] >= 1
    with pytest.raises(EdgesnnError, match=r"nmnist_small\.npz is not in"):
        load("nmnist-small", "test", tmp_path / "none")
    for change, message in (
        ({"off_test": np.array([0, 70])}, "ascending"),
        ({"x_test": np.full(60, 34)}, "event 0 has x 34"),
        ({"label_test": np.array([1, 2, 11])}, "row 2 of y_test has label 11"),
    ):
        pack(tmp_path, **change)
        with pytest.raises(EdgesnnError, match=message):
            load("nmnist-small", "test", tmp_path)


def to_bytes(x: np.ndarray, y: np.ndarray, p: np.ndarray, t: np.ndarray) -> bytes:
    """The 40-bit events of an original file."""
    t = t.astype(np.int64)
    columns = (x, y, p.astype(np.int64) << 7 | t >> 16, t >> 8 & 255, t & 255)
    return np.stack(columns, axis=1).astype(np.uint8).tobytes()


@given(n=st.integers(0, 50), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_original_files_round_trip(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("events") / "00001.bin"
    written = events(n, seed)
    path.write_bytes(to_bytes(*written))
    for a, b in zip(nmnist.read_events(path), written, strict=True):
        assert np.array_equal(a, b)


def test_overflows_are_no_events(tmp_path: Path) -> None:
    x, y, p = np.array([1, 0, 2]), np.array([3, 240, 4]), np.array([0, 0, 1])
    (tmp_path / "a.bin").write_bytes(to_bytes(x, y, p, np.array([5, 0, 6])))
    got = nmnist.read_events(tmp_path / "a.bin")
    assert [a.tolist() for a in got] == [[1, 2], [3, 4], [0, 1], [5, 6 + 8192]]


def test_the_original_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(EdgesnnError, match="nmnist/Test is not in"):
        load("nmnist", "test", tmp_path)
    place = tmp_path / "N-MNIST" / "Test"
    (place / "3").mkdir(parents=True)
    with pytest.raises(EdgesnnError, match="holds no"):
        load("nmnist", "test", tmp_path)
    for digit, number in ((3, 2), (3, 1), (8, 5)):
        (place / str(digit)).mkdir(exist_ok=True)
        raw = to_bytes(*events(digit * 10 + number, number))
        (place / str(digit) / f"{number:05}.bin").write_bytes(raw)
    data = load("nmnist", "test", tmp_path)
    assert data.y.tolist() == [3, 3, 8]
    assert data.x.sum(axis=(1, 2, 3)).tolist() == [31, 32, 85]
    with monkeypatch.context() as patch:
        patch.setattr(nmnist, "read_events", None)
        assert np.array_equal(load("nmnist", "test", tmp_path).x, data.x)  # from the cache
    changed = place / "8" / "00005.bin"
    changed.write_bytes(changed.read_bytes()[:-1])
    with pytest.raises(EdgesnnError, match=r"00005\.bin is truncated"):
        load("nmnist", "test", tmp_path)
    changed.write_bytes(to_bytes(*(np.array([v]) for v in (34, 0, 0, 0))))
    with pytest.raises(EdgesnnError, match=r"00005\.bin: event 0 has x 34"):
        load("nmnist", "test", tmp_path)
