"""Listening to a board on a pseudo terminal, and finding the port that it is on."""

from __future__ import annotations

import os
import pty
import re
import struct
import sys
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesnn.runtime.frames import (
    BANNER,
    FAULT,
    HELLO,
    INFER,
    STREAM_EVENTS,
    UNREADABLE,
    Frame,
    decode_frame,
    encode_frame,
)
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.monitor import Monitor, Said, Words
from edgesnn.runtime.ports import choose_port, find_port, list_ports
from edgesnn.targets.board import Board, Usb, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError

serial = pytest.importorskip("serial")
ID = bytes(range(0xA0, 0xB0))
INFO = struct.pack("<HBB16sIIIHHHB", 3, 2, 2, ID, 64, 25_000_000, 4096, 3, 4, 10, 0) + b"digits"


def _said(words: Words, data: bytes) -> list[tuple[str, str]]:
    return [(s.kind, s.text) for s in [*words.feed(data), *words.rest()]]


# --- words --------------------------------------------------------------------------------------


def test_frames_in_words() -> None:
    words = Words()
    ((kind, text),) = _said(words, b"\0" + encode_frame(Frame(BANNER, 0, INFO)))
    assert kind == "banner"
    assert text.startswith(f"started: model digits (id {ID.hex()}), 3 nodes, 10 classes, at most 4")
    ((kind, text),) = _said(words, encode_frame(Frame(HELLO | 0x80, 9, INFO)))
    assert (kind, text[:22]) == ("reply", "HELLO 9: model digits ")
    ((kind, text),) = _said(words, encode_frame(Frame(INFER | 0x80, 2, b"", 0x14)))
    assert (kind, text) == ("reply", "INFER 2: refused, not possible in this state")
    ((kind, text),) = _said(words, encode_frame(Frame(INFER | 0x80, 3, bytes(20))))
    assert (kind, text) == ("reply", "INFER 3: 20 bytes")
    ((kind, text),) = _said(words, encode_frame(Frame(UNREADABLE, 0, b"", 2)))
    assert (kind, text) == ("reply", "the board could not read a frame: checksum differs")
    ((kind, text),) = _said(words, encode_frame(Frame(BANNER, 0, INFO, 0x12)))
    assert (kind, text) == ("banner", "the model cannot start: arena too small")
    ((kind, text),) = _said(
        words, encode_frame(Frame(FAULT, 0, struct.pack("<5I", 0x123, 0, 0, 0, 1)))
    )
    assert kind == "fault" and "crashed (pc=0x00000123" in text and "reset the board" in text
    ((kind, text),) = _said(words, encode_frame(Frame(BANNER, 0, INFO, version=9)))
    assert "version 9 of the serial protocol" in text and "flash it" in text
    ((_, text),) = _said(words, encode_frame(Frame(BANNER, 0, INFO[:9])))
    assert "too few" in text
    assert (words.frames, words.lines, words.damaged) == (9, 0, 0)


@pytest.mark.parametrize("same", [True, False])
def test_whether_it_is_the_bundles_model(same: bool) -> None:
    bundle: Any = SimpleNamespace(model_id=ID if same else bytes(16), path="b", firmware=None)
    ((_, text),) = _said(Words(bundle), encode_frame(Frame(BANNER, 0, INFO)))
    assert text.endswith("; the model of b" if same else "; NOT the model of b")


def test_text_as_it_is_and_noise_counted() -> None:
    words = Words()
    found = _said(words, b"m-ready\r\n\r\nname=\xc3\xa4\tok\n\xff\xfe\x01more\nprompt> ")
    assert found == [
        ("text", "m-ready"),
        ("text", "name=ä\tok"),
        ("damaged", "7 bytes that are neither a sound frame nor text"),
        ("text", "prompt> "),
    ]
    frame = bytearray(encode_frame(Frame(BANNER, 0, INFO)))
    frame[20] ^= 1
    ((kind, _),) = _said(words, bytes(frame))
    assert kind == "damaged" and words.damaged == 2
    noise = list(words.feed(bytes([0xC1]) * 5000))  # without an end: nothing piles up
    assert [s.kind for s in noise] == ["damaged"]


def test_a_frame_may_begin_with_a_line_feed() -> None:
    """COBS counts the bytes before the first 0 of a frame: nine of a refusal with one byte of payload."""
    words = Words()
    for session in range(1, 256):
        frame = encode_frame(Frame(INFER | 0x80, 1, bytes([session]), 8))
        ((kind, text),) = _said(words, frame)
        assert (kind, text) == ("reply", "INFER 1: refused, another session"), session
    assert words.damaged == 0
    assert list(words.feed(b"\n\n\xc3\xa4\n\nb\n")) == [Said("text", "ä"), Said("text", "b")]


