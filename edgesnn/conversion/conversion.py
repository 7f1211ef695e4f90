"""`convert`: an ordinary trained network and some of its data to an integer program and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.ann import Ann
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.check import MAX_CODING_STEPS, MAX_SILENT, MAX_TIMESTEPS
from edgesnn.compiler.exits import gain
from edgesnn.compiler.passes.convert import (
    WEIGHTS,
    CssSettings,
    amplification_of,
    to_css_program,
    window_gain,
)
from edgesnn.compiler.passes.convert_rate import to_rate_program
from edgesnn.conversion.amplitudes import (
    PERCENTILE,
    PERCENTILES,
    RESIDUAL,
    SAMPLES,
    adjusted,
    first_amplitudes,
)
from edgesnn.conversion.forward import AnnForward, multiply_accumulates
from edgesnn.conversion.margins import choose_margins
from edgesnn.conversion.report import answers, layer_rows, rates_of, shifts_text, work
from edgesnn.conversion.samples import Numbers, Samples, read_samples, split
from edgesnn.conversion.simulate import simulate
from edgesnn.targets.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

CODINGS = ("css", "rate")
CSS_STEPS, RATE_STEPS = 8, 32
RATE_PERCENTILE = 0.999
Say = Callable[[str], None]


@dataclass(frozen=True)
class Conversion:
    """The program, and what was measured (plain values; docs/CONVERSION.md says what each means)."""

    program: ir.Program
    report: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write it as a .pt archive of tensors and plain values."""
        from edgesnn.conversion.archive import save_converted

        save_converted(self.program, self.report, Path(path))


def convert(
    model: str | Path | bytes | Ann | nn.Module,
    calibration: str | Path | np.ndarray,
    *,
    beta: float = 2.0,
    timesteps: int | None = None,
    weights: str = "int8",
    coding: str = "css",
    mean: Numbers = None,
    std: Numbers = None,
    confidence: float | None = None,
    silent: int = 1,
    signed: bool = True,
    name: str | None = None,
    seed: int = 0,
    class_names: tuple[str, ...] = (),
    held_out: float = 0.2,
    adjust: bool = True,
    say: Say = lambda line: None,
) -> Conversion:
    """Convert `model` to canonic signed spikes (coding "css"), or to rates ("rate") to compare with.

    model: an ONNX file's path or bytes, an Ann, or a torch module. calibration: as in `read_samples`; a share
    `held_out` of it is measured on and used for nothing else. timesteps: length of a spike train, 8 for css
    and 32 for rates if not given. weights: "int8" or "int16". silent, signed: the silent period, and whether
    there are negative spikes. confidence: stop early with margins that change at most a share 1 - confidence
    of the calibration part's answers; None stops when no spike left can change the class. adjust: enlarge spike
    amplitudes by what is left on the membranes (A.3). say: told of each stage, a line.

    Raises UsageError or EdgesnnError, one line.
    """
    begin = time.perf_counter()
    if timesteps is None:
        timesteps = CSS_STEPS if coding == "css" else RATE_STEPS
    _check(coding, beta, timesteps, weights, confidence, silent, signed, adjust, seed)
    ann = as_ann(model, calibration, name)
    if class_names:
        classes = len(ann.units[-1].bias)
        if not all(class_names):
            raise UsageError("a class name is empty; is there a comma too many?")
        if len(class_names) != classes:
            raise UsageError(f"{len(class_names)} class names for {classes} classes")
        ann = replace(ann, class_names=tuple(class_names))
    samples = read_samples(ann, calibration, mean, std)
    known, held = split(samples, held_out, seed)
    about = {
        "network": ann.name,
        "coding": coding,
        "timesteps": timesteps,
        "weights": weights if coding == "css" else "int8",
        "samples": {"calibration": len(known.x), "held_out": len(held.x), "seed": seed},
        "notes": list(ann.notes),
    }
    say(f"{ann.name}: fed values {samples.about['fed'][0]:g} ... {samples.about['fed'][1]:g}")
    make = _css if coding == "css" else _rate
    program, amplitudes, found = make(
        ann,
        known,
        say,
        beta=beta,
        timesteps=timesteps,
        weights=weights,
        silent=silent,
        signed=signed,
        confidence=confidence,
        adjusting=adjust,
    )
    forward = AnnForward(ann, samples.values)
    say(f"measuring on {len(held.x)} samples held out")
    run = simulate(program, held.x)
    classes_of = forward.scores(held.x).argmax(axis=1)
    program = replace(program, rates=rates_of(program, run, held.x))
    outcome = answers(run, classes_of, held.y)
    if confidence is not None:
        found["confidence"]["disagreement"] = outcome["changed"] / len(held.x)
    report = {
        **about,
        "input": samples.about,
        **found,
        "latency": program.timesteps,
        "held_out": outcome,
        "layers": layer_rows(program, run, amplitudes),
        **work(run, multiply_accumulates(ann), prove(program).encoder_macs),
        "seconds": time.perf_counter() - begin,
    }
    return Conversion(program, report)


