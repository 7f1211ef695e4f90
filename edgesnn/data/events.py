"""Event-camera recordings: addresses, polarities and times into spike frames, count images or one stream."""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import ir
from edgesnn.data.dataset import Dataset
from edgesnn.targets.errors import EdgesnnError

MAX_COUNT = 255
POLARITIES = 2  # channels of a step: OFF, ON
PHASES = 4  # at which a sample is looked at to choose an exit
LONGEST_US = 86_400_000_000


def is_events(data: Dataset) -> bool:
    """Whether samples are steps of events (`step_frames`), for networks that take those."""
    return isinstance(data.stream, ir.EventStream)


def bin_events(
    x: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    t: np.ndarray,
    shape: tuple[int, int],
    steps: int,
) -> np.ndarray:
    """uint8[steps, H, W, 2], 0 or 1: where at least one event fell in each step of equal length.

    x, y, p (0 OFF, 1 ON: the last axis) and t (any unit) of one recording; step 0 begins with its
    first event and the last step ends with its last. s(t) = floor(steps (t - t0) / (t1 - t0 + 1)).
    Several events of one address in one step are one spike: a neuron's axon carries no more.
    EdgesnnError for addresses outside `shape` (H, W).
    """
    if steps < 1:
        raise EdgesnnError(f"events cannot be binned into {steps} steps")
    _check(x, y, p, shape)
    _check_count(x, t)
    frames = np.zeros((steps, *shape, 2), np.uint8)
    if len(t):
        since = t.astype(np.int64) - int(t.min())
        frames[since * steps // (int(since.max()) + 1), y, x, p] = 1
    return frames


def step_frames(
    x: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    t: np.ndarray,
    offsets: np.ndarray,
    shape: tuple[int, int],
    step_us: int,
    steps: int,
) -> np.ndarray:
    """uint8[N, H, W, 2 steps], 0 or 1: samples of a network that takes events; channel 2 k + polarity.

    Recording i is events offsets[i]...offsets[i+1]-1. Step k = 0, 1, ... covers the times t (microseconds since
    the recording's start) in [k step_us, (k + 1) step_us); later events than `steps` hold are left out. Several
    events of one address in one step are one. EdgesnnError for addresses outside `shape` (H, W).
    """
    _check(x, y, p, shape)
    _check_count(x, t)
    frames = np.zeros((len(offsets) - 1, *shape, POLARITIES * steps), np.uint8)
    recording = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    step = t.astype(np.int64) // step_us
    used = step < steps
    at = POLARITIES * step[used] + p[used]
    frames[recording[used], y[used], x[used], at] = 1
    return frames


def as_steps(samples: np.ndarray, channels: int = POLARITIES) -> np.ndarray:
    """[N, T, H, W, channels], what an event input takes, of samples [N, H, W, T channels] (`step_frames`)."""
    n, height, width, _ = samples.shape
    split = samples.reshape(n, height, width, -1, channels)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 2, 4))


def later(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Samples [N, H, W, T * POLARITIES] as if the steps had begun earlier, each by its own share of a step.

    In a stream a recording begins anywhere within a step: of events binned from the recording's own start that
    share, at random, is one step later. Two in one step are one; what leaves the last step is lost.
    """
    share = random.random((len(samples), 1, 1, 1), dtype=np.float32)
    moved = np.where(random.random(samples.shape, dtype=np.float32) < share, samples, 0)
    out = samples - moved
    np.maximum(out[..., POLARITIES:], moved[..., :-POLARITIES], out=out[..., POLARITIES:])
    return out.astype(samples.dtype)


def at_phases(samples: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples as they are and `later`, PHASES times in all, and their labels: as a stream may have them."""
    random = np.random.Generator(np.random.PCG64((31, seed)))
    copies = [samples, *(later(samples, random) for _ in range(PHASES - 1))]
    return np.concatenate(copies), np.tile(y, PHASES)


def addresses(x: np.ndarray, y: np.ndarray, p: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """int64[n]: (y W + x) 2 + p of events on a sensor of `shape` (H, W); EdgesnnError outside of it."""
    _check(x, y, p, shape)
    return np.asarray((y.astype(np.int64) * shape[1] + x) * POLARITIES + p)


def check_times(t: np.ndarray) -> np.ndarray:
    """t as it is; EdgesnnError for what are no microseconds from 0 on."""
    if t.ndim != 1 or t.dtype.kind not in "iu" or (len(t) and int(t.min()) < 0):
        raise EdgesnnError(f"t of events is {t.dtype}{t.shape}, not microseconds from 0 on")
    if len(t) and int(t.max()) >= LONGEST_US:
        raise EdgesnnError(f"event {int(t.argmax())} has time {int(t.max())} us, later than a day")
    return t


def one_stream(
    x: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    t: np.ndarray,
    offsets: np.ndarray,
    shape: tuple[int, int],
    gap_us: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Recordings one after the other, a gap without events before each and after the last.

    Returns (events int64[n, 2]: microseconds and address (y W + x) 2 + p; intervals int64[N, 2], in which each
    recording lies, to the microsecond after its last event; the length of it all). Times within a recording
    are sorted. EdgesnnError for addresses outside `shape` (H, W).
    """
    address = addresses(x, y, p, shape)
    _check_count(x, t)
    parts, intervals, start = [], [], gap_us
    for i in range(len(offsets) - 1):
        piece = slice(int(offsets[i]), int(offsets[i + 1]))
        times = t[piece].astype(np.int64)
        order = np.argsort(times, kind="stable")
        parts.append(np.stack([times[order] + start, address[piece][order]], axis=1))
        end = start + (int(times.max()) if len(times) else 0) + 1
        intervals.append((start, end))
        start = end + gap_us
    return np.concatenate(parts), np.array(intervals, dtype=np.int64), start


def count_events(
    x: np.ndarray, y: np.ndarray, p: np.ndarray, offsets: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """uint8[N, H, W, 2]: how many events every address of a recording sends in all, at most 255.

    Recording i is events offsets[i]...offsets[i+1]-1. EdgesnnError for addresses outside `shape`.
    """
    _check(x, y, p, shape)
    n = len(offsets) - 1
    sizes = (n, *shape, 2)
    recording = np.repeat(np.arange(n), np.diff(offsets))
    flat = np.ravel_multi_index((recording, y, x, p), sizes)
    counts = np.bincount(flat, minlength=int(np.prod(sizes)))
    return np.minimum(counts, MAX_COUNT).astype(np.uint8).reshape(sizes)


def _check(x: np.ndarray, y: np.ndarray, p: np.ndarray, shape: tuple[int, int]) -> None:
    if not len(x) == len(y) == len(p):
        raise EdgesnnError(f"{len(x)} x, {len(y)} y and {len(p)} p do not make events")
    height, width = shape
    for name, values, size in (("x", x, width), ("y", y, height), ("p", p, 2)):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise EdgesnnError(
                f"{name} of events is {values.dtype}{values.shape}, not whole numbers"
            )
        bad = np.flatnonzero((values < 0) | (values >= size))
        if len(bad):
            raise EdgesnnError(
                f"event {bad[0]} has {name} {values[bad[0]]}, outside 0...{size - 1}"
            )


def _check_count(x: np.ndarray, t: np.ndarray) -> None:
    if len(t) != len(x):
        raise EdgesnnError(f"{len(x)} events have {len(t)} times")
