"""The reference for streams: what the equations of `ir.WindowStream` and `ir.EventStream` mean, step by step.

`StreamInterpreter` takes a signal as it comes and is the definition; `windows_of` gives the same windows of a
whole signal at once. Every other engine (host library, firmware) is judged by them, bit for bit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.front_end import log_mel_rows
from edgesnn.compiler.interpret import Interpreter, readout
from edgesnn.runtime.bundle import check_order, check_time
from edgesnn.runtime.engine import Decision, TimedDecision
from edgesnn.targets.errors import UsageError


@dataclass(frozen=True)
class WindowShape:
    """How a signal falls into rows and windows.

    The unit of time is a sample of sound, or one row of another signal: `values` numbers of `dtype`. Row r
    looks at units r * row_hop ... r * row_hop + frame - 1; a window is `rows` rows of the program's input, the
    next one begins `hop` rows later.
    """

    dtype: str
    values: int
    frame: int
    row_hop: int
    rows: int
    hop: int

    def row_time(self, row: int) -> int:
        """Units that had to arrive for a row (from 0)."""
        return row * self.row_hop + self.frame


def window_shape(program: ir.Program) -> WindowShape:
    """Of a program with a WindowStream."""
    source, stream = program.input, program.stream
    assert isinstance(source, ir.SampleInput) and isinstance(stream, ir.WindowStream)
    height, width, channels = source.shape
    if isinstance(stream.front, ir.LogMel):
        front = stream.front
        return WindowShape("int16", 1, len(front.window), front.hop, height, stream.hop)
    if height == 1:
        return WindowShape(source.dtype, channels, 1, 1, width, stream.hop)
    return WindowShape(source.dtype, width * channels, 1, 1, height, stream.hop)


def windows_of(program: ir.Program, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All windows that a whole signal gives: (times int64[n], samples [n, H, W, C], a read-only view).

    signal: as `StreamInterpreter.push` takes it. Each sample is what one inference gets, its time that of its
    decision. A signal too short for one window gives none.
    """
    shape = window_shape(program)
    rows = _rows(program, check_rows(shape, signal))
    if len(rows) < shape.rows:
        return np.zeros(0, dtype=np.int64), np.zeros((0, *program.input.shape), dtype=rows.dtype)
    view = np.lib.stride_tricks.sliding_window_view(rows, shape.rows, axis=0)[:: shape.hop]
    last = shape.rows - 1 + shape.hop * np.arange(len(view), dtype=np.int64)
    times = shape.row_time(0) + last * shape.row_hop
    samples = np.moveaxis(view, -1, 1)  # [n, rows, samples of a row], in the map's order
    return times, samples.reshape(-1, *program.input.shape)


def _rows(program: ir.Program, signal: np.ndarray) -> np.ndarray:
    """Rows of the input map that a signal [n, values] gives: [rows, samples of a row]."""
    assert isinstance(program.stream, ir.WindowStream)
    if isinstance(program.stream.front, ir.LogMel):
        return log_mel_rows(program.stream.front, signal.reshape(-1))
    return signal


def check_rows(shape: WindowShape, chunk: np.ndarray) -> np.ndarray:
    """A chunk as [n, values]; UsageError where its type or shape is not the source's."""
    chunk = np.asarray(chunk)
    fits = chunk.ndim == 2 and chunk.shape[1] == shape.values
    if chunk.dtype != shape.dtype or not (fits or (chunk.ndim == 1 and shape.values == 1)):
        rows = "[n] or [n, 1]" if shape.values == 1 else f"[n, {shape.values}]"
        raise UsageError(
            f"the stream takes {shape.dtype}{rows}, got {chunk.dtype}{list(chunk.shape)}"
        )
    return chunk.reshape(-1, shape.values)


class Votes:
    """Labels of windows to detections, by the rule in ir.WindowStream."""

    def __init__(self, stream: ir.WindowStream, classes: int) -> None:
        self._rule, self._classes = stream, classes
        self._labels: deque[int] = deque(maxlen=stream.smooth)
        self._in_force: int | None = None
        self._since: int | None = None  # windows since the last detection; None: there was none

    def add(self, label: int) -> tuple[int | None, bool]:
        """(smoothed label or None, whether it is a detection) of the next window."""
        rule = self._rule
        self._labels.append(label)
        votes = np.bincount(np.array(self._labels), minlength=self._classes)
        winner = int(votes.argmax())  # ties: the lowest
        smoothed = winner if votes[winner] >= rule.votes else None
        if self._since is not None:
            self._since += 1
        quiet = smoothed is None or smoothed in rule.background
        if quiet or not rule.background:
            self._in_force = None
        resting = self._since is not None and self._since <= rule.refractory
        detected = not quiet and smoothed != self._in_force and not resting
        if detected:
            self._in_force, self._since = smoothed, 0
        return smoothed, detected


