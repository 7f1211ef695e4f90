"""Streams of a signal: sources, policies, gaps, time, and the score of a recording."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from signal import SIGINT
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.front_end import make_log_mel
from edgesnn.compiler.stream import StreamInterpreter
from edgesnn.data import recordings
from edgesnn.data.recording import Recording
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import TimedDecision
from edgesnn.runtime.session import Session
from edgesnn.runtime.stream import Stream, StreamDecision, encode_message, encode_serial_frame
from edgesnn.targets.errors import EdgesnnError, UsageError

RATE = 1000  # Hz, of the sound
BURSTS = [(400 + 700 * k, 700 + 700 * k) for k in range(8)]
STEP_US = 1000


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-12, 13, shape).astype(np.int8)


def _window_program(name: str, shape: ir.Shape, dtype: str, stream: ir.WindowStream) -> ir.Program:
    rng, units = np.random.default_rng(12), ir.size(shape)
    encoding = ir.Dense("input", _weights(rng, 12, units))
    thresholds = np.sort(rng.integers(-4000, 4000, (12, 3)))[:, ::-1].astype(np.int32)
    nodes = (
        ir.SampleInput("input", shape, dtype, 1.0, 96 if dtype == "uint8" else 0),
        ir.LatencyEncoder("encoder", encoding, np.ascontiguousarray(thresholds)),
        ir.Accumulator(
            "output",
            (ir.Dense("encoder", _weights(rng, 3, 12)),),
            (((1, 1),),),
            np.array([1, 0, -1], np.int32),
        ),
    )
    return ir.Program(name, 4, nodes, ir.FirstSpike(10), ("rest", "one", "two"), stream=stream)


def _sound_program() -> ir.Program:
    front = make_log_mel(RATE, frame=48, hop=20, bands=6, gain=230, offset=np.full(6, 2000))
    stream = ir.WindowStream(front, hop=2, smooth=3, votes=2, refractory=2, background=(0,))
    return _window_program("sounds", (5, 6, 1), "uint8", stream)


def _motion_program() -> ir.Program:
    stream = ir.WindowStream(ir.Rows(50.0), hop=3)
    return _window_program("motions", (1, 8, 2), "int16", stream)


def _event_program() -> ir.Program:
    rng = np.random.default_rng(5)
    nodes = (
        ir.EventInput("input", (4, 4, 2)),
        ir.Lif(
            "hidden",
            (ir.Dense("input", _weights(rng, 10, 32)),),
            ((1, 1),),
            np.full(10, 14, np.int32),
            np.zeros(10, np.int32),
        ),
        ir.Accumulator(
            "output",
            (ir.Dense("hidden", _weights(rng, 3, 10)),),
            (((1, 1),),),
            np.zeros(3, np.int32),
        ),
    )
    stream = ir.EventStream(STEP_US, refractory=3)
    names = ("left", "up", "right")
    return ir.Program("flies", 6, nodes, ir.FirstSpike(15), names, stream=stream)


PROGRAMS: dict[str, Callable[[], ir.Program]] = {
    "sound": _sound_program,
    "motion": _motion_program,
    "events": _event_program,
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """One of each kind, compiled for this machine. Do not alter their files."""
    folder = tmp_path_factory.mktemp("streams")
    return {
        kind: compile_program(program(), "cpu", out=folder / kind)
        for kind, program in PROGRAMS.items()
    }


def _sound() -> np.ndarray:
    """Six seconds, with bursts of two pitches: int16[6000, 1]."""
    t = np.arange(6000)
    x = np.random.default_rng(0).normal(0, 20, len(t))
    for k, (start, end) in enumerate(BURSTS):
        x[start:end] += 8000 * np.sin(2 * np.pi * (100, 350)[k % 2] * t[start:end] / RATE)
    return x.astype(np.int16)[:, None]


def _motion() -> np.ndarray:
    return (np.random.default_rng(1).normal(0, 100, (300, 2))).astype(np.int16)


def _events() -> np.ndarray:
    """Two bursts with silence between them, int64[n, 2]."""
    rng = np.random.default_rng(2)
    t = np.sort(np.concatenate([rng.integers(0, 60_000, 900), rng.integers(90_000, 150_000, 900)]))
    return np.stack([t, rng.integers(0, 32, len(t))], axis=1)


SIGNALS: dict[str, Callable[[], np.ndarray]] = {
    "sound": _sound,
    "motion": _motion,
    "events": _events,
}


def _last(signal: np.ndarray) -> int:
    """End of the step in which the last event lies."""
    return (int(signal[-1, 0]) // STEP_US + 1) * STEP_US


def _reference(kind: str, signal: np.ndarray, offset: int = 0) -> list[tuple[Any, ...]]:
    """What the definition says of a whole signal that begins at `offset`."""
    engine = StreamInterpreter(PROGRAMS[kind]())
    if kind != "events":
        found = engine.push(signal)
    else:
        shifted = signal - [offset, 0]
        found = engine.push(shifted) + engine.advance(_last(shifted))
    return [
        (d.time + offset, d.decision.label, d.decision.step, d.smoothed, d.detected) for d in found
    ]


def _seen(decisions: list[StreamDecision]) -> list[tuple[Any, ...]]:
    return [(d.at, d.label, d.step, d.smoothed, d.detected) for d in decisions]


def _write_wav(
    path: Path, signal: np.ndarray, rate: int = RATE, width: int = 2, channels: int = 1
) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(signal.tobytes())
    return path


# --- sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_cut_into_chunks_makes_no_difference(kind: str, bundles: dict[str, Bundle]) -> None:
    signal, rng = SIGNALS[kind](), np.random.default_rng(3)
    wanted = _reference(kind, signal)
    assert len(wanted) > 10 and len({label for _, label, *_ in wanted}) > 1
    cuts = np.sort(rng.integers(0, len(signal), 40))
    with Stream(bundles[kind]) as stream:
        for source in (signal, iter(np.split(signal, cuts)), [signal[:0], signal]):
            decisions = list(stream.feed(source))
            assert _seen(decisions) == wanted
            assert [d.index for d in decisions] == list(range(len(wanted)))
            totals = stream.totals
            assert totals.received == totals.used == len(signal)
            assert (totals.decided, totals.dropped, totals.gaps) == (len(wanted), 0, 0)
            assert totals.detected == sum(d.detected is True for d in decisions)
    rate = {"sound": RATE, "motion": 50, "events": 1e6}[kind]
    assert [d.time for d in decisions] == [at / rate for at, *_ in wanted]
    length = _last(signal) if kind == "events" else len(signal)
    assert totals.signal_seconds == length / rate and totals.real_time is not None


def test_files(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    sound, motion, events = _sound(), _motion(), _events()
    np.save(tmp_path / "sound.npy", sound[:, 0])
    np.savez(tmp_path / "sound.npz", signal=sound, rate=RATE, labels=np.zeros(3))
    np.savez(tmp_path / "motion.npz", a=motion)
    np.save(tmp_path / "events.npy", events)
    columns = {"x": events[:, 1] // 2 % 4, "y": events[:, 1] // 8, "p": events[:, 1] % 2}
    np.savez(tmp_path / "events.npz", t=events[:, 0], **columns)
    both = np.concatenate([np.zeros_like(sound), sound], axis=1)
    files = {
        "sound": [tmp_path / "sound.npy", tmp_path / "sound.npz"],
        "motion": [tmp_path / "motion.npz", _write_wav(tmp_path / "m.wav", motion, 50, 2, 2)],
        "events": [tmp_path / "events.npy", tmp_path / "events.npz"],
    }
    files["sound"].append(_write_wav(tmp_path / "sound.WAV", sound))
    for kind, paths in files.items():
        with Stream(bundles[kind]) as stream:
            for path in paths:
                assert _seen(list(stream.feed(str(path)))) == _reference(kind, SIGNALS[kind]()), (
                    path
                )
    two = _write_wav(tmp_path / "two.wav", both, channels=2)
    with Stream(bundles["sound"], channel=1) as stream:
        assert _seen(list(stream.feed(two))) == _reference("sound", sound)


def _float_wav(path: Path) -> None:
    """Format 3: 32-bit floats, mono, 1,000 Hz."""
    kind = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    data = [b"WAVEfmt ", struct.pack("<I", len(kind)), kind, b"data", bytes(4)]
    path.write_bytes(b"RIFF" + struct.pack("<I", len(b"".join(data))) + b"".join(data))


def test_sources_that_do_not_fit(
    run: Any, bundles: dict[str, Bundle], host_bundle: Bundle, tmp_path: Path
) -> None:
    """One line each, naming what would fit."""
    sound = _sound()
    _write_wav(tmp_path / "fast.wav", sound, 2000)
    _write_wav(tmp_path / "two.wav", sound, channels=2)
    _write_wav(tmp_path / "eight.wav", sound.astype(np.uint8), width=1)
    _write_wav(tmp_path / "none.wav", sound[:0])
    _write_wav(tmp_path / "good.wav", sound)
    _float_wav(tmp_path / "float.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "half.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:-1000])
    np.save(tmp_path / "float.npy", sound / 2.0)
    np.save(tmp_path / "windows.npy", np.zeros((4, 1, 8, 2), np.int16))
    np.save(tmp_path / "wide.npy", _motion().astype(np.int32) * 1000)
    np.save(tmp_path / "no.npy", sound[:0])
    np.savez(tmp_path / "rate.npz", signal=sound, rate=8000)
    np.savez(tmp_path / "two.npz", a=sound, b=sound)
    np.save(tmp_path / "outside.npy", np.array([[0, 3], [5, 32]]))
    np.savez(tmp_path / "xy.npz", x=[4], y=[0], t=[0], p=[0])
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4nothing")
    for kind, file, code, *words in [
        ("sound", "fast.wav", 1, "2,000 Hz", "1,000 Hz"),
        ("sound", "two.wav", 1, "2 channels", "--channel 0 ... 1"),
        ("sound", "eight.wav", 1, "8 bits", "16-bit PCM"),
        ("sound", "none.wav", 1, "no samples"),
        ("sound", "float.wav", 1, "PCM"),
        ("sound", "empty.wav", 1, "empty or cut off"),
        ("sound", "text.wav", 1, "not a readable WAV"),
        ("sound", "missing.wav", 1, "No such file"),
        ("sound", "sound.mp3", 2, ".wav, .npy or .npz"),
        ("sound", "float.npy", 2, "float64", "int16 sound at 1,000 Hz"),
        ("sound", "no.npy", 1, "no samples"),
        ("sound", "rate.npz", 1, "8000 samples a second", "takes 1000"),
        ("sound", "two.npz", 1, "a, b"),
        ("sound", "bad.npz", 1, "not a readable"),
        ("motion", "windows.npy", 2, "[4, 1, 8, 2]", "int16 rows of 2, 50 a second"),
        ("motion", "wide.npy", 2, "int16"),
        ("motion", "good.wav", 1, "1,000 Hz", "50 Hz"),
        ("events", "good.wav", 2, "events of 4x4x2"),
        ("events", "float.npy", 2, "time and address"),
        ("events", "outside.npy", 1, "0 ... 31", "has 32"),
        ("events", "xy.npz", 1, "x of event 0 is 4"),
    ]:
        outcome = run("stream", bundles[kind].path, "--source", tmp_path / file)
        error = outcome.error(code)
        assert all(word in error for word in words), (file, error)
    frames = ("stream", host_bundle.path, "--source", tmp_path / "good.wav")
    assert "golden-samples takes uint8 8x8x1" in run(*frames).error(2)
    half = run("stream", bundles["sound"].path, "--source", tmp_path / "half.wav", "--all")
    assert half.code == 1 and len(half.out.splitlines()) > 50
    assert "cut off: 5,500 of 6,000 samples" in half.err.splitlines()[-1]
    channel = ("stream", bundles["sound"].path, "--source", tmp_path / "good.wav", "--channel", 1)
    assert "no channel 1" in run(*channel).error(2)
    assert "not both" in run("stream", bundles["sound"].path).error(2)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_standard_input(kind: str, fresh: Any, bundles: dict[str, Bundle]) -> None:
    signal = SIGNALS[kind]()
    wanted = _reference(kind, signal)
    raw = encode_message(bundles[kind], 0, signal)[4:]
    words = ("stream", bundles[kind].path, "--source", "-")
    outcome = fresh(*words, "--all", "--json", stdin=raw)
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    keys = ("at", "class", "timestep", "smoothed", "detected")
    assert [tuple(row[key] for key in keys) for row in rows] == wanted
    unit = {"sound": "samples", "motion": "rows", "events": "events"}[kind]
    assert f"{len(signal):,} {unit} (" in outcome.err and "x real time" in outcome.err
    lines = fresh(*words, stdin=raw).out.splitlines()
    shown = [(at, smoothed) for at, _, _, smoothed, detected in wanted if detected]
    rate = {"sound": RATE, "motion": 50, "events": 1e6}[kind]
    names = bundles[kind].class_names
    assert [line.split()[:3] for line in lines] == [
        [f"{at / rate:.3f}", "s", names[label]] for at, label in shown
    ]
    if kind != "events":
        assert shown and (kind == "motion") == (len(shown) == len(wanted))
    cut = fresh(*words, stdin=raw[:-1])
    assert cut.code == 1 and "ended within a" in cut.err.splitlines()[-1]


def test_ctrl_c_ends_with_totals(bundles: dict[str, Bundle]) -> None:
    """While the source is silent."""
    path = str(bundles["motion"].path)
    code = "from edgesnn.cli import main; raise SystemExit(main())"
    words = [sys.executable, "-c", code, "stream", path, "--source", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(_motion()[:8].tobytes())
        process.stdin.flush()
        assert process.stdout.readline().split()[:2] == [b"0.160", b"s"]
        process.send_signal(SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"8 rows (0.160 s): 1 decided, 1 detected" in err and b"Traceback" not in err


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _send(port: int, datagrams: list[bytes]) -> threading.Thread:
    """Send when somebody listens at the port."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    try:
                        other.bind(("127.0.0.1", port))
                    except OSError:
                        break
                time.sleep(0.01)
            for datagram in datagrams:
                one.sendto(datagram, ("127.0.0.1", port))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_datagrams_know_what_is_lost(bundles: dict[str, Bundle]) -> None:
    """Sound: one is lost, one comes late, one is cut; time stays right, and no window spans a gap."""
    signal, bundle, port = _sound(), bundles["sound"], _free_port()
    size = 500
    first = 2**32 - 1000  # the number wraps
    parts = [
        encode_message(bundle, first + at, signal[at : at + size])
        for at in range(0, len(signal), size)
    ]
    sent = [*parts[:4], parts[5], parts[4], *parts[6:8], parts[8][:-1], *parts[9:]]
    sent.append(encode_message(bundle, first + len(signal) + 70, signal[:0]))
    _send(port, sent)
    with Stream(bundle) as stream:
        decisions = list(stream.feed(f"udp://127.0.0.1:{port}"))
    wanted = _reference("sound", signal[:2000])
    for begin, end in ((2500, 4000), (4500, 6000)):
        wanted += [(at + begin, *rest) for at, *rest in _reference("sound", signal[begin:end])]
    assert _seen(decisions) == wanted
    totals = stream.totals
    assert (totals.received, totals.used) == (5000, 5000)
    assert (totals.lost, totals.damaged, totals.gaps) == (1070, 1, 2)


