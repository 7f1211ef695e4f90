"""The command line: parse and print, nothing else; the work is done by the modules it names.

python-fire calls the command, but only after the arguments were checked here against its
signature: fire by itself runs a command before it complains about a flag, and turns a path named
10 into a number.
"""

from __future__ import annotations

import inspect as _inspect
import json as _json
import os
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from edgesnn import __version__
from edgesnn.exits import guarded
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.suggest import did_you_mean

# --- commands -----------------------------------------------------------------------------------


def train(
    *,
    net: str,
    data: str,
    out: str | None = None,
    coding: str = "latency",
    encoder: str | None = None,
    neuron: str | None = None,
    reset: str | None = None,
    leak: float | None = None,
    v_threshold: float | None = None,
    learn_leak: bool = False,
    forced: bool = False,
    surrogate: str | None = None,
    surrogate_width: float | None = None,
    neuron_mode: str | None = None,
    output_leak: float | None = None,
    exit: str | None = None,
    loss: str | None = None,
    loss_on: str | None = None,
    temperature: float | None = None,
    attach: bool = False,
    confidence: float | None = None,
    label_smoothing: float | None = None,
    rate_penalty: str | None = None,
    early_penalty: float | None = None,
    encoder_bias: float | None = None,
    encoder_grad: str | None = None,
    paper_literal: bool = False,
    timesteps: int | None = None,
    stages: str | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    schedule: str | None = None,
    warm_up: float | None = None,
    augment: str | None = None,
    seed: int = 0,
    val_fraction: float | None = None,
    target_accuracy: float | None = None,
    target_steps: float | None = None,
    weights: str | None = None,
    quantise_aware: str | None = None,
    qat_epochs: int | None = None,
    device: str = "auto",
    amp: bool = False,
    compile: bool = False,
    log: str | None = None,
    log_format: str = "csv",
    data_dir: str | None = None,
    download: bool = False,
    resume: bool = False,
    threads: int | None = None,
    report: str | None = None,
    json: bool = False,
) -> None:
    """Train a network for latency and write a checkpoint (docs/TRAINING.md explains every option).

    Args:
        net: A named network, such as mcu-mlp or mcu-lenet-s, or file.py:factory of your own.
        data: digits, mnist, fashion-mnist ..., or the path of an .npz (docs/DATA.md).
        out: The checkpoint; default ./<net>-<data>.pt.
        coding: latency, amos (at most one spike a neuron), rate or direct: sets options left out below.
        encoder: latency (learned spike times), raw (the samples' own) or direct (constant currents).
        neuron: lif, if, amos or psn (psn trains only).
        reset: soft or hard (lif, if).
        leak: Share of the membrane that is left after a step; default 0.5.
        v_threshold: Threshold of the hidden neurons; default 1.
        learn_leak: Learn one leak a layer.
        forced: amos neurons fire in the last step at the latest.
        surrogate: triangle, rectangle, atan or sigmoid.
        surrogate_width: Its width; default 1.
        neuron_mode: auto, loop or parallel, for amos.
        output_leak: Leak of the output membranes; default 0.5, for rate exits 1.
        exit: first-spike, margin (the top two differ by it), selector (leaks learned by class) or rate.
        loss: tad, tet, mean-ce or selector; default tad, for rate and selector exits their own.
        loss_on: membrane or current of the output.
        temperature: Of TAD's weights; default 2.
        attach: Let gradients through TAD's weights.
        confidence: The membrane at which the selector loss takes a sample as decided; default 4.
        label_smoothing: Share of the target spread over all classes.
        rate_penalty: Weight of the penalty on hidden spikes, or conv=0.1,dense=0.02 by layer.
        early_penalty: Weight of the penalty on encoder spikes in step 1; default: the net's own.
        encoder_bias: Initial bias of the encoder's batch norm; below 0 for fewer, later spikes.
        encoder_grad: edge or straight-through.
        paper_literal: As the papers have it, for comparison.
        timesteps: T, the steps an inference has at most; default 4, of events as many as the data has.
        stages: Time steps of incremental training, such as 1,2,4.
        epochs: Passes over the train split; default: the net's own.
        batch: Samples per optimiser step, of all processes together.
        lr: Peak learning rate.
        schedule: one-cycle or cosine.
        warm_up: Share of the steps in which the rate rises; default 0.15, for cosine 0.05.
        augment: none, shift, flip (and shift), randaugment, autoaugment, spectrogram or affine (docs/DATA.md).
        seed: Decides initial weights, order and augmentation.
        val_fraction: Share of train held out to choose the epoch and the exit's value.
        target_accuracy: Choose the fewest steps that reach it on validation, such as 0.99.
        target_steps: Choose the best accuracy with at most so many mean steps.
        weights: int8, int6, int4, ternary or power-of-two: what the net is lowered to.
        quantise_aware: auto (fine-tune in integers if they lose accuracy), always or never.
        qat_epochs: Epochs of that fine-tuning; default 5.
        device: auto, cpu or cuda.
        amp: Compute in bfloat16 where it is safe.
        compile: Use torch.compile.
        log: Folder for figures of every epoch.
        log_format: csv or tensorboard.
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        download: Fetch the data set if it is not there.
        resume: Go on with an interrupted run.
        threads: Processor threads.
        report: Folder for report.json and plots; default <out>-report without .pt, none for none.
        json: Print the report as one JSON object.
    """
    given = {**locals()}
    for name in ("net", "data", "out", "report", "json"):
        del given[name]
    from edgesnn import api

    switches = ("learn_leak", "forced", "attach", "paper_literal", "amp", "compile")
    options = {k: None if k in switches and v is False else v for k, v in given.items()}
    for name in ("data_dir", "log"):
        place = options[name]
        options[name] = None if place is None else Path(place)
    path = api.checkpoint_path(net, data, out)
    folder = None if report == "none" else report or str(path.with_name(f"{path.stem}-report"))
    with _quiet_stdout(json):
        if folder is not None:
            api.check_report(folder)
        trained = api.train(net, data, path, **options)
        if os.environ.get("RANK", "0") != "0":
            return None  # one of several processes: the first one prints
        measured = _measured(trained, data, data_dir, folder)
    if json:
        return _print_json({**trained, "report": folder})
    _print_training(net, data, trained)
    _print_evaluation(measured)


def _measured(
    trained: dict[str, Any], data: str, data_dir: str | None, folder: str | None
) -> dict[str, Any]:
    """The full evaluation of what was trained, in both forms where it has both."""
    from edgesnn import api

    form = "both" if trained["integer"] is not None else "float"
    return api.evaluate(trained["out"], data, form=form, report=folder, data_dir=data_dir)


def _print_training(net: str, data: str, report: dict[str, Any]) -> None:
    integer = report["integer"]
    _pairs(
        f"{net} on {data}",
        [
            ("kept epoch", f"{report['best_epoch']} of {report['epochs']}"),
            ("validation accuracy", _percent(report["val_accuracy"])),
            ("test accuracy (float)", _percent(report["accuracy"])),
            *_integer_rows(integer),
            ("mean timesteps", f"{report['mean_timesteps']:.3f} of {report['timesteps']}"),
            ("exit", _exit_used(report)),
            ("parameters", f"{report['parameters']:,}"),
            ("checkpoint", report["out"]),
        ],
    )


