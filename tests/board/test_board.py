"""Board files: read strictly, described completely."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest

from edgesnn.targets.board import (
    BOARDS_DIR,
    BSP_DIR,
    Board,
    Flashing,
    Usb,
    Watchdog,
    list_boards,
    load_board,
    read_board,
)
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
    assert board.counter.exact * board.counter.hz == 10**9


def test_a_tick_may_be_a_sum_of_powers_of_two() -> None:
    counter = load_board("mps3-an547").counter
    assert counter.per_tick == 31.25 and counter.units(10**9) == 31_250_000_000
    assert [counter.units(ticks) for ticks in (1, 2, 3)] == [31, 62, 94]
    assert isinstance(load_board("mps2-an386").counter.per_tick, int)


def test_a_tick_may_be_a_fraction() -> None:
    counter = load_board("netduinoplus2").counter
    assert counter.exact == Fraction(125, 21) and counter.exact * counter.hz == 10**9
    assert counter.units(21 * 10**15) == 125 * 10**15  # beyond what a float holds
    assert counter.per_tick == pytest.approx(5.952380952)
    assert {kind: load_board(name).counter.bits for name, kind in KINDS.items()} == {
        "systick": 24,
        "cycles": 24,
        "nrf51_timer": 32,
        "minstret": 32,
    }


KINDS = {
    "mps2-an386": "systick",
    "netduinoplus2": "cycles",
    "microbit": "nrf51_timer",
    "riscv-virt": "minstret",
}


def test_energy_of_a_board_whose_current_is_known() -> None:
    power = load_board("microbit").power
    assert power is not None and load_board("mps2-an386").power is None
    # 16 million cycles are a second at 16 MHz: 4.4 mA from 3 V are 13.2 mW.
    assert power.microjoules(16e6) == pytest.approx(13_200)


def test_cores_that_a_board_also_runs() -> None:
    board = load_board("microbit")
    assert board.runs("cortex-m0") and board.runs("cortex-m0plus") and not board.runs("cortex-m3")


OPTIONAL = """
[defines]
BSP_UART_TX_PIN = 9
BSP_PORT = "(BSP_UART_BASE + 0x400u)"
[watchdog]
source = "watchdog_nrf.c"
most_ms = 32_000
[flashing]
methods = ["pyocd", "uf2", "volume"]
chip = "stm32f446retx"
pack = true
uf2_family = 0xE48BFF56
volume = "RPI-RP2"
volume_file = "uf2"
how = "hold BOOTSEL while plugging in"
[usb]
ids = ["0483:374b", "0d28:0204"]
serial = "USB of the debugger"
[boot]
kind = "rp2040"
"""


WATCHDOG = '[watchdog]\nsource = "watchdog_cmsdk.c"\nmost_ms = 60_000\n'
FULL = TEXT.replace(WATCHDOG, "") + OPTIONAL


def test_every_optional_key(tmp_path: Path) -> None:
    file = tmp_path / "mps2-an386.toml"
    file.write_text(FULL)
    board = read_board(file)
    assert board.run_on == "qemu mps2-an386" and board.boot == "rp2040"
    assert board.defines["BSP_UART_TX_PIN"] == "9u"
    assert "-DBSP_PORT=(BSP_UART_BASE + 0x400u)" in board.cflags
    assert board.watchdog == Watchdog(BSP_DIR / "watchdog_nrf.c", 32_000)
    assert board.flashing == Flashing(
        ("pyocd", "uf2", "volume"),
        chip="stm32f446retx",
        pack=True,
        uf2_family=0xE48BFF56,
        volume="RPI-RP2",
        volume_file="uf2",
        how="hold BOOTSEL while plugging in",
    )
    assert board.usb == Usb(("0483:374b", "0d28:0204"), "USB of the debugger")
    plain = load_board("riscv-virt")
    assert (plain.watchdog, plain.flashing, plain.usb, plain.boot) == (None, None, None, None)


def test_a_boot_block_comes_first() -> None:
    plain = load_board("mps2-an386")
    assert (
        ".boot : { KEEP(*(.boot)) } > flash" in plain.linker_script()
    )  # empty: checked in boot.py
    block = ".boot : { KEEP(*(.boot)) . = ALIGN(256); } > flash"
    for kind in ("rp2040", "rp2350"):
        script = dataclasses.replace(plain, boot=kind).linker_script()
        assert script.index(block) < script.index(".vectors : {")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('run_on = "qemu', 'run_on = 3 # "', "run_on: must be a text"),
        ("TX_PIN = 9", "TX_PIN = -1", "defines.BSP_UART_TX_PIN: must be a whole number in 0..."),
        ("TX_PIN = 9", "TX_PIN = 4_294_967_296", "defines.BSP_UART_TX_PIN: must be a whole number"),
        ("TX_PIN = 9", "TX_PIN = true", "defines.BSP_UART_TX_PIN: must be a whole number"),
        ("BSP_UART_TX_PIN", "TX_PIN", "defines.TX_PIN: must be a name BSP_"),
        ("BSP_UART_TX_PIN", "BSP_UART_IRQ", "defines.BSP_UART_IRQ: is defined from another key"),
        ("BSP_UART_TX_PIN", "BSP_WATCHDOG_MS", "is defined from another key"),
        ("+ 0x400u", "; x", "defines.BSP_PORT: must be a plain C expression"),
        ("+ 0x400u", "// x", "defines.BSP_PORT: must be a plain C expression"),
        ("+ 0x400u", "/* x", "defines.BSP_PORT: must be a plain C expression"),
        (
            'source = "watchdog_nrf.c"',
            'source = "start.c"',
            "watchdog.source: two files are called start; rename one",
        ),
        ("most_ms = 32_000", "", "watchdog.most_ms: is missing"),
        ("most_ms = 32_000", "most_ms = 0", "watchdog.most_ms: must be a whole number in 1..."),
        ("most_ms =", "least_ms = 3\nmost_ms =", "watchdog.least_ms: is not a key"),
        ('source = "watchdog_nrf.c"', 'source = "no.c"', "watchdog.source: no such file: no.c"),
        ('["pyocd", "uf2", "volume"]', "[]", "flashing.methods: must be some of pyocd, uf2, vol"),
        ('["pyocd", "uf2", "volume"]', '["uf2", "uf2"]', "each once"),
        ('["pyocd", "uf2", "volume"]', '["jtag"]', "flashing.methods: must be some of"),
        ('chip = "stm32f446retx"', "", "flashing.chip: is missing: method 'pyocd' needs it"),
        ("uf2_family = 0xE48BFF56", "", "flashing.uf2_family: is missing: method 'uf2'"),
        ('volume = "RPI-RP2"', "", "flashing.volume: is missing: method 'volume' needs it"),
        ('volume_file = "uf2"', "", "flashing.volume_file: is missing: method 'volume'"),
        ('volume_file = "uf2"', 'volume_file = "elf"', "flashing.volume_file: must be one of uf2"),
        ("pack = true", 'pack = "yes"', "flashing.pack: must be true or false"),
        ("pack = true", "packs = true", "flashing.packs: is not a key"),
        ('"0483:374b"', '"0483:374B"', "usb.ids: must be texts"),
        ('ids = ["0483:374b", "0d28:0204"]', 'ids = "0483:374b"', "usb.ids: must be a list"),
        ('serial = "USB of', 'port = "USB of', "usb.port: is not a key"),
        ('kind = "rp2040"', 'kind = "esp32"', "boot.kind: must be one of rp2040, rp2350"),
        ('kind = "rp2040"', "", "boot.kind: is missing"),
    ],
)
def test_a_wrong_optional_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FULL
    refused(tmp_path, FULL.replace(old, new, 1), message)


def test_a_drive_for_uf2_needs_the_family(tmp_path: Path) -> None:
    text = FULL.replace('["pyocd", "uf2", "volume"]', '["volume"]')
    text = text.replace("uf2_family = 0xE48BFF56", "")
    refused(tmp_path, text, "flashing.uf2_family: is missing: a volume that takes uf2 needs it")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"libc.c"', '"libc.c", "own/wait.c"', "sources: two files are called wait; rename one"),
        ('"libc.c"', '"libc.c", "firmware.c"', "sources: firmware is a name of the firmware's own"),
        ('"libc.c"', '"libc.c", "esnn_x.c"', "sources: esnn_x is a name of the firmware's own"),
    ],
)
def test_names_of_c_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "own").mkdir()
    for name in ("own/wait.c", "firmware.c", "esnn_x.c"):
        (tmp_path / name).write_text("")
    refused(tmp_path, TEXT.replace(old, new, 1), message)


def test_a_counter_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mps2-an386.toml"
    (tmp_path / "timer.c").write_text("")
    file.write_text(TEXT.replace("cortex_m/systick.c", "timer.c"))
    assert tmp_path / "timer.c" in read_board(file).sources


def refused(folder: Path, text: str, message: str) -> None:
    """Read as a board file it is refused in one line that names the file and the key."""
    file = folder / "mps2-an386.toml"
    file.write_text(text)
    with pytest.raises(EdgesnnError) as e:
        read_board(file)
    said = str(e.value)
    assert said.startswith(f"{file}: ") and message in said
    assert "\n" not in said and len(said) < len(str(file)) + 250


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
        ("per_tick = 40", 'per_tick = "1/3"', "counter.per_tick: must be in 1...1000000"),
        ("per_tick = 40", 'per_tick = "1/0"', "counter.per_tick: must be a number or a fraction"),
        ("per_tick = 40", 'per_tick = "40"', "counter.per_tick: must be a number or a fraction"),
        ("clock_hz = 25", "also_runs = 3\nclock_hz = 25", "also_runs: must be a list of texts"),
        ("stack_bytes = 4096", "stack_bytes = 4100", "stack_bytes: must be a multiple of 8"),
        ("stack_bytes = 4096", "stack_bytes = 8_388_608", "stack_bytes: does not fit"),
        ("stack_bytes = 4096", "stack_bytes = 4_194_304", "stack_bytes: does not fit"),
        ("stack_bytes = 4096", "stack_bytes = 4_194_280", "behind a guard of 32"),
        ("origin = 0x20000000\nlength = 0x00400000", "origin = 0x20000010\nlength = 4128", "of 48"),
        ('name = "mps2-an386"', 'name = "x"', "name: must be the file's name"),
        ('"libc.c"', '"none.c"', "sources: no such file"),
        ('kind = "systick"', 'kind = "cycles"', "counter.kind: does not fit cortex_m/systick.c in"),
        ('"cortex_m/systick.c",', "", "sources: counter.kind 'systick' needs cortex_m/systick.c"),
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
        (
            "baud = 115_200",
            f"baud = {'9' * 5000}",
            "a number or a nesting of brackets in it is too",
        ),
        ("baud = 115_200", f"baud = 0x{'9' * 5000}", "uart.baud: must be a whole number"),
        ("baud = 115_200", f"baud = [0x{'9' * 5000}]", "uart.baud: must be a whole number"),
        ("baud = 115_200", f"baud = '{'9' * 5000}'", "uart.baud: must be a whole number"),
        (
            "baud = 115_200",
            f"baud = {'[' * 3000}{']' * 3000}",
            "a nesting of brackets in it is too",
        ),
        ("baud = 115_200", f"baud = {'[' * 99}{']' * 99}", "uart.baud: must be a whole number"),
        ("baud = 115_200", f"{'a' * 5000} = 3\nbaud = 9600", "aaa...: is not a key"),
        ("baud = 115_200", '"a\\nb" = 3\nbaud = 9600', r"uart.'a\nb': is not a key"),
        ("baud = 115_200", "baud = 25_000_001", "uart.baud: must be at most clock_hz, 25000000"),
        ("hz = 25_000_000\nunit", "hz = 2_147_483_648\nunit", "counter.hz: must be a whole number"),
        ('target = "cortex-m4"', 'target = "z80"', "target: must be one of cortex-m0, "),
        ('target = "cortex-m4"', 'target = "cpu"', "target: must be one of cortex-m0, "),
        (
            "clock_hz = 25",
            'also_runs = ["bogus"]\nclock_hz = 25',
            "also_runs: must be some of cort",
        ),
        (
            "origin = 0x00000000",
            "origin = 0x00000003",
            "memory.flash.origin: must be a multiple of",
        ),
        (
            "origin = 0x20000000",
            "origin = 0x20000003",
            "memory.ram.origin: must be a multiple of 4",
        ),
        ("origin = 0x20000000", "origin = 0x003FFFFC", "memory: flash and ram overlap"),
        ("origin = 0x00000000", "origin = 0x203FFF00", "memory: flash and ram overlap"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    refused(tmp_path, TEXT.replace(old, new, 1), message)


@pytest.mark.parametrize("name", ["m\U0001f600", "m */", "m\\", 'm"', "-m", "m m"])
def test_a_name_that_compilers_would_misread(tmp_path: Path, name: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(TEXT.replace('name = "mps2-an386"', f"name = '{name}'", 1))
    with pytest.raises(EdgesnnError, match="name: must be of letters, digits"):
        read_board(file, of_bundle=True)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match="No such file"):
        read_board(tmp_path / "none.toml")
