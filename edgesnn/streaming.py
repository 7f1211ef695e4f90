"""A labelled recording through a compiled model: what its detections are worth, and whether they are right.

`measure` plays it into the session's engine and scores what is detected; `verify` plays it into the definition
(`compiler/stream.py`) beside the engine and compares every decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.compare import decision_difference, timed_difference
from edgesnn.compiler.esnn_file import load_bundle_program
from edgesnn.compiler.stream import StreamInterpreter, windows_of
from edgesnn.data import Recording, load_recording
from edgesnn.runtime.engine import Decision, TimedDecision
from edgesnn.runtime.session import Session
from edgesnn.runtime.sources import Intake
from edgesnn.scoring import score_recording
from edgesnn.targets.errors import UsageError

COMPARED = (
    "time",
    "class",
    "step",
    "exited",
    "membranes",
    "events",
    "sops",
    "smoothed",
    "detected",
)
PIECE_SECONDS = 1.0  # of signal, between two looks at how far it is
Advance = Callable[[Iterable[Any]], Iterable[Any]]


def find_recording(
    session: Session,
    data: str,
    split: str = "test",
    intervals: int | None = None,
    data_dir: str | None = None,
) -> Recording:
    """A recording that the session's model takes, up to its first so many intervals.

    UsageError where it is no such signal, or has classes that the model does not tell apart.
    """
    if intervals is not None and intervals < 1:
        raise UsageError(f"samples {intervals} is not at least 1")
    info, bundle = (
        session.stream,
        session.bundle,
    )  # a model without a stream is told before data are read
    recording = load_recording(data, split, data_dir)
    if recording.is_events != (info.source == "events"):
        kind = "events" if recording.is_events else "rows of a signal"
        raise UsageError(f"{data} is {kind}, {bundle.name} takes {Intake.of(bundle).text}")
    if recording.rate is not None and info.rate is not None and recording.rate != info.rate:
        raise UsageError(
            f"{data} has {recording.rate:,g} {Intake.of(bundle).unit}s a second, {bundle.name} takes "
            f"{info.rate:,g}: resample it"
        )
    if len(recording.class_names) > bundle.classes:
        raise UsageError(
            f"{data} has {len(recording.class_names)} classes, {bundle.name} tells {bundle.classes} apart"
        )
    if intervals is not None:
        if intervals > len(recording.labels):
            raise UsageError(
                f"the {split} split of {data} has {len(recording.labels)} intervals, not {intervals}"
            )
        recording = recording.first(intervals)
    # The model may answer with classes that the recording does not have.
    known = len(recording.class_names)
    names = (*recording.class_names, *map(session.class_name, range(known, bundle.classes)))
    signal = Intake.of(bundle).checked(recording.signal)
    return replace(recording, signal=signal, class_names=names)


def pieces(session: Session, recording: Recording) -> list[tuple[np.ndarray, int]]:
    """The signal in pieces of a second: (rows or events, the time at its end)."""
    info, signal = session.stream, recording.signal
    unit = info.seconds(1)
    step = max(1, round(PIECE_SECONDS / unit))
    ends = [*range(step, recording.length, step), recording.length]
    at = np.searchsorted(signal[:, 0], ends) if recording.is_events else np.array(ends)
    starts = [0, *at[:-1].tolist()]
    return [(signal[a:b], end) for a, b, end in zip(starts, at.tolist(), ends, strict=True)]


def play(
    session: Session, recording: Recording, advance: Advance = lambda items: items
) -> Iterator[TimedDecision]:
    """What falls while the session's engine hears the recording from its start to its end."""
    session.start_stream()
    for signal, end in advance(pieces(session, recording)):
        if len(signal):
            yield from session.push(signal)
        if recording.is_events:
            yield from session.advance(end)


