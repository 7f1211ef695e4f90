"""`make bench [MODELS="a.pt zoo:b"] [IMAGES=n] [CORES="cortex-m4 ..."]`: what models cost, measured.

Start-up times and host inference are wall-clock times of this machine and noisy. Then a table per core that has
an emulated board, of exact instruction counts: this project; the same topology as a dense int8 network through
the same TVM and compiler (baseline/, not trained: no accuracy); and, for the networks that they are known of,
constants of CMSIS-NN (cmsis_nn.json has their provenance). RAM and flash are the network's own: activations or
arena, code and tables, without stack, board support and link. --layers adds a line per layer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baseline.firmware import Measured, candidates, flash_bytes
from baseline.firmware import measure as measure_baseline
from baseline.net import Layer, Net, dense_net

from edgesnn import api
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.ir import Program
from edgesnn.compiler.text import from_text
from edgesnn.data import load
from edgesnn.evaluate import Tally, random_frames
from edgesnn.profiling import spread
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.session import Session
from edgesnn.targets.board import Board, list_boards
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS, Target, find_target
from edgesnn.targets.toolchain import find_toolchain

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden" / "samples.program"
DEFAULT_MODELS = ("golden", "zoo:digits")
START_LIMIT = 0.3  # seconds
RUNS = 7
FRAMES = 100
LAYER_IMAGES = 20


@dataclass(frozen=True)
class Model:
    """A program and the images it is measured on; y is None for random frames."""

    name: str
    program: Program
    x: np.ndarray | None
    y: np.ndarray | None
    images: str


def start_up(arguments: list[str]) -> float:
    """Median wall-clock seconds of a fresh Python with these arguments."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def load_model(name: str, images: int) -> Model:
    """A model with the first `images` of its own data's test split, else random frames."""
    if name == "golden":
        program = from_text(GOLDEN.read_text(encoding="utf-8"))
        return Model(name, program, None, None, f"{images} random frames")
    program = api.load_program(name)
    path = api.model_file(name)
    if path.suffix == ".pt":
        from edgesnn.checkpoint import load_checkpoint

        data = load_checkpoint(path).data
        try:
            found = load(data, "test")
            x, y = found.x[:images], found.y[:images]
            return Model(name, program, x, y, f"first {len(x)} of {data} test")
        except EdgesnnError as e:
            print(f"{name}: random frames instead of its data: {e}")
    return Model(name, program, None, None, f"{images} random frames")


def boards(cores: list[str]) -> Iterator[tuple[Target, Board]]:
    """Every core (or those named) with an emulated board; a line for each that cannot be measured here."""
    every = [board for board in list_boards() if board.emulator is not None]
    chosen = [find_target(core) for core in cores] or [t for t in TARGETS if t.kind == "mcu"]
    for target in chosen:
        fitting = [b for b in every if b.name == target.board]
        if not fitting:
            print(f"\n{target.name}: skipped, no emulated board")
            continue
        board = fitting[0]
        emulator = board.emulator
        if emulator is None or shutil.which(emulator.program) is None:
            package = emulator.package if emulator is not None else "an emulator"
            print(f"\n{target.name}: skipped, install {package} for its board {board.name}")
            continue
        try:
            find_toolchain(target)
        except EdgesnnError as e:
            print(f"\n{target.name}: skipped, {e}")
            continue
        yield target, board


def host(model: Model, folder: Path) -> None:
    """Host inference and the interpreter, on random frames."""
    with Session(compile_program(model.program, "cpu", out=folder / "host")) as session:
        x = random_frames(session, FRAMES)
        session.classify(x[0])  # the first call loads pages and caches
        times = [session.classify(frame).seconds for frame in x]
    micro = spread(1e6 * np.array(times, dtype=float))
    reference = Interpreter(model.program)
    begin = time.perf_counter()
    for frame in x[:10]:
        reference.infer(frame)
    slow = 1e6 * (time.perf_counter() - begin) / 10
    print(f"\n{model.name}, {FRAMES} random frames on this machine")
    print(f"  host         {micro['mean']:12,.1f} us mean  {micro['p95']:12,.1f} us p95")
    print(f"  interpreter  {slow:12,.1f} us mean")


