"""The firmware on the emulated board, driven over the serial link."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime import frames
from edgesnn.runtime.engine import Decision
from edgesnn.runtime.frames import Frame, decode_frame, encode_frame
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError

pytestmark = pytest.mark.usefixtures("emulator_program")

Reference = Callable[[np.ndarray], Any]


@pytest.fixture
def engine(
    board: Board, firmware: Callable[..., Path], hand_model: Any
) -> Iterator[Callable[..., LinkEngine]]:
    """engine(*flags, tools="gcc", kind="samples") -> LinkEngine on a fresh board."""
    open_ones: list[LinkEngine | Emulator] = []

    def start(*flags: str, tools: str = "gcc", kind: str = "samples") -> LinkEngine:
        emulator = Emulator(board, firmware(*flags, tools=tools))
        emulator.start()
        open_ones.append(emulator)
        engine = LinkEngine(hand_model(kind), emulator.url, watch=emulator.check)
        open_ones.append(engine)
        return engine

    yield start
    for each in reversed(open_ones):
        each.close()


def same(got: Decision, want: Any) -> None:
    assert (got.label, got.step, got.exited) == (want.label, want.step, want.exited)
    assert got.membranes.tolist() == want.membranes.tolist()
    count = sum(map(len, want.events))
    assert got.events.tolist() == [count, 0] and got.sops.tolist() == [0, 12 * count]


@pytest.mark.parametrize("tools", ["gcc", "zig"])
def test_samples(engine: Callable[..., LinkEngine], reference: Reference, tools: str) -> None:
    board = engine(tools=tools)
    assert board.info.name == "test-model" and board.info.classes == 12
    rng = np.random.default_rng(3)
    steps = set()
    for i in range(12):
        sample = rng.integers(0, 256 - 20 * i, (28, 28, 1)).astype(np.uint8)
        want = reference(sample)
        steps.add(want.step)
        same(board.infer(sample), want)
        trace = board.trace(sample)
        same(trace.decision, want)
        assert [len(row) for row in trace.events] == [2] * want.step
        for row, events in zip(trace.events, want.events, strict=True):
            assert row[0].dtype == np.uint32 and row[0].tolist() == events.tolist()
            assert row[1].size == 0
    assert len(steps) > 1
    assert board.resent <= 2  # a machine under load


def test_events(engine: Callable[..., LinkEngine], reference: Reference) -> None:
    board = engine("-DTEST_EVENT_INPUT", kind="events")
    rng = np.random.default_rng(4)
    for density in (0.0, 0.01, 0.05, 0.3):
        sample = (rng.random((4, 28, 28, 1)) < density).astype(np.uint8)
        want = reference(sample)
        same(board.infer(sample), want)
        trace = board.trace(sample)
        same(trace.decision, want)
        assert [row[0].tolist() for row in trace.events] == [e.tolist() for e in want.events]
        same(board.profile(sample), want)


def test_instruction_counts_repeat_and_add_up(engine: Callable[..., LinkEngine]) -> None:
    board = engine()
    sample = np.random.default_rng(5).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    whole = {board.infer(sample).ticks for _ in range(5)}
    assert len(whole) == 1
    profile = board.profile(sample)
    assert profile.node_ticks is not None and profile.ticks == profile.node_ticks.sum()
    # Node by node loses less than a tick each time and leaves out the loop around the nodes.
    ticks = whole.pop()
    assert ticks is not None and profile.ticks is not None
    assert 0 <= ticks - profile.ticks <= 10 * profile.step
    # 784 samples, six to ten instructions each, at 40 a tick: the counter counts instructions.
    assert 784 * 2 < profile.node_ticks[0] * 40 / profile.step < 784 * 20
    assert board.link_seconds > 0


def test_the_counter_goes_on_where_the_hardware_wraps(
    engine: Callable[..., LinkEngine], board: Board
) -> None:
    turns = 100_000_000
    ticks = engine(f"-DTEST_SPIN={turns}u").infer(np.zeros((28, 28, 1), np.uint8)).ticks
    assert ticks is not None
    least = 4 * 2 * turns // board.counter.per_tick  # four steps of two instructions a turn
    assert 2**board.counter.bits < least <= ticks < least + 4000


def test_stack(engine: Callable[..., LinkEngine], board: Board) -> None:
    engine_ = engine()
    before = engine_.stack_high_water()
    engine_.infer(np.zeros((28, 28, 1), np.uint8))
    after = engine_.stack_high_water()
    assert 0 < before <= after < board.stack_bytes == engine_.info.stack_bytes


def test_wrong_model_is_refused(
    board: Board, firmware: Callable[..., Path], hand_model: Any
) -> None:
    with Emulator(board, firmware()) as emulator:
        with pytest.raises(EdgesnnError, match=r"runs model 'test-model' .*flash") as e:
            LinkEngine(hand_model(name="other", model_id=bytes(16)), emulator.url)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("-DTEST_CRASH", r"has crashed \(pc=0x[0-9a-f]{8} "),
        ("-DTEST_OVERFLOW", r"has outgrown its stack .*raise stack_bytes"),
    ],
)
def test_a_crash_is_reported_each_time(
    engine: Callable[..., LinkEngine], flag: str, message: str
) -> None:
    board = engine(flag)
    for _ in range(2):
        with pytest.raises(EdgesnnError, match=message):
            board.infer(np.zeros((28, 28, 1), np.uint8))


def test_a_firmware_whose_model_does_not_start_says_so(
    board: Board, firmware: Callable[..., Path], hand_model: Any
) -> None:
    elf = firmware("-DTEST_ARENA=8u")
    with Emulator(board, elf) as emulator, pytest.raises(EdgesnnError, match="arena too small"):
        LinkEngine(hand_model(), emulator.url)


def test_banner_first_then_noise_then_service(board: Board, firmware: Callable[..., Path]) -> None:
    with Emulator(board, firmware()) as emulator:
        host, port = emulator.url.removeprefix("socket://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            reader = wire.makefile("rb")

            def read() -> Frame:
                data = bytearray()
                while not data.endswith(b"\0"):
                    data += reader.read(1)
                frame = decode_frame(bytes(data[:-1]))
                assert frame is not None
                return frame

            banner = read()
            assert (banner.op, banner.sequence, banner.status) == (frames.BANNER, 0, 0)
            wire.sendall(bytes(range(255, -1, -1)) * 3 + b"\x02\0")
            for _ in range(4):
                reply = read()
                assert reply.op == frames.UNREADABLE and reply.status == 1
            for sequence, op in ((8, frames.HELLO), (9, frames.STACK)):
                wire.sendall(encode_frame(Frame(op, sequence, b"", 1)))
                reply = read()
            assert (reply.sequence, reply.status) == (9, 0)
            assert struct.unpack("<II", reply.payload)[1] == board.stack_bytes


def test_section_sizes_are_those_of_the_board(board: Board, firmware: Callable[..., Path]) -> None:
    from elftools.elf.elffile import ELFFile

    with firmware().open("rb") as f:
        elf = ELFFile(f)
        size = {s.name: s["sh_size"] for s in elf.iter_sections()}
        at = {s.name: s["sh_addr"] for s in elf.iter_sections()}
    assert size[".vectors"] == 64 and at[".vectors"] == board.flash.origin
    assert size[".stack"] == board.stack_bytes and at[".stack"] == board.ram.origin + 32
    assert size[".bss"] >= 2456
