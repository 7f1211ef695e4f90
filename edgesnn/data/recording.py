"""One long labelled signal: what a stream is scored on. `recordings.py` finds one by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.data.dataset import SCALES, check_labels, check_split
from edgesnn.targets.errors import EdgesnnError


@dataclass(frozen=True, eq=False)
class Recording:
    """A split of a data set as one signal: its pieces one after the other, with rest between them.

    signal: rows [n, values] of uint8, int8 or int16 (sound: int16[n, 1]), or events int64[n, 2], microseconds
    since the start (not descending) and address. length: how long it is, in rows (samples of sound), or in
    microseconds. intervals int64[k, 2]: [start, end) of each labelled piece in the same units, in order and
    without overlap. labels int64[k]: 0...classes - 1. rate: rows (samples) a second, None of events or where it
    is not known.

    Raises EdgesnnError where the arrays do not fit together.
    """

    name: str
    split: str
    signal: np.ndarray
    length: int
    intervals: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    rate: float | None = None

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.signal.ndim != 2 or self.signal.shape[1] < 1:
            raise EdgesnnError(
                f"{self.name}: the signal has shape {self.signal.shape}, not [rows, values]"
            )
        if self.is_events:
            self._check_events()
        elif self.signal.dtype.name not in SCALES:
            raise EdgesnnError(
                f"{self.name}: the signal is {self.signal.dtype}; {', '.join(SCALES)} rows are taken, "
                "or events as int64[n, 2]"
            )
        elif self.length != len(self.signal):
            raise EdgesnnError(
                f"{self.name}: the signal has {len(self.signal)} rows, its length is {self.length}"
            )
        self._check_intervals()
        check_labels(self.name, "labels", self.labels, len(self.class_names))

    @property
    def is_events(self) -> bool:
        """Whether the signal is address events rather than rows."""
        return self.signal.dtype == np.int64

    def first(self, intervals: int) -> Recording:
        """The part before the interval after the first so many; all of it where there are not more."""
        if intervals >= len(self.labels):
            return self
        end = int(self.intervals[intervals, 0])
        signal = self.signal[:end]
        if self.is_events:
            signal = self.signal[: np.searchsorted(self.signal[:, 0], end)]
        return Recording(
            self.name,
            self.split,
            signal,
            end,
            self.intervals[:intervals],
            self.labels[:intervals],
            self.class_names,
            self.rate,
        )

    def _check_events(self) -> None:
        times, addresses = self.signal.T if self.signal.shape[1] == 2 else (None, None)
        if times is None or addresses is None:
            raise EdgesnnError(
                f"{self.name}: int64{self.signal.shape} are no events, which are int64[n, 2]: "
                "microseconds and address"
            )
        if not len(times):
            return
        late = np.flatnonzero(np.diff(times) < 0)
        if len(late):
            raise EdgesnnError(
                f"{self.name}: event {late[0] + 1} is earlier than the one before it"
            )
        if times[0] < 0 or times[-1] >= self.length or addresses.min() < 0:
            raise EdgesnnError(
                f"{self.name}: events have times in 0...{self.length - 1} us and addresses from 0"
            )

    def _check_intervals(self) -> None:
        spans = self.intervals
        if spans.ndim != 2 or spans.shape[1] != 2 or spans.dtype.kind not in "iu":
            raise EdgesnnError(
                f"{self.name}: intervals are {spans.dtype}{spans.shape}, not whole numbers [k, 2]"
            )
        if len(spans) != len(self.labels):
            raise EdgesnnError(
                f"{self.name}: {len(spans)} intervals have {len(self.labels)} labels"
            )
        if not len(spans):
            raise EdgesnnError(f"{self.name}: there is no labelled interval")
        bad = np.flatnonzero(spans[:, 0] >= spans[:, 1])
        if len(bad):
            start, end = spans[bad[0]]
            raise EdgesnnError(f"{self.name}: interval {bad[0]} is [{start}, {end}): it is empty")
        bad = np.flatnonzero(spans[1:, 0] < spans[:-1, 1])
        if len(bad):
            raise EdgesnnError(
                f"{self.name}: interval {bad[0] + 1} begins before interval {bad[0]} ends"
            )
        if spans[0, 0] < 0 or spans[-1, 1] > self.length:
            raise EdgesnnError(
                f"{self.name}: intervals reach from {spans[0, 0]} to {spans[-1, 1]}, "
                f"outside 0...{self.length}"
            )
