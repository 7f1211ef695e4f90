"""`make demo`: from real digits to firmware that answers on an emulated Cortex-M4, and what it costs there.

Everything is made on the spot under build/demo/; nothing is downloaded.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import edgesnn
from edgesnn import evaluate, profiling
from edgesnn.compiler.compare import decision_difference
from edgesnn.compiler.interpret import Interpreter
from edgesnn.data import load
from edgesnn.runtime.session import Session
from edgesnn.runtime.stream import Stream
from edgesnn.targets.board import load_board
from edgesnn.targets.errors import EdgesnnError

BOARD = "mps2-an386"
NET, DATA = "mcu-lenet-s", "digits"
FOLDER = Path(__file__).resolve().parent.parent / "build" / "demo"
VERIFIED = 60


def say(text: str) -> None:
    print(text, flush=True)


def where_to_run() -> str | None:
    """The board to emulate, or None (and why) where that cannot be."""
    emulator = load_board(BOARD).emulator
    assert emulator is not None
    if shutil.which(emulator.program) is None:
        say(
            f"{emulator.program} is not installed (apt-get install {emulator.package}): "
            "running on this machine instead of the emulated board"
        )
        return None
    return BOARD


def stream_all(session: Session, program: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Stream every frame; accuracy, steps, the counter's figures, differences from the reference."""
    reference, tally = Interpreter(program), evaluate.Tally(session)
    right, differ, amounts = 0, 0, []
    with Stream(session) as stream:
        for item in stream.feed(x):
            decision = item.decision
            tally.add(decision)
            right += decision.label == int(y[item.index])
            want = reference.infer(session.bundle.check_sample(x[item.index]))
            differ += decision_difference(want, decision) is not None
            if session.counter is not None and decision.ticks is not None:
                amounts.append(session.counter.units(decision.ticks))
            elif decision.seconds is not None:
                amounts.append(1e6 * decision.seconds)
    return {
        "accuracy": right / tally.count,
        "mismatches": differ,
        "figures": profiling.spread(np.array(amounts)),
        **tally.timesteps(),
        **tally.spikes_per_neuron(),
        "sops": tally.sops.sum() / tally.count,
        "macs": session.bundle.encoder_macs,
    }


def table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows) + 2
    say("\n" + "\n".join(f"  {name:{width}}{value}" for name, value in rows) + "\n")


def main() -> int:
    start = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    board = where_to_run()
    checkpoint = FOLDER / f"{NET}-{DATA}.pt"

    say(f"1. training {NET} on {DATA} (real handwritten digits, 8x8, bundled with scikit-learn)")
    # One thread: the same weights everywhere, and no slower for so small a net.
    # A demo that was interrupted starts again.
    checkpoint.with_name(checkpoint.name + ".resume").unlink(missing_ok=True)
    trained = edgesnn.train(NET, DATA, checkpoint, seed=0, threads=1)
    say(f"   float test accuracy {100 * trained['accuracy']:.2f} %")

    target = "cpu" if board is None else load_board(board).target
    say(f"2. compiling for {board or target}: integers, kernels through TVM, C, link")
    out = FOLDER / f"bundle-{target}"
    bundle = edgesnn.compile(checkpoint, target, board, out, progress=lambda s: say(f"   {s}"))
    memory = bundle.manifest["memory"]
    program = edgesnn.load_program(bundle.path)
    test = load(DATA, "test")

    with Session(bundle) as session:
        say(
            f"3. {session.engine_name}: comparing {VERIFIED} images with the reference, every spike"
        )
        checked = evaluate.verify(session, test.x[:VERIFIED], trace=True)
        if checked["mismatches"]:
            raise EdgesnnError(f"the engines differ: {checked['first_mismatch']}")
        how = "over the serial link" if board is not None else "through the C core"
        say(f"4. streaming all {len(test)} test images {how}")
        seen = stream_all(session, program, test.x, test.y)
        stack_used = session.stack_high_water()

    unit = "instructions" if board is not None else "microseconds"
    f = seen["figures"]
    histogram = "   ".join(f"{k}: {v}" for k, v in seen["timesteps_histogram"].items())
    used = "" if stack_used is None else f"   (used {stack_used:,})"
    table(
        [
            ("accuracy, integers " + ("on the board" if board else "here"), _percent(seen)),
            ("accuracy, float, at the desk", _percent(trained)),
            ("answers that differ from the reference", f"{seen['mismatches']} of {len(test)}"),
            ("mean timesteps, of 4 at most", f"{seen['mean_timesteps']:.3f}"),
            ("stopped at step", histogram),
            (f"{unit} per inference, mean", f"{f['mean']:,.0f}"),
            ("  p50 / p95 / max", f"{f['p50']:,.0f} / {f['p95']:,.0f} / {f['max']:,.0f}"),
            ("synaptic operations per inference", f"{seen['sops']:,.0f}"),
            ("flash: code and weights", f"{memory['flash_bytes']:,} bytes"),
            ("RAM: all static data", f"{memory['ram_bytes']:,} bytes"),
            ("stack: worst case, before running", f"{memory['stack_bytes']:,} bytes{used}"),
        ]
    )
    say(f"done in {time.monotonic() - start:.0f} s; the bundle is {_short(out)}")
    return 1 if seen["mismatches"] else 0


def _percent(report: dict[str, Any]) -> str:
    return f"{100 * report['accuracy']:.2f} %"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(f"demo: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
