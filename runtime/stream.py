"""Frames in, decisions out: a bounded queue between whatever delivers frames and the engine.

Frame mode: each frame is one inference. When frames come faster than they can be classified the
policy is explicit: "block" makes the source wait, "drop-oldest" and "drop-newest" lose frames and
count them.
"""

from __future__ import annotations

import os
import select
import threading
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import Decision
from edgesnn.runtime.session import Session, frame_dtype, frame_shape, input_text
from edgesnn.targets.errors import EdgesnnError, UsageError

POLICIES = ("block", "drop-oldest", "drop-newest")
_POLL = 0.1  # seconds between looks at whether the stream was closed
_CHUNK = 65536


@dataclass(frozen=True)
class StreamDecision:
    """The answer to one frame.

    index: number of the frame in its source, from 0 (dropped frames count). seconds: from the
    arrival of the whole frame to the decision, waiting included. dropped: frames lost so far.
    """

    index: int
    decision: Decision
    seconds: float
    dropped: int

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
    """Frames received, decided, dropped by policy, damaged on the way; seconds it took."""

    received: int = 0
    decided: int = 0
    dropped: int = 0
    damaged: int = 0
    seconds: float = 0.0
    steps: int = 0
    labels: dict[int, int] = field(default_factory=dict)


class Source(Protocol):
    """Delivers frames until `closed` is set; `damaged` counts those that arrived broken."""

    damaged: int

    def frames(self, closed: threading.Event) -> Iterator[np.ndarray]: ...

    def close(self) -> None: ...


class ArraySource:
    """Frames that already lie in memory: an array [N, ...] or any iterable of frames."""

    def __init__(self, frames: Iterable[np.ndarray]) -> None:
        self.damaged = 0
        self._frames = frames

    def frames(self, closed: threading.Event) -> Iterator[np.ndarray]:
        for frame in self._frames:
            if closed.is_set():
                return
            yield np.asarray(frame)

    def close(self) -> None:
        pass


class RawSource:
    """Raw little-endian frames back to back on a file descriptor (standard input)."""

    def __init__(self, bundle: Bundle, fd: int, name: str) -> None:
        self.damaged = 0
        self._fd, self._name = fd, name
        self._shape, self._dtype = frame_shape(bundle), frame_dtype(bundle)
        self._bytes = int(np.prod(self._shape)) * self._dtype.itemsize

    def frames(self, closed: threading.Event) -> Iterator[np.ndarray]:
        buffer = bytearray()
        while not closed.is_set():
            # select, so that an idle source can be left at any time.
            if not select.select([self._fd], [], [], _POLL)[0]:
                continue
            data = os.read(self._fd, _CHUNK)
            if not data:
                if buffer:
                    raise EdgesnnError(
                        f"{self._name} ended within a frame: {len(buffer)} of {self._bytes} bytes"
                    )
                return
            buffer += data
            while len(buffer) >= self._bytes:
                frame = np.frombuffer(bytes(buffer[: self._bytes]), self._dtype)
                del buffer[: self._bytes]
                yield frame.reshape(self._shape)

    def close(self) -> None:
        pass


def encode_serial_frame(frame: np.ndarray) -> bytes:
    """A frame as the serial source expects it: COBS(frame + CRC-32, little-endian), then 0x00."""
    from cobs import cobs

    data = np.ascontiguousarray(frame, frame.dtype.newbyteorder("<")).tobytes()
    return bytes(cobs.encode(data + zlib.crc32(data).to_bytes(4, "little"))) + b"\0"


class SerialSource:
    """COBS frames with CRC-32, ended by 0x00, from anything that pyserial opens.

    A damaged frame is counted and skipped: the next 0x00 is in step again.
    """

    def __init__(self, bundle: Bundle, url: str, baud: int) -> None:
        try:
            import serial
            from cobs import cobs
        except ImportError:
            raise EdgesnnError(
                "a serial source needs pyserial and cobs; run `pip install 'edgesnn[boards]'`"
            ) from None
        self.damaged = 0
        self._url, self._cobs = url, cobs
        self._expected = input_text(bundle)
        self._shape, self._dtype = frame_shape(bundle), frame_dtype(bundle)
        self._bytes = int(np.prod(self._shape)) * self._dtype.itemsize
        self._errors = (serial.SerialException, OSError)
        try:
            self._port: Any = serial.serial_for_url(url, baudrate=baud, timeout=_POLL)
        except (serial.SerialException, ValueError, OSError) as e:
            raise EdgesnnError(f"cannot open the source {url}: {_one_line(e)}") from None
        # pyserial reads a socket byte by byte; where there is a descriptor, read what has come.
        try:
            self._fd: int | None = self._port.fileno()
        except (AttributeError, OSError):
            self._fd = None

    def frames(self, closed: threading.Event) -> Iterator[np.ndarray]:
        buffer = bytearray()
        longest = 2 * self._bytes + 16  # no sound frame is: noise does not fill the memory
        while not closed.is_set():
            try:
                data = self._read()
            except self._errors as e:
                raise EdgesnnError(f"the source {self._url} has ended: {_one_line(e)}") from None
            buffer += data
            *chunks, rest = bytes(buffer).split(b"\0")
            buffer = bytearray(rest)
            for chunk in chunks:
                if chunk:
                    frame = self._decode(chunk)
                    if frame is not None:
                        yield frame
            if len(buffer) > longest:
                del buffer[:-longest]

    def _read(self) -> bytes:
        """What has come within _POLL, possibly nothing."""
        if self._fd is None:
            return bytes(self._port.read(max(1, self._port.in_waiting)))
        if not select.select([self._fd], [], [], _POLL)[0]:
            return b""
        data = os.read(self._fd, _CHUNK)
        if not data:
            raise OSError("the other end has closed the link")
        return data

    def _decode(self, chunk: bytes) -> np.ndarray | None:
        try:
            body = bytes(self._cobs.decode(chunk))
        except self._cobs.DecodeError:
            body = b""
        if len(body) < 4 or zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
            self.damaged += 1
            return None
        if len(body) - 4 != self._bytes:
            raise EdgesnnError(
                f"the source {self._url} sends frames of {len(body) - 4} bytes, the model takes "
                f"{self._bytes} ({self._expected})"
            )
        return np.frombuffer(body[:-4], self._dtype).reshape(self._shape)

    def close(self) -> None:
        self._port.close()