def test_datagrams_of_a_sender_that_begins_again(bundles: dict[str, Bundle]) -> None:
    signal, bundle, port = _motion(), bundles["motion"], _free_port()
    sent = [encode_message(bundle, 5000, signal), encode_message(bundle, 0, signal)]
    _send(port, [*sent, encode_message(bundle, len(signal), signal[:0])])
    with Stream(bundle) as stream:
        decisions = list(stream.feed(f"udp://127.0.0.1:{port}"))
    wanted = _reference("motion", signal)
    again = [(at + len(signal), *rest) for at, *rest in wanted]
    assert _seen(decisions) == wanted + again
    assert (stream.totals.lost, stream.totals.gaps) == (0, 1)


def test_datagrams_of_frames_and_of_events(bundles: dict[str, Bundle], host_bundle: Bundle) -> None:
    events, port = _events(), _free_port()
    sent = [
        encode_message(bundles["events"], at, events[at : at + 100])
        for at in range(0, len(events), 100)
    ]
    _send(port, [*sent, encode_message(bundles["events"], len(events), events[:0])])
    with Stream(bundles["events"]) as stream:
        decisions = list(stream.feed(f"udp://127.0.0.1:{port}"))
    assert _seen(decisions) == _reference("events", events)
    frames, port = np.zeros((3, 8, 8, 1), np.uint8), _free_port()
    parts = [encode_message(host_bundle, i, frames[i : i + 1]) for i in (0, 2)]
    _send(port, [*parts, encode_message(host_bundle, 3, frames[:0])])
    with Stream(host_bundle) as stream:
        assert [d.index for d in stream.feed(f"udp://127.0.0.1:{port}")] == [0, 2]
        assert stream.totals.lost == 1


