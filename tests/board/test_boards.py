"""Every board: it boots, answers, counts exactly, sleeps while it waits. Every core: parity on its board."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler.build import compile_program
from edgesnn.compiler.compare import decision_difference, trace_difference
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, list_boards, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS, Target
from edgesnn.targets.toolchain import find_toolchain

SAMPLE = np.random.default_rng(6).integers(0, 256, (28, 28, 1), dtype=np.uint8)
CORES = [target for target in TARGETS if target.kind == "mcu"]
EMULATED = [board.name for board in list_boards() if board.emulator is not None]
assert len(CORES) >= 8 and len(EMULATED) >= 11

Start = Callable[..., tuple[LinkEngine, Emulator]]


def needs(board: Board) -> None:
    assert board.emulator is not None
    if shutil.which(board.emulator.program) is None:
        pytest.skip(f"{board.emulator.program} is not on PATH")


@pytest.fixture(params=EMULATED)
def each(request: pytest.FixtureRequest) -> Board:
    """Every board in turn that has an emulator, and it is here."""
    board = load_board(request.param)
    needs(board)
    return board


@pytest.fixture
def start(each: Board, firmware: Callable[..., Path], hand_model: Any) -> Iterator[Start]:
    """start(*flags) -> the hand-written model on a fresh board, and its emulator."""
    with ExitStack() as stack:

        def run(*flags: str) -> tuple[LinkEngine, Emulator]:
            emulator = stack.enter_context(Emulator(each, firmware(*flags, on=each)))
            engine = LinkEngine(
                hand_model(), emulator.url, watch=emulator.check, counter=each.counter
            )
            return stack.enter_context(engine), emulator

        yield run


def test_answers_and_stack(start: Start, each: Board, reference: Callable[..., Any]) -> None:
    engine, _ = start()
    want = reference(SAMPLE)
    found = engine.infer(SAMPLE)
    assert (found.label, found.step, found.exited) == (want.label, want.step, want.exited)
    assert found.membranes.tolist() == want.membranes.tolist()
    events = engine.trace(SAMPLE).events
    assert [row[0].tolist() for row in events] == [e.tolist() for e in want.events]
    assert 0 < engine.stack_high_water() < each.stack_bytes == engine.info.stack_bytes


def test_a_tick_is_its_instructions(start: Start, each: Board) -> None:
    counter, turns = each.counter, 1_000_000
    if counter.unit == "instructions":
        assert counter.exact * counter.hz == 10**9  # with -icount shift=0 each takes 1 ns
    found = []
    for n in (turns, 2 * turns):
        engine, _ = start(f"-DTEST_SPIN={n}u", "-DTEST_THRESHOLD=100000")
        ticks = {engine.infer(SAMPLE).ticks for _ in range(4)}
        assert len(ticks) == 1
        found.append(ticks.pop())
    assert None not in found
    # Four timesteps, two instructions a turn; each of both counts may miss the part of a tick.
    assert abs(counter.units(found[1] - found[0]) - 4 * 2 * turns) <= counter.per_tick


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_board_that_waits_sleeps(start: Start) -> None:
    _, emulator = start()
    assert emulator._process is not None

    def spent() -> int:
        stat = Path(f"/proc/{emulator._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(stat[11]) + int(stat[12])

    time.sleep(0.1)
    before = spent()
    time.sleep(0.5)
    assert (spent() - before) / os.sysconf("SC_CLK_TCK") < 0.2


def test_a_crash_is_reported(start: Start) -> None:
    engine, _ = start("-DTEST_CRASH")
    with pytest.raises(EdgesnnError, match=r"has crashed \(pc=0x[0-9a-f]{8} "):
        engine.infer(SAMPLE)


def test_an_outgrown_stack_is_reported(start: Start, each: Board) -> None:
    engine, _ = start("-DTEST_OVERFLOW")
    with pytest.raises(EdgesnnError, match=r"has outgrown its stack .*raise stack_bytes"):
        engine.infer(SAMPLE)


@pytest.mark.parametrize("target", CORES, ids=lambda target: target.name)
def test_parity(target: Target, tmp_path: Path) -> None:
    assert target.board is not None
    board = load_board(target.board)
    assert board.runs(target.name)
    needs(board)
    try:
        find_toolchain(target)
    except EdgesnnError as e:
        pytest.skip(str(e))
    program = random_program(7)
    bundle = compile_program(program, target.name, board=board.name, out=tmp_path / "b")
    assert bundle.target == target.name and bundle.firmware is not None
    reference = Interpreter(program)
    names = [node.name for node in program.nodes]
    with Emulator(board, bundle.firmware) as emulator, LinkEngine(bundle, emulator.url) as engine:
        for x in random_samples(program, 3, 7):
            expected = reference.trace(x)
            assert trace_difference(expected, engine.trace(x), names) is None
            assert decision_difference(expected.decision, engine.infer(x)) is None
