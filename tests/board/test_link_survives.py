"""A link that survives: noise, resets in mid-run, a port that vanishes, two programs, a firmware that hangs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime import frames, link, serial_port
from edgesnn.runtime.bundle import StreamInfo
from edgesnn.runtime.frames import Frame, decode_frame, encode_frame
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.serial_port import LinkLost
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError

HERE = Path(__file__).parent
Reference = Callable[[np.ndarray], Any]
SAMPLES = np.random.default_rng(9).integers(0, 256, (60, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def endurance() -> ModuleType:
    """scripts/link_endurance.py: a bad wire, and a port with a board behind it that is killed."""
    path = Path(__file__).parents[2] / "scripts" / "link_endurance.py"
    spec = importlib.util.spec_from_file_location("link_endurance", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def piped(program: Path) -> Iterator[tuple[socket.socket, int]]:
    """link_pipe as a board: its line and its process."""
    line, end = socket.socketpair()
    with line, subprocess.Popen([program], stdin=end, stdout=end) as process:
        end.close()
        try:
            yield line, process.pid
        finally:
            process.kill()


@pytest.fixture
def relay(endurance: ModuleType, link_pipe: Path) -> Iterator[Callable[..., Any]]:
    """relay(wire, program=link_pipe) -> a port with link_pipe behind it."""
    with contextlib.ExitStack() as stack:

        def start(wire: Callable[[bytes], bytes] = bytes, program: Path = link_pipe) -> Any:
            return stack.enter_context(endurance.Relay(partial(piped, program), wire))

        yield start


def check(got: list[Any], samples: np.ndarray, reference: Reference) -> None:
    """Every sample is answered once, and as it should be."""
    assert len(got) == len(samples)
    for decision, sample in zip(got, samples, strict=True):
        want = reference(sample)
        assert (decision.label, decision.step) == (want.label, want.step)
        assert decision.membranes.tolist() == want.membranes.tolist()
        count = sum(map(len, want.events))
        assert decision.events.tolist() == [count, 0] and decision.sops.tolist() == [0, 12 * count]


@pytest.mark.parametrize("harm", ["corrupt", "drop", "double", "all"])
def test_one_byte_in_a_hundred(
    relay: Callable[..., Any],
    endurance: ModuleType,
    hand_model: Any,
    reference: Reference,
    harm: str,
) -> None:
    shares = dict.fromkeys(["corrupt", "drop", "double"], 0.004) if harm == "all" else {harm: 0.01}
    wire = endurance.Wire(**shares, seed=3)
    samples = SAMPLES[:20]
    start = time.monotonic()
    with LinkEngine(hand_model(), relay(wire).url) as engine:
        check([engine.infer(sample) for sample in samples], samples, reference)
    assert wire.harm > 300 and engine.resent > 200 and engine.restarts == engine.reconnects == 0
    assert (time.monotonic() - start) / engine.resent < 0.2  # not 2 s for each


def test_twenty_resets_on_a_bad_wire(
    relay: Callable[..., Any], endurance: ModuleType, hand_model: Any, reference: Reference
) -> None:
    """Every other time the port closes too."""
    lines: list[str] = []
    port = relay(endurance.Wire(corrupt=0.002))
    with LinkEngine(hand_model(), port.url, say=lines.append) as engine:
        got = endurance.run(engine, port, SAMPLES, kills=20)
    check(got, SAMPLES, reference)
    # Two that fall between two requests are one to the host; one while it greets is another.
    assert port.kills == 20 and 5 <= engine.restarts <= 25 and 3 <= engine.reconnects <= 10
    assert len(lines) == engine.restarts + 2 * engine.reconnects
    assert all("\n" not in line for line in lines)
    assert {line.partition("socket:")[0] for line in lines} >= {"the board on ", "port "}


@pytest.mark.usefixtures("emulator_program")
def test_an_emulated_board_that_is_killed_on_a_bad_wire(
    endurance: ModuleType,
    board: Board,
    firmware: Callable[..., Path],
    hand_model: Any,
    reference: Reference,
) -> None:
    wire = endurance.Wire(corrupt=0.01)
    with (
        endurance.Relay(partial(endurance.emulated, board, firmware()), wire) as port,
        LinkEngine(hand_model(), port.url) as engine,
    ):
        got = endurance.run(engine, port, SAMPLES[:12], kills=4)
        trace = engine.trace(SAMPLES[12])
    check([*got, trace.decision], SAMPLES[:13], reference)
    assert port.kills == 4 and engine.restarts >= 2 and engine.reconnects >= 1


def test_a_reset_between_samples_and_within(
    relay: Callable[..., Any], hand_model: Any, reference: Reference
) -> None:
    lines: list[str] = []
    port = relay()
    with LinkEngine(hand_model(), port.url, say=lines.append) as engine:
        got = [engine.infer(SAMPLES[0])]
        port.kill()
        got.append(engine.trace(SAMPLES[1]).decision)
        assert (engine.restarts, engine.reconnects) == (1, 0)
        port.kill()
        assert engine.stack_high_water() == 123
        got.append(engine.profile(SAMPLES[2]))
        port.kill(unplug=True)
        got.append(engine.infer(SAMPLES[3]))
    check(got, SAMPLES[:4], reference)
    assert (engine.restarts, engine.reconnects) == (3, 1)
    assert lines[:2] == 2 * [f"the board on {port.url} was reset; what was under way is run again"]
    assert lines[3:] == [
        f"port {port.url} is gone; waiting 30 s for it to come back",
        f"port {port.url} is back",
    ]


def test_a_board_that_never_gets_through_a_sample(hand_model: Any, link_pipe: Path) -> None:
    """It is reset at each INFER."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=resets_at, args=(server, link_pipe, frames.INFER))
        thread.start()
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        lines: list[str] = []
        with LinkEngine(hand_model(), url, say=lines.append) as engine:
            with pytest.raises(LinkLost, match=r"was reset: 4 times in one sample; check") as e:
                engine.infer(SAMPLES[0])
            assert "\n" not in str(e.value) and len(lines) == engine.restarts == 3
            assert engine.stack_high_water() == 123  # what works goes on working
    thread.join(30)