def test_datagrams_of_a_sensor_of_events_that_begins_again(bundles: dict[str, Bundle]) -> None:
    """Its clock begins at 0 again: nothing of it is late."""
    signal, bundle, port = _events(), bundles["events"], _free_port()
    sent = [encode_message(bundle, 0, signal)] * 2
    _send(port, [*sent, encode_message(bundle, len(signal), signal[:0])])
    with Stream(bundle) as stream:
        decisions = list(stream.feed(f"udp://127.0.0.1:{port}"))
    assert _seen(decisions) == 2 * _reference("events", signal)
    totals = stream.totals
    assert (totals.used, totals.late, totals.gaps) == (2 * len(signal), 0, 1)


def test_datagrams_that_do_not_fit(bundles: dict[str, Bundle]) -> None:
    port = _free_port()
    _send(port, [b"hello"])
    with Stream(bundles["motion"]) as stream:
        with pytest.raises(EdgesnnError, match="5 bytes"):
            list(stream.feed(f"udp://127.0.0.1:{port}"))
        with pytest.raises(UsageError, match="udp://HOST:PORT"):
            list(stream.feed("udp://127.0.0.1"))
        with pytest.raises(EdgesnnError, match="cannot receive"):
            list(stream.feed("udp://192.0.2.1:9000"))


