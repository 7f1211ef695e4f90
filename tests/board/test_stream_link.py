"""Streams over the serial protocol: the board's side with sanitizers on a pipe, the host's on any wire."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.compare import timed_difference
from edgesnn.compiler.stream import Votes
from edgesnn.runtime import frames
from edgesnn.runtime.bundle import StreamInfo
from edgesnn.runtime.engine import Decision, TimedDecision
from edgesnn.runtime.frames import Frame, decode_frame, encode_frame
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.serial_port import LinkLost
from edgesnn.targets.errors import EdgesnnError, UsageError

# What model.c says.
HOP, REFRACTORY, CLASSES, THRESHOLD = 5, 2, 12, 60
RULE = ir.WindowStream(ir.Rows(50.0), HOP, smooth=3, votes=2, refractory=1, background=(0,))
INFO = {
    "rows": StreamInfo(
        *("window", "rows", "uint8", 28, 50.0, 28, HOP, 1, 1, 3, 2, 1, (0,), None, 800)
    ),
    "events": StreamInfo(
        *("continuous", "events", None, 1, None, None, None, None, None, None, None),
        *(REFRACTORY, (), 1000, 0),
    ),
}


def _rows() -> np.ndarray:
    """Five stretches of 48 rows that repeat with the hop: there the windows, once filled, are equal."""
    tiles = np.random.default_rng(0).integers(0, 256, (5, HOP, 28)).astype(np.uint8)
    return np.concatenate([np.tile(tile, (10, 1))[:48] for tile in tiles])


def _events() -> np.ndarray:
    """Address events of 60 ms, with a silence, some in one place and step, some at the same time."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 60_000, 700))
    times = times[(times < 20_000) | (times > 41_500)]
    return np.stack([times, rng.integers(0, 784, len(times))], axis=1)


ROWS, EVENTS = _rows(), _events()
END = 200_000


@pytest.fixture(scope="module")
def pipes(
    tmp_path_factory: pytest.TempPathFactory, stream_pipe: Callable[[Path, str], Path]
) -> dict[str, Path]:
    """link_pipe with a stream of rows and of events."""
    return {kind: stream_pipe(tmp_path_factory.mktemp(kind), kind) for kind in INFO}


def windows(reference: Callable[[np.ndarray], Any]) -> list[TimedDecision]:
    """What falls while ROWS come in, computed anew."""
    votes, out = Votes(RULE, CLASSES), []
    for last in range(28, len(ROWS) + 1, HOP):
        want = reference(ROWS[last - 28 : last])
        count = sum(map(len, want.events))
        smoothed, detected = votes.add(want.label)
        decision = Decision(
            *(want.label, want.step, want.exited, want.membranes),
            *(np.array([count, 0]), np.array([0, 12 * count])),
        )
        out.append(TimedDecision(last, decision, smoothed, detected))
    return out