def resets_at(server: socket.socket, program: Path, op: int) -> None:
    host, _ = server.accept()
    with host:
        while True:
            with piped(program) as (board, _):
                alive = True
                while alive:
                    board.settimeout(0.02)
                    with contextlib.suppress(TimeoutError):
                        host.sendall(board.recv(4096))
                    host.settimeout(0.02)
                    with contextlib.suppress(TimeoutError):
                        data = host.recv(4096)
                        if not data:
                            return
                        frames = [decode_frame(part) for part in data.split(b"\0") if part]
                        alive = all(frame is None or frame.op != op for frame in frames)
                        board.sendall(data)


def test_a_port_that_does_not_come_back(link_pipe: Path, hand_model: Any) -> None:
    with Serial(link_pipe) as port:
        lines: list[str] = []
        engine = LinkEngine(hand_model(), port.url, reconnect=0.5, say=lines.append)
        port.unplug()
        with pytest.raises(
            LinkLost, match=r"has not come back within 0\.5 s \(no port .*plug"
        ) as e:
            engine.infer(SAMPLES[0])
        assert "\n" not in str(e.value) and len(lines) == 2
        engine.close()
        with pytest.raises(EdgesnnError, match="the link is closed"):
            engine.infer(SAMPLES[0])
        port.plug()
        with LinkEngine(hand_model(), port.url, reconnect=0) as engine:
            port.unplug()
            with pytest.raises(LinkLost, match=r"check cable and board|closed the link"):
                engine.infer(SAMPLES[0])


