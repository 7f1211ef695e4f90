"""Where a stream comes from: files, standard input, serial ports, sockets, datagrams, arrays, iterators.

docs/STREAMING.md has the formats. Every source delivers chunks of what the model takes (`Intake`): frames, rows
of a signal (samples of sound) or address events, numbered, so that what is lost on the way is known.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import select
import socket
import struct
import threading
import wave
import zipfile
import zlib
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

import numpy as np

from edgesnn.runtime.bundle import Bundle, StreamInfo
from edgesnn.runtime.session import frame_dtype, frame_shape, input_text
from edgesnn.targets.errors import EdgesnnError, UsageError

POLL = 0.1  # seconds between looks at whether the stream was closed
CHUNK_SECONDS = 0.05  # of signal in a chunk, at most
CHUNK_EVENTS = 1024
TIME_MARK = -1  # in place of an event's address: no event, but time has come so far
_READ = 65536
_MARK = 0xFFFFFFFF  # TIME_MARK in a record
_EVENT = np.dtype([("time", "<u8"), ("address", "<u4")])
_NUMBER = struct.Struct("<I")
_MOST_DATAGRAM = 65507
_RESTARTED = 16  # datagrams from the past in a row: the sender counts anew

Arrays = np.ndarray | Iterable[np.ndarray] | AsyncIterable[np.ndarray]


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a source. start: number of its first unit (frame, sample, row, event) since the start, those

    that never came counted too. data: frames [n, ...], rows [n, values] or events int64[n, 2]. run: how often
    the sender has begun again; what lies between two chunks of different runs is unknown.
    """

    start: int
    data: np.ndarray
    run: int = 0


@dataclass(frozen=True)
class Intake:
    """What a model takes from a source.

    unit: "frame", "sample", "row" or "event". shape, dtype: of one unit (of an event, of its record). most:
    units in a chunk. rate: units a second, None of frames and events. addresses: of an event sensor. info: the
    bundle's stream, None of frames.
    """

    model: str
    text: str
    unit: str
    shape: tuple[int, ...]
    dtype: np.dtype
    most: int
    rate: float | None = None
    addresses: int = 0
    info: StreamInfo | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> Intake:
        """Of a bundle's stream; whole frames where it has none."""
        info = bundle.stream
        if info is None:
            shape, dtype = frame_shape(bundle), frame_dtype(bundle)
            return cls(bundle.name, input_text(bundle), "frame", shape, dtype, 1)
        if info.source == "events":
            height, width, channels = bundle.input_shape
            text = f"events of {height}x{width}x{channels} with times in microseconds"
            many = height * width * channels
            return cls(bundle.name, text, "event", (), _EVENT, CHUNK_EVENTS, None, many, info)
        assert info.dtype is not None and info.rate is not None
        dtype = np.dtype(info.dtype).newbyteorder("<")
        most = max(1, round(CHUNK_SECONDS * info.rate))
        values = info.values
        if info.source == "sound":
            text, unit = f"{info.dtype} sound at {info.rate:,g} Hz", "sample"
        else:
            text, unit = f"{info.dtype} rows of {values}, {info.rate:,g} a second", "row"
        return cls(bundle.name, text, unit, (values,), dtype, most, info.rate, 0, info)

    @property
    def unit_bytes(self) -> int:
        """Of one unit on the wire."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def count(self, data: np.ndarray) -> int:
        """Units in a chunk's data; time marks are none."""
        return int((data[:, 1] >= 0).sum()) if self.unit == "event" else len(data)

    def decode(self, data: bytes) -> np.ndarray:
        """Whole units from the wire."""
        found = np.frombuffer(data, self.dtype)
        if self.unit != "event":
            return found.reshape(-1, *self.shape)
        events = np.empty((len(found), 2), dtype=np.int64)
        events[:, 0] = found["time"] & np.uint64(2**63 - 1)
        events[:, 1] = np.where(
            found["address"] == _MARK, TIME_MARK, found["address"].astype(np.int64)
        )
        return self.addressed(events)

    def encode(self, data: np.ndarray) -> bytes:
        """Units as they go over the wire: little-endian, back to back."""
        if self.unit != "event":
            return np.ascontiguousarray(data, self.dtype).tobytes()
        records = np.zeros(len(data), self.dtype)
        records["time"], records["address"] = data[:, 0], data[:, 1] & _MARK
        return records.tobytes()

    def checked(self, array: np.ndarray) -> np.ndarray:
        """A caller's rows or events in their shape and dtype; UsageError where they do not fit."""
        assert self.info is not None
        try:
            if self.unit == "event":
                return self._checked_events(np.asarray(array))
            return self.info.check_rows(array)
        except UsageError as e:
            raise UsageError(f"{self.model} takes {self.text}; {e}") from None

    def _checked_events(self, data: np.ndarray) -> np.ndarray:
        if data.ndim != 2 or data.shape[1] != 2 or data.dtype.kind not in "iu":
            raise UsageError(
                f"events are whole numbers [n, 2], time and address, not {data.dtype}{data.shape}"
            )
        events = data.astype(np.int64, copy=False)
        if len(events) and events[:, 0].min() < 0:
            raise UsageError(f"an event has the time {events[:, 0].min()}")
        return self.addressed(events)

    def addressed(self, events: np.ndarray) -> np.ndarray:
        """The events; EdgesnnError unless every address is one of the sensor's or TIME_MARK."""
        bad = (events[:, 1] < TIME_MARK) | (events[:, 1] >= self.addresses)
        if bad.any():
            raise EdgesnnError(
                f"{self.model} takes {self.text}, thus addresses 0 ... {self.addresses - 1}; an event has "
                f"{events[np.argmax(bad), 1]}"
            )
        return events


