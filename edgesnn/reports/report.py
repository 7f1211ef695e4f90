"""`edgesnn evaluate`: measure a checkpoint, or an integer program, and write the report's folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgesnn.checkpoint import Checkpoint, load_checkpoint
from edgesnn.compiler import ir
from edgesnn.data import Dataset, load
from edgesnn.networks.spec import SPIKING
from edgesnn.runtime.files import replace_folder, writable_folder
from edgesnn.targets.errors import EdgesnnError, UsageError

MARKER = "report.json"
FORMAT = "edgesnn-evaluation"
OURS = {MARKER, "tradeoff.png", "spikes.png", "difficulty.png", "training.png"}
PROGRAM_SAMPLES = 500  # the interpreter takes some ten milliseconds each, and runs all T steps


def evaluate_checkpoint(
    path: Path,
    data: str,
    *,
    split: str = "test",
    samples: int | None = None,
    forms: tuple[str, ...] | None = None,
    weights: str | None = None,
    data_dir: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """The report of a .pt: {"forms": [one table of `measure` each], ...}.

    forms: "float", "integer"; by default both, of a net without an integer form (psn neurons) the first.
    weights: format of the integers, by default the one the checkpoint was trained for. Raises UsageError for
    data that does not fit and for a net without an integer form.
    """
    from edgesnn.reports.measure import measure, on_threads

    checkpoint = load_checkpoint(path)
    dataset = _first(load(data, split, data_dir), samples)
    _check_fits(checkpoint, dataset, data)
    if forms is None:
        spec = checkpoint.network
        psn = any(x.kind in SPIKING and spec.neuron_of(x).kind == "psn" for x in spec.layers)
        forms = ("float",) if psn else ("float", "integer")
    with on_threads(threads):
        tables = [
            measure(checkpoint, dataset, form == "integer", weights or checkpoint.weights)
            for form in forms
        ]
    return {
        "model": checkpoint.network.name,
        "data": data,
        "split": split,
        "parameters": _parameters(checkpoint),
        "timesteps": checkpoint.network.timesteps,
        "forms": tables,
        "history": checkpoint.report.get("history") or [],
    }


def evaluate_program(
    program: ir.Program,
    data: str,
    *,
    split: str = "test",
    samples: int | None = None,
    data_dir: Path | None = None,
    advance: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """The report of an .esnn or a bundle through the interpreter: by default of the first 500 samples."""
    from edgesnn.reports.program import measure_program

    dataset = load(data, split, data_dir)
    source = program.input
    if not isinstance(source, ir.SampleInput):
        raise UsageError(
            f"{program.name} takes events: evaluate its checkpoint (.pt), or `edgesnn run` its bundle"
        )
    found = (str(dataset.x.dtype), dataset.shape)
    if (source.dtype, source.shape) != found:
        raise UsageError(_misfit(data, dataset, program.name, source.dtype, source.shape))
    dataset = _first(dataset, min(PROGRAM_SAMPLES, len(dataset)) if samples is None else samples)
    return {
        "model": program.name,
        "data": data,
        "split": split,
        "parameters": None,
        "timesteps": program.timesteps,
        "forms": [measure_program(program, dataset, advance)],
        "history": [],
    }


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an older report, or cannot be written; asked before the work."""
    writable_folder(folder, MARKER, "--report")
    try:
        others = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        if others - OURS or (others and not _is_report(folder / MARKER)):
            raise UsageError(f"{folder} holds other files; choose another --report or empty it")
        place = folder.absolute().parent
        while not place.exists():
            place = place.parent
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=place).cleanup()
    except OSError as error:
        raise EdgesnnError(f"cannot write {folder}: {error.strerror or error}") from None


def _is_report(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def write_report(report: dict[str, Any], folder: Path) -> tuple[list[str], str | None]:
    """report.json and the plots, complete or not at all: (files, why there are no plots or None)."""
    check_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise EdgesnnError(f"cannot write {folder}: {error.strerror or error}") from None
    missing = None
    try:
        new.chmod(0o755)
        stored = {"format": FORMAT, "version": 1, **report}
        (new / MARKER).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        files = [MARKER]
        try:
            from edgesnn.reports.plots import write_plots
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise
            missing = "no plots: matplotlib is missing; pip install 'edgesnn[train]' brings it"
        else:
            files += write_plots(report, new)
        replace_folder(new, folder)
    except OSError as error:
        raise EdgesnnError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return files, missing


def _first(dataset: Dataset, samples: int | None) -> Dataset:
    from dataclasses import replace

    if samples is None:
        return dataset
    if samples < 1:
        raise UsageError(f"samples {samples} is not at least 1")
    if samples > len(dataset):
        raise UsageError(f"{dataset.name} has {len(dataset)} samples, not {samples}")
    return replace(dataset, x=dataset.x[:samples], y=dataset.y[:samples])


def _check_fits(checkpoint: Checkpoint, dataset: Dataset, data: str) -> None:
    spec = checkpoint.network
    if (checkpoint.dtype, spec.input_shape) != (str(dataset.x.dtype), dataset.shape):
        raise UsageError(_misfit(data, dataset, spec.name, checkpoint.dtype, spec.input_shape))
    if dataset.classes > spec.classes:
        raise UsageError(
            f"{data} has {dataset.classes} classes, {spec.name} tells {spec.classes} apart"
        )


def _misfit(data: str, dataset: Dataset, name: str, dtype: str, shape: tuple[int, ...]) -> str:
    has = f"{dataset.x.dtype} {'x'.join(map(str, dataset.shape))}"
    return f"{data} has {has} samples{dataset.layout_hint}, {name} takes {dtype} {'x'.join(map(str, shape))}"


def _parameters(checkpoint: Checkpoint) -> int:
    skip = ("running_mean", "running_var", "num_batches_tracked")
    return sum(t.numel() for name, t in checkpoint.state.items() if not name.endswith(skip))