class Serial:
    """link_pipe on a pseudo terminal under a name that stays, as a USB port's."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._folder = contextlib.ExitStack()
        self._open: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Serial:
        import tempfile

        self.url = self._folder.enter_context(tempfile.TemporaryDirectory()) + "/ttyBOARD"
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        self._folder.close()

    def plug(self) -> None:
        main, side = os.openpty()
        tty.setraw(side)  # or the terminal would echo the banner
        self._process = subprocess.Popen([self._program], stdin=main, stdout=main)
        os.symlink(os.ttyname(side), self.url)
        self._open = [main, side]

    def unplug(self) -> None:
        if self._process is None:
            return
        os.unlink(self.url)
        self._process.kill()
        self._process.wait()
        self._process = None
        for fd in self._open:
            os.close(fd)


def test_a_port_that_is_unplugged_and_plugged_in(
    link_pipe: Path, hand_model: Any, reference: Reference
) -> None:
    lines: list[str] = []
    with (
        Serial(link_pipe) as port,
        LinkEngine(hand_model(), port.url, say=lines.append) as engine,
    ):
        got = []
        for i, sample in enumerate(SAMPLES[:6]):
            if i % 2:
                port.unplug()
                again = threading.Timer(0.3, port.plug)
                again.start()
            got.append(engine.infer(sample))
    check(got, SAMPLES[:6], reference)
    assert engine.restarts == engine.reconnects == 3 and len(lines) == 9
    assert lines[-1] == f"port {port.url} is back"


def test_another_board_is_plugged_in(
    relay: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    stream_pipe: Callable[[Path, str], Path],
    hand_model: Any,
) -> None:
    """Who comes back is asked for its model again."""
    other = stream_pipe(tmp_path_factory.mktemp("other"), "events")
    programs = iter([other])
    port = relay()
    with LinkEngine(hand_model(), port.url) as engine:
        engine.infer(SAMPLES[0])
        port._start = lambda: piped(next(programs, other))
        info = engine.info
        port.kill(unplug=True)
        with pytest.raises(EdgesnnError, match=r"wrong kind of input"):
            engine.infer(SAMPLES[0])  # the test's models all bear one id
        assert engine.info.streams and not info.streams


def test_two_programs_on_a_serial_port(link_pipe: Path, hand_model: Any) -> None:
    """The second is refused, and the first notices nothing."""
    with Serial(link_pipe) as port, LinkEngine(hand_model(), port.url) as engine:
        with pytest.raises(EdgesnnError, match="in use by another program; close that one first"):
            LinkEngine(hand_model(), port.url)
        engine.infer(SAMPLES[0])
        assert engine.resent == 0


def test_two_programs_on_a_shared_wire(
    link_pipe: Path, hand_model: Any, reference: Reference
) -> None:
    """All hear every answer; who greeted last goes on, the other is told."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        piped(link_pipe) as (board, _),
        contextlib.ExitStack() as stack,
    ):
        stop = threading.Event()
        thread = threading.Thread(target=shared, args=(server, board, stop))
        stack.callback(thread.join, 30)
        stack.callback(stop.set)
        thread.start()
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        with LinkEngine(hand_model(), url) as first, LinkEngine(hand_model(), url) as second:
            with pytest.raises(EdgesnnError, match=r"another program uses the board on socket"):
                first.stack_high_water()
            check([second.infer(s) for s in SAMPLES[:3]], SAMPLES[:3], reference)
            # Who goes on all the same takes the board over.
            check([first.infer(SAMPLES[0])], SAMPLES[:1], reference)
            with pytest.raises(
                EdgesnnError, match=r"another program .*; close that one first"
            ) as e:
                second.infer(SAMPLES[0])
            assert "\n" not in str(e.value)


