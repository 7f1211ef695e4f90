"""The log-mel front end: its integers against float64, their ranges at the extremes, its tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgesnn.compiler import front_end, ir
from edgesnn.compiler.front_end import (
    LOG2_TABLE,
    bands,
    log_energies,
    log_mel_rows,
    make_log_mel,
    points,
    quarter_wave,
)
from edgesnn.targets.errors import UsageError

FRONTS = {
    "16 kHz": make_log_mel(16000, frame=400, hop=160, bands=32),
    "8 kHz": make_log_mel(8000, frame=256, hop=128, bands=20, low=0.0),
    "small": make_log_mel(8000, frame=12, hop=30, bands=1),
    "large": make_log_mel(48000, frame=4096, hop=4096, bands=64, low=50.0, high=12000.0),
}


def _energies(front: ir.LogMel, x: np.ndarray) -> np.ndarray:
    """E of every frame in float64, straight from the equations of ir.LogMel: [rows, bands]."""
    n, length = points(front), len(front.window)
    starts = range(0, len(x) - length + 1, front.hop)
    frames = np.stack([x[s : s + length] for s in starts]).astype(float)
    spectrum = np.fft.rfft(frames * front.window / 2**15, n) / n
    p = np.abs(spectrum) ** 2 * 4
    out = np.zeros((len(frames), bands(front)))
    for b in range(bands(front)):
        rising, falling = front.band == b, front.band == b + 1
        out[:, b] = p[:, rising] @ front.rise[rising] + p[:, falling] @ (256 - front.rise[falling])
    return out


def _signals(count: int) -> Iterator[np.ndarray]:
    """Tones, chirps and noise from full scale down, int16."""
    rng = np.random.default_rng(3)
    t = np.arange(count)
    for loud in (32767, 8000, 900, 60):
        yield (loud * np.sin(0.3 * t)).astype(np.int16)
        yield (loud * np.sin(t * t * (1.5 / count))).astype(np.int16)
        yield (loud * rng.uniform(-1, 1, count)).astype(np.int16)


@pytest.mark.parametrize("name", FRONTS)
def test_log_energies_follow_the_float_spectrum(name: str) -> None:
    """Within the table's step of 1/64 (3.4 where an octave is 256); the floor of p takes from quiet bands."""
    front = FRONTS[name]
    inside = np.array([(front.band == b).sum() + (front.band == b + 1).sum() for b in range(64)])
    compared = 0
    for x in _signals(3 * front.hop + len(front.window)):
        energy = _energies(front, x)
        error = np.abs(log_energies(front, x) - 256 * np.log2(energy + 256))
        # A bin's p loses less than one to its floor, and a little to the roundings of the transform.
        lost = 256.0 * inside[: bands(front)] * (1 + np.sqrt(energy.max()) / 2**10)
        clear = energy > 64 * lost
        assert np.all(error[clear] <= 3.5 + 256 * np.log2(64 / 63))
        assert np.all(log_energies(front, x) >= 2048)
        compared += int(clear.sum())
    assert compared > 20


