"""Boards that nothing emulates: their firmware links into their memory and starts as the chip wants it.

None of them is run here, but for two whose image runs on QEMU's machine of the same chip.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

import edgesnn.runtime
from edgesnn.api import load_program
from edgesnn.compiler.boot import boot_crc, finish_boot
from edgesnn.compiler.build import compile_program
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, Region, list_boards, load_board, read_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain

CORE = Path(next(iter(edgesnn.runtime.__path__))) / "c"
REAL = [board for board in list_boards() if board.emulator is None]
NAMES = {board.name for board in REAL}
assert {"microbit-v1", "microbit-v2", "nrf52840-dk", "pico", "pico2", "hifive1-revb"} <= NAMES

BOOT_BYTES = 256  # before the vectors, where the chip has a boot block
BLOCK_START, BLOCK_END = 0xFFFFDED3, 0xAB123579
IMAGE_TYPE, VECTOR_TABLE, LAST = 0x42, 0x03, 0xFF

# The machine of the same chip with the same memory.
TWINS = {"microbit-v1": "microbit", "hifive1-revb": "sifive_e"}


@dataclass(frozen=True)
class Image:
    """What is looked at in a linked firmware. flash: what lies there from the region's first byte on."""

    entry: int
    flash: bytes
    symbols: dict[str, int]
    undefined: list[str]
    sections: list[tuple[str, Region, bool]]  # where it runs; whether flash holds its bytes
    loads: list[Region]

    def word(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.flash, at)[0])


def read_image(board: Board, path: Path) -> Image:
    with path.open("rb") as f:
        elf = ELFFile(f)
        loads, flash = [], bytearray()
        for segment in elf.iter_segments("PT_LOAD"):
            if segment["p_filesz"]:
                loads.append(Region(segment["p_paddr"], segment["p_filesz"]))
                at = segment["p_paddr"] - board.flash.origin
                assert at >= 0
                flash.extend(b"\xff" * (at + segment["p_filesz"] - len(flash)))
                flash[at : at + segment["p_filesz"]] = segment.data()
        sections = [
            (s.name, Region(s["sh_addr"], s["sh_size"]), s["sh_type"] != "SHT_NOBITS")
            for s in elf.iter_sections()
            if s["sh_flags"] & 2 and s["sh_size"]
        ]
        table = list(elf.get_section_by_name(".symtab").iter_symbols())
        symbols = {s.name: s["st_value"] for s in table if s["st_shndx"] != "SHN_UNDEF"}
        undefined = [s.name for s in table if s["st_shndx"] == "SHN_UNDEF" and s.name]
        return Image(elf["e_entry"], bytes(flash), symbols, undefined, sections, loads)


def inside(inner: Region, outer: Region) -> bool:
    end = inner.origin + inner.length
    return outer.origin <= inner.origin and end <= outer.origin + outer.length


def check(board: Board, path: Path) -> None:
    """The whole image: where it lies, where it starts, what the boot ROM reads."""
    image = read_image(board, path)
    assert image.undefined == []
    assert image.loads and all(inside(load, board.flash) for load in image.loads)
    for name, region, loaded in image.sections:
        assert inside(region, board.ram) or (loaded and inside(region, board.flash)), name
    assert {name: r.length for name, r, _ in image.sections}[".stack"] == board.stack_bytes
    stack = image.symbols["bsp_stack_top"]
    assert stack % 8 == 0 and inside(
        Region(stack - board.stack_bytes, board.stack_bytes), board.ram
    )
    reset = image.symbols["bsp_reset"]
    assert image.entry == reset
    if find_target(board.target).arch.startswith("riscv"):
        assert reset == board.flash.origin
    else:
        fault = image.symbols["bsp_fault"]
        assert reset % 2 == fault % 2 == 1  # Thumb
        assert inside(Region(reset - 1, 2), board.flash)
        start = BOOT_BYTES if board.boot else 0
        words = [image.word(start + 4 * i) for i in range(16)]
        assert words == [stack, reset, *[fault] * 14]
    if board.boot == "rp2040":
        assert image.word(252) == remainder(image.flash[:252])
    elif board.boot == "rp2350":
        check_block(board, image)