def shared(server: socket.socket, board: socket.socket, stop: threading.Event) -> None:
    """What each host says goes to the board, what it says to all of them."""
    hosts: list[socket.socket] = []
    while not stop.is_set():
        ready, _, _ = select.select([server, board, *hosts], [], [], 0.1)
        for end in ready:
            if end is server:
                hosts.append(server.accept()[0])
            elif end is board:
                data = board.recv(4096)
                for host in hosts:
                    host.sendall(data)
            elif data := end.recv(4096):
                board.sendall(data)
            else:
                hosts.remove(end)
                end.close()


ROWS = StreamInfo(*("window", "rows", "uint8", 28, 50.0, 28, 5, 1, 1, 3, 2, 1, (0,), None, 800))
EVENTS = StreamInfo(
    *("continuous", "events", None, 1, None, None, None, None, None, None, None), 2, (), 1000, 0
)


@pytest.mark.parametrize("unplug", [False, True])
@pytest.mark.parametrize("kind", ["rows", "events"])
def test_a_stream_ends_where_it_was_lost(
    relay: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    stream_pipe: Callable[[Path, str], Path],
    hand_model: Any,
    kind: str,
    unplug: bool,
) -> None:
    rows = kind == "rows"
    model = hand_model(stream=ROWS) if rows else hand_model("events", stream=EVENTS)
    port = relay(program=stream_pipe(tmp_path_factory.mktemp(kind), kind))
    signal = np.random.default_rng(0).integers(0, 256, (60, 28), dtype=np.uint8)
    times = np.arange(0, 60_000, 100)
    events = np.stack([times, times % 784], axis=1)
    chunks = np.array_split(signal if rows else events, 6)
    with LinkEngine(model, port.url) as engine:
        want = [engine.push(chunk) for chunk in chunks]
        engine.start_stream()
        got = [engine.push(chunk) for chunk in chunks[:3]]
        port.kill(unplug)
        where = r"30 rows \(0\.6 s\)" if rows else r"29900 us \(0\.0299 s\)"
        for _ in range(2):
            with pytest.raises(
                EdgesnnError, match=rf": the stream has ended after {where}; begin another"
            ) as e:
                engine.push(chunks[3])
            assert "\n" not in str(e.value) and isinstance(e.value, LinkLost) == unplug
        if not rows:
            with pytest.raises(EdgesnnError, match="has ended after"):
                engine.advance(70_000)
        engine.start_stream()
        again = [engine.push(chunk) for chunk in chunks]
        assert [[d.time for d in part] for part in again] == [[d.time for d in w] for w in want]
        assert [[d.time for d in part] for part in got] == [[d.time for d in w] for w in want[:3]]
        if not rows:
            engine.advance(80_000)
            port.kill(unplug)
            with pytest.raises(EdgesnnError, match=r"ended after 80000 us"):
                engine.advance(90_000)
        assert engine.restarts == 0 and engine.reconnects == (0 if not unplug else 1)


def test_a_board_that_was_reset_unseen_has_no_stream(
    relay: Callable[..., Any],
    tmp_path: Path,
    stream_pipe: Callable[[Path, str], Path],
    hand_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    reference: Reference,
) -> None:
    """After a sample in between that was not answered."""

    def silent(*_: object) -> bytes:
        raise LinkLost("no answer")

    port = relay(program=stream_pipe(tmp_path, "rows"))
    with LinkEngine(hand_model(stream=ROWS), port.url) as engine:
        engine.push(SAMPLES[0][..., 0])
        for reset in (False, True):
            with monkeypatch.context() as patch, pytest.raises(LinkLost):
                patch.setattr(engine, "_exchange", silent)
                engine.infer(SAMPLES[0])
            if reset:
                port.kill()
            check([engine.infer(SAMPLES[1])], SAMPLES[1:2], reference)
            if not reset:
                assert len(engine.push(SAMPLES[0][:5, :, 0])) == 1
        with pytest.raises(EdgesnnError, match="or served another program: the stream has ended"):
            engine.push(SAMPLES[0][..., 0])