def archive_flash(path: Path) -> int:
    """Bytes of code and constants in a static library (the ar format: 60-byte headers, even offsets)."""
    data, at, total = path.read_bytes(), 8, 0
    while at < len(data):
        size = int(data[at + 48 : at + 58])
        member = data[at + 60 : at + 60 + size]
        total += flash_bytes(member) if member.startswith(b"\x7fELF") else 0
        at += 60 + size + size % 2
    return total


HEAD = (
    f"  {'':34}{'instructions':>14}{'':>13}{'SOPs':>11}{'encoder':>11}{'instr.':>8}"
    f"{'RAM':>9}{'flash':>10}{'accuracy':>10}\n"
    f"  {'':34}{'mean':>14}{'max':>13}{'or MACs':>11}{'MACs':>11}{'/SOP':>8}{'bytes':>9}{'bytes':>10}"
)


def row(
    label: str,
    mean: float,
    most: float,
    operations: float,
    encoder: str,
    ram: int,
    flash: int,
    accuracy: str = "–",
) -> None:
    per = f"{mean / operations:.2f}" if operations else "–"
    print(
        f"  {label:34}{mean:14,.0f}{most:13,.0f}{operations:11,.0f}{encoder:>11}{per:>8}"
        f"{ram:9,}{flash:10,}{accuracy:>10}"
    )


def ours(model: Model, target: Target, board: Board, options: Any, folder: Path) -> None:
    """Compile for the board, run every image there, print the row."""
    bundle = compile_program(model.program, target.name, board=board.name, out=folder)
    with Session(bundle) as session:
        x = model.x if model.x is not None else random_frames(session, options.images)
        tally, right, ticks = Tally(session), 0, []
        for i, sample in enumerate(x):
            decision = session.classify(sample)
            tally.add(decision)
            ticks.append(decision.ticks)
            right += model.y is not None and decision.label == int(model.y[i])
        count = spread(board.counter.per_tick * np.array(ticks, dtype=float))
        row(
            "edgesnn",
            count["mean"],
            count["max"],
            float(tally.sops.sum() / tally.count),
            f"{bundle.encoder_macs:,}",
            int(bundle.manifest["memory"]["arena_bytes"]),
            archive_flash(bundle.path / "lib" / "libmodel.a"),
            f"{100 * right / len(x):.1f} %" if model.y is not None else "–",
        )
        if options.layers:
            ours_by_layer(session, bundle, x[:LAYER_IMAGES], board.counter.per_tick)


def ours_by_layer(session: Session, bundle: Bundle, x: np.ndarray, per_tick: float) -> None:
    """Means over `x`, run node by node; the encoder's operations are its MACs."""
    ticks, sops = np.zeros(len(bundle.nodes)), np.zeros(len(bundle.nodes))
    for sample in x:
        decision = session.profile(sample)
        if decision.node_ticks is None:
            return
        ticks += np.array(decision.node_ticks) * per_tick / len(x)
        sops += decision.sops / len(x)
    encoders = [node.kind == "encoder" for node in bundle.nodes]
    if sum(encoders) == 1:
        sops += np.array(encoders) * bundle.encoder_macs
    for node, instructions, done in zip(bundle.nodes, ticks, sops, strict=True):
        per = f"{instructions / done:.2f}" if done else "–"
        label = f"    {node.name} (first {len(x)} images)"
        print(f"  {label:34}{instructions:14,.0f}{'':13}{done:11,.0f}{'':11}{per:>8}")