class Source(Protocol):
    """Delivers chunks until `closed` is set.

    damaged: frames and datagrams that came broken. lost: units that never came. live: it comes piece by piece,
    and the times of its events need not begin at 0; a whole array or file begins there.
    """

    damaged: int
    lost: int
    live: bool

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]: ...

    def close(self) -> None: ...


class _Source:
    """What sources have in common."""

    live = False

    def __init__(self, intake: Intake) -> None:
        self.damaged = self.lost = 0
        self.intake = intake
        self._position = self._run = 0

    def pieces(self, data: np.ndarray, most: int | None = None) -> Iterator[Chunk]:
        """Units that follow those before, in chunks of a bounded size."""
        most = most or self.intake.most
        for first in range(0, len(data), most):
            piece = data[first : first + most]
            yield Chunk(self._position, piece, self._run)
            self._position += len(piece)

    def close(self) -> None:
        """Nothing to give back."""


class ArraySource(_Source):
    """What already lies in memory: an array, or any iterable of frames or of pieces of a signal."""

    def __init__(self, intake: Intake, items: Iterable[np.ndarray]) -> None:
        super().__init__(intake)
        self._items: Iterable[np.ndarray] = items
        self.live = not isinstance(items, np.ndarray)
        if isinstance(items, np.ndarray) and intake.unit != "frame":
            self._items = [items]

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]:
        for item in self._items:
            if closed.is_set():
                return
            units = _units(self.intake, item)
            # A chunk waits in the queue while the iterator goes on, and that may fill the same buffer again.
            yield from self.pieces(units.copy() if self.live else units)


class AsyncSource(_Source):
    """An async iterable of frames or pieces of a signal; it runs in its own event loop."""

    live = True

    def __init__(
        self, intake: Intake, items: AsyncIterable[np.ndarray], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(intake)
        self._items, self._loop = items.__aiter__(), loop

    async def _next(self) -> np.ndarray | None:
        try:
            return await self._items.__anext__()
        except StopAsyncIteration:
            return None

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]:
        while not closed.is_set():
            future = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            while not concurrent.futures.wait([future], POLL).done:
                if closed.is_set():
                    future.cancel()
                    return
            item = future.result()
            if item is None:
                return
            yield from self.pieces(_units(self.intake, item).copy())


def _units(intake: Intake, item: np.ndarray) -> np.ndarray:
    """A caller's item as units; what a single frame looks like is checked where it is classified."""
    return np.asarray(item)[None] if intake.unit == "frame" else intake.checked(item)