def test_more_kills_than_samples(
    endurance: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["link_endurance.py", "--samples", "3", "--kills", "4"])
    with pytest.raises(SystemExit, match="2"):
        endurance.main()
    assert "--kills" in capsys.readouterr().err


def test_lost_answers_cost_little(
    relay: Callable[..., Any], hand_model: Any, reference: Reference
) -> None:
    """With the usual timeout of 10 s, every third answer to DATA being lost."""
    dice = random.Random(1)

    def up(data: bytes) -> bytes:
        return b"" if data[3:4] == b"\x83" and dice.randrange(3) == 0 else data

    start = time.monotonic()
    with LinkEngine(hand_model(), relay(up).url) as engine:
        check([engine.infer(sample) for sample in SAMPLES[:6]], SAMPLES[:6], reference)
    assert engine.resent > 20 and (time.monotonic() - start) / engine.resent < 0.25


def test_a_board_that_only_complains(hand_model: Any) -> None:
    """Sound frames keep the link alive, but not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            wire, _ = server.accept()
            complaint = encode_frame(Frame(frames.UNREADABLE, 0, b"", 2))
            with wire, contextlib.suppress(ConnectionError):
                while wire.recv(4096):
                    wire.sendall(complaint)

        thread = threading.Thread(target=talk)
        thread.start()
        start = time.monotonic()
        with pytest.raises(LinkLost, match=r"no readable answer .*damaged frames"):
            LinkEngine(hand_model(), f"socket://127.0.0.1:{server.getsockname()[1]}", timeout=0.4)
        assert 1.0 < time.monotonic() - start < 10
        thread.join(30)


def test_how_long_to_wait() -> None:
    pace = link._Pace(first=0.25, margin=0.05, most=2.0, fade=0.9)
    waits = []
    for _ in range(5):
        waits.append(pace.wait)
        pace.silent()
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0]
    pace.saw(0.1)
    assert pace.wait == pytest.approx(0.25)  # what was measured counts again
    for _ in range(500):
        pace.saw(0.001)
    assert pace.wait == pytest.approx(0.052, abs=0.001) and pace.mean == pytest.approx(0.001)
    pace.saw(10.0)
    assert pace.wait == 2.0
    assert link._Pace(first=0.25, margin=0.05, most=0.1, fade=0.9).wait == 0.1


pytest_emulated = pytest.mark.usefixtures("emulator_program")


@pytest_emulated
def test_a_crash_says_where(board: Board, firmware: Callable[..., Path], hand_model: Any) -> None:
    elf = firmware("-DTEST_CRASH")
    message = (
        r"has crashed in decide \(pc=0x[0-9a-f]{8} decide lr=0x[0-9a-f]{8} xpsr=0x[0-9a-f]{5}003 "
    )
    with (
        Emulator(board, elf) as emulator,
        LinkEngine(hand_model(firmware=elf), emulator.url, watch=emulator.check) as engine,
    ):
        for _ in range(2):
            with pytest.raises(EdgesnnError, match=message):
                engine.infer(SAMPLES[0])


@pytest_emulated
def test_a_firmware_that_hangs_is_reset_by_its_watchdog(
    board: Board, firmware: Callable[..., Path], hand_model: Any, reference: Reference
) -> None:
    """It hangs in each fourth inference since boot, in the model."""
    elf = firmware("-DTEST_HANG=4u", "-DBSP_WATCHDOG_MS=20u")
    lines: list[str] = []
    with (
        Emulator(board, elf) as emulator,
        LinkEngine(
            hand_model(firmware=elf), emulator.url, watch=emulator.check, say=lines.append
        ) as engine,
    ):
        check([engine.infer(sample) for sample in SAMPLES[:14]], SAMPLES[:14], reference)
    assert engine.restarts == len(lines) == 4  # in 4, 7, 10, 13: three go well after each reset
    assert all(line.startswith("the firmware hangs in decide (pc=0x") for line in lines)
    assert all("its watchdog resets the board; what was under way" in line for line in lines)


@pytest_emulated
def test_a_crash_with_a_watchdog_is_over_with_the_reset(
    board: Board, firmware: Callable[..., Path], hand_model: Any
) -> None:
    elf = firmware("-DTEST_CRASH", "-DBSP_WATCHDOG_MS=20u")
    with Emulator(board, elf) as emulator, LinkEngine(hand_model(), emulator.url) as engine:
        for _ in range(2):
            with pytest.raises(EdgesnnError, match=r"has crashed"):
                engine.infer(SAMPLES[0])
            assert engine.stack_high_water() > 0


@pytest_emulated
def test_a_crash_before_the_watchdog_is_started_is_over_with_the_reset_too(
    board: Board, firmware: Callable[..., Path]
) -> None:
    elf = firmware("-DTEST_CRASH_EARLY", "-DBSP_WATCHDOG_MS=20u")
    with Emulator(board, elf) as emulator:
        port = serial_port.SerialPort(emulator.url, board.uart.baud)
        told: list[bytes] = []
        while not told or told.count(told[0]) < 2:  # the watchdog is told of in between
            data = port.read_frame(time.monotonic() + 5)
            assert data is not None, told
            if data.strip(b"\0"):
                told.append(data)
        port.close()
    assert decode_frame(told[0]).op == frames.FAULT


def test_watchdogs_that_cannot_be(tmp_path: Path) -> None:
    from edgesnn.compiler.build import compile_program
    from edgesnn.compiler.random_program import random_program

    program = random_program(1)
    for options, message in (
        ({"board": "riscv-virt"}, "there is no watchdog for board riscv-virt; leave out"),
        ({"target": "cortex-m4"}, "--watchdog is firmware's; name a --board"),
    ):
        with pytest.raises(UsageError, match=message):
            compile_program(program, out=tmp_path / "b", watchdog=100, **options)  # type: ignore[arg-type]
    for time_ms in (9, 60_001, 0, -1):
        with pytest.raises(UsageError, match=rf"--watchdog {time_ms} is not in 10\.\.\.60000"):
            compile_program(program, board="mps2-an386", out=tmp_path / "b", watchdog=time_ms)
    assert not (tmp_path / "b").exists()


def test_a_watchdog_that_would_bite_within_a_step(tmp_path: Path) -> None:
    """As the cost model knows it, where it does; QEMU's instructions take what the counter says."""
    pytest.importorskip("tvm")
    from edgesnn.compiler.build import _Build

    def said(board: str, time_ms: int, protocol: str, step: dict[str, int]) -> str:
        on = load_board(board)
        found = None
        if step:
            found = SimpleNamespace(step=step, worst_step=sum(step.values()))
        build = SimpleNamespace(instructions=found, protocol=protocol)
        try:
            _Build._check_kicks(build, on, time_ms)  # type: ignore[arg-type]
        except UsageError as e:
            return str(e)
        return ""

    step = {"conv": 1_000_000, "dense": 482_481}
    want = "a step can take 93 ms and more; --watchdog 200 or longer"
    assert said("microbit-v1", 10, "edgesnn", step) == want
    assert said("microbit-v1", 93, "edgesnn", step) == ""
    assert "a layer can take 63 ms" in said("microbit-v1", 62, "mlperf-tiny", step)
    assert said("microbit-v1", 63, "mlperf-tiny", step) == ""
    assert said("microbit-v1", 10, "edgesnn", {}) == ""
    assert said("mps2-an386", 10, "edgesnn", step) == ""  # 1.5 ms of QEMU's
    slow = {"conv": 70_000 * 16_000}
    want = (
        "a step can take 70,000 ms and more, board microbit-v1's watchdog waits 60,000 ms at most"
    )
    assert want in said("microbit-v1", 60_000, "edgesnn", slow)
    slow = {"conv": 50_000 * 16_000}
    assert "--watchdog 60000 or longer" in said("microbit-v1", 10, "edgesnn", slow)


