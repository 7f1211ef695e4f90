"""The dense baseline as firmware of an emulated board: built like a model, measured, compared with numpy."""

from __future__ import annotations

import io
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from baseline import kernels
from baseline.net import Layer, Net, Pool, infer
from edgesnn.compiler.tir.codegen import c_source, write_object
from edgesnn.compiler.tir.kernel import C_TYPES, Kernel
from edgesnn.targets.board import Board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import Target
from edgesnn.targets.toolchain import find_toolchain

HERE = Path(__file__).resolve().parent
MAIN = HERE / "main.c"
TIMEOUT = 60.0  # seconds for all frames
FRAMES = 4  # enough to see that the count hardly depends on the values
# On top of a target's own flags: these passes spill the sums of a tile (M4, net B: 9.04 M, without 5.80 M).
_FLAGS = ("-fno-predictive-commoning", "-fno-tree-ter")
CODEGENS = ("c", "llvm", "llvm, dot")
_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "int32": 4}
_ALIGN = 8


@dataclass(frozen=True)
class Tuning:
    """What was found best for an instruction set: sums that a tile keeps, flags for GCC."""

    registers: int = 8
    flags: tuple[str, ...] = _FLAGS


TUNED = {
    "armv6-m": Tuning(registers=4),
    "riscv32imc": Tuning(registers=16, flags=(*_FLAGS, "-fno-schedule-insns")),
}


@dataclass(frozen=True)
class Measured:
    """instructions: per frame. layers: (name, MACs, instructions) of the last frame. flash, ram: bytes of the
    network alone: kernels, tables and calls; activations. codegen: which of the candidates this is.
    """

    instructions: tuple[int, ...]
    layers: tuple[tuple[str, int, int], ...]
    flash: int
    ram: int
    codegen: str


def frame(net: Net, seed: int) -> np.ndarray:
    """The frame that main.c fills in for `seed`: a small congruential generator."""
    count = int(np.prod(net.source)) * np.dtype(net.dtype).itemsize
    state, data = seed, bytearray()
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        data.append(state >> 24)
    return np.frombuffer(bytes(data), np.dtype(net.dtype).newbyteorder("<")).reshape(net.source)


def _border(net: Net, i: int) -> kernels.Border:
    """What layer i wants around its input; pools read maps without a border."""
    layer = net.layers[i] if i < len(net.layers) else None
    return layer.padding if isinstance(layer, Layer) else kernels.NO_BORDER


