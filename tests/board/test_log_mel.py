"""The log-mel front end on emulated boards: the same rows as its definition, and what a row takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.front_end import log_mel_rows, make_log_mel
from edgesnn.targets.board import load_board

ROWS, BANDS = 8, 24
# Instructions of a row of 256 points and 24 bands at most; a core without long products takes far more.
MOST = {"microbit": 100_000, "mps2-an385": 20_000, "mps2-an386": 20_000, "riscv-virt": 25_000}

needs_board = pytest.mark.skipif(
    not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")),
    reason="needs qemu-system-arm and arm-none-eabi-gcc",
)


def front_end() -> ir.LogMel:
    return make_log_mel(8000, frame=256, hop=128, bands=BANDS, offset=2000, gain=120)


def program() -> ir.Program:
    """A network behind the front end, which the firmware does not run."""
    x = ir.SampleInput("x", (4, BANDS, 1), "uint8")
    weight = np.ones((3, 4 * BANDS), dtype=np.int8)
    encoder = ir.LatencyEncoder("e", ir.Dense("x", weight), np.full((3, 1), 9, dtype=np.int32))
    out = ir.Accumulator(
        "y", (ir.Dense("e", np.eye(3, dtype=np.int8)),), (((1, 0),),), np.zeros(3, dtype=np.int32)
    )
    stream = ir.WindowStream(front_end(), hop=1)
    return ir.Program("log-mel", 2, (x, encoder, out), ir.FirstSpike(1), stream=stream)


def frames() -> list[np.ndarray]:
    """The same pseudo-random samples as in log_mel.c, rotated as they lie in the ring."""
    state, out = 1, []
    for r in range(ROWS):
        x = []
        for _ in range(256):
            state = (1664525 * state + 1013904223) & 0xFFFFFFFF
            x.append(int(((state >> 16) - 32768) / (1 << 2 * (ROWS - 1 - r))))
        out.append(np.roll(np.array(x, dtype=np.int16), -r))
    return out


@needs_board
@pytest.mark.parametrize("name", list(MOST))
def test_rows_on_a_board(
    name: str, tmp_path: Path, own_firmware: Callable[..., list[list[int]]]
) -> None:
    board = load_board(name)
    if board.emulator is None or shutil.which(board.emulator.program) is None:
        pytest.skip(f"nothing emulates {name} here")
    lines = own_firmware("log_mel.c", program(), board, tmp_path)
    wanted = [log_mel_rows(front_end(), x)[0].tolist() for x in frames()]
    assert [line[:BANDS] for line in lines] == wanted
    assert len({tuple(row) for row in wanted}) > ROWS // 2
    took = max(line[BANDS] for line in lines) * board.counter.per_tick
    print(f"{name}: {took:.0f} instructions")
    assert took < MOST[name]
