"""What goes wrong between host and board ends in one line, and a bad wire alone changes nothing."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime import link
from edgesnn.runtime.link import Frame, LinkEngine, encode_frame
from edgesnn.targets.errors import EdgesnnError

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


def refused(model: Any, url: str, timeout: float = 0.5) -> str:
    with pytest.raises(EdgesnnError) as e:
        LinkEngine(model, url, timeout=timeout)
    assert "\n" not in str(e.value)
    return str(e.value)


def until_closed(wire: socket.socket) -> None:
    while wire.recv(4096):
        pass


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


def test_not_a_url(hand_model: Any) -> None:
    assert "cannot open port nonsense://" in refused(hand_model(), "nonsense://x")


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
        wire.sendall(encode_frame(Frame(link.BANNER, 0, bytes(42), version=2)))
        until_closed(wire)

    assert "version 2 of the serial protocol, this edgesnn version 1" in refused(
        hand_model(), serve(talk)
    )


def test_reset_in_the_middle(serve: Serve, hand_model: Any) -> None:
    hello = struct.pack("<HBB16sIIIHHH", 1, 2, 4, hand_model().model_id, 784, 1, 1, 2, 4, 12)

    def talk(wire: socket.socket) -> None:
        wire.recv(4096)
        wire.sendall(encode_frame(Frame(link.HELLO | link.RESPONSE, 1, hello)))
        wire.recv(4096)
        wire.sendall(encode_frame(Frame(link.BANNER, 0, hello)))
        until_closed(wire)

    with LinkEngine(hand_model(), serve(talk), timeout=5) as engine:
        assert engine.info.classes == 12
        with pytest.raises(EdgesnnError, match="was reset"):
            engine.infer(np.zeros((28, 28, 1), np.uint8))


def test_what_watch_knows_comes_first(serve: Serve, hand_model: Any) -> None:
    def watch() -> None:
        raise EdgesnnError("the emulator has stopped")

    with pytest.raises(EdgesnnError, match="the emulator has stopped"):
        LinkEngine(hand_model(), serve(lambda wire: None), timeout=0.5, watch=watch)


def test_a_bad_wire_changes_no_answer(
    serve: Serve, hand_model: Any, link_pipe: Path, reference: Callable[..., Any]
) -> None:
    """A byte in 300 is lost or altered, both ways; the board is esnn_link.c on a pipe."""
    rng = random.Random(6)
    harm = 0

    def spoil(data: bytes) -> bytes:
        nonlocal harm
        out = bytearray()
        for byte in data:
            if rng.randrange(300):
                out.append(byte)
            else:
                harm += 1
                if rng.randrange(2):
                    out.append(rng.randrange(256))
        return bytes(out)

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
        assert engine.resent > 10 and harm > 20
