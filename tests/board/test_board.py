"""Board files: read strictly, described completely."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgesnn.targets.board import BOARDS_DIR, Board, list_boards, load_board, read_board
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import find_target

TEXT = (BOARDS_DIR / "mps2-an386.toml").read_text()


def test_every_board_is_sound() -> None:
    boards = list_boards()
    assert boards
    for board in boards:
        assert load_board(board.name) == board
        for target in (board.target, *board.also_runs):
            assert find_target(target).kind == "mcu" and find_target(target).name == target
        assert all(file.is_file() for file in board.sources)
        assert all(folder.is_dir() for folder in board.includes)
        assert f"ORIGIN = 0x{board.ram.origin:08X}" in board.linker_script()


def test_frozen(board: Board) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        board.name = "other"  # type: ignore[misc]


def test_a_tick_is_as_long_as_its_instructions(board: Board) -> None:
    # With -icount shift=0 an instruction takes a nanosecond.
    assert board.counter.unit == "instructions"
    assert board.counter.per_tick * board.counter.hz == 10**9


def test_a_tick_may_be_a_sum_of_powers_of_two() -> None:
    counter = load_board("mps3-an547").counter
    assert counter.per_tick == 31.25 and counter.units(10**9) == 31_250_000_000
    assert [counter.units(ticks) for ticks in (1, 2, 3)] == [31, 62, 94]
    assert isinstance(load_board("mps2-an386").counter.per_tick, int)


def test_energy_of_a_board_whose_current_is_known() -> None:
    power = load_board("microbit").power
    assert power is not None and load_board("mps2-an386").power is None
    # 16 million cycles are a second at 16 MHz: 4.4 mA from 3 V are 13.2 mW.
    assert power.microjoules(16e6) == pytest.approx(13_200)


def test_cores_that_a_board_also_runs() -> None:
    board = load_board("microbit")
    assert board.runs("cortex-m0") and board.runs("cortex-m0plus") and not board.runs("cortex-m3")


def test_unknown_board() -> None:
    with pytest.raises(UsageError, match=r"unknown board 'mps2'; choose one of: .*mps2-an386"):
        load_board("mps2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baud = 115_200", "", "uart.baud: is missing"),
        ("baud = 115_200", "baud = 115_200\nparity = 1", "uart.parity: is not a key"),
        ("baud = 115_200", 'baud = "fast"', "uart.baud: must be a whole number"),
        ("baud = 115_200", "baud = true", "uart.baud: must be a whole number"),
        ('kind = "systick"', 'kind = "dwt"', "counter.kind: must be one of systick"),
        ("per_tick = 40", "per_tick = 40.3", "counter.per_tick: must be in 1...1000000, in steps"),
        ("per_tick = 40", 'per_tick = "40"', "counter.per_tick: must be a number or a fraction"),
        ("clock_hz = 25", "also_runs = 3\nclock_hz = 25", "also_runs: must be a list of texts"),
        ("stack_bytes = 4096", "stack_bytes = 4100", "stack_bytes: must be a multiple of 8"),
        ("stack_bytes = 4096", "stack_bytes = 8_388_608", "stack_bytes: does not fit"),
        ("stack_bytes = 4096", "stack_bytes = 4_194_304", "stack_bytes: does not fit"),
        ("stack_bytes = 4096", "stack_bytes = 4_194_280", "behind a guard of 32"),
        ("origin = 0x20000000\nlength = 0x00400000", "origin = 0x20000010\nlength = 4128", "of 48"),
        ('name = "mps2-an386"', 'name = "x"', "name: must be the file's name"),
        ('"libc.c"', '"none.c"', "sources: no such file"),
        ("[memory.ram]", "[memory.rom]", "memory.ram: is missing"),
        ("origin = 0x20000000", "origin = 0xFFFFFFF0", "memory.ram.length: the region ends"),
        ("clock_hz = 25_000_000\nstack", "stack", "clock_hz: is missing"),
        ("[uart]", "[[uart]]", "uart: must be a table"),
        ("[uart]", "[power]\nsupply_v = 3\n[uart]", "power.current_ua_per_mhz: is missing"),
        (
            "[uart]",
            "[power]\ncurrent_ua_per_mhz = 0\nsupply_v = 3\n[uart]",
            "power.current_ua_per_mhz: must be a number above 0, up to 100000, not 0",
        ),
        (
            "[uart]",
            "[power]\ncurrent_ua_per_mhz = 275\nsupply_v = nan\n[uart]",
            "power.supply_v: must be a number above 0, up to 60, not nan",
        ),
        ("[uart]", "[uart", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    file = tmp_path / "mps2-an386.toml"
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(EdgesnnError) as e:
        read_board(file)
    text = str(e.value)
    assert str(file) in text and message in text and "\n" not in text


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match="No such file"):
        read_board(tmp_path / "none.toml")
