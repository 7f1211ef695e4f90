"""A serial port, or what pyserial makes look like one, read in pieces that a byte ends."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from edgesnn.targets.errors import EdgesnnError, UsageError

_LOOK = 0.1  # seconds between two looks whether to stop


class LinkLost(EdgesnnError):
    """The board cannot be reached any more, or not for long enough to answer; another may do its work."""


class PortGone(LinkLost):
    """The port itself has vanished, and may come back."""


class SerialPort:
    """Bytes over whatever pyserial opens, read in pieces that a byte ends. Errors: EdgesnnError.

    stop: once another thread sets it, no read waits any longer: LinkLost.
    """

    def __init__(
        self,
        url: str,
        baud: int,
        write_timeout: float = 10.0,
        stop: threading.Event | None = None,
    ) -> None:
        try:
            import serial
        except ImportError:
            raise EdgesnnError(
                "the serial link needs pyserial and cobs; run `pip install edgesnn[boards]`"
            ) from None
        _check_url(url)
        self.url = url
        self._stop = stop
        self._buffer = bytearray()
        try:
            self._serial: Any = serial.serial_for_url(
                url, baudrate=baud, timeout=0, write_timeout=write_timeout, exclusive=True
            )
        except Exception as e:  # a URL's handler lets through whatever its own parsing raises
            raise PortGone(_why_not_open(url, e)) from None
        self._errors = (serial.SerialException, OSError)
        # pyserial reads a socket byte by byte; with its descriptor, read at once what has come.
        try:
            self._fd: int | None = self._serial.fileno()
        except (AttributeError, OSError):
            self._fd = None
        # Small frames at once; a socket that cannot is slower, no worse.
        with contextlib.suppress(OSError):
            if self._fd is not None and stat.S_ISSOCK(os.fstat(self._fd).st_mode):
                with socket.socket(fileno=os.dup(self._fd)) as s:
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        with self._translated():
            self._serial.write(data)

    def read_frame(self, deadline: float, end: int = 0x00) -> bytes | None:
        """The bytes before the next `end` (never none), or None at the deadline (time.monotonic).

        What has come by then is read in any case, however late this process is.
        """
        late = False
        while True:
            at = self._buffer.find(end)
            if at > 0:
                data = bytes(self._buffer[:at])
                del self._buffer[: at + 1]
                return data
            if at == 0:
                del self._buffer[:1]
                continue
            if late:
                return None
            left = deadline - time.monotonic()
            late = left <= 0
            self._buffer += self.read(max(left, 0))

    def forget(self) -> None:
        """Drop a frame that stopped half way."""
        self._buffer.clear()

    def read(self, seconds: float) -> bytes:
        """What comes next, as soon as something does; nothing after so many seconds, or earlier."""
        if self._stop is not None:
            seconds = min(seconds, _LOOK)
            if self._stop.is_set():
                raise LinkLost(f"the link on {self.url} was given up")
        with self._translated():
            return self._read(seconds)

    def _read(self, seconds: float) -> bytes:
        if self._fd is None:
            self._serial.timeout = min(seconds, 0.05)
            return bytes(self._serial.read(max(1, self._serial.in_waiting)))
        if not select.select([self._fd], [], [], seconds)[0]:
            return b""
        data = os.read(self._fd, 4096)
        if not data:
            raise PortGone(f"the other end of {self.url} has closed the link; start it again")
        return data

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as e:
            raise PortGone(
                f"the link on {self.url} has broken ({e}); check cable and board"
            ) from None

    def close(self) -> None:
        with contextlib.suppress(*self._errors):
            self._serial.close()


_PORTS = "give a device such as /dev/ttyACM0, or a URL such as socket://HOST:PORT"


def _check_url(url: str) -> None:
    """Refuse what pyserial would answer with a riddle."""
    if not url.strip():
        raise UsageError(f"the port has no name; {_PORTS}")
    scheme, _, rest = url.partition("://")
    sound = url.isprintable() and "://" not in rest  # no handler takes a URL inside its own
    if scheme.lower() in ("socket", "rfc2217"):
        try:
            parts = urlsplit(url)
            sound = sound and bool(parts.hostname) and parts.port is not None
        except ValueError:
            sound = False
    if not sound:
        raise UsageError(f"{url!r} is no port; {_PORTS}")


def _why_not_open(url: str, error: Exception) -> str:
    code, text = getattr(error, "errno", None), " ".join(str(error).split())
    if code == 2 or "No such file" in text:
        return f"no port {url}; plug the board in (`python -m serial.tools.list_ports` lists ports)"
    if code == 13 or "Permission denied" in text:
        return f"no permission to open {url}; add yourself to its group (often `dialout`)"
    if code in (11, 16) or "lock" in text or "busy" in text:
        return f"port {url} is in use by another program; close that one first"
    if "refused" in text:
        return f"nothing listens at {url}; start the emulator or bridge first"
    return f"cannot open port {url} ({text}); {_PORTS}"