def test_serial_messages(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged message is a gap of known length; what is sent while the link opens is not lost."""
    from serial.urlhandler import protocol_socket

    signal, bundle, sent = _motion(), bundles["motion"], threading.Event()
    configure = protocol_socket.Serial._reconfigure_port

    def late(port: Any) -> None:
        assert sent.wait(20)
        configure(port)

    monkeypatch.setattr(protocol_socket.Serial, "_reconfigure_port", late)
    parts = [
        encode_serial_frame(encode_message(bundle, at, signal[at : at + 60]))
        for at in range(0, len(signal), 60)
    ]
    broken = bytearray(parts[2])
    broken[9] = broken[9] % 255 + 1
    end = encode_serial_frame(encode_message(bundle, len(signal), signal[:0]))
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as peer:
            peer.sendall(b"".join([*parts[:2], bytes(broken), *parts[3:], end]))
            sent.set()
            peer.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    with Stream(bundle) as stream:
        decisions = list(stream.feed(f"socket://127.0.0.1:{server.getsockname()[1]}"))
    wanted = _reference("motion", signal[:120])
    wanted += [(at + 180, *rest) for at, *rest in _reference("motion", signal[180:])]
    assert _seen(decisions) == wanted
    assert (stream.totals.damaged, stream.totals.lost, stream.totals.gaps) == (1, 60, 1)


# --- policies, gaps, time -------------------------------------------------------------------------


class Slow:
    """A session that takes nothing before its gate opens; it keeps what it was given."""

    def __init__(self, session: Session) -> None:
        self.open = threading.Event()
        self.given: list[np.ndarray] = []
        self._push = session.push
        session.push = self.push  # type: ignore[method-assign]

    def push(self, chunk: np.ndarray) -> list[TimedDecision]:
        assert self.open.wait(20)
        self.given.append(chunk)
        return self._push(chunk)


@pytest.mark.parametrize("policy", ["block", "drop-oldest", "drop-newest"])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_slow_consumer_loses_nothing_silently(
    kind: str, policy: str, bundles: dict[str, Bundle]
) -> None:
    signal, capacity = SIGNALS[kind](), 4
    parts = np.split(signal, range(30, len(signal), 30))
    with Session(bundles[kind]) as session:
        slow = Slow(session)

        def source() -> Iterator[np.ndarray]:
            for i, part in enumerate(parts):
                yield part
                if policy == "block" and i > capacity:
                    slow.open.set()
            slow.open.set()

        if policy == "block":
            threading.Timer(0.5, slow.open.set).start()
        stream = Stream(session, policy=policy, capacity=capacity)
        decisions = list(stream.feed(source()))
    totals = stream.totals
    assert totals.received == len(signal) == totals.used + totals.dropped
    assert totals.used == sum(map(len, slow.given))
    assert all(d.dropped <= totals.dropped for d in decisions)
    if policy == "block":
        assert totals.dropped == 0 and _seen(decisions) == _reference(kind, signal)
        return
    assert totals.dropped > 0 and len(slow.given) <= 2 * capacity
    if kind == "events":
        # The engine's time begins in the step of the first event that was taken.
        taken = np.concatenate(slow.given)
        tail = signal[len(signal) - len(taken) :]
        only_tail = np.array_equal(taken[:, 1], tail[:, 1])
        begin = int(tail[0, 0]) // STEP_US * STEP_US if only_tail else 0
        wanted = _reference("events", taken + np.array([begin, 0]), begin)
        assert _seen(decisions) == wanted and totals.gaps == 0
        return
    # Every run of chunks without a gap is a stream of its own, at its place in time.
    runs: list[list[int]] = []
    for chunk in slow.given:
        view = np.lib.stride_tricks.sliding_window_view(signal, len(chunk), axis=0)
        (start,) = np.flatnonzero((view == chunk.T).all(axis=(1, 2)))
        if runs and runs[-1][1] == start:
            runs[-1][1] = start + len(chunk)
        else:
            runs.append([int(start), int(start) + len(chunk)])
    first_kept, last_kept = runs[0][0] == 0, runs[-1][1] == len(signal)
    assert (first_kept, last_kept)[policy == "drop-oldest"]
    wanted = []
    for start, end in runs:
        wanted += [(at + start, *rest) for at, *rest in _reference(kind, signal[start:end])]
    assert _seen(decisions) == wanted
    assert totals.gaps == len(runs) - first_kept


def test_late_events_are_counted(bundles: dict[str, Bundle]) -> None:
    """However they are cut into chunks; within the step under way order does not matter."""
    signal = _events()
    order = np.arange(len(signal))
    step = signal[:, 0] // STEP_US
    for value in np.unique(step)[::2]:  # shuffled within some steps
        mine = np.flatnonzero(step == value)
        order[mine] = mine[::-1]
    late = np.array([[10, 3], [20, 4]])
    mixed = np.concatenate([signal[order[:500]], late, signal[order[500:]]])
    results = []
    with Stream(bundles["events"]) as stream:
        for cuts in ([], range(1, len(mixed), 7), [500, 501, 503]):
            results.append(_seen(list(stream.feed(iter(np.split(mixed, cuts))))))
            totals = stream.totals
            assert totals.late == 2 and totals.received == totals.used + totals.late
    assert results[0] == results[1] == results[2] == _reference("events", signal)


def test_time_marks_let_time_pass(bundles: dict[str, Bundle]) -> None:
    signal = _events()
    first = signal[signal[:, 0] < 60_000]
    wanted = [row for row in _reference("events", signal) if row[0] <= 60_000]
    waiting = threading.Event()

    def source() -> Iterator[np.ndarray]:
        yield first
        yield np.array([[60_000, -1]])
        assert waiting.wait(20)

    with Stream(bundles["events"]) as stream:
        feed = stream.feed(source())
        assert _seen([next(feed) for _ in wanted]) == wanted  # before anything else comes
        waiting.set()
        assert list(feed) == []
        assert stream.totals.received == stream.totals.used == len(first)
        assert stream.totals.signal_seconds >= 0.06


def test_times_of_a_clock_are_refused_in_a_file(bundles: dict[str, Bundle]) -> None:
    """Every step since 1970 would be run."""
    signal = _events() + np.array([1_700_000_000_000_000, 0])
    with (
        Stream(bundles["events"]) as stream,
        pytest.raises(UsageError, match="the first event is at 1700000000 s"),
    ):
        list(stream.feed(signal))


def test_the_clock_of_a_live_sensor(bundles: dict[str, Bundle]) -> None:
    """It may begin anywhere, and be set: the stream begins anew there, and nothing runs through the jump."""
    signal, port, starts = _events(), _free_port(), (3_600_000_000, 5_000_000)
    shifted = [signal + np.array([start, 0]) for start in starts]
    sent = [encode_message(bundles["events"], i * len(signal), s) for i, s in enumerate(shifted)]
    _send(port, [*sent, encode_message(bundles["events"], 2 * len(signal), signal[:0])])
    with Stream(bundles["events"]) as stream:
        decisions = list(stream.feed(f"udp://127.0.0.1:{port}"))
    assert signal[0, 0] < STEP_US
    both = [_reference("events", s, start) for s, start in zip(shifted, starts, strict=True)]
    assert _seen(decisions) == both[0] + both[1]
    assert stream.totals.gaps == 1 and stream.totals.late == 0
    assert stream.totals.signal_seconds == pytest.approx(0.3, abs=0.003)


def test_memory_stays_constant(bundles: dict[str, Bundle]) -> None:
    chunk = _sound()[:50]

    def endless(count: int) -> Iterator[np.ndarray]:
        for _ in range(count):
            yield chunk.copy()

    with Stream(bundles["sound"]) as stream:
        for _ in stream.feed(endless(200)):
            pass
        tracemalloc.start()
        try:
            peaks = []
            for count in (200, 2000):
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                for _ in stream.feed(endless(count)):
                    pass
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
    assert stream.totals.used == 2000 * 50
    assert peaks[1] < peaks[0] + 20_000, peaks


# --- async ----------------------------------------------------------------------------------------


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("edgesnn")]


@pytest.mark.parametrize("kind", [*PROGRAMS, "frames"])
def test_async(kind: str, bundles: dict[str, Bundle], host_bundle: Bundle, frames: Any) -> None:
    if kind == "frames":
        bundle, signal, parts = host_bundle, frames[0], list(frames[0])
    else:
        bundle, signal = bundles[kind], SIGNALS[kind]()
        parts = np.split(signal, range(50, len(signal), 50))

    async def source() -> AsyncIterator[np.ndarray]:
        for part in parts:
            await asyncio.sleep(0)
            yield part

    async def listen(stream: Stream, given: Any) -> list[StreamDecision]:
        return [decision async for decision in stream.feed(given)]

    with Stream(bundle) as stream:
        wanted = _seen(list(stream.feed(signal)))
        assert _seen(asyncio.run(listen(stream, signal))) == wanted
        assert _seen(asyncio.run(listen(stream, source()))) == wanted
        with pytest.raises(UsageError, match="async for"):
            next(stream.feed(source()))
    assert _threads() == []


def test_async_errors_and_leaving(bundles: dict[str, Bundle]) -> None:
    signal = _motion()

    async def failing() -> AsyncIterator[np.ndarray]:
        yield signal
        raise EdgesnnError("the sensor is gone")

    async def endless() -> AsyncIterator[np.ndarray]:
        yield signal
        await asyncio.sleep(3600)

    async def all_of(stream: Stream) -> int:
        count = 0
        async for _ in stream.feed(failing()):
            count += 1
        return count

    async def left(stream: Stream) -> None:
        async with aclosing(stream.feed(endless())) as feed:
            async for _ in feed:
                break

    async def cancelled(stream: Stream) -> list[int]:
        """The task waits for a source that never speaks again; meanwhile the loop is free."""
        heard: list[int] = []

        async def listen() -> None:
            async for decision in stream.feed(endless()):
                heard.append(decision.label)

        task = asyncio.create_task(listen())
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if len(heard) == len(_reference("motion", signal)):
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        return heard

    with Stream(bundles["motion"]) as stream:
        with pytest.raises(EdgesnnError, match="the sensor is gone"):
            asyncio.run(all_of(stream))
        asyncio.run(left(stream))
        assert len(asyncio.run(cancelled(stream))) == len(_reference("motion", signal))
        assert _threads() == []
        assert _seen(list(stream.feed(signal))) == _reference("motion", signal)  # still of use


def test_closed_by_another_thread(bundles: dict[str, Bundle]) -> None:
    """While the one that listens waits for a sensor that is silent."""
    signal, silent = _sound(), threading.Event()

    def pieces() -> Iterator[np.ndarray]:
        yield signal[:1000]
        silent.set()
        time.sleep(0.3)
        yield signal[1000:2000]

    with Stream(bundles["sound"]) as stream:
        feed = stream.feed(pieces())
        found: list[StreamDecision] = []
        listener = threading.Thread(target=lambda: found.extend(feed))
        listener.start()
        assert silent.wait(10)
        time.sleep(0.1)
        feed.close()
        listener.join(10)
        assert not listener.is_alive() and _threads() == []
        assert _seen(found) == _reference("sound", signal[:1000])


@pytest.mark.parametrize("kind", ["sound", "events"])
def test_two_feeds_at_once(kind: str, bundles: dict[str, Bundle]) -> None:
    """A session has one stream: the older one says that it has ended, and gives no wrong decision."""
    signal = SIGNALS[kind]()
    with Stream(bundles[kind]) as stream:
        older, newer = (stream.feed(iter(np.array_split(signal, 50))) for _ in range(2))
        first = next(older)
        found = [next(newer)]
        with pytest.raises(UsageError, match="one source at a time"):
            list(older)
        found += newer
        assert _seen(found) == _reference(kind, signal) and _seen([first]) == _seen(found[:1])


async def _async_items(items: Iterator[np.ndarray]) -> AsyncIterator[np.ndarray]:
    for item in items:
        yield item


@pytest.mark.parametrize("live", [iter, _async_items])
def test_an_iterator_that_fills_one_buffer(live: Any, bundles: dict[str, Bundle]) -> None:
    """As a microphone does: what waits in the queue is not overwritten."""
    signal = _sound()

    def buffers() -> Iterator[np.ndarray]:
        buffer = np.empty((40, 1), np.int16)
        for at in range(0, len(signal), 40):
            buffer[:] = signal[at : at + 40]
            yield buffer

    async def heard(stream: Stream) -> list[StreamDecision]:
        return [decision async for decision in stream.feed(live(buffers()))]

    with Stream(bundles["sound"]) as stream:
        assert _seen(asyncio.run(heard(stream))) == _reference("sound", signal)


# --- recordings -----------------------------------------------------------------------------------


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets "pitches" and "bursts"."""

    def pitches(split: str, folder: Path) -> Recording:
        signal = _sound()
        labels = np.array([1, 2] * 4)
        spans, names = np.array(BURSTS), ("rest", "one", "two")
        return Recording("pitches", split, signal, len(signal), spans, labels, names, RATE)

    def bursts(split: str, folder: Path) -> Recording:
        spans, names = np.array([[0, 60_000], [90_000, 150_000]]), ("left", "up", "right")
        return Recording("bursts", split, _events(), 160_000, spans, np.array([2, 0]), names)

    monkeypatch.setitem(recordings.RECORDINGS, "pitches", pitches)
    monkeypatch.setitem(recordings.RECORDINGS, "bursts", bursts)


@pytest.mark.parametrize(("kind", "data"), [("sound", "pitches"), ("events", "bursts")])
def test_a_recording_is_scored(
    kind: str, data: str, recording: None, run: Any, bundles: dict[str, Bundle]
) -> None:
    found = run("stream", bundles[kind].path, "--data", data, "--json").json()
    wanted = _reference(kind, SIGNALS[kind]())
    assert found["decisions"] == len(wanted)
    assert found["detections"] == sum(row[-1] for row in wanted)
    assert found["intervals"] == (8 if kind == "sound" else 2)
    assert found["accuracy"] == found["right"] / found["intervals"]
    assert found["board"] is None and found["engine"] == "host"
    assert found["signal_seconds"] == (6.0 if kind == "sound" else 0.16)
    one = run("stream", bundles[kind].path, "--data", data, "--samples", 1, "--json").json()
    assert one["intervals"] == 1 and one["signal_seconds"] < found["signal_seconds"]
    text = run("stream", bundles[kind].path, "--data", data).out
    assert "accuracy" in text and "latency from the start" in text


def test_a_recording_of_fewer_classes_than_the_model_has(
    run: Any, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal, spans = _sound(), np.array(BURSTS)

    def rests(split: str, folder: Path) -> Recording:
        labels = np.zeros(8, np.int64)
        return Recording("rests", split, signal, len(signal), spans, labels, ("quiet",), RATE)

    monkeypatch.setitem(recordings.RECORDINGS, "rests", rests)
    found = run("stream", bundles["sound"].path, "--data", "rests", "--json").json()
    assert found["detections"] > 0 and found["classes"].keys() == {"quiet"}
    assert set(found["classes"]["quiet"]["wrong"]) <= {"one", "two"}
    assert found["classes"]["quiet"]["wrong"]


@pytest.mark.parametrize(("kind", "data"), [("sound", "pitches"), ("events", "bursts")])
def test_a_recording_is_verified(
    kind: str,
    data: str,
    recording: None,
    run: Any,
    bundles: dict[str, Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("verify", bundles[kind].path, "--data", data, "--stream")
    found = run(*words, "--json").json()
    count = len(_reference(kind, SIGNALS[kind]()))
    assert (found["decisions"], found["mismatches"]) == (count, 0)
    assert found["windows"] == (count if kind == "sound" else None)
    assert "mismatches" in run(*words, "--samples", 1).out
    really = Session.push

    def lossy(session: Session, chunk: np.ndarray) -> list[TimedDecision]:
        return really(session, chunk)[1:]

    monkeypatch.setattr(Session, "push", lossy)
    outcome = run(*words)
    assert outcome.code == 1
    assert "differ from the reference; first: decision 0" in outcome.err.splitlines()[-1]


def test_recordings_that_do_not_fit(
    recording: None, run: Any, bundles: dict[str, Bundle], host_bundle: Bundle
) -> None:
    for words, code, text in [
        (("stream", host_bundle.path, "--data", "pitches"), 2, "takes whole samples"),
        (("stream", bundles["events"].path, "--data", "pitches"), 2, "rows of a signal"),
        (("stream", bundles["sound"].path, "--data", "bursts"), 2, "is events"),
        (("stream", bundles["sound"].path, "--data", "digits"), 2, "no recording to stream"),
        (("stream", bundles["sound"].path, "--data", "pitches", "--samples", 9), 2, "8 intervals"),
        (("verify", bundles["sound"].path, "--stream"), 2, "--data"),
        (("verify", host_bundle.path, "--stream", "--data", "pitches"), 2, "takes whole samples"),
    ]:
        assert text in run(*words).error(code)