def test_operations_have_their_names() -> None:
    words = Words()
    ((_, text),) = _said(words, encode_frame(Frame(STREAM_EVENTS | 0x80, 1, b"")))
    assert text == "STREAM_EVENTS 1: 0 bytes"
    ((_, text),) = _said(words, encode_frame(Frame(0xFD, 1, b"")))
    assert text == "0x7d 1: 0 bytes"


@given(
    st.lists(
        st.one_of(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
            st.tuples(st.binary(max_size=60), st.integers(0, 255), st.booleans()),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_nothing_depends_on_how_the_bytes_come(
    said: list[str | tuple[bytes, int, bool]], cuts: list[int]
) -> None:
    """Text and frames in any order, in pieces of any length."""
    data, expected = b"", []
    for one in said:
        if isinstance(one, str):
            data += f"{one}\n".encode()
            expected += [one] if one else []
            continue
        payload, number, refused = one
        data += encode_frame(Frame(0x85, number, payload, 8 if refused else 0))
        what = "refused, another session" if refused else f"{len(payload)} bytes"
        expected.append(f"INFER {number}: {what}")
    words, found = Words(), []
    for cut in [*cuts, len(data)]:
        found += words.feed(data[:cut])
        data = data[cut:]
    assert not list(words.rest())
    assert [s.text for s in found] == expected


# --- a port -------------------------------------------------------------------------------------


@dataclass
class Line:
    """A pseudo terminal under a name that stays, as a board's port does."""

    path: Path
    master: int = -1

    def plug(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)

    def unplug(self) -> None:
        self.path.unlink()
        os.close(self.master)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    if sys.platform == "win32":
        pytest.skip("no pseudo terminals")
    found = Line(tmp_path / "port")
    found.plug()
    yield found
    os.close(found.master)


def test_listening_sends_nothing_and_survives_the_port(line: Line) -> None:
    with Monitor(str(line.path)) as monitor:
        heard = monitor.listen()
        os.write(line.master, encode_frame(Frame(BANNER, 0, INFO)) + b"hello\n")
        assert next(heard).kind == "banner"
        assert next(heard) == Said("text", "hello")
        os.set_blocking(line.master, False)
        with pytest.raises(BlockingIOError):
            os.read(line.master, 100)
        os.write(line.master, b"unfinished")
        line.unplug()
        kinds = [next(heard)]
        if kinds[0].kind == "text":  # what was on the line may be lost with it
            kinds.append(next(heard))
        assert kinds[-1].kind == "note" and "waiting for the port" in kinds[-1].text
        line.plug()
        assert next(heard) == Said("note", f"{line.path} is back")
        os.write(line.master, b"again\n")
        assert next(heard) == Said("text", "again")


def test_asking_sends_one_hello(line: Line) -> None:
    with Monitor(str(line.path), ask=True) as monitor:
        first, request, rest = os.read(line.master, 100).split(b"\0")
        frame = decode_frame(request)
        assert frame is not None and (first, rest, frame.op) == (b"", b"", HELLO)
        assert 1 <= frame.status <= 255
        os.write(line.master, encode_frame(Frame(HELLO | 0x80, 1, INFO)))
        assert next(monitor.listen()).text.startswith("HELLO 1: model digits")


def test_a_port_that_is_not_there_or_taken(line: Line, tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match="no port"):
        Monitor(str(tmp_path / "nope"))
    with pytest.raises(UsageError, match="the port has no name"):
        Monitor("")
    with Monitor(str(line.path)), pytest.raises(EdgesnnError, match="in use by another program"):
        Monitor(str(line.path))


# --- which port ---------------------------------------------------------------------------------


def _plugged(monkeypatch: pytest.MonkeyPatch, *ports: tuple[str | None, ...]) -> None:
    """These ports are there: device, USB ids, serial number, location."""

    def one(
        device: str, usb: str | None, number: str | None, location: str | None = None
    ) -> SimpleNamespace:
        vendor, product = [int(i, 16) for i in usb.split(":")] if usb else (None, None)
        text = "Debugger" if usb else "n/a"
        return SimpleNamespace(
            device=device,
            vid=vendor,
            pid=product,
            serial_number=number,
            description=text,
            location=location,
        )

    from serial.tools import list_ports as tools

    monkeypatch.setattr(tools, "comports", lambda: [one(*port) for port in ports])


@pytest.fixture
def own(board: Board) -> Board:
    from dataclasses import replace

    return replace(board, name="own", usb=Usb(("0d28:0204",), "pins 1, 2"))


def test_the_ports_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    _plugged(monkeypatch, ("/dev/ttyS0", None, None), ("/dev/ttyACM0", "0d28:0204", "99"))
    usb, plain = list_ports()
    assert (usb.usb, usb.serial, str(usb)) == (
        "0d28:0204",
        "99",
        "/dev/ttyACM0 (Debugger, 0d28:0204)",
    )
    assert (plain.usb, str(plain)) == (None, "/dev/ttyS0")


def test_the_port_of_a_board(monkeypatch: pytest.MonkeyPatch, board: Board, own: Board) -> None:
    _plugged(monkeypatch, ("/dev/ttyS0", None, None))
    assert find_port(own) is None and find_port(board) is None
    with pytest.raises(
        EdgesnnError, match=r"no serial port is own's; its UART is on: pins 1, 2; name .*S0"
    ):
        choose_port(own)
    one, two = ("/dev/ttyACM0", "0d28:0204", "9900A"), ("/dev/ttyACM1", "0d28:0204", "9904B")
    _plugged(monkeypatch, one, ("/dev/ttyS0", None, None))
    assert find_port(own) == choose_port(own) == choose_port(None) == "/dev/ttyACM0"
    _plugged(monkeypatch, one, two)
    with pytest.raises(UsageError, match=r"several ports may be own's: .*ACM0.*ACM1.*--port"):
        find_port(own)
    assert find_port(own, "9904b") == "/dev/ttyACM1"
    with pytest.raises(UsageError, match=r"several boards' ports are there; name one of: .*ACM0"):
        choose_port(None)
    _plugged(monkeypatch)
    with pytest.raises(
        UsageError, match="no port is a known board's; there is no port at all: plug"
    ):
        choose_port(None)


def test_another_boards_port_is_not_taken(monkeypatch: pytest.MonkeyPatch, own: Board) -> None:
    other = ("/dev/ttyACM0", "0d28:0204", "9900A")
    _plugged(monkeypatch, other)
    assert find_port(own, "9904b") is None
    _plugged(monkeypatch, other, ("/dev/ttyACM1", "0d28:0204", None))  # may be it
    assert find_port(own, "9904b") == "/dev/ttyACM1"


def test_of_one_debuggers_ports_the_first_is_the_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """J-Link: two ports, and leading zeros that its id as a probe has not."""
    board, number = load_board("hifive1-revb"), "000979001234"
    second = ("/dev/ttyACM9", "1366:1051", number, "1-3:1.2")
    first = ("/dev/ttyACM10", "1366:1051", number, "1-3:1.0")
    _plugged(monkeypatch, second, first)
    assert find_port(board) == find_port(board, "979001234") == choose_port(None) == first[0]
    _plugged(monkeypatch, *(port[:3] for port in (first, second)))  # no interfaces told: by name
    assert find_port(board) == second[0]
    other = ("/dev/ttyACM1", "1366:1051", "000979005678", "1-2:1.0")
    _plugged(monkeypatch, second, first, other)
    with pytest.raises(UsageError, match=r"several ports .*ACM1 .*ACM10 \("):
        find_port(board)
    assert find_port(board, "979001234") == first[0]


def test_pyserial_is_missing(monkeypatch: pytest.MonkeyPatch, own: Board) -> None:
    monkeypatch.setitem(sys.modules, "serial.tools", None)
    with pytest.raises(EdgesnnError, match=r"pip install 'edgesnn\[boards\]'"):
        find_port(own)


def test_boards_with_a_debugger_know_their_port() -> None:
    for name in ("microbit-v1", "microbit-v2", "nucleo-f446re", "nrf52840-dk"):
        usb = load_board(name).usb
        assert usb is not None and usb.ids, name


# --- a board ------------------------------------------------------------------------------------


def test_where_a_firmware_has_crashed(board: Board, firmware: Any, hand_model: Any) -> None:
    elf = firmware("-DTEST_CRASH")
    with Emulator(board, elf) as emulator:
        with LinkEngine(hand_model(), emulator.url) as engine, pytest.raises(EdgesnnError):
            engine.infer(np.zeros((28, 28, 1), np.uint8))
        bundle: Any = SimpleNamespace(model_id=hand_model().model_id, path="b", firmware=elf)
        with Monitor(emulator.url, bundle=bundle, ask=True) as monitor:
            said = next(monitor.listen())
    assert said.kind == "fault"
    assert re.match(r"the firmware has crashed in decide \(pc=0x[0-9a-f]{8} decide ", said.text)
    assert said.text.endswith("; reset the board")
