"""Event-camera recordings: addresses, polarities and times into spike frames or count images."""

from __future__ import annotations

import numpy as np

from edgesnn.targets.errors import EdgesnnError

MAX_COUNT = 255


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
    if len(t) != len(x):
        raise EdgesnnError(f"{len(x)} events have {len(t)} times")
    frames = np.zeros((steps, *shape, 2), np.uint8)
    if len(t):
        since = t.astype(np.int64) - int(t.min())
        frames[since * steps // (int(since.max()) + 1), y, x, p] = 1
    return frames


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