class RawSource(_Source):
    """Units back to back, little-endian, on a file descriptor (standard input)."""

    live = True

    def __init__(self, intake: Intake, fd: int, name: str) -> None:
        super().__init__(intake)
        self._fd, self._name = fd, name

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]:
        size, buffer = self.intake.unit_bytes, bytearray()
        while not closed.is_set():
            # select, so that an idle source can be left at any time.
            if not select.select([self._fd], [], [], POLL)[0]:
                continue
            data = os.read(self._fd, _READ)
            if not data:
                if buffer:
                    raise EdgesnnError(
                        f"{self._name} ended within {_a(self.intake.unit)}: {len(buffer)} of {size} bytes"
                    )
                return
            buffer += data
            whole = len(buffer) // size * size
            units = self.intake.decode(bytes(buffer[:whole]))
            del buffer[:whole]
            yield from self.pieces(units)


class WavSource(_Source):
    """A WAV file of 16-bit PCM at the model's rate; of several channels one is chosen."""

    def __init__(self, intake: Intake, path: Path, channel: int | None) -> None:
        super().__init__(intake)
        self._path = path
        self._file = _opened(path)
        try:
            self._wave = wave.open(self._file, "rb")  # noqa: SIM115 (closed with the source)
            self._check(channel)
        except EdgesnnError:
            self._file.close()
            raise
        except (wave.Error, EOFError, struct.error, RuntimeError) as e:
            self._file.close()
            reason = one_line(e) if str(e) else "it is empty or cut off"
            raise EdgesnnError(f"{path} is not a readable WAV file of PCM: {reason}") from None

    def _check(self, channel: int | None) -> None:
        take, found = self.intake, self._wave
        if take.rate is None or take.dtype != np.dtype("<i2"):
            raise UsageError(f"{self._path} is sound; {take.model} takes {take.text}")
        if found.getsampwidth() != 2:
            raise EdgesnnError(
                f"{self._path} has samples of {8 * found.getsampwidth()} bits; 16-bit PCM is taken"
            )
        if found.getframerate() != take.rate:
            raise EdgesnnError(
                f"{self._path} has {found.getframerate():,} Hz, {take.model} takes {take.rate:,g} Hz: "
                "resample it"
            )
        channels, values = found.getnchannels(), take.shape[0]
        if channel is not None and not (values == 1 and 0 <= channel < channels):
            raise UsageError(
                f"{self._path} has {channels} channels, there is no channel {channel} to take"
            )
        if channel is None and channels != values:
            if values > 1:
                raise EdgesnnError(
                    f"{self._path} has {channels} channels, {take.model} takes {values}"
                )
            raise EdgesnnError(
                f"{self._path} has {channels} channels; choose one with --channel 0 ... {channels - 1}"
            )
        if found.getnframes() == 0:
            raise EdgesnnError(f"{self._path} holds no samples")
        self._channels, self._channel = channels, channel
        # Writers that do not know the length in advance leave the largest number.
        endless = (2**31 - 1) // (2 * channels)
        self._length = found.getnframes() if found.getnframes() < endless else None

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]:
        while not closed.is_set():
            data = self._wave.readframes(self.intake.most)
            whole = len(data) // (2 * self._channels)
            if whole == 0:
                break
            rows = np.frombuffer(data, "<i2", whole * self._channels).reshape(-1, self._channels)
            if self._channel is not None:
                rows = rows[:, self._channel : self._channel + 1]
            yield from self.pieces(rows)
        if self._length is not None and self._position < self._length and not closed.is_set():
            raise EdgesnnError(
                f"{self._path} is cut off: {self._position:,} of {self._length:,} samples"
            )

    def close(self) -> None:
        self._file.close()


