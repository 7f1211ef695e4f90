"""Spike amplitudes: from the activations' percentiles, then adjusted by what is left on the membranes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.ann import Ann
from edgesnn.compiler.passes.convert import CssSettings, CssUnits, to_css_program, window_gain
from edgesnn.conversion.simulate import Simulation, simulate

PERCENTILE = 0.9999
RESIDUAL = 0.999
ROUNDS = 3
SAMPLES = 500  # of a round


def first_amplitudes(ann: Ann, percentiles: Mapping[str, float], total: float) -> dict[str, float]:
    """theta = p / sum beta^(T-t) (section 5.1) of every unit but the last; total: that sum.

    p is at most the unit's ceiling, so that the train saturates where the activation does. A unit that the
    data never reach gets the amplitude of its largest weight.
    """
    out: dict[str, float] = {}
    for unit in ann.units[:-1]:
        p = percentiles[unit.name]
        if unit.ceiling is not None:
            # A quantised activation has few levels; its highest is the range that it was trained with.
            p = unit.ceiling if unit.step is not None else min(p, unit.ceiling)
        if p <= 0.0:
            peak = max(float(np.abs(t.linear.weight).max()) for t in unit.terms)
            p = max(peak, float(np.abs(unit.bias).max()), 1e-6)
        out[unit.name] = p / total
    return out


def growth(residual: float, total: float) -> float:
    """s of eq. A18: by how much an amplitude grows for the 99.9th percentile of |u[T]| in amplitudes."""
    over = residual - 1.0
    if over <= 0:
        return 1.0
    if over > 0.05 * total:
        return 1.0 + over / total
    if over > 0.01 * total:
        return 1.0 + (over - 0.01 * total) / total + 0.04
    return 1.0 + 4.0 * over / total


@dataclass(frozen=True)
class Adjusted:
    """The amplitudes that agree best with the network, and what was seen on the way (plain values)."""

    settings: CssSettings
    program: ir.Program
    units: dict[str, CssUnits]
    rounds: list[dict[str, Any]]


def adjusted(
    ann: Ann,
    settings: CssSettings,
    x: np.ndarray,
    scores: np.ndarray,
    *,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda line: None,
) -> Adjusted:
    """Convert, look at the residual membranes, enlarge amplitudes (A.3), convert again, at most `rounds` times.

    x: raw samples of the calibration part, scores: the network's on them. Of all rounds the one whose classes
    agree most often with the network's stays; of equal ones that with the smaller error of the scores. A
    unit with a ceiling keeps its amplitude: what is above the ceiling has to stay on its membrane.
    """
    x, scores = x[:SAMPLES], scores[:SAMPLES]
    total = window_gain(settings.amplification, settings.timesteps)
    full = replace(settings, readout=ir.Css("never"))
    seen: list[dict[str, Any]] = []
    best: Adjusted | None = None
    score = (-1.0, 0.0)
    capped = {u.name for u in ann.units if u.ceiling is not None}
    for number in range(rounds + 1):
        program, units = to_css_program(ann, full)
        run = simulate(program, x, residual=RESIDUAL)
        agreement, error = agreement_with(run, scores, units[program.output.name].sum)
        left = dict(zip(full.theta, _in_order(program, run), strict=True))
        seen.append({"agreement": agreement, "score_error": error, "residuals": left})
        say(f"amplitudes, round {number}: {100 * agreement:.2f} % of the classes agree")
        if best is None or (agreement, -error) > score:
            score = (agreement, -error)
            best = Adjusted(full, program, units, seen)
        by = {n: 1.0 if n in capped else growth(left[n], total) for n in full.theta}
        if number == rounds or set(by.values()) == {1.0}:
            break
        full = replace(full, theta={n: t * by[n] for n, t in full.theta.items()})
    assert best is not None
    final = replace(best.settings, readout=settings.readout)
    program = replace(best.program, readout=settings.readout)
    return Adjusted(final, program, best.units, seen)


def agreement_with(run: Simulation, scores: np.ndarray, unit: np.ndarray) -> tuple[float, float]:
    """(share of equal classes at the full length, root mean square error of the scores)."""
    u = run.history[:, -1]
    same = float((u.argmax(axis=1) == scores.argmax(axis=1)).mean())
    return same, float(np.sqrt(((u * unit - scores) ** 2).mean()))


def _in_order(program: ir.Program, run: Simulation) -> list[float]:
    return [run.residuals[n.name] for n in program.nodes if isinstance(n, ir.Tsa)]
