"""STM32: clock and UART files against a model of the registers; real boards' images on QEMU's STM32F405."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator

HERE = Path(__file__).parent
STRICT = ("-std=gnu99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsanitize=undefined")

# Board: the model, its reset clock; enable bits of UART and pins; data register of each pin's function.
CHIPS = {
    "stm32vldiscovery": (100, 8, {0x40021018: 1 << 14 | 1 << 2}),
    "netduinoplus2": (405, 16, {0x40023830: 1, 0x40023844: 1 << 4}),
    "stm32f4-discovery": (405, 16, {0x40023830: 1, 0x40023840: 1 << 17}),
    "feather-f405": (405, 16, {0x40023830: 2, 0x40023840: 1 << 18}),
    "nucleo-f446re": (446, 16, {0x40023830: 1, 0x40023840: 1 << 17 | 1 << 28}),
    "nucleo-l4r5zi": (4500, 4, {0x4002104C: 1 << 6, 0x40021058: 1 << 28, 0x4002105C: 1}),
}
MODER = {  # of the pins' port: value after reset and after both pins are in alternate function mode
    "netduinoplus2": (0x40020000, 0xA8000000 | 2 << 18 | 2 << 20),
    "stm32f4-discovery": (0x40020000, 0xA8000000 | 2 << 4 | 2 << 6),
    "feather-f405": (0x40020400, 0x280 | 2 << 20 | 2 << 22),
    "nucleo-f446re": (0x40020000, 0xA8000000 | 2 << 4 | 2 << 6),
    "nucleo-l4r5zi": (0x48001800, 0xFFFFFFFF ^ 1 << 14 ^ 1 << 16),
}
AFR = {
    "netduinoplus2": {0x40020024: 0x770},
    "stm32f4-discovery": {0x40020020: 0x7700},
    "feather-f405": {0x40020424: 0x7700},
    "nucleo-f446re": {0x40020020: 0x7700},
    "nucleo-l4r5zi": {0x48001820: 0x80000000, 0x48001824: 0x8},
}


def run_model(board: Board, folder: Path, *flags: str) -> dict[str, int]:
    """Run the board's clock and UART files on the model: names and registers -> values."""
    cc = shutil.which("gcc")
    if cc is None:
        pytest.skip("no C compiler on PATH")
    sources = [s for s in board.sources if "stm32" in s.name]
    assert any("clock" in s.name for s in sources)
    command = [cc, *STRICT, *flags, f"-DMODEL={CHIPS[board.name][0]}", "-I", HERE]
    command += [f"-D{name}={value}" for name, value in board.defines.items()]
    command += ["-I", board.includes[0], "-include", HERE / "chip_model.h"]
    command += [HERE / "stm32_model.c", *sources, "-o", folder / "model"]
    subprocess.run([str(word) for word in command], check=True)
    said = subprocess.run([folder / "model"], check=True, capture_output=True, text=True).stdout
    assert "forbidden" not in said, said
    return {line.split()[0]: int(line.split()[1]) for line in said.splitlines()}


def register(found: dict[str, int], address: int) -> int:
    return found.get(f"0x{address:08X}", 0)


@pytest.fixture(scope="module", params=CHIPS)
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, int]]:
    """A board, and what its files have done to the model."""
    folder = tmp_path_factory.mktemp("model")
    return request.param, run_model(load_board(request.param), folder)


