"""What goes wrong between host and board ends in one line, and a bad wire alone changes nothing."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime import frames, link
from edgesnn.runtime.frames import Frame, decode_frame, encode_frame
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board
from edgesnn.targets.errors import EdgesnnError, UsageError

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(talk) -> URL of a port where talk(socket) runs for the first who connects."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(talk: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            with contextlib.suppress(OSError):
                wire, _ = server.accept()
                with wire:
                    talk(wire)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"socket://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def refused(model: Any, url: str, timeout: float = 0.5, **options: Any) -> str:
    with pytest.raises(EdgesnnError) as e:
        LinkEngine(model, url, timeout=timeout, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


def until_closed(wire: socket.socket) -> None:
    while wire.recv(4096):
        pass


SAMPLE = np.zeros((28, 28, 1), np.uint8)
HZ = 25_000_000


def hello(model: Any, **changes: int) -> bytes:
    info = {
        "api": frames.API_VERSION,
        "event": 2,
        "output": 4,
        "id": model.model_id,
        "input": 784,
        "hz": HZ,
    }
    info |= {"stack": 4096, "nodes": 2, "steps": 4, "classes": 12, "session": 0, **changes}
    return struct.pack("<HBB16sIIIHHHB", *info.values())


def result(
    decided: int = 1, label: int = 3, step: int = 1, membranes: int = 10, count: int = 1
) -> bytes:
    head = struct.pack("<HBBIIIII", label, decided, 1, step, 10, 0, 0, count)
    return head + bytes(4 * membranes)


def stepped(node: int, decided: int = 0, events: int = 0) -> bytes:
    return struct.pack("<HBBIII", node, decided, 0, 1, 10, events)


SOUND = {
    frames.DATA: b"",
    frames.INFER: result(),
    frames.RESULT: result(count=2),  # the second inference
    frames.READ_MEMBRANES: bytes(8),
    frames.READ_STATS: bytes(16),
    frames.STACK: bytes(8),
}


class Toy:
    """A board that gives the same answer to every request of one kind, sound or not."""

    def __init__(self, model: Any, replies: dict[int, bytes], first: bytes = b"") -> None:
        self.replies = {frames.HELLO: hello(model), **SOUND, **replies}
        self.first = first  # comes as soon as the host has said anything
        self.junk = b""  # and this before each answer but the first
        self.asked: list[int] = []
        self.nodes = 0

    def __call__(self, wire: socket.socket) -> None:
        left, answer = b"", self.first
        while data := wire.recv(4096):
            *parts, left = (left + data).split(b"\0")
            for frame in map(decode_frame, filter(None, parts)):
                assert frame is not None
                answer += self.junk if self.asked else b""
                answer += self.reply(frame)
                self.asked.append(frame.op)
            wire.sendall(answer)
            answer = b""

    def reply(self, frame: Frame) -> bytes:
        if frame.op == frames.STEP_NODE and frame.op not in self.replies:
            payload = stepped(self.nodes % 2, decided=self.nodes % 2)
            self.nodes += 1
        else:
            payload = self.replies[frame.op]
        return encode_frame(Frame(frame.op | frames.RESPONSE, frame.sequence, payload))


@pytest.mark.parametrize(
    ("op", "payload", "message"),
    [
        (frames.INFER, b"", "0 bytes where 24 are due"),
        (frames.INFER, bytes(23), "23 bytes where 24 are due"),
        (frames.INFER, result(count=0), "inference 0 of this session where 1 is due"),
        (frames.INFER, result(count=2), "inference 2 of this session where 1 is due"),
        (frames.INFER, result(decided=0), "decided: 0"),
        (frames.INFER, result(label=12), "class 12"),
        (frames.INFER, result(step=5), "step 5"),
        (frames.INFER, result(membranes=13), "52 bytes where 48 are due"),
        (frames.READ_MEMBRANES, b"", "40 bytes where 48 are due"),
        (frames.READ_MEMBRANES, bytes(64), "104 bytes where 48 are due"),
        (frames.READ_STATS, b"", "0 bytes where 16 are due"),
        (frames.READ_STATS, bytes(9), "18 bytes where 16 are due"),
        (frames.STACK, bytes(4), "4 bytes where 8 are due"),
        (frames.STEP_NODE, bytes(3), "3 bytes where 16 are due"),
        (frames.STEP_NODE, stepped(1), "node 1 where 0 is due"),
        (frames.STEP_NODE, stepped(2), "node 2 where 0 is due"),
        (frames.STEP_NODE, stepped(0), "node 0 where 1 is due"),
        (frames.STEP_NODE, stepped(0, events=785), "785 events of node 0, which emits 784 at most"),
        (frames.STEP_NODE, stepped(0, events=1) + bytes(4), "4 bytes where 2 are due"),
    ],
    ids=range(19),
)
def test_an_answer_that_makes_no_sense_is_named(
    serve: Serve, hand_model: Any, op: int, payload: bytes, message: str
) -> None:
    toy = Toy(hand_model(), {op: payload})
    url = serve(toy)
    with LinkEngine(hand_model(), url, timeout=2) as engine, pytest.raises(EdgesnnError) as e:
        if op == frames.STEP_NODE:
            engine.trace(SAMPLE)
        engine.infer(SAMPLE)
        engine.stack_high_water()
    text = str(e.value)
    assert "does not fit the bundle (" in text and message in text and "\n" not in text


def test_a_toy_board_that_makes_sense(serve: Serve, hand_model: Any) -> None:
    with LinkEngine(hand_model(), serve(Toy(hand_model(), {})), timeout=2) as engine:
        assert engine.infer(SAMPLE).label == engine.trace(SAMPLE).decision.label == 3
        assert engine.stack_high_water() == 0


def test_read_events_without_an_event(serve: Serve, hand_model: Any) -> None:
    replies = {frames.STEP_NODE: stepped(0, events=30) + bytes(48), frames.READ_EVENTS: b""}
    url = serve(Toy(hand_model(), replies))
    with LinkEngine(hand_model(), url, timeout=2) as engine, pytest.raises(EdgesnnError) as e:
        engine.trace(SAMPLE)
    assert "48 bytes where 60 are due" in str(e.value)


def test_a_board_that_never_decides(serve: Serve, hand_model: Any) -> None:
    class Undecided(Toy):
        def reply(self, frame: Frame) -> bytes:
            if frame.op == frames.STEP_NODE:
                self.replies[frame.op] = stepped(self.nodes % 2)
                self.nodes += 1
            return super().reply(frame)

    url = serve(Undecided(hand_model(), {}))
    with LinkEngine(hand_model(), url, timeout=2) as engine, pytest.raises(EdgesnnError) as e:
        engine.profile(SAMPLE)
    assert "undecided after 4 steps" in str(e.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 3}, "nodes: 3 instead of 2"),
        ({"classes": 10}, "classes: 10 instead of 12"),
        ({"steps": 8}, "timesteps: 8 instead of 4"),
        ({"event": 0}, "bytes of an event: 0 instead of 2"),
        ({"api": 9}, f"version of the C core's interface: 9 instead of {frames.API_VERSION}"),
    ],
)
def test_a_greeting_that_differs_from_the_bundle(
    serve: Serve, hand_model: Any, changes: dict[str, int], message: str
) -> None:
    toy = Toy(hand_model(), {frames.HELLO: hello(hand_model(), **changes)})
    assert message in refused(hand_model(), serve(toy))
    assert "38 bytes where 39 are due" in refused(
        hand_model(), serve(Toy(hand_model(), {frames.HELLO: hello(hand_model())[:-1]}))
    )


def test_the_interface_version_is_that_of_the_core() -> None:
    text = (Path(link.__file__).parent / "c" / "esnn.h").read_text()
    assert f"#define ESNN_API_VERSION {frames.API_VERSION}u" in text


def test_a_counter_of_another_rate(serve: Serve, hand_model: Any, board: Board) -> None:
    counter = board.counter
    assert counter.hz == HZ
    with LinkEngine(hand_model(), serve(Toy(hand_model(), {})), counter=counter) as engine:
        assert engine.info.counter_hz == HZ
    assert "counts 25000000 ticks per second, its board file says 1000" in refused(
        hand_model(), serve(Toy(hand_model(), {})), counter=replace(counter, hz=1000)
    )


@pytest.mark.parametrize("size", [0, 3, 5, 17, 20])
def test_a_crash_report_of_any_length(serve: Serve, hand_model: Any, size: int) -> None:
    fault = encode_frame(Frame(frames.FAULT, 0, bytes(size)))
    assert "has crashed" in refused(hand_model(), serve(Toy(hand_model(), {}, first=fault)))


def test_a_crash_of_a_firmware_with_a_watchdog(serve: Serve, hand_model: Any) -> None:
    fault = encode_frame(Frame(frames.FAULT, 0, bytes(20)))
    for time, end in ((None, "; reset the board"), (20, "; its watchdog resets it")):
        model = hand_model(watchdog_ms=time)
        assert refused(model, serve(Toy(model, {}, first=fault))).endswith(end)


def test_inferences_are_counted_in_32_bits(serve: Serve, hand_model: Any) -> None:
    toy = Toy(hand_model(), {frames.INFER: result(count=0)})
    with LinkEngine(hand_model(), serve(toy), timeout=2) as engine:
        engine._inferences = 2**32 - 1
        assert engine.infer(SAMPLE).label == 3


@pytest.mark.parametrize("chunks", [1, 20, 25, 500])
def test_what_stands_on_the_line_condemns_no_board(
    serve: Serve, hand_model: Any, chunks: int
) -> None:
    toy = Toy(hand_model(), {}, first=b"\x55\0" * chunks)
    with LinkEngine(hand_model(), serve(toy), timeout=5) as engine:
        toy.junk = b"\x55\0" * chunks  # and now before every answer
        engine.infer(SAMPLE)
    assert engine.resent == 0 and len(toy.asked) == len(SAMPLE.tobytes()) // 60 + 5


def test_importing_the_link_loads_no_serial_library() -> None:
    code = (
        "import sys, edgesnn.runtime.link, edgesnn.targets.emulator\n"
        "sys.exit(bool({'serial', 'cobs'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_such_port(hand_model: Any) -> None:
    assert "no port /dev/ttyNONE; plug" in refused(hand_model(), "/dev/ttyNONE")


def test_nothing_listens(hand_model: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nothing listens" in refused(hand_model(), f"socket://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["nonsense://x", "hwgrep://(", "alt://loop?class=x", "/"])
def test_a_port_that_cannot_be_opened(hand_model: Any, url: str) -> None:
    message = refused(hand_model(), url)
    assert "port" in message and "'<='" not in message


@pytest.mark.parametrize(
    "url",
    [
        *("socket://", "socket://x", "socket://x:99999", "socket://:5", "SOCKET://x:y"),
        *("rfc2217://", "spy://loop://", "/dev/tty\0x", "a\nb"),
    ],
)
def test_a_malformed_url(hand_model: Any, url: str) -> None:
    with pytest.raises(UsageError, match=r"is no port; give a device such as .* or a URL such as"):
        LinkEngine(hand_model(), url)


@pytest.mark.parametrize("url", ["", " "])
def test_an_empty_port(hand_model: Any, url: str) -> None:
    with pytest.raises(UsageError, match="the port has no name; give a device"):
        LinkEngine(hand_model(), url)


def test_a_socket_without_options_works_all_the_same(
    serve: Serve, hand_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(92, "Protocol not available")

    url = serve(Toy(hand_model(), {}))
    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    with LinkEngine(hand_model(), url, timeout=2) as engine:
        assert engine.infer(SAMPLE).label == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_no_permission(hand_model: Any, tmp_path: Path) -> None:
    (tmp_path / "tty").touch(mode=0)
    assert "no permission" in refused(hand_model(), str(tmp_path / "tty"))


def test_port_in_use(hand_model: Any) -> None:
    import serial

    main, side = os.openpty()
    with serial.serial_for_url(os.ttyname(side), exclusive=True):
        assert "in use by another program" in refused(hand_model(), os.ttyname(side))
    os.close(main)
    os.close(side)


def test_silence(serve: Serve, hand_model: Any) -> None:
    assert "no answer from the board" in refused(hand_model(), serve(until_closed))


def test_silence_on_a_serial_device(hand_model: Any) -> None:
    main, side = os.openpty()
    assert "no answer from the board" in refused(hand_model(), os.ttyname(side))
    os.close(main)
    os.close(side)


def test_echo_is_no_board(hand_model: Any) -> None:
    assert "no answer from the board" in refused(hand_model(), "loop://")


def test_closed_by_the_other_end(serve: Serve, hand_model: Any) -> None:
    def talk(wire: socket.socket) -> None:
        wire.recv(1)

    message = refused(hand_model(), serve(talk))
    assert "closed the link" in message or "has broken" in message


def test_chatter_is_no_board(serve: Serve, hand_model: Any) -> None:
    def talk(wire: socket.socket) -> None:
        while wire.recv(4096):
            wire.sendall(b"login: \0")

    assert "damaged frames" in refused(hand_model(), serve(talk))


def test_other_protocol_version(serve: Serve, hand_model: Any) -> None:
    def talk(wire: socket.socket) -> None:
        wire.recv(1)  # pyserial throws away what comes before the port is open
        wire.recv(1)
        wire.sendall(encode_frame(Frame(frames.BANNER, 0, bytes(42), version=1)))
        until_closed(wire)

    assert "version 1 of the serial protocol, this edgesnn version 2" in refused(
        hand_model(), serve(talk)
    )


def test_reset_in_the_middle(serve: Serve, hand_model: Any) -> None:
    class Reset(Toy):
        def reply(self, frame: Frame) -> bytes:
            if frame.op == frames.INFER:
                return encode_frame(Frame(frames.BANNER, 0, self.replies[frames.HELLO]))
            return super().reply(frame)

    with LinkEngine(hand_model(), serve(Reset(hand_model(), {})), timeout=5) as engine:
        assert engine.info.classes == 12
        with pytest.raises(EdgesnnError, match="was reset"):
            engine.infer(SAMPLE)


def test_what_watch_knows_comes_first(serve: Serve, hand_model: Any) -> None:
    def watch() -> None:
        raise EdgesnnError("the emulator has stopped")

    with pytest.raises(EdgesnnError, match="the emulator has stopped"):
        LinkEngine(hand_model(), serve(lambda wire: None), timeout=0.5, watch=watch)


def test_a_bad_wire_changes_no_answer(
    serve: Serve,
    hand_model: Any,
    link_pipe: Path,
    reference: Callable[..., Any],
    bad_wire: Callable[[int, int], Any],
) -> None:
    """A byte in 300 is lost or altered, both ways; the board is esnn_link.c on a pipe."""
    spoil = bad_wire(6, 300)

    def talk(wire: socket.socket) -> None:
        board = subprocess.Popen([link_pipe], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert board.stdin is not None and board.stdout is not None
        down, up = board.stdin.fileno(), board.stdout.fileno()
        try:
            while True:
                ready, _, _ = select.select([wire.fileno(), up], [], [])
                if wire.fileno() in ready:
                    data = wire.recv(4096)
                    if not data:
                        return
                    os.write(down, spoil(data))
                if up in ready:
                    wire.sendall(spoil(os.read(up, 4096)))
        finally:
            board.kill()
            board.communicate()

    samples = np.random.default_rng(7).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    with LinkEngine(hand_model(), serve(talk), timeout=1.0, run_timeout=1.0) as engine:
        for sample in samples:
            want = reference(sample)
            got = engine.trace(sample)
            assert (got.decision.label, got.decision.step) == (want.label, want.step)
            assert got.decision.membranes.tolist() == want.membranes.tolist()
            assert [r[0].tolist() for r in got.events] == [e.tolist() for e in want.events]
        assert engine.resent > 10 and spoil.harm > 20


def test_a_late_answer_is_not_taken_for_the_next(
    serve: Serve, hand_model: Any, link_pipe: Path, reference: Callable[..., Any]
) -> None:
    """READ_EVENTS is answered too late, so asked again, and both answers come at once."""
    held: list[bytes] = []
    repeats = 0

    def talk(wire: socket.socket) -> None:
        nonlocal repeats
        board = subprocess.Popen([link_pipe], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert board.stdin is not None and board.stdout is not None
        left = b""
        try:
            while True:
                ready, _, _ = select.select([wire, board.stdout], [], [])
                if wire in ready:
                    data = wire.recv(4096)
                    if not data:
                        return
                    os.write(board.stdin.fileno(), data)
                if board.stdout in ready:
                    *parts, left = (left + os.read(board.stdout.fileno(), 4096)).split(b"\0")
                    for part in parts:
                        frame = decode_frame(part)
                        assert frame is not None
                        if frame.op != frames.READ_EVENTS | frames.RESPONSE:
                            wire.sendall(part + b"\0")
                        elif held:
                            assert held.pop() == part
                            repeats += 1
                            wire.sendall(2 * (part + b"\0"))
                        else:
                            held.append(part)
        finally:
            board.kill()
            board.communicate()

    sample = np.random.default_rng(8).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    want = reference(sample)
    with LinkEngine(hand_model(), serve(talk), timeout=0.5) as engine:
        got = engine.trace(sample)
    assert [row[0].tolist() for row in got.events] == [e.tolist() for e in want.events]
    assert repeats > 4 and engine.resent >= repeats
