"""Choose the readout's value anew: for a wanted accuracy or mean step count, on held-out training samples.

A checkpoint is calibrated on its float membranes, an .esnn program on its integers (in the interpreter,
no torch). The test split is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.coding.readout import EARLY_EXITS, decode
from edgesnn.compiler import ir
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data import Dataset, load
from edgesnn.data.dataset import stratified_split
from edgesnn.data.events import PHASES, as_steps, at_phases, is_events
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.select import (
    CANDIDATES,
    check_wanted,
    default_val_fraction,
    fine_candidates,
    pick,
    trade_off,
)

SAMPLES = 500  # of a program: the interpreter is slow
RATED = 100  # of them, of which the program keeps the mean numbers of events
ROWS = 12  # of the table
# What training measured on the test split with the exit it chose.
FIGURES = (
    "samples",
    "accuracy",
    "mean_timesteps",
    "timesteps_histogram",
    "no_output_spike",
    "spikes_per_neuron",
    "sops_mean",
)


def calibrate(
    model: Path,
    data: str,
    *,
    accuracy: float | None = None,
    steps: float | None = None,
    exit: str | None = None,
    out: Path | None = None,
    val_fraction: float | None = None,
    seed: int | None = None,
    samples: int | None = None,
    data_dir: Path | str | None = None,
) -> dict[str, Any]:
    """Choose and write the exit's value; a report of plain values.

    model: a .pt checkpoint or an .esnn program. data: what it was trained on; the part of train that
    training held out is used (a checkpoint knows it; else val_fraction and seed, by default training's).
    accuracy (0...1), steps, neither: as in `select_exit`. exit: default the model's. out: default `model`
    itself. samples: use so many of them, default all, of a program 500. The report's `held_out` is False for
    data of another size than training had: those samples may then have been trained on.

    Raises UsageError for options that make no sense, EdgesnnError for files and data.
    """
    check_wanted(accuracy, steps)
    if exit is not None and exit not in EARLY_EXITS:
        raise UsageError(f"unknown exit {exit!r}: one of {', '.join(EARLY_EXITS)}")
    if samples is not None and samples < 1:
        raise UsageError(f"samples {samples} is not at least 1")
    if val_fraction is not None and not 0.0 < val_fraction <= 0.5:
        raise UsageError(f"val-fraction {val_fraction!r} is not in (0, 0.5]")
    if seed is not None and not 0 <= seed < 2**31:
        raise UsageError(f"seed {seed!r} is not a whole number from 0 to {2**31 - 1}")
    if model.suffix not in (".pt", ".esnn") or model.is_dir():
        raise UsageError(
            f"{model} is neither a .pt checkpoint nor an .esnn program; compile after calibrating"
        )
    if not model.exists():
        raise EdgesnnError(f"there is no model at {model}; make one with `edgesnn train`")
    out = model if out is None else out
    opened = (_Checkpoint if model.suffix == ".pt" else _Program)(model)
    _check_out(out, model, opened)
    kind = opened.exit(exit)
    val_fraction = opened.split_option("val_fraction", val_fraction)
    seed = int(opened.split_option("seed", seed) or 0)
    train = load(data, "train", data_dir)
    opened.check_data(train)
    if val_fraction is None:
        val_fraction = default_val_fraction(len(train))
    x, y = _held_out(train, val_fraction, seed, samples or opened.samples)
    membranes = opened.membranes(x)
    if not np.isfinite(membranes).all():
        raise EdgesnnError(f"{model}: output membranes are not finite; train it again")
    usual = CANDIDATES if accuracy is None and steps is None and not opened.whole else None
    values = fine_candidates(membranes, kind) if usual is None else usual
    front = trade_off(membranes, y, kind, values, is_events(train))
    recordings = -(-len(y) // PHASES) if is_events(train) else len(y)
    chosen = pick(front, recordings, accuracy=accuracy, steps=steps)
    was = opened.readout
    before = decode(membranes, was.kind, was.value)
    report = {
        "model": opened.name,
        "arithmetic": "integers" if opened.whole else "float",
        "data": data,
        "held_out": opened.held_out(train),
        "samples": len(y),
        "val_fraction": val_fraction,
        "seed": seed,
        "timesteps": len(membranes),
        "exit": kind,
        "wanted_accuracy": accuracy,
        "wanted_steps": steps,
        **asdict(chosen),
        "before": {
            "exit": was.kind,
            "value": was.value,
            "accuracy": float(
                ((before.labels == y) & (before.exited | (not is_events(train)))).mean()
            ),
            "mean_steps": float(before.steps.mean()),
        },
        "front": [{k: v for k, v in asdict(c).items() if k != "met"} for c in front],
    }
    opened.save(ReadoutSpec(kind, chosen.value), report, out)
    return {**report, "out": str(out)}


def table_rows(front: Sequence[dict[str, Any]], value: float) -> list[dict[str, Any]]:
    """About a dozen points of a report's front, evenly spread, its ends and the choice among them."""
    at = {round(i) for i in np.linspace(0, len(front) - 1, ROWS)}
    return [row for i, row in enumerate(front) if i in at or row["value"] == value]


def _held_out(
    train: Dataset, val_fraction: float, seed: int, samples: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the part of train that training held out, or of `samples` of it at random."""
    _, held = stratified_split(train.y, val_fraction, seed, train.groups)
    if len(held) == 0:
        raise UsageError(f"{train.name}: {len(train)} samples are too few to hold some out")
    x, y = train.x[held], train.y[held]
    if is_events(train):
        x, y = at_phases(x, y, seed)
    if samples is not None and samples < len(y):
        rng = np.random.Generator(np.random.PCG64(seed))
        chosen = np.sort(rng.choice(len(y), samples, replace=False))
        x, y = x[chosen], y[chosen]
    return x, y


def _check_out(out: Path, model: Path, opened: _Checkpoint | _Program) -> None:
    if out.suffix != model.suffix:
        raise UsageError(f"--out {out}: a calibrated {model.suffix} file is one, too")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; choose a file name for --out")
    if out.exists() and out.resolve() != model.resolve():
        try:
            type(opened)(out)
        except EdgesnnError:
            raise EdgesnnError(
                f"{out} exists and is not an edgesnn file; move it away or choose another --out"
            ) from None


def _check_kind(kind: str, wanted: str | None, leaks_per_class: bool, name: str) -> str:
    """The exit to calibrate for a net that has `kind`."""
    if kind == "rate":
        raise UsageError(
            f"{name} has a rate readout: it takes all steps, and there is no value to choose"
        )
    if wanted == "selector" and not leaks_per_class:
        raise UsageError(
            f"{name}: a selector exit needs a net with learned output leaks, one per class; "
            "train with --exit selector"
        )
    return wanted or kind


def _check_samples(name: str, data: Dataset, shape: tuple[int, ...], dtype: str, n: int) -> None:
    """UsageError unless the samples and labels are what a net with n classes takes."""
    if data.shape != tuple(shape) or data.x.dtype != np.dtype(dtype):
        has, takes = ("x".join(map(str, s)) for s in (data.shape, shape))
        raise UsageError(
            f"{data.name} has {data.x.dtype} {has} samples, {name} takes {dtype} {takes}"
        )
    if data.y.max() >= n:
        raise UsageError(f"{data.name} has {data.classes} classes, {name} tells {n} apart")


class _Checkpoint:
    """A .pt file, calibrated on float membranes."""

    whole = False
    samples: int | None = None

    def __init__(self, path: Path) -> None:
        from edgesnn.checkpoint import load_checkpoint

        self.path = path
        self.checkpoint = load_checkpoint(path)
        self.name = self.checkpoint.network.name
        self.readout = self.checkpoint.readout

    def exit(self, wanted: str | None) -> str:
        per_class = self.checkpoint.network.learn_output_leak
        return _check_kind(self.readout.kind, wanted, per_class, str(self.path))

    def split_option(self, name: str, given: Any) -> Any:
        """How training split the data, where the report tells."""
        known = self.checkpoint.report.get(name)
        if known is None or isinstance(known, bool) or not isinstance(known, int | float):
            return given
        whole = isinstance(known, int) and 0 <= known < 2**31
        if not (whole if name == "seed" else 0.0 < known <= 0.5):
            raise EdgesnnError(f"{self.path} is a damaged checkpoint: report.{name} is {known!r}")
        if given is not None and given != known:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{self.path} was trained with {flag} {known:g}, and other samples than those it "
                f"held out were trained on: leave {flag} out"
            )
        return known

    def check_data(self, data: Dataset) -> None:
        spec = self.checkpoint.network
        _check_samples(self.name, data, spec.input_shape, self.checkpoint.dtype, spec.classes)

    def held_out(self, data: Dataset) -> bool | None:
        """Whether these look like the samples of training, so that its split holds; None if unknown."""
        report = self.checkpoint.report
        kept, held = report.get("train_samples"), report.get("val_samples")
        if not isinstance(kept, int) or not isinstance(held, int):
            return None
        return kept + held == len(data)

    def membranes(self, x: np.ndarray) -> np.ndarray:
        """float32[T, N, classes]."""
        from edgesnn.networks.spiking import SpikingNetwork
        from edgesnn.training.evaluate_float import output_membranes

        net = SpikingNetwork(self.checkpoint.network)
        net.load_state_dict(self.checkpoint.state)
        return output_membranes(net, x, self.checkpoint.scale, self.checkpoint.zero_point)

    def save(self, readout: ReadoutSpec, chosen: dict[str, Any], out: Path) -> None:
        """The checkpoint with this readout; test figures of another one are left out."""
        from edgesnn.checkpoint import save_checkpoint

        report = {
            k: v
            for k, v in self.checkpoint.report.items()
            if readout == self.readout or k not in FIGURES
        }
        report["exit"], report["threshold"] = readout.kind, readout.value
        report["calibration"] = {k: v for k, v in chosen.items() if k not in ("front", "before")}
        save_checkpoint(replace(self.checkpoint, readout=readout, report=report), out)


class _Program:
    """An .esnn file, calibrated on its integers."""

    whole = True
    samples = SAMPLES

    def __init__(self, path: Path) -> None:
        from edgesnn.compiler.esnn_file import load_program

        self.path = path
        self.seen = np.zeros(0)  # what `membranes` has run
        self.program = load_program(path)
        self.name = self.program.name
        rule = self.program.readout
        if isinstance(rule, ir.Css):
            raise UsageError(
                f"{path} stops where its answer is proved; `edgesnn convert --confidence` chooses earlier stops"
            )
        if isinstance(rule, ir.Rate):
            self.readout = ReadoutSpec("rate", 0)
        else:
            kind = "margin" if isinstance(rule, ir.Margin) else "first-spike"
            self.readout = ReadoutSpec(kind, rule.value)

    def exit(self, wanted: str | None) -> str:
        output = self.program.output
        per_class = isinstance(output, ir.Accumulator) and len(output.leaks) > 1
        kind = _check_kind(self.readout.kind, wanted, per_class, str(self.path))
        if kind == "margin" and self.program.classes < 2:
            raise UsageError(f"{self.path}: a margin exit needs at least two classes")
        return kind

    def split_option(self, name: str, given: Any) -> Any:
        """A program does not know how its data was split."""
        return given

    def check_data(self, data: Dataset) -> None:
        source = self.program.input
        if isinstance(source, ir.EventInput):
            if not is_events(data):
                raise UsageError(f"{self.name} takes events, {data.name} is samples")
            height, width, channels = source.shape
            shape = (height, width, channels * self.program.timesteps)
            _check_samples(self.name, data, shape, "uint8", self.program.classes)
            return
        _check_samples(self.name, data, source.shape, source.dtype, self.program.classes)

    def held_out(self, data: Dataset) -> bool | None:
        """A program does not know what it was trained on."""
        return None

    def membranes(self, x: np.ndarray) -> np.ndarray:
        """int64[T, N, classes] from the interpreter, all T steps."""
        from edgesnn.compiler.interpret import Interpreter
        from edgesnn.evaluate import counted

        if isinstance(self.program.input, ir.EventInput):
            x = as_steps(x, self.program.input.shape[2])
        self.seen = x
        output = self.program.output.name
        # No membrane gets there: nothing stops early.
        engine = Interpreter(replace(self.program, readout=ir.FirstSpike(2**31 - 1)))
        runs: list[list[np.ndarray]] = []
        for sample in counted(x):
            runs.append([])
            engine.trace(sample, watch=lambda _, u: runs[-1].append(u[output].reshape(-1)))
        return np.stack(runs, axis=1)

    def save(self, readout: ReadoutSpec, chosen: dict[str, Any], out: Path) -> None:
        from edgesnn.compiler.cost import measured_rates
        from edgesnn.compiler.esnn_file import save_program

        value = int(readout.value)
        rule = ir.Margin(value) if readout.kind == "margin" else ir.FirstSpike(value)
        program = replace(self.program, readout=rule)
        save_program(replace(program, rates=measured_rates(program, self.seen[:RATED])), out)
