"""The host's end of the serial protocol (docs/FORMAT.md): an engine whose model runs on a board."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesnn.runtime.engine import Decision, Trace
from edgesnn.targets.errors import EdgesnnError

if TYPE_CHECKING:
    from edgesnn.runtime.bundle import Bundle

PROTOCOL_VERSION = 1
PAYLOAD_BYTES = 64

HELLO, RESET, DATA, EVENTS, INFER, STEP, STEP_NODE, RESULT = range(0x01, 0x09)
READ_EVENTS, READ_STATS, READ_MEMBRANES, STACK = range(0x09, 0x0D)
RESPONSE, BANNER, FAULT, UNREADABLE = 0x80, 0x80, 0xFE, 0xFF

_STATUS = {
    1: "frame too short, too long or not COBS",
    2: "checksum differs",
    3: "other protocol version",
    4: "unknown operation",
    5: "payload too short or too long",
    6: "no such node, class or event",
    7: "sequence number 0",
    0x11: "bad argument",
    0x12: "arena too small",
    0x13: "model generated for another version of the C core",
    0x14: "not possible in this state",
    0x15: "wrong kind of input for this model",
}

_SILENT = 5  # a request without any answer is sent this often
_DAMAGED = 20  # and one whose frame or answer arrives damaged this often
_STACK_FAULTS = 0x0010_1010  # CFSR: STKOF, STKERR, MSTKERR
_HEADER = struct.Struct("<4B")
_HELLO = struct.Struct("<HBB16sIIIHHH")
_RESULT = struct.Struct("<HBBIIII")
_STEPPED = struct.Struct("<HBBIII")


@dataclass(frozen=True)
class Frame:
    """One frame: op has bit 7 set in what a board sends; status is 0 in requests."""

    op: int
    sequence: int
    payload: bytes = b""
    status: int = 0
    version: int = PROTOCOL_VERSION


def encode_frame(frame: Frame) -> bytes:
    """Header, payload and CRC-32 in COBS, with the 0x00 at the end."""
    from cobs import cobs

    body = _HEADER.pack(frame.version, frame.sequence, frame.op, frame.status) + frame.payload
    return bytes(cobs.encode(body + struct.pack("<I", zlib.crc32(body)))) + b"\0"


def decode_frame(data: bytes) -> Frame | None:
    """The frame in what stood between two 0x00; None when it is damaged."""
    from cobs import cobs

    try:
        body = bytes(cobs.decode(data))
    except cobs.DecodeError:
        return None
    if len(body) < _HEADER.size + 4 or zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
        return None
    version, sequence, op, status = _HEADER.unpack_from(body)
    return Frame(op, sequence, body[_HEADER.size : -4], status, version)


@dataclass(frozen=True)
class BoardInfo:
    """What a board says of itself: bytes, Hz, counts."""

    api_version: int
    event_bytes: int
    output_bytes: int
    model_id: bytes
    input_bytes: int
    counter_hz: int
    stack_bytes: int
    nodes: int
    timesteps: int
    classes: int
    name: str

    @staticmethod
    def parse(payload: bytes) -> BoardInfo:
        if len(payload) < _HELLO.size:
            raise EdgesnnError("the board's greeting is too short; flash the firmware again")
        name = payload[_HELLO.size :].decode("utf-8", errors="replace")
        api, event, output, model_id, size, hz, stack, nodes, steps, classes = _HELLO.unpack_from(
            payload
        )
        return BoardInfo(api, event, output, model_id, size, hz, stack, nodes, steps, classes, name)


class _Port:
    """Bytes over whatever pyserial opens. Frames are cut at 0x00."""

    def __init__(self, url: str, baud: int) -> None:
        try:
            import serial
        except ImportError:
            raise EdgesnnError(
                "the serial link needs pyserial and cobs; run `pip install edgesnn[boards]`"
            ) from None
        self.url = url
        self._buffer = bytearray()
        try:
            self._serial: Any = serial.serial_for_url(url, baudrate=baud, timeout=0, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as e:
            raise EdgesnnError(_why_not_open(url, e)) from None
        self._errors = (serial.SerialException, OSError)
        # pyserial reads a socket byte by byte; with its descriptor, read at once what has come.
        try:
            self._fd: int | None = self._serial.fileno()
        except (AttributeError, OSError):
            self._fd = None
        if self._fd is not None and stat.S_ISSOCK(os.fstat(self._fd).st_mode):
            with socket.socket(fileno=os.dup(self._fd)) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        with self._translated():
            self._serial.write(data)

    def read_frame(self, deadline: float) -> bytes | None:
        """The bytes before the next 0x00 (never none), or None at the deadline (time.monotonic)."""
        while True:
            end = self._buffer.find(0)
            if end > 0:
                data = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return data
            if end == 0:
                del self._buffer[:1]
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with self._translated():
                self._buffer += self._read(left)

    def _read(self, seconds: float) -> bytes:
        if self._fd is None:
            self._serial.timeout = min(seconds, 0.05)
            return bytes(self._serial.read(max(1, self._serial.in_waiting)))
        if not select.select([self._fd], [], [], seconds)[0]:
            return b""
        data = os.read(self._fd, 4096)
        if not data:
            raise EdgesnnError(f"the other end of {self.url} has closed the link")
        return data

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as e:
            raise EdgesnnError(
                f"the link on {self.url} has broken ({e}); check cable and board"
            ) from None

    def close(self) -> None:
        with contextlib.suppress(*self._errors):
            self._serial.close()


def _why_not_open(url: str, error: Exception) -> str:
    code, text = getattr(error, "errno", None), str(error)
    if code == 2 or "No such file" in text:
        return f"no port {url}; plug the board in (`python -m serial.tools.list_ports` lists ports)"
    if code == 13 or "Permission denied" in text:
        return f"no permission to open {url}; add yourself to its group (often `dialout`)"
    if code in (11, 16) or "lock" in text or "busy" in text:
        return f"port {url} is in use by another program; close that one first"
    if "refused" in text:
        return f"nothing listens at {url}; start the emulator or bridge first"
    return f"cannot open port {url}: {text}"


class LinkEngine:
    """Runs the bundle's model on the board at `port`, whatever pyserial's serial_for_url takes.

    timeout: seconds of silence, in which a request is sent five times, after which the board counts
    as dead; run_timeout: the same for requests that compute. watch is called when the board is
    silent or gone and may raise a better explanation (Emulator.check). A frame that is lost or
    damaged is sent again under its sequence number, so that the board never executes it twice.
    Every failure is an EdgesnnError.

    link_seconds: wall-clock seconds spent so far on requests that only move data. resent: frames
    sent more than once. info: what the board said of itself.
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
        watch: Callable[[], None] | None = None,
    ) -> None:
        self._bundle = bundle
        self._timeout = timeout
        self._run_timeout = run_timeout
        self._watch = watch
        self._sequence = 0
        self.link_seconds = 0.0
        self.resent = 0
        self._port: _Port | None = None
        try:
            self._port = _Port(port, baud)
            self._port.write(b"\0")  # ends whatever an earlier program left half sent
            self.info = BoardInfo.parse(self._request(HELLO))
            if self.info.model_id != bundle.model_id:
                raise EdgesnnError(
                    f"the board on {port} runs model {self.info.name!r} "
                    f"(id {self.info.model_id.hex()}), the bundle is {bundle.name!r} "
                    f"(id {bundle.model_id.hex()}); flash the bundle's firmware"
                )
        except EdgesnnError:
            self.close()
            self._check_watch()
            raise
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
        if self._port is not None:
            self._port.close()
            self._port = None

    def infer(self, sample: np.ndarray) -> Decision:
        """One inference, timed by the board's counter."""
        steps = self._load(sample)
        if steps is None:
            return self._decision(self._request(INFER, slow=True))
        ticks = 0
        for addresses in steps:
            self._push(addresses)
            result = self._request(STEP, slow=True)
            _, decided, _, _, step_ticks, _, _ = _RESULT.unpack_from(result)
            ticks += step_ticks
            if decided:
                return replace(self._decision(result), ticks=ticks)
        raise EdgesnnError(f"the board has not decided after {len(steps)} steps")

    def trace(self, sample: np.ndarray) -> Trace:
        """One inference node by node, with every event."""
        rows: list[list[np.ndarray]] = []
        decision = self._stepped(sample, rows)
        return Trace(decision, rows)

    def profile(self, sample: np.ndarray) -> Decision:
        """One inference with node_ticks, int64[nodes]: ticks in each node over all steps."""
        return self._stepped(sample, None)

    def stack_high_water(self) -> int:
        """Most bytes of stack in use at once since the board was reset."""
        used, _ = struct.unpack("<II", self._request(STACK))
        return int(used)

    def _load(self, sample: np.ndarray) -> list[np.ndarray] | None:
        """Send a frame of samples; of an event input return the addresses of each step instead."""
        array = np.asarray(self._bundle.check_sample(sample))
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
        decided, at, done = 0, 0, 0
        while not decided:
            if at == 0 and steps is not None:
                if done == len(steps):
                    raise EdgesnnError(f"the board has not decided after {done} steps")
                self._push(steps[done])
            reply = self._request(STEP_NODE, slow=True)
            node, decided, _, _, node_ticks, events = _STEPPED.unpack_from(reply)
            ticks[node] += node_ticks
            if rows is not None:
                if node == 0:
                    rows.append([np.empty(0, np.uint32) for _ in range(count)])
                rows[-1][node] = self._events(events, reply[_STEPPED.size :])
            at = (node + 1) % count
            done += at == 0
        result = self._decision(self._request(RESULT))
        return replace(result, ticks=int(ticks.sum()), node_ticks=ticks)

    def _events(self, count: int, head: bytes) -> np.ndarray:
        """The events of the node that ran last; `head` is the first of them."""
        width = self.info.event_bytes
        data = bytearray(head)
        while len(data) < count * width:
            data += self._request(READ_EVENTS, struct.pack("<I", len(data) // width))
        return np.sort(np.frombuffer(bytes(data), f"<u{width}").astype(np.uint32))

    def _decision(self, result: bytes) -> Decision:
        label, _, exited, step, ticks, _, _ = _RESULT.unpack_from(result)
        membranes = bytearray(result[_RESULT.size :])
        while len(membranes) < 4 * self.info.classes:
            membranes += self._request(READ_MEMBRANES, struct.pack("<H", len(membranes) // 4))
        stats = bytearray()
        while len(stats) < 8 * self.info.nodes:
            stats += self._request(READ_STATS, struct.pack("<H", len(stats) // 8))
        table = np.frombuffer(bytes(stats), "<u4").astype(np.int64).reshape(-1, 2)
        return Decision(
            label=label,
            step=step,
            exited=bool(exited),
            membranes=np.frombuffer(bytes(membranes), "<i4").astype(np.int64),
            events=table[:, 0].copy(),
            sops=table[:, 1].copy(),
            ticks=ticks,
        )

    def _request(self, op: int, payload: bytes = b"", *, slow: bool = False) -> bytes:
        """Send a request until its response comes; returns the response's payload."""
        if self._port is None:
            raise EdgesnnError("the link is closed")
        start = time.monotonic()
        try:
            return self._exchange(self._port, op, payload, slow)
        finally:
            if not slow:
                self.link_seconds += time.monotonic() - start

    def _exchange(self, port: _Port, op: int, payload: bytes, slow: bool) -> bytes:
        self._sequence = self._sequence % 255 + 1
        data = encode_frame(Frame(op, self._sequence, payload))
        limit = self._run_timeout if slow else self._timeout
        silent = damaged = 0
        try:
            while silent < _SILENT and damaged < _DAMAGED:
                self.resent += silent + damaged > 0
                port.write(data)
                deadline = time.monotonic() + limit / _SILENT
                while True:
                    raw = port.read_frame(deadline)
                    if raw is None:
                        port.write(b"\0")  # the board may wait for a 0x00 that was lost
                        silent += 1
                        break
                    frame = decode_frame(raw)
                    if frame is None or frame.op == UNREADABLE:
                        damaged += 1
                        break
                    if self._answers(frame, op):
                        return frame.payload
        except EdgesnnError:
            self._check_watch()
            raise
        self._check_watch()
        if damaged:
            raise EdgesnnError(
                f"no readable answer on {port.url} ({damaged} damaged frames); check the cable, "
                "the baud rate, and that the board runs edgesnn firmware"
            )
        raise EdgesnnError(
            f"no answer from the board on {port.url} within {limit:g} s; check that it has power, "
            "runs edgesnn firmware, and that this is its port"
        )

    def _answers(self, frame: Frame, op: int) -> bool:
        """Whether a sound frame is the response that is waited for; raises what it reports."""
        if frame.version != PROTOCOL_VERSION:
            raise EdgesnnError(
                f"the board speaks version {frame.version} of the serial protocol, this edgesnn "
                f"version {PROTOCOL_VERSION}; compile the bundle again and flash its firmware"
            )
        if frame.op == FAULT:
            words = struct.unpack(f"<{len(frame.payload) // 4}I", frame.payload)
            names = ("pc", "lr", "xpsr", "cfsr", "sp")
            where = " ".join(f"{n}=0x{w:08x}" for n, w in zip(names, words, strict=False))
            if len(words) > 3 and words[3] & _STACK_FAULTS:
                raise EdgesnnError(
                    f"the firmware has outgrown its stack ({where}); raise stack_bytes in the board's "
                    "file, compile again and reset the board"
                )
            raise EdgesnnError(f"the firmware has crashed ({where}); reset the board")
        if frame.op == BANNER:
            if frame.status:
                why = _STATUS.get(frame.status, f"status {frame.status}")
                raise EdgesnnError(
                    f"the firmware cannot start its model: {why}; "
                    "compile the bundle again and flash its firmware"
                )
            if op == HELLO:
                return False
            raise EdgesnnError("the board was reset in the middle of its work; run again")
        if frame.sequence != self._sequence or frame.op != op | RESPONSE:
            return False  # late answer to a frame that was sent twice
        if frame.status:
            why = _STATUS.get(frame.status, f"status {frame.status}")
            raise EdgesnnError(f"the board refused operation 0x{op:02x}: {why}")
        return True

    def _check_watch(self) -> None:
        if self._watch is not None:
            self._watch()
