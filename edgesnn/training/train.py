"""Train a network for latency: data, options and net in, a checkpoint and a report out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgesnn.checkpoint import save_checkpoint
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data import Dataset, load
from edgesnn.data.events import POLARITIES, is_events
from edgesnn.data.folders import check_writable
from edgesnn.networks.resolve import OWN, Resolved, label, recipe_of, resolve
from edgesnn.networks.spec import SPIKING, NetworkSpec
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.distributed import World, joined
from edgesnn.training.evaluate_float import evaluate
from edgesnn.training.integers import summary, with_integers
from edgesnn.training.logs import Log
from edgesnn.training.options import Options, choose
from edgesnn.training.run import NOTHING_KEPT, Run
from edgesnn.training.select import default_val_fraction
from edgesnn.training.state import check_replaceable, check_state, read_state, remove_leftovers

MIN_STEPS = 900  # a small set gets more epochs, until there are so many optimiser steps
THREADS_PER_CPU = 4


def train(
    net: str | nn.Module,
    data: str,
    out: Path,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    resume: bool = False,
    threads: int | None = None,
    progress: bool = True,
    log: Path | None = None,
    log_format: str = "csv",
    device: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Train `net` on the train split of `data`, write the best checkpoint to `out`; a report.

    net: a name, "file.py:factory" or a torch module (edgesnn.layers). options: the fields of
    `edgesnn.training.options.Options`, described in docs/TRAINING.md; None or left out means the coding's,
    the net's or the general default.

    Part of train is held out for validation: its accuracy picks the best epoch and the exit's
    value. The test split is looked at once, at the end.
    After every epoch `<out>.resume` is rewritten, so that `resume=True` goes on after an
    interruption and ends with the same weights; it is removed when the run is complete. `out`
    itself is written at the end, or on Ctrl-C with the best net so far. The same options, threads
    and machine give the same weights. log: a folder for figures of every epoch, csv or tensorboard.

    Started by torchrun, each process takes its share of every batch, and rank 0 writes.

    Raises UsageError for options that make no sense and for an interrupted run that would be lost,
    EdgesnnError for data or files that cannot be used, and after Ctrl-C (its message says what was
    kept). All of that which does not depend on the data is found before it is loaded.
    """
    out = Path(out)
    state_path = out.parent / f"{out.name}.resume"
    device = _device(device)
    with joined(device) as world:
        chosen, table, figures = world.together(
            lambda: _prepared(
                net, data, out, state_path, options, resume, threads, device, world, log, log_format
            )
        )
        run: Run | None = None
        try:
            with _torch_settings(device, threads):
                run, test_set = world.together(
                    lambda: _set_up(
                        net, chosen, options, out, state_path, data_dir, download, world, figures
                    )
                )
                if resume:
                    state = world.shared(lambda: table)
                    world.together(lambda: _resumed(run, state))
                run.fit(progress and world.first)
                report = world.shared(lambda: _finished(run, test_set, progress))
        except KeyboardInterrupt:
            if not world.first:
                raise SystemExit(130) from None
            raise EdgesnnError(NOTHING_KEPT if run is None else run.interrupted()) from None
        finally:
            if figures is not None:
                figures.close()
        if world.first:
            state_path.unlink(missing_ok=True)
        return {**report, "out": str(out)}


def _prepared(
    net: str | nn.Module,
    data: str,
    out: Path,
    state_path: Path,
    given: dict[str, Any],
    resume: bool,
    threads: int | None,
    device: str,
    world: World,
    log: Path | None,
    log_format: str,
) -> tuple[Options, dict[str, Any], Log | None]:
    """Everything that can be checked before the data is loaded: (options, state to resume, log)."""
    recipe = recipe_of(net)
    options = choose(label(net), data, recipe, {**given, "device": device})
    _check_threads(threads)
    if log_format not in ("csv", "tensorboard"):
        raise UsageError(f"unknown log-format {log_format!r}: one of csv, tensorboard")
    if not world.first:
        return options, {}, None
    check_replaceable(out)
    check_state(state_path, resume)
    check_writable(state_path)
    remove_leftovers(out, state_path)
    figures = Log(Path(log), log_format, out.stem) if log is not None else None
    if figures is not None:
        remove_leftovers(figures.path)
    return options, read_state(state_path) if resume else {}, figures