def measure(
    session: Session, recording: Recording, advance: Advance = lambda items: items
) -> dict[str, Any]:
    """The score of a recording (`edgesnn/scoring.py`), and what its decisions cost.

    signal_seconds, seconds: of the recording, and of this machine's clock. sops_mean: synaptic operations per
    decision. board (null on this machine): `unit`, in which the counter counts, and per decision, of it, the
    network and the front end (binning) apart; per_second: both, in a second of signal; clock_hz, and real_time:
    how many seconds of signal the board works on in one at that clock, if a unit is a cycle.
    """
    info, began = session.stream, time.monotonic()
    found: list[tuple[int, int]] = []
    decisions, last, steps, exited = 0, 0, 0, 0
    sops, ticks, front = 0, 0, 0
    for one in play(session, recording, advance):
        decisions += 1
        last = one.time
        steps += one.decision.step
        exited += one.decision.exited
        sops += int(one.decision.sops.sum())
        ticks += one.decision.ticks or 0
        front += one.front_ticks or 0
        if one.detected and one.smoothed is not None:
            found.append((one.time, one.smoothed))
    seconds = time.monotonic() - began
    scored = score_recording(recording, found, info.background, info.seconds(1))
    signal_seconds = info.seconds(recording.length)
    return {
        "engine": session.engine_name,
        "mode": info.mode,
        **scored.to_dict(),
        "decisions": decisions,
        "detections": len(found),
        "signal_seconds": signal_seconds,
        "seconds": seconds,
        "real_time": signal_seconds / seconds,
        "mean_timesteps": steps / decisions if decisions and info.mode == "window" else None,
        "sops_mean": sops / decisions if decisions else None,
        "board": _board(session, decisions, info.seconds(last), ticks, front),
    }


def _board(
    session: Session, decisions: int, heard: float, ticks: int, front: int
) -> dict[str, Any] | None:
    """What the board's counter says of so many decisions, the last of them after `heard` seconds of signal."""
    counter, board = session.counter, session.board
    if counter is None or board is None or not decisions:
        return None
    network, around = counter.units(ticks), counter.units(front)
    rate = (network + around) / heard
    return {
        "name": board.name,
        "unit": counter.unit,
        "network": network / decisions,
        "front_end": around / decisions,
        "per_second": rate,
        "clock_hz": board.clock_hz,
        "real_time": board.clock_hz / rate if rate else None,
    }


def verify(
    session: Session, recording: Recording, advance: Advance = lambda items: items
) -> dict[str, Any]:
    """Compare every decision of a recording with the definition, bit for bit.

    In window mode also with the batch: every window of the whole signal, cut out beforehand and classified as a
    sample by the same engine. decisions: compared; mismatches: those that differ, or that one side lacks.
    """
    program = load_bundle_program(session.bundle)
    reference = StreamInterpreter(program)
    seen = _Compared()
    streamed: list[TimedDecision] = []
    session.start_stream()
    reference.start_stream()
    for signal, end in advance(pieces(session, recording)):
        want, got = reference.push(signal), session.push(signal)
        if recording.is_events:
            want += reference.advance(end)
            got += session.advance(end)
        seen.pairs(want, got, timed_difference, "decision")
        streamed += got
    windows = None
    if isinstance(program.stream, ir.WindowStream):
        windows = _batch(session, program, recording, streamed, seen, advance)
    return {
        "engine": session.engine_name,
        "intervals": len(recording.labels),
        "signal_seconds": session.stream.seconds(recording.length),
        "decisions": len(streamed),
        "detections": sum(one.detected for one in streamed),
        "windows": windows,
        "compared": list(COMPARED),
        "mismatches": seen.mismatches,
        "first_mismatch": seen.first,
    }


class _Compared:
    """Counts differences and keeps the first."""

    def __init__(self) -> None:
        self.count, self.mismatches = 0, 0
        self.first: str | None = None

    def pairs(
        self,
        want: Sequence[Any],
        got: Sequence[Any],
        difference: Callable[[Any, Any], str | None],
        what: str,
    ) -> None:
        """Compare in order; what only one side has differs."""
        for i in range(max(len(want), len(got))):
            if i < min(len(want), len(got)):
                self.note(difference(want[i], got[i]), what)
            else:
                one = want[i] if i < len(want) else got[i]
                self.note(f"{'missing' if i < len(want) else 'too many'}, at {one.time}", what)

    def note(self, problem: str | None, what: str) -> None:
        if problem is not None:
            self.mismatches += 1
            self.first = self.first or f"{what} {self.count}: {problem}"
        self.count += 1


def _batch(
    session: Session,
    program: ir.Program,
    recording: Recording,
    streamed: Sequence[TimedDecision],
    seen: _Compared,
    advance: Advance,
) -> int:
    """Classify every window of the signal as a sample and compare; the number of windows."""
    times, samples = windows_of(program, recording.signal)
    if len(times) != len(streamed):
        seen.note(f"{len(streamed)} decisions, {len(times)} windows", "window")
        return len(times)
    for sample, at, one in advance(list(zip(samples, times.tolist(), streamed, strict=True))):
        decision: Decision = session.classify(sample)
        problem = None if at == one.time else f"time is {one.time}, not {at}"
        seen.note(problem or decision_difference(decision, one.decision), "window")
    return len(times)
