"""Random legal programs and samples, for parity: every engine has to agree with the interpreter on them.

They cover what trained networks seldom show together: odd shapes, strides, pads, dilation, groups,
overlapping pools, several projections onto one population, every sample type, zero points, any leak, silent
and busy layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import WidthError, prove
from edgesnn.compiler.check import check_program
from edgesnn.compiler.passes.tighten_thresholds import tighten_thresholds

_LEAKS: tuple[ir.Shifts, ...] = (
    ((1, 1),),
    ((1, 0),),
    ((1, 0), (-1, 2)),
    ((1, 0), (-1, 3)),
    ((1, 1), (1, 3)),
    ((1, 0), (-1, 2), (-1, 4)),
    ((1, 2),),
    (),
)


def random_program(seed: int, *, stack: bool = False) -> ir.Program:
    """A legal, width-proved program, the same for the same seed; `stack`: one that can run layer by layer."""
    kind, name = (_Stack, f"stack{seed}") if stack else (_Draw, f"random{seed}")
    return first_legal(seed, lambda n: kind(np.random.default_rng([seed, n])).program(name))


def first_legal(seed: int, draw: Callable[[int], ir.Program]) -> ir.Program:
    """The first of draw(0), draw(1), ... whose values can be proved to fit, with tight thresholds."""
    for attempt in range(100):
        try:
            program = draw(attempt)
            check_program(program)
            program = tighten_thresholds(program)
            prove(program)
        except WidthError:
            continue
        return program
    raise AssertionError(f"seed {seed} gives no legal program in 100 attempts")


def random_samples(program: ir.Program, count: int, seed: int) -> list[np.ndarray]:
    """Samples of the input's shape and dtype: sparse, dense, constant and extreme ones."""
    rng = np.random.default_rng([seed, 77])
    source = program.input
    out = []
    for i in range(count):
        if isinstance(source, ir.EventInput):
            rate = (0.0, 0.05, 0.3, 1.0)[i % 4]
            out.append((rng.random((program.timesteps, *source.shape)) < rate).astype(np.uint8))
            continue
        low, high = ir.SAMPLE_RANGE[source.dtype]
        x = rng.integers(low, high + 1, source.shape)
        if i % 4 == 1:
            x = np.where(rng.random(source.shape) < 0.8, source.zero_point, x)
        elif i % 4 == 3:
            x = np.full(source.shape, (low, high)[i // 4 % 2])
        out.append(x.astype(source.dtype))
    return out


class _Draw:
    """One program in the making: nodes so far, and what is needed to choose sensible thresholds."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.timesteps = int(rng.choice([1, 2, 4, 4, 7]))
        self.nodes: list[ir.Node] = []
        self.maps: dict[str, ir.Shape] = {}
        self.rates: dict[str, float] = {}  # expected events per unit and step
        self.multiplicity: dict[str, int] = {}
        self.spread = 0.0  # of one weighted sample

    def program(self, name: str) -> ir.Program:
        rng = self.rng
        last = self._input()
        if "x" in self.maps and self._chance(0.15):
            last = self._encoder("second", "x")  # the first one is read by the output
        for depth in range(int(rng.integers(0, 4))):
            last = self._layer(depth, last)
        output, readout = self._output()
        return ir.Program(name, self.timesteps, (*self.nodes, output), readout)

    def _add(self, node: ir.Node, rate: float, many: int = 1) -> str:
        self.nodes.append(node)
        self.maps[node.name] = ir.node_shape(node, self.maps)
        self.rates[node.name], self.multiplicity[node.name] = rate, many
        return node.name

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _leak(self) -> ir.Shifts:
        return _LEAKS[int(self.rng.integers(len(_LEAKS)))]

    def _reset(self) -> str:
        return "hard" if self._chance(0.25) else "soft"

    def _thresholds(self, channels: int, spread: float) -> np.ndarray:
        theta = np.maximum(np.abs(self.rng.normal(0.5, 0.4, channels)) * spread, 1)
        return np.minimum(theta, 2**30).astype(np.int32)

    def _bias(self, channels: int, reach: int) -> np.ndarray:
        on = int(self._chance(0.7))
        return (self.rng.integers(-reach, reach + 1, channels) * on).astype(np.int32)

    def _input(self) -> str:
        rng = self.rng
        h, w = int(rng.integers(3, 11)), int(rng.integers(3, 11))
        c = int(rng.choice([1, 2, 3, 4]))
        shape = (1, 2 * w, c) if self._chance(0.2) else (h, w, c)  # a 1-D signal, or a map
        if self._chance(0.15):
            return self._add(ir.EventInput("events", shape), 0.3)
        dtype = str(rng.choice(["uint8", "uint8", "int8", "int16"]))
        zero = int(rng.choice([0, 0, 3])) if dtype != "int8" else int(rng.integers(-5, 6))
        self.spread = {"uint8": 90.0, "int8": 74.0, "int16": 18900.0}[dtype] * 40
        self._add(ir.SampleInput("x", shape, dtype, 1.0, zero), 1.0)
        return self._encoder("encoder", "x")

    def _encoder(self, name: str, source: str) -> str:
        rng, shape = self.rng, self.maps[source]
        projection = _projection(rng, source, shape)
        full = ir.conv_shape(projection, shape)
        spread = self.spread * np.sqrt(projection.weight[0].size)
        if self._chance(0.25):
            theta = self._thresholds(full[2], 2 * spread)
            bias = self._bias(full[2], int(spread / 4))
            encoder: ir.Encoder = ir.CurrentEncoder(
                name, projection, self._leak(), theta, bias, self._reset()
            )
            return self._add(encoder, 0.4)
        return self._latency(name, projection, spread)

    def _latency(self, name: str, projection: ir.Projection, spread: float) -> str:
        rng, full = self.rng, ir.conv_shape(projection, self.maps[projection.source])
        pool = self._window(full, 0.5)
        steps = rng.normal(0.3, 1.0, (full[2], self.timesteps - 1)) * spread
        thresholds = -np.sort(-steps, axis=1)
        encoder = ir.LatencyEncoder(name, projection, thresholds.astype(np.int32), pool)
        return self._add(encoder, 1 / self.timesteps)

    def _layer(self, depth: int, last: str) -> str:
        rng, (h, w, _) = self.rng, self.maps[last]
        if self._chance(0.3) and max(h, w) >= 2:
            kernel, stride = self._window(self.maps[last], 0.5), self._window((3, 3, 1), 0.5)
            many, window = self.multiplicity[last], kernel[0] * kernel[1]
            if many > 1 or self._chance(0.4):
                pool: ir.Node = ir.SumPool(f"pool{depth}", last, kernel, stride)
                return self._add(pool, self.rates[last] * window, many * window)
            return self._add(ir.OrPool(f"pool{depth}", last, kernel, stride), self.rates[last])
        twins = [n for n in self.maps if n != "x" and self.maps[n] == self.maps[last]]
        if self._chance(0.25):
            other = str(rng.choice(twins))
            rate = self.rates[last] + self.rates[other]
            many = self.multiplicity[last] + self.multiplicity[other]
            return self._add(ir.Merge(f"merge{depth}", (last, other)), rate, many)
        return self._spiking(depth, tuple(self._projections(last)))

    def _spiking(self, depth: int, into: tuple[ir.Projection, ...]) -> str:
        channels = ir.conv_shape(into[0], self.maps[into[0].source])[2]
        spread = sum(40 * np.sqrt(p.weight[0].size * self.rates[p.source]) for p in into)
        theta, bias = self._thresholds(channels, spread), self._bias(channels, 20)
        if self._chance(0.3):
            forced = self._chance(0.3)
            amos = ir.Amos(f"amos{depth}", into, self._leak(), theta, bias, forced)
            return self._add(amos, 1 / self.timesteps)
        lif = ir.Lif(f"lif{depth}", into, self._leak(), theta, bias, self._reset())
        return self._add(lif, 0.3)

    def _window(self, shape: ir.Shape, square: float) -> ir.Pair:
        """A pooling window of up to 3 x 3 that lies within a map."""
        h, w = (int(self.rng.integers(1, min(n, 3) + 1)) for n in shape[:2])
        return (min(h, w),) * 2 if self._chance(square) else (h, w)

    def _projections(self, last: str) -> list[ir.Projection]:
        """One projection from `last`, sometimes a second one from any spiking node before."""
        out = [_projection(self.rng, last, self.maps[last])]
        target = ir.conv_shape(out[0], self.maps[last])
        if self._chance(0.3):
            source = str(self.rng.choice([n for n in self.maps if n != "x"]))
            shape = self.maps[source]
            if target[:2] == (1, 1):
                out.append(ir.Dense(source, _weights(self.rng, (target[2], ir.size(shape)))))
            elif shape[:2] == target[:2]:
                out.append(ir.Conv(source, _weights(self.rng, (target[2], 1, 1, shape[2]))))
        return out

    def _output(self) -> tuple[ir.Accumulator, ir.Readout]:
        """Reads whatever nobody reads, so that the program is legal and every event counts."""
        rng = self.rng
        read = {s for n in self.nodes for s in ir.sources(n)}
        unread = [n for n in self.maps if n not in read and n != "x"]
        classes = int(rng.choice([1, *range(2, 12)]))
        into = tuple(ir.Dense(s, _weights(rng, (classes, ir.size(self.maps[s])))) for s in unread)
        spread = sum(40 * np.sqrt(p.weight[0].size * self.rates[p.source]) for p in into)
        # One output in ten has biases that need 32-bit membranes.
        bias = self._bias(classes, 90000 if self._chance(0.1) else 30)
        value = int(abs(rng.normal(1.0, 0.8)) * spread)
        kind = rng.random()
        if kind < 0.1:
            return ir.Accumulator("output", into, (((1, 0),),), bias), ir.Rate()
        each = tuple(self._leak() for _ in range(classes))
        leaks = each if self._chance(0.3) else (self._leak(),)
        if kind < 0.6 or classes == 1:
            # Now and then one that is met below zero.
            return ir.Accumulator("output", into, leaks, bias), ir.FirstSpike(
                -value if self._chance(0.1) else value
            )
        readout = ir.Margin(value // 2)
        return ir.Accumulator("output", into, leaks, bias), readout


class _Stack(_Draw):
    """Convolutions and OR-pools, one upon the other, on a latency encoder of a larger map."""

    def program(self, name: str) -> ir.Program:
        rng = self.rng
        self.timesteps, self.spread = int(rng.integers(1, 7)), 90.0 * 40
        shape = (int(rng.integers(6, 17)), int(rng.integers(4, 13)), int(rng.integers(1, 4)))
        self._add(ir.SampleInput("x", shape, "uint8", 1.0, 0), 1.0)
        first = _conv(rng, "x", shape)
        last = self._latency("encoder", first, self.spread * np.sqrt(first.weight[0].size))
        for depth in range(int(rng.integers(1, 5))):
            if self._chance(0.3):
                kernel, stride = self._window(self.maps[last], 0.5), self._window((3, 3, 1), 0.5)
                pool = ir.OrPool(f"pool{depth}", last, kernel, stride)
                last = self._add(pool, self.rates[last])
                continue
            into = [_conv(rng, last, self.maps[last])]
            if self._chance(0.4):  # a map of the same size, which other sources can reach, too
                channels = self.maps[last][2]
                weight = _weights(rng, (int(rng.integers(1, 9)), 3, 3, channels))
                into = [ir.Conv(last, weight, padding=(1, 1, 1, 1))]
            h, w, channels = ir.conv_shape(into[0], self.maps[last])
            twins = [n for n, s in self.maps.items() if s[:2] == (h, w) and n != "x"]
            if twins and self._chance(0.5):
                source = str(rng.choice(twins))
                weight = _weights(rng, (channels, 1, 1, self.maps[source][2]))
                into.append(ir.Conv(source, weight))
            last = self._spiking(depth, tuple(into))
        output, readout = self._output()
        return ir.Program(name, self.timesteps, (*self.nodes, output), readout)


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    w = np.clip(np.rint(rng.normal(0, 45, shape)), -127, 127)
    return (w * (rng.random(shape) < rng.choice([0.3, 1.0]))).astype(np.int8)


def _projection(rng: np.random.Generator, source: str, shape: ir.Shape) -> ir.Projection:
    if rng.random() < 0.3:
        return ir.Dense(source, _weights(rng, (int(rng.integers(1, 33)), ir.size(shape))))
    return _conv(rng, source, shape)


def _conv(rng: np.random.Generator, source: str, shape: ir.Shape) -> ir.Conv:
    c = shape[2]
    groups = int(rng.choice([g for g in (1, 1, 1, 2, c) if c % g == 0]))
    out = groups * int(rng.integers(1, 9))
    while True:
        kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        dilation = (int(rng.choice([1, 1, 1, 2])), int(rng.choice([1, 1, 1, 2])))
        padding = tuple(int(v) for v in rng.integers(0, 4, 4))
        weight = _weights(rng, (out, *kernel, c // groups))
        conv = ir.Conv(source, weight, stride, padding, dilation, groups)  # type: ignore[arg-type]
        if min(ir.conv_shape(conv, shape)) >= 1:
            return conv
