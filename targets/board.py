"""What a board is: a frozen, validated description, read from `boards/<name>.toml`.

A new board is one TOML file, and one C file where its UART is new, in any folder
(docs/adding-a-board.md). Everything that the firmware build needs follows from it: `sources`,
`includes`, `cflags`, `linker_script()`, `ldflags`.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.suggest import did_you_mean
from edgesnn.targets.target import TARGETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOARDS_DIR = Path(__file__).parent / "boards"
BSP_DIR = Path(__file__).parent / "bsp"

BOARDS_VARIABLE = "EDGESNN_BOARDS"  # folders with board files of one's own

# Bits of each. "cycles" is 32 bits where DWT counts, 24 where SysTick stands in: the smaller is stated.
COUNTERS = {"systick": 24, "cycles": 24, "nrf51_timer": 32, "minstret": 32, "mcycle": 32}
# The file that reads each; every other one of these would be read as something that it is not.
COUNTER_FILES = {
    "systick": "cortex_m/systick.c",
    "cycles": "cortex_m/cycles.c",
    "nrf51_timer": "cortex_m/nrf51_timer.c",
    "minstret": "riscv/minstret.c",
    "mcycle": "riscv/mcycle.c",
}
UNITS = ("instructions", "cycles")
FLASHING = ("pyocd", "uf2", "volume")
VOLUME_FILES = ("uf2", "hex", "bin")
BOOTS = ("rp2040", "rp2350")
CORES = tuple(target.name for target in TARGETS if target.kind == "mcu")
_FLASH_STEP, _RAM_STEP = 256, 4  # bytes: where vectors and a boot block, where words may begin
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

    unit is "instructions" on an emulator that counts them, "cycles" on a processor. exact: units per tick.
    bits: the width of the hardware counter, which software extends to 32; one timestep must take less than
    2**bits ticks.
    """

    kind: str
    hz: int
    unit: str
    exact: Fraction
    bits: int

    @property
    def per_tick(self) -> int | float:
        """Units per tick as a plain number: exact where it is whole or a sum of powers of two."""
        return int(self.exact) if self.exact.denominator == 1 else float(self.exact)

    def units(self, ticks: int) -> int:
        """What so many ticks are, to the nearest whole unit."""
        return round(ticks * self.exact)


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
class Watchdog:
    """The C file that drives the watchdog, and the longest time in milliseconds that it can be set to."""

    source: Path
    most_ms: int


@dataclass(frozen=True)
class Flashing:
    """How firmware gets onto the board: `methods` of FLASHING, the best first.

    chip: pyOCD's name of the target; pack: whether pyOCD needs a CMSIS pack for it. uf2_family: the family ID
    of UF2 blocks. volume: label of the drive that takes a file; volume_file: which, of VOLUME_FILES.
    volume_ids: what the drive calls the board (Board-ID of INFO_UF2.TXT, Unique ID of DETAILS.TXT) begins with
    one of these; none: unchecked. how: what a person has to do at the board first.
    """

    methods: tuple[str, ...]
    chip: str | None = None
    pack: bool = False
    uf2_family: int | None = None
    volume: str | None = None
    volume_file: str | None = None
    volume_ids: tuple[str, ...] = ()
    how: str | None = None


@dataclass(frozen=True)
class Usb:
    """The board's serial port on a computer: ids "vendor:product" in hex, and in words where the UART is."""

    ids: tuple[str, ...] = ()
    serial: str | None = None


