"""The host's end of the serial protocol (docs/FORMAT.md): an engine whose model runs on a board."""

from __future__ import annotations

import contextlib
import math
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgesnn.runtime.bundle import check_time
from edgesnn.runtime.engine import Decision, TimedDecision, Trace
from edgesnn.runtime.fault import describe_fault
from edgesnn.runtime.frames import (
    API_VERSION,
    BANNER,
    DATA,
    EVENTS,
    FAULT,
    HELLO,
    INFER,
    PAYLOAD_BYTES,
    PROTOCOL_VERSION,
    READ_EVENTS,
    READ_MEMBRANES,
    READ_STATS,
    RESET,
    RESPONSE,
    RESULT,
    SIGNAL_BYTES,
    STACK,
    STEP,
    STEP_NODE,
    STREAM_EVENTS,
    STREAM_PUSH,
    STREAM_RESET,
    UNREADABLE,
    BoardInfo,
    Frame,
    decode_frame,
    encode_frame,
    status_text,
    unfit,
    unpack,
)
from edgesnn.runtime.serial_port import LinkLost, PortGone, SerialPort
from edgesnn.targets.errors import EdgesnnError, UsageError

if TYPE_CHECKING:
    from edgesnn.runtime.bundle import Bundle, StreamInfo
    from edgesnn.targets.board import Counter

_ERR_SESSION = 8
_QUIET = 0.05  # seconds after which a line counts as quiet, before the first request
_MARGINS = 0.05, 0.1  # seconds to wait longer than an answer should take: data, computing
_FIRST = 0.25, 0.5  # seconds to wait while nothing is known of the board
_FADES = 0.9, 0.99  # what the longest round trip seen is still worth at the next
_PATIENCE = 3  # times `timeout`: a board that says nothing but that it cannot read
_RESTARTS = 3  # of one sample
_LOOK = 0.1  # seconds between two looks for a port that is gone
_RESULT = struct.Struct("<HBBIIIII")
_STEPPED = struct.Struct("<HBBIII")
_STACK = struct.Struct("<II")
_STREAMED = struct.Struct("<BB")  # taken, flags; a decision follows where one fell
_STREAM_DECISION = struct.Struct("<BBHHQIQQ")
_DECIDED, _EXITED, _DETECTED, _MORE = 1, 2, 4, 8  # flags
_NO_LABEL = 0xFFFF
_AT_ONCE = 64  # steps after which an answer says MORE


_T = TypeVar("_T")


class _Reset(EdgesnnError):
    """The board has lost all that it was told."""


def _less(steps: int, flags: int) -> int:
    """Steps left to run after an answer: a board that runs more of them would never come to an end."""
    left = steps - (1 if flags & _DECIDED else _AT_ONCE if flags & _MORE else 0)
    if left < 0:
        raise unfit("more steps than time has passed")
    return left


class _Pace:
    """How long to wait for the answer to one kind of request before it is sent again, in seconds.

    Twice the longest round trip seen lately, and a margin: a frame that comes too early costs its time, and a
    board that computes does not read. Only requests sent once are measured, as nobody knows which copy was
    answered (Karn); until the next of them, a wait in vain doubles the next wait.
    """

    def __init__(self, first: float, margin: float, most: float, fade: float) -> None:
        self.wait = min(first, most)
        self.mean = _QUIET  # of the round trips
        self._longest = 0.0
        self._margin, self._most, self._fade = margin, most, fade

    def saw(self, seconds: float) -> None:
        """A round trip of a request sent once."""
        self.mean += (seconds - self.mean) / 8
        self._longest = max(seconds, self._fade * self._longest)
        self.wait = min(2 * self._longest + self._margin, self._most)

    def silent(self) -> None:
        """Nothing came."""
        self.wait = min(2 * self.wait, self._most)