def remainder(data: bytes) -> int:
    """CRC-32 by its definition: the message, its first 32 bits inverted, modulo the polynomial."""
    value = (int.from_bytes(data, "big") ^ 0xFFFFFFFF << 8 * len(data) - 32) << 32
    for bit in range(8 * len(data) + 31, 31, -1):
        if value >> bit & 1:
            value ^= 0x104C11DB7 << bit - 32
    return value


def check_block(board: Board, image: Image) -> None:
    """RP2350's block of metadata: found within 4 KB, well-formed, of an executable for the Arm cores."""
    words = [image.word(at) for at in range(0, 4096, 4)]
    assert words.count(BLOCK_START) == 1
    at = first = words.index(BLOCK_START) + 1
    items: dict[int, list[int]] = {}
    while words[at] & 0xFF != LAST:
        count = words[at] >> 8 & 0xFF
        assert count >= 1
        items[words[at] & 0xFF] = words[at : at + count]
        at += count
    assert words[at] >> 8 & 0xFFFF == at - first  # the last item knows how many words precede it
    assert words[at + 1 : at + 3] == [0, BLOCK_END]  # a loop of this block alone
    assert items == {
        IMAGE_TYPE: [0x10210142],  # executable, secure, Arm, RP2350
        VECTOR_TABLE: [0x00000203, board.flash.origin + BOOT_BYTES],
    }


def tools_or_skip(board: Board) -> Any:
    try:
        return find_toolchain(find_target(board.target))
    except EdgesnnError as e:
        pytest.skip(str(e))


@pytest.fixture(params=REAL, ids=lambda board: board.name)
def real(request: pytest.FixtureRequest) -> Board:
    board: Board = request.param
    tools_or_skip(board)
    return board


def test_a_small_program_links_and_starts(real: Board, firmware: Callable[..., Path]) -> None:
    elf = firmware(on=real)
    finish_boot(elf, real)
    check(real, elf)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Board], Bundle]:
    """digits(board) -> zoo:digits for this board, or for the first that has its core."""
    program = load_program("zoo:digits")
    made: dict[str, Bundle] = {}

    def build(board: Board) -> Bundle:
        if board.target not in made:
            out = tmp_path_factory.mktemp("digits") / "b"
            made[board.target] = compile_program(program, board=board.name, out=out)
        return made[board.target]

    return build


def link_again(board: Board, bundle: Bundle, folder: Path) -> Path:
    """The bundle's model with another board's support."""
    tools = tools_or_skip(board)
    flags = ["-O2", *board.cflags, "-I", str(bundle.path / "src"), "-I", str(CORE)]
    flags += [word for place in board.includes for word in ("-I", str(place))]
    objects = []
    for source in (*board.sources, CORE / "esnn_link.c", CORE / "firmware.c"):
        objects.append(f"{source.stem}.o")
        tools.compile(str(source), objects[-1], flags, folder)
    objects += [str(bundle.path / "lib" / "libmodel.a"), *tools.support]
    (folder / "link.ld").write_text(board.linker_script())
    tools.link(objects, "firmware.elf", [*board.ldflags, "-T", "link.ld"], folder)
    finish_boot(folder / "firmware.elf", board)
    return folder / "firmware.elf"


def test_digits_fits(real: Board, digits: Callable[[Board], Bundle], tmp_path: Path) -> None:
    bundle = digits(real)
    if bundle.board == real.name:
        assert bundle.firmware is not None
        elf = bundle.firmware
        image = (bundle.path / "firmware.bin").read_bytes()
        assert image == read_image(real, elf).flash  # with what was put in after linking
    else:
        elf = link_again(real, bundle, tmp_path)
    check(real, elf)


def test_crc_of_a_boot_block() -> None:
    assert boot_crc(b"123456789") == 0x0376E6E7  # the check value of CRC-32/MPEG-2
    for n in (4, 5, 252):
        data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8).tobytes()
        assert boot_crc(data) == remainder(data)


def with_sources(name: str, folder: Path, *changes: tuple[str, str]) -> Board:
    """A board of this package with some of its file's text replaced."""
    text = load_board(name).path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / f"{name}.toml").write_text(text)
    return read_board(folder / f"{name}.toml")


RP2040 = '"boot_rp2040.c",', '[boot]\nkind = "rp2040"\n'


