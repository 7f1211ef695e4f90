"""N-MNIST (Orchard et al., Frontiers in Neuroscience 2015): digits before an event camera.

As static samples: uint8 counts of the events of each address and polarity, (34, 34, 2), which every
net trains on. As events: what falls in each step of 10 ms, for nets that take events; and all recordings of a
split one after the other, as a camera would send them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.data.cache import cached
from edgesnn.data.dataset import Dataset, check_labels, checked
from edgesnn.data.events import check_times, count_events, one_stream, step_frames
from edgesnn.data.npz import pieces, read_arrays
from edgesnn.data.packs import pack_path
from edgesnn.data.recording import Recording
from edgesnn.targets.errors import EdgesnnError

NAME, SMALL, EVENTS = "nmnist", "nmnist-small", "nmnist-events"
PACK = "nmnist_small.npz"
FOLDERS = ("nmnist", "N-MNIST", "NMNIST")
SHAPE = (34, 34)
SCALE = (
    1.0 / 16.0
)  # an address that fires at all sends 5 events in the mean, one in 15,000 more than 16
# Recordings last 0.30 to 0.34 s: 32 steps hold all but the last events of the longest ones.
STEP_US, STEPS = 10_000, 32
GAP_US = 250_000  # of rest between two recordings of a stream
STREAM = ir.EventStream(STEP_US, refractory=30)
CLASSES = tuple(str(n) for n in range(10))
EVENT_BYTES = 5
OVERFLOW_Y, OVERFLOW_US = 240, 1 << 13  # no event: all times from here on are later by 2^13 us


def load_small(split: str, folder: Path) -> Dataset:
    """Counts of <folder>/nmnist_small.npz: x, y, p, off and label of the split."""
    path = pack_path(SMALL, PACK, folder)
    x, y, p, off, labels = _arrays(path, split, "x", "y", "p", "off", "label")
    offsets = pieces(path, f"off_{split}", off, len(x))
    try:
        counts = count_events(x, y, p, offsets, SHAPE)
    except EdgesnnError as error:
        raise EdgesnnError(f"{path}: {split}: {error}") from None
    return checked(SMALL, split, counts, labels, CLASSES, SCALE)


def load_events(split: str, folder: Path) -> Dataset:
    """Spike frames of <folder>/nmnist_small.npz, uint8[N, 34, 34, 64]: 32 steps of 10 ms since each

    recording's start, for nets that take events.
    """
    path = pack_path(EVENTS, PACK, folder)
    x, y, p, t, off, labels = _arrays(path, split, "x", "y", "p", "t", "off", "label")
    offsets = pieces(path, f"off_{split}", off, len(x))
    try:
        frames = step_frames(x, y, p, check_times(t), offsets, SHAPE, STEP_US, STEPS)
    except EdgesnnError as error:
        raise EdgesnnError(f"{path}: {split}: {error}") from None
    return checked(EVENTS, split, frames, labels, CLASSES, 1.0, stream=STREAM)


def load_event_stream(split: str, folder: Path) -> Recording:
    """The split of <folder>/nmnist_small.npz as one stream of events, with 250 ms of rest in between."""
    path = pack_path(EVENTS, PACK, folder)
    x, y, p, t, off, labels = _arrays(path, split, "x", "y", "p", "t", "off", "label")
    offsets = pieces(path, f"off_{split}", off, len(x))
    try:
        events, intervals, length = one_stream(x, y, p, check_times(t), offsets, SHAPE, GAP_US)
        check_labels(EVENTS, f"label_{split}", labels, len(CLASSES))
    except EdgesnnError as error:
        raise EdgesnnError(f"{path}: {split}: {error}") from None
    return Recording(EVENTS, split, events, length, intervals, labels.astype(np.int64), CLASSES)


def _arrays(path: Path, split: str, *names: str) -> list[np.ndarray]:
    return list(read_arrays(path, tuple(f"{n}_{split}" for n in names)).values())


def load_folder(split: str, folder: Path) -> Dataset:
    """Counts of the original files <folder>/nmnist/{Train,Test}/<digit>/<number>.bin, cached.

    Order: by digit, then by file name. The cache is keyed by the names, sizes and times of the
    files: reading them all is what it saves.
    """
    part = split.capitalize()
    place = next((folder / f / part for f in FOLDERS if (folder / f / part).is_dir()), None)
    if place is None:
        raise EdgesnnError(
            f"{NAME}: {NAME}/{part} is not in {folder}; put it there, or name the folder that "
            f"holds {NAME}/ with --data-dir or EDGESNN_DATA"
        )
    paths = [path for digit in CLASSES for path in sorted((place / digit).glob("*.bin"))]
    if not paths:
        raise EdgesnnError(f"{place} holds no <digit>/<number>.bin")
    stats = [(p.parent.name, p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    key = hashlib.sha256(repr((str(place.resolve()), stats)).encode()).hexdigest()[:32]
    x = cached(f"{NAME}-{split}", key, lambda: np.stack([_counts(path) for path in paths]))
    labels = np.array([int(path.parent.name) for path in paths])
    return checked(NAME, split, x, labels, CLASSES, SCALE)


def read_events(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, p, t in microseconds) of one original file.

    40 bits an event: x (8), y (8), polarity (1), time (23), big-endian. EdgesnnError if it is none.
    """
    try:
        raw = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise EdgesnnError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(raw) % EVENT_BYTES:
        raise EdgesnnError(f"{path} is truncated: {len(raw)} bytes are no whole events of 5")
    table = raw.reshape(-1, EVENT_BYTES).astype(np.int64)
    x, y, p = table[:, 0], table[:, 1], table[:, 2] >> 7
    t = (table[:, 2] & 127) << 16 | table[:, 3] << 8 | table[:, 4]
    real = y != OVERFLOW_Y
    t = t + OVERFLOW_US * np.cumsum(~real)
    return x[real], y[real], p[real], t[real]


def _counts(path: Path) -> np.ndarray:
    x, y, p, _ = read_events(path)
    try:
        return count_events(x, y, p, np.array([0, len(x)]), SHAPE)[0]
    except EdgesnnError as error:
        raise EdgesnnError(f"{path}: {error}") from None
