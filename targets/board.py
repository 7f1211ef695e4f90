"""What a board is: a frozen, validated description, read from `boards/<name>.toml`.

A new board is one TOML file, and one C file where its UART is new. Everything that the firmware
build needs follows from it: `sources`, `includes`, `cflags`, `linker_script()`, `ldflags`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesnn.targets.errors import EdgesnnError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOARDS_DIR = Path(__file__).parent / "boards"
BSP_DIR = Path(__file__).parent / "bsp"

COUNTERS = {"systick": 24, "nrf51_timer": 32, "minstret": 32}  # bits of each
UNITS = ("instructions", "cycles")
_GUARD_BYTES = 32  # also its alignment: the smallest region of the memory protection unit


@dataclass(frozen=True)
class Region:
    """A piece of memory: first address and length in bytes."""

    origin: int
    length: int


@dataclass(frozen=True)
class Uart:
    """The link's serial port: register base, clock in Hz, bits per second, receive interrupt."""

    base: int
    clock_hz: int
    baud: int
    irq: int


@dataclass(frozen=True)
class Counter:
    """The counter that times an inference: `hz` ticks per second, each of `per_tick` units.

    unit is "instructions" on an emulator that counts them, "cycles" on a processor. per_tick: a whole
    number or a sum of powers of two (31.25), thus exact. bits: the width of the hardware counter, which
    software extends to 32; one timestep must take less than 2**bits ticks.
    """

    kind: str
    hz: int
    unit: str
    per_tick: int | float
    bits: int

    def units(self, ticks: int) -> int:
        """What so many ticks are, to the nearest whole unit."""
        return round(ticks * self.per_tick)


@dataclass(frozen=True)
class Power:
    """What the processor draws while it runs: current_ua_per_mhz from supply_v volts."""

    current_ua_per_mhz: float
    supply_v: float

    def microjoules(self, cycles: float) -> float:
        """Energy of so many clock cycles: uA/MHz is uC per million cycles, times volts."""
        return self.current_ua_per_mhz * self.supply_v * cycles / 1e6


@dataclass(frozen=True)
class EmulatorSpec:
    """How to emulate the board: program, the system package that brings it, its arguments."""

    program: str
    package: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """One board. Sizes are bytes; `sources` are C files under BSP_DIR.

    target: the core that it has. also_runs: other cores whose firmware it runs, as it has their instructions.
    power: None where nobody has stated it.
    """

    name: str
    title: str
    target: str
    clock_hz: int
    stack_bytes: int
    flash: Region
    ram: Region
    uart: Uart
    counter: Counter
    sources: tuple[Path, ...]
    also_runs: tuple[str, ...] = ()
    emulator: EmulatorSpec | None = None
    power: Power | None = None

    def runs(self, target: str) -> bool:
        """Whether firmware for this target (a name, not an alias) runs here."""
        return target == self.target or target in self.also_runs

    @property
    def includes(self) -> tuple[Path, ...]:
        """Folders to search for headers."""
        return (BSP_DIR, BSP_DIR / "include")

    @property
    def defines(self) -> dict[str, str]:
        """Preprocessor names that board support and firmware read."""
        return {
            "BSP_STACK_BYTES": f"{self.stack_bytes}u",
            "BSP_COUNTER_HZ": f"{self.counter.hz}u",
            "BSP_UART_BASE": f"0x{self.uart.base:08X}u",
            "BSP_UART_CLOCK_HZ": f"{self.uart.clock_hz}u",
            "BSP_UART_BAUD": f"{self.uart.baud}u",
            "BSP_UART_IRQ": f"{self.uart.irq}u",
        }

    @property
    def cflags(self) -> tuple[str, ...]:
        """Flags for every C file of the firmware, apart from the core's own (Target) and -I."""
        flags = ("-std=c99", "-ffreestanding", "-ffunction-sections", "-fdata-sections")
        return (*flags, *(f"-D{name}={value}" for name, value in self.defines.items()))

    @property
    def ldflags(self) -> tuple[str, ...]:
        """Flags for linking, apart from the core's own and -T; `Toolchain.support` goes last."""
        return (
            "-nostdlib",
            "-static",
            "-Wl,--gc-sections",
            "-Wl,--build-id=none",
            "-Wl,--entry=bsp_reset",
        )

    def linker_script(self) -> str:
        """The linker script, for GNU ld and lld alike.

        The stack lies at the bottom of RAM behind a guard that nobody may touch (where the core can
        enforce it): outgrown, it faults instead of overwriting data.
        """
        return _LINKER_SCRIPT.format(
            board=self.name,
            flash=self.flash,
            ram=self.ram,
            guard_bytes=_GUARD_BYTES,
            stack_bytes=self.stack_bytes,
        )