class _Numbered(_Source):
    """Messages of whole units that begin with the number of their first one (u32, modulo 2^32)."""

    live = True

    def __init__(self, intake: Intake) -> None:
        super().__init__(intake)
        self._next: int | None = None
        self._behind = 0

    def fits(self, body: bytes) -> bool:
        """Whether it is a number and whole units; none at all end the stream."""
        return len(body) >= _NUMBER.size and not (len(body) - _NUMBER.size) % self.intake.unit_bytes

    def message(self, body: bytes) -> Iterator[Chunk]:
        """Its units; what is missing since the message before is lost, and its time passes."""
        (number,) = _NUMBER.unpack_from(body)
        units = self.intake.decode(body[_NUMBER.size :])
        ahead = 0 if self._next is None else (number - self._next) & 0xFFFFFFFF
        if ahead >= 2**31:
            # Overtaken by its successors, so it is counted as lost already; or the sender began again.
            self._behind += 1
            if number != 0 and self._behind < _RESTARTED:
                return
            ahead = 0
            self._run += 1
        self._behind = 0
        self.lost += ahead
        self._position += ahead
        self._next = (number + len(units)) & 0xFFFFFFFF
        # A message of a signal is one chunk: a long one does not push itself out of the queue.
        yield from self.pieces(units, None if self.intake.unit == "frame" else len(units))


class DatagramSource(_Numbered):
    """UDP datagrams that arrive at HOST:PORT."""

    def __init__(self, intake: Intake, url: str) -> None:
        super().__init__(intake)
        self._url = url
        if intake.unit_bytes > _MOST_DATAGRAM - _NUMBER.size:
            raise UsageError(
                f"{_a(intake.unit)} of {intake.unit_bytes:,} bytes does not fit a datagram; use socket://"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "0.0.0.0", parts.port
        except ValueError:
            host, port = "", None
        if not host or port is None:
            raise UsageError(
                f"{url} is not udp://HOST:PORT, where datagrams arrive on this machine"
            )
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind, protocol)
        except OSError as e:
            raise EdgesnnError(f"cannot open {url}: {e.strerror or one_line(e)}") from None
        with suppress(
            OSError
        ):  # as much as the system allows: what does not fit is lost, and counted
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        try:
            self._socket.bind(address)
        except OSError as e:
            self._socket.close()
            raise EdgesnnError(f"cannot receive at {url}: {e.strerror or one_line(e)}") from None
        self._socket.settimeout(POLL)

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]:
        while not closed.is_set():
            try:
                body = self._socket.recv(_READ)
            except TimeoutError:
                continue
            except OSError as e:
                raise EdgesnnError(f"{self._url} has failed: {e.strerror or one_line(e)}") from None
            if not self.fits(body):
                if self._next is None:
                    raise EdgesnnError(
                        f"{self._url} got a datagram of {len(body)} bytes; the model takes a number (u32) and "
                        f"whole {self.intake.unit}s of {self.intake.unit_bytes} bytes ({self.intake.text})"
                    )
                self.damaged += 1
                continue
            yield from self.message(body)
            if len(body) == _NUMBER.size:
                return

    def close(self) -> None:
        self._socket.close()


