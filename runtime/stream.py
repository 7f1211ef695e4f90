"""A signal in, decisions out: a bounded queue between whatever delivers the signal and the engine.

Three modes, by the bundle: frames (each is one inference), window and continuous (`runtime/engine.py`). When
chunks come faster than they can be worked on the policy is explicit: "block" makes the source wait, the others
lose chunks, the oldest or the newest, and count them. docs/STREAMING.md says what becomes of a gap.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from inspect import GEN_RUNNING, getgeneratorstate
from pathlib import Path
from types import TracebackType

import numpy as np

from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import Decision, TimedDecision
from edgesnn.runtime.session import Session
from edgesnn.runtime.sources import POLL, Arrays, Chunk, Intake, encode_message, open_source
from edgesnn.runtime.sources import encode_serial_frame as encode_serial_frame
from edgesnn.targets.errors import UsageError

POLICIES = ("block", "drop-oldest", "drop-newest")
CLOCK_SET_US = 10_000_000  # a jump of a live sensor's time by more: its clock was set
DAY_US = 86_400_000_000

__all__ = [
    "POLICIES",
    "Feed",
    "Stream",
    "StreamDecision",
    "Totals",
    "encode_message",
    "encode_serial_frame",
]


@dataclass(frozen=True)
class StreamDecision:
    """A decision that fell in a stream.

    index: number of the frame in its source, from 0 (dropped frames count); of a signal, number of the
    decision. seconds: from the arrival of the whole frame (of the chunk that completed it) to the decision,
    waiting included. dropped: frames, samples, rows or events lost so far by the policy.

    Of a signal (None in frame mode): when all that the decision rests on had arrived, `at` in the signal's
    units since its start (samples, rows or microseconds), `time` in seconds; smoothed, detected and front_ticks
    as in TimedDecision.
    """

    index: int
    decision: Decision
    seconds: float
    dropped: int
    at: int | None = None
    time: float | None = None
    smoothed: int | None = None
    detected: bool | None = None
    front_ticks: int | None = None

    @property
    def label(self) -> int:
        return self.decision.label

    @property
    def step(self) -> int:
        return self.decision.step

    @property
    def membranes(self) -> np.ndarray:
        return self.decision.membranes


@dataclass
class Totals:
    """What became of everything that a source delivered, in its units: frames, samples, rows or events.

    received = used + dropped (by the policy) + late (events of steps that were over) + what was read ahead when
    the stream was left. lost: units that never came (known by their numbers). damaged: messages that came
    broken. gaps: how often the stream began anew behind missing signal.

    decided, detected: decisions, and those to report. labels: how often each class was decided, of a signal
    detected. seconds: of this machine's clock; signal_seconds: of signal that was worked on, 0 in frame mode.
    steps: timesteps of all inferences, 0 in continuous mode.
    """

    unit: str = "frame"
    received: int = 0
    used: int = 0
    decided: int = 0
    detected: int = 0
    dropped: int = 0
    damaged: int = 0
    late: int = 0
    lost: int = 0
    gaps: int = 0
    seconds: float = 0.0
    signal_seconds: float = 0.0
    steps: int = 0
    labels: dict[int, int] = field(default_factory=dict)

    @property
    def real_time(self) -> float | None:
        """Seconds of signal in a second; None in frame mode and before anything was worked on."""
        return self.signal_seconds / self.seconds if self.signal_seconds and self.seconds else None


class _Queue:
    """Chunks between the reader thread and the engine; they are lost here and nowhere else."""

    def __init__(
        self, capacity: int, policy: str, intake: Intake, totals: Totals, closed: threading.Event
    ) -> None:
        self._items: deque[tuple[float, Chunk]] = deque()
        self._capacity, self._policy, self._totals = capacity, policy, totals
        self._intake, self._closed = intake, closed
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, chunk: Chunk) -> None:
        with self._changed:
            units = self._intake.count(chunk.data)
            self._totals.received += units
            if len(self._items) >= self._capacity:
                if self._policy == "drop-newest":
                    self._totals.dropped += units
                    return
                if self._policy == "drop-oldest":
                    self._totals.dropped += self._intake.count(self._items.popleft()[1].data)
                while len(self._items) >= self._capacity and not self._closed.is_set():
                    self._changed.wait(POLL)
            self._items.append((time.monotonic(), chunk))
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> tuple[float, Chunk] | None:
        """The next chunk, None at the end; raises what the reader met, after its chunks."""
        with self._changed:
            while not self._items and not self._ended and not self._closed.is_set():
                self._changed.wait(POLL)  # a timeout keeps Ctrl-C prompt
            if self._closed.is_set():
                return None
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None


class _Worker:
    """Hands chunks to the engine. One for each mode."""

    def __init__(self, session: Session, totals: Totals, live: bool) -> None:
        self.session, self.totals, self.live = session, totals, live
        self.info = session.bundle.stream
        self._begun = 0

    def _begin(self) -> None:
        self.session.start_stream()
        self._begun = self.session.streams

    def _check_own(self) -> None:
        """UsageError where somebody else has begun a stream since."""
        if self.session.streams != self._begun:
            raise UsageError("another stream was begun in this session; feed one source at a time")

    def take(self, chunk: Chunk) -> Iterator[Decision | TimedDecision]:
        """What falls while a chunk comes in."""
        raise NotImplementedError

    def finish(self) -> Iterator[TimedDecision]:
        """What still falls when the signal has ended."""
        return iter(())


class _Frames(_Worker):
    def take(self, chunk: Chunk) -> Iterator[Decision | TimedDecision]:
        for frame in chunk.data:
            decision = self.session.classify(frame)
            self.totals.used += 1
            yield decision


class _Rows(_Worker):
    """Window mode. Behind a gap the stream begins anew: no window, no votes span it, and time stays right."""

    def __init__(self, session: Session, totals: Totals, live: bool) -> None:
        super().__init__(session, totals, live)
        self._next: int | None = None
        self._offset = self._run = 0

    def take(self, chunk: Chunk) -> Iterator[Decision | TimedDecision]:
        if (chunk.start, chunk.run) != (self._next, self._run):
            self.totals.gaps += self._next is not None or chunk.start > 0
            self._begin()
            self._offset = chunk.start
        self._check_own()
        self._next, self._run = chunk.start + len(chunk.data), chunk.run
        found = self.session.push(chunk.data.astype(chunk.data.dtype.newbyteorder("="), copy=False))
        self.totals.used += len(chunk.data)
        assert self.info is not None
        self.totals.signal_seconds = self.info.seconds(self.totals.used)
        for one in found:
            yield replace(one, time=one.time + self._offset)


class _Events(_Worker):
    """Continuous mode. Events of steps that are over are late; lost ones leave no gap in time, which the

    others carry. A live sensor's clock may begin anywhere and be set, and its sender may begin again: there the
    stream begins (anew), at the start of the step in which the clock stands.
    """

    def __init__(self, session: Session, totals: Totals, live: bool) -> None:
        super().__init__(session, totals, live)
        assert self.info is not None and self.info.step_us is not None
        self._step = self.info.step_us
        self._offset: int | None = None
        self._seen = 0  # latest time, of the sensor
        self._before = 0.0  # seconds of signal before the stream began anew
        self._run = 0

    def take(self, chunk: Chunk) -> Iterator[Decision | TimedDecision]:
        if chunk.run != self._run:
            self._run = chunk.run
            yield from self._leave()
        for events in self._parts(chunk.data):
            yield from self._push(events)

    def _parts(self, events: np.ndarray) -> Iterator[np.ndarray]:
        """The events, cut where a live sensor's clock was set."""
        if not self.live:
            yield events
            return
        times = events[:, 0]
        jumps = np.flatnonzero(np.abs(np.diff(times)) > CLOCK_SET_US) + 1
        yield from np.split(events, jumps)

    def _push(self, events: np.ndarray) -> Iterator[TimedDecision]:
        if not len(events):
            return
        first = int(events[0, 0])
        if self._offset is not None and self.live and abs(first - self._seen) > CLOCK_SET_US:
            yield from self._leave()
        if self._offset is None:
            if not self.live and first >= DAY_US:
                raise UsageError(
                    f"the first event is at {first / 1e6:.0f} s, but times of a file or an array begin at 0; "
                    "subtract that of the first"
                )
            self._begin()
            self._offset = self._seen = first // self._step * self._step if self.live else 0
        self._check_own()
        # An event is late where one before it belongs to a later step, however the source was cut into chunks.
        reached = np.maximum.accumulate(np.maximum(events[:, 0], self._seen))
        in_time = events[:, 0] >= reached // self._step * self._step
        real = events[:, 1] >= 0
        # Within a step order does not matter: what comes a little late has the time that was reached.
        taken = np.stack([reached - self._offset, events[:, 1]], axis=1)[in_time & real]
        last = int(reached[-1])
        late = int((real & ~in_time).sum())
        found: list[TimedDecision] = []
        if len(taken):
            found += self.session.push(taken)
        found += self.session.advance(last - self._offset)
        self._seen = last
        self.totals.used += len(taken)
        self.totals.late += late
        self._clock(last)
        for one in found:
            yield replace(one, time=one.time + self._offset)

    def _leave(self) -> Iterator[TimedDecision]:
        """What comes next is another stream."""
        if self._offset is None:
            return
        yield from self.finish()
        self.totals.gaps += 1
        self._before, self._offset = self.totals.signal_seconds, None

    def _clock(self, until: int) -> None:
        assert self._offset is not None
        self.totals.signal_seconds = self._before + (until - self._offset) / 1e6

    def finish(self) -> Iterator[TimedDecision]:
        """The step in which the last event lies is run too."""
        if self._offset is None:
            return
        self._check_own()
        until = (self._seen // self._step + 1) * self._step
        found = self.session.advance(until - self._offset)
        self._clock(until)
        for one in found:
            yield replace(one, time=one.time + self._offset)


class Stream:
    """Classifies a signal as it comes: `for decision in Stream(bundle).feed(source)`, or `async for`.

    bundle: a bundle, its folder, or an open Session (which stays open). policy: one of POLICIES.
    capacity: chunks (in frame mode: frames) that may wait. baud: of a serial source. channel: of a WAV file
    with several. say: as of a Session. `totals` holds the counts of the feed under way or ended.
    """

    def __init__(
        self,
        bundle: Bundle | Session | Path | str,
        *,
        port: str | None = None,
        board: str | None = None,
        policy: str = "block",
        capacity: int = 16,
        baud: int = 115_200,
        channel: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise UsageError(f"unknown policy {policy!r}: one of {', '.join(POLICIES)}")
        if capacity < 1:
            raise UsageError(f"capacity {capacity} is not at least 1")
        self._owned = not isinstance(bundle, Session)
        if isinstance(bundle, Session):
            self.session = bundle
        else:
            self.session = Session(bundle, port, board, say=say)
        self.policy, self.capacity, self.baud, self.channel = policy, capacity, baud, channel
        self.totals = Totals()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session, unless it was handed in; may be called twice."""
        if self._owned:
            self.session.close()

    def feed(self, source: str | Path | Arrays) -> Feed:
        """Decisions on a source, in order; the source is opened at the first and closed at the end.

        source: a name that docs/STREAMING.md lists, an array (frames [N, ...], rows [n, values] or events
        int64[n, 2]), or an iterable, async or not, of frames or pieces of such an array.
        """
        return Feed(self, source)

    def _decisions(
        self,
        source: str | Path | Arrays,
        closed: threading.Event,
        loop: asyncio.AbstractEventLoop | None,
    ) -> Generator[StreamDecision, None, None]:
        bundle = self.session.bundle
        intake = Intake.of(bundle)
        opened = open_source(bundle, source, self.baud, self.channel, loop)
        self.totals = totals = Totals(intake.unit)
        queue = _Queue(self.capacity, self.policy, intake, totals, closed)
        kind = {"frame": _Frames, "event": _Events}.get(intake.unit, _Rows)
        worker = kind(self.session, totals, opened.live)

        def read() -> None:
            try:
                for chunk in opened.chunks(closed):
                    queue.put(chunk)
                    if closed.is_set():
                        break
            except BaseException as e:
                queue.end(e)
            else:
                queue.end(None)

        def count() -> None:
            totals.seconds = time.monotonic() - start
            totals.damaged, totals.lost = opened.damaged, opened.lost

        reader = threading.Thread(target=read, name="edgesnn-source", daemon=True)
        start = time.monotonic()
        reader.start()
        try:
            while (item := queue.get()) is not None:
                arrived, chunk = item
                for one in worker.take(chunk):
                    count()
                    yield self._told(worker, one, chunk.start, arrived)
                count()
            if not closed.is_set():
                arrived = time.monotonic()
                for one in worker.finish():
                    count()
                    yield self._told(worker, one, 0, arrived)
        finally:
            closed.set()
            reader.join(timeout=10 * POLL)
            opened.close()
            count()

    def _told(
        self, worker: _Worker, one: Decision | TimedDecision, frame: int, arrived: float
    ) -> StreamDecision:
        """Counts a decision and says what the caller sees of it."""
        totals = worker.totals
        timed = one if isinstance(one, TimedDecision) else None
        decision = timed.decision if timed is not None else one
        assert isinstance(decision, Decision)
        index = totals.decided if timed is not None else frame
        totals.decided += 1
        if totals.unit != "event":
            totals.steps += decision.step
        label: int | None = decision.label
        if timed is not None:
            totals.detected += timed.detected
            label = timed.smoothed if timed.detected else None
        if label is not None:
            totals.labels[label] = totals.labels.get(label, 0) + 1
        seconds = time.monotonic() - arrived
        if timed is None or worker.info is None:
            return StreamDecision(index, decision, seconds, totals.dropped)
        return StreamDecision(
            index,
            decision,
            seconds,
            totals.dropped,
            at=timed.time,
            time=worker.info.seconds(timed.time),
            smoothed=timed.smoothed,
            detected=timed.detected,
            front_ticks=timed.front_ticks,
        )


class Feed:
    """The decisions of one source: an iterator and an async iterator, whichever it is first used as.

    With `async for` the engine works in a thread of its own, so the event loop stays free, and the source may
    be an async iterable; a cancelled task leaves no thread behind. `close` (`aclose`) ends it early.
    """

    def __init__(self, stream: Stream, source: str | Path | Arrays) -> None:
        self._stream, self._source = stream, source
        self._closed = threading.Event()
        self._decisions: Generator[StreamDecision, None, None] | None = None
        self._pool: ThreadPoolExecutor | None = None

    def _begun(
        self, loop: asyncio.AbstractEventLoop | None = None
    ) -> Generator[StreamDecision, None, None]:
        if self._decisions is None:
            self._decisions = self._stream._decisions(self._source, self._closed, loop)
        return self._decisions

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> StreamDecision:
        return next(self._begun())

    def close(self) -> None:
        """Leave the source; may be called twice, and while another thread waits for a decision."""
        self._closed.set()
        decisions = self._begun()
        if getgeneratorstate(decisions) != GEN_RUNNING:  # else it ends where it is
            decisions.close()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> StreamDecision:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "edgesnn-stream")
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._pool, next, self._begun(loop), None)
        try:
            found = await asyncio.shield(task)
        except asyncio.CancelledError:
            self._closed.set()  # the thread comes back as soon as the engine is done with its chunk
            await asyncio.wait([task])
            task.exception()
            await self.aclose()
            raise
        except BaseException:
            await self.aclose()
            raise
        if found is None:
            await self.aclose()
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        """Leave the source; may be called twice."""
        self._closed.set()
        if self._pool is not None:
            loop, pool = asyncio.get_running_loop(), self._pool
            await loop.run_in_executor(pool, self.close)
            pool.shutdown()  # its thread is idle
            self._pool = None
        else:
            self.close()