# The registers that are written, in order, for 1000 ms, and at last the kick; kHz of a tick at its fastest.
WATCHDOGS = {
    "mps2-an386": (
        [(0x40008C00, 0x1ACCE551), (0x40008000, 25_000_000), (0x40008008, 3), (0x4000800C, 1)],
        (0x40008000, 25_000),
    ),
    "nucleo-f446re": (
        [
            *[(0x40003000, 0xCCCC), (0x40003000, 0x5555), (0x40003004, 6), (0x40003008, 235)],
            *[(0x4000300C, 0), (0x40003000, 0xAAAA), (0x40003000, 0xAAAA)],
        ],
        (0x40003008, 60 / 256),
    ),
    "nrf52840-dk": (
        [
            *[(0x4001050C, 1), (0x40010504, 35_000), (0x40010508, 1), (0x40010000, 1)],
            (0x40010600, 0x6E524635),
        ],
        (0x40010504, 32.768),
    ),
    "pico": (
        [
            *[(0x4005802C, 1 << 9 | 12), (0x40010008, 0x1FFFC), (0x40058004, 2_000_000)],
            *[(0x40058000, 1 << 30 | 7 << 24), (0x40058004, 2_000_000)],
        ],
        (0x40058004, 2000),
    ),
}


@pytest.mark.parametrize("name", WATCHDOGS)
def test_what_a_watchdog_is_told(name: str, tmp_path: Path) -> None:
    """As the manuals have it: nothing of these chips is emulated but the MPS2's."""
    cc = shutil.which("gcc")
    if cc is None:
        pytest.skip("no C compiler on PATH")
    board = load_board(name)
    assert board.watchdog is not None
    registers = "-DBSP_REG(address)=(*(volatile uint32_t *)watchdog_model(address))"
    (tmp_path / "first.h").write_text(
        "#include <stdint.h>\nuint32_t *watchdog_model(uint32_t address);\n"
    )
    for time_ms in (1000, board.watchdog.most_ms):
        command = [cc, "-std=c99", registers, f"-DBSP_WATCHDOG_MS={time_ms}u"]
        command += [f"-D{key}={value}" for key, value in board.defines.items()]
        command += [f"-I{folder}" for folder in board.includes[:1]]
        command += ["-include", str(tmp_path / "first.h"), str(HERE / "watchdog_model.c")]
        command += [str(board.watchdog.source), "-o", str(tmp_path / "model")]
        subprocess.run(command, check=True)
        done = subprocess.run([tmp_path / "model"], check=True, capture_output=True, text=True)
        told = [(int(a, 16), int(v)) for a, v in map(str.split, done.stdout.splitlines())]
        want, (register, khz) = WATCHDOGS[name]
        if time_ms == 1000:
            assert told == want
        ticks = dict(told)[register]
        assert time_ms <= ticks / khz <= 1.1 * time_ms + 10


@pytest_emulated
def test_a_bundle_with_a_watchdog(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    from edgesnn.compiler.build import compile_program
    from edgesnn.compiler.compare import decision_difference
    from edgesnn.compiler.interpret import Interpreter
    from edgesnn.compiler.random_program import random_program, random_samples
    from edgesnn.runtime.session import Session

    program = random_program(1)
    bundle = compile_program(program, board="mps2-an386", out=tmp_path / "b", watchdog=200)
    assert bundle.manifest["watchdog_ms"] == 200
    reference = Interpreter(program)
    with Session(bundle) as session:
        time.sleep(0.5)  # a board that waits is not reset
        for sample in random_samples(program, 5, 0):
            assert decision_difference(reference.infer(sample), session.classify(sample)) is None
        assert isinstance(session.engine, LinkEngine) and session.engine.restarts == 0