@pytest.mark.parametrize("tools", ["gcc", "zig"])
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "pico",
            [(RP2040[0], "")],
            "boot.kind: is rp2040, the sources' section .boot is not there",
        ),
        (
            "pico",
            [(RP2040[1], "")],
            "boot.kind: is not there, the sources' section .boot is rp2040",
        ),
        ("pico", [(RP2040[0], '"boot_rp2350.c",')], "boot.kind: is rp2040, .* .boot is rp2350"),
        ("pico2", [('"rp2350"', '"rp2040"')], "boot.kind: is rp2040, .* .boot is rp2350"),
        (
            "pico2",
            [('"boot_rp2350.c",', '"boot_rp2040.c",')],
            "boot.kind: is rp2350, .* .boot is rp2040",
        ),
        (
            "pico2",
            [('"boot_rp2350.c",', '"boot_rp2350.c", "boot_rp2040.c",')],
            "boot.kind: is rp2350, .* .boot is neither chip's",
        ),
        (
            "nrf52840-dk",
            [('"cortex_m/startup.c",', "")],
            "sources: none has bsp_reset; add cortex_m",
        ),
        ("hifive1-revb", [('"riscv/startup.c",', "")], "sources: none has bsp_reset; add cortex_m"),
    ],
)
def test_sources_that_do_not_start_the_chip(
    name: str, changes: list[tuple[str, str]], said: str, tools: str, tmp_path: Path
) -> None:
    board = with_sources(name, tmp_path, *changes)
    try:
        toolchain = find_toolchain(find_target(board.target), tools)
    except EdgesnnError as e:
        pytest.skip(str(e))
    (tmp_path / "link.ld").write_text(board.linker_script())
    flags = ["-O2", *board.cflags, *(f"-I{folder}" for folder in board.includes)]
    objects = [f"{file.stem}.o" for file in [*board.sources, Path("own.c")]]
    own = "void bsp_on_fault(const unsigned *w, unsigned n) { (void)w; (void)n; for (;;) {} }\n"
    (tmp_path / "own.c").write_text("int main(void) { return 0; }\n" + own)
    for file in [*board.sources, tmp_path / "own.c"]:
        toolchain.compile(str(file), f"{file.stem}.o", flags, tmp_path)
    toolchain.link(
        [*objects, *toolchain.support],
        "firmware.elf",
        [*board.ldflags, "-T", "link.ld"],
        tmp_path,
    )
    with pytest.raises(EdgesnnError, match=re.escape(str(board.path)) + ": " + said) as e:
        finish_boot(tmp_path / "firmware.elf", board)
    assert "\n" not in str(e.value)


def test_a_real_board_is_described_soundly(real: Board) -> None:
    assert real.counter.unit == "cycles" and real.counter.exact == 1
    assert real.counter.hz == real.clock_hz
    assert real.uart.base % 0x400 == 0 and 0x10000000 <= real.uart.base < 0x60000000
    assert real.uart.irq < 240
    assert 16 * real.uart.baud <= real.uart.clock_hz <= real.clock_hz
    assert real.flash.length >= 256 * 1024 and real.ram.length >= 16 * 1024
    pins = [real.defines.get(f"BSP_UART_{way}_PIN", way) for way in ("TX", "RX")]
    assert pins[0] != pins[1]
    assert real.flashing is not None and real.usb is not None and real.usb.serial
    assert real.run_on is None or real.run_on.startswith("qemu ")  # nobody has run it on the board
    assert real.run_on is not None or real.name not in TWINS


@pytest.mark.parametrize("name", TWINS)
def test_the_same_image_runs_on_the_emulated_chip(
    name: str,
    firmware: Callable[..., Path],
    hand_model: Any,
    reference: Callable[..., Any],
) -> None:
    board, twin = load_board(name), load_board(TWINS[name])
    assert (board.flash, board.ram) == (twin.flash, twin.ram)
    assert twin.emulator is not None
    if shutil.which(twin.emulator.program) is None:
        pytest.skip(f"{twin.emulator.program} is not on PATH")
    tools_or_skip(board)
    sample = np.random.default_rng(6).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    want = reference(sample)
    with (
        Emulator(twin, firmware(on=board)) as emulator,
        LinkEngine(
            hand_model(), emulator.url, watch=emulator.check, counter=board.counter
        ) as engine,
    ):
        found = engine.infer(sample)
    assert (found.label, found.step, found.exited) == (want.label, want.step, want.exited)
    assert found.membranes.tolist() == want.membranes.tolist()
