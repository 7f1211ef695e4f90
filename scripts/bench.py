"""`make bench [MODELS="a.pt b.esnn"]`: start-up times, host inference against the interpreter, M4 instructions.

Without MODELS the golden program is measured. Wall-clock times are this machine's and noisy, instruction
counts of the emulated board are exact.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgesnn import api
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.ir import Program
from edgesnn.compiler.text import from_text
from edgesnn.evaluate import random_frames
from edgesnn.profiling import spread
from edgesnn.runtime.session import Session
from edgesnn.targets.board import load_board
from edgesnn.targets.errors import EdgesnnError

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "samples.program"
BOARD = "mps2-an386"
START_LIMIT = 0.3  # seconds
RUNS = 7
FRAMES = 100


def start_up(arguments: list[str]) -> float:
    """Median wall-clock seconds of a fresh Python with these arguments."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(name: str, program: Program, folder: Path) -> None:
    """Host inference, the interpreter, and the emulated board, on the same random frames."""
    host = compile_program(program, "cpu", out=folder / f"{name}-cpu")
    with Session(host) as session:
        x = random_frames(session, FRAMES)
        session.classify(x[0])  # the first call loads pages and caches
        times = [session.classify(frame).seconds for frame in x]
    micro = spread(1e6 * np.array(times, dtype=float))
    reference = Interpreter(program)
    begin = time.perf_counter()
    for frame in x[:10]:
        reference.infer(frame)
    slow = 1e6 * (time.perf_counter() - begin) / 10
    print(f"{name}, {FRAMES} random frames")
    print(f"  host         {micro['mean']:12,.1f} us mean  {micro['p95']:12,.1f} us p95")
    print(f"  interpreter  {slow:12,.1f} us mean")
    board = load_board(BOARD)
    if board.emulator is None or shutil.which(board.emulator.program) is None:
        print(f"  {BOARD}: no emulator on this machine")
        return
    built = compile_program(program, None, board=BOARD, out=folder / f"{name}-board")
    with Session(built) as session:
        ticks = [session.classify(frame).ticks for frame in x]
    count = spread(board.counter.per_tick * np.array(ticks, dtype=float))
    print(f"  {BOARD}   {count['mean']:12,.0f} {board.counter.unit} mean  {count['max']:,.0f} max")


def main() -> int:
    slow = False
    for label, arguments in (
        ("import edgesnn", ["-c", "import edgesnn"]),
        ("edgesnn --help", ["-c", "from edgesnn.cli import main; main(['--help'])"]),
    ):
        seconds = start_up(arguments)
        slow |= seconds >= START_LIMIT
        print(f"{label:16}{seconds:7.3f} s (limit {START_LIMIT} s)")
    models = {Path(name).stem: api.load_program(name) for name in sys.argv[1:]}
    if not models:
        models = {"golden": from_text(GOLDEN.read_text(encoding="utf-8"))}
    with tempfile.TemporaryDirectory() as folder:
        for name, program in models.items():
            measure(name, program, Path(folder))
    return int(slow)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