@dataclass(frozen=True)
class Board:
    """One board. Sizes are bytes; `sources` are C files, those of board support or beside `path`.

    path: the file that describes it. target: the core that it has. also_runs: other cores whose firmware it
    runs, as it has their instructions. options: preprocessor names of its own. boot: what the chip's boot ROM
    wants first in flash. run_on: what this board support has been run on; None: built and linked only. power:
    None where nobody has stated it.
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
    path: Path = field(compare=False)
    also_runs: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    emulator: EmulatorSpec | None = None
    power: Power | None = None
    watchdog: Watchdog | None = None
    flashing: Flashing | None = None
    usb: Usb | None = None
    boot: str | None = None
    run_on: str | None = None

    def runs(self, target: str) -> bool:
        """Whether firmware for this target (a name, not an alias) runs here."""
        return target == self.target or target in self.also_runs

    @property
    def includes(self) -> tuple[Path, ...]:
        """Folders to search for headers: a board file of one's own may have some beside it."""
        own = () if self.path.parent == BOARDS_DIR else (self.path.parent,)
        return (BSP_DIR, BSP_DIR / "include", *own)

    @property
    def defines(self) -> dict[str, str]:
        """Preprocessor names that board support and firmware read."""
        return {
            "BSP_STACK_BYTES": f"{self.stack_bytes}u",
            "BSP_CLOCK_HZ": f"{self.clock_hz}u",
            "BSP_COUNTER_HZ": f"{self.counter.hz}u",
            "BSP_UART_BASE": f"0x{self.uart.base:08X}u",
            "BSP_UART_CLOCK_HZ": f"{self.uart.clock_hz}u",
            "BSP_UART_BAUD": f"{self.uart.baud}u",
            "BSP_UART_IRQ": f"{self.uart.irq}u",
            **dict(self.options),
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
            boot=". = ALIGN(256); " if self.boot else "",
        )


# RP2040: 256 bytes that the boot ROM copies to RAM and runs, the last four their CRC. RP2350: a block that the
# boot ROM looks for in the first 4 KB. The vectors follow where any Cortex-M accepts them. Other chips have
# neither, which compiler/boot.py checks.

_LINKER_SCRIPT = """\
/* {board}: written from its board file. */
ENTRY(bsp_reset)

MEMORY {{
  flash (rx) : ORIGIN = 0x{flash.origin:08X}, LENGTH = 0x{flash.length:08X}
  ram (rwx) : ORIGIN = 0x{ram.origin:08X}, LENGTH = 0x{ram.length:08X}
}}

SECTIONS {{
  .boot : {{ KEEP(*(.boot)) {boot}}} > flash
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


_LONGEST_SHOWN = 60


def _shown(value: object) -> str:
    """A value for people: on one line, cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, of brackets
        return "something that long"
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


