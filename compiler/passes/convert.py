"""An ordinary network (ann.py) to canonic signed spikes in integers: Algorithm 2 of the CSS paper.

theta_l is what one spike of the last step of unit l stands for (its spike amplitude); a train s_1 ... s_T
stands for theta_l * sum beta^(T-t) s_t. A unit's weights are w' = w * theta_source / theta_l, so that its own
spikes count as 1, and its window adds up B = sum beta^(T-t) b of a step's bias b. In integers a channel c has
one scale s_c: weights round(w' / s_c), amplitude v = beta^silent / s_c. v is chosen whole first and gives the
scale, so that the amplitude itself is never rounded. The output has one scale for all classes.

`settings.theta` may hold one amplitude per channel: weights are divided by those of the destination and
multiplied by those of the source one by one, and a device does not see a difference.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations_with_replacement, product

import numpy as np

from edgesnn.compiler import ann as a
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import INT16, INT32, leak_interval, membrane_bounds, prove
from edgesnn.compiler.check import check_program
from edgesnn.compiler.exits import DOUBLING, gain
from edgesnn.compiler.graph import Conv, Dense
from edgesnn.targets.errors import EdgesnnError, UsageError

WEIGHTS = {"int8": 127, "int16": 32767}
# What arrives in a step is made to fit int16 if that costs no more than this factor of resolution: kernels for
# 16-bit sums are faster.
MAX_COARSENING = 1.5
MAX_SHIFT = 8  # of an amplification's terms
_CANDIDATES = 24  # amplitudes that are tried for the least error of the rounded weights


@dataclass(frozen=True)
class CssSettings:
    """How to convert.

    values: float64[C, 256], what the first layer sees (after AnnInput.scale and offset) for every raw uint8.
    theta: spike amplitude of every unit but the last, one number or one per channel. amplification: beta as
    shifts (`amplification_of`). weights: "int8" or "int16". silent, signed: as in ir.Tsa.
    """

    values: np.ndarray
    theta: Mapping[str, float | np.ndarray]
    timesteps: int = 8
    amplification: ir.Shifts = DOUBLING
    weights: str = "int8"
    silent: int = 1
    signed: bool = True
    readout: ir.Css = field(default_factory=ir.Css)


@dataclass(frozen=True)
class CssUnits:
    """What a node's integers stand for, in values of the network: float64[C] each.

    spike: a spike of the last step. sum: one unit of the membrane h or U at the end of the inputs.
    """

    spike: np.ndarray
    sum: np.ndarray


def amplification_of(beta: float) -> ir.Shifts:
    """At most three signed shifts whose sum is nearest to beta in (1, 2]; the fewest that are as near.

    2 is u + u, 1.5 is u + (u >> 1). What is not a sum of three powers of two is rounded (1.2 to 1.1875 or
    1.21875): `exits.gain` says to what, and conversion uses that value everywhere.
    """
    if not 1.0 < beta <= 2.0:
        raise UsageError(f"beta is above 1 and at most 2, not {beta:g}")
    best: tuple[float, int, ir.Shifts] | None = None
    for extra in range(3):
        for shifts in combinations_with_replacement(range(MAX_SHIFT + 1), extra):
            for signs in product((1, -1), repeat=extra):
                terms = ((1, 0), *zip(signs, shifts, strict=True))
                value = gain(terms)
                if not 1 < value <= 2:
                    continue
                found = (abs(float(value) - beta), len(terms), terms)
                if best is None or found[:2] < best[:2]:
                    best = found
    assert best is not None
    return best[2]


def window_gain(amplification: ir.Shifts, timesteps: int) -> float:
    """sum beta^(T-t), the largest value that a train can stand for, in spikes of the last step."""
    beta = gain(amplification)
    return float(sum((beta**k for k in range(timesteps)), Fraction(0)))


def ternary_digits(values: np.ndarray, timesteps: int, beta: float) -> np.ndarray:
    """Theorem 3 of the CSS paper: int8[..., T], digits of values float64[...] in units of the spike amplitude.

    From u = value / beta^T each step amplifies, u <- beta u, emits +1 where u >= 1/2, -1 where u <= -1/2, and
    subtracts it.
    """
    u = values / beta**timesteps
    digits = np.zeros((*values.shape, timesteps), dtype=np.int8)
    for t in range(timesteps):
        u = u * beta
        digits[..., t] = (u >= 0.5).astype(np.int8) - (u <= -0.5)
        u = u - digits[..., t]
    return digits


def input_digits(values: np.ndarray, timesteps: int, beta: float) -> tuple[np.ndarray, float]:
    """Theorem 3: (digits int8[1 or C, 256, T] of values float64[C, 256], their spike amplitude theta_0).

    theta_0 = max |value| / sum beta^(T-t).
    """
    total = sum(beta**k for k in range(timesteps))
    theta = float(np.abs(values).max()) / total
    if theta == 0.0:
        raise UsageError("every raw sample stands for 0: mean, std or the data are wrong")
    rows = values[:1] if bool(np.all(values == values[:1])) else values
    return ternary_digits(rows / theta, timesteps, beta), theta


def node_names(ann: a.Ann, *taken: str) -> dict[str, str]:
    """A legal and unique node name for every unit, as near to its own as possible."""
    used = {"program", "readout", *taken}
    out: dict[str, str] = {}
    for unit in ann.units:
        stem = re.sub(r"\W", "_", unit.name, flags=re.ASCII).strip("_") or "unit"
        if stem[0].isdigit() or keyword.iskeyword(stem):
            stem = f"unit_{stem}"
        name, number = stem, 1
        while name in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(name)
        out[unit.name] = name
    return out


def non_negative_units(ann: a.Ann, values: np.ndarray) -> set[str]:
    """Names of units (and the input) that never fall below 0, rectified or not (an average of such units)."""
    out = {a.INPUT} if values.min() >= 0 else set()
    for unit in ann.units:
        positive = all(t.source in out and t.linear.weight.min() >= 0 for t in unit.terms)
        if unit.rectified or (positive and unit.bias.min() >= 0):
            out.add(unit.name)
    return out


def with_dense_output(ann: a.Ann) -> a.Ann:
    """The same network with dense terms in its last unit, whose map has one position (a mean, say)."""
    shapes, last = a.unit_shapes(ann), ann.units[-1]
    if all(isinstance(t.linear, Dense) for t in last.terms):
        return ann
    if shapes[last.name][:2] != (1, 1) or last.pool is not None:
        raise EdgesnnError(f"{last.name}: the scores are a map of {shapes[last.name]}, not one row")
    terms = tuple(a.Term(t.source, _dense(t.linear, shapes[t.source])) for t in last.terms)
    return replace(ann, units=(*ann.units[:-1], replace(last, terms=terms)))


def _dense(linear: Dense | Conv, shape: a.Shape) -> Dense:
    """A convolution with one output position as a matrix over the flattened map."""
    if isinstance(linear, Dense):
        return linear
    (h, w, c), (top, left, _, _) = shape, linear.padding
    o, kh, kw, i = linear.weight.shape
    full = np.zeros((o, h, w, c))
    for ky in range(kh):
        for kx in range(kw):
            y, x = ky * linear.dilation[0] - top, kx * linear.dilation[1] - left
            if not (0 <= y < h and 0 <= x < w):
                continue
            for g in range(linear.groups):
                rows = slice(g * (o // linear.groups), (g + 1) * (o // linear.groups))
                full[rows, y, x, g * i : (g + 1) * i] += linear.weight[rows, ky, kx]
    return Dense(full.reshape(o, -1))


def to_css_program(ann: a.Ann, settings: CssSettings) -> tuple[ir.Program, dict[str, CssUnits]]:
    """The checked and width-proved program, and what its integers stand for, by node name.

    Raises EdgesnnError naming the unit whose values do not fit 32 bits at any scale.
    """
    if settings.weights not in WEIGHTS:
        raise UsageError(f"weights are {' or '.join(WEIGHTS)}, not {settings.weights!r}")
    ann = with_dense_output(ann)
    beta, steps = float(gain(settings.amplification)), settings.timesteps
    digits, theta = input_digits(settings.values, steps, beta)
    shapes = a.unit_shapes(ann)
    names = node_names(ann, "input", "encoder")
    positive = non_negative_units(ann, settings.values)
    scale = float(abs(settings.values[0, 255] - settings.values[0, 0])) / 255.0
    spike = {a.INPUT: np.full(ann.input.shape[2], theta)}
    first = {a.INPUT: 1}  # step of a unit's first spikes
    name_of = {a.INPUT: "encoder", **names}
    units = {"encoder": CssUnits(spike[a.INPUT], spike[a.INPUT])}
    nodes: list[ir.Node] = [
        ir.SampleInput("input", ann.input.shape, "uint8", scale or 1.0, 0),
        ir.CssEncoder("encoder", "input", digits),
    ]
    for unit in ann.units:
        name, last = names[unit.name], unit is ann.units[-1]
        start = max(first[t.source] for t in unit.terms)
        channels = len(unit.bias)
        if last:
            own = np.ones(channels)
        else:
            own = np.broadcast_to(np.asarray(settings.theta[unit.name], float), channels).copy()
        scaled = [_scaled(t, spike, shapes, own) for t in unit.terms]
        fit = _fit(unit, name, scaled, unit.bias / own, settings, last)
        projections = tuple(
            _projection(t, name_of[t.source], w, start - first[t.source])
            for t, w in zip(unit.terms, fit.weights, strict=True)
        )
        amp = settings.amplification
        if last:
            nodes.append(ir.CssOutput(name, projections, amp, fit.bias, fit.correction))
        else:
            pool = unit.pool or a.Window((1, 1), (1, 1))
            nodes.append(
                ir.Tsa(
                    name,
                    projections,
                    amp,
                    fit.amplitude,
                    fit.bias,
                    fit.correction,
                    settings.silent,
                    pool.kernel,
                    pool.stride,
                    pool.padding,
                    unit.name in positive,
                    settings.signed,
                )
            )
        spike[unit.name] = own
        first[unit.name] = start + settings.silent
        units[name] = CssUnits(own, own / fit.inverse)
    program = ir.Program(
        ann.name, start + steps - 1, tuple(nodes), settings.readout, ann.class_names
    )
    check_program(program)
    prove(program)
    return program, units


@dataclass(frozen=True)
class _Fit:
    """Integers of a unit; inverse: float64[C], 1 / s_c."""

    weights: list[np.ndarray]
    inverse: np.ndarray
    amplitude: np.ndarray
    bias: np.ndarray
    correction: np.ndarray


def _scaled(
    term: a.Term, spike: Mapping[str, np.ndarray], shapes: Mapping[str, a.Shape], own: np.ndarray
) -> np.ndarray:
    """w' = w * theta_source / theta of a term, by source and destination channel."""
    w, theta = term.linear.weight.astype(np.float64), spike[term.source]
    if isinstance(term.linear, Dense):
        h, width, _ = shapes[term.source]
        return np.asarray(w * np.tile(theta, h * width) / own[:, None])
    per_group = theta.reshape(term.linear.groups, -1)
    group = np.arange(len(w)) // (len(w) // term.linear.groups)
    return np.asarray(w * per_group[group][:, None, None, :] / own[:, None, None, None])


