"""The cycle counter is taken where it is there and counts, SysTick elsewhere: on a DWT that the test brings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator

MODEL = Path(__file__).parent / "dwt_model.h"
SAMPLE = np.random.default_rng(6).integers(0, 256, (28, 28, 1), dtype=np.uint8)
NO_COUNTER = 1 << 25  # DWT_CTRL.NOCYCCNT


@pytest.fixture
def ticks(firmware: Callable[..., Path], hand_model: Any) -> Callable[..., list[int]]:
    """ticks(*flags) -> of the nodes of an inference, then of two inferences."""
    board: Board = load_board("netduinoplus2")
    assert board.counter.kind == "cycles" and board.emulator is not None
    if shutil.which(board.emulator.program) is None:
        pytest.skip(f"{board.emulator.program} is not on PATH")

    def run(*flags: str) -> list[int]:
        with (
            Emulator(board, firmware(*flags, on=board)) as emulator,
            LinkEngine(
                hand_model(), emulator.url, watch=emulator.check, counter=board.counter
            ) as engine,
        ):
            nodes = engine.trace(SAMPLE).decision.node_ticks
            return [*nodes, *(int(engine.infer(SAMPLE).ticks or 0) for _ in range(2))]

    return run


def model(control: int, step: int) -> tuple[str, ...]:
    return "-include", str(MODEL), f"-DTEST_DWT_CTRL={control}u", f"-DTEST_DWT_STEP={step}u"


def test_the_cycle_counter_counts(ticks: Callable[..., list[int]]) -> None:
    """From the test's counter: it wraps on the way, and moves by the step of every access alone."""
    few, many = ticks(*model(0x40000000, 16)), ticks(*model(0x40000000, 48))
    assert all(t > 0 and t % 16 == 0 for t in few)
    assert many == [3 * t for t in few]
    assert max(few) < 1000


@pytest.mark.parametrize(("control", "step"), [(NO_COUNTER, 16), (0x40000000, 0)])
def test_systick_stands_in(ticks: Callable[..., list[int]], control: int, step: int) -> None:
    """Where the DWT says that it has no counter, and where it does not move."""
    plain, found = ticks(), ticks(*model(control, step))
    assert min(plain[-2:]) > 1000
    assert np.allclose(plain, found, rtol=0.01, atol=10)