class _Table:
    """One TOML table whose every key must be taken; errors name the file and the key."""

    def __init__(self, file: str, values: Mapping[str, Any], prefix: str = "") -> None:
        self.file, self.prefix, self.left = file, prefix, dict(values)

    def fail(self, key: str, problem: str, *found: object) -> EdgesnnError:
        """The error to raise; found: the value that stands there instead."""
        key = key if key.isprintable() and len(key) <= _LONGEST_SHOWN else _shown(key)
        instead = f", not {_shown(*found)}" if found else ""
        return EdgesnnError(f"{self.file}: {self.prefix}{key}: {problem}{instead}")

    def _take(self, key: str) -> Any:
        if key not in self.left:
            raise self.fail(key, "is missing")
        return self.left.pop(key)

    def text(self, key: str, choices: Iterable[str] = ()) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise self.fail(key, "must be a text", value)
        if choices and value not in choices:
            raise self.fail(key, f"must be one of {', '.join(choices)}", value)
        return value

    def number(self, key: str, low: int, high: int) -> int:
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"must be a whole number in {low}...{high}", value)
        return value

    def exact(self, key: str, low: int, high: int) -> Fraction:
        """A whole number, one with few bits after the point, thus exact, or a text "125/21"."""
        value = self.left.get(key)
        if not isinstance(value, float | str):
            return Fraction(self.number(key, low, high))
        self._take(key)
        if isinstance(value, str):
            if not re.fullmatch(r"[0-9]{1,12}/[1-9][0-9]{0,11}", value):
                raise self.fail(key, 'must be a number or a fraction "125/21"', value)
            exact = Fraction(value)
            if not low <= exact <= high:
                raise self.fail(key, f"must be in {low}...{high}", value)
            return exact
        if not low <= value <= high or not (value * 256).is_integer():
            raise self.fail(
                key,
                f'must be in {low}...{high}, in steps of 1/256 at most (else a fraction "125/21")',
                value,
            )
        return Fraction(value)

    def quantity(self, key: str, high: float) -> float:
        """A number above 0, up to `high`."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= high:
            raise self.fail(key, f"must be a number above 0, up to {high:g}", value)
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.fail(key, "must be a list of texts", value)
        return tuple(value)

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise self.fail(key, "must be true or false", value)
        return value

    def maybe_text(self, key: str, choices: Iterable[str] = ()) -> str | None:
        return self.text(key, choices) if key in self.left else None

    def maybe_table(self, key: str) -> _Table | None:
        return self.table(key) if key in self.left else None

    def table(self, key: str) -> _Table:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self.fail(key, "must be a table", value)
        return _Table(self.file, value, f"{self.prefix}{key}.")

    def done(self) -> None:
        for key in self.left:
            raise self.fail(key, "is not a key of a board file")


def _region(table: _Table, step: int) -> Region:
    region = Region(table.number("origin", 0, 2**32 - 1), table.number("length", 1, 2**32 - 1))
    table.done()
    if region.origin % step:
        raise table.fail("origin", f"must be a multiple of {step}", region.origin)
    if region.origin + region.length > 2**32:
        raise table.fail("length", "the region ends beyond the 32-bit address space")
    return region


def _absolute(path: Path) -> Path:
    """Without `..`, and with links as they are: C files lie beside the link."""
    return Path(os.path.abspath(path))


def _c_files(root: _Table, key: str, names: Iterable[str], path: Path, found: bool) -> list[Path]:
    """Where each is: a name of board support, else beside the board file. found: each must be there."""
    files = []
    for name in names:
        own = BSP_DIR / name
        file = own if own.is_file() else _absolute(path).parent / name
        if found and not file.is_file():
            raise root.fail(
                key, f"no such file: {name} (neither in {BSP_DIR} nor in {file.parent})"
            )
        files.append(file)
    return files


def _sources(root: _Table, path: Path, found: bool) -> tuple[Path, ...]:
    files = _c_files(root, "sources", root.texts("sources"), path, found)
    _check_names(root, "sources", files)
    return tuple(files)


def _check_names(table: _Table, key: str, files: Iterable[Path]) -> None:
    """All are built in one folder, beside the firmware's own: names must differ."""
    for stem, count in Tally(file.stem for file in files).items():
        if count > 1:
            raise table.fail(key, f"two files are called {stem}; rename one")
        if stem.startswith(("esnn", "firmware")):
            raise table.fail(key, f"{stem} is a name of the firmware's own files; rename it")


def _check_counter(root: _Table, kind: str, sources: Iterable[Path]) -> None:
    """The file of this kind of counter is there and no other kind's; a file of one's own may replace it."""
    files = set(sources)
    for other, name in COUNTER_FILES.items():
        if other != kind and BSP_DIR / name in files:
            raise root.fail(
                "counter.kind", f"does not fit {name} in sources, which is {other!r}", kind
            )
    want = COUNTER_FILES[kind]
    if BSP_DIR / want not in files and all(BSP_DIR in file.parents for file in files):
        raise root.fail("sources", f"counter.kind {kind!r} needs {want} among them")