_LINKER_SCRIPT = """\
/* {board}: written from its board file. */
ENTRY(bsp_reset)

MEMORY {{
  flash (rx) : ORIGIN = 0x{flash.origin:08X}, LENGTH = 0x{flash.length:08X}
  ram (rwx) : ORIGIN = 0x{ram.origin:08X}, LENGTH = 0x{ram.length:08X}
}}

SECTIONS {{
  .vectors : {{ KEEP(*(.vectors)) }} > flash
  .text : {{ *(.text .text.*) . = ALIGN(4); }} > flash
  .rodata : {{ *(.rodata .rodata.* .srodata .srodata.*) . = ALIGN(4); }} > flash
  .guard (NOLOAD) : {{
    . = ALIGN({guard_bytes});
    bsp_stack_guard = .;
    . = . + {guard_bytes};
  }} > ram
  .stack (NOLOAD) : {{
    bsp_stack_bottom = .;
    . = . + {stack_bytes};
    bsp_stack_top = .;
  }} > ram
  .data : {{
    . = ALIGN(4);
    bsp_data_start = .;
    *(.data .data.* .sdata .sdata.*)
    . = ALIGN(4);
    bsp_data_end = .;
  }} > ram AT> flash
  bsp_data_load = LOADADDR(.data);
  .bss (NOLOAD) : {{
    . = ALIGN(8);
    bsp_bss_start = .;
    *(.bss .bss.* .sbss .sbss.* COMMON)
    . = ALIGN(4);
    bsp_bss_end = .;
  }} > ram
  /DISCARD/ : {{
    *(.ARM.exidx .ARM.exidx.* .ARM.extab .ARM.extab.* .eh_frame .comment .note .note.*)
  }}
}}
"""