def _is_skip(term: a.Term) -> bool:
    """One weight per channel: an identity or a scaling of its own."""
    if isinstance(term.linear, Dense):
        return False
    o, kh, kw, i = term.linear.weight.shape
    return kh == kw == i == 1 and term.linear.groups == o


def _projection(term: a.Term, source: str, weight: np.ndarray, delay: int) -> ir.Projection:
    if isinstance(term.linear, Dense):
        return ir.Dense(source, weight, delay)
    c = term.linear
    return ir.Conv(source, weight, c.stride, c.padding, c.dilation, c.groups, delay)


def _fit(
    unit: a.Unit,
    name: str,
    scaled: list[np.ndarray],
    bias: np.ndarray,
    settings: CssSettings,
    output: bool,
) -> _Fit:
    """Scales, as fine as weights and the proof of 32 bits allow, and the integers that follow."""
    flat = [w.reshape(len(w), -1) for w in scaled]
    limit = WEIGHTS[settings.weights]
    # Skips decide the scale only where there is nothing else: a wide weight of theirs is kept in 16 bits.
    deciding = [w for w, t in zip(flat, unit.terms, strict=True) if not _is_skip(t)]
    every = np.concatenate(flat, axis=1)
    among = np.concatenate(deciding, axis=1) if deciding else every
    peak = np.maximum(np.abs(among).max(axis=1), np.abs(every).max(axis=1) * limit / INT16[1])
    amplified = float(gain(settings.amplification) ** settings.silent)
    total = window_gain(settings.amplification, settings.timesteps)
    # Beyond it the amplitudes of a window alone exceed 32 bits; an output has none.
    finest = INT32[1] if output else INT32[1] / 4 / total / amplified
    inverse = np.minimum(limit / np.maximum(peak, 1e-300), finest)
    inverse = _whole(np.full_like(inverse, inverse.min()) if output else inverse, amplified, output)
    reach = np.abs(np.rint(every * inverse[:, None])).sum(axis=1)
    coarser = reach / (INT16[1] - every.shape[1] / 2 if every.shape[1] < 2**15 else INT16[1])
    if settings.weights == "int8" and 1 < coarser.max() <= MAX_COARSENING:
        divisor = np.maximum(coarser, 1.0)
        inverse = inverse / (divisor.max() if output else divisor)
        inverse = _whole(inverse, amplified, output)
    if not output:
        inverse = _least_error(every, inverse, amplified)
    for _ in range(200):
        fit = _integers(scaled, bias, inverse, amplified, total, settings, output)
        top = _top(fit, settings, output)
        if int(top.max()) <= INT32[1]:
            return fit
        ratio = np.minimum(INT32[1] / top, 1.0)
        ratio = np.where(top > INT32[1], np.minimum(ratio, 0.98), 1.0)
        inverse = _whole(inverse * (ratio.min() if output else ratio), amplified, output)
        if inverse.max() * amplified < 2:
            break
    raise EdgesnnError(
        f"{name}: no scale keeps its sums within 32 bits; use fewer timesteps, or a smaller beta"
    )


