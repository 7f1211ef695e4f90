"""Random ordinary networks and what they convert to, for parity of converted programs."""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.ann import INPUT, Ann, AnnInput, Term, Unit, Window, pooled_shape, term_shape
from edgesnn.compiler.ann_forward import forward
from edgesnn.compiler.graph import Conv, Dense, Shape
from edgesnn.compiler.passes.convert import (
    CssSettings,
    amplification_of,
    to_css_program,
    window_gain,
)


def random_ann(seed: int) -> Ann:
    """A network of convolutions, pools, residual additions and dense layers, the same for the same seed."""
    return _Draw(np.random.default_rng([seed, 23])).network(f"ann{seed}")


def random_converted(seed: int) -> ir.Program:
    """`random_ann` converted with amplitudes from random samples, random T, beta, weights and readout."""
    rng, ann = np.random.default_rng([seed, 29]), random_ann(seed)
    channels = ann.input.shape[2]
    low = rng.random(channels) * -1.5 * (rng.random() < 0.5)
    values = low[:, None] + np.arange(256) / 255 * (1.0 + rng.random(channels))[:, None]
    steps = int(rng.choice([2, 4, 6, 8, 10]))
    amp = amplification_of(float(rng.choice([2.0, 2.0, 1.5, 1.75])))
    raw = rng.integers(0, 256, (12, *ann.input.shape))
    maps = np.stack([values[c, raw[..., c]] for c in range(channels)], axis=-1)
    found = forward(ann, maps)
    theta = {
        unit.name: max(float(np.abs(found[unit.name]).max()), 1e-3) / window_gain(amp, steps)
        for unit in ann.units[:-1]
    }
    exit = str(rng.choice(["sound", "sound", "never"]))
    weights = str(rng.choice(["int8", "int8", "int16"]))
    settings = CssSettings(values, theta, steps, amp, weights, readout=ir.Css(exit))
    return to_css_program(ann, settings)[0]


class _Draw:
    """One network in the making; `shapes` are those of the units' maps."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        h, w = int(rng.integers(5, 11)), int(rng.integers(5, 11))
        one = rng.random() < 0.2
        shape = (1, 2 * w, 2) if one else (h, w, int(rng.choice([1, 3])))
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.units: list[Unit] = []

    def network(self, name: str) -> Ann:
        rng, shape = self.rng, self.shapes[INPUT]
        for depth in range(int(rng.integers(1, 5))):
            self._unit(depth)
        if rng.random() < 0.4:
            self._average()
        classes = int(rng.integers(2, 8))
        last = list(self.shapes)[-1]
        dense = Dense(self._weight((classes, int(np.prod(self.shapes[last])))))
        bias = rng.normal(0, 0.2, classes)
        self.units.append(Unit("scores", (Term(last, dense),), bias, rectified=False))
        ones, zeros = np.ones(shape[2]), np.zeros(shape[2])
        source = AnnInput(shape, shape, (0, 1, 2), ones, zeros)
        return Ann(name, source, tuple(self.units))

    def _weight(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.normal(0, 1.4 / np.sqrt(np.prod(shape[1:])), shape)

    def _unit(self, depth: int) -> None:
        rng = self.rng
        last = list(self.shapes)[-1]
        terms = [Term(last, self._linear(self.shapes[last]))]
        target = term_shape(terms[0], self.shapes)
        for other, shape in self.shapes.items():
            if shape[:2] != target[:2] or rng.random() > 0.4 or target[:2] == (1, 1):
                continue
            if shape == target:
                identity = Conv(np.ones((shape[2], 1, 1, 1)), groups=shape[2])
                terms.append(Term(other, identity))
            else:
                terms.append(Term(other, Conv(self._weight((target[2], 1, 1, shape[2])))))
        pool = None
        if rng.random() < 0.4 and min(target[:2]) >= 2:
            k = int(rng.integers(2, min(3, *target[:2]) + 1))
            pads = (0, 0, 0, 0) if rng.random() < 0.7 else (1, 1, 1, 1)
            pool = Window((k, k), (2, 2), pads)
            target = pooled_shape(target, pool)
        name, bias = f"unit{depth}", rng.normal(0, 0.3, target[2])
        rectified = bool(rng.random() < 0.85)
        ceiling = 1.0 if rectified and rng.random() < 0.2 else None
        self.units.append(Unit(name, tuple(terms), bias, pool, rectified, ceiling))
        self.shapes[name] = target

    def _linear(self, shape: Shape) -> Conv | Dense:
        rng, (h, w, c) = self.rng, shape
        if rng.random() < 0.15:
            return Dense(self._weight((int(rng.integers(4, 30)), h * w * c)))
        groups = c if rng.random() < 0.2 else 1
        out = groups * int(rng.integers(1, 4)) if groups > 1 else int(rng.integers(2, 20))
        kh, kw = (min(n, int(rng.choice([1, 3, 3, 5]))) | 1 for n in (h, w))
        stride = (2, 2) if min(h, w) > 4 and rng.random() < 0.3 else (1, 1)
        pads = (kh // 2, kw // 2, kh // 2, kw // 2)
        return Conv(self._weight((out, kh, kw, c // groups)), None, stride, pads, (1, 1), groups)

    def _average(self) -> None:
        """A mean over the whole map, or over windows of two."""
        last, (h, w, c) = list(self.shapes.items())[-1]
        k = (h, w) if self.rng.random() < 0.6 else (min(2, h), min(2, w))
        mean = Conv(np.full((c, *k, 1), 1 / (k[0] * k[1])), None, k, groups=c)
        self.units.append(Unit("mean", (Term(last, mean),), np.zeros(c)))
        self.shapes["mean"] = term_shape(Term(last, mean), self.shapes)