class LinkEngine:
    """Runs the bundle's model on the board at `port`, whatever pyserial's serial_for_url takes.

    timeout: seconds without a sound frame after which the board counts as dead; run_timeout: the same for
    requests that compute. counter: the one that the board's file describes; a board that counts at another
    rate is refused. watch is called when the board is silent or gone and may raise a better explanation
    (Emulator.check). Every failure is an EdgesnnError, of a port that cannot be one a UsageError.

    A frame that is lost or damaged is sent again under its sequence number, so that the board never executes it
    twice. A board that was reset, or whose port was gone for less than `reconnect` seconds, is greeted again
    and runs the sample again from its start, three times at most; each sample is answered once. A stream ends
    there with an error that says how far the signal was taken. `say` is told of each such event, in one line.
    Once another thread sets `stop`, nothing waits for the board any longer: LinkLost. silence: what to say of a
    board that does not answer a greeting, where more is known of it than its port.

    Of a model with a stream it is a SignalEngine too. A sample in between ends a stream of events, as
    the board has one set of membranes.

    link_seconds: wall-clock seconds spent so far on requests that only move data. info: what the board said of
    itself. Counters: resent, frames sent again; damaged, frames unreadable here or there; restarts, samples
    begun again; reconnects, times that the port came back.
    """

    name = "board"

    def __init__(
        self,
        bundle: Bundle,
        port: str,
        *,
        baud: int = 115_200,
        timeout: float = 10.0,
        run_timeout: float = 120.0,
        reconnect: float = 30.0,
        counter: Counter | None = None,
        watch: Callable[[], None] | None = None,
        silence: str | None = None,
        say: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._bundle = bundle
        self._url, self._baud = port, baud
        self._timeout = timeout
        self._run_timeout = run_timeout
        self._reconnect = reconnect
        self._counter = counter
        self._watch, self._silence = watch, silence
        self._say = say or (lambda line: None)
        self._stop = stop or threading.Event()
        self._paces: dict[int, _Pace] = {}
        self._sequence = self._session = self._inferences = 0
        self._due = 0  # frames that were sent and not yet answered
        self.link_seconds = 0.0
        self.resent = self.damaged = self.restarts = self.reconnects = 0
        self._stream: StreamInfo | None = None  # while one runs
        self._ended: EdgesnnError | None = None  # why it does no longer
        self._begin = self._latest = 0  # of its step under way, of its newest event; microseconds
        self._taken = 0  # of the signal: bytes of rows, microseconds of events
        self._port: SerialPort | None = None
        self._closed = self._greeted = False
        try:
            with self._watched():
                self._port = self._open()
            self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LinkEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port; may be called twice."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        self._greeted = False
        if self._port is not None:
            self._port.close()
            self._port = None

    def infer(self, sample: np.ndarray) -> Decision:
        """One inference, timed by the board's counter."""
        return self._whole(lambda: self._infer(sample))

    def _infer(self, sample: np.ndarray) -> Decision:
        steps = self._load(sample)
        if steps is None:
            return self._decision(self._request(INFER, slow=True))
        ticks = 0
        for addresses in steps:
            self._push(addresses)
            result = self._request(STEP, slow=True)
            _, decided, _, _, step_ticks, *_ = unpack(_RESULT, result)
            ticks += step_ticks
            if decided:
                return replace(self._decision(result), ticks=ticks)
        raise unfit(f"undecided after {len(steps)} steps")

    def trace(self, sample: np.ndarray) -> Trace:
        """One inference node by node, with every event."""

        def run() -> Trace:
            rows: list[list[np.ndarray]] = []
            return Trace(self._stepped(sample, rows), rows)

        return self._whole(run)

    def profile(self, sample: np.ndarray) -> Decision:
        """One inference with node_ticks, int64[nodes]: ticks in each node over all steps."""
        return self._whole(lambda: self._stepped(sample, None))

    def start_stream(self) -> None:
        """Forget everything: time 0."""
        stream = self._bundle.stream
        if stream is None:
            raise UsageError(f"{self._bundle.name} has no stream: it takes whole samples")
        if not self.info.streams:
            raise unfit("its firmware takes no signal")
        self._whole(lambda: self._request(STREAM_RESET))
        self._stream, self._ended = stream, None
        self._begin = self._latest = self._taken = 0

    def push(self, chunk: np.ndarray) -> list[TimedDecision]:
        """What falls while `chunk` comes in: see SignalEngine."""
        stream = self._streaming()
        if stream.step_us is None:
            rows = stream.check_rows(chunk)
            data = rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
            with self._of_stream():
                return self._push_rows(stream, data)
        units = math.prod(self._bundle.input_shape)
        events = stream.check_events(chunk, units, begin=self._begin, latest=self._latest)
        if not len(events):
            return []
        with self._of_stream():
            out = self._push_events(stream, stream.step_us, events)
        self._latest = int(events[-1, 0])
        self._begin = self._latest // stream.step_us * stream.step_us
        return out

    def advance(self, until: int) -> list[TimedDecision]:
        """Continuous mode: run every step that ends at or before `until` microseconds."""
        stream = self._streaming()
        if stream.step_us is None:
            raise UsageError("only a stream of events goes on by time: push rows")
        end = check_time(until) // stream.step_us * stream.step_us
        if end <= self._begin:
            return []
        out: list[TimedDecision] = []
        left = (end - self._begin) // stream.step_us
        more = True
        with self._of_stream():
            while more:
                _, flags, reply = self._streamed(STREAM_EVENTS, struct.pack("<Q", end), 0)
                if flags & _DECIDED:
                    out.append(self._timed(stream, reply))
                left = _less(left, flags)
                more = bool(flags & (_DECIDED | _MORE))
        self._begin = self._taken = end
        return out

    def stack_high_water(self) -> int:
        """Most bytes of stack in use at once since the board was reset."""
        used, _ = unpack(_STACK, self._whole(lambda: self._request(STACK)))
        return int(used)

    def _whole(self, run: Callable[[], _T]) -> _T:
        """What run() returns; from its start again where the board is reset or its port gone meanwhile."""
        why = ""
        for restart in range(_RESTARTS + 1):
            try:
                self._ready()
                return run()
            except (_Reset, PortGone) as e:
                why = self._lost(e)
                if isinstance(e, PortGone) and self._reconnect <= 0:
                    raise
                if restart < _RESTARTS:
                    self.restarts += 1
                    self._say(f"{why}; what was under way is run again")
            except BaseException:
                self._greeted = False  # nobody knows how far the board has come
                raise
        raise LinkLost(
            f"{why}: {_RESTARTS + 1} times in one sample; check cable and power, and that no timestep takes "
            "longer than the watchdog allows"
        )

    @contextlib.contextmanager
    def _of_stream(self) -> Iterator[None]:
        """What is lost of a stream cannot be told again: it ends, with the time up to which it was taken.

        Nobody knows how far the board has come either where the push was left for any other reason.
        """
        try:
            yield
        except BaseException as e:
            self._lost(e)
            if isinstance(e, _Reset | PortGone):
                assert self._ended is not None
                raise self._ended from None
            raise

    def _lost(self, error: BaseException) -> str:
        """The board knows nothing any more, its port may be gone, a stream has ended: why, in words."""
        why, _, _ = str(error).partition(";")  # the advice is for who has to act
        why = why or type(error).__name__  # KeyboardInterrupt
        self._greeted = False
        if isinstance(error, PortGone):
            self._drop()
        if self._stream is not None:
            time, unit = self._taken, "us"
            if self._stream.step_us is None:
                assert self._stream.dtype is not None
                time //= self._stream.values * np.dtype(self._stream.dtype).itemsize
                unit = "samples" if self._stream.source == "sound" else "rows"
            text = (
                f"{why}: the stream has ended after {time} {unit} ({self._stream.seconds(time):g} s); "
                "begin another with start_stream()"
            )
            lost = isinstance(error, LinkLost)
            self._stream, self._ended = None, LinkLost(text) if lost else EdgesnnError(text)
        return why

    def _ready(self) -> None:
        """A board that is greeted, behind a port that is open."""
        if self._closed:
            raise EdgesnnError("the link is closed")
        if self._port is None:
            self._reopen()
        if not self._greeted:
            self._greet()

    def _open(self) -> SerialPort:
        self._due = 0
        port = SerialPort(self._url, self._baud, self._timeout, self._stop)
        try:
            self._drain(port)
        except BaseException:
            port.close()
            raise
        return port

    def _reopen(self) -> None:
        """Wait for the port to come back."""
        self._say(f"port {self._url} is gone; waiting {self._reconnect:g} s for it to come back")
        end = time.monotonic() + self._reconnect
        while self._port is None:
            try:
                with self._watched():
                    self._port = self._open()
            except PortGone as e:
                if time.monotonic() >= end:
                    raise LinkLost(
                        f"port {self._url} has not come back within {self._reconnect:g} s ({e})"
                    ) from None
                if self._stop.wait(_LOOK):
                    raise LinkLost(f"the link on {self._url} was given up") from None
        self.reconnects += 1
        self._say(f"port {self._url} is back")

    def _greet(self) -> None:
        """Begin a session with the board, and see that it is the bundle's."""
        before = self._session
        for _ in range(_RESTARTS):
            # Never the one before: what is left of that on the line is refused.
            self._session = (self._session + secrets.randbelow(254)) % 255 + 1
            self.info = BoardInfo.parse(self._request(HELLO))
            # Equal: the greeting came twice, or another program had drawn the same; both end with the next.
            if self.info.session != self._session:
                break
        self._check_info(self._counter)
        if self._stream is not None and self.info.session != before:
            raise _Reset(f"the board on {self._url} was reset or served another program")
        self._inferences = 0
        self._greeted = True

    def _streaming(self) -> StreamInfo:
        """The stream that runs; the first push starts it."""
        if self._stream is None:
            if self._ended is not None:
                raise self._ended.with_traceback(None)
            self.start_stream()
        assert self._stream is not None
        return self._stream

    def _push_rows(self, stream: StreamInfo, data: bytes) -> list[TimedDecision]:
        out: list[TimedDecision] = []
        at = 0
        while at < len(data):
            part = data[at : at + SIGNAL_BYTES]
            taken, flags, reply = self._streamed(STREAM_PUSH, part, len(part))
            if taken == 0:
                raise unfit("no byte of a signal taken")
            at += taken
            self._taken += taken
            if flags & _DECIDED:
                out.append(self._timed(stream, reply))
        return out

    def _push_events(
        self, stream: StreamInfo, step_us: int, events: np.ndarray
    ) -> list[TimedDecision]:
        """Events int64[n, 2], n > 0, each request with a base and what comes less than 2^16 us later."""
        times = events[:, 0]
        packed = np.empty(
            len(events), [("after", "<u2"), ("address", f"<u{self.info.event_bytes}")]
        )
        packed["address"] = events[:, 1]
        room = (SIGNAL_BYTES - 8) // packed.itemsize
        out: list[TimedDecision] = []
        left = (int(times[-1]) - self._begin) // step_us
        at = 0
        while at < len(events):
            base = int(times[at])
            near = times[at : at + room] - base
            near = near[: int(near.searchsorted(1 << 16))]
            part = packed[at : at + len(near)]
            part["after"] = near
            request = struct.pack("<Q", base) + part.tobytes()
            taken, flags, reply = self._streamed(STREAM_EVENTS, request, len(part))
            at += taken
            if taken:
                self._taken = int(times[at - 1])
            if flags & _DECIDED:
                out.append(self._timed(stream, reply))
            left = _less(left, flags)
        return out

    def _streamed(self, op: int, payload: bytes, offered: int) -> tuple[int, int, bytes]:
        """(taken, flags, payload) of the response: of what was offered, all but after a decision or MORE."""
        reply = self._request(op, payload, slow=True)
        taken, flags = unpack(_STREAMED, reply)
        if taken > offered or (taken < offered and not flags & (_DECIDED | _MORE)):
            raise unfit(f"{taken} of {offered} taken")
        return taken, flags, reply

    def _timed(self, stream: StreamInfo, reply: bytes) -> TimedDecision:
        _, flags, label, smoothed, time, step, front, network = unpack(_STREAM_DECISION, reply)
        if self.info.classes <= smoothed != _NO_LABEL:
            raise unfit(f"class {smoothed}")
        last = self.info.timesteps
        if stream.step_us is not None:
            last = time // stream.step_us
            if step != last & 0xFFFF_FFFF:
                raise unfit(f"step {step} at {time} us")
            step = last
        decision = self._finished(
            label, step, last, bool(flags & _EXITED), reply[_STREAM_DECISION.size :], network
        )
        return TimedDecision(
            time,
            decision,
            None if smoothed == _NO_LABEL else smoothed,
            bool(flags & _DETECTED),
            front,
        )

    def _load(self, sample: np.ndarray) -> list[np.ndarray] | None:
        """Send a frame of samples; of an event input return the addresses of each step instead."""
        array = np.asarray(self._bundle.check_sample(sample))
        if self._stream is not None and self._stream.step_us is not None:
            self._stream = None  # it held the membranes
            self._ended = UsageError(
                "the sample in between has ended the stream; begin another with start_stream()"
            )
        if self._bundle.input_kind == "events":
            self._request(RESET)
            return [np.flatnonzero(step).astype("<u4") for step in array.reshape(len(array), -1)]
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        room = PAYLOAD_BYTES - 4
        for offset in range(0, len(data), room):
            self._request(DATA, struct.pack("<I", offset) + data[offset : offset + room])
        return None

    def _push(self, addresses: np.ndarray) -> None:
        room = PAYLOAD_BYTES // 4
        for first in range(0, len(addresses), room):
            self._request(EVENTS, addresses[first : first + room].tobytes())

    def _stepped(self, sample: np.ndarray, rows: list[list[np.ndarray]] | None) -> Decision:
        steps = self._load(sample)
        count = self.info.nodes
        ticks = np.zeros(count, np.int64)
        for row in range(self._bundle.timesteps):
            if steps is not None:
                self._push(steps[row])
            if rows is not None:
                rows.append([np.empty(0, np.uint32) for _ in range(count)])
            decided = 0
            for at in range(count):
                reply = self._request(STEP_NODE, slow=True)
                node, decided, _, _, node_ticks, events = unpack(_STEPPED, reply)
                if node != at:
                    raise unfit(f"node {node} where {at} is due")
                ticks[at] += node_ticks
                if rows is not None:
                    rows[-1][at] = self._events(at, events, reply[_STEPPED.size :])
            if decided:
                result = self._decision(self._request(RESULT))
                return replace(result, ticks=int(ticks.sum()), node_ticks=ticks)
        raise unfit(f"undecided after {self._bundle.timesteps} steps")

    def _events(self, node: int, count: int, head: bytes) -> np.ndarray:
        """The events of the node that ran last; `head` is the first of them."""
        capacity = self._bundle.nodes[node].queue_capacity
        if count > capacity:
            raise unfit(f"{count} events of node {node}, which emits {capacity} at most")
        width = self.info.event_bytes
        data = self._table(READ_EVENTS, "<I", head, width, count)
        return np.sort(np.frombuffer(data, f"<u{width}").astype(np.uint32))

    def _table(self, op: int, index: str, head: bytes, width: int, count: int) -> bytes:
        """`count` entries of `width` bytes; `head` is the first of them, `op` reads on from one."""
        data = bytearray(head)
        while len(data) < count * width:
            part = self._request(op, struct.pack(index, len(data) // width))
            if not part:
                break
            data += part
        if len(data) != count * width:
            raise unfit(f"{len(data)} bytes where {count * width} are due")
        return bytes(data)

    def _decision(self, result: bytes) -> Decision:
        label, decided, exited, step, ticks, _, _, count = unpack(_RESULT, result)
        if not decided:
            raise unfit(f"decided: {decided}, class {label}, step {step}")
        due = (self._inferences + 1) & 0xFFFF_FFFF
        if count != due:
            raise unfit(f"inference {count} of this session where {due} is due")
        self._inferences = count
        head = result[_RESULT.size :]
        return self._finished(label, step, self.info.timesteps, bool(exited), head, ticks)

    def _finished(
        self, label: int, step: int, last: int, exited: bool, head: bytes, ticks: int
    ) -> Decision:
        """A decision with what is left to read: membranes behind the first (`head`), counters of all nodes.

        last: step that may decide at the latest.
        """
        info = self.info
        if label >= info.classes or not 1 <= step <= last:
            raise unfit(f"class {label}, step {step}")
        membranes = self._table(READ_MEMBRANES, "<H", head, 4, info.classes)
        stats = self._table(READ_STATS, "<H", b"", 8, info.nodes)
        table = np.frombuffer(stats, "<u4").astype(np.int64).reshape(-1, 2)
        return Decision(
            label=label,
            step=step,
            exited=exited,
            membranes=np.frombuffer(membranes, "<i4").astype(np.int64),
            events=table[:, 0].copy(),
            sops=table[:, 1].copy(),
            ticks=ticks,
        )

    def _check_info(self, counter: Counter | None) -> None:
        """Whether the board runs this bundle's model, as this bundle has it."""
        info, bundle = self.info, self._bundle
        assert self._port is not None
        if info.model_id != bundle.model_id:
            raise EdgesnnError(
                f"the board on {self._port.url} runs model {info.name!r} "
                f"(id {info.model_id.hex()}), the bundle is {bundle.name!r} "
                f"(id {bundle.model_id.hex()}); flash the bundle's firmware"
            )
        for name, here, there in (
            ("version of the C core's interface", API_VERSION, info.api_version),
            ("nodes", len(bundle.nodes), info.nodes),
            ("classes", bundle.classes, info.classes),
            ("timesteps", bundle.timesteps, info.timesteps),
            ("bytes of an event", bundle.event_bytes, info.event_bytes),
        ):
            if here != there:
                raise unfit(f"{name}: {there} instead of {here}")
        if counter is not None and counter.hz != info.counter_hz:
            raise EdgesnnError(
                f"the board on {self._port.url} counts {info.counter_hz} ticks per second, its "
                f"board file says {counter.hz}; name the right --board, or compile the bundle again "
                "and flash its firmware"
            )

    def _request(self, op: int, payload: bytes = b"", *, slow: bool = False) -> bytes:
        """Send a request until its response comes; returns the response's payload."""
        if self._port is None:
            raise EdgesnnError("the link is closed")
        start = time.monotonic()
        try:
            with self._watched():
                return self._exchange(self._port, op, payload, slow)
        finally:
            if not slow:
                self.link_seconds += time.monotonic() - start

    def _drain(self, port: SerialPort) -> None:
        """Read what the line holds from before, until it is quiet; end what was left half sent."""
        end = time.monotonic() + self._timeout / 5
        # QEMU's nRF51 never hears again when written to before its receiver is on: its banner comes first.
        banner = port.read_frame(end) if self._watch is not None else None
        if banner is not None and (frame := decode_frame(banner)) is not None:
            self._check_notice(frame, HELLO)
        port.write(b"\0")
        now = time.monotonic()
        while now < end and (raw := port.read_frame(min(end, now + _QUIET))) is not None:
            frame, now = decode_frame(raw), time.monotonic()
            if frame is not None:
                self._check_notice(frame, HELLO)

    def _pace(self, op: int, slow: bool) -> _Pace:
        """That of the requests that only move data, or of this one that computes."""
        # Of a stream's requests few compute, and then for long.
        margin = _FIRST[slow] if op in (STREAM_PUSH, STREAM_EVENTS) else _MARGINS[slow]
        new = _Pace(_FIRST[slow], margin, self._timeout / 5, _FADES[slow])
        return self._paces.setdefault(op if slow else HELLO, new)

    def _exchange(self, port: SerialPort, op: int, payload: bytes, slow: bool) -> bytes:
        self._sequence = self._sequence % 255 + 1
        data = encode_frame(Frame(op, self._sequence, payload, self._session))
        pace, quick = self._pace(op, slow), self._pace(HELLO, False)
        line = 10 * (len(data) + PAYLOAD_BYTES) / self._baud  # seconds to move both frames
        limit = self._run_timeout if slow else self._timeout
        self._settle(port, op, 2 * quick.mean)
        start = heard = now = time.monotonic()
        copies, sound = 0, self.damaged
        while now < min(heard + limit, start + _PATIENCE * limit):
            if copies:
                self.resent += 1
                port.forget()
            # The board may wait for a 0x00 that was lost.
            port.write(b"\0" + data if copies else data)
            copies += 1
            self._due += 1
            sent = time.monotonic()
            end = deadline = min(sent + line + pace.wait, heard + limit)
            before = self.damaged
            while (raw := port.read_frame(deadline)) is not None:
                frame, now = decode_frame(raw), time.monotonic()
                self._due = max(0, self._due - 1)
                if frame is not None and frame.op & RESPONSE:  # no echo
                    heard = now
                if frame is None or frame.op == UNREADABLE:
                    self.damaged += 1
                    # The answer may follow, where one is due. A board that sends may not hear.
                    deadline = min(end, now + (2 * quick.mean if self._due else 0))
                else:
                    self._check_notice(frame, op)
                    if self._answers(frame, op):
                        if copies == 1 and op != HELLO:  # which a board may hear while it boots
                            pace.saw(now - sent)
                        return frame.payload
                if now > end + limit:  # a line that is never quiet
                    break
            if self.damaged == before:
                pace.silent()
            now = time.monotonic()
        damaged = self.damaged - sound
        if damaged:
            raise LinkLost(
                f"no readable answer on {port.url} ({damaged} damaged frames); check the cable, "
                "the baud rate, and that the board runs edgesnn firmware"
            )
        if op == HELLO and self._silence is not None:
            raise LinkLost(self._silence)
        raise LinkLost(
            f"no answer from the board on {port.url} within {limit:g} s; check that it has power, "
            "runs edgesnn firmware, and that this is its port"
        )

    def _settle(self, port: SerialPort, op: int, quiet: float) -> None:
        """Let pass what is still due for the copies of older requests: a board that sends may not hear."""
        while self._due and (raw := port.read_frame(time.monotonic() + quiet)) is not None:
            self._due -= 1
            frame = decode_frame(raw)
            if frame is not None:
                self._check_notice(frame, op)
        self._due = 0

    def _check_notice(self, frame: Frame, op: int) -> None:
        """Raise what a sound frame says of the board itself; `op` is the operation under way."""
        if frame.version != PROTOCOL_VERSION:
            raise EdgesnnError(
                f"the board speaks version {frame.version} of the serial protocol, this edgesnn "
                f"version {PROTOCOL_VERSION}; compile the bundle again and flash its firmware"
            )
        if frame.op == FAULT:
            self._check_fault(frame.payload, op)
        if frame.op == BANNER:
            if frame.status:
                why = status_text(frame.status)
                raise EdgesnnError(
                    f"the firmware cannot start its model: {why}; "
                    "compile the bundle again and flash its firmware"
                )
            if op != HELLO:
                raise _Reset(f"the board on {self._url} was reset")

    def _check_fault(self, payload: bytes, op: int) -> None:
        """Raise what has stopped the processor, and where."""
        kind, text = describe_fault(payload, self._bundle.firmware)
        if kind == "watchdog":
            if op == HELLO:  # it takes its time until it bites
                return
            raise _Reset(f"{text}, its watchdog resets the board")
        watched = self._bundle.watchdog_ms is not None
        if kind == "stack":
            raise EdgesnnError(
                f"{text}; raise stack_bytes in the board's file, compile again and flash the firmware"
            )
        raise EdgesnnError(text + ("; its watchdog resets it" if watched else "; reset the board"))

    def _answers(self, frame: Frame, op: int) -> bool:
        """Whether a sound frame is the response that is waited for; raises what it refuses."""
        if frame.sequence != self._sequence or frame.op != op | RESPONSE:
            return False  # late answer to a frame that was sent twice
        if frame.status == _ERR_SESSION:
            if frame.payload == bytes([self._session]):
                return False  # told to another program on the same wire
            if frame.payload == b"\0":
                raise _Reset(f"the board on {self._url} was reset")
            raise EdgesnnError(
                f"another program uses the board on {self._url}; close that one first"
            )
        if frame.status:
            why = status_text(frame.status)
            raise EdgesnnError(f"the board refused operation 0x{op:02x}: {why}")
        return True

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except LinkLost:
            if self._watch is not None:
                self._watch()
            raise