class _Table:
    """One TOML table whose every key must be taken; errors name the file and the key."""

    def __init__(self, file: str, values: Mapping[str, Any], prefix: str = "") -> None:
        self.file, self.prefix, self.left = file, prefix, dict(values)

    def fail(self, key: str, problem: str) -> EdgesnnError:
        return EdgesnnError(f"{self.file}: {self.prefix}{key}: {problem}")

    def _take(self, key: str) -> Any:
        if key not in self.left:
            raise self.fail(key, "is missing")
        return self.left.pop(key)

    def text(self, key: str, choices: Iterable[str] = ()) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise self.fail(key, f"must be a text, not {value!r}")
        if choices and value not in choices:
            raise self.fail(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def number(self, key: str, low: int, high: int) -> int:
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"must be a whole number in {low}...{high}, not {value!r}")
        return value

    def exact(self, key: str, low: int, high: int) -> int | float:
        """A number that a float holds to the last digit: few bits after the point."""
        value = self.left.get(key)
        if not isinstance(value, float):
            return self.number(key, low, high)
        self._take(key)
        if not low <= value <= high or not (value * 256).is_integer():
            raise self.fail(
                key, f"must be in {low}...{high}, in steps of 1/256 at most, not {value!r}"
            )
        return int(value) if value.is_integer() else value

    def quantity(self, key: str, high: float) -> float:
        """A number above 0, up to `high`."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= high:
            raise self.fail(key, f"must be a number above 0, up to {high:g}, not {value!r}")
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.fail(key, f"must be a list of texts, not {value!r}")
        return tuple(value)

    def table(self, key: str) -> _Table:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self.fail(key, f"must be a table, not {value!r}")
        return _Table(self.file, value, f"{self.prefix}{key}.")

    def done(self) -> None:
        for key in self.left:
            raise self.fail(key, "is not a key of a board file")


def _region(table: _Table) -> Region:
    region = Region(table.number("origin", 0, 2**32 - 1), table.number("length", 1, 2**32 - 1))
    table.done()
    if region.origin + region.length > 2**32:
        raise table.fail("length", "the region ends beyond the 32-bit address space")
    return region


def _board(root: _Table, stem: str) -> Board:
    name = root.text("name")
    if name != stem:
        raise root.fail("name", f"must be the file's name, {stem!r}, not {name!r}")
    title, target = root.text("title"), root.text("target")
    also_runs = root.texts("also_runs") if "also_runs" in root.left else ()
    clock_hz = root.number("clock_hz", 1, 2**32 - 1)
    stack_bytes = root.number("stack_bytes", 1024, 2**24)
    if stack_bytes % 8:
        raise root.fail("stack_bytes", f"must be a multiple of 8, not {stack_bytes}")
    sources = tuple(BSP_DIR / source for source in root.texts("sources"))
    for source in sources:
        if not source.is_file():
            raise root.fail("sources", f"no such file: {source}")
    memory = root.table("memory")
    flash, ram = _region(memory.table("flash")), _region(memory.table("ram"))
    memory.done()
    guard = -ram.origin % _GUARD_BYTES + _GUARD_BYTES
    if guard + stack_bytes > ram.length:
        raise root.fail(
            "stack_bytes", f"does not fit into {ram.length} bytes of ram behind a guard of {guard}"
        )
    table = root.table("uart")
    uart = Uart(
        table.number("base", 0, 2**32 - 1),
        table.number("clock_hz", 1, 2**32 - 1),
        table.number("baud", 1, 10**8),
        table.number("irq", 0, 495),
    )
    table.done()
    table = root.table("counter")
    kind = table.text("kind", COUNTERS)
    counter = Counter(
        kind,
        table.number("hz", 1, 2**32 - 1),
        table.text("unit", UNITS),
        table.exact("per_tick", 1, 10**6),
        COUNTERS[kind],
    )
    table.done()
    emulator = None
    if "emulator" in root.left:
        table = root.table("emulator")
        emulator = EmulatorSpec(table.text("program"), table.text("package"), table.texts("args"))
        table.done()
    power = None
    if "power" in root.left:
        table = root.table("power")
        power = Power(table.quantity("current_ua_per_mhz", 1e5), table.quantity("supply_v", 60.0))
        table.done()
    root.done()
    return Board(
        name=name,
        title=title,
        target=target,
        clock_hz=clock_hz,
        stack_bytes=stack_bytes,
        flash=flash,
        ram=ram,
        uart=uart,
        counter=counter,
        sources=sources,
        also_runs=also_runs,
        emulator=emulator,
        power=power,
    )


def read_board(path: Path) -> Board:
    """Read and check one board file. EdgesnnError names the file and the key."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise EdgesnnError(f"{path}: {e.strerror or e}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise EdgesnnError(f"{path}: not a TOML file: {e}") from None
    return _board(_Table(str(path), values), path.stem)


def list_boards() -> list[Board]:
    """Every board of this package, by name."""
    return [read_board(path) for path in sorted(BOARDS_DIR.glob("*.toml"))]


def load_board(name: str) -> Board:
    """The board of this name. UsageError names the choices."""
    names = sorted(path.stem for path in BOARDS_DIR.glob("*.toml"))
    if name not in names:
        raise UsageError(f"unknown board {name!r}; choose one of: {', '.join(names)}")
    return read_board(BOARDS_DIR / f"{name}.toml")
