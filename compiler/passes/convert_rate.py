"""An ordinary network (ann.py) to rates, which canonic signed spikes are compared with.

The number of spikes of an integrate-and-fire neuron in T steps stands for an activation (Rueckauer et al. 2017,
with soft reset); it takes many more steps. With lambda_l the activation that a spike in every step stands for,
weights are w * lambda_source / lambda_l, the threshold is 1, and a bias comes in every step. The units that
read the samples alone get their layer's output as a constant current. A value that can be negative (an input,
a layer without ReLU) has two neurons, one for each sign. Max-pooling is an or of the window's spikes: an
approximation, two neurons of half the rate can pass for one of the full rate. Zero padding is exact where the
raw sample that stands for 0 is whole and one for all channels, else approximate at the border.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgesnn.compiler import ann as a
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.check import MAX_TIMESTEPS, check_program
from edgesnn.compiler.graph import Dense
from edgesnn.compiler.passes.convert import node_names, non_negative_units
from edgesnn.targets.errors import EdgesnnError, UsageError

ONE: ir.Shifts = ((1, 0),)
_PEAK = 127
_FINEST = 1 << 20  # threshold of a channel whose weights are almost 0


def to_rate_program(
    ann: a.Ann, values: np.ndarray, ranges: Mapping[str, float], timesteps: int
) -> ir.Program:
    """The checked and width-proved program with int8 weights.

    values: float64[C, 256], what the first layer sees for every raw uint8, a straight line in the raw sample.
    ranges: lambda of every unit but the last. Raises UsageError or EdgesnnError naming the unit.
    """
    if not 1 <= timesteps <= MAX_TIMESTEPS:
        raise UsageError(f"timesteps {timesteps} is not in 1...{MAX_TIMESTEPS}")
    return _Rate(ann, values, ranges).program(timesteps)


class _Rate:
    """One program in the making."""

    def __init__(self, ann: a.Ann, values: np.ndarray, ranges: Mapping[str, float]) -> None:
        self.ann = ann
        self.slope = (values[:, 255] - values[:, 0]) / 255.0
        zero = float(np.mean(-values[:, 0] / self.slope))
        self.zero_point = int(np.clip(np.rint(zero), 0, 255))
        # What the layers see for a raw sample of zero_point: 0, or what is left of it.
        self.left = self.slope * self.zero_point + values[:, 0]
        self.names = node_names(ann, "input", "encoder")
        positive = non_negative_units(ann, values)
        names = [a.INPUT, *(u.name for u in ann.units[:-1])]
        self.doubled = {n for n in names if n not in positive}
        self.range = {**ranges, a.INPUT: float(np.abs(values).max())}
        self.node: dict[str, str] = {a.INPUT: "encoder"}  # who emits a unit's spikes

    def program(self, timesteps: int) -> ir.Program:
        source = ir.SampleInput(
            "input",
            self.ann.input.shape,
            "uint8",
            abs(float(self.slope[0])) or 1.0,
            self.zero_point,
        )
        nodes: list[ir.Node] = [source]
        *hidden, last = self.ann.units
        units = [*hidden, last]
        if any(
            t.source == a.INPUT and not self._direct(u) for u in units for t in u.terms
        ) or self._direct(last):
            nodes.append(self._input_encoder())
        for unit in hidden:
            nodes += self._direct_unit(unit) if self._direct(unit) else self._unit(unit)
        nodes.append(self._output(last))
        program = ir.Program(
            self.ann.name, timesteps, tuple(nodes), ir.Rate(), self.ann.class_names
        )
        check_program(program)
        prove(program)
        return program

    def _direct(self, unit: a.Unit) -> bool:
        return len(unit.terms) == 1 and unit.terms[0].source == a.INPUT

    def _input_encoder(self) -> ir.CurrentEncoder:
        weight = np.full((len(self.slope), 1, 1, 1), _PEAK, dtype=np.float64)
        weight = weight * np.sign(self.slope)[:, None, None, None]
        bias = self.left / np.abs(self.slope) * _PEAK
        threshold = self.range[a.INPUT] / np.abs(self.slope) * _PEAK
        if a.INPUT in self.doubled:
            weight, bias, threshold = _signs(weight), _signs(bias), np.repeat(threshold, 2)
        conv = ir.Conv("input", weight.astype(np.int8), groups=len(self.slope))
        return ir.CurrentEncoder("encoder", conv, ONE, _whole(threshold), _int32(bias))

    def _direct_unit(self, unit: a.Unit) -> list[ir.Node]:
        """A constant current: the layer's output on the raw samples."""
        linear, own = unit.terms[0].linear, self.range[unit.name]
        raw = _by_channel(linear, self.slope)
        bias = (unit.bias + _by_channel(linear, self.left).reshape(len(raw), -1).sum(1)) / own
        term = a.Term(a.INPUT, replace(linear, weight=raw / own))
        weight, bias = self._outputs(unit, term.linear.weight, bias)
        integers, threshold, scaled = _quantised([weight], bias)
        node = ir.CurrentEncoder(
            self.names[unit.name],
            _projection(term, "input", integers[0]),
            ONE,
            threshold,
            scaled,
        )
        return self._pooled(unit, node)

    def _unit(self, unit: a.Unit) -> list[ir.Node]:
        own = self.range[unit.name]
        weights, bias = [], unit.bias / own
        for term in unit.terms:
            weight, each = self._outputs(unit, self._inputs(term) / own, unit.bias / own)
            weights.append(weight)
            bias = each
        integers, threshold, scaled = _quantised(weights, bias)
        into = tuple(
            _projection(t, self.node[t.source], w)
            for t, w in zip(unit.terms, integers, strict=True)
        )
        return self._pooled(unit, ir.Lif(self.names[unit.name], into, ONE, threshold, scaled))

    def _output(self, unit: a.Unit) -> ir.Accumulator:
        weights = [self._inputs(t) for t in unit.terms]
        inverse = _PEAK / max(max(float(np.abs(w).max()) for w in weights), 1e-30)
        into = tuple(
            _projection(t, self.node[t.source], np.rint(w * inverse).astype(np.int8))
            for t, w in zip(unit.terms, weights, strict=True)
        )
        return ir.Accumulator(
            self.names[unit.name], into, (ONE,), _int32(np.rint(unit.bias * inverse))
        )

    def _inputs(self, term: a.Term) -> np.ndarray:
        """w * lambda_source, for both signs of a source that has two neurons for a value."""
        w = term.linear.weight.astype(np.float64) * self.range[term.source]
        if term.source not in self.doubled:
            return np.asarray(w)
        return np.stack([w, -w], axis=-1).reshape(*w.shape[:-1], 2 * w.shape[-1])

    def _outputs(
        self, unit: a.Unit, weight: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if unit.name not in self.doubled:
            return weight, bias
        if unit.pool is not None:
            raise EdgesnnError(
                f"{unit.name}: rate coding has no max-pool of values that can be negative; use css coding"
            )
        return _signs(weight), _signs(bias)

    def _pooled(self, unit: a.Unit, node: ir.CurrentEncoder | ir.Lif) -> list[ir.Node]:
        self.node[unit.name] = node.name
        if unit.pool is None:
            return [node]
        if any(unit.pool.padding):
            raise EdgesnnError(f"{unit.name}: rate coding has no padded max-pool; use css coding")
        pool = ir.OrPool(f"{node.name}_pool", node.name, unit.pool.kernel, unit.pool.stride)
        self.node[unit.name] = pool.name
        return [node, pool]


def _signs(x: np.ndarray) -> np.ndarray:
    """x and -x of every output channel, side by side."""
    return np.stack([x, -x], axis=1).reshape(2 * len(x), *x.shape[1:])


def _by_channel(linear: a.Dense | a.Conv, factor: np.ndarray) -> np.ndarray:
    """Weights times a factor of their source channel."""
    w = linear.weight.astype(np.float64)
    if isinstance(linear, Dense):
        return np.asarray(w * np.tile(factor, w.shape[1] // len(factor)))
    group = np.arange(len(w)) // (len(w) // linear.groups)
    return np.asarray(w * factor.reshape(linear.groups, -1)[group][:, None, None, :])


def _projection(term: a.Term, source: str, weight: np.ndarray) -> ir.Projection:
    if isinstance(term.linear, Dense):
        return ir.Dense(source, weight)
    c = term.linear
    return ir.Conv(source, weight, c.stride, c.padding, c.dilation, c.groups)


def _quantised(
    weights: list[np.ndarray], bias: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """(int8 weights, thresholds, biases): one scale per channel, whose inverse is the whole threshold."""
    peak = np.max([np.abs(w.reshape(len(w), -1)).max(axis=1) for w in weights], axis=0)
    threshold = np.clip(np.floor(_PEAK / np.maximum(peak, 1e-30)), 1, _FINEST)
    integers = []
    for w in weights:
        q = np.rint(w * threshold.reshape(-1, *[1] * (w.ndim - 1)))
        integers.append(np.clip(q, -_PEAK, _PEAK).astype(np.int8))
    return integers, _whole(threshold), _int32(np.rint(bias * threshold))


def _whole(x: np.ndarray) -> np.ndarray:
    return _int32(np.maximum(np.rint(x), 1))


def _int32(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -(2**31) + 1, 2**31 - 1).astype(np.int32)