def dense(net: Net, board: Board, target: Target, layers: bool, folder: Path) -> None:
    """The baseline's row: the better of what GCC (or zig) and LLVM make of it, as this project may use both."""
    best: Measured | None = None
    for i, codegen in enumerate(candidates(target)):
        try:
            got = measure_baseline(net, board, target, codegen, folder / str(i))
        except EdgesnnError as e:
            print(f"  dense int8 baseline, TVM ({codegen}): {_short(e)}")
            continue
        if best is None or got.instructions < best.instructions:
            best = got
    if best is None:
        return
    count = np.array(best.instructions, dtype=float)
    label = f"dense int8 baseline, TVM ({best.codegen})"
    row(label, count.mean(), count.max(), net.macs, "", best.ram, best.flash)
    for name, macs, instructions in best.layers if layers else ():
        per = f"{instructions / macs:.2f}" if macs else "–"
        print(f"  {'    ' + name:34}{instructions:14,}{'':13}{macs:11,}{'':11}{per:>8}")


def _short(error: EdgesnnError) -> str:
    """Of a failed link what the linker says, without the paths before it."""
    return str(error).rsplit(" failed: ", 1)[-1].rsplit("/ld: ", 1)[-1]


def signature(net: Net) -> list[str]:
    """A network in the words of cmsis_nn.json."""
    words = ["x".join(map(str, net.source))]
    for layer in net.layers:
        if not isinstance(layer, Layer):
            kind = "mean-pool" if layer.mean else "max-pool"
            words.append(f"{kind} {layer.kernel[0]}x{layer.kernel[1]}/{layer.stride[0]}")
            continue
        o, kh, kw, _ = layer.weight.shape
        if layer.source[:2] == (1, 1) and (kh, kw) == (1, 1):
            words.append(f"dense {o}")
            continue
        same = layer.stride == (1, 1) and layer.padding == (kh // 2, kw // 2) * 2
        plain = same and layer.dilation == (1, 1) and layer.groups == 1
        words.append(f"conv {kh}x{kw}x{o} {'same' if plain else f'stride {layer.stride[0]}'}")
        if layer.pool != (1, 1):
            words.append(f"max-pool {layer.pool[0]}x{layer.pool[1]}")
    return words


def constants(net: Net, target: Target) -> bool:
    """CMSIS-NN's row, where this network is one of those measured; whether it was printed."""
    known: dict[str, Any] = json.loads((HERE / "cmsis_nn.json").read_text(encoding="utf-8"))
    for entry in known["nets"]:
        count = entry["instructions"].get(target.name)
        if entry["layers"] == signature(net) and count is not None:
            label = f"CMSIS-NN int8, {entry['name']} [1]"
            row(label, count, count, entry["macs"], "", entry["ram_bytes"], entry["flash_bytes"])
            print(f"  [1] {known['provenance']}")
            return True
    return False


def table(model: Model, target: Target, board: Board, options: Any, folder: Path) -> None:
    """One core's table for one model."""
    print(f"\n{model.name} on {target.name} ({board.name}, emulated), {model.images}")
    print(HEAD)
    try:
        ours(model, target, board, options, folder / "edgesnn")
    except EdgesnnError as e:
        print(f"  edgesnn: {_short(e)}")
    try:
        net = dense_net(model.program)
    except EdgesnnError as e:
        print(f"  dense int8 baseline: {e}")
        return
    dense(net, board, target, options.layers, folder)
    constants(net, target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--images", type=int, default=FRAMES, help="images per model and core")
    parser.add_argument("--cores", nargs="*", default=[], help="targets, by default all")
    parser.add_argument("--layers", action="store_true", help="a line per layer, too")
    options = parser.parse_args()
    if options.images < 1:
        parser.error("--images is at least 1")
    slow = False
    for label, arguments in (
        ("import edgesnn", ["-c", "import edgesnn"]),
        ("edgesnn --help", ["-c", "from edgesnn.cli import main; main(['--help'])"]),
    ):
        seconds = start_up(arguments)
        slow |= seconds >= START_LIMIT
        print(f"{label:16}{seconds:7.3f} s (limit {START_LIMIT} s)")
    models = [load_model(name, options.images) for name in options.models or DEFAULT_MODELS]
    with tempfile.TemporaryDirectory() as folder:
        for i, model in enumerate(models):
            host(model, Path(folder) / str(i))
        for target, board in boards(options.cores):
            for i, model in enumerate(models):
                table(model, target, board, options, Path(folder) / f"{i}-{target.name}")
    return int(slow)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
