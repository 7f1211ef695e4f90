"""What every engine that runs a compiled model offers: interpreter, host library, board behind a link."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Decision:
    """The answer to one inference.

    label: winning class. step: stopping timestep, 1...T. exited: True when the readout's criterion was met,
    False when the answer is argmax U[T]. membranes: int64[classes], the output membranes at `step`.
    events, sops: int64[nodes], events emitted and synaptic operations done per node, summed over the steps
    up to the exit (a SOP is one weight added to one membrane inside the map; encoders do none).
    ticks: raw reading of the board's counter for this inference, None on engines without one.
    seconds: wall-clock time that the engine itself measured, None where a board's counter is used.
    """

    label: int
    step: int
    exited: bool
    membranes: np.ndarray
    events: np.ndarray
    sops: np.ndarray
    ticks: int | None = None
    seconds: float | None = None
    node_ticks: np.ndarray | None = None


@dataclass(frozen=True)
class Trace:
    """A decision and every event: events[t - 1][node] is the sorted uint32 addresses emitted in step t.

    An address is (y * W + x) * C + c; one that was emitted k times in the step stands k times (SumPool).
    A node that did not run (after the exit, or the output node) has an empty array.
    """

    decision: Decision
    events: list[list[np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class TimedDecision:
    """A decision that fell while a signal streamed in.

    time: in the signal's own units since the stream's start, at which all that it rests on had arrived: samples
    of sound, rows of another signal (window mode), microseconds (continuous mode, the end of the step).
    smoothed: label after the votes of window mode, None without enough; in continuous mode the label. detected:
    whether it is to be reported. front_ticks: counter reading of the front end since the last window (of the
    binning since the last decision), None on engines without a counter; the decision's `ticks` are the
    network's alone. In continuous mode `decision.step` counts from the stream's start, `events`, `sops` and
    `ticks` from the last decision. The C core counts events and operations in 32 bits, which a long time
    without a decision outgrows.
    """

    time: int
    decision: Decision
    smoothed: int | None
    detected: bool
    front_ticks: int | None = None


class SignalEngine(Protocol):
    """An engine that takes a signal as it comes (programs with a stream)."""

    def start_stream(self) -> None:
        """Forget everything: time 0."""

    def push(self, chunk: np.ndarray) -> list[TimedDecision]:
        """What falls while `chunk` comes in.

        Window mode: rows [n, values] (or [n] where a row is one value, as of sound) in the source's dtype.
        Continuous mode: int64[n, 2], microseconds since the start and address, times not descending.
        """

    def advance(self, until: int) -> list[TimedDecision]:
        """Continuous mode: run every step that ends at or before `until` microseconds."""


class Engine(Protocol):
    """An engine runs one compiled model; it is a context manager, and `close` may be called twice.

    A sample is an array of the input's shape and dtype; for an event input uint8[T, H, W, C], non-zero
    where an event arrives.
    """

    name: str

    def infer(self, sample: np.ndarray) -> Decision: ...

    def trace(self, sample: np.ndarray) -> Trace: ...

    def close(self) -> None: ...
