"""Listening to a board: frames of the serial protocol in words, other text as it is; nothing sent unasked."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from edgesnn.runtime import fault, frames, serial_port
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets.errors import EdgesnnError

BANNER, FAULT, REPLY, TEXT, DAMAGED, NOTE = "banner", "fault", "reply", "text", "damaged", "note"
_OPERATIONS = {
    getattr(frames, name): name
    for name in (
        "HELLO", "RESET", "DATA", "EVENTS", "INFER", "STEP", "STEP_NODE", "RESULT", "READ_EVENTS", "READ_STATS",
        "READ_MEMBRANES", "STACK", "STREAM_RESET", "STREAM_PUSH", "STREAM_EVENTS",
    )
}  # fmt: skip
_LONGEST = 600  # bytes of a frame or a line at most, with room; more without an end is noise
_QUIET = 0.2  # seconds after which an unfinished line is shown
_AGAIN = 0.3  # seconds between attempts to open a port that has gone


@dataclass(frozen=True)
class Said:
    """One thing that a board has said, in one line. kind: one of the names above; NOTE is about the port."""

    kind: str
    text: str


class Words:
    """Bytes from a board in, what they say out. Frames end with 0x00, lines of text with a line feed.

    Every frame of the protocol has its version in its second byte, which is no printable character: so a
    frame is never taken for text, even if its first byte is a line feed. frames, lines, damaged: how many there
    were.
    """

    def __init__(self, bundle: Bundle | None = None) -> None:
        self.frames = self.lines = self.damaged = 0
        self._bundle = bundle
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Said]:
        """What is complete with these bytes."""
        self._buffer += data
        at = 0
        while at < len(self._buffer):
            if self._buffer[at] == 0:
                yield from self._frame(self._take(at))
                at = 0
            elif self._buffer[at] == 0x0A and self._ends_line(at):
                yield from self._text(self._take(at))
                at = 0
            else:
                at += 1
        if len(self._buffer) > _LONGEST:
            yield from self.rest()

    def _ends_line(self, at: int) -> bool:
        """Whether the line feed there ends a line. If it is the first byte, what follows tells."""
        if at:
            return _readable(self._buffer[:at])
        following = self._buffer[1:2]
        return following >= b" " or following in (b"\t", b"\n", b"\r", b"\x1b")

    def rest(self) -> Iterator[Said]:
        """What has come without an end."""
        data = bytes(self._buffer)
        self._buffer.clear()
        yield from self._lines(data)

    def _take(self, end: int) -> bytes:
        data = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return data

    def _frame(self, data: bytes) -> Iterator[Said]:
        """What stood before a 0x00."""
        frame = frames.decode_frame(data) if data else None
        if frame is None and data[:1] == b"\n":  # or an empty line before it
            frame = frames.decode_frame(data[1:])
        if frame is not None:
            self.frames += 1
            yield self._said(frame)
        elif all(map(_readable, data.split(b"\n"))):
            yield from self._lines(data)
        else:
            yield self._noise(data)

    def _lines(self, data: bytes) -> Iterator[Said]:
        """What stood before a silence: lines of text, or noise."""
        for line in data.split(b"\n"):
            if _readable(line):
                yield from self._text(line)
            else:
                yield self._noise(line)

    def _noise(self, data: bytes) -> Said:
        self.damaged += 1
        return Said(DAMAGED, f"{len(data)} bytes that are neither a sound frame nor text")

    def _text(self, line: bytes) -> Iterator[Said]:
        text = line.decode("utf-8").rstrip("\r")
        if text:
            self.lines += 1
            yield Said(TEXT, text)

    def _said(self, frame: frames.Frame) -> Said:
        if frame.version != frames.PROTOCOL_VERSION:
            return Said(
                REPLY,
                f"a frame of version {frame.version} of the serial protocol, this edgesnn speaks version "
                f"{frames.PROTOCOL_VERSION}; compile the bundle again and flash it",
            )
        if frame.op == frames.FAULT:
            elf = self._bundle.firmware if self._bundle is not None else None
            kind, text = fault.describe_fault(frame.payload, elf)
            after = "its watchdog resets the board" if kind == "watchdog" else "reset the board"
            return Said(FAULT, f"{text}; {after}")
        if frame.op == frames.BANNER:
            if frame.status:
                return Said(BANNER, f"the model cannot start: {frames.status_text(frame.status)}")
            return Said(BANNER, f"started: {self._info(frame.payload)}")
        if frame.op == frames.UNREADABLE:
            return Said(
                REPLY, f"the board could not read a frame: {frames.status_text(frame.status)}"
            )
        number = frame.op & ~frames.RESPONSE
        name = _OPERATIONS.get(number, f"0x{number:02x}")
        if frame.status:
            return Said(
                REPLY, f"{name} {frame.sequence}: refused, {frames.status_text(frame.status)}"
            )
        what = self._info(frame.payload) if name == "HELLO" else f"{len(frame.payload)} bytes"
        return Said(REPLY, f"{name} {frame.sequence}: {what}")

    def _info(self, payload: bytes) -> str:
        """*info* of docs/FORMAT.md in words."""
        try:
            info = frames.BoardInfo.parse(payload)
        except EdgesnnError:
            return f"{len(payload)} bytes, too few to say what it runs"
        text = (
            f"model {info.name} (id {info.model_id.hex()}), {info.nodes} nodes, {info.classes} classes, "
            f"at most {info.timesteps} steps, counter {info.counter_hz:,} Hz"
        )
        if self._bundle is None:
            return text
        same = info.model_id == self._bundle.model_id
        return f"{text}; {'the' if same else 'NOT the'} model of {self._bundle.path}"


def _readable(data: bytes | bytearray) -> bool:
    """Whether these bytes are UTF-8 text without control characters, apart from those of terminals."""
    try:
        text = bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\x1b" for c in text)


class Monitor:
    """Listens on a port, whatever pyserial opens; a context manager.

    A port that goes away is waited for. ask: send one HELLO whenever the port is opened; else nothing is ever
    sent. EdgesnnError where the port cannot be opened at first.
    """

    def __init__(
        self, port: str, *, baud: int = 115_200, bundle: Bundle | None = None, ask: bool = False
    ) -> None:
        self.words = Words(bundle)
        self._url, self._baud, self._ask = port, baud, ask
        self._port: serial_port.SerialPort | None = None
        self._open()

    def __enter__(self) -> Monitor:
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

    def listen(self) -> Iterator[Said]:
        """What comes, without an end; the caller stops by leaving."""
        while True:
            if self._port is None:
                yield from self._wait()
            assert self._port is not None
            try:
                data = self._port.read(_QUIET)
            except EdgesnnError as e:
                self.close()
                yield from self.words.rest()
                yield Said(NOTE, f"{e}; waiting for the port")
                continue
            yield from self.words.feed(data) if data else self.words.rest()

    def _open(self) -> None:
        self._port = serial_port.SerialPort(self._url, self._baud)
        if self._ask:
            hello = frames.Frame(
                frames.HELLO, 1, status=random.randrange(1, 256)
            )  # a session of its own
            self._port.write(b"\0" + frames.encode_frame(hello))

    def _wait(self) -> Iterator[Said]:
        """Until the port can be opened again."""
        while self._port is None:
            time.sleep(_AGAIN)
            with contextlib.suppress(EdgesnnError):
                self._open()
        yield Said(NOTE, f"{self._url} is back")
