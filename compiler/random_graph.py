"""Random float graphs that can be lowered, for tests of lowering: everything training can hand over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgesnn.compiler import graph as g
from edgesnn.compiler import ir

_LEAKS = (0.5, 0.5, 0.75, 0.9, 0.3, 1.0, 0.0)
_SCALES = {"uint8": 1 / 255, "int8": 1 / 128, "int16": 1 / 32768}


def random_graph(seed: int) -> g.Graph:
    """A graph that `lower` accepts in every weight format, the same for the same seed."""
    return _Draw(np.random.default_rng([seed, 11])).graph(f"graph{seed}")


class _Draw:
    """One graph in the making; `shape` and `gain` are those of the last layer."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layers: list[g.Layer] = []
        self.shape: ir.Shape = (1, 1, 1)
        self.divided = False  # an average pool stands between here and the last population
        self.once = True  # one event per unit and step at most

    def graph(self, name: str) -> g.Graph:
        rng = self.rng
        timesteps = int(rng.choice([1, 2, 3, 4, 4, 6, 8]))
        source = self._input()
        self._encoder()
        for depth in range(int(rng.integers(0, 4))):
            self._layer(depth)
        classes = int(rng.integers(2, 8))
        kind = str(rng.choice(["first-spike", "first-spike", "margin", "rate"]))
        leak: float | tuple[float, ...] = self._leak()
        if self._chance(0.3):
            leak = tuple(self._leak() for _ in range(classes))
        if kind == "rate":
            leak = 1.0
        bias = rng.normal(0, 0.1, classes) if self._chance(0.7) else None
        dense = g.Dense(self._weight((classes, ir.size(self.shape))), bias)
        self.layers.append(g.Output("output", self.last, dense, None, leak))
        readout = g.ReadoutSpec(kind, float(abs(rng.normal(0.5, 0.7))))
        names = tuple(f"class {i}" for i in range(classes)) if self._chance(0.5) else ()
        return g.Graph(name, source, timesteps, tuple(self.layers), readout, names)

    @property
    def last(self) -> str:
        return self.layers[-1].name

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _leak(self) -> float:
        return float(self.rng.choice(_LEAKS))

    def _input(self) -> g.SampleInput:
        rng = self.rng
        h, w, c = (int(n) for n in rng.integers((4, 4, 1), (9, 9, 4)))
        self.shape = (1, 2 * w, c) if self._chance(0.2) else (h, w, c)  # a 1-D signal, or a map
        dtype = str(rng.choice(["uint8", "uint8", "int8", "int16"]))
        zero = int(rng.choice([0, 0, 7])) if dtype == "uint8" else int(rng.integers(-9, 10))
        return g.SampleInput(self.shape, dtype, _SCALES[dtype], zero)

    def _weight(self, shape: tuple[int, ...]) -> np.ndarray:
        fan_in = int(np.prod(shape[1:]))
        w = self.rng.normal(0.1, 1.0, shape) * 2 / np.sqrt(fan_in)
        if self._chance(0.2):
            w[int(self.rng.integers(len(w)))] = 0.0  # a dead channel
        return np.asarray(w)

    def _linear(
        self, conv: bool, same: bool = False
    ) -> tuple[g.Dense | g.Conv, g.BatchNorm | None]:
        """A layer on the last map and its batch norm, if any; `same` keeps the map's shape."""
        rng, (h, w, c) = self.rng, self.shape
        linear: g.Dense | g.Conv
        out = c if same else int(rng.integers(1, 7))
        kh, kw = min(h, 3), min(w, 3)
        if not same:
            kh, kw = int(rng.integers(1, kh + 1)), int(rng.integers(1, kw + 1))
        padding = (kh // 2, kw // 2, kh - 1 - kh // 2, kw - 1 - kw // 2)
        stride = (1, 1)
        if not same:
            if self._chance(0.3):
                top, left, bottom, right = (int(n) for n in rng.integers(0, 3, 4))
                padding = (top, left, bottom, right)
            stride = (int(rng.integers(1, min(h, 3))) if h > 1 else 1, int(rng.integers(1, 3)))
        groups = int(rng.choice([n for n in (1, 1, 1, c) if out % n == 0]))
        if conv:
            weight = self._weight((out, kh, kw, c // groups))
            linear = g.Conv(weight, None, stride, padding, (1, 1), groups)
            p = ir.Conv("", weight.astype(np.int8), stride, padding, (1, 1), groups)
            self.shape = ir.conv_shape(p, self.shape)
        else:
            out = int(rng.integers(3, 13))
            linear = g.Dense(self._weight((out, ir.size(self.shape))))
            self.shape = (1, 1, out)
        bias = rng.normal(0, 0.2, out)
        if self._chance(0.3):
            return replace(linear, bias=bias), None
        gamma = rng.normal(1.0, 0.6, out)  # also negative ones
        norm = g.BatchNorm(gamma, bias, rng.normal(0, 0.2, out), rng.uniform(0.5, 2.0, out))
        return linear, norm

    def _encoder(self) -> None:
        rng, kind = self.rng, self.rng.random()
        if kind < 0.25:
            raw = g.Conv(np.ones((self.shape[2], 1, 1, 1)), groups=self.shape[2])
            pool = self._window() if self._chance(0.3) else 1
            self.layers.append(g.LatencyEncode("encoder", "input", raw, None, pool, "identity"))
        else:
            linear, norm = self._linear(conv=kind < 0.8)
            if self._chance(0.35):
                reset = str(rng.choice(["soft", "hard"]))
                self.layers.append(
                    g.CurrentEncode("encoder", "input", linear, norm, self._leak(), 0.7, reset)
                )
                return
            pool = self._window() if self._chance(0.5) else 1
            self.layers.append(g.LatencyEncode("encoder", "input", linear, norm, pool))
        self.shape = ir.pool_shape(self.shape, g.pair(pool), g.pair(pool))

    def _window(self) -> tuple[int, int]:
        h, w = (int(self.rng.integers(1, min(n, 3) + 1)) for n in self.shape[:2])
        return h, w

    def _layer(self, depth: int) -> None:
        rng, kind = self.rng, self.rng.random()
        if kind < 0.3 and ir.size(self.shape) > self.shape[2]:
            window, stride = self._window(), (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
            way = "or" if self.once and self._chance(0.5) else "avg"
            self.layers.append(g.Pool(f"pool{depth}", self.last, way, window, stride))
            self.shape = ir.pool_shape(self.shape, window, stride)
            if way == "avg" and window != (1, 1):
                self.divided, self.once = True, False
            return
        shortcut = kind > 0.75 and not self.divided
        source = self.last
        linear, norm = self._linear(conv=shortcut or self._chance(0.5), same=shortcut)
        reset = str(rng.choice(["soft", "soft", "hard", "amos"]))
        forced = reset == "amos" and self._chance(0.4)
        theta = float(rng.uniform(0.5, 1.5))
        name = f"spiking{depth}"
        self.layers.append(
            g.Spiking(name, source, linear, norm, self._leak(), theta, reset, forced)
        )
        self.divided, self.once = False, True
        if shortcut:
            self.layers.append(g.Merge(f"merge{depth}", (source, name)))
            self.once = False