def test_clock_and_uart(ran: tuple[str, dict[str, int]]) -> None:
    name, found = ran
    board = load_board(name)
    assert found["core"] == board.clock_hz == board.counter.hz
    bus = found["apb1" if board.uart.base < 0x40010000 else "apb2"]
    assert bus == board.uart.clock_hz and found["irq"] == board.uart.irq
    for address, bits in CHIPS[name][2].items():
        assert register(found, address) == bits
    base = board.uart.base
    low_power = base == 0x40008000
    divisor = register(found, base + (0x0C if name == "nucleo-l4r5zi" else 0x08))
    assert abs((256 if low_power else 1) * bus / divisor / board.uart.baud - 1) < 0.004
    if low_power:
        assert 0x300 <= divisor < 1 << 20 and 3 <= bus / board.uart.baud <= 4096
        assert register(found, base) == 0x2D and register(found, base + 8) == 1 << 12
        assert register(found, 0x40007004) == 1 << 9  # supply of PG2 to PG15
    else:
        assert register(found, base + 0x0C) == 0x202C
    if name in MODER:
        address, value = MODER[name]
        assert (
            register(found, address) == value
        )  # other pins, the debugger's among them, as they were
        for afr, functions in AFR[name].items():
            assert register(found, afr) == functions
    else:
        assert register(found, 0x40010804) == 0x444448B4  # PA9 push-pull, PA10 input with pull
        assert register(found, 0x40010810) == 1 << 10  # up


def test_bytes_come_and_go(ran: tuple[str, dict[str, int]]) -> None:
    """An overrun costs bytes, never the reception."""
    name, found = ran
    assert (found["sent"], found["waited_for"]) == (0x5A, 0x41)
    assert found["status"] == 3 << 6  # no error, nothing left to read
    if name == "nucleo-l4r5zi":
        assert found["slept"] == 1
    else:
        assert (found["after_overrun"], found["before_overrun"]) == (0x41, 0x42)
        assert found["slept"] == 2


@pytest.mark.parametrize("name", CHIPS)
def test_without_an_oscillator_it_goes_on(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    found = run_model(board, tmp_path, "-DMODEL_DEAD")
    assert found["core"] == CHIPS[name][1] * 10**6
    assert found["irq"] == board.uart.irq


def runs(
    firmware: Path, on: Board, board: Board, hand_model: Any, reference: Callable[..., Any]
) -> None:
    """The hand-written model answers as it should: `board`'s firmware on the machine of `on`."""
    assert on.emulator is not None
    if shutil.which(on.emulator.program) is None:
        pytest.skip(f"{on.emulator.program} is not on PATH")
    sample = np.random.default_rng(6).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    want = reference(sample)
    with (
        Emulator(on, firmware) as emulator,
        LinkEngine(
            hand_model(), emulator.url, watch=emulator.check, counter=board.counter
        ) as engine,
    ):
        found = engine.infer(sample)
    assert (found.label, found.step, found.exited) == (want.label, want.step, want.exited)
    assert found.membranes.tolist() == want.membranes.tolist()


def test_an_stm32f205_is_one_toml(
    tmp_path: Path,
    firmware: Callable[..., Path],
    hand_model: Any,
    reference: Callable[..., Any],
) -> None:
    """QEMU's netduino2: the files of the F405, whose UART and pins it has, without its clock's."""
    text = load_board("netduinoplus2").path.read_text(encoding="utf-8")
    for old, new in (
        ("netduinoplus2", "netduino2"),
        ("cortex-m4", "cortex-m3"),
        ("168_000_000", "120_000_000"),
        ('"125/21"', '"25/3"'),
        ('  "stm32/clock_stm32f4.c",\n', ""),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "netduino2.toml").write_text(text, encoding="utf-8")
    board = load_board(str(tmp_path / "netduino2.toml"))
    runs(firmware(on=board), board, board, hand_model, reference)


# Which of QEMU's serial ports the board's USART is.
SAME_CORE = {"stm32f4-discovery": 1, "feather-f405": 2, "nucleo-f446re": 1}


@pytest.mark.parametrize("name", SAME_CORE)
def test_the_same_image_runs_on_an_emulated_f405(
    name: str,
    firmware: Callable[..., Path],
    hand_model: Any,
    reference: Callable[..., Any],
) -> None:
    board, twin = load_board(name), load_board("netduinoplus2")
    assert board.flash.origin == twin.flash.origin and board.ram == twin.ram
    assert twin.emulator is not None
    skipped = ("-serial", "null") * SAME_CORE[name]
    other = replace(twin, emulator=replace(twin.emulator, args=(*twin.emulator.args, *skipped)))
    runs(firmware(on=board), other, board, hand_model, reference)
