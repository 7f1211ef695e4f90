"""A user's own event camera: one long recording of address events with labelled intervals, as an .npz.

docs/DATA.md tells its arrays. Samples are the steps of each interval since its start; the stream is the
recording itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.data.dataset import Dataset, check_every_class, check_labels, checked
from edgesnn.data.events import addresses, check_times, step_frames
from edgesnn.data.npz import read_arrays
from edgesnn.data.recording import Recording
from edgesnn.data.signals import intervals_for_testing, whole
from edgesnn.targets.errors import EdgesnnError

NEEDED = ("x", "y", "p", "t", "shape", "intervals", "labels")
OPTIONAL = ("class_names?", "is_test?", "step_us?", "refractory?")
STEP_US = 10_000
MAX_SIDE = 4096


@dataclass(frozen=True, eq=False)
class _Camera:
    """What a file says. x, y, p, t: events in order of time; spans int64[k, 2] in microseconds."""

    name: str
    shape: tuple[int, int]
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t: np.ndarray
    spans: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    class_names: tuple[str, ...]
    stream: ir.EventStream
    steps: int


def load_own_events(path: Path, split: str) -> Dataset:
    """The steps of every interval of a split: uint8[N, H, W, 2 T]."""
    camera = _read(path)
    chosen = np.flatnonzero(camera.is_test == (split == "test"))
    pieces = [np.arange(*np.searchsorted(camera.t, camera.spans[i])) for i in chosen]
    at = np.concatenate(pieces)
    since = camera.t[at] - np.repeat(camera.spans[chosen, 0], [len(piece) for piece in pieces])
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    frames = step_frames(
        camera.x[at],
        camera.y[at],
        camera.p[at],
        since,
        offsets,
        camera.shape,
        camera.stream.step_us,
        camera.steps,
    )
    y = camera.labels[chosen]
    return checked(camera.name, split, frames, y, camera.class_names, 1.0, stream=camera.stream)


def load_own_event_stream(path: Path, split: str) -> Recording:
    """The split's intervals with half of the rests around each, one after the other."""
    camera = _read(path)
    chosen = np.flatnonzero(camera.is_test == (split == "test"))
    end = max(int(camera.spans[-1, 1]), int(camera.t[-1]) + 1 if len(camera.t) else 0)
    middles = (camera.spans[:-1, 1] + camera.spans[1:, 0]) // 2
    cuts = np.concatenate([[0], middles, [end]])
    at = addresses(camera.x, camera.y, camera.p, camera.shape)
    parts, spans, start = [], [], 0
    for i in chosen:
        piece = slice(*np.searchsorted(camera.t, cuts[i : i + 2]))
        moved = start - int(cuts[i])
        parts.append(np.stack([camera.t[piece] + moved, at[piece]], axis=1))
        spans.append(camera.spans[i] + moved)
        start = int(cuts[i + 1]) + moved
    return Recording(
        camera.name,
        split,
        np.concatenate(parts),
        start,
        np.stack(spans),
        camera.labels[chosen],
        camera.class_names,
    )


def _read(path: Path) -> _Camera:
    a = read_arrays(path, (*NEEDED, *OPTIONAL))
    name, labels, spans = path.stem, a["labels"], a["intervals"]
    given = tuple(str(n) for n in a["class_names"].ravel()) if "class_names" in a else ()
    count = len(given) or (int(labels.max(initial=0)) + 1 if labels.dtype.kind in "iu" else 1)
    check_labels(name, "labels", labels, count)
    names = given or tuple(str(n) for n in range(count))
    side = a["shape"]
    fits = side.shape == (2,) and side.dtype.kind in "iu" and side.min() >= 1
    if not fits or side.max() > MAX_SIDE:
        raise EdgesnnError(f"{path}: shape is {str(side)[:40]}, not height and width of the sensor")
    shape = (int(side[0]), int(side[1]))
    try:
        times = check_times(a["t"]).astype(np.int64)
        at = addresses(a["x"], a["y"], a["p"], shape)
        if len(times) != len(at):
            raise EdgesnnError(f"{len(at)} events have {len(times)} times")
    except EdgesnnError as error:
        raise EdgesnnError(f"{path}: {error}") from None
    end = max(int(times.max(initial=0)) + 1, int(spans.max(initial=0)) if spans.size else 0)
    # A recording checks its intervals and that times do not descend.
    Recording(name, "train", np.stack([times, at], axis=1), end, spans, labels, names)
    spans = spans.astype(np.int64)
    step = whole(path, a, "step_us", STEP_US, 1)
    lengths = spans[:, 1] - spans[:, 0]
    steps = int(-(-lengths.max() // step))
    if steps > MAX_TIMESTEPS:
        raise EdgesnnError(
            f"{path}: an interval of {lengths.max()} us is {steps} steps of {step} us; {MAX_TIMESTEPS} are the "
            "most: give a larger step_us"
        )
    refractory = whole(path, a, "refractory", int(-(-np.quantile(lengths, 0.95) // step)), 0)
    labels = labels.astype(np.int64)
    is_test = intervals_for_testing(path, a, labels)
    check_every_class(name, labels[~is_test], names)
    stream = ir.EventStream(step, refractory)
    events = (a["x"], a["y"], a["p"], times)
    return _Camera(name, shape, *events, spans, labels, is_test, names, stream, steps)