def _options(root: _Table) -> tuple[tuple[str, str], ...]:
    """[defines]: preprocessor names of the board's own, whole numbers as unsigned constants."""
    table = root.maybe_table("defines")
    found = []
    for name in list(table.left) if table is not None else []:
        assert table is not None
        if not re.fullmatch(r"BSP_[A-Z0-9_]+", name):
            raise table.fail(name, "must be a name BSP_... of capitals, digits and _")
        if name in _GIVEN or name.startswith("BSP_WATCHDOG"):
            raise table.fail(name, "is defined from another key of the board file")
        if isinstance(table.left[name], str):
            text = table.text(name)
            plain = re.fullmatch(r"[\w ()+*/<>|&~.-]+", text, re.ASCII)
            if not plain or re.search(r"//|/\*|\*/", text):
                raise table.fail(name, "must be a plain C expression", text)
            found.append((name, text))
        else:
            found.append((name, f"{table.number(name, 0, 2**32 - 1)}u"))
    return tuple(found)


_GIVEN = (
    "BSP_STACK_BYTES",
    "BSP_CLOCK_HZ",
    "BSP_COUNTER_HZ",
    "BSP_UART_BASE",
    "BSP_UART_CLOCK_HZ",
    "BSP_UART_BAUD",
    "BSP_UART_IRQ",
)


def _watchdog(root: _Table, path: Path, found: bool, sources: tuple[Path, ...]) -> Watchdog | None:
    table = root.maybe_table("watchdog")
    if table is None:
        return None
    (source,) = _c_files(table, "source", [table.text("source")], path, found)
    _check_names(table, "source", [*sources, source])
    most_ms = table.number("most_ms", 1, 2**31 - 1)
    table.done()
    return Watchdog(source, most_ms)


def _flashing(root: _Table) -> Flashing | None:
    table = root.maybe_table("flashing")
    if table is None:
        return None
    methods = table.texts("methods")
    if not methods or len(set(methods)) < len(methods) or not set(methods) <= set(FLASHING):
        raise table.fail(
            "methods", f"must be some of {', '.join(FLASHING)}, each once", list(methods)
        )
    family = table.number("uf2_family", 0, 2**32 - 1) if "uf2_family" in table.left else None
    flashing = Flashing(
        methods,
        chip=table.maybe_text("chip"),
        pack=table.flag("pack") if "pack" in table.left else False,
        uf2_family=family,
        volume=table.maybe_text("volume"),
        volume_file=table.maybe_text("volume_file", VOLUME_FILES),
        volume_ids=table.texts("volume_ids") if "volume_ids" in table.left else (),
        how=table.maybe_text("how"),
    )
    table.done()
    needs = {"pyocd": ("chip",), "uf2": ("uf2_family",), "volume": ("volume", "volume_file")}
    for method in methods:
        for key in needs[method]:
            if getattr(flashing, key) is None:
                raise table.fail(key, f"is missing: method {method!r} needs it")
    if flashing.volume_file == "uf2" and family is None:
        raise table.fail("uf2_family", "is missing: a volume that takes uf2 needs it")
    return flashing


def _usb(root: _Table) -> Usb | None:
    table = root.maybe_table("usb")
    if table is None:
        return None
    ids = table.texts("ids") if "ids" in table.left else ()
    for found in ids:
        if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", found):
            raise table.fail("ids", 'must be texts "0d28:0204", vendor and product in hex', found)
    usb = Usb(ids, table.maybe_text("serial"))
    table.done()
    return usb


def _boot(root: _Table) -> str | None:
    table = root.maybe_table("boot")
    if table is None:
        return None
    kind = table.text("kind", BOOTS)
    table.done()
    return kind