def _set_up(
    net: str | nn.Module,
    options: Options,
    given: dict[str, Any],
    out: Path,
    state_path: Path,
    data_dir: Path | None,
    download: bool,
    world: World,
    log: Log | None,
) -> tuple[Run, Dataset]:
    """The data, and a run over it that has not begun."""
    train_set = load(options.data, "train", data_dir, download)
    test_set = load(options.data, "test", data_dir, download)
    if test_set.shape != train_set.shape:
        raise EdgesnnError(
            f"{options.data}: train samples are {train_set.shape}, test samples {test_set.shape}"
        )
    if given.get("val_fraction") is None:
        options = replace(options, val_fraction=default_val_fraction(len(train_set)))
    if given.get("epochs") is None:
        steps = max(1, round(len(train_set) * (1.0 - options.val_fraction)) // options.batch)
        options = replace(options, epochs=max(options.epochs, math.ceil(MIN_STEPS / steps)))
    options = _with_steps(options, given, train_set)
    options, resolved = _resolved(net, options, given, train_set)
    _check_events(resolved.spec, options, train_set)
    return Run(options, resolved, train_set, out, state_path, world, log), test_set


def _with_steps(options: Options, given: dict[str, Any], data: Dataset) -> Options:
    """Events come in steps: their number is the data's."""
    if not is_events(data):
        return options
    steps = data.shape[2] // POLARITIES
    if given.get("timesteps") not in (None, steps):
        raise UsageError(f"{data.name} has {steps} steps of events a sample: leave timesteps out")
    return replace(options, timesteps=steps)


def _check_events(spec: NetworkSpec, options: Options, data: Dataset) -> None:
    """UsageError unless net and data go together, and an event net can run in a stream without end."""
    if is_events(data) and not spec.takes_events:
        raise UsageError(
            f"{data.name} is events, {spec.name} takes samples: choose a net that takes events, mcu-events"
        )
    if spec.takes_events and not is_events(data):
        raise UsageError(
            f"{spec.name} takes events, {data.name} is samples: choose data of events, such as nmnist-events"
        )
    if not spec.takes_events:
        return
    if options.exit == "rate":
        raise UsageError(f"{spec.name}: a stream of events has no last step for a rate exit")
    for layer in spec.layers:
        rule = spec.neuron_of(layer)
        if layer.kind in SPIKING and (rule.kind != "lif" or rule.leak >= 1.0):
            raise UsageError(
                f"{spec.name}: a stream of events has no end, so its neurons are lif with a leak below 1"
            )
    if spec.output_leak >= 1.0:
        raise UsageError(
            f"{spec.name}: a stream of events has no end: choose an output-leak below 1"
        )


def _resolved(
    net: str | nn.Module, options: Options, given: dict[str, Any], data: Dataset
) -> tuple[Options, Resolved]:
    """The net for that data; a module of one's own decides its output's leak itself."""
    own = recipe_of(net) is OWN
    if own and given.get("encoder_bias") is not None:
        raise UsageError(
            f"{label(net)} is a module of your own: set its encoder_bias in its layers"
        )
    resolved = resolve(
        net,
        data.shape,
        data.classes,
        options.timesteps,
        neuron=options.rule(),
        encoder=options.encoder,
        output_leak=given.get("output_leak") if own else options.output_leak,
        learn_output_leak=None if own else options.exit == "selector",
        seed=options.seed,
    )
    spec = resolved.spec
    if options.exit == "rate" and (spec.output_leak != 1.0 or spec.learn_output_leak):
        raise UsageError(f"{spec.name}: a rate exit sums currents; set its output's leak to 1")
    return replace(options, output_leak=spec.output_leak), resolved


def _resumed(run: Run, table: dict[str, Any]) -> None:
    run.resume(table)


def _finished(run: Run, test_set: Dataset, show: bool) -> dict[str, Any]:
    """Measure the best net, in floating point and in integers, and write its checkpoint."""
    assert run.best is not None
    options = run.options

    def say(line: str) -> None:
        from edgesnn.training.progress import Progress

        Progress(0, 0, show).say(line)

    tested = evaluate(run.net, test_set, ReadoutSpec(options.exit, run.best.value))
    report = {
        **vars(options),
        **tested,
        "val_accuracy": run.best.accuracy,
        "val_samples": len(run.held),
        "train_samples": len(run.x),
        "threshold": run.best.value,
        "target_met": run.best.met,
        "best_epoch": run.best_epoch,
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "integer": None,
        "processes": run.world.size,
        "seconds": round(run.seconds, 1),
        "history": [{k: v for k, v in row.items() if k != "seconds"} for row in run.history],
    }
    checkpoint = run.checkpoint(report)
    low = with_integers(
        checkpoint,
        options,
        (run.data.x[run.kept], run.data.y[run.kept]),
        (run.val_x, run.val_y),
        run.best.accuracy,
        say,
        run.device,
    )
    if low is not None:
        report["integer"] = summary(low, options, (test_set.x, test_set.y))
        checkpoint = replace(low.checkpoint, report=report)
    save_checkpoint(checkpoint, run.out)
    return report


def _device(name: str) -> str:
    """cpu or cuda for auto, cpu or cuda; UsageError for anything else, or CUDA that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}: one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: torch finds no CUDA device here; choose cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@contextmanager
def _torch_settings(device: str, threads: int | None) -> Iterator[None]:
    """So many processor threads, and deterministic CUDA kernels where there are any; put back at the end."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.set_num_threads(before)
        if device == "cuda":
            torch.use_deterministic_algorithms(strict, warn_only=warn)


def _check_threads(threads: int | None) -> None:
    """UsageError for a number of threads that this machine cannot sensibly run."""
    most = THREADS_PER_CPU * (os.cpu_count() or 1)
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= most:
        raise UsageError(f"threads {threads!r} is not a whole number from 1 to {most}")
