"""Sizes and instruction counts of the golden firmware: exact on one compiler, so growth is seen at once.

`python tests/golden/test_budget.py` writes budget.json again; read its diff, and say in the commit why it grew.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler.build import compile_program
from edgesnn.compiler.text import from_text
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.session import Session

BUDGET = Path(__file__).with_name("budget.json")
SLACK = 1.01  # what a rewording of the same code may cost


def measured(bundle: Bundle) -> dict[str, int]:
    """flash, RAM and stack in bytes, instructions of all golden frames together."""
    rows = json.loads(BUDGET.with_name("samples.json").read_text(encoding="utf-8"))["samples"]
    shape, dtype = bundle.input_shape, bundle.input_dtype
    with Session(bundle) as session:
        assert session.counter is not None
        ticks = [
            session.classify(np.array(row["frame"], dtype=dtype).reshape(shape)).ticks
            for row in rows
        ]
        per_tick = session.counter.per_tick
    memory = bundle.manifest["memory"]
    return {
        "flash_bytes": memory["flash_bytes"],
        "ram_bytes": memory["ram_bytes"],
        "stack_bytes": memory["stack_bytes"],
        "instructions": sum(t for t in ticks if t is not None) * per_tick,
    }


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm")
def test_nothing_grows(board_bundle: Bundle) -> None:
    budget = json.loads(BUDGET.read_text(encoding="utf-8"))
    compiler = board_bundle.manifest["versions"]["compiler"]
    if compiler != budget["compiler"]:
        pytest.skip(f"the budget is for {budget['compiler']}, this is {compiler}")
    found = measured(board_bundle)
    assert set(found) == set(budget) - {"compiler"}
    grown = {k: (v, budget[k]) for k, v in found.items() if v > SLACK * budget[k]}
    assert not grown, f"grown (now, budget): {grown}"


def main() -> None:
    program = from_text(BUDGET.with_name("samples.program").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_program(program, board="mps2-an386", out=Path(folder) / "golden")
        budget = {"compiler": bundle.manifest["versions"]["compiler"], **measured(bundle)}
    BUDGET.write_text(json.dumps(budget, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
