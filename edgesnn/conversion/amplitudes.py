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
# Larger ones are tried, too: what lies above is cut off, and of long trains that is the larger error.
PERCENTILES = (PERCENTILE, 0.99999, 1.0)
ROUNDS = 2
SAMPLES = 250  # of a round


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
    """The amplitudes whose scores are nearest to the network's, and what was seen on the way (plain values)."""

    settings: CssSettings
    program: ir.Program
    units: dict[str, CssUnits]
    rounds: list[dict[str, Any]]


def adjusted(
    ann: Ann,
    settings: CssSettings,
    x: np.ndarray,
    scores: np.ndarray,
    starts: Mapping[float, Mapping[str, float]],
    *,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda line: None,
) -> Adjusted:
    """Convert with each of `starts` (amplitudes by percentile); then, from the best, look at the residual

    membranes, enlarge amplitudes (A.3) and convert again, at most `rounds` times.

    x: raw samples of the calibration part, scores: the network's on them. The program with the least root mean
    square error of the scores stays: it tells more of a few hundred samples than how many classes agree. A
    unit with a ceiling keeps its amplitude: what is above the ceiling has to stay on its membrane.
    """
    x, scores = x[:SAMPLES], scores[:SAMPLES]
    total = window_gain(settings.amplification, settings.timesteps)
    seen: list[dict[str, Any]] = []
    capped = {u.name for u in ann.units if u.ceiling is not None}

    def tried(theta: Mapping[str, float | np.ndarray], what: str) -> tuple[float, Adjusted]:
        chosen = replace(settings, theta=theta)
        program, units = to_css_program(ann, chosen)
        full = replace(program, readout=ir.Css("never"))
        run = simulate(full, x, residual=RESIDUAL)
        agreement, error = agreement_with(run, scores, units[program.output.name].sum)
        left = dict(zip(theta, _in_order(program, run), strict=True))
        row = {"from": what, "agreement": agreement, "score_error": error, "residuals": left}
        seen.append(row)
        say(f"amplitudes, {what}: {100 * agreement:.2f} % of the classes agree, error {error:.4g}")
        return error, Adjusted(chosen, program, units, seen)

    unlike = {str(theta): (q, theta) for q, theta in starts.items()}
    least, best = min(
        (tried(theta, f"percentile {100 * q:g}") for q, theta in unlike.values()),
        key=lambda pair: pair[0],
    )
    left = seen[_least(seen)]["residuals"]
    theta = dict(best.settings.theta)
    for number in range(1, rounds + 1):
        by = {n: 1.0 if n in capped else growth(left[n], total) for n in theta}
        if set(by.values()) == {1.0}:
            break
        theta = {n: t * by[n] for n, t in theta.items()}
        error, found = tried(theta, f"round {number}")
        left = seen[-1]["residuals"]
        if error >= least:
            break
        least, best = error, found
    seen[_least(seen)]["kept"] = True
    return best


def _least(seen: list[dict[str, Any]]) -> int:
    return int(np.argmin([row["score_error"] for row in seen]))


def agreement_with(run: Simulation, scores: np.ndarray, unit: np.ndarray) -> tuple[float, float]:
    """(share of equal classes at the full length, root mean square error of the scores)."""
    u = run.history[:, -1]
    same = float((u.argmax(axis=1) == scores.argmax(axis=1)).mean())
    return same, float(np.sqrt(((u * unit - scores) ** 2).mean()))


def _in_order(program: ir.Program, run: Simulation) -> list[float]:
    return [run.residuals[n.name] for n in program.nodes if isinstance(n, ir.Tsa)]
