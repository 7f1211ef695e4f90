"""What every engine asks of the chunks of a signal, before anything of them is taken."""

from __future__ import annotations

import numpy as np

from edgesnn.targets.errors import UsageError


def check_rows(chunk: np.ndarray, dtype: str, values: int) -> np.ndarray:
    """A chunk as [n, values]; UsageError where its type or shape is not the source's.

    dtype: of a value. values: of a row; where it is 1 (sound), [n] will do.
    """
    chunk = np.asarray(chunk)
    fits = chunk.ndim == 2 and chunk.shape[1] == values
    if chunk.dtype != dtype or not (fits or (chunk.ndim == 1 and values == 1)):
        rows = "[n] or [n, 1]" if values == 1 else f"[n, {values}]"
        raise UsageError(f"the stream takes {dtype}{rows}, got {chunk.dtype}{list(chunk.shape)}")
    return chunk.reshape(-1, values)


class EventOrder:
    """Continuous mode: times do not descend and do not fall into a step that is over.

    step_us: length of a step. units: number of addresses.
    """

    def __init__(self, step_us: int, units: int) -> None:
        self._step_us, self._units = step_us, units
        self._latest = 0  # time of the newest event
        self._begin = 0  # of the step under way

    def take(self, chunk: np.ndarray) -> np.ndarray:
        """Events int64[n, 2], microseconds and address, as taken from now on; else UsageError."""
        chunk = np.asarray(chunk)
        if chunk.dtype != np.int64 or chunk.ndim != 2 or chunk.shape[1] != 2:
            raise UsageError(
                "the stream takes events int64[n, 2], microseconds and address, got "
                f"{chunk.dtype}{list(chunk.shape)}"
            )
        if not len(chunk):
            return chunk
        times, addresses = chunk[:, 0], chunk[:, 1]
        before = np.concatenate([[self._latest], times[:-1]])
        if times[0] < self._begin:
            raise UsageError(
                f"event at {times[0]} us is late: the step under way began at {self._begin}"
            )
        if (times < before).any():
            at = int((times < before).argmax())
            raise UsageError(f"event times descend: {times[at]} us after {before[at]} us")
        outside = (addresses < 0) | (addresses >= self._units)
        if outside.any():
            found = addresses[int(outside.argmax())]
            raise UsageError(f"event address {found} is outside 0...{self._units - 1}")
        self._latest = int(times[-1])
        self.advance(self._latest)
        return chunk

    def advance(self, until: int) -> None:
        """Every step that ends at or before `until` is over."""
        self._begin = max(self._begin, int(until) // self._step_us * self._step_us)
