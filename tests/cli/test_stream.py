"""Streams: sources, the bounded queue and its policies, and how they end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import Decision
from edgesnn.runtime.session import Session
from edgesnn.runtime.stream import Stream, encode_serial_frame
from edgesnn.targets.errors import EdgesnnError

COMMAND = [sys.executable, "-c", "from edgesnn.cli import main; raise SystemExit(main())"]


def _labels(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(row["label"], row["step"]) for row in rows]


@pytest.mark.parametrize("kind", ["array", "list", "npy", "npz", "one"])
def test_array_sources(kind: str, host_bundle: Bundle, frames: Any, tmp_path: Path) -> None:
    x, _, rows = frames
    source: Any = {"array": x, "list": iter(list(x)), "one": str(tmp_path / "one.npy")}.get(kind)
    if kind == "npy":
        np.save(tmp_path / "x.npy", x[..., None])
        source = str(tmp_path / "x.npy")
    elif kind == "npz":
        np.savez(tmp_path / "x.npz", x_test=x, y_test=np.zeros(len(x)))
        source = str(tmp_path / "x.npz")
    elif kind == "one":
        np.save(tmp_path / "one.npy", x[0])
        rows = rows[:1]
    with Stream(host_bundle) as stream:
        seen = list(stream.feed(source))
    assert [(d.label, d.step) for d in seen] == _labels(rows)
    assert [d.index for d in seen] == list(range(len(rows)))
    assert [d.membranes.tolist() for d in seen] == [row["membranes"] for row in rows]
    assert (stream.totals.received, stream.totals.dropped) == (len(rows), 0)


class Gate:
    """A session whose first answer waits until the source has delivered everything."""

    def __init__(self, session: Session) -> None:
        self.open = threading.Event()
        self._classify = session.classify
        session.classify = self.classify  # type: ignore[method-assign]

    def classify(self, sample: np.ndarray) -> Decision:
        assert self.open.wait(20)
        return self._classify(sample)


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])
def test_dropping_is_counted(policy: str, host_bundle: Bundle) -> None:
    count, capacity = 12, 3
    with Session(host_bundle) as session:
        gate = Gate(session)

        def source() -> Iterator[np.ndarray]:
            for i in range(count):
                yield np.full((8, 8), i, dtype=np.uint8)
            gate.open.set()

        stream = Stream(session, policy=policy, capacity=capacity)
        seen = list(stream.feed(source()))
    totals, indices = stream.totals, [d.index for d in seen]
    assert totals.received == count
    assert totals.decided == len(seen) == count - totals.dropped
    # The engine may have taken a frame before the queue was full.
    assert capacity <= len(seen) <= capacity + 1
    assert seen[-1].dropped == totals.dropped
    if policy == "drop-oldest":
        assert indices[-capacity:] == list(range(count - capacity, count))
    else:
        assert indices == list(range(len(seen)))


def test_blocking_loses_nothing(host_bundle: Bundle, frames: Any) -> None:
    x, _, rows = frames
    with Stream(host_bundle, capacity=1) as stream:
        seen = [(d.label, d.step) for d in stream.feed(np.concatenate([x] * 20))]
    assert seen == _labels(rows) * 20 and stream.totals.dropped == 0


def test_a_stream_can_be_left(host_bundle: Bundle) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield np.zeros((8, 8), dtype=np.uint8)

    with Stream(host_bundle) as stream:
        feed = stream.feed(endless())
        assert next(feed).index == 0
        feed.close()  # type: ignore[attr-defined]
    assert all(t.name != "edgesnn-source" for t in threading.enumerate())


def test_errors_of_a_source_come_after_its_frames(host_bundle: Bundle) -> None:
    def source() -> Iterator[np.ndarray]:
        yield np.zeros((8, 8), dtype=np.uint8)
        raise EdgesnnError("the sensor is gone")

    with Stream(host_bundle) as stream:
        feed = stream.feed(source())
        assert next(feed).index == 0
        with pytest.raises(EdgesnnError, match="the sensor is gone"):
            next(feed)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a port has been opened; pyserial throws away what comes before."""
    import serial

    done, really = threading.Event(), serial.serial_for_url

    def open_port(*words: Any, **options: Any) -> Any:
        port = really(*words, **options)
        done.set()
        return port

    monkeypatch.setattr(serial, "serial_for_url", open_port)
    return done


