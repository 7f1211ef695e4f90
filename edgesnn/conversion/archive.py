"""A converted network on disk: the integer program and the report, tensors and plain values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.checkpoint import read_archive, write_archive
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.check import check_program
from edgesnn.compiler.text import from_text, to_text
from edgesnn.targets.errors import EdgesnnError

FORMAT = "edgesnn-converted"
VERSION = 1
WHAT = "converted network"
FIELDS = {"format", "version", "program", "arrays", "rates", "report"}


def save_converted(program: ir.Program, report: dict[str, Any], path: Path) -> None:
    """Write to a temporary name in the same folder, then rename. EdgesnnError if that fails."""
    import torch

    arrays = {at: torch.from_numpy(np.ascontiguousarray(v)) for at, v in ir.arrays(program)}
    table = {
        "format": FORMAT,
        "version": VERSION,
        "program": to_text(program, inline=0),
        "arrays": arrays,
        "rates": dict(program.rates),
        "report": report,
    }
    write_archive(Path(path), table)


def is_converted(path: Path) -> bool:
    """Whether a readable archive says that it is a converted network (and not, say, a checkpoint)."""
    try:
        read_archive(Path(path), FORMAT, VERSION, WHAT)
    except EdgesnnError:
        return False
    return True


def load_converted(path: Path) -> tuple[ir.Program, dict[str, Any]]:
    """(checked program, report) of a file that `save_converted` wrote; EdgesnnError, one line, otherwise."""
    path = Path(path)
    table = read_archive(path, FORMAT, VERSION, WHAT)
    try:
        return _checked(table)
    except (EdgesnnError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgesnnError(f"{path} is a damaged {WHAT}: {reason[:300]}") from None


def _checked(table: dict[str, Any]) -> tuple[ir.Program, dict[str, Any]]:
    import torch

    if set(table) != FIELDS:
        odd = ", ".join(sorted(map(str, set(table) ^ FIELDS)))
        raise ValueError(f"missing or unknown fields: {odd}")
    if not isinstance(table["program"], str) or not isinstance(table["report"], dict):
        raise ValueError("program or report has the wrong type")
    arrays: dict[str, np.ndarray] = {}
    for at, tensor in table["arrays"].items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not plain or tensor.dtype not in (torch.int8, torch.int16, torch.int32):
            raise ValueError(f"{at} is not a tensor of whole numbers")
        arrays[at] = tensor.contiguous().numpy()
    program = from_text(table["program"], arrays)
    rates = table["rates"]
    names = {n.name for n in program.nodes}
    fine = isinstance(rates, dict) and all(
        k in names and isinstance(v, float) and 0.0 <= v < float("inf") for k, v in rates.items()
    )
    if not fine:
        raise ValueError("rates are not one number per node")
    program = ir.Program(
        program.name,
        program.timesteps,
        program.nodes,
        program.readout,
        program.class_names,
        dict(rates),
    )
    check_program(program)
    prove(program)
    return program, table["report"]