def steps() -> list[TimedDecision]:
    """What falls while EVENTS come in and time goes on to END."""
    u, k = np.zeros(CLASSES, np.int64), np.arange(CLASSES)
    rest = count = sops = 0
    out = []
    for step in range(1, END // 1000 + 1):
        here = EVENTS[(EVENTS[:, 0] >= (step - 1) * 1000) & (EVENTS[:, 0] < step * 1000), 1]
        addresses = np.unique(here)
        count += len(addresses)
        if rest:
            rest -= 1
            continue
        sops += CLASSES * len(addresses)
        for a in addresses:
            u += (a * 7 + k * 13) % 17 - 8
        if u.max() >= THRESHOLD:
            label = int(u.argmax())
            counts, operations = np.array([count, 0]), np.array([0, sops])
            decision = Decision(label, step, True, u.copy(), counts, operations)
            out.append(TimedDecision(1000 * step, decision, label, True))
            u[:] = count = sops = 0
            rest = REFRACTORY
    return out


def same(want: list[TimedDecision], got: list[TimedDecision]) -> None:
    assert len(want) == len(got)
    assert [timed_difference(a, b) for a, b in zip(want, got, strict=True)] == [None] * len(want)


def talk(pipe: Path, *requests: tuple[int, bytes]) -> list[Frame]:
    """The answers to requests of rising sequence numbers, without the banner."""
    frames = (Frame(op, i % 255 + 1, p, SESSION) for i, (op, p) in enumerate(requests))
    return raw(pipe, b"".join(map(encode_frame, frames)))


SESSION = 200


def raw(pipe: Path, data: bytes) -> list[Frame]:
    """The answers, without the banner and that to a greeting."""
    data = encode_frame(Frame(frames.HELLO, 255, b"", SESSION)) + data
    done = subprocess.run([pipe], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    replies = [decode_frame(part) for part in done.stdout[:-1].split(b"\0")]
    assert all(replies)
    return [r for r in replies if r is not None][2:]


def test_the_greeting_tells_of_the_stream(pipes: dict[str, Path], link_pipe: Path) -> None:
    for pipe, streams in ((pipes["rows"], True), (pipes["events"], True), (link_pipe, False)):
        info = frames.BoardInfo.parse(talk(pipe, (frames.HELLO, b""))[0].payload)
        assert info.streams is streams and info.output_bytes == 4


def test_without_a_stream_there_are_no_such_operations(link_pipe: Path) -> None:
    for op in (frames.STREAM_RESET, frames.STREAM_PUSH, frames.STREAM_EVENTS):
        assert talk(link_pipe, (op, b""))[0].status == 4


def test_rows_on_the_wire(pipes: dict[str, Path], reference: Callable[..., Any]) -> None:
    """Portions of any size up to 240 bytes; what is behind a window waits until the next request."""
    data, want = ROWS.tobytes()[: 28 * 33], windows(reference)
    first = [(frames.STREAM_PUSH, data[at : at + 240]) for at in range(0, 784, 240)]
    first[-1] = (frames.STREAM_PUSH, data[720 : 720 + 240])
    head = talk(pipes["rows"], (frames.STREAM_RESET, b""), *first)
    assert [r.status for r in head] == [0] * 5
    assert [tuple(r.payload) for r in head[:4]] == [(), (240, 0), (240, 0), (240, 0)]
    taken, flags, label, smoothed, time, step, front, network = struct.unpack_from(
        "<BBHHQIQQ", head[4].payload
    )
    d = want[0].decision
    assert (taken, time, label, step) == (784 - 720, 28, d.label, d.step)
    assert flags & 1 and bool(flags & 2) == d.exited and bool(flags & 4) == want[0].detected
    assert smoothed == 0xFFFF and want[0].smoothed is None
    # The pipe's counter goes on by one at every reading: four pushes, begin and end of the window; its steps.
    assert (front, network) == (6, d.step)
    assert np.frombuffer(head[4].payload[34:], "<i4").tolist() == d.membranes[:7].tolist()
    second = talk(pipes["rows"], *first, (frames.STREAM_PUSH, data[784:]))[-1].payload
    taken, flags, _, _, time, _, front, _ = struct.unpack_from("<BBHHQIQQ", second)
    assert (taken, flags & 1, time, front) == (140, 1, 33, 3)


def test_events_on_the_wire(pipes: dict[str, Path]) -> None:
    packed = b"".join(struct.pack("<HH", int(t) % 1000, int(a)) for t, a in EVENTS[:3])
    later = struct.pack("<HH", 1500, 4) + struct.pack("<HH", 65535, 5)
    replies = talk(
        pipes["events"],
        (frames.STREAM_EVENTS, struct.pack("<Q", 0) + packed),
        (frames.STREAM_EVENTS, struct.pack("<Q", 1000) + later),
        (frames.STREAM_EVENTS, struct.pack("<Q", 1000) + later[4:]),
        (frames.STREAM_EVENTS, struct.pack("<Q", 66_000)),  # nothing is left to run
        (frames.STREAM_EVENTS, struct.pack("<Q", 66_000 + 64_000)),
        (frames.STREAM_EVENTS, struct.pack("<Q", 66_000 + 64_000 + 65_999)),
        (frames.STREAM_EVENTS, struct.pack("<Q", 66_000 + 64_000 + 65_999)),
        (frames.STREAM_EVENTS, struct.pack("<QHH", 2**40, 0, 1)),
    )
    assert [r.status for r in replies] == [0] * 8
    found = [tuple(r.payload) for r in replies]
    # Of the second request 64 steps were run at most: the last event waits.
    assert found == [(3, 0), (1, 8), (1, 0), (0, 0), (0, 0), (0, 8), (0, 0), (0, 8)]


@pytest.mark.parametrize(
    ("kind", "op", "payload", "status"),
    [
        ("rows", frames.STREAM_RESET, b"x", 5),
        ("rows", frames.STREAM_PUSH, b"", 5),
        ("rows", frames.STREAM_PUSH, bytes(240), 0),
        ("rows", frames.STREAM_PUSH, bytes(241), 1),  # no such frame
        ("rows", frames.STREAM_EVENTS, bytes(8), 0x15),
        ("rows", frames.STREAM_EVENTS, bytes(12), 0x15),
        ("rows", frames.DATA, struct.pack("<I", 0) + bytes(60), 0),
        ("rows", frames.DATA, struct.pack("<I", 0) + bytes(61), 5),
        ("rows", frames.STREAM_EVENTS + 1, b"", 4),
        ("rows", 0x7D, bytes(200), 4),
        ("events", frames.STREAM_PUSH, bytes(4), 0x15),
        ("events", frames.STREAM_EVENTS, bytes(7), 5),
        ("events", frames.STREAM_EVENTS, bytes(10), 5),
        ("events", frames.STREAM_EVENTS, bytes(240), 0),
        ("events", frames.STREAM_EVENTS, struct.pack("<QHH", 0, 0, 784), 0x11),
        ("events", frames.STREAM_EVENTS, b"\xff" * 8, 0),  # runs 64 steps only
        ("events", frames.EVENTS, bytes(64), 0),
        ("events", frames.EVENTS, bytes(68), 5),
    ],
)
def test_misuse_is_answered(
    pipes: dict[str, Path], kind: str, op: int, payload: bytes, status: int
) -> None:
    replies = talk(pipes[kind], (op, payload), (frames.STACK, b""))
    assert [r.status for r in replies] == [status, 0]


def test_an_event_that_is_late(pipes: dict[str, Path]) -> None:
    replies = talk(
        pipes["events"],
        (frames.STREAM_EVENTS, struct.pack("<Q", 5000)),
        (frames.STREAM_EVENTS, struct.pack("<QHH", 4999, 0, 1)),
        (frames.STREAM_RESET, b""),
        (frames.STREAM_EVENTS, struct.pack("<QHH", 4999, 0, 1)),
    )
    assert [r.status for r in replies] == [0, 0x11, 0, 0]


def test_a_repeated_request_is_taken_once(pipes: dict[str, Path]) -> None:
    data = ROWS.tobytes()
    pushes = [
        encode_frame(Frame(frames.STREAM_PUSH, i + 1, data[at : at + 240], SESSION))
        for i, at in enumerate(range(0, 784, 240))
    ]
    once = raw(pipes["rows"], b"".join(pushes))
    twice = raw(pipes["rows"], b"".join(p + b"\x01\x02\0" + 2 * p for p in pushes))
    assert [r for r in twice if r.op != frames.UNREADABLE][::3] == once
    assert once[-1].payload[0] == 64 and once[-1].payload[1] & 1


def test_noise_never_hangs_or_breaks_it(pipes: dict[str, Path]) -> None:
    rng = random.Random(3)
    for kind, pipe in pipes.items():
        data = bytearray()
        for i in range(1500):
            size = rng.choice((0, 8, 12, 64, 236, 240, rng.randrange(244)))
            op = rng.choice((frames.STREAM_PUSH, frames.STREAM_EVENTS, rng.randrange(17)))
            payload = bytes(8) + bytes(rng.randrange(4) for _ in range(size - 8))
            good = Frame(op, rng.randrange(256), payload[:size], SESSION)
            piece = bytearray(encode_frame(good) if i % 4 else rng.randbytes(rng.randrange(300)))
            if piece and rng.randrange(4) == 0:
                piece[rng.randrange(len(piece))] = rng.choice((0, 1, 255, rng.randrange(256)))
            data += piece
        replies = raw(
            pipe, bytes(data) + b"\0" + encode_frame(Frame(frames.HELLO, 200, b"", SESSION))
        )
        assert replies[-1].sequence == 200 and replies[-1].op == frames.HELLO | frames.RESPONSE
        assert {r.status for r in replies} >= {0, 1, 4, 5}, kind


Spoil = Callable[[bytes], bytes]


@pytest.fixture
def board() -> Iterator[Callable[..., str]]:
    """board(pipe, down, up) -> URL of link_pipe, with what down and up make of the bytes in between."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(server: socket.socket, pipe: Path, down: Spoil, up: Spoil) -> None:
        with contextlib.suppress(OSError):
            wire, _ = server.accept()
            with wire, subprocess.Popen([pipe], stdin=-1, stdout=-1, bufsize=0) as process:
                assert process.stdin is not None and process.stdout is not None
                while True:
                    ready, _, _ = select.select([wire, process.stdout], [], [])
                    if wire in ready:
                        data = wire.recv(4096)
                        if not data:
                            process.kill()
                            return
                        process.stdin.write(down(data))
                    if process.stdout in ready:
                        wire.sendall(up(process.stdout.read(4096)))

    def start(pipe: Path, down: Spoil = bytes, up: Spoil = bytes) -> str:
        servers.append(socket.create_server(("127.0.0.1", 0)))
        threads.append(threading.Thread(target=serve, args=(servers[-1], pipe, down, up)))
        threads[-1].start()
        return f"socket://127.0.0.1:{servers[-1].getsockname()[1]}"

    yield start
    for server in servers:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def engine(
    board: Callable[..., str], pipes: dict[str, Path], hand_model: Any
) -> Iterator[Callable[..., LinkEngine]]:
    """engine(kind, down, up, timeout=...) -> LinkEngine of a hand-written model with a stream."""
    with contextlib.ExitStack() as stack:

        def start(
            kind: str, down: Spoil = bytes, up: Spoil = bytes, timeout: float = 5
        ) -> LinkEngine:
            model = hand_model("events" if kind == "events" else "samples", stream=INFO[kind])
            url = board(pipes[kind], down, up)
            return stack.enter_context(LinkEngine(model, url, timeout=timeout))

        yield start


def stream(engine: LinkEngine, kind: str, chunks: int) -> list[TimedDecision]:
    """The whole signal, cut into about so many chunks, some of them empty."""
    signal = ROWS if kind == "rows" else EVENTS
    at = np.sort(np.random.default_rng(chunks).integers(0, len(signal) + 1, chunks - 1))
    out = [d for chunk in np.split(signal, at) for d in engine.push(chunk)]
    return out + (engine.advance(END) if kind == "events" else [])


@pytest.fixture
def wanted(reference: Callable[..., Any]) -> dict[str, list[TimedDecision]]:
    return {"rows": windows(reference), "events": steps()}


@pytest.mark.parametrize("kind", INFO)
@pytest.mark.parametrize("chunks", [1, 7, 400])
def test_any_cut_into_chunks(
    engine: Callable[..., LinkEngine],
    wanted: dict[str, list[TimedDecision]],
    kind: str,
    chunks: int,
) -> None:
    board = engine(kind)
    for _ in range(2):
        got = stream(board, kind, chunks)
        same(wanted[kind], got)
        board.start_stream()
    assert board.resent <= 2  # a machine under load
    assert len({d.decision.label for d in got}) > 2 and {d.detected for d in got} >= {True}
    ticks = [(d.front_ticks, d.decision.ticks) for d in got]
    assert all(front is not None and network is not None for front, network in ticks)
    if kind == "rows":
        assert [d.decision.ticks for d in got] == [d.decision.step for d in got]
        assert {d.smoothed is None for d in got} == {True, False}
    else:  # one reading of the counter for each step
        steps_since = np.diff([0, *(d.decision.step for d in got)])
        assert [d.decision.ticks for d in got] == steps_since.tolist()


@pytest.mark.parametrize("kind", INFO)
def test_a_bad_wire_loses_and_doubles_nothing(
    engine: Callable[..., LinkEngine],
    wanted: dict[str, list[TimedDecision]],
    bad_wire: Callable[[int, int], Any],
    kind: str,
) -> None:
    """A byte in 400 is lost or altered, both ways."""
    spoil = bad_wire(5, 400)
    board = engine(kind, spoil, spoil, timeout=0.5)
    same(wanted[kind], stream(board, kind, 9))
    assert spoil.harm > 10 and board.resent > 5


@pytest.mark.parametrize("kind", INFO)
def test_lost_answers_are_told_again(
    engine: Callable[..., LinkEngine], wanted: dict[str, list[TimedDecision]], kind: str
) -> None:
    """Every fifth answer is lost, of what is left every fourth comes twice."""
    held, count = bytearray(), 0

    def up(data: bytes) -> bytes:
        nonlocal count
        held.extend(data)
        *frames, rest = bytes(held).split(b"\0")
        held[:] = rest
        out = b""
        for frame in frames:
            count += 1
            out += b"" if count % 5 == 3 else (frame + b"\0") * (2 if count % 4 == 0 else 1)
        return out

    board = engine(kind, up=up, timeout=0.1)
    same(wanted[kind], stream(board, kind, 9))
    assert board.resent > 5


def test_misuse_of_a_stream_of_rows(
    engine: Callable[..., LinkEngine], wanted: dict[str, list[TimedDecision]]
) -> None:
    board = engine("rows")
    got = board.push(ROWS[:50])
    for wrong in (ROWS[:, :27], ROWS[0], ROWS.astype(float), EVENTS):
        with pytest.raises(UsageError, match="the stream takes uint8"):
            board.push(wrong)
    with pytest.raises(UsageError, match="only a stream of events goes on by time"):
        board.advance(10)
    board.infer(ROWS[:28])  # the window under way has its own memory
    board.trace(ROWS[:28])
    same(wanted["rows"], got + board.push(ROWS[50:]))


def test_misuse_of_a_stream_of_events(
    engine: Callable[..., LinkEngine], wanted: dict[str, list[TimedDecision]]
) -> None:
    board = engine("events")
    got = board.push(EVENTS[:300])
    latest = int(EVENTS[299, 0])
    for wrong, message in (
        (EVENTS[:, 0], "takes events"),
        (EVENTS[:1], "is late"),
        (np.array([[latest + 9, 1], [latest + 8, 1]]), "descend"),
        (np.array([[latest + 9, 784]]), "outside 0...783"),
        (np.array([[latest + 9, -1]]), "outside 0...783"),
    ):
        with pytest.raises(UsageError, match=message):
            board.push(wrong)
    assert board.advance(latest) == board.advance(0) == board.advance(-5) == []
    same(wanted["events"], got + board.push(EVENTS[300:]) + board.advance(END))
    with pytest.raises(UsageError, match=r"at \d+ us is late"):
        board.push(np.array([[END - 1, 3]]))
    board.infer(np.zeros((4, 28, 28, 1), np.uint8))
    with pytest.raises(UsageError, match=r"has ended the stream; begin another"):
        board.advance(END + 5000)
    board.start_stream()
    same(wanted["events"], stream(board, "events", 2))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LinkLost("no answer; check"), OSError("x")])
@pytest.mark.parametrize("kind", INFO)
def test_a_stream_does_not_outlive_an_unfinished_push(
    engine: Callable[..., LinkEngine],
    wanted: dict[str, list[TimedDecision]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    error: BaseException,
) -> None:
    """The board has taken what the host does not know of."""
    board = engine(kind)
    signal = ROWS if kind == "rows" else EVENTS
    board.push(signal[:20])
    with monkeypatch.context() as patch:
        exchange = board._exchange

        def torn(*request: Any) -> bytes:
            exchange(*request)
            raise error

        patch.setattr(board, "_exchange", torn)
        with pytest.raises(type(error)):
            board.push(signal[20:40])
    for _ in range(2):
        with pytest.raises(EdgesnnError, match=r"\w: the stream has ended after \d+ ") as e:
            board.push(signal[40:])
        assert isinstance(e.value, LinkLost) == isinstance(error, LinkLost)
    board.start_stream()
    same(wanted[kind], stream(board, kind, 5))


def test_a_time_that_is_none(engine: Callable[..., LinkEngine]) -> None:
    board = engine("events")
    for until in (2**63, 2**70, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=r"is no time: give microseconds below 2\^63"):
            board.advance(until)  # type: ignore[arg-type]
    assert board.advance(-(2**62)) == []


def test_a_model_without_a_stream(
    board: Callable[..., str], link_pipe: Path, pipes: dict[str, Path], hand_model: Any
) -> None:
    with (
        LinkEngine(hand_model(), board(link_pipe)) as engine,
        pytest.raises(UsageError, match="has no stream"),
    ):
        engine.push(ROWS)
    # A bundle with one, and a board with older firmware.
    with (
        LinkEngine(hand_model(stream=INFO["rows"]), board(link_pipe)) as engine,
        pytest.raises(EdgesnnError, match="takes no signal"),
    ):
        engine.push(ROWS)


@pytest.mark.parametrize(
    ("kind", "reply", "message"),
    [
        ("rows", b"", "0 bytes where 2 are due"),
        ("rows", b"\x00\x00", "0 of 28 taken"),
        ("rows", b"\x1b\x00", "27 of 28 taken"),
        ("rows", b"\x1d\x00", "29 of 28 taken"),
        ("rows", b"\x00\x08", "no byte of a signal taken"),
        ("rows", b"\x1c\x01", "2 bytes where 34 are due"),
        ("rows", struct.pack("<BBHHQIQQ", 28, 1, 12, 0, 28, 1, 0, 0), "class 12"),
        ("rows", struct.pack("<BBHHQIQQ", 28, 1, 1, 12, 28, 1, 0, 0), "class 12"),
        ("rows", struct.pack("<BBHHQIQQ", 28, 1, 1, 1, 28, 5, 0, 0), "step 5"),
        ("events", struct.pack("<BBHHQIQQ", 1, 1, 1, 1, 2000, 1, 0, 0), "step 1 at 2000 us"),
        ("events", b"\x02\x00", "2 of 1 taken"),
        ("events", b"\x00\x08", "more steps than time has passed"),
        ("silence", b"\x00\x08", "more steps than time has passed"),
    ],
)
def test_an_answer_that_makes_no_sense_is_named(
    engine: Callable[..., LinkEngine], kind: str, reply: bytes, message: str
) -> None:
    def up(data: bytes) -> bytes:
        out = b""
        for part in data.split(b"\0")[:-1]:
            frame = decode_frame(part)
            assert frame is not None
            if frame.op in (
                frames.STREAM_PUSH | frames.RESPONSE,
                frames.STREAM_EVENTS | frames.RESPONSE,
            ):
                frame = Frame(frame.op, frame.sequence, reply)
            out += encode_frame(frame)
        return out

    board = engine("rows" if kind == "rows" else "events", up=up)
    with pytest.raises(EdgesnnError) as e:
        if kind == "silence":
            board.advance(END)
        board.push(ROWS[:1] if kind == "rows" else EVENTS[:1])
    text = str(e.value)
    assert "does not fit the bundle (" in text and message in text and "\n" not in text


def test_silence_takes_few_requests(engine: Callable[..., LinkEngine]) -> None:
    """Steps without an event are run 64 to a request, not sent one by one."""
    asked = 0

    def down(data: bytes) -> bytes:
        nonlocal asked
        asked += data.count(b"\0")
        return data

    board = engine("events", down)
    board.start_stream()
    before = asked
    assert board.advance(3_000_500) == board.push(np.array([[3_000_100, 5], [5_000_000, 6]])) == []
    assert asked - before <= 5000 // 64 + 4
    with pytest.raises(UsageError, match="is late"):
        board.push(np.array([[4_999_999, 5]]))
