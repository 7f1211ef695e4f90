"""What an event costs: instructions per synaptic operation of 64 output channels, on each emulated core.

`python scripts/bench_events.py [TARGET ...]` sends random events of several densities into a population and
subtracts what the same population costs without events; both counts are exact to a tick of the board's counter.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.runtime.session import Session
from edgesnn.targets.board import load_board
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS, find_target

OUTPUTS = 64
MAP, VECTOR = (14, 14, 16), (1, 1, 256)
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REPEATS = 3


def program(kind: str, reach: int, rng: np.random.Generator) -> ir.Program:
    """Events of a source into 64 channels by "3x3", "5x5" or "dense"; weights of -reach...reach."""

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-reach, reach + 1, size=shape).astype(np.int8)

    source = VECTOR if kind == "dense" else MAP
    p: ir.Projection
    if kind == "dense":
        p, target = ir.Dense("input", weights(OUTPUTS, ir.size(source))), (1, 1, OUTPUTS)
    else:
        k = int(kind[0])
        pad = (k // 2,) * 4
        p = ir.Conv("input", weights(OUTPUTS, k, k, source[2]), padding=pad)
        target = (*source[:2], OUTPUTS)
    bias = np.zeros(OUTPUTS, dtype=np.int32)
    silent = np.full(OUTPUTS, 2**14, dtype=np.int32)  # no sum of so few weights gets there
    layer = ir.Lif("layer", (p,), ((1, 1),), silent, bias)
    read = ir.Dense("layer", weights(2, ir.size(target)))
    output = ir.Accumulator("output", (read,), (((1, 0),),), np.zeros(2, dtype=np.int32))
    return ir.Program(
        name=f"{kind}-{reach}",
        nodes=(ir.EventInput("input", source), layer, output),
        readout=ir.Rate(),
        timesteps=1,
    )


def measure(target: str, kind: str, reach: int, folder: Path) -> list[float]:
    """Instructions per synaptic operation at each density."""
    rng = np.random.default_rng(0)
    board = load_board(str(find_target(target).board))
    bundle = compile_program(program(kind, reach, rng), target, board=board.name, out=folder / "b")
    out = []
    with Session(bundle) as session:

        def cost(events: np.ndarray) -> tuple[float, float]:
            found = session.profile(events[None])
            assert found.node_ticks is not None and found.sops is not None
            return board.counter.units(float(found.node_ticks[1])), float(found.sops[1])

        shape = VECTOR if kind == "dense" else MAP
        idle, _ = cost(np.zeros(shape, dtype=np.uint8))
        for density in DENSITIES:
            draws = [(rng.random(shape) < density).astype(np.uint8) for _ in range(REPEATS)]
            costs = [cost(draw) for draw in draws]
            out.append(sum(c - idle for c, _ in costs) / max(sum(s for _, s in costs), 1.0))
    return out


def main() -> int:
    names = sys.argv[1:] or [t.name for t in TARGETS if t.board is not None]
    print(f"instructions per synaptic operation, {OUTPUTS} output channels")
    head = "".join(f"{d:>8.0%}" for d in DENSITIES)
    print(f"{'core':14}{'layer':8}{'weights':>8}{head}")
    for name in names:
        board = load_board(str(find_target(name).board))
        if board.emulator is None or shutil.which(board.emulator.program) is None:
            print(f"{name:14}no emulator on this machine")
            continue
        for kind in ("3x3", "5x5", "dense"):
            for reach in (127, 31):
                with tempfile.TemporaryDirectory() as folder:
                    row = measure(name, kind, reach, Path(folder))
                print(f"{name:14}{kind:8}{reach:>8}" + "".join(f"{v:8.2f}" for v in row))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
