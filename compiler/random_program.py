"""Random legal programs and samples, for parity: every engine has to agree with the interpreter on them.

They cover what trained networks seldom show together: odd shapes, strides, pads, dilation, groups,
overlapping pools, several projections onto one population, every sample type, zero points, any leak, silent
and busy layers.
"""

from __future__ import annotations

from dataclasses import replace

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


def random_program(seed: int) -> ir.Program:
    """A legal, width-proved program, the same for the same seed."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        program = _draw(rng, f"random{seed}")
        try:
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


def _draw(rng: np.random.Generator, name: str) -> ir.Program:
    timesteps = int(rng.choice([1, 2, 4, 4, 7]))
    shape = tuple(
        int(v) for v in (rng.integers(3, 11), rng.integers(3, 11), rng.choice([1, 2, 3, 4]))
    )
    if rng.random() < 0.2:
        shape = (1, shape[1] * 2, shape[2])  # a 1-D signal
    nodes: list[ir.Node] = []
    maps: dict[str, ir.Shape] = {}
    rates: dict[str, float] = {}
    multiplicity: dict[str, int] = {}

    def add(node: ir.Node, shape: ir.Shape, rate: float, many: int = 1) -> str:
        nodes.append(node)
        maps[node.name], rates[node.name], multiplicity[node.name] = shape, rate, many
        return node.name

    if rng.random() < 0.15:
        last = add(ir.EventInput("events", shape), shape, 0.3)  # type: ignore[arg-type]
    else:
        dtype = str(rng.choice(["uint8", "uint8", "int8", "int16"]))
        zero = int(rng.choice([0, 0, 3])) if dtype != "int8" else int(rng.integers(-5, 6))
        add(ir.SampleInput("x", shape, dtype, 1.0, zero), shape, 1.0)  # type: ignore[arg-type]
        projection = _projection(rng, "x", maps["x"])
        full = ir.conv_shape(projection, maps["x"])
        pool = int(rng.integers(1, max(2, min(full[0], full[1], 3) + 1)))
        spread = {"uint8": 90.0, "int8": 74.0, "int16": 18900.0}[dtype]
        scale = spread * 40 * np.sqrt(projection.weight[0].size)
        steps = rng.normal(0.3, 1.0, (full[2], timesteps - 1)) * scale
        thresholds = -np.sort(-steps, axis=1)
        encoder = ir.LatencyEncoder("encoder", projection, thresholds.astype(np.int32), pool)
        last = add(encoder, ir.pool_shape(full, pool, pool), 1 / timesteps)
    for depth in range(int(rng.integers(0, 4))):
        h, w, _ = maps[last]
        draw = rng.random()
        if draw < 0.35 and min(h, w) >= 2:
            kernel, stride = int(rng.integers(1, min(h, w, 3) + 1)), int(rng.integers(1, 4))
            kind = ir.SumPool if multiplicity[last] > 1 or rng.random() < 0.4 else ir.OrPool
            pooled = ir.pool_shape(maps[last], kernel, stride)
            many = multiplicity[last] * (kernel**2 if kind is ir.SumPool else 1)
            last = add(kind(f"pool{depth}", last, kernel, stride), pooled, rates[last], many)
            continue
        projections = [_projection(rng, last, maps[last])]
        target = ir.conv_shape(projections[0], maps[last])
        if rng.random() < 0.3:  # a second projection, from any population before
            sources = [n for n in maps if n != "x"]
            source = str(rng.choice(sources))
            if target[:2] == (1, 1):
                weight = _weights(rng, (target[2], ir.size(maps[source])))
                projections.append(ir.Dense(source, weight))
            elif maps[source][:2] == target[:2]:
                weight = _weights(rng, (target[2], 1, 1, maps[source][2]))
                projections.append(ir.Conv(source, weight))
        expected = sum(40 * np.sqrt(p.weight[0].size * rates[p.source]) for p in projections)
        theta = np.maximum(np.abs(rng.normal(0.5, 0.4, target[2])) * expected, 1)
        bias = rng.integers(-20, 21, target[2]) * int(rng.random() < 0.7)
        lif = ir.Lif(
            f"lif{depth}",
            tuple(projections),
            _LEAKS[int(rng.integers(len(_LEAKS)))],
            theta.astype(np.int32),
            bias.astype(np.int32),
        )
        last = add(lif, target, 0.3)
    # Whatever nobody reads is read by the output, so that it is legal and its events are counted.
    read = {s for n in nodes for s in ir.sources(n)}
    unread = [n.name for n in nodes if n.name not in read and n.name != "x"]
    classes = int(rng.integers(2, 12))
    into = [ir.Dense(s, _weights(rng, (classes, ir.size(maps[s])))) for s in unread]
    bias = rng.integers(-30, 31, classes).astype(np.int32)
    leak = _LEAKS[int(rng.integers(len(_LEAKS) - 1))]
    nodes.append(ir.Accumulator("output", tuple(into), leak, bias))
    scale = sum(40 * np.sqrt(p.weight[0].size * rates[p.source]) for p in into)
    value = int(abs(rng.normal(1.0, 0.8)) * scale)
    readout = ir.FirstSpike(value) if rng.random() < 0.6 else ir.Margin(value // 2)
    program = ir.Program(name, timesteps, tuple(nodes), readout)
    if rng.random() < 0.1:  # 32-bit membranes by a large bias
        population = nodes[-1]
        assert isinstance(population, ir.Accumulator)
        wide = replace(population, bias=(population.bias * 3001).astype(np.int32))
        program = replace(program, nodes=(*nodes[:-1], wide))
    return program


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    w = np.clip(np.rint(rng.normal(0, 45, shape)), -127, 127)
    return (w * (rng.random(shape) < rng.choice([0.3, 1.0]))).astype(np.int8)


def _projection(rng: np.random.Generator, source: str, shape: ir.Shape) -> ir.Projection:
    c = shape[2]
    if rng.random() < 0.3:
        return ir.Dense(source, _weights(rng, (int(rng.integers(1, 33)), ir.size(shape))))
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
