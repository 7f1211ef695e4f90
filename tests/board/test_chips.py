"""Nordic, Raspberry Pi, SiFive: their clock and UART files against a model of the registers (chip_model.c)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgesnn.targets.board import Board, load_board

HERE = Path(__file__).parent
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsanitize=undefined")
MODELS = {
    "pico": 2040,
    "pico2": 2350,
    "hifive1-revb": 310,
    "microbit-v1": 51,
    "microbit-v2": 52,
    "nrf52840-dk": 52,
}


def run_model(board: Board, folder: Path, *flags: str) -> tuple[dict[str, int], list[str]]:
    """Run the board's clock and UART files: names and registers -> values; what was forbidden."""
    cc = shutil.which("gcc")
    if cc is None:
        pytest.skip("no C compiler on PATH")
    sources = [s for s in board.sources if s.name.startswith(("clock_", "uart_"))]
    assert len(sources) == 2
    model = MODELS[board.name]
    command: list[str | Path] = [
        cc,
        *STRICT,
        *flags,
        f"-DMODEL={model}",
        *(["-D__ARM_ARCH_7EM__"] * (model == 52)),
    ]
    command += [f"-D{name}={value}" for name, value in board.defines.items()]
    command += [f"-I{board.includes[0]}", "-include", HERE / "chip_model.h"]
    command += [HERE / "chip_model.c", *sources, "-o", folder / "model"]
    subprocess.run([str(word) for word in command], check=True)
    done = subprocess.run([folder / "model"], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if line.startswith("forbidden")]
    said = [line.split() for line in lines if line not in wrong]
    return {name: int(value) for name, value in said}, wrong


def baud(board: Board, found: dict[str, int]) -> float:
    """Bits per second as the UART's own registers and clock make them."""
    base, hz = board.uart.base, found["uart"]
    if board.name.startswith("pico"):
        return hz / (16 * (found[f"0x{base + 0x24:08X}"] + found[f"0x{base + 0x28:08X}"] / 64))
    if board.name == "hifive1-revb":
        return hz / (found[f"0x{base + 0x18:08X}"] + 1)
    return found[f"0x{base + 0x524:08X}"] * hz / 2**32


# What the pins' registers have to hold: the UART's function, input on and pulled up where it receives.
PINS = {
    "pico": {0x40014004: 2, 0x4001400C: 2, 0x4001C004: 0x5A, 0x4001C008: 0x5A},
    "pico2": {0x40028004: 2, 0x4002800C: 2, 0x40038004: 0x5A, 0x40038008: 0x5A},
    "hifive1-revb": {0x10012038: 3 << 16, 0x1001203C: 0xFFFFFFFF ^ 3 << 16},
    "microbit-v1": {0x4000250C: 24, 0x40002514: 25, 0x50000518: 1 << 24, 0x50000764: 0xC},
    "microbit-v2": {0x4000250C: 6, 0x40002514: 1 << 5 | 8, 0x50000518: 1 << 6, 0x50000A20: 0xC},
    "nrf52840-dk": {0x4000250C: 6, 0x40002514: 8, 0x50000518: 1 << 6, 0x50000720: 0xC},
}


@pytest.mark.parametrize("name", MODELS)
def test_clock_and_uart(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    found, wrong = run_model(board, tmp_path)
    assert wrong == []
    assert found["core"] == board.clock_hz == board.counter.hz
    assert found["uart"] == board.uart.clock_hz and found["irq"] == board.uart.irq
    assert abs(baud(board, found) / board.uart.baud - 1) < 0.005
    assert (found["sent"], found["got"]) == (0x55, 0x41)
    assert {at: found[f"0x{at:08X}"] for at in PINS[name]} == PINS[name]


@pytest.mark.parametrize("name", MODELS)
def test_without_an_oscillator_it_goes_on(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    found, _ = run_model(board, tmp_path, "-DMODEL_DEAD")
    assert found["irq"] == board.uart.irq
