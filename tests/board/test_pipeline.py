"""A pipeline of signed spikes on an emulated board: the C interface in a firmware that is not ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.exits import narrowing
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_css import random_css_program
from edgesnn.targets.board import BSP_DIR, load_board

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
def test_an_overlapping_pipeline_is_clean(
    exit: str, narrowed: bool, tmp_path: Path, main_beside: Callable[[Path, str], Path]
) -> None:
    """Under the address and undefined-behaviour sanitisers, on this machine."""
    program = overlapping(exit, narrowed)
    bundle = compile_program(program, "cpu", out=tmp_path / "b")
    (tmp_path / "uart.c").write_text(HOST_UART)
    main = main_beside(tmp_path, "pipeline.c")
    source = bundle.path / "src"
    files = [main, tmp_path / "uart.c", *(source / f for f in SOURCES)]
    flags = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    words = ["gcc", *flags, "-I", source, "-I", BSP_DIR, *files, "-o", tmp_path / "pipeline"]
    subprocess.run([str(word) for word in words], check=True)
    done = subprocess.run([str(tmp_path / "pipeline")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [[int(word) for word in line.split()] for line in done.stdout.splitlines()[:-1]]
    assert [row[:2] for row in rows] == answers(program)


@needs_board
@pytest.mark.parametrize("exit", ["never", "sound"])
def test_frames_overlap_on_the_board(
    exit: str, tmp_path: Path, own_firmware: Callable[..., list[list[int]]]
) -> None:
    program = overlapping(exit)
    lines = own_firmware("pipeline.c", program, load_board("mps2-an386"), tmp_path)
    assert [row[:2] for row in lines] == answers(program)
    ends = [row[2] for row in lines]
    if exit == "never":
        assert ends[0] == program.timesteps
        assert np.all(np.diff(ends) == ir.period(program))  # a frame in T + silent steps