def _extremes(length: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(4)
    t = np.arange(length)
    yield np.zeros(length)
    yield np.full(length, -32768)
    yield np.full(length, 32767)
    for period in (2, 3, 4, 8, 50):
        yield np.where(t % period < period // 2, 32767, -32768)
        yield np.where((t + 1) % period < period // 2, 32767, -32768)
    for k in rng.uniform(0, np.pi, 20):
        yield np.where(np.cos(k * t + k) < 0, -32768, 32767)
    for _ in range(10):
        yield rng.choice([-32768, 32767], length)
        yield rng.integers(-32768, 32768, length)


@pytest.mark.parametrize("length", [16, 256, 1024, 4096])
@pytest.mark.parametrize("flat", [False, True])
def test_intermediates_stay_within_their_ranges(
    length: int, flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """|v| < 2^29, butterflies within 32 bits, p < 2^32 (so |X / N| < 2^29), E < 2^48, at full scale."""
    front = make_log_mel(16000, frame=length, hop=length, bands=1)
    if flat:  # the largest window there is
        front = ir.LogMel(
            16000,
            length,
            np.full(length, 32767, dtype=np.int16),
            quarter_wave(length).astype(np.int32),
            np.zeros(length // 2 + 1, dtype=np.int16),
            np.full(length // 2 + 1, 256, dtype=np.int16),
            front.offset,
            1,
        )
    most = {"v": 0, "operand": 0, "p": 0, "E": 0}

    def note(name: str, a: np.ndarray) -> None:
        most[name] = max(most[name], int(np.abs(a).max()))

    high, power, log2 = front_end._high, front_end._power, front_end._log2

    def noting_high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        note("operand", a)
        return high(a, b)

    def noting_power(front: ir.LogMel, v: np.ndarray) -> np.ndarray:
        note("v", v)
        p = power(front, v)
        assert p.min() >= 0
        note("p", p)
        return p

    def noting_log2(energy: np.ndarray) -> np.ndarray:
        note("E", energy)
        return log2(energy)

    monkeypatch.setattr(front_end, "_high", noting_high)
    monkeypatch.setattr(front_end, "_power", noting_power)
    monkeypatch.setattr(front_end, "_log2", noting_log2)
    rows = log_mel_rows(front, np.concatenate(list(_extremes(length))).astype(np.int16))
    assert rows.dtype == np.uint8
    assert most["v"] < 2**29
    assert most["operand"] < 2**30
    assert most["p"] < 2**32
    assert most["E"] < 2**48
    if flat:
        assert most["p"] > 2**31  # it was close


def test_rows_are_those_of_complete_frames() -> None:
    front = FRONTS["8 kHz"]
    x = np.random.default_rng(0).integers(-9000, 9000, 1000).astype(np.int16)
    for count, rows in ((0, 0), (255, 0), (256, 1), (383, 1), (384, 2), (1000, 6)):
        assert log_mel_rows(front, x[:count]).shape == (rows, 20)
    whole = log_mel_rows(front, x)
    for r in range(6):
        assert np.array_equal(log_mel_rows(front, x[r * 128 : r * 128 + 256])[0], whole[r])


def test_quantised_rows_clamp_and_scale() -> None:
    front = make_log_mel(8000, frame=256, hop=256, bands=4, offset=2048, gain=4096)
    assert log_mel_rows(front, np.zeros(256, np.int16)).tolist() == [[3, 3, 3, 3]]  # half a step
    loud = np.random.default_rng(1).integers(-32768, 32768, 256).astype(np.int16)
    assert log_mel_rows(front, loud).tolist() == [[255] * 4]
    below = make_log_mel(8000, frame=256, hop=256, bands=4, offset=9000, gain=4096)
    assert log_mel_rows(below, np.zeros(256, np.int16)).tolist() == [[0] * 4]


def test_logarithm_is_monotone_and_fine() -> None:
    e = np.unique(np.concatenate([2 ** np.arange(48), np.arange(5000), 3 * 2 ** np.arange(46)]))
    logs = front_end._log2(e)
    assert np.all(np.diff(logs) >= 0)
    assert np.abs(logs - 256 * np.log2(e + 256.0)).max() < 3.5
    assert len(LOG2_TABLE) == 64 and LOG2_TABLE.max() < 256


def test_filters_meet_at_their_neighbours_centres() -> None:
    """Every bin between the first and the last centre counts with 256 in all."""
    front = FRONTS["16 kHz"]
    inner = (front.band >= 1) & (front.band < bands(front))
    assert inner.any()
    matrix = front_end._filtered(front, np.eye(len(front.band), dtype=np.int64))
    assert np.all(matrix[inner].sum(axis=1) == 256)
    assert np.all(matrix.sum(axis=0) > 0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"frame": 1}, "do not fit"),
        ({"frame": 4097}, "do not fit"),
        ({"hop": 0}, "do not fit"),
        ({"bands": 0}, "do not fit"),
        ({"high": 5000.0}, "do not fit"),
        ({"low": 4000.0}, "do not fit"),
        ({"bands": 110}, "too many"),
    ],
)
def test_impossible_filter_banks_are_refused(settings: dict[str, float], complaint: str) -> None:
    usual = {"frame": 256, "hop": 128, "bands": 20}
    with pytest.raises(UsageError, match=complaint) as e:
        make_log_mel(8000, **{**usual, **settings})  # type: ignore[arg-type]
    assert "\n" not in str(e.value)
