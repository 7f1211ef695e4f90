"""A pipeline of signed spikes on an emulated board: the C interface in a firmware that is not ours."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.exits import narrowing
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_css import random_css_program
from edgesnn.targets.board import BSP_DIR, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain

HERE = Path(__file__).parent
FRAMES = 12
SOURCES = ("esnn.c", "model.c", "kernels.c")

needs_board = pytest.mark.skipif(
    not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")),
    reason="needs qemu-system-arm and arm-none-eabi-gcc",
)
HOST_UART = """#include <stdint.h>
#include <stdio.h>
void bsp_uart_put(uint8_t byte);
void bsp_uart_put(uint8_t byte) { putchar(byte); }
"""


def frame(program: ir.Program, seed: int) -> np.ndarray:
    """The same pseudo-random samples as in pipeline.c."""
    state, out = seed, []
    for _ in range(ir.size(program.input.shape)):
        state = (1664525 * state + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return np.array(out, dtype=np.uint8).reshape(program.input.shape)


def said(emulator: Emulator) -> list[str]:
    """What the firmware prints, up to "end"."""
    where, data = urlsplit(emulator.url), b""
    deadline = time.monotonic() + 60
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as link:
        while not data.endswith(b"end\n") and time.monotonic() < deadline:
            data += link.recv(4096)
    return data.decode().splitlines()[:-1]


def overlapping(exit: str, narrowed: bool = False) -> ir.Program:
    """A program whose frames overlap in the pipeline."""
    drawn = (random_css_program(seed) for seed in range(100, 300))
    program = next(
        p
        for p in drawn
        if p.timesteps > ir.period(p) > 4
        and p.classes > 1
        and ir.silent_steps(p)
        and (narrowing(p) is not None) == narrowed
    )
    margins = (2**31 - 1,) * ir.coding_steps(program) if exit == "margin" else ()
    return replace(program, readout=ir.Css(exit, margins))


def answers(program: ir.Program) -> list[list[int]]:
    """Class and stopping step of every frame, one after the other."""
    engine = Interpreter(program)
    found = [engine.infer(frame(program, i + 1)) for i in range(FRAMES)]
    return [[d.label, d.step] for d in found]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the sanitisers come with gcc")
@pytest.mark.parametrize(
    ("exit", "narrowed"), [("sound", False), ("sound", True), ("margin", False)]
)
def test_an_overlapping_pipeline_is_clean(exit: str, narrowed: bool, tmp_path: Path) -> None:
    """Under the address and undefined-behaviour sanitisers, on this machine."""
    program = overlapping(exit, narrowed)
    bundle = compile_program(program, "cpu", out=tmp_path / "b")
    (tmp_path / "uart.c").write_text(HOST_UART)
    shutil.copy(HERE / "pipeline.c", tmp_path / "main.c")
    source = bundle.path / "src"
    files = [tmp_path / "main.c", tmp_path / "uart.c", *(source / f for f in SOURCES)]
    flags = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    words = ["gcc", *flags, "-I", source, "-I", BSP_DIR, *files, "-o", tmp_path / "pipeline"]
    subprocess.run([str(word) for word in words], check=True)
    done = subprocess.run([str(tmp_path / "pipeline")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [[int(word) for word in line.split()] for line in done.stdout.splitlines()[:-1]]
    assert [row[:2] for row in rows] == answers(program)


@needs_board
@pytest.mark.parametrize("exit", ["never", "sound"])
def test_frames_overlap_on_the_board(exit: str, tmp_path: Path) -> None:
    program = overlapping(exit)
    board = load_board("mps2-an386")
    bundle = compile_program(program, board=board.name, out=tmp_path / "b")
    tools = find_toolchain(find_target(board.target))
    flags = ["-std=c99", "-O2", "-ffreestanding", *board.cflags, "-I", str(bundle.path / "src")]
    flags += [word for folder in board.includes for word in ("-I", str(folder))]
    objects = []
    shutil.copy(HERE / "pipeline.c", tmp_path / "main.c")  # beside it lies another model.h
    for source in (tmp_path / "main.c", *board.sources):
        objects.append(f"{source.stem}.o")
        tools.compile(str(source), objects[-1], flags, tmp_path)
    (tmp_path / "link.ld").write_text(board.linker_script())
    objects += [str(bundle.path / "lib" / "libmodel.a"), *tools.support]
    tools.link(objects, "firmware.elf", [*board.ldflags, "-T", "link.ld"], tmp_path)
    with Emulator(board, tmp_path / "firmware.elf") as emulator:
        lines = [[int(word) for word in line.split()] for line in said(emulator)]
    assert [row[:2] for row in lines] == answers(program)
    ends = [row[2] for row in lines]
    if exit == "never":
        assert ends[0] == program.timesteps
        assert np.all(np.diff(ends) == ir.period(program))  # a frame in T + silent steps