def _whole(inverse: np.ndarray, amplified: float, output: bool) -> np.ndarray:
    """1 / s_c for which the amplitude is a whole number, at least 2 (an output has none)."""
    if output:
        return inverse
    return np.asarray(np.maximum(np.floor(inverse * amplified), 2) / amplified)


def _least_error(w: np.ndarray, inverse: np.ndarray, amplified: float) -> np.ndarray:
    """Of whole amplitudes down to 0.7 of the finest, per channel that of the least squared rounding error."""
    best, least = inverse, np.full(len(w), np.inf)
    for factor in np.linspace(1.0, 0.7, _CANDIDATES):
        tried = _whole(inverse * factor, amplified, False)
        error = ((np.rint(w * tried[:, None]) / tried[:, None] - w) ** 2).sum(axis=1)
        best = np.where(error < least, tried, best)
        least = np.minimum(error, least)
    return best


def _integers(
    scaled: list[np.ndarray],
    bias: np.ndarray,
    inverse: np.ndarray,
    amplified: float,
    total: float,
    settings: CssSettings,
    output: bool,
) -> _Fit:
    weights = []
    for w in scaled:
        q = np.rint(w * inverse.reshape(-1, *[1] * (w.ndim - 1)))
        q = np.clip(q, -INT16[1], INT16[1])
        wide = settings.weights == "int16" or np.abs(q).max() > WEIGHTS["int8"]
        weights.append(q.astype(np.int16 if wide else np.int8))
    window = np.clip(bias * inverse, -(2.0**40), 2.0**40)
    step = np.rint(window / total)
    rest = np.rint(window - total * step)
    v = np.zeros(0) if output else np.rint(inverse * amplified)
    limit = INT32[1]
    return _Fit(
        weights,
        inverse,
        v.astype(np.int32),
        np.clip(step, -limit, limit).astype(np.int32),
        np.clip(rest, -limit, limit).astype(np.int32),
    )


def _top(fit: _Fit, settings: CssSettings, output: bool) -> np.ndarray:
    """int64[C]: the largest value that bounds.prove finds in a channel (h - g, the terms of amp and biases)."""
    amp = settings.amplification
    bias, last = fit.bias.astype(np.int64), fit.correction.astype(np.int64)
    reach = np.zeros(len(bias), dtype=np.int64)
    for w in fit.weights:
        reach += np.abs(w.reshape(len(w), -1).astype(np.int64)).sum(axis=1)
    lo, hi = membrane_bounds(-reach, reach, bias, (amp,), settings.timesteps)
    lo, hi = lo + np.minimum(last, 0), hi + np.maximum(last, 0)
    if not output:
        for _ in range(settings.silent):
            lo, hi = leak_interval(lo, hi, amp)
        v = fit.amplitude.astype(np.int64)
        least, most = membrane_bounds(-v, v, np.zeros_like(v), (amp,), settings.timesteps)
        g = np.maximum(-least, most)
        lo, hi = lo - g, hi + g
    added = (np.abs(bias) + np.abs(last)).max()
    return np.asarray(np.maximum(hi, -lo) * len(amp) + added)
