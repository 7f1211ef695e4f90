"""Random legal programs of canonic signed spikes, for parity.

Odd maps, strides, dilation, groups, overlapping and padded pools, residual skips with delays, 8- and 16-bit
weights, every readout, any amplification.
"""

from __future__ import annotations

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.exits import DOUBLING, gain
from edgesnn.compiler.passes.convert import ternary_digits
from edgesnn.compiler.random_program import first_legal

_AMPLIFICATIONS: tuple[ir.Shifts, ...] = (
    DOUBLING,
    DOUBLING,
    ((1, 0), (1, 1)),
    ((1, 0), (1, 2), (1, 3)),
    ((1, 0), (1, 0), (-1, 2)),
)


def random_css_program(seed: int) -> ir.Program:
    """A legal, width-proved program, the same for the same seed."""
    return first_legal(
        seed, lambda n: _Draw(np.random.default_rng([seed, n, 5])).program(f"css{seed}")
    )


class _Draw:
    """One program in the making."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.steps = int(rng.choice([1, 2, 4, 6, 8, 10]))
        self.amp = _AMPLIFICATIONS[int(rng.integers(len(_AMPLIFICATIONS)))]
        self.silent = int(rng.choice([0, 1, 1, 1, 2]))
        self.signed = not self._chance(0.1)
        self.nodes: list[ir.Node] = []
        self.maps: dict[str, ir.Shape] = {}
        self.first: dict[str, int] = {}  # step of the first spike

    def program(self, name: str) -> ir.Program:
        rng = self.rng
        h, w = int(rng.integers(3, 10)), int(rng.integers(3, 10))
        shape = (1, 2 * w, 2) if self._chance(0.2) else (h, w, int(rng.choice([1, 2, 3])))
        self._add(ir.SampleInput("x", shape, "uint8", 1.0, 0), 0)
        self._add(self._encoder(shape[2]), 1)
        for depth in range(int(rng.integers(0, 5))):
            self._layer(depth)
        output = self._output()
        start = self.first[output.projections[0].source] + output.projections[0].delay
        program = (*self.nodes, output)
        return ir.Program(name, start + self.steps - 1, program, self._readout(len(output.bias)))

    def _add(self, node: ir.Node, first: int) -> None:
        self.nodes.append(node)
        self.maps[node.name] = ir.node_shape(node, self.maps)
        self.first[node.name] = first

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _encoder(self, channels: int) -> ir.CssEncoder:
        rng, rows = self.rng, int(self.rng.choice([1, channels]))
        if self._chance(0.2):
            digits = rng.integers(-1, 2, (rows, 256, self.steps)).astype(np.int8)
        else:
            beta = float(gain(self.amp))
            top = (beta**self.steps - 1) / (beta - 1)
            low = -rng.random(rows) * top * self._chance(0.5)
            values = low[:, None] + np.arange(256) / 255 * (top - low)[:, None]
            digits = ternary_digits(values, self.steps, beta)
        return ir.CssEncoder("encoder", "x", digits)

    def _weights(self, shape: tuple[int, ...]) -> np.ndarray:
        rng = self.rng
        if self._chance(0.2):
            return np.rint(rng.normal(0, 3000, shape)).astype(np.int16)
        w = np.clip(np.rint(rng.normal(0, 45, shape)), -127, 127)
        return (w * (rng.random(shape) < rng.choice([0.3, 1.0]))).astype(np.int8)

    def _layer(self, depth: int) -> None:
        rng, last = self.rng, self.nodes[-1].name
        shape = self.maps[last]
        into: list[ir.Projection] = [self._projection(last, shape)]
        target = ir.conv_shape(into[0], shape)
        start = self.first[last]
        for other in [n for n in self.maps if n != "x"]:
            if self._chance(0.35):
                into += self._skip(other, target, start)
        channels = target[2]
        spread = sum(40 * np.sqrt(p.weight[0].size) + float(np.abs(p.weight).max()) for p in into)
        amplitude = np.maximum(np.abs(rng.normal(0.6, 0.4, channels)) * spread, 2)
        window = self._window(target) if self._chance(0.4) else ((1, 1), (1, 1), (0, 0, 0, 0))
        self._add(
            ir.Tsa(
                f"tsa{depth}",
                tuple(into),
                self.amp,
                np.minimum(amplitude, 2**20).astype(np.int32),
                self._bias(channels, 30),
                self._bias(channels, 200),
                self.silent,
                *window,
                rectified=not self._chance(0.15),
                signed=self.signed,
            ),
            start + self.silent,
        )

    def _skip(self, source: str, target: ir.Shape, start: int) -> list[ir.Projection]:
        """A projection of a node before into a map of shape `target`, as late as the others arrive."""
        shape, delay = self.maps[source], start - self.first[source]
        if target[:2] == (1, 1):
            return [ir.Dense(source, self._weights((target[2], ir.size(shape))), delay)]
        if shape[:2] != target[:2]:
            return []
        if shape[2] == target[2] and self._chance(0.6):  # an identity
            weight = np.full((target[2], 1, 1, 1), int(self.rng.integers(20, 400)), dtype=np.int16)
            return [ir.Conv(source, weight, groups=target[2], delay=delay)]
        return [ir.Conv(source, self._weights((target[2], 1, 1, shape[2])), delay=delay)]

    def _bias(self, channels: int, reach: int) -> np.ndarray:
        on = int(self._chance(0.7))
        return (self.rng.integers(-reach, reach + 1, channels) * on).astype(np.int32)

    def _projection(self, source: str, shape: ir.Shape) -> ir.Projection:
        rng = self.rng
        if self._chance(0.25):
            return ir.Dense(source, self._weights((int(rng.integers(1, 40)), ir.size(shape))))
        c = shape[2]
        groups = int(rng.choice([g for g in (1, 1, 1, 2, c) if c % g == 0]))
        out = groups * int(rng.integers(1, max(2, 40 // groups)))
        while True:
            kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
            stride = (int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2])))
            dilation = (int(rng.choice([1, 1, 1, 2])), int(rng.choice([1, 1, 1, 2])))
            top, left, bottom, right = (int(v) for v in rng.integers(0, 3, 4))
            weight = self._weights((out, *kernel, c // groups))
            pads = (top, left, bottom, right)
            conv = ir.Conv(source, weight, stride, pads, dilation, groups)
            if min(ir.conv_shape(conv, shape)) >= 1:
                return conv

    def _window(self, shape: ir.Shape) -> tuple[ir.Pair, ir.Pair, ir.Padding]:
        rng = self.rng
        kh, kw = (int(rng.integers(1, min(n, 3) + 1)) for n in shape[:2])
        stride = (
            (kh, kw) if self._chance(0.6) else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        )
        if self._chance(0.7):
            return (kh, kw), stride, (0, 0, 0, 0)
        top, bottom = (int(v) for v in rng.integers(0, kh, 2))
        left, right = (int(v) for v in rng.integers(0, kw, 2))
        return (kh, kw), stride, (top, left, bottom, right)

    def _output(self) -> ir.CssOutput:
        """Reads whatever nobody reads, and sometimes more."""
        rng, last = self.rng, self.nodes[-1].name
        read = {s for n in self.nodes for s in ir.sources(n)}
        unread = [n for n in self.maps if n not in read and n != "x"]
        if last not in unread:
            unread.append(last)
        classes = int(rng.choice([1, *range(2, 12)]))
        start = max(self.first[s] for s in unread)
        into = tuple(
            ir.Dense(s, self._weights((classes, ir.size(self.maps[s]))), start - self.first[s])
            for s in unread
        )
        bias = self._bias(classes, 90)
        return ir.CssOutput("output", into, self.amp, bias, self._bias(classes, 300))

    def _readout(self, classes: int) -> ir.Css:
        rng = self.rng
        kind = str(rng.choice(["sound", "sound", "sound", "never", "margin"]))
        if kind == "margin" and classes > 1:
            margins = np.abs(rng.normal(0, 1500, self.steps)) * 2.0 ** np.arange(self.steps)
            return ir.Css("margin", tuple(int(m) for m in margins))
        return ir.Css("never" if kind == "never" else "sound")