@dataclass(frozen=True)
class _Map:
    """A map between layers: elements, bytes, and what it is filled with first where it has a border."""

    dtype: str
    count: int
    zero_point: int | None

    @property
    def bytes(self) -> int:
        return -(-self.count * _BYTES[self.dtype] // _ALIGN) * _ALIGN

    @property
    def fill(self) -> int:
        """Four bytes of the zero point as an int32."""
        pattern = np.full(4 // _BYTES[self.dtype], self.zero_point or 0, self.dtype)
        return int(pattern.view(np.int32)[0])


def _map(shape: tuple[int, int, int], border: kernels.Border, dtype: str, zero_point: int) -> _Map:
    (h, w, c), (top, left, bottom, right) = shape, border
    count = (h + top + bottom) * (w + left + right) * c
    return _Map(dtype, count, zero_point if any(border) else None)


def emit(net: Net, registers: int, dot: bool) -> tuple[str, list[Kernel], int]:
    """(net.c, its kernels, bytes of the arena). Maps take turns at the two ends of the arena.

    dot: the vector machine's kernels, where they can; their scratch lies behind the maps.
    """
    border = _border(net, 0)
    maps = [_map(net.source, kernels.NO_BORDER, net.dtype, 0)]
    steps: list[tuple[str, Kernel, list[str]]] = []
    tables: list[str] = []
    scratch = 0
    if any(border):
        maps.append(_map(net.source, border, net.dtype, net.zero_point))
        steps.append(("pad", kernels.pad("dense_pad", net.source, net.dtype, border), []))
    for i, layer in enumerate(net.layers):
        border = _border(net, i + 1)
        arguments: list[str] = []
        if isinstance(layer, Pool):
            kernel = kernels.pool(f"dense_{i}", layer, border)
        else:
            arguments = [f"weights_{i}", f"bias_{i}", f"multiplier_{i}"]
            multiplier = layer.multiplier if layer.multiplier is not None else np.zeros(1, np.int32)
            if dot and kernels.takes_dot(layer):
                kernel = kernels.dot(f"dense_{i}", layer, border)
                weights, bias = kernels.dot_weights(layer)
                scratch = max(scratch, kernels.dot_scratch(layer))
            else:
                kernel = kernels.conv(f"dense_{i}", layer, border, registers)
                weights, bias = kernels.packed_weights(layer, registers), layer.bias
            arrays = zip(arguments, (weights, bias, multiplier), strict=True)
            tables += [_table(name, array) for name, array in arrays]
            if kernel.params[1].name == "scratch_p":
                arguments.insert(0, "(int8_t *)scratch")
        last = i == len(net.layers) - 1
        maps.append(_map(layer.target, border, "int32" if last else "int8", 0))
        steps.append((layer.name, kernel, arguments))
    arena = max(a.bytes + b.bytes for a, b in pairwise(maps))
    offsets = [0 if i % 2 == 0 else arena - m.bytes for i, m in enumerate(maps)]
    every = [kernel for _, kernel, _ in steps]
    bodies = []
    for i, (name, kernel, arguments) in enumerate(steps):
        into = maps[i + 1]
        lines = []
        if into.zero_point is not None:
            words = into.bytes // 4
            every.append(kernels.fill(f"dense_fill_{i}", words, into.fill))
            lines.append(f"  dense_fill_{i}((int32_t *)(arena + {offsets[i + 1]}));")
        call = [
            f"(const {C_TYPES[kernel.params[0].dtype]} *)(arena + {offsets[i]})",
            *arguments,
            f"({C_TYPES[into.dtype]} *)(arena + {offsets[i + 1]})",
        ]
        lines.append(f"  {kernel.symbol}({', '.join(call)});")
        bodies.append(f"static void step_{i}(void) {{ /* {name} */\n" + "\n".join(lines) + "\n}\n")
    frame_bytes = maps[0].count * _BYTES[maps[0].dtype]
    source = [
        '/* The dense int8 baseline of this repository, generated through Apache TVM. */\n#include "net.h"\n',
        *(f"{kernel.prototype()};" for kernel in every),
        *tables,
        f"static union {{ int64_t align; uint8_t bytes[{arena + scratch}]; }} memory;",
        "#define arena memory.bytes",
        f"#define scratch (memory.bytes + {arena})",
        *bodies,
        f"void (*const net_steps[])(void) = {{{', '.join(f'step_{i}' for i in range(len(steps)))}}};",
        f"const uint32_t net_frames = {FRAMES}u;",
        f"const uint32_t net_step_count = {len(steps)}u;",
        f"const uint32_t net_frame_bytes = {frame_bytes}u;",
        f"const uint32_t net_answers = {maps[-1].count}u;",
        "uint8_t *net_frame(void) { return arena; }",
        f"const int32_t *net_answer(void) {{ return (const int32_t *)(arena + {offsets[-1]}); }}",
    ]
    return "\n".join(source) + "\n", every, arena + scratch


def _table(name: str, array: np.ndarray) -> str:
    text = ", ".join(str(int(v)) for v in array)
    return f"static const {C_TYPES[str(array.dtype)]} {name}[{array.size}] = {{{text}}};"


def candidates(target: Target) -> tuple[str, ...]:
    """The variants to choose the best of: TVM's C or LLVM output, with MVE also by dot products."""
    return CODEGENS if target.mve else CODEGENS[:2]


def build(net: Net, board: Board, target: Target, codegen: str, folder: Path) -> tuple[int, int]:
    """Build folder/firmware.elf; (flash, RAM) bytes of the network alone. codegen: one of CODEGENS."""
    folder.mkdir(parents=True)
    tuning = TUNED.get(target.arch, Tuning())
    source, every, arena = emit(net, tuning.registers, codegen.endswith("dot"))
    shutil.copy(HERE / "net.h", folder / "net.h")
    (folder / "net.c").write_text(source, encoding="utf-8")
    tools = find_toolchain(target)
    base = ["-std=c99", "-ffreestanding", "-ffunction-sections", "-fdata-sections"]
    base += ["-I", ".", *(word for f in board.includes for word in ("-I", str(f)))]
    tools.compile("net.c", "net.o", [*base, "-O2"], folder)
    objects = ["net.o"]
    if codegen.startswith("c"):
        text = "#include <stdint.h>\n\n" + "\n".join(c_source(kernel) for kernel in every)
        (folder / "kernels.c").write_text(text, encoding="utf-8")
        flags = [*target.kernel_flags, *(tuning.flags if tools.kind == "gcc" else ())]
        tools.compile("kernels.c", "kernels.o", [*base, *flags], folder)
        objects.append("kernels.o")
    else:
        for kernel in every:
            objects.append(f"{kernel.symbol}.o")
            write_object(kernel, target, folder / objects[-1])
    flash = sum(flash_bytes((folder / name).read_bytes()) for name in objects)
    for path in (MAIN, *board.sources):
        objects.append(f"bsp_{path.stem}.o")
        tools.compile(str(path), objects[-1], [*base, "-O2", *board.cflags], folder)
    (folder / "link.ld").write_text(board.linker_script(), encoding="utf-8")
    if tools.kind == "gcc":
        objects.append("-lgcc")
    tools.link(objects, "firmware.elf", [*board.ldflags, "-T", "link.ld"], folder)
    return flash, arena


def flash_bytes(elf: bytes) -> int:
    """Bytes of an object that take flash: code and constants."""
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    total = 0
    for section in ELFFile(io.BytesIO(elf)).iter_sections():
        there = section["sh_flags"] & SH_FLAGS.SHF_ALLOC and not section.name.startswith(".ARM.ex")
        if there and section["sh_type"] != "SHT_NOBITS":
            total += int(section["sh_size"])
    return total


def measure(net: Net, board: Board, target: Target, codegen: str, folder: Path) -> Measured:
    """Build, run FRAMES frames emulated, compare. EdgesnnError where an output differs from numpy's."""
    flash, ram = build(net, board, target, codegen, folder)
    frames = np.stack([frame(net, seed) for seed in range(1, FRAMES + 1)])
    expected = infer(net, frames)
    instructions: list[int] = []
    steps: list[int] = []
    with Emulator(board, folder / "firmware.elf") as emulator:
        lines = _lines(emulator)
    per_tick = board.counter.per_tick
    for i, line in enumerate(lines):
        ticks, layers, answer = ([int(word) for word in part.split()] for part in line.split(":"))
        if answer != expected[i].tolist():
            raise EdgesnnError(
                f"{board.name}, dense baseline ({codegen}): {answer} is not {expected[i]}"
            )
        instructions.append(round(ticks[0] * per_tick))
        steps = [round(t * per_tick) for t in layers]
    names = [(layer.name, layer.macs) for layer in net.layers]
    if len(steps) > len(names):
        names.insert(0, ("pad", 0))
    layers_ = tuple((n, macs, count) for (n, macs), count in zip(names, steps, strict=True))
    return Measured(tuple(instructions), layers_, flash, ram, codegen)


def _lines(emulator: Emulator) -> Sequence[str]:
    """What the firmware says, up to "end"; the processor starts with the connection."""
    where, data = urlsplit(emulator.url), b""
    address, deadline = (where.hostname or "", where.port or 0), time.monotonic() + TIMEOUT
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as link:
            while not data.endswith(b"end\n") and time.monotonic() < deadline:
                got = link.recv(4096)
                if not got:
                    break
                data += got
    except OSError as e:
        data += f" ({e})".encode()
    lines = data.decode("ascii", "replace").splitlines()
    if lines[-1:] != ["end"] or len(lines) != FRAMES + 1:
        emulator.check()
        raise EdgesnnError(f"{emulator.board.name}: the dense baseline said {data[-80:]!r}")
    return lines[:-1]