def as_ann(
    model: str | Path | bytes | Ann | nn.Module,
    calibration: str | Path | np.ndarray,
    name: str | None = None,
) -> Ann:
    """What `convert` takes as a model, as an Ann."""
    if isinstance(model, Ann):
        return model if name is None else replace(model, name=name)
    from edgesnn.compiler.onnx_import import load_onnx

    if isinstance(model, bytes):
        return load_onnx(model, name or "network")
    if isinstance(model, str | Path):
        return load_onnx(Path(model).expanduser(), name)
    from torch import nn

    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{type(model).__name__} is not a network: give an ONNX file or a torch.nn.Module"
        )
    from edgesnn.conversion.onnx_export import export_onnx
    from edgesnn.conversion.samples import sample_shape

    return load_onnx(export_onnx(model, sample_shape(calibration)), name or type(model).__name__)


def _check(
    coding: str,
    beta: float,
    timesteps: int,
    weights: str,
    confidence: float | None,
    silent: int,
    signed: bool,
    adjust: bool,
    seed: int,
) -> None:
    if coding not in CODINGS:
        raise UsageError(f"unknown coding {coding!r}: one of {', '.join(CODINGS)}")
    if weights not in WEIGHTS:
        raise UsageError(f"unknown weights {weights!r}: one of {', '.join(WEIGHTS)}")
    most = MAX_CODING_STEPS if coding == "css" else MAX_TIMESTEPS
    if type(timesteps) is not int or not 1 <= timesteps <= most:
        raise UsageError(f"timesteps {timesteps!r} is not a whole number in 1...{most}")
    if type(silent) is not int or not 0 <= silent <= MAX_SILENT:
        raise UsageError(f"silent {silent!r} is not a whole number in 0...{MAX_SILENT}")
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise UsageError(f"seed {seed!r} is not a whole number from 0 to {2**31 - 1}")
    if confidence is not None and not 0.0 < confidence < 1.0:
        raise UsageError(f"confidence {confidence!r} is not between 0 and 1")
    if coding == "rate":
        foreign = {
            "beta": beta != 2.0,
            "weights": weights != "int8",
            "confidence": confidence is not None,
            "silent": silent != 1,
            "unsigned (signed=False)": signed is not True,
            "literal (adjust=False)": adjust is not True,
        }
        wrong = [option for option, given in foreign.items() if given]
        if wrong:
            raise UsageError(f"{', '.join(wrong)}: not with rate coding (int8, all steps)")


def _css(
    ann: Ann,
    known: Samples,
    say: Say,
    *,
    beta: float,
    timesteps: int,
    weights: str,
    silent: int,
    signed: bool,
    confidence: float | None,
    adjusting: bool,
) -> tuple[ir.Program, dict[str, float], dict[str, Any]]:
    """(program, amplitudes by node name, what goes into the report)."""
    amplification = amplification_of(beta)
    total = window_gain(amplification, timesteps)
    forward = AnnForward(ann, known.values)
    ranges = forward.ranges(known.x, PERCENTILES)
    starts = {q: first_amplitudes(ann, p, total) for q, p in ranges.items()}
    settings = CssSettings(
        known.values,
        starts[PERCENTILE],
        timesteps,
        amplification,
        weights,
        silent,
        signed,
        ir.Css("sound"),
    )
    rounds: list[dict[str, Any]] = []
    if adjusting:
        scores = forward.scores(known.x[:SAMPLES])
        best = adjusted(ann, settings, known.x, scores, starts, say=say)
        settings, program, units, rounds = best.settings, best.program, best.units, best.rounds
    else:
        program, units = to_css_program(ann, settings)
    found: dict[str, Any] = {
        "beta": float(gain(amplification)),
        "amplification": shifts_text(amplification),
        "silent": silent,
        "signed": signed,
        "period": ir.period(program),
        "percentile": PERCENTILE,
        "percentiles": list(PERCENTILES) if adjusting else [PERCENTILE],
        "residual_percentile": RESIDUAL,
        "adjustment": rounds,
        "exit": "sound",
    }
    if confidence is not None:
        if program.classes < 2:
            raise UsageError("confidence needs at least two classes")
        least = round(1.0 / (1.0 - confidence))  # of fewer none may differ, and none proves nothing
        if len(known.x) + 1 < least:
            raise UsageError(
                f"confidence {confidence:g} needs {least:,} calibration samples beside those held out, "
                f"there are {len(known.x):,}; give more, or a lower confidence"
            )
        run = simulate(replace(program, readout=ir.Css("never")), known.x)
        margins = choose_margins(run.history, confidence)
        program = replace(program, readout=ir.Css("margin", margins))
        found |= {"exit": "margin", "confidence": {"wanted": confidence, "margins": list(margins)}}
    amplitudes = {n: float(np.mean(u.spike)) for n, u in units.items()}
    del amplitudes[program.output.name]
    return program, amplitudes, found


def _rate(
    ann: Ann, known: Samples, say: Say, *, timesteps: int, **_: Any
) -> tuple[ir.Program, dict[str, float], dict[str, Any]]:
    """As `_css`; the amplitude is the activation that a spike in every step stands for."""
    percentiles = AnnForward(ann, known.values).percentiles(known.x, RATE_PERCENTILE)
    ranges = first_amplitudes(ann, percentiles, 1.0)
    program = to_rate_program(ann, known.values, ranges, timesteps)
    named = dict(zip((n for n in _names(program)), ranges.values(), strict=False))
    return program, named, {"percentile": RATE_PERCENTILE, "exit": "never"}


def _names(program: ir.Program) -> list[str]:
    """Nodes of units but the last, in the units' order."""
    return [
        n.name
        for n in program.nodes
        if isinstance(n, ir.Lif | ir.CurrentEncoder) and n.name != "encoder"
    ]
