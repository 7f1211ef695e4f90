"""The hand-written model of model.c: its answers, computed again, its firmware, its programs."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import edgesnn.runtime
from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.runtime.bundle import NodeInfo, StreamInfo
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain

HERE = Path(__file__).parent
CORE = Path(next(iter(edgesnn.runtime.__path__))) / "c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
CLASSES, STEPS, THRESHOLD = 12, 4, 60


@dataclass(frozen=True)
class HandModel:
    """What LinkEngine asks of a bundle."""

    input_kind: str = "samples"
    stream: StreamInfo | None = None
    input_shape: tuple[int, int, int] = (28, 28, 1)
    name: str = "test-model"
    model_id: bytes = bytes([0xA0, *range(1, 16)])
    timesteps: int = STEPS
    classes: int = CLASSES
    event_bytes: int = 2
    firmware: Path | None = None
    watchdog_ms: int | None = None
    nodes: tuple[NodeInfo, ...] = (
        NodeInfo("encoder", "encoder", (28, 28, 1), 784, 784),
        NodeInfo("output", "output", (1, 1, CLASSES), CLASSES, 0),
    )

    def check_sample(self, array: np.ndarray) -> np.ndarray:
        return array


@dataclass(frozen=True)
class Expected:
    label: int
    step: int
    exited: bool
    membranes: np.ndarray
    events: list[np.ndarray]  # per step, of the encoder


def expected(steps: list[np.ndarray]) -> Expected:
    """The answer to the addresses of each step."""
    u = np.zeros(CLASSES, np.int64)
    k = np.arange(CLASSES)
    for t, addresses in enumerate(steps, 1):
        for a in addresses:
            u += (a * 7 + k * 13) % 17 - 8
        if u.max() >= THRESHOLD or t == STEPS:
            return Expected(int(u.argmax()), t, bool(u.max() >= THRESHOLD), u, steps[:t])
    raise AssertionError("not enough steps")


def latency_steps(sample: np.ndarray) -> list[np.ndarray]:
    """Addresses per step of the encoder of model.c."""
    t = 1 + (255 - sample.reshape(-1).astype(np.int64)) // 64
    return [np.flatnonzero(t == step) for step in range(1, STEPS + 1)]


@pytest.fixture(scope="session")
def reference() -> Callable[[np.ndarray], Expected]:
    """Frame uint8[28, 28, 1] or events uint8[4, 28, 28, 1] -> answer."""

    def answer(sample: np.ndarray) -> Expected:
        if sample.ndim == 4:
            return expected([np.flatnonzero(step) for step in sample])
        return expected(latency_steps(sample))

    return answer


@pytest.fixture(scope="session")
def hand_model() -> type[HandModel]:
    return HandModel


@pytest.fixture(scope="session")
def board() -> Board:
    return load_board("mps2-an386")


@pytest.fixture(scope="session")
def link_pipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C side of the protocol as a host program, with sanitizers."""
    return build_pipe(tmp_path_factory.mktemp("pipe"))


STREAM = ("-DTEST_STREAM", "-DESNN_LINK_STREAM")


def build_pipe(folder: Path, *flags: str) -> Path:
    """link_pipe of the hand-written model."""
    cc = shutil.which("gcc") or shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler on PATH")
    out = folder / "link_pipe"
    own = [HERE / "link_pipe.c", HERE / "model.c"]
    sources = [*own, *(CORE / f for f in ("esnn.c", "esnn_link.c", *_stream_sources(flags)))]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    command = [cc, *STRICT, *sanitize, *flags, "-I", CORE, "-I", HERE, *sources, "-o", out]
    subprocess.run([str(c) for c in command], check=True)
    return out


def _stream_sources(flags: tuple[str, ...]) -> list[str]:
    return ["esnn_stream.c", "esnn_link_stream.c"] if "-DESNN_LINK_STREAM" in flags else []


@pytest.fixture(scope="session")
def stream_pipe() -> Callable[[Path, str], Path]:
    """stream_pipe(folder, kind) -> link_pipe of a model with a stream of "rows" or of "events"."""

    def build(folder: Path, kind: str) -> Path:
        flags = ("-DTEST_EVENT_INPUT",) if kind == "events" else ()
        return build_pipe(folder, *STREAM, *flags)

    return build


Firmware = Callable[..., Path]