def _integer_rows(integer: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What training found out about the integers, for its table."""
    if integer is None:
        return [("test accuracy (integer)", "none: psn neurons cannot be compiled")]
    how = ", fine-tuned" if integer["quantise_aware"] else ""
    return [(f"test accuracy ({integer['weights']}{how})", _percent(integer["accuracy"]))]


def _exit_used(report: dict[str, Any]) -> str:
    if report["exit"] == "rate":
        return "rate, after all steps"
    missed = "" if report["target_met"] else " (the target was not reached on validation)"
    return f"{report['exit']} at {report['threshold']:g}{missed}"


def calibrate(
    model: str,
    *,
    data: str,
    accuracy: float | None = None,
    steps: float | None = None,
    exit: str | None = None,
    out: str | None = None,
    val_fraction: float | None = None,
    seed: int | None = None,
    samples: int | None = None,
    data_dir: str | None = None,
    json: bool = False,
) -> None:
    """Choose the exit's value for a wanted accuracy or mean step count.

    Args:
        model: A .pt checkpoint, zoo:NAME, or an .esnn program (slow; no torch needed).
        data: What it was trained on; the part of train that training held out is used.
        accuracy: As few mean steps as reach it, such as 0.99.
        steps: As accurate as possible in so many mean steps; default: within 0.1 points of the best.
        exit: first-spike, margin or selector; default the model's.
        out: The file to write; default MODEL itself.
        val_fraction: Share of train that training held out, if the model does not tell.
        seed: Seed of training, if the model does not tell.
        samples: Use so many of them; default all, 500 of an .esnn program.
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        json: Print the trade-off and the choice as one JSON object.
    """
    from edgesnn import api

    with _quiet_stdout(json):
        report = api.calibrate(
            model,
            data,
            out,
            accuracy=accuracy,
            steps=steps,
            exit=exit,
            val_fraction=val_fraction,
            seed=seed,
            samples=samples,
            data_dir=data_dir,
        )
    if json:
        return _print_json(report)
    _print_calibration(report)


def convert(
    model: str,
    *,
    calibration: str,
    out: str | None = None,
    coding: str = "css",
    timesteps: int | None = None,
    beta: float = 2.0,
    weights: str = "int8",
    mean: str | None = None,
    std: str | None = None,
    confidence: float | None = None,
    silent: int = 1,
    unsigned: bool = False,
    literal: bool = False,
    class_names: str | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Convert an ordinary trained network (ONNX) to canonic signed spikes (docs/CONVERSION.md).

    Args:
        model: An ONNX file: convolutions, dense layers, ReLU, pooling, residual additions (docs/ONNX.md).
        calibration: An .npz with x shaped like the network's input, uint8 (raw) or float, and perhaps labels y.
        out: The file to write; default ./<model>.pt.
        coding: css (canonic signed spikes) or rate (soft-reset neurons, to compare with).
        timesteps: Length of a spike train; default 8, of rates 32.
        beta: Amplification of the membranes in a step: 2, 1.5 or any other above 1, as shifts.
        weights: int8 or int16.
        mean: Of raw samples / 255, one number or one per channel (0.49,0.48,0.45); default 0.
        std: Likewise; default 1. The network is fed (x / 255 - mean) / std.
        confidence: Stop before it is proved that the class stays, such as 0.999; measured, no proof.
        silent: Steps of the silent period, 0 to 3; 1 as in the paper.
        unsigned: No negative spikes (to see what they do).
        literal: Amplitudes from the percentiles alone, without adjustment by what is left on membranes.
        class_names: Names of the classes, such as cat,dog.
        held_out: Share of the calibration samples that only the report is made of.
        seed: Of the split into calibration and held-out samples.
        json: Print the report as one JSON object.
    """
    from edgesnn import api

    path = Path(out) if out is not None else Path(f"{Path(model).stem}.pt")
    with _quiet_stdout(json):
        found = api.convert(
            model,
            calibration,
            path,
            coding=coding,
            timesteps=timesteps,
            beta=beta,
            weights=weights,
            mean=_numbers("mean", mean),
            std=_numbers("std", std),
            confidence=confidence,
            silent=silent,
            signed=not unsigned,
            adjust=not literal,
            class_names=tuple(class_names.split(",")) if class_names else (),
            held_out=held_out,
            seed=seed,
            say=_say,
        )
    if json:
        return _print_json({**found.report, "out": str(path)})
    _print_conversion(found.report, path)


def _numbers(name: str, text: str | None) -> float | tuple[float, ...] | None:
    """One number, or one per channel, separated by commas."""
    if text is None:
        return None
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(
            f"{_flag(name)} is a number, or one per channel (0.5,0.4): {text!r}"
        ) from None
    return found if len(found) > 1 else found[0]


def evaluate(
    model: str,
    *,
    data: str,
    split: str = "test",
    samples: int | None = None,
    form: str | None = None,
    weights: str | None = None,
    report: str | None = None,
    data_dir: str | None = None,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Accuracy, steps, spikes and energy estimates of a checkpoint in floating point and in integers.

    Args:
        model: A .pt checkpoint or zoo:NAME; an .esnn program or a bundle runs in the interpreter.
        data: digits, mnist, fashion-mnist ..., or the path of an .npz (docs/DATA.md).
        split: test or train.
        samples: The first N samples; default all, of a program or bundle 500 (the interpreter is slow).
        form: float, integer or both, of a checkpoint; default all that it has.
        weights: int8, int6, int4, ternary or power-of-two; default what it was trained for.
        report: A folder for report.json and plots.
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        threads: Processor threads.
        json: Print the report as one JSON object.
    """
    from edgesnn import api
    from edgesnn.evaluate import counted

    with _quiet_stdout(json):
        found = api.evaluate(
            model,
            data,
            split=split,
            samples=samples,
            form=form,
            weights=weights,
            report=report,
            data_dir=data_dir,
            threads=threads,
            advance=counted,
        )
    if json:
        return _print_json(found)
    _print_evaluation(found)


def compile(
    model: str,
    *,
    target: str | None = None,
    board: str | None = None,
    out: str | None = None,
    codegen: str = "c",
    weights: str | None = None,
    weight_bits: int | None = None,
    prefer: str = "speed",
    budget: str | None = None,
    package: str | None = None,
    protocol: str = "edgesnn",
    watchdog: int | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Compile a checkpoint or program into a bundle, or into a library for firmware of one's own.

    Args:
        model: A .pt checkpoint, zoo:NAME, an .esnn program (no torch needed) or a bundle.
        target: A name that `edgesnn targets` lists; a board implies it.
        board: A name that `edgesnn boards` lists; adds firmware.
        out: The folder; default ./<model>-<board>/ or ./<model>-<target>/, of a package ./edgesnn_<model>/.
        codegen: c (C source, built by the C compiler) or llvm (objects straight from TVM).
        weights: int8, int6, int4, ternary or power-of-two; default what the checkpoint was trained for.
        weight_bits: 2 to 8: the older form of --weights.
        prefer: speed, or ram: layer by layer over all timesteps where that takes less memory.
        budget: Limits, such as ram=64k,flash=256k,stack=2k,instructions=2M (of an inference at worst).
        package: cmake, arduino, zephyr or platformio: a library instead of a bundle (docs/PACKAGES.md).
        protocol: What the firmware speaks: edgesnn, or mlperf-tiny (docs/MLPERF-TINY.md).
        watchdog: Milliseconds after which a board that hangs resets itself; no timestep may take as long.
        explain: Print the kernels considered for each layer, their predicted cost, and the choice.
        json: Print what was built as one JSON object.
    """
    from edgesnn import api

    options: dict[str, Any] = {
        "codegen": codegen,
        "weights": weights,
        "weight_bits": weight_bits,
        "prefer": prefer,
        "budget": budget,
        "protocol": protocol,
        "watchdog": watchdog,
        "progress": _say,
    }
    with _quiet_stdout(json):
        if package is not None:
            library, about = api.package(model, package, target, board, out, **options)
            written = {"package": str(library.path), "kind": package, "header": library.header}
            told = f"package for {package}: {library.path} (#include <{library.header}>)"
        else:
            bundle = api.compile(model, target, board, out, **options)
            about = api.inspect(bundle.path)
            written = {"bundle": str(bundle.path)}
            told = f"bundle: {bundle.path}"
    if json:
        return _print_json({**written, **about})
    _print_memory(about)
    if explain:
        _print_kernels(about)
    _out(told)


def run(
    bundle: str,
    *,
    data: str,
    split: str = "test",
    samples: int | None = None,
    data_dir: str | None = None,
    port: list[str] | None = None,
    board: list[str] | None = None,
    json: bool = False,
) -> None:
    """Accuracy, timesteps and spikes of a compiled model, on the machine it is for.

    Args:
        bundle: The folder that `edgesnn compile` wrote.
        data: digits, mnist, fashion-mnist, or the path of an .npz.
        split: test or train.
        samples: The first N samples; default all.
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        port: Where a board answers: a serial device or any URL that pyserial takes; several share the work.
        board: The board, emulated where it has no port; several (b,b or twice --board b) share the work.
        json: Print the report as one JSON object.
    """
    from edgesnn import evaluate
    from edgesnn.runtime.pool import Pool

    ports, boards = _several("port", port), _several("board", board)
    with _quiet_stdout(json), Pool(bundle, ports, boards, say=_say) as pool:
        x, y, what = evaluate.load_samples(pool, data, split, samples, data_dir)
        assert y is not None
        report = evaluate.run(pool, x, y, evaluate.counted)
        title = f"{pool.bundle.name} on {what}, {pool.engine_name}"
        names = (pool.bundle.name, pool.bundle.target, pool.engine_name)
    if json:
        model, target, engine = names
        return _print_json(
            {"model": model, "target": target, "engine": engine, "data": what, **report}
        )
    spikes = report["spikes_per_neuron"]
    _pairs(
        title,
        [
            ("samples", f"{report['samples']:,}"),
            ("accuracy", _percent(report["accuracy"])),
            ("mean timesteps", f"{report['mean_timesteps']:.3f}"),
            ("stopped at step", _histogram(report["timesteps_histogram"])),
            ("no output spike", f"{report['no_output_spike']:,}"),
            ("spikes per hidden neuron", _number(spikes["hidden"])),
            ("spikes per neuron", _number(spikes["all"])),
            ("synaptic operations", f"{report['sops_mean']:,.0f} per inference"),
            ("encoder multiply-adds", f"{report['encoder_macs']:,} per inference"),
            *_board_rows(report["boards"]),
        ],
    )


def verify(
    bundle: str,
    *,
    data: str | None = None,
    split: str = "test",
    samples: int | None = None,
    data_dir: str | None = None,
    port: list[str] | None = None,
    board: list[str] | None = None,
    trace: bool = False,
    stream: bool = False,
    json: bool = False,
) -> None:
    """Compare a compiled model with the reference, bit for bit; exit code 1 on a difference.

    Args:
        bundle: The folder that `edgesnn compile` wrote.
        data: digits, mnist, fashion-mnist ..., or the path of an .npz; default random frames.
        split: test or train.
        samples: The first N samples, with --stream intervals; default all (100 random frames).
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        port: Where a board answers: a serial device or any URL that pyserial takes; several share the work.
        board: The board, emulated where it has no port; several (b,b or twice --board b) share the work.
        trace: Compare every spike of every node and step too.
        stream: Compare every decision on the recording --data as it streams, and each window by itself.
        json: Print the report as one JSON object.
    """
    from edgesnn import evaluate
    from edgesnn.runtime.pool import Pool

    ports, boards = _several("port", port), _several("board", board)
    if stream:
        if data is None or trace:
            raise UsageError(
                "--stream compares a recording: name it with --data, and leave --trace out"
            )
        if len(ports) > 1 or len(boards) > 1:
            raise UsageError("--stream is one signal, into one board: name one --port or --board")
        one = (*ports, None)[0], (*boards, None)[0]
        return _verify_stream(bundle, data, split, samples, data_dir, *one, json)
    with _quiet_stdout(json), Pool(bundle, ports, boards, say=_say) as pool:
        x, _, what = evaluate.load_samples(pool, data, split, samples, data_dir)
        report = evaluate.verify(pool, x, trace, evaluate.counted)
        name = pool.bundle.name
    if json:
        _print_json({**report, "model": name, "data": what})
    else:
        _pairs(
            f"{name} on {what}",
            [
                ("engine", report["engine"]),
                ("samples", f"{report['samples']:,}"),
                ("compared", ", ".join(report["compared"])),
                ("mismatches", f"{report['mismatches']:,}"),
                *_board_rows(report["boards"]),
            ],
        )
    if report["mismatches"]:
        raise EdgesnnError(
            f"{report['mismatches']} of {report['samples']} samples differ from the reference; "
            f"first: {report['first_mismatch']}"
        )


def _several(name: str, values: Sequence[str] | None) -> list[str]:
    """What an option names that may be repeated, or hold several words with commas between them."""
    words = [word.strip() for value in values or () for word in value.split(",")]
    if "" in words:
        raise UsageError(f"{_flag(name)} has an empty name in {','.join(values or ())!r}")
    return words


def _board_rows(boards: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """How several boards shared the work, and what went wrong on the way to them."""
    rows = []
    if len(boards) > 1:
        rows = [("boards", f"{len(boards)}")]
        rows += [(f"  {one['name']}", f"{one['samples']:,} samples") for one in boards]
    faults = {
        "frames sent again": "resent",
        "damaged": "damaged",
        "samples begun again": "restarts",
        "reconnections": "reconnects",
    }
    counts = {what: sum(one[key] for one in boards) for what, key in faults.items()}
    text = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return [*rows, ("link", text)] if text else rows


def _verify_stream(
    bundle: str,
    data: str,
    split: str,
    samples: int | None,
    data_dir: str | None,
    port: str | None,
    board: str | None,
    json: bool,
) -> None:
    from edgesnn import streaming
    from edgesnn.evaluate import counted
    from edgesnn.runtime.session import Session

    with _quiet_stdout(json), Session(bundle, port, board, say=_say) as session:
        recording = streaming.find_recording(session, data, split, samples, data_dir)
        report = streaming.verify(session, recording, counted)
        name = session.bundle.name
    if json:
        _print_json({**report, "model": name, "data": f"{data} {split}"})
    else:
        rows = [
            ("engine", report["engine"]),
            ("signal", _signal_length(report)),
            ("decisions", f"{report['decisions']:,}, {report['detections']:,} of them detections"),
        ]
        if report["windows"] is not None:
            rows.append(("windows by themselves", f"{report['windows']:,}"))
        rows += [
            ("compared", ", ".join(report["compared"])),
            ("mismatches", f"{report['mismatches']:,}"),
        ]
        _pairs(f"{name} on {data} {split}, streamed", rows)
    if report["mismatches"]:
        raise EdgesnnError(
            f"{report['mismatches']} answers differ from the reference; first: {report['first_mismatch']}"
        )


def _signal_length(report: dict[str, Any]) -> str:
    return f"{report['signal_seconds']:,.1f} s, {report['intervals']:,} labelled intervals"


def stream(
    bundle: str,
    *,
    source: str | None = None,
    data: str | None = None,
    split: str = "test",
    data_dir: str | None = None,
    port: str | None = None,
    board: str | None = None,
    policy: str = "block",
    capacity: int = 16,
    baud: int = 115_200,
    channel: int | None = None,
    samples: int | None = None,
    all: bool = False,
    json: bool = False,
) -> None:
    """Classify a signal as it comes and print what is detected; Ctrl-C ends with the totals.

    Args:
        bundle: The folder that `edgesnn compile` wrote.
        source: A .wav, .npy, .npz, - (standard input), udp://HOST:PORT, serial://DEVICE or socket://HOST:PORT.
        data: Instead of a source, a labelled recording (fsdd ..., or an .npz): prints how well it does.
        split: Of the recording: test or train.
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        port: Where a board answers: a serial device or any URL that pyserial takes.
        board: The board to emulate.
        policy: When the signal comes too fast: block, drop-oldest or drop-newest.
        capacity: Chunks of the signal (50 ms, 1,024 events, a frame) that may wait.
        baud: Bits per second of a serial source.
        channel: Of a .wav with several: which one, from 0.
        samples: End after N lines, of a recording after N intervals.
        all: Print every decision, detected or not.
        json: Print one JSON object per decision, of a recording one with the score.
    """
    from edgesnn.runtime.stream import Stream

    if samples is not None and samples < 1:
        raise UsageError(f"samples {samples} is not at least 1")
    if (source is None) == (data is None):
        raise UsageError("stream needs a --source, or a labelled recording as --data, and not both")
    if data is not None:
        return _stream_recording(bundle, data, split, samples, data_dir, port, board, json)
    assert source is not None
    with (
        _quiet_stdout(json),
        Stream(
            bundle,
            port=port,
            board=board,
            policy=policy,
            capacity=capacity,
            baud=baud,
            channel=channel,
            say=_say,
        ) as stream,
    ):
        try:
            _print_decisions(stream, source, samples, all, json)
        finally:
            # Also after an error or Ctrl-C: nothing is lost without being counted.
            t = stream.totals
            if t.received or t.damaged or not isinstance(sys.exc_info()[1], EdgesnnError):
                _say(_balance(t))


def _balance(t: Any) -> str:
    """What became of everything that was taken from the source, in one line."""
    unused = t.received - t.used - t.dropped - t.late
    heard = f" ({t.signal_seconds:,.3f} s)" if t.unit != "frame" else ""
    parts = [f"{t.decided:,} decided"]
    if t.unit != "frame":
        parts.append(f"{t.detected:,} detected")
    parts += [f"{t.dropped:,} dropped", f"{t.damaged:,} damaged"]
    parts += [
        f"{count:,} {what}"
        for count, what in (
            (t.lost, "lost on the way"),
            (t.late, "late"),
            (t.gaps, "gaps" if t.gaps > 1 else "gap"),
            (unused, "read ahead and not used"),
        )
        if count > 0
    ]
    if t.decided and t.steps:
        parts.append(f"{t.steps / t.decided:.3f} timesteps on average")
    if t.real_time is not None:
        parts.append(f"{t.real_time:,.1f} x real time")
    elif t.decided and t.seconds:
        parts.append(f"{t.decided / t.seconds:,.0f} a second")
    return f"{t.received:,} {t.unit}{'' if t.received == 1 else 's'}{heard}: {', '.join(parts)}"


def _print_decisions(stream: Any, source: str, samples: int | None, all: bool, json: bool) -> None:
    session = stream.session
    feed = stream.feed(source)
    count = 0
    try:
        for item in feed:
            if item.detected is False and not all:
                continue
            if json:
                _print_json(_decision_row(session, item))
            else:
                _out(_decision_line(session, item))
            count += 1
            if count == samples:
                break
    finally:
        feed.close()


def _decision_row(session: Any, item: Any) -> dict[str, Any]:
    """A decision of a stream, for JSON."""
    d, timed = item.decision, item.detected is not None
    row: dict[str, Any] = {"index": item.index}
    if timed:
        row |= {"time": item.time, "at": item.at}
    row |= {
        "class": d.label,
        "name": session.class_name(d.label),
        "timestep": d.step,
        "exited": d.exited,
        "membranes": d.membranes.tolist(),
        "latency_us": round(1e6 * item.seconds, 1),
        "dropped": item.dropped,
    }
    if timed:
        row |= {"smoothed": item.smoothed, "detected": item.detected}
    if d.ticks is not None and session.counter is not None:
        row[session.counter.unit] = session.counter.units(d.ticks)
        if item.front_ticks is not None:
            row[f"front_end_{session.counter.unit}"] = session.counter.units(item.front_ticks)
    return row


def _decision_line(session: Any, item: Any) -> str:
    d = item.decision
    took = f"{1e3 * item.seconds:.2f} ms since arrival"
    if d.ticks is not None and session.counter is not None:
        took = f"{session.counter.units(d.ticks):,} {session.counter.unit}"
        if item.front_ticks:
            took += f", front end {session.counter.units(item.front_ticks):,}"
    if item.detected is None:
        end = "" if d.exited else "  (no output spike)"
        return f"{item.index:6}  {session.class_name(d.label):12}  step {d.step}  {took}{end}"
    label = item.smoothed if item.detected else d.label
    step = f"  step {d.step}" if session.stream.mode == "window" else ""
    end = "" if item.detected else "  (not reported)"
    return f"{item.time:10.3f} s  {session.class_name(label):12}{step}  {took}{end}"


def _stream_recording(
    bundle: str,
    data: str,
    split: str,
    samples: int | None,
    data_dir: str | None,
    port: str | None,
    board: str | None,
    json: bool,
) -> None:
    from edgesnn import streaming
    from edgesnn.evaluate import counted
    from edgesnn.runtime.session import Session

    with _quiet_stdout(json), Session(bundle, port, board, say=_say) as session:
        recording = streaming.find_recording(session, data, split, samples, data_dir)
        report = streaming.measure(session, recording, counted)
        name, target = session.bundle.name, session.bundle.target
    what = f"{data} {split}"
    if json:
        return _print_json({"model": name, "target": target, "data": what, **report})
    _print_score(f"{name} on {what}, {report['engine']}", report)


def _print_score(title: str, report: dict[str, Any]) -> None:
    """How well a recording's intervals were answered, when, and at what cost."""
    latency, board = report["latency_ms"], report["board"]
    rows = [
        ("signal", _signal_length(report)),
        ("accuracy", f"{_percent(report['accuracy'])} ({report['right']:,} right)"),
        ("without an answer", f"{report['intervals'] - report['answered']:,}"),
        ("further detections", f"{report['extra']:,} after an answer"),
        ("false alarms", f"{report['false_alarms']:,} before the first interval"),
        ("latency from the start", _latency(latency["from_start"])),
        ("latency from the end", _latency(latency["from_end"])),
        ("decisions", f"{report['decisions']:,}, {report['detections']:,} of them detections"),
    ]
    if report["mean_timesteps"] is not None:
        rows.append(("mean timesteps", f"{report['mean_timesteps']:.3f}"))
    if report["sops_mean"] is not None:
        rows.append(("synaptic operations", f"{report['sops_mean']:,.0f} per decision"))
    if board is not None:
        unit = board["unit"]
        rows += [
            (f"{unit} per decision", f"{board['network']:,.0f}"),
            ("  front end, apart", f"{board['front_end']:,.0f}"),
            (f"{unit} per second of signal", f"{board['per_second']:,.0f}"),
        ]
        if board["real_time"] is not None:
            share = _percent(1 / board["real_time"])
            clock = f"{board['clock_hz'] / 1e6:g} MHz"
            if unit == "instructions":
                clock += ", one a cycle"
            rows.append((f"  of {clock}", f"{share}: {board['real_time']:,.1f} x real time"))
    rows.append(("this machine's clock", f"{report['real_time']:,.1f} x real time"))
    _pairs(title, rows)
    _grid(
        ("class", "intervals", "right", "no answer", "wrong answers"),
        [
            (
                name,
                f"{one['intervals']:,}",
                f"{one['right']:,}",
                f"{one['missed']:,}",
                ", ".join(f"{other} {count:,}" for other, count in one["wrong"].items()),
            )
            for name, one in report["classes"].items()
        ],
    )


def _latency(figures: dict[str, float] | None) -> str:
    if figures is None:
        return "nothing was detected"
    return f"{figures['mean']:,.0f} ms, p50 {figures['p50']:,.0f}, p95 {figures['p95']:,.0f}"


def profile(
    bundle: list[str],
    *,
    data: str | None = None,
    split: str = "test",
    samples: int | None = None,
    sweep: int = 200,
    signal: float = 10.0,
    data_dir: str | None = None,
    port: list[str] | None = None,
    board: list[str] | None = None,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Where inferences spend their time, and what stopping earlier would do; several bundles side by side.

    Args:
        bundle: Folders that `edgesnn compile` wrote, one or more.
        data: digits, mnist, fashion-mnist ..., or the path of an .npz; default random frames.
        split: test or train.
        samples: The first N samples; default all (100 random frames).
        sweep: So many of them are run without an exit, to see what each threshold does; 0 for none.
        signal: Seconds of --data as one long recording, for models of a signal; 0 for none.
        data_dir: Where data sets lie; default EDGESNN_DATA, else the cache folder.
        port: Where a board answers: a serial device or any URL that pyserial takes; several share the work.
        board: The board, emulated where it has no port; several (b,b or twice --board b) share the work.
        out: Folder for report.html, report.json and report.txt; default: no files.
        json: Print the report as one JSON object.
    """
    from edgesnn import profiling
    from edgesnn.runtime.bundle import Bundle

    given = {k: v for k, v in locals().items() if k not in ("bundle", "profiling", "Bundle")}
    ports, boards = _several("port", port), _several("board", board)
    if ports and len(bundle) > 1:
        raise UsageError("a --port has one board, and a board runs one bundle: name one bundle")
    if sweep < 0:
        raise UsageError(f"sweep {sweep} is not at least 0")
    if not 0 <= signal < float("inf"):
        raise UsageError(f"signal {signal:g} is not a number of seconds from 0")
    if out is not None:
        profiling.check_report_folder(Path(out))
    for path in bundle:  # before the first of them has been at work for minutes
        Bundle.open(path)
    with _quiet_stdout(json):
        runs = [
            _profiled(path, data, split, samples, sweep, signal, data_dir, ports, boards)
            for path in bundle
        ]
    report = profiling.together(runs, _about("profile", bundle, given))
    missing = None
    if out is not None:
        missing = profiling.write_report(report, _profile_text(report, runs, _PAGE), Path(out))
    if json:
        return _print_json(report)
    _out(_profile_text(report, runs, _width(sys.stdout)))
    if missing is not None:
        _say(missing)
    if out is not None:
        _out(f"report: {out}" if missing else f"report: {Path(out) / profiling.PAGE}")


def _profile_text(report: dict[str, Any], runs: Sequence[dict[str, Any]], width: int) -> str:
    text = _Text(width)
    for run in runs:
        _print_profile(run, text)
    if len(runs) > 1:
        _print_comparison(report["comparison"], text)
    return text.getvalue().rstrip("\n")


def _profiled(
    bundle: str,
    data: str | None,
    split: str,
    samples: int | None,
    sweep: int,
    signal: float,
    data_dir: str | None,
    ports: Sequence[str],
    boards: Sequence[str],
) -> dict[str, Any]:
    from edgesnn import evaluate, profiling
    from edgesnn.runtime.pool import Pool

    with Pool(bundle, ports, boards, say=_say) as pool:
        x, y, what = evaluate.load_samples(pool, data, split, samples, data_dir)
        heard, missing = profiling.find_signal(pool.sessions[0], data, split, data_dir, signal)
        if missing is not None:
            _say(f"no signal is played: {missing}")
        return profiling.profile(
            pool, x, what, evaluate.counted, y=y, signal=heard, sweep_samples=sweep, say=_say
        )


def _about(command: str, words: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    """What was run, when and with what: for a report that somebody reads later."""
    import platform
    import shlex
    from datetime import datetime, timezone

    import numpy as np

    parameters = _inspect.signature(COMMANDS[command]).parameters
    line = ["edgesnn", command, *words]
    for name, value in given.items():
        if value != parameters[name].default:
            text = ",".join(value) if isinstance(value, list) else str(value)
            line += [_flag(name)] if value is True else [_flag(name), text]
    return {
        "command": shlex.join(line),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": platform.platform(),
        "versions": {
            "edgesnn": __version__,
            "Python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def inspect(
    model: str, *, target: str | None = None, text: bool = False, json: bool = False
) -> None:
    """Memory, queues, worst case and widths, before anything runs.

    Args:
        model: A bundle, an .esnn program or a .pt checkpoint.
        target: The core whose instructions are stated, of a program that is no bundle.
        text: Print the program itself, a node a line, large arrays by name.
        json: Print it as one JSON object.
    """
    from edgesnn import api

    if text:
        if json:
            raise UsageError("--text and --json exclude each other")
        from edgesnn.compiler.text import to_text

        return _out(to_text(api.load_program(model), inline=16).rstrip("\n"))
    with _quiet_stdout(json):
        about = api.inspect(model, target)
    if json:
        return _print_json(about)
    _print_memory(about)
    if about.get("instructions") is not None:
        _print_costs(about)


def targets(*, json: bool = False) -> None:
    """The processors that models are compiled for.

    Args:
        json: Print them as one JSON object.
    """
    from edgesnn.targets.target import TARGETS
    from edgesnn.targets.toolchain import find_toolchain

    rows: list[dict[str, Any]] = []
    for t in TARGETS:
        try:
            tools: str | None = find_toolchain(t).version
        except EdgesnnError:
            tools = None
        rows.append(
            {
                "name": t.name,
                "title": t.title,
                "kind": t.kind,
                "arch": t.arch,
                "aliases": list(t.aliases),
                "board": t.board,
                "toolchain": tools,
            }
        )
    if json:
        return _print_json({"targets": rows})
    _grid(
        ("target", "aliases", "emulated board", "what", "compiler found"),
        [
            (
                r["name"],
                ", ".join(r["aliases"]),
                r["board"] or "",
                r["title"],
                r["toolchain"] or "none",
            )
            for r in rows
        ],
    )


def flash(
    bundle: str,
    *,
    board: str | None = None,
    method: str | None = None,
    volume: str | None = None,
    probe: str | None = None,
    port: str | None = None,
    json: bool = False,
) -> None:
    """Write a bundle's firmware to the board it was compiled for (docs/FLASHING.md).

    Args:
        bundle: The folder that `edgesnn compile --board NAME` wrote.
        board: The same board's file, where it has changed since.
        method: pyocd (debug probe), uf2 or volume (drives); default: the first that is plugged in.
        volume: The folder at which the board's drive is mounted, where it is not found by itself.
        probe: Id of the debug probe, or a part of it, where there are several.
        port: Serial port on which to ask the board afterwards; default: the one with its USB ids.
        json: Print what was done as one JSON object.
    """
    from edgesnn.flashing import flash_bundle
    from edgesnn.targets.flash import Choice

    with _quiet_stdout(json):
        report = flash_bundle(bundle, board, Choice(method, volume, probe), port=port, say=_say)
    if json:
        return _print_json(report)
    checked = (
        "read back and equal" if report["verified"] else "not read back: a drive shows nothing"
    )
    rows = [
        ("written", f"{report['file']}, {report['bytes']:,} bytes of flash; {checked}"),
        ("through", f"{report['method']}: {report['where']}"),
    ]
    if report["answers"]:
        rows.append(("the board answers", f"on {report['port']}, with this bundle's model"))
    _pairs(f"{report['model']} on {report['board']}", [*rows, ("next", report["next"])])


def monitor(
    port: str | None = None,
    *,
    board: str | None = None,
    bundle: str | None = None,
    baud: int | None = None,
    ask: bool = False,
    json: bool = False,
) -> None:
    """Print what a board says until Ctrl-C; nothing is sent (unless --ask).

    Args:
        port: A serial device or any URL that pyserial takes; default: the board's, by its USB ids.
        board: Whose port and bit rate to take.
        bundle: What the board should run: its board, its model's id, the names of its functions.
        baud: Bits per second; default the board's, without one 115200.
        ask: Ask the board once what it runs (HELLO).
        json: Print one JSON object for everything it says.
    """
    import time

    from edgesnn.runtime.bundle import Bundle
    from edgesnn.runtime.monitor import NOTE, Monitor
    from edgesnn.runtime.ports import choose_port
    from edgesnn.targets.board import load_board

    held = None if bundle is None else Bundle.open(Path(bundle))
    on = load_board(board) if board is not None else held.load_board() if held is not None else None
    if baud is not None and not 0 < baud <= 10**8:
        raise UsageError(f"--baud is a number of bits per second, not {baud}")
    speed = baud or (on.uart.baud if on is not None else 115_200)
    place = port if port is not None else choose_port(on)
    with _quiet_stdout(json), Monitor(place, baud=speed, bundle=held, ask=ask) as ear:
        _say(f"listening on {place} at {speed:,} bits/s; Ctrl-C ends")
        try:
            for said in ear.listen():
                now = time.time()
                if json:
                    _print_json({"time": now, "kind": said.kind, "text": said.text})
                    continue
                clock = (
                    f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03d}"
                )
                (_say if said.kind == NOTE else _out)(f"{clock}  {said.text}")
        except KeyboardInterrupt:
            words = ear.words
            _say(f"{words.frames} frames, {words.lines} lines of text, {words.damaged} damaged")


def boards(name: str | None = None, *, json: bool = False) -> None:
    """The boards that firmware is built for, one's own in EDGESNN_BOARDS too; with a name its details.

    Args:
        name: One of them, or a board file (.toml).
        json: Print the board or boards as one JSON object.
    """
    from edgesnn.targets.board import list_boards, load_board

    if name is not None:
        row = _board_row(load_board(name))
        return _print_json(row) if json else _print_board(row)
    rows = [_board_row(board) for board in list_boards()]
    if json:
        return _print_json({"boards": rows})
    heads = ("core", "flash", "RAM", "clock")
    real = [r for r in rows if r["emulator"] is None]
    emulated = [r for r in rows if r["emulator"] is not None]
    _grid(
        ("board", *heads, "flashed by", "support run on"),
        [
            (
                r["name"],
                *_board_cells(r),
                ", ".join(r["flashing"]["methods"]) if r["flashing"] else "its own tool",
                r["run_on"] or "not yet: built, linked",
            )
            for r in real
        ],
    )
    _grid(
        ("emulated", *heads, "counts", "emulator"),
        [
            (
                r["name"],
                *_board_cells(r),
                r["counter"],
                r["emulator"] + ("" if r["emulator_found"] else " (not found)"),
            )
            for r in emulated
        ],
    )
    _out("`edgesnn boards NAME` tells more of one.")


def _board_row(board: Any) -> dict[str, Any]:
    """What a board's file says, as plain values."""
    from dataclasses import asdict

    program = board.emulator.program if board.emulator is not None else None
    return {
        "name": board.name,
        "title": board.title,
        "target": board.target,
        "also_runs": list(board.also_runs),
        "clock_hz": board.clock_hz,
        "flash_bytes": board.flash.length,
        "ram_bytes": board.ram.length,
        "stack_bytes": board.stack_bytes,
        "baud": board.uart.baud,
        "counter": board.counter.unit,
        "emulator": program,
        "emulator_found": program is not None and shutil.which(program) is not None,
        "flashing": None if board.flashing is None else asdict(board.flashing),
        "usb": None if board.usb is None else asdict(board.usb),
        "watchdog_ms": None if board.watchdog is None else board.watchdog.most_ms,
        "run_on": board.run_on,
        "file": str(board.path),
    }


def _board_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return (
        row["target"],
        f"{row['flash_bytes'] // 1024} KiB",
        f"{row['ram_bytes'] // 1024} KiB",
        f"{row['clock_hz'] / 1e6:g} MHz",
    )


def _print_board(row: dict[str, Any]) -> None:
    core, flash_size, ram, clock = _board_cells(row)
    flashing, usb = row["flashing"], row["usb"]
    rows = [
        ("core", ", ".join((core, *(f"runs {name} too" for name in row["also_runs"])))),
        ("clock", f"{clock}; an inference is counted in {row['counter']}"),
        (
            "memory",
            f"{flash_size} of flash, {ram} of RAM, {row['stack_bytes']:,} bytes of it stack",
        ),
    ]
    if row["emulator"] is not None:
        found = "" if row["emulator_found"] else " (not found on PATH)"
        rows.append(("emulated by", f"{row['emulator']}{found}: `edgesnn run BUNDLE` starts it"))
    elif flashing is None:
        rows.append(("flashed by", "its own tool, with firmware.hex, .bin or .elf of the bundle"))
    else:
        ways = {
            "pyocd": f"pyocd (debug probe, chip {flashing['chip']})",
            "uf2": f"uf2 (drive {flashing['volume'] or 'with INFO_UF2.TXT'})",
            "volume": f"volume (drive {flashing['volume']}, firmware.{flashing['volume_file']})",
        }
        rows.append(("flashed by", ", else ".join(ways[method] for method in flashing["methods"])))
        if flashing["how"]:
            rows.append(("with hands", flashing["how"]))
        if flashing["pack"]:
            rows.append(("once before", f"pyocd pack install {flashing['chip']}"))
    wire = [f"{row['baud']:,} bits/s"]
    if usb is not None:
        wire += [usb["serial"]] if usb["serial"] else []
        wire += [f"USB {', '.join(usb['ids'])}"] if usb["ids"] else []
    if row["emulator"] is None:
        rows.append(("serial port", "; ".join(wire)))
        rows.append(("support run on", row["run_on"] or "nothing yet: it builds and links"))
    most = row["watchdog_ms"]
    dog = "none" if most is None else f"up to {most:,} ms: `edgesnn compile --watchdog MS`"
    rows.append(("watchdog", dog))
    _pairs(f"{row['name']}: {row['title']}", [*rows, ("file", row["file"])])


def zoo(name: str | None = None, *, json: bool = False) -> None:
    """The trained networks that come with edgesnn; with a name its card. Use them as zoo:NAME.

    Args:
        name: One of them.
        json: Print the card or cards as one JSON object.
    """
    from edgesnn.zoo.card import PREFIX, cards, find_card

    if name is not None:
        card = find_card(name)
        if json:
            return _print_json(card.to_dict())
        return _pairs(
            f"{PREFIX}{card.name}: {card.title}",
            [
                ("network", f"{card.net}, {card.weights:,} weights, T = {card.timesteps}"),
                ("trained on", f"{card.data}; licence of the data: {card.data_licence}"),
                ("command", card.command),
                ("exit", f"{card.exit} at {card.threshold:g}, chosen on validation"),
                ("test samples", f"{card.samples:,}"),
                ("float", f"{_percent(card.float_accuracy)} at {card.float_steps:.3f} steps"),
                ("integers", f"{_percent(card.accuracy)} at {card.steps:.3f} steps"),
                ("spikes per hidden neuron", _number(card.spikes_per_neuron)),
                ("synaptic operations", f"{card.sops:,.0f} per inference"),
                ("Cortex-M4 flash", _bytes(card.flash_bytes)),
                ("Cortex-M4 RAM", _bytes(card.ram_bytes)),
                ("built with", card.compiler),
            ],
        )
    if json:
        return _print_json({"zoo": [card.to_dict() for card in cards().values()]})
    _grid(
        ("model", "data", "weights", "integer accuracy", "steps", "M4 flash", "what"),
        [
            (
                PREFIX + c.name,
                c.data,
                f"{c.weights:,}",
                _percent(c.accuracy),
                f"{c.steps:.3f}",
                _bytes(c.flash_bytes),
                c.title,
            )
            for c in cards().values()
        ],
    )


COMMANDS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        train,
        evaluate,
        calibrate,
        convert,
        compile,
        run,
        verify,
        stream,
        profile,
        inspect,
        flash,
        monitor,
        targets,
        boards,
        zoo,
    )
}


# --- printing -----------------------------------------------------------------------------------

# The real standard output: during the work of a --json command sys.stdout is standard error.
_stdout: TextIO | None = None


@contextmanager
def _quiet_stdout(json: bool) -> Iterator[None]:
    """With --json whatever else is printed goes to standard error."""
    global _stdout
    if not json:
        yield
        return
    _stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = None


def _out(text: str) -> None:
    print(text, file=_stdout or sys.stdout, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: dict[str, Any]) -> None:
    _out(_json.dumps(value))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _bytes(value: int | None, unknown: str = "known after compilation") -> str:
    return unknown if value is None else f"{value:,} bytes"


def _stack(about: dict[str, Any]) -> str:
    built = about.get("flash_bytes", 0) is not None
    unknown = "unknown: LLVM objects tell no frame sizes" if built else "known after compilation"
    return _bytes(about["stack_bytes"], unknown)


def _histogram(histogram: dict[str, int]) -> str:
    return "  ".join(f"{step}: {count:,}" for step, count in histogram.items())


_PAGE = 110  # columns where nothing says how many there are: a pipe, a file


class _Text(StringIO):
    """Text that is made for so many columns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


def _width(file: TextIO) -> int:
    """Columns of what is printed to."""
    if isinstance(file, _Text):
        return file.width
    return shutil.get_terminal_size((80, 24)).columns if file.isatty() else _PAGE


def _render(table: Any, file: TextIO, least: int = 0) -> None:
    """least: columns that it needs; where there are fewer, the terminal breaks the lines."""
    from rich.console import Console

    # On a dumb terminal rich takes the width only together with a height, which tables do not use.
    width = max(_width(file), least)
    Console(file=file, width=width, height=24, highlight=False, markup=False).print(table)


def _pairs(title: str, rows: Iterable[tuple[str, str]], file: TextIO | None = None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=SIMPLE_HEAD)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    _render(table, file or sys.stdout)


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], file: TextIO | None = None) -> None:
    """A table; a too wide one has its cells wrapped, then becomes several, with the first column in each."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table

    file, rows = file or sys.stdout, list(rows)
    columns = list(zip(heads, *rows, strict=True))
    whole = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(word) for cell in c for word in cell.split() or [""]) for c in columns]
    # No name that is to be typed, and no number, is broken; a path in the first column may be.
    room = _width(file)
    least = [min(whole[0], room // 2), *words[1:]]
    parts: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        fits = _grid_width(least[j] for j in (*parts[-1], i)) <= room
        if not fits and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(i)
    for part in parts:
        widths = {i: whole[i] for i in part}
        while _grid_width(widths.values()) > room:
            widest = max(part, key=lambda i: widths[i] if widths[i] > least[i] else 0)
            if widths[widest] == least[widest]:
                break
            widths[widest] -= 1
        table = Table(box=SIMPLE_HEAD)
        for i, width in widths.items():
            table.add_column(heads[i], width=width, overflow="fold")
        for row in rows:
            table.add_row(*(row[i] for i in part))
        _render(table, file, _grid_width(widths.values()))


def _grid_width(columns: Iterable[int]) -> int:
    """Of a table of columns so wide: a space on each side of each, one between them and around."""
    return 1 + sum(width + 3 for width in columns)


def _print_calibration(report: dict[str, Any]) -> None:
    from edgesnn.calibrate import table_rows

    _grid(
        ("", f"{report['exit']} at", "accuracy", "mean steps"),
        [
            (
                "chosen" if row["value"] == report["value"] else "",
                f"{row['value']:g}",
                _percent(row["accuracy"]),
                f"{row['mean_steps']:.3f} of {report['timesteps']}",
            )
            for row in table_rows(report["front"], report["value"])
        ],
    )
    before = report["before"]
    was = f"{before['exit']} at {before['value']:g}"
    which = "train samples" if report["held_out"] is False else "held-out train samples"
    _pairs(
        f"{report['model']} on {report['samples']:,} {which} of {report['data']}",
        [
            ("before", _exit_line(was, before)),
            ("now", _exit_line(f"{report['exit']} at {report['value']:g}", report)),
            ("written", report["out"]),
        ],
    )
    if report["held_out"] is False:
        _say(f"{report['data']} has not the samples that the net was trained on")
    if not report["met"]:
        if report["wanted_accuracy"] is not None:
            wanted, closest = _percent(report["wanted_accuracy"]), "the most accurate"
        else:
            wanted, closest = f"{report['wanted_steps']:g} mean steps", "the fastest"
        _say(f"no value of this exit reaches {wanted}: chosen is {closest}")


def _print_conversion(report: dict[str, Any], path: Path) -> None:
    held, energy = report["held_out"], report["energy"]
    samples = report["samples"]
    low, high = report["input"]["fed"][:2]
    rows = [
        ("coding", _coding(report)),
        ("fed values of raw 0 ... 255", f"{low:.4g} ... {high:.4g}"),
        ("samples", f"{samples['calibration']:,}, and {samples['held_out']:,} held out"),
    ]
    if held["accuracy"] is not None:
        loss = f"{held['loss_points']:+.2f} points lost"
        ann = _percent(held["ann_accuracy"])
        rows.append(("accuracy, held out", f"{_percent(held['accuracy'])} (network {ann}, {loss})"))
    rows += [
        ("the network's class, held out", _percent(held["agreement"])),
        ("exit", _conversion_exit(report)),
        ("mean steps", f"{held['mean_steps']:.2f} of {report['latency']}"),
        ("spikes per inference", f"{report['spikes']:,.0f}"),
        (
            "synaptic operations",
            f"{report['sops']:,.0f} (network {report['macs']:,} multiply-adds)",
        ),
        (
            "energy (estimate)",
            f"{energy['snn_pj'] / 1e6:.3f} uJ, the network's {energy['ann_pj'] / 1e6:.3f} uJ",
        ),
        ("written", str(path)),
    ]
    _pairs(report["network"], rows)
    _grid(
        (
            "node",
            "shape",
            "amplitude",
            "left / amplitude",
            "spikes a neuron",
            "synaptic operations",
        ),
        [
            (
                row["name"],
                "x".join(map(str, row["shape"])),
                "" if row["amplitude"] is None else f"{row['amplitude']:.4g}",
                "" if row["residual"] is None else f"{row['residual']:.3f}",
                "" if row["spikes_per_neuron"] is None else f"{row['spikes_per_neuron']:.3f}",
                f"{row['sops']:,.0f}",
            )
            for row in report["layers"]
        ],
    )
    for note in report["notes"]:
        _say(note)


def _coding(report: dict[str, Any]) -> str:
    if report["coding"] == "rate":
        return f"rates over {report['timesteps']} steps"
    return (
        f"canonic signed spikes, T {report['timesteps']}, beta {report['beta']:g} "
        f"({report['amplification']}), {report['weights']}"
    )


def _conversion_exit(report: dict[str, Any]) -> str:
    held = report["held_out"]
    if report["exit"] == "never":
        return "none: all steps"
    steps = f"{held['mean_output_steps']:.2f} of {report['timesteps']} output steps"
    if report["exit"] == "sound":
        return f"sound (the class is proved to stay): {steps}, {held['changed']} answers changed"
    found = report["confidence"]
    share = _percent(found["disagreement"])
    return f"confidence {found['wanted']:g}, no proof: {steps}, {share} of the answers changed"


def _exit_line(exit: str, figures: dict[str, Any]) -> str:
    return f"{exit}: {_percent(figures['accuracy'])} at {figures['mean_steps']:.3f} steps"


def _print_memory(about: dict[str, Any]) -> None:
    where = about.get("board") or about.get("target")
    _pairs(
        f"{about['model']}" + (f" for {where}" if where else ""),
        [
            ("flash", _bytes(about["flash_bytes"])),
            ("RAM (with the arena)", _bytes(about["ram_bytes"])),
            ("arena", _bytes(about["arena_bytes"])),
            ("stack, worst case", _stack(about)),
            ("timesteps, at most", str(about["timesteps"])),
            ("worst case", _worst(about)),
            *_instruction_rows(about.get("instructions")),
            ("encoder", f"{about['encoder_macs']:,} multiply-adds per inference"),
            *_stream_rows(about.get("stream"), about["class_names"]),
        ],
    )
    layered = any(n.get("band") for n in about["nodes"])
    _grid(
        ("node", "kind", "shape", "membrane", "queue (events a step)")
        + (("layer by layer, rows at a time",) if layered else ()),
        [
            (
                n["name"],
                n["kind"],
                "x".join(map(str, n["shape"])),
                str(about["widths"].get(n["name"], "")),
                f"{about['queues'][n['name']]:,}" if n["name"] in about["queues"] else "",
                *((str(n.get("band") or ""),) if layered else ()),
            )
            for n in about["nodes"]
        ],
    )


def _stream_rows(stream: dict[str, Any] | None, classes: Sequence[str]) -> list[tuple[str, str]]:
    """How a signal becomes decisions, of a model that has a stream."""
    if stream is None:
        return []
    if stream["mode"] == "continuous":
        step = f"steps of {stream['step_us'] / 1000:g} ms"
        return [("stream", f"events, {step}; {stream['refractory']} of rest after a decision")]
    unit = "sound" if stream["source"] == "sound" else f"rows of {stream['values']}"
    quiet = ", ".join(classes[i] if classes else str(i) for i in stream["background"])
    votes = f"{stream['votes']} of {stream['smooth']} votes, {stream['refractory']} windows of rest"
    return [
        ("stream", f"{unit} ({stream['dtype']}) at {stream['rate']:g} Hz"),
        ("  window, hop", f"{stream['window_ms']:g} ms, {stream['hop_ms']:g} ms"),
        ("  detection", votes + (f"; never reported: {quiet}" if quiet else "")),
        ("  memory", _bytes(stream["memory_bytes"]) + ", beside the arena"),
    ]


def _instruction_rows(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    if "unknown" in found:
        return [("worst case, instructions", f"unknown: {found['unknown']}")]
    step, whole = found["worst_per_step"], found["worst_per_inference"]
    return [
        ("worst case, instructions", f"{step:,} a step, {whole:,} an inference"),
        ("predicted mean", f"{found['mean']:,} instructions an inference, at {found['mean_at']}"),
    ]


def _figure(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _print_costs(about: dict[str, Any]) -> None:
    """What each node costs at worst and in the mean."""
    found, kernels = about["instructions"] or {}, about["kernels"] or {}
    by_node, sops = found.get("by_node", {}), about["worst_case_sops_by_node"]
    if not by_node:
        return
    _grid(
        ("node", "kernels", "SOPs a step", "instructions a step", "an inference", "in the mean"),
        [
            (
                node["name"],
                kernels.get(node["name"], {}).get("style", ""),
                f"{sops[node['name']]:,}" if node["name"] in sops else "",
                *(
                    _figure(by_node[node["name"]][k])
                    for k in ("worst_per_step", "worst_per_inference", "mean")
                ),
            )
            for node in about["nodes"]
        ],
    )


def _print_kernels(about: dict[str, Any]) -> None:
    """The kernels that each layer could have, what they cost, and the choice."""
    rows = []
    known = about["kernels"] or {}
    for name in (node["name"] for node in about["nodes"] if node["name"] in known):
        kernels = known[name]
        for i, one in enumerate(kernels["considered"]):
            rows.append(
                (
                    name if i == 0 else "",
                    one["style"],
                    _figure(one["worst_instructions"]),
                    _figure(one["mean_instructions"]),
                    f"{one['flash_bytes']:,}",
                    "chosen" if one["style"] == kernels["style"] else "",
                )
            )
    heads = ("layer", "kernels", "instructions at worst", "in the mean", "flash bytes", "")
    _grid(heads, rows)


def _print_evaluation(found: dict[str, Any]) -> None:
    forms = found["forms"]
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("samples", lambda f: f"{f['samples']:,}"),
        ("accuracy", lambda f: _percent(f["accuracy"])),
        ("mean timesteps", lambda f: f"{f['mean_timesteps']:.3f} of {found['timesteps']}"),
        ("stopped at step", lambda f: _histogram(f["timesteps_histogram"])),
        ("no output spike", lambda f: f"{f['no_output_spike']:,}"),
        ("spikes per hidden neuron", lambda f: _number(f["spikes_per_neuron"]["hidden"])),
        ("synaptic operations", lambda f: f"{f['sops_mean']:,.0f}"),
    ]
    if found["parameters"] is not None:
        rows.append(("parameters", lambda f: f"{found['parameters']:,}"))
    rows += [
        ("encoder multiply-adds", lambda f: f"{f['encoder_macs']:,}"),
        ("hardest classes", lambda f: _hardest(f["accuracy_per_class"])),
        ("energy, eq. 16 (estimate)", lambda f: f"{f['energy']['snn_pj'] / 1e6:.3f} uJ"),
        ("  dense net, eq. 15", lambda f: f"{f['energy']['ann_pj'] / 1e6:.3f} uJ"),
    ]
    for name in forms[0]["energy"]["normalised"]:
        label = f"  {name}, eq. 17, of no exit's"
        rows.append((label, partial(_normalised, name)))
    _out(f"{found['model']} on {found['data']}, {found['split']}")
    _grid(
        ("", *(f["form"] for f in forms)),
        [(name, *(cell(f) for f in forms)) for name, cell in rows],
    )
    _grid(
        ("layer", "kind", "neurons", "spikes per neuron", "synaptic operations"),
        [
            (
                r["name"],
                r["kind"],
                f"{r['neurons']:,}",
                "" if r["kind"] in ("output", "Accumulator") else f"{r['spikes_per_neuron']:.4f}",
                f"{r['sops_mean']:,.0f}",
            )
            for r in forms[-1]["per_layer"]
        ],
    )
    if found["no_plots"]:
        _say(found["no_plots"])
    if found["report"]:
        _out(f"report: {found['report']}")


def _normalised(chip: str, form: dict[str, Any]) -> str:
    return _percent(form["energy"]["normalised"][chip])


def _hardest(classes: dict[str, float]) -> str:
    worst = sorted(classes, key=lambda c: classes[c])[:2]
    return "  ".join(f"{name}: {_percent(classes[name])}" for name in worst)


def _worst(about: dict[str, Any]) -> str:
    step, whole = about["worst_case_sops_per_step"], about["worst_case_sops_per_inference"]
    return f"{step:,} synaptic operations a step, {whole:,} an inference"


def _observed_rows(report: dict[str, Any], most: float) -> list[tuple[str, str]]:
    """The worst case beside the most that was observed, in instructions and synaptic operations."""
    worst, sops = report["worst_case"], report["worst_case_sops"]
    rows = [("synaptic operations, most", f"{report['sops_max']:,} of {sops:,} at worst")]
    if worst is not None and report["unit"] == "instructions":
        share = 100 * most / worst
        rows.insert(0, ("  most, of worst case", f"{most:,.0f} of {worst:,} ({share:.0f} %)"))
    return rows


def _print_profile(report: dict[str, Any], file: TextIO) -> None:
    unit, link = report["unit"], report["link"]
    figures = report[unit]
    rows = [("samples", f"{report['samples']:,} ({report['data']})")]
    if report["accuracy"] is not None:
        rows.append(("accuracy", _percent(report["accuracy"])))
    rows += [
        (f"{unit} per inference", f"{figures['mean']:,.0f} on average"),
        *((f"  {k}", f"{figures[k]:,.0f}") for k in ("p50", "p95", "p99", "max")),
        *_observed_rows(report, figures["max"]),
        ("mean timesteps", f"{report['timesteps']['mean_timesteps']:.3f}"),
        ("stopped at step", _stops(report)),
        ("spikes", f"{report['distribution']['spikes']['mean']:,.0f} per inference"),
        ("synaptic operations", f"{report['sops_mean']:,.0f} per inference"),
        *_energy_rows(report),
    ]
    if link is not None:
        took = 1e3 * link["seconds_per_inference"]
        rows.append(("link, apart", f"{took:.2f} ms per inference on this machine's clock"))
    memory = report["memory"]
    rows += [
        ("flash", _bytes(memory["flash_bytes"])),
        ("RAM (with the arena)", _bytes(memory["ram_bytes"])),
        ("stack, worst case", _stack({**memory, "target": report["target"]})),
    ]
    if memory["stack_high_water"] is not None:
        rows.append(("stack, used so far", _bytes(memory["stack_high_water"])))
    rows += _board_rows(report["boards"])
    _pairs(f"{report['model']}, {report['engine']}", rows, file)
    _print_parts(report, file)
    _print_sweep(report, file)
    if report["signal"] is not None:
        _print_signal(report["signal"], file)


def _energy_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    energy = report["energy"]
    rows = [
        ("energy, eq. 16 (estimate)", f"{energy['snn_pj'] / 1e6:.3f} uJ"),
        ("  dense net, eq. 15", f"{energy['ann_pj'] / 1e6:.3f} uJ"),
    ]
    for name, share in (energy["normalised"] or {}).items():
        rows.append((f"  {name}, eq. 17, of no exit's", _percent(share)))
    if energy["board"] is not None:
        joules = energy["board"]["microjoules"]
        rows.append(
            (
                "energy of the board (estimate)",
                f"{joules['mean']:,.1f} uJ, p95 {joules['p95']:,.1f} uJ",
            )
        )
    return rows


def _stops(report: dict[str, Any]) -> str:
    """How often it stopped at each step; of many steps those that occurred."""
    found = report["timesteps"]["timesteps_histogram"]
    return _histogram({k: v for k, v in found.items() if v or len(found) <= 8})


def _print_parts(report: dict[str, Any], file: TextIO) -> None:
    """Where the time goes: the whole, and node by node."""
    unit, timed, whole = report["unit"], report["per_layer_samples"], report["parts"]
    heads = ["node", "kind", "neurons", "events", "synaptic operations"]
    cells = [
        [
            r["name"],
            r["kind"],
            f"{r['neurons']:,}",
            f"{r['events_mean']:,.1f}",
            f"{r['sops_mean']:,.0f}",
        ]
        for r in report["per_layer"]
    ]
    if timed is not None:
        print(f"per layer, means over the first {timed:,} samples, run node by node", file=file)
        heads += [unit, "share", "events (est.)", "updates (est.)"]
        for cell, r in zip(cells, report["per_layer"], strict=True):
            cell += [f"{r[f'{unit}_mean']:,.0f}", f"{100 * r['share']:.1f} %"]
            for part in ("events", "updates"):
                known = (r["parts"] or {}).get(part)
                cell.append("" if known is None else f"{known:,.0f}")
    _grid(tuple(heads), [tuple(cell) for cell in cells], file)
    if whole is not None:
        shares = "  ".join(f"{k} {100 * v:.1f} %" for k, v in whole["shares"].items() if v)
        by = f"; events and updates told apart by {whole['method']}" if whole["method"] else ""
        said = f"of an inference: {shares} (layers measured{by})"
        print(textwrap.fill(said, _width(file), subsequent_indent="  ") + "\n", file=file)


def _print_sweep(report: dict[str, Any], file: TextIO) -> None:
    found, unit = report["sweep"], report["unit"]
    if found is None:
        print(f"no sweep of the threshold: {report['sweep_missing']}\n", file=file)
        return
    points = found["points"]
    picked = {round(i * (len(points) - 1) / 9) for i in range(10)}
    rows = []
    for i, p in enumerate(points):
        if i not in picked and not p["own"]:
            continue
        amount, right = p[f"{unit}_estimate"], p["accuracy"]
        rows.append(
            (
                "its own" if p["own"] else "",
                f"{p['value']:,}",
                "" if right is None else _percent(right),
                f"{p['mean_timesteps']:.3f}",
                "" if amount is None else f"{amount:,.0f}",
            )
        )
    print(f"threshold of the {found['exit']} exit, {found['samples']:,} samples", file=file)
    _grid(("", "threshold", "accuracy", "mean timesteps", f"{unit} (estimate)"), rows, file)


def _print_signal(signal: dict[str, Any], file: TextIO) -> None:
    """What a second of signal costs."""
    found, board = signal["score"], signal["board"]
    rows = [
        ("signal", f"{signal['signal_seconds']:,.1f} s, {found['intervals']:,} labelled intervals"),
        ("accuracy of the detections", _percent(found["accuracy"])),
        ("latency from the start", _latency(found["latency_ms"]["from_start"])),
        ("latency from the end", _latency(found["latency_ms"]["from_end"])),
        ("decisions", f"{signal['decisions']:,}, {signal['detections']:,} of them detections"),
    ]
    if board is not None:
        unit = board["unit"]
        network, front = board["network"], board["front_end"]
        rows += [
            (f"{unit} per decision", f"{network['mean']:,.0f}, p95 {network['p95']:,.0f}"),
            ("  front end, apart", f"{front['mean']:,.0f}, p95 {front['p95']:,.0f}"),
            (f"{unit} per second of signal", f"{board['per_second']:,.0f}"),
            ("  front end, of it", _percent(board["front_end_share"])),
            ("  of the nominal clock", _of_clock(board)),
        ]
        if board["per_step"] is not None:
            rows.append((f"{unit} per step", f"{board['per_step']:,.0f}"))
    rows.append(("this machine's clock", f"{signal['real_time']:,.1f} x real time"))
    _pairs(f"{signal['recording']}, {signal['mode']} mode", rows, file)


def _of_clock(board: dict[str, Any]) -> str:
    each = ", one cycle each" if board["unit"] == "instructions" else ""
    return f"{_percent(board['share_of_clock'])} of {board['clock_hz'] / 1e6:g} MHz{each}"


def _print_comparison(rows: list[dict[str, Any]], file: TextIO) -> None:
    def uj(value: float | None) -> str:
        return "" if value is None else f"{value:,.1f}"

    print("side by side", file=file)
    _grid(
        ("", "accuracy", "mean", "p95", "worst case", "steps", "flash", "RAM", "board uJ (est.)"),
        [
            (
                r["label"],
                "" if r["accuracy"] is None else _percent(r["accuracy"]),
                f"{r['amount']['mean']:,.0f} {r['unit']}",
                f"{r['amount']['p95']:,.0f}",
                "" if r["worst_case"] is None else f"{r['worst_case']:,}",
                f"{r['mean_timesteps']:.3f}",
                f"{r['flash_bytes']:,}",
                f"{r['ram_bytes']:,}",
                uj(r["board_uj"]),
            )
            for r in rows
        ],
        file,
    )


# --- parsing ------------------------------------------------------------------------------------


def _kind(hint: Any) -> type:
    """The plain type behind an annotation such as `int | None`."""
    # Python 3.10 turns a default of None into typing.Optional.
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(t for t in typing.get_args(hint) if t is not type(None))
    return typing.cast(type, hint)


def _converter(name: str, kind: type) -> Callable[[str], Any]:
    """What turns the text of one argument into its value; fire would guess."""

    def convert(text: str) -> Any:
        if kind is str:
            return text
        if typing.get_origin(kind) is list:
            return _json.loads(text)
        if kind is bool:
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
            raise UsageError(f"{_flag(name)} is a switch and takes no value")
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise UsageError(f"{_flag(name)} is {what}, not {text!r}") from None

    return convert


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def parse(command: str, words: Sequence[str]) -> dict[str, str]:
    """Parameter name -> text for a command's words; UsageError where its signature has no such.

    A parameter that is a list takes every free word left: its text is a JSON list.
    """
    parameters = _inspect.signature(COMMANDS[command]).parameters
    kinds = {k: _kind(v) for k, v in typing.get_type_hints(COMMANDS[command]).items()}
    free = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    help_hint = f"`edgesnn {command} --help` lists its options"
    found: dict[str, str] = {}
    lists: dict[str, list[str]] = {k: [] for k, v in kinds.items() if typing.get_origin(v) is list}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            flag, equals, text = word.partition("=")
            name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
            if name not in parameters:
                hint = did_you_mean(flag, map(_flag, parameters))
                raise UsageError(f"{command} has no option {flag}{hint or '; ' + help_hint}")
            if kinds[name] is bool:
                text = text if equals else "True"
            elif not equals:
                if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
                    raise UsageError(f"{flag} needs a value; {help_hint}")
                text = rest.pop(0)
        else:
            left = [n for n in free if n not in found]
            if not left:
                raise UsageError(f"{command} takes no further argument {word!r}; {help_hint}")
            name, text = left[0], word
        if name in lists:
            lists[name].append(text)
            continue
        if name in found:
            raise UsageError(f"{_flag(name)} is given twice")
        found[name] = text
    found |= {name: _json.dumps(given) for name, given in lists.items() if given}
    for p in parameters.values():
        if p.default is p.empty and p.name not in found:
            what = p.name.upper() if p.name in free else _flag(p.name)
            raise UsageError(f"{command} needs {what}; {help_hint}")
    return found


def _call(command: str, values: dict[str, str]) -> None:
    """Hand the checked arguments to fire, all as --name=text, each with its own parse function."""
    from fire import Fire
    from fire.core import FireExit
    from fire.decorators import SetParseFns

    function = COMMANDS[command]
    kinds = typing.get_type_hints(function)
    kinds.pop("return")
    pinned = SetParseFns(**{n: _converter(n, _kind(k)) for n, k in kinds.items()})(function)
    try:
        Fire(pinned, [f"--{name}={text}" for name, text in values.items()], f"edgesnn {command}")
    except FireExit as e:  # cannot happen after `parse`; fire has said why
        raise SystemExit(e.code) from None


def _describe(command: str) -> str:
    """A command's help, from its signature and docstring."""
    function = COMMANDS[command]
    summary, _, body = _inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:\n")
    told = dict(line.strip().split(": ", 1) for line in body.splitlines())
    parameters = _inspect.signature(function).parameters.values()
    kinds = typing.get_type_hints(function)
    rows, usage = [], [f"usage: edgesnn {command}"]
    for p in parameters:
        kind, default = _kind(kinds[p.name]), p.default
        value = "" if kind is bool else f" {'N' if kind in (int, float) else p.name.upper()}"
        head = _flag(p.name) + value
        if p.kind is p.POSITIONAL_OR_KEYWORD:
            head = p.name.upper() + ("..." if typing.get_origin(kind) is list else "")
            usage.append(head)
        elif default is p.empty:
            usage.append(head)
        text = told[p.name]
        if default is p.empty:
            text += " (required)"
        elif default is not None and kind is not bool:
            text += f" (default: {default})"
        rows.append((head, text))
    width = max(len(head) for head, _ in rows) + 2
    options = [f"  {head:{width}}{text}" for head, text in rows]
    return "\n".join([" ".join([*usage, "[OPTIONS]"]), "", summary, "", *options])


def _help(command: str | None) -> None:
    if command is not None:
        return _out(_describe(command))
    lines = ["usage: edgesnn COMMAND [OPTIONS]", "", "commands:"]
    for name, function in COMMANDS.items():
        first = (function.__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name:9} {first}")
    lines += [
        "",
        "  edgesnn COMMAND --help   what a command does and takes",
        "  edgesnn --version",
        "",
        "A command that reports takes --json: standard output then holds JSON and nothing else.",
    ]
    _out("\n".join(lines))


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("--help", "-h", "help"):
        command = words[1] if len(words) > 1 and words[1] in COMMANDS else None
        return _help(command)
    if words == ["--version"]:
        return _out(f"edgesnn {__version__}")
    command = words[0]
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        raise UsageError(f"unknown command {command!r}{hint or '; one of ' + ', '.join(COMMANDS)}")
    if any(word in ("--help", "-h") for word in words[1:]):
        return _help(command)
    _call(command, parse(command, words[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code: 0 done, 1 failed, 2 usage, 130 Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


if __name__ == "__main__":
    sys.exit(main())