def test_serial_source_finds_its_step_again(
    host_bundle: Bundle, frames: Any, opened: threading.Event
) -> None:
    """Noise, a wrong checksum and a cut frame are counted; the frames around them are answered."""
    x, _, rows = frames
    good = [encode_serial_frame(frame) for frame in x]
    wrong = bytearray(good[0])
    wrong[20] = wrong[20] % 255 + 1
    noise = bytes([7, 200, 31]) * 5 + b"\0"
    sent = [noise, good[0], bytes(wrong), good[1], good[2][:30] + b"\0", b"\0\0", *good[2:]]
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as peer:
            assert opened.wait(20)
            for i, part in enumerate(b"".join(sent).split(b"\x05")):
                peer.sendall((b"\x05" if i else b"") + part)

    threading.Thread(target=serve, daemon=True).start()
    seen = []
    with Stream(host_bundle) as stream, pytest.raises(EdgesnnError, match="has ended"):
        for decision in stream.feed(f"socket://127.0.0.1:{server.getsockname()[1]}"):
            seen.append((decision.label, decision.step))
    assert seen == _labels(rows)
    assert stream.totals.damaged == 3


def test_serial_source_of_another_size(host_bundle: Bundle, opened: threading.Event) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as peer:
            assert opened.wait(20)
            peer.sendall(encode_serial_frame(np.zeros(65, dtype=np.uint8)))
            peer.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    with Stream(host_bundle) as stream, pytest.raises(EdgesnnError, match="65 bytes"):
        list(stream.feed(f"socket://127.0.0.1:{server.getsockname()[1]}"))


def test_int16_frames_are_little_endian() -> None:
    frame = np.array([1, -2], dtype=">i2")
    little = np.array([1, -2], dtype="<i2")
    assert encode_serial_frame(frame) == encode_serial_frame(little)


def test_standard_input(fresh: Any, host_bundle: Bundle, frames: Any) -> None:
    x, _, rows = frames
    words = ("stream", host_bundle.path, "--source", "-")
    outcome = fresh(*words, "--json", stdin=x.tobytes())
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 0
    assert [(d["class"], d["timestep"]) for d in lines] == _labels(rows)
    assert [d["membranes"] for d in lines] == [row["membranes"] for row in rows]
    assert lines[0]["name"] == host_bundle.class_names[rows[0]["label"]]
    assert "6 frames: 6 decided, 0 dropped, 0 damaged" in outcome.err
    assert (
        len(
            fresh(
                *words,
                stdin=x.tobytes(),
            ).out.splitlines()
        )
        == 6
    )
    cut = fresh(*words, stdin=x.tobytes()[:-1])
    assert cut.code == 1 and len(cut.out.splitlines()) == 5
    assert "ended within a frame: 63 of 64 bytes" in cut.err.splitlines()[-1]
    assert len(fresh(*words, "--samples", 2, stdin=x.tobytes()).out.splitlines()) == 2


def _start(bundle: Bundle) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "stream", str(bundle.path), "--source", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_ends_with_totals(host_bundle: Bundle) -> None:
    with _start(host_bundle) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(bytes(64))
        process.stdin.flush()
        assert b"step" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"1 frame: 1 decided" in err and b"Traceback" not in err


def test_a_reader_that_leaves_is_no_error(host_bundle: Bundle) -> None:
    with _start(host_bundle) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(bytes(64))
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(bytes(64 * 10))
        process.stdin.close()
        process.stdin = None
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=30)
    assert process.returncode == 0
    assert b"Traceback" not in err and b"Error" not in err