def build_firmware(board: Board, folder: Path, flags: tuple[str, ...], tools: str = "gcc") -> Path:
    """firmware.elf of the hand-written model for a board."""
    toolchain = find_toolchain(find_target(board.target), tools)
    (folder / "link.ld").write_text(board.linker_script())
    core = ("esnn.c", "esnn_link.c", *_stream_sources(flags), "firmware.c")
    own = [HERE / "model.c", *(CORE / f for f in core)]
    include = [f"-I{folder}" for folder in (*board.includes, CORE, HERE)]
    objects = []
    watched = any(flag.startswith("-DBSP_WATCHDOG_MS") for flag in flags)
    dog = [board.watchdog.source] if watched and board.watchdog is not None else []
    for i, source in enumerate([*own, *board.sources, *dog]):
        objects.append(f"{i}.o")
        every = ["-O2", *board.cflags, *STRICT, *include, *flags]
        toolchain.compile(str(source), objects[-1], every, folder)
    objects += toolchain.support
    toolchain.link(objects, "firmware.elf", [*board.ldflags, "-T", "link.ld"], folder)
    return folder / "firmware.elf"


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory, board: Board) -> Firmware:
    """firmware(*flags, tools="gcc", on=board) -> firmware.elf of the hand-written model."""
    built: dict[tuple[str, ...], Path] = {}

    def build(*flags: str, tools: str = "gcc", on: Board = board) -> Path:
        key = (on.name, tools, *flags)
        if key not in built:
            try:
                find_toolchain(find_target(on.target), tools)
            except EdgesnnError as e:
                pytest.skip(str(e))
            built[key] = build_firmware(on, tmp_path_factory.mktemp("firmware"), flags, tools)
        return built[key]

    return build


@pytest.fixture(scope="session")
def emulator_program(board: Board) -> str:
    assert board.emulator is not None
    program = shutil.which(board.emulator.program)
    if program is None:
        pytest.skip(f"{board.emulator.program} is not on PATH")
    return program


OwnFirmware = Callable[[str, ir.Program, Board, Path], list[list[int]]]


def said(emulator: Emulator) -> list[str]:
    """What the firmware prints, up to "end"."""
    where, data = urlsplit(emulator.url), b""
    deadline = time.monotonic() + 60
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as link:
        while not data.endswith(b"end\n") and time.monotonic() < deadline:
            data += link.recv(4096)
    return data.decode().splitlines()[:-1]


def beside(folder: Path, main: str) -> Path:
    """main.c in a folder of its own: where it comes from lies another model.h."""
    shutil.copy(HERE / "say.h", folder / "say.h")
    return Path(shutil.copy(HERE / main, folder / "main.c"))


@pytest.fixture(scope="session")
def main_beside() -> Callable[[Path, str], Path]:
    return beside


@pytest.fixture(scope="session")
def own_firmware() -> OwnFirmware:
    """own_firmware(main, program, board, folder) -> the numbers of every line that it prints, emulated."""

    def run(main: str, program: ir.Program, board: Board, folder: Path) -> list[list[int]]:
        bundle = compile_program(program, board=board.name, out=folder / "b")
        tools = find_toolchain(find_target(board.target))
        flags = ["-std=c99", "-O2", "-ffreestanding", *board.cflags, "-I", str(bundle.path / "src")]
        flags += [word for place in board.includes for word in ("-I", str(place))]
        objects = []
        for source in (beside(folder, main), *board.sources):
            objects.append(f"{source.stem}.o")
            tools.compile(str(source), objects[-1], flags, folder)
        (folder / "link.ld").write_text(board.linker_script())
        objects += [str(bundle.path / "lib" / "libmodel.a"), *tools.support]
        tools.link(objects, "firmware.elf", [*board.ldflags, "-T", "link.ld"], folder)
        with Emulator(board, folder / "firmware.elf") as emulator:
            return [[int(word) for word in line.split()] for line in said(emulator)]

    return run


class BadWire:
    """Loses or alters one byte in `of`, the same ones for the same seed; `harm` counts them."""

    def __init__(self, seed: int, of: int) -> None:
        self.harm = 0
        self._rng, self._of = random.Random(seed), of

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._rng.randrange(self._of):
                out.append(byte)
            else:
                self.harm += 1
                if self._rng.randrange(2):
                    out.append(self._rng.randrange(256))
        return bytes(out)


@pytest.fixture(scope="session")
def bad_wire() -> type[BadWire]:
    return BadWire