class SerialSource(_Numbered):
    """COBS frames with CRC-32, ended by 0x00, from anything that pyserial opens.

    Of a model of frames each is one of them; of a signal, a numbered message. A damaged one is counted and
    skipped: the next 0x00 is in step again.
    """

    def __init__(self, intake: Intake, url: str, baud: int) -> None:
        super().__init__(intake)
        try:
            import serial
            from cobs import cobs
        except ImportError:
            raise EdgesnnError(
                "a serial source needs pyserial and cobs; run `pip install 'edgesnn[boards]'`"
            ) from None
        self._url, self._cobs = url, cobs
        self._errors = (serial.SerialException, OSError)
        try:
            self._port: Any = serial.serial_for_url(
                url, baudrate=baud, timeout=POLL, do_not_open=True
            )
            if url.lower().startswith("socket://"):
                # pyserial would throw away what the other end has sent as soon as it was connected.
                self._port.reset_input_buffer = lambda: None
            self._port.open()
        except (serial.SerialException, ValueError, OSError) as e:
            raise EdgesnnError(f"cannot open the source {url}: {one_line(e)}") from None
        # pyserial reads a socket byte by byte; where there is a descriptor, read what has come.
        try:
            self._fd: int | None = self._port.fileno()
        except (AttributeError, OSError):
            self._fd = None

    def chunks(self, closed: threading.Event) -> Iterator[Chunk]:
        buffer = bytearray()
        # No sound message is longer: noise does not fill the memory.
        longest = 2 * max(self.intake.unit_bytes, _READ) + 16
        while not closed.is_set():
            try:
                data = self._read()
            except self._errors as e:
                raise EdgesnnError(f"the source {self._url} has ended: {one_line(e)}") from None
            buffer += data
            *messages, rest = bytes(buffer).split(b"\0")
            buffer = bytearray(rest[-longest:])
            for body in filter(None, map(self._decoded, filter(None, messages))):
                if self.intake.unit == "frame":
                    yield from self.pieces(self.intake.decode(body))
                    continue
                yield from self.message(body)
                if len(body) == _NUMBER.size:
                    return

    def _read(self) -> bytes:
        """What has come within POLL, possibly nothing."""
        if self._fd is None:
            return bytes(self._port.read(max(1, self._port.in_waiting)))
        if not select.select([self._fd], [], [], POLL)[0]:
            return b""
        data = os.read(self._fd, _READ)
        if not data:
            raise OSError("the other end has closed the link")
        return data

    def _decoded(self, message: bytes) -> bytes | None:
        """The body of a message, None of a damaged one; EdgesnnError where it is sound and does not fit."""
        try:
            body = bytes(self._cobs.decode(message))
        except self._cobs.DecodeError:
            body = b""
        if len(body) < 4 or zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
            self.damaged += 1
            return None
        body, take = body[:-4], self.intake
        if take.unit == "frame" and len(body) != take.unit_bytes:
            raise EdgesnnError(
                f"the source {self._url} sends frames of {len(body)} bytes, the model takes "
                f"{take.unit_bytes} ({take.text})"
            )
        if take.unit != "frame" and not self.fits(body):
            raise EdgesnnError(
                f"the source {self._url} sends messages of {len(body)} bytes; the model takes a number (u32) "
                f"and whole {take.unit}s of {take.unit_bytes} bytes ({take.text})"
            )
        return body

    def close(self) -> None:
        self._port.close()


def encode_serial_frame(frame: np.ndarray | bytes) -> bytes:
    """A frame (or a message) as a serial source expects it: COBS(body + CRC-32, little-endian), then 0x00."""
    from cobs import cobs

    data = frame
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()
    return bytes(cobs.encode(data + zlib.crc32(data).to_bytes(4, "little"))) + b"\0"


def encode_message(bundle: Bundle, number: int, data: np.ndarray) -> bytes:
    """A datagram, or the body of a serial message: the number of the first unit, then the units.

    data: frames [n, ...], rows [n, values] or events int64[n, 2] (microseconds, address) as the model takes
    them; number: how many units were sent before. No unit at all ends the stream.
    """
    intake = Intake.of(bundle)
    if intake.unit != "frame" and len(data):
        data = intake.checked(data)
    return _NUMBER.pack(number & 0xFFFFFFFF) + intake.encode(data)


def load_frames(bundle: Bundle, path: Path) -> np.ndarray:
    """Frames [N, ...] from an .npy, or from the key x, x_test or the only one of an .npz."""
    array = _first(path, _arrays(path, ("x", "x_test")), "frames stand under x or x_test")
    shape = frame_shape(bundle)
    if (array.ndim == len(shape) and array.shape == shape) or array.shape == shape[:-1]:
        array = array[None]
    bundle.check_sample(array[0] if len(array) else np.zeros(shape, frame_dtype(bundle)))
    return array


def load_signal(bundle: Bundle, intake: Intake, path: Path) -> np.ndarray:
    """Rows [n, values] or events int64[n, 2] from an .npy or .npz.

    In an .npz they stand under signal, events or x, or alone; events also as arrays x, y, t and p (0 or 1). A
    rate beside them has to be the model's.
    """
    found = _arrays(path, ("signal", "events", "x", "y", "t", "p", "rate"))
    rate = found.pop("rate", np.array(intake.rate))
    if intake.rate is not None and (rate.shape not in ((), (1,)) or rate.item() != intake.rate):
        raise EdgesnnError(
            f"{path} has {str(rate)[:40]} {intake.unit}s a second, {bundle.name} takes "
            f"{intake.rate:g}: resample it"
        )
    if intake.unit == "event" and {"x", "y", "t"} <= found.keys():
        array = _addressed(bundle, path, found)
    else:
        array = _first(path, found, "a signal stands under signal or x")
    try:
        signal = intake.checked(array)
    except EdgesnnError as e:
        raise type(e)(f"{path}: {e}") from None
    if not len(signal):
        raise EdgesnnError(f"{path} holds no {intake.unit}s")
    return signal