def load_frames(bundle: Bundle, path: Path) -> np.ndarray:
    """Frames [N, ...] from an .npy, or from the key x, x_test or the only one of an .npz."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            array = loaded
        else:
            with loaded:
                keys = [k for k in ("x", "x_test") if k in loaded.files] or loaded.files
                if keys[:1] != ["x"] and keys[:1] != ["x_test"] and len(keys) != 1:
                    raise EdgesnnError(
                        f"{path} holds {', '.join(keys)}; frames stand under x or x_test"
                    )
                array = loaded[keys[0]]
    except OSError as e:
        raise EdgesnnError(f"cannot read {path}: {e.strerror or _one_line(e)}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as e:
        raise EdgesnnError(f"{path} is not a readable .npy or .npz: {_one_line(e)}") from None
    shape = frame_shape(bundle)
    if (array.ndim == len(shape) and array.shape == shape) or array.shape == shape[:-1]:
        array = array[None]
    bundle.check_sample(array[0] if len(array) else np.zeros(shape, frame_dtype(bundle)))
    return array


def open_source(
    bundle: Bundle, source: str | np.ndarray | Iterable[np.ndarray], baud: int
) -> Source:
    """What a name stands for: "-", a path, serial://DEVICE, a pyserial URL; or frames."""
    if not isinstance(source, str):
        return ArraySource(source)
    if source == "-":
        return RawSource(bundle, 0, "standard input")
    scheme, separator, rest = source.partition("://")
    if separator:
        return SerialSource(bundle, rest if scheme == "serial" else source, baud)
    path = Path(source).expanduser()
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(
            f"unknown source {source!r}: a .npy or .npz file, - for raw frames on standard input, "
            "or serial://DEVICE"
        )
    return ArraySource(load_frames(bundle, path))


class _Queue:
    """Frames between the reader thread and the engine; frames are lost here and nowhere else."""

    def __init__(self, capacity: int, policy: str, totals: Totals, closed: threading.Event) -> None:
        self._items: deque[tuple[int, float, np.ndarray]] = deque()
        self._capacity, self._policy, self._totals = capacity, policy, totals
        self._closed = closed
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, frame: np.ndarray) -> None:
        with self._changed:
            index = self._totals.received
            self._totals.received += 1
            item = (index, time.monotonic(), frame)
            if len(self._items) >= self._capacity:
                if self._policy == "drop-newest":
                    self._totals.dropped += 1
                    return
                if self._policy == "drop-oldest":
                    self._items.popleft()
                    self._totals.dropped += 1
                while len(self._items) >= self._capacity and not self._closed.is_set():
                    self._changed.wait(_POLL)
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> tuple[int, float, np.ndarray] | None:
        """The next frame, None at the end; raises what the reader met, after its frames."""
        with self._changed:
            while not self._items and not self._ended:
                self._changed.wait(_POLL)  # a timeout keeps Ctrl-C prompt
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None


class Stream:
    """Classifies frames as they come: `for decision in Stream(bundle).feed(source)`.

    bundle: a bundle, its folder, or an open Session (which stays open). policy: one of POLICIES.
    capacity: frames that may wait. `totals` holds the counts of the feed under way or ended.
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
    ) -> None:
        if policy not in POLICIES:
            raise UsageError(f"unknown policy {policy!r}: one of {', '.join(POLICIES)}")
        if capacity < 1:
            raise UsageError(f"capacity {capacity} is not at least 1")
        self._owned = not isinstance(bundle, Session)
        self.session = bundle if isinstance(bundle, Session) else Session(bundle, port, board)
        self.policy, self.capacity, self.baud = policy, capacity, baud
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

    def feed(self, source: str | np.ndarray | Iterable[np.ndarray]) -> Iterator[StreamDecision]:
        """Decisions on a source's frames, in order; closes the source at the end."""
        opened = open_source(self.session.bundle, source, self.baud)
        closed = threading.Event()
        self.totals = totals = Totals()
        queue = _Queue(self.capacity, self.policy, totals, closed)

        def read() -> None:
            try:
                for frame in opened.frames(closed):
                    queue.put(frame)
                    if closed.is_set():
                        break
            except BaseException as e:
                queue.end(e)
            else:
                queue.end(None)

        reader = threading.Thread(target=read, name="edgesnn-source", daemon=True)
        start = time.monotonic()
        reader.start()
        try:
            while (item := queue.get()) is not None:
                index, arrived, frame = item
                decision = self.session.classify(frame)
                now = time.monotonic()
                totals.decided += 1
                totals.steps += decision.step
                totals.labels[decision.label] = totals.labels.get(decision.label, 0) + 1
                totals.seconds, totals.damaged = now - start, opened.damaged
                yield StreamDecision(index, decision, now - arrived, totals.dropped)
        finally:
            closed.set()
            reader.join(timeout=10 * _POLL)
            opened.close()
            totals.damaged = opened.damaged


def _one_line(e: BaseException) -> str:
    return " ".join(str(e).split()) or type(e).__name__