class StreamInterpreter(Interpreter):
    """Runs a program with a stream on its signal. An Engine and a SignalEngine (runtime/engine.py).

    How the signal is cut into chunks makes no difference.
    """

    def __init__(self, program: ir.Program) -> None:
        super().__init__(program)
        if program.stream is None:
            raise UsageError(f"{program.name} has no stream: it takes whole samples")
        self.start_stream()

    def start_stream(self) -> None:
        program, stream = self.program, self.program.stream
        if isinstance(stream, ir.WindowStream):
            self._shape = window_shape(program)
            # Sound that rows to come look at, or must pass before the next of them begins.
            self._waiting = np.zeros((0, self._shape.values), dtype=self._shape.dtype)
            self._skip = 0
            self._row = 0  # number of the next row
            self._newest: deque[np.ndarray] = deque(maxlen=self._shape.rows)
            self._votes = Votes(stream, program.classes)
        else:
            self._run = self.begin()
            self._done = 0  # steps that are over
            self._latest = 0  # time of the newest event
            self._arrived = np.zeros(program.input.shape, dtype=np.uint8)  # in the step under way
            self._rest = 0  # steps in which the output stays 0

    def push(self, chunk: np.ndarray) -> list[TimedDecision]:
        if isinstance(self.program.stream, ir.WindowStream):
            return self._push_rows(check_rows(self._shape, chunk))
        return self._push_events(self._check_events(np.asarray(chunk)))

    def advance(self, until: int) -> list[TimedDecision]:
        if not isinstance(self.program.stream, ir.EventStream):
            raise UsageError("only a stream of events goes on by time: push rows")
        return self._run_steps(check_time(until) // self.program.stream.step_us)

    # Window mode.

    def _push_rows(self, chunk: np.ndarray) -> list[TimedDecision]:
        shape, passed = self._shape, min(self._skip, len(chunk))
        self._skip -= passed
        waiting = np.concatenate([self._waiting, chunk[passed:]])
        rows = _rows(self.program, waiting)
        taken = len(rows) * shape.row_hop
        self._skip += max(taken - len(waiting), 0)
        self._waiting = waiting[taken:].copy()
        out = []
        for row in rows:
            self._newest.append(row)
            self._row += 1
            beyond = self._row - shape.rows
            if beyond >= 0 and beyond % shape.hop == 0:
                decision = self.infer(np.stack(self._newest).reshape(self.program.input.shape))
                smoothed, detected = self._votes.add(decision.label)
                time = shape.row_time(self._row - 1)
                out.append(TimedDecision(time, decision, smoothed, detected))
        return out

    # Continuous mode.

    def _check_events(self, chunk: np.ndarray) -> np.ndarray:
        """Events int64[n, 2]; UsageError, and nothing taken, for what is no chunk or comes late."""
        stream, units = self.program.stream, ir.size(self.program.input.shape)
        assert isinstance(stream, ir.EventStream)
        if chunk.dtype != np.int64 or chunk.ndim != 2 or chunk.shape[1] != 2:
            raise UsageError(
                "the stream takes events int64[n, 2], microseconds and address, got "
                f"{chunk.dtype}{list(chunk.shape)}"
            )
        check_order(chunk, units, self._done * stream.step_us, self._latest)
        return chunk

    def _push_events(self, chunk: np.ndarray) -> list[TimedDecision]:
        stream, out = self.program.stream, []
        assert isinstance(stream, ir.EventStream)
        steps = chunk[:, 0] // stream.step_us
        for part in np.split(chunk, np.flatnonzero(np.diff(steps)) + 1):
            if len(part):
                out += self._run_steps(int(part[0, 0]) // stream.step_us)
                self._arrived.reshape(-1)[part[:, 1]] = 1
                self._latest = int(part[-1, 0])
        return out

    def _run_steps(self, steps: int) -> list[TimedDecision]:
        """Run until so many steps are over."""
        out = []
        while self._done < steps:
            decision = self._run_step()
            if decision is not None:
                out.append(decision)
        return out

    def _run_step(self) -> TimedDecision | None:
        """The step under way, with what has arrived in it."""
        program, stream, run = self.program, self.program.stream, self._run
        assert isinstance(stream, ir.EventStream)
        resting = self._rest > 0
        self._done += 1
        self.step(run, self._done, self._arrived, output=not resting)
        self._arrived[:] = 0
        if resting:
            self._rest -= 1
            return None
        u = run.state[program.output.name].reshape(-1)
        label, decided = readout(program.readout, u)
        if not decided:
            return None
        decision = Decision(label, self._done, True, u.copy(), run.events.copy(), run.sops.copy())
        run.state.pop(program.output.name)  # absent: 0
        run.events[:], run.sops[:] = 0, 0
        self._rest = stream.refractory
        return TimedDecision(self._done * stream.step_us, decision, label, True)