def _addressed(bundle: Bundle, path: Path, found: dict[str, np.ndarray]) -> np.ndarray:
    """Events int64[n, 2] of arrays x, y, t and p, which may be missing; the address is (y W + x) C + p."""
    height, width, channels = bundle.input_shape
    columns = [found[name] for name in ("x", "y", "t")]
    columns.append(found.get("p", np.zeros_like(columns[0])))
    if any(c.ndim != 1 or c.dtype.kind not in "iub" or len(c) != len(columns[0]) for c in columns):
        raise EdgesnnError(f"{path}: x, y, t and p are not whole numbers, one of each an event")
    x, y, t, p = (c.astype(np.int64) for c in columns)
    p = (p > 0) * (channels - 1) if channels <= 2 else p
    for name, values, limit in (("x", x, width), ("y", y, height), ("p", p, channels)):
        bad = (values < 0) | (values >= limit)
        if bad.any():
            raise EdgesnnError(
                f"{path}: {name} of event {np.argmax(bad)} is {values[np.argmax(bad)]}, outside "
                f"0 ... {limit - 1} of {bundle.name}"
            )
    return np.stack([t, (y * width + x) * channels + p], axis=1)


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an .npz holds, or the only one that it holds; of an .npy its array."""
    try:
        if path.suffix == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            keys = [name for name in names if name in archive.files]
            if not keys and len(archive.files) != 1:
                raise EdgesnnError(
                    f"{path} holds {', '.join(archive.files) or 'nothing'}; none of {', '.join(names)}"
                )
            return {key: archive[key] for key in keys or archive.files}
    except EdgesnnError:
        raise
    except OSError as e:
        raise EdgesnnError(f"cannot read {path}: {e.strerror or one_line(e)}") from None
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as e:
        raise EdgesnnError(f"{path} is not a readable .npy or .npz: {one_line(e)}") from None


def _first(path: Path, found: dict[str, np.ndarray], where: str) -> np.ndarray:
    if not found:
        raise EdgesnnError(f"{path}: {where}")
    return next(iter(found.values()))


def open_source(
    bundle: Bundle,
    source: str | Path | Arrays,
    baud: int = 115_200,
    channel: int | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Source:
    """What a name stands for: "-", a path, udp://HOST:PORT, serial://DEVICE, a pyserial URL; or arrays.

    channel: of a WAV file. loop: where an async iterable runs. UsageError for what is none, EdgesnnError for
    what cannot be opened or is no signal that the model takes.
    """
    intake = Intake.of(bundle)
    if isinstance(source, AsyncIterable):
        if loop is None:
            raise UsageError("an async source is read with `async for`")
        return AsyncSource(intake, source, loop)
    if not isinstance(source, str | Path):
        return ArraySource(intake, source)
    name = str(source)
    if name == "-":
        return RawSource(intake, 0, "standard input")
    scheme, separator, rest = name.partition("://")
    if separator and scheme == "udp":
        return DatagramSource(intake, name)
    if separator:
        return SerialSource(intake, rest if scheme == "serial" else name, baud)
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".wav":
        return WavSource(intake, path, channel)
    if suffix not in (".npy", ".npz"):
        raise UsageError(
            f"unknown source {name!r}: a .wav, .npy or .npz file, - for standard input, udp://HOST:PORT, "
            "serial://DEVICE or socket://HOST:PORT"
        )
    if intake.unit == "frame":
        return ArraySource(intake, load_frames(bundle, path))
    return ArraySource(intake, load_signal(bundle, intake, path))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as e:
        raise EdgesnnError(f"cannot read {path}: {e.strerror or one_line(e)}") from None


def _a(unit: str) -> str:
    return f"an {unit}" if unit == "event" else f"a {unit}"


def one_line(e: BaseException) -> str:
    """An exception's text on one line; its kind where it has none."""
    return " ".join(str(e).split()) or type(e).__name__