def _board(root: _Table, path: Path, of_bundle: bool) -> Board:
    name = root.text("name")
    if not of_bundle and name != path.stem:
        raise root.fail("name", f"must be the file's name, {_shown(path.stem)}", name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise root.fail("name", "must be of letters, digits, '.', '_' and '-'", name)
    title, target = root.text("title"), root.text("target", CORES)
    also_runs = root.texts("also_runs") if "also_runs" in root.left else ()
    if not set(also_runs) <= set(CORES):
        raise root.fail("also_runs", f"must be some of {', '.join(CORES)}", list(also_runs))
    clock_hz = root.number("clock_hz", 1, 2**32 - 1)
    stack_bytes = root.number("stack_bytes", 1024, 2**24)
    if stack_bytes % 8:
        raise root.fail("stack_bytes", "must be a multiple of 8", stack_bytes)
    sources, options = _sources(root, path, not of_bundle), _options(root)
    memory = root.table("memory")
    flash = _region(memory.table("flash"), _FLASH_STEP)
    ram = _region(memory.table("ram"), _RAM_STEP)
    memory.done()
    if flash.origin < ram.origin + ram.length and ram.origin < flash.origin + flash.length:
        raise root.fail("memory", "flash and ram overlap")
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
    if uart.baud > uart.clock_hz:
        raise table.fail("baud", f"must be at most clock_hz, {uart.clock_hz}", uart.baud)
    table = root.table("counter")
    kind = table.text("kind", COUNTERS)
    counter = Counter(
        kind,
        table.number("hz", 1, 2**31 - 1),  # below: esnn_mlperf.h adds a second's ticks to another's
        table.text("unit", UNITS),
        table.exact("per_tick", 1, 10**6),
        COUNTERS[kind],
    )
    table.done()
    if not of_bundle:
        _check_counter(root, kind, sources)
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
    watchdog, flashing = _watchdog(root, path, not of_bundle, sources), _flashing(root)
    usb, boot, run_on = _usb(root), _boot(root), root.maybe_text("run_on")
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
        path=_absolute(path),
        also_runs=also_runs,
        options=options,
        emulator=emulator,
        power=power,
        watchdog=watchdog,
        flashing=flashing,
        usb=usb,
        boot=boot,
        run_on=run_on,
    )


def read_board(path: Path, *, of_bundle: bool = False) -> Board:
    """Read and check one board file. EdgesnnError names the file and the key.

    of_bundle: a bundle's copy, whose file has not the board's name and whose C files need not be there.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise EdgesnnError(f"{path}: {e.strerror or e}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise EdgesnnError(f"{path}: not a TOML file: {e}") from None
    except (ValueError, RecursionError):
        raise EdgesnnError(f"{path}: a number or a nesting of brackets in it is too long") from None
    return _board(_Table(str(path), values), path, of_bundle)


def _files() -> dict[str, Path]:
    """The board file of each name: this package's, and those of the folders in EDGESNN_BOARDS."""
    found = {path.stem: path for path in BOARDS_DIR.glob("*.toml")}
    for folder in filter(None, os.environ.get(BOARDS_VARIABLE, "").split(os.pathsep)):
        if not os.path.isdir(folder):
            raise UsageError(f"{BOARDS_VARIABLE} names {folder}, which is not a folder")
        for path in sorted(Path(folder).glob("*.toml")):
            other = found.setdefault(path.stem, path)
            if _absolute(other) != _absolute(path):
                raise UsageError(
                    f"two boards are called {path.stem}: {other} and {path}; rename your own"
                )
    return dict(sorted(found.items()))


def list_boards() -> list[Board]:
    """Every board of this package and of EDGESNN_BOARDS, by name."""
    return [read_board(path) for path in _files().values()]


def load_board(name: str) -> Board:
    """The board of this name, or of this board file (a path that ends in .toml).

    UsageError: there is none, and what there is; EdgesnnError: what is wrong with a file.
    """
    if name.endswith(".toml"):
        if not os.path.isfile(name):  # also where the name itself is impossible
            raise UsageError(
                f"there is no board file {name}; `edgesnn boards` lists what needs none"
            )
        return read_board(Path(name))
    files = _files()
    if name not in files:
        hint = did_you_mean(name, files)
        choices = f"; choose one of: {', '.join(files)}, or name a board file (.toml)"
        raise UsageError(f"unknown board {name!r}{hint or choices}")
    return read_board(files[name])
