"""`make golden`: write what the reference interpreter says of the golden programs, tests/golden/*.json.

A golden program is a text file (tests/golden/*.program) that stays as it is. The one trace beside it judges
interpreter, host library and firmware; read its diff before you commit it. sizes.json, written last, is what
`make size` compares with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import size

from edgesnn.compiler import ir
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.text import from_text
from edgesnn.runtime.engine import Trace

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
SAMPLES = 6


def frames(program: ir.Program) -> np.ndarray:
    """Fixed inputs from a small congruential generator: the same on every version of numpy.

    Of densities from empty to full, so that different steps stop.
    """
    shape: tuple[int, ...] = program.input.shape
    events = isinstance(program.input, ir.EventInput)
    if events:
        shape = (program.timesteps, *shape)
    out, state = np.zeros((SAMPLES, int(np.prod(shape))), dtype=np.uint8), 1
    for i in range(SAMPLES):
        for j in range(out.shape[1]):
            state = (1664525 * state + 1013904223) % 2**32
            if (state >> 16) % (SAMPLES - 1) < i:
                out[i, j] = 1 if events else (state >> 24) & 255
    return out.reshape(SAMPLES, *shape)


def record(trace: Trace) -> dict[str, Any]:
    """A trace as plain values."""
    d = trace.decision
    return {
        "label": d.label,
        "step": d.step,
        "exited": d.exited,
        "membranes": d.membranes.tolist(),
        "events": d.events.tolist(),
        "sops": d.sops.tolist(),
        "spikes": [[node.tolist() for node in step] for step in trace.events],
    }


def golden(path: Path) -> str:
    """The golden file of one program."""
    program = from_text(path.read_text(encoding="utf-8"))
    interpreter = Interpreter(program)
    rows = []
    for frame in frames(program):
        rows.append({"frame": frame.reshape(-1).tolist(), **record(interpreter.trace(frame))})
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{{"program_sha256": "{program.digest().hex()}", "samples": [\n{lines}\n]}}\n'


def main() -> int:
    programs = sorted(FOLDER.glob("*.program"))
    for path in programs:
        path.with_suffix(".json").write_text(golden(path), encoding="utf-8")
        print(path.with_suffix(".json"))
    missing = size.write_sizes()
    print(size.SIZES, f"(not measured here: {', '.join(missing)})" if missing else "")
    return 0 if programs else 1


if __name__ == "__main__":
    sys.exit(main())
