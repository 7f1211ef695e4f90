"""`python scripts/costs.py [CORES ...]`: fit the cost model of compiler/cost.py to each core's emulated board.

Programs that sweep shapes, kernels, widths, rules and styles are compiled and run node by node on the board, on
inputs from silent to full. Per core, a linear program finds coefficients that lie above every measurement with
the least overestimate in all (decision 0013); a margin is added, and the result goes to
compiler/costs/<core>.json. Networks that were not fitted then check it. An instruction takes 64 ns of emulated
time, so that a board's counter tells all of them apart.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgesnn import api
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import WidthError, prove
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.check import check_program
from edgesnn.compiler.choose import choose, styles_of
from edgesnn.compiler.cost import COSTS, Costs, Counts, node_counts, observe
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.compiler.styles import Style
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS, Target, find_target

MARGIN = 0.1  # of a micro-kernel, whose code is the same for every layer
LOOP_MARGIN = 0.3  # of a kernel that GCC unrolls and folds by the layer's shape
MICRO = (
    r"(conv|dense)\.(dsp|pairs|bytes|mve).*\.(one|four|held)6?:"
    r"|encoder\.(dsp|pairs|mve)|fire\.\w+\.(dsp|pairs|mve)|node|input"
)
SPARE = 120  # instructions a node and step on top, for what so short a piece of code may need once
FLOOR = 0.5  # instructions of anything that is done at all: what is seldom seen alone is not for nothing
SHIFT = 6  # an instruction takes 2**SHIFT ns
ZOO = ("zoo:mnist-lenet", "zoo:mnist", "zoo:digits", "zoo:fashion")
LEAKS: tuple[ir.Shifts, ...] = (((1, 1),), ((1, 0),), ((1, 0), (-1, 2)), ((1, 0), (-1, 2), (-1, 4)))
SHAPES = (
    (4, 5, 1),
    (6, 6, 3),
    (5, 5, 8),
    (6, 5, 16),
    (4, 4, 20),
    (5, 6, 32),
    (3, 3, 40),
    (3, 4, 64),
    (1, 1, 100),
    (1, 1, 300),
    (1, 12, 4),
    (12, 12, 2),
    (14, 14, 16),
    (7, 7, 32),
)
OUTPUTS = (1, 2, 3, 4, 5, 8, 10, 12, 16, 20, 24, 28, 32, 36, 48, 64, 100, 128)


@dataclass(frozen=True)
class Row:
    """One node in one inference: what it did and how many instructions that took."""

    program: str
    node: str
    counts: Counts
    instructions: float


# --- programs -----------------------------------------------------------------------------------


def weights(rng: np.random.Generator, shape: tuple[int, ...], reach: int) -> np.ndarray:
    """Random weights whose absolute sum for one output stays below `reach`."""
    fan = int(np.prod(shape[1:]))
    top = max(min(127 if rng.random() < 0.6 else 31, 2 * reach // fan), 1)
    w = rng.integers(-top, top + 1, shape)
    if fan > reach:
        w *= rng.random(shape) < reach / fan
    return w.astype(np.int8)


def events_program(seed: int, shape: ir.Shape, timesteps: int) -> ir.Program:
    """Populations, pools and merges of every kind on one event input."""
    rng = np.random.default_rng([seed, 1])
    nodes: list[ir.Node] = [ir.EventInput("events", shape)]
    maps = {"events": shape}
    many = {"events": 1}

    def add(node: ir.Node) -> str:
        nodes.append(node)
        maps[node.name] = ir.node_shape(node, maps)
        many[node.name] = ir.node_multiplicity(node, many)
        return node.name

    def projection(source: str, kind: int) -> ir.Projection:
        h, w, c = maps[source]
        reach = 24000 // (timesteps * many[source])
        out = int(rng.choice(OUTPUTS))
        if kind % 3 == 0 or (h, w) == (1, 1):
            return ir.Dense(source, weights(rng, (out, h * w * c), reach))
        while True:
            kernel = tuple(int(rng.choice((1, 2, 3, 3, 5, 5))) for _ in range(2))
            stride = tuple(int(rng.choice((1, 1, 1, 2, 3))) for _ in range(2))
            top, left = (int(rng.integers(0, k // 2 + 1)) for k in kernel)
            groups = int(rng.choice([g for g in (2, c) if c % g == 0])) if kind % 7 == 1 else 1
            channels = groups * int(rng.choice((1, 2, 4))) if groups > 1 else out
            w8 = weights(rng, (channels, *kernel, c // groups), reach)
            conv = ir.Conv(source, w8, stride, (top, left, top, left), (1, 1), groups)  # type: ignore[arg-type]
            if min(ir.conv_shape(conv, maps[source])) >= 1:
                return conv

    def population(source: str, kind: int) -> str:
        p = projection(source, kind)
        channels = ir.conv_shape(p, maps[source])[2]
        wide = kind % 5 == 4
        bias = np.full(channels, 40000 if wide else 0) + rng.integers(-3, 4, channels)
        reached = int(rng.choice((1, 20, 200, 30000)))
        theta = np.full(channels, reached + (40000 if wide else 0))
        rule = (bias * int(kind % 4 != 3)).astype(np.int32), theta.astype(np.int32)
        leak = LEAKS[kind % len(LEAKS)]
        name = f"p{len(nodes)}"
        if kind % 6 == 5:
            return add(ir.Amos(name, (p,), leak, rule[1], rule[0], bool(kind % 4 == 1)))
        reset = "hard" if kind % 6 == 2 else "soft"
        return add(ir.Lif(name, (p,), leak, rule[1], rule[0], reset))

    made = [population("events", seed + kind) for kind in range(12)]
    h, w, _ = shape
    if min(h, w) >= 2:
        for kernel, stride in (((2, 2), (2, 2)), ((2, 3), (1, 1)), ((1, 2), (1, 2))):
            if kernel[0] <= h and kernel[1] <= w:
                add(ir.OrPool(f"or{len(nodes)}", "events", kernel, stride))
    if ir.size(shape) <= 1000:
        kernel = (min(2, h), min(2, w))
        summed = add(ir.SumPool("sum", "events", kernel, kernel if seed % 2 else (1, 1)))
        add(ir.SumPool("twice", summed, (1, 1), (1, 1)))
        twins = [n for n in made if maps[n] == shape][:1] or ["events"]
        merged = add(ir.Merge("merge", ("events", twins[0])))
        add(ir.Merge("more", (merged, "events")))
        for kind in (0, 1, 2, 4):
            population(merged if kind % 2 else summed, seed + kind)
    return finish(f"events{seed}", timesteps, nodes, maps, many, seed)


def finish(
    name: str,
    timesteps: int,
    nodes: list[ir.Node],
    maps: dict[str, ir.Shape],
    many: dict[str, int],
    seed: int,
) -> ir.Program:
    """An output that reads what nobody reads, and never stops early."""
    rng = np.random.default_rng([seed, 2])
    read = {s for n in nodes for s in ir.sources(n)}
    last = [n.name for n in nodes if n.name not in read]
    classes = (10, 3, 5, 2, 11, 16, 32, 4)[seed % 8]
    reach = 24000 // (timesteps * sum(many[s] for s in last))
    into = tuple(
        ir.Dense(s, weights(rng, (classes, ir.size(maps[s])), max(reach, 1))) for s in last
    )
    wide = 40000 if seed % 3 == 2 else 0
    bias = np.full(classes, wide) + rng.integers(-3, 4, classes)
    leaks = tuple(LEAKS[(seed + k) % 4] for k in range(classes if seed % 4 == 3 else 1))
    never = 2**31 - 1
    rules = (ir.Margin(never), ir.FirstSpike(never), ir.Margin(never), ir.FirstSpike(never))
    output = ir.Accumulator("output", into, leaks, bias.astype(np.int32))
    return ir.Program(name, timesteps, (*nodes, output), rules[seed % 4])


def small_program(seed: int) -> ir.Program:
    """An event input straight into the output: dense kernels and readouts alone."""
    shape = SHAPES[seed % len(SHAPES)]
    return finish(
        f"small{seed}", 3, [ir.EventInput("events", shape)], {"events": shape}, {"events": 1}, seed
    )


def samples_program(seed: int) -> ir.Program:
    """Encoders of every kind on one sample input."""
    rng = np.random.default_rng([seed, 3])
    shape = (
        (28, 28, 1),
        (8, 8, 1),
        (10, 9, 3),
        (1, 64, 1),
        (16, 16, 2),
        (6, 7, 4),
        (28, 28, 1),
        (1, 100, 3),
    )[seed % 8]
    timesteps = (4, 1, 2, 7, 4, 3)[seed % 6]
    dtype = ("uint8", "uint8", "int8", "uint8", "int16")[seed % 5]
    zero = 3 if seed % 4 == 3 else 0
    nodes: list[ir.Node] = [ir.SampleInput("x", shape, dtype, 1.0, zero)]
    maps, many = {"x": shape}, {"x": 0}
    h, w, c = shape
    for k in range(4):
        out = int((4, 8, 12, 16, 32, 3, 10, 16, 40, 64)[(seed + k) % 10])
        if (seed + k) % 9 == 8:
            p: ir.Projection = ir.Dense("x", weights(rng, (out, ir.size(shape)), 1200))
        else:
            side = int(rng.choice((1, 3, 5, 5, 7)))
            kernel = (min(side, h), min(side, w))
            stride = (1, 1) if k % 2 == 0 else (min(2, h), 3 if seed % 5 == 1 else 2)
            pad = (kernel[0] // 2, kernel[1] // 2) * 2
            groups = c if c > 1 and k == 1 and seed % 3 == 0 else 1
            out = -(-out // groups) * groups
            top = 2 if seed % 4 == 1 else 90  # now and then sums of 16 bits
            w8 = rng.integers(-top, top + 1, (out, *kernel, c // groups)).astype(np.int8)
            p = ir.Conv("x", w8, stride, pad, (1, 1), groups)
        full = ir.conv_shape(p, shape)
        spread = (19000 if dtype == "int16" else 75) * 50 * math.sqrt(p.weight[0].size)
        if k == 3 and seed % 2:
            theta = rng.integers(1, int(spread) + 2, full[2])
            rule = (theta.astype(np.int32), np.zeros(full[2], np.int32))
            node: ir.Node = ir.CurrentEncoder(
                f"c{k}", p, LEAKS[seed % 4], *rule, ("soft", "hard")[seed // 2 % 2]
            )
        else:
            pools = ((2, 2), (1, 1), (1, 2), (3, 3))
            pool = tuple(
                min(a, b) for a, b in zip(pools[(seed // 2 + k) % 4], full[:2], strict=True)
            )
            limits = -np.sort(-rng.normal(0.3, 0.8, (full[2], timesteps - 1)) * spread, axis=1)
            if k == 2:  # all units spike at once
                limits = np.full_like(limits, -(2.0**30))
            node = ir.LatencyEncoder(f"e{k}", p, limits.astype(np.int32), pool)  # type: ignore[arg-type]
        nodes.append(node)
        maps[node.name], many[node.name] = ir.node_shape(node, maps), 1
    return finish(f"samples{seed}", timesteps, nodes, maps, many, seed)


def programs(quick: bool) -> Iterator[ir.Program]:
    every = 3 if quick else 1
    for seed, shape in list(enumerate(SHAPES))[::every]:
        yield events_program(seed, shape, 2 if ir.size(shape) > 1000 else 3)
    for seed in range(0, 48, 2 * every):
        yield small_program(seed)
    for seed in range(0, 24, every):
        yield samples_program(seed)
    for seed in range(0, 120, every):
        yield random_program(seed)
    for name in ZOO[:1] if quick else ZOO:
        for _ in range(3):  # a turn for every style
            yield api.load_program(name)


def samples(program: ir.Program, seed: int) -> list[np.ndarray]:
    """Silent, sparse, dense, full and patterned inputs."""
    rng, source, out = np.random.default_rng([seed, 4]), program.input, []
    if isinstance(source, ir.EventInput):
        shape = (program.timesteps, *source.shape)
        for rate in (0.0, 0.03, 0.1, 0.3, 0.6, 1.0):
            out.append((rng.random(shape) < rate).astype(np.uint8))
        return [*out, (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)]
    low, high = ir.SAMPLE_RANGE[source.dtype]
    values = rng.integers(low, high + 1, source.shape)
    for rate in (0.0, 0.05, 0.3, 1.0):
        out.append(np.where(rng.random(source.shape) < rate, values, source.zero_point))
    out.append(np.full(source.shape, high))
    out.append(np.full(source.shape, low))
    out.append(np.where(np.indices(source.shape).sum(axis=0) % 2, high, source.zero_point))
    out.append(np.where(rng.random(source.shape) < 0.4, high, source.zero_point))
    middle = np.full(source.shape, source.zero_point)
    h, w, _ = source.shape
    middle[h // 4 : h - h // 4, w // 4 : w - w // 4] = values[
        h // 4 : h - h // 4, w // 4 : w - w // 4
    ]
    return [x.astype(source.dtype) for x in (*out, middle)]


# --- measuring ----------------------------------------------------------------------------------


def fine(board: Board) -> tuple[Board, float]:
    """The board slowed down, and what a tick then is in instructions."""
    spec = board.emulator
    assert spec is not None
    if board.counter.kind == "minstret":
        return board, 1.0
    args = tuple(a.replace("shift=0", f"shift={SHIFT}") for a in spec.args)
    return replace(board, emulator=replace(spec, args=args)), 1e9 / board.counter.hz / 2**SHIFT


def measure(
    bundle: Bundle,
    program: ir.Program,
    board: Board,
    target: Target,
    styles: Mapping[str, Style],
    x: list[np.ndarray],
) -> list[Row]:
    """Every node of every inference."""
    slow, per_tick = fine(board)
    bounds = prove(program)
    choice = choose(program, bounds, target, wanted=styles)
    rows = []
    assert bundle.firmware is not None
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(slow, bundle.firmware))
        link = LinkEngine(bundle, emulator.url, baud=board.uart.baud, watch=emulator.check)
        engine = stack.enter_context(link)
        for sample in x:
            decision = engine.profile(sample)
            run, loads = observe(program, bounds, sample)
            assert decision.node_ticks is not None and decision.step == run.steps
            for node, ticks in zip(program.nodes, decision.node_ticks, strict=True):
                counts = node_counts(program, bounds, choice, node, run, loads)
                took = (float(ticks) + run.steps) * per_tick  # a reading is cut to whole ticks
                rows.append(Row(program.name, node.name, counts, took))
    return rows


def assigned(program: ir.Program, target: Target, turn: int) -> dict[str, Style]:
    """Styles in turn, so that each meets every kind of node; a trained network's nodes are of one."""
    known = styles_of(target)
    one = not program.name.startswith(("events", "small", "samples", "random"))
    return {
        n.name: known[(turn + (0 if one else i)) % len(known)] for i, n in enumerate(program.nodes)
    }


def legal(program: ir.Program) -> bool:
    try:
        check_program(program)
        prove(program)
    except WidthError:
        return False
    return True


def collect(some: Iterator[ir.Program], target: Target, folder: Path) -> tuple[list[Row], str]:
    board = load_board(str(target.board))
    rows: list[Row] = []
    compiler = ""
    for k, program in enumerate(some):
        if not legal(program):
            print(f"  {program.name}: too wide, left out")
            continue
        begin = time.monotonic()
        styles = assigned(program, target, k)
        try:
            bundle = compile_program(
                program, target.name, board=board.name, out=folder / "b", styles=styles
            )
        except EdgesnnError as e:
            print(f"  {program.name}: {e}")
            continue
        compiler = str(bundle.manifest["versions"]["compiler"])
        built = time.monotonic()
        x = (
            samples(program, k)
            if not program.name.startswith("random")
            else random_samples(program, 6, k)
        )
        found = measure(bundle, program, board, target, styles, x)
        rows += found
        print(
            f"  {program.name}: {len(found)} rows, built in {built - begin:.1f} s, "
            f"run in {time.monotonic() - built:.1f} s",
            flush=True,
        )
    return rows, compiler


# --- fitting ------------------------------------------------------------------------------------


def fit(rows: list[Row]) -> dict[str, float]:
    """Coefficients >= 0 that predict every row or more, with the least sum of relative overestimates."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, lil_matrix, vstack

    keys = sorted({key for row in rows for key in row.counts})
    index = {key: i for i, key in enumerate(keys)}
    at, column, value = [], [], []
    for i, row in enumerate(rows):
        for key, count in row.counts.items():
            at.append(i)
            column.append(index[key])
            value.append(count / max(row.instructions, 1.0))
    matrix = csr_matrix((value, (at, column)), shape=(len(rows), len(keys)))
    cost = np.asarray(matrix.sum(axis=0)).reshape(-1)
    # A column that hardly occurs would be free to grow: each coefficient costs a little by itself.
    ordered = lil_matrix((6 * len(keys), len(keys)))
    for i, (less, more, most) in enumerate(orders(keys)):
        ordered[i, index[less]] = 1.0
        ordered[i, index[more]] = -most
    found = linprog(
        cost + 1e-6,
        A_ub=vstack([-matrix, ordered.tocsr()]),
        b_ub=np.concatenate([-np.ones(len(rows)), np.zeros(6 * len(keys))]),
        bounds=(FLOOR, None),
        method="highs",
    )
    if found.status != 0:
        raise EdgesnnError(f"the fit failed: {found.message}")
    return dict(zip(keys, (float(v) for v in found.x), strict=True))


def orders(keys: list[str]) -> Iterator[tuple[str, str, float]]:
    """(a, b, most): a may cost `most` times b at most, so that the worst case is known.

    Four events at once never cost more than four alone (cost.worst_loads), one word of samples never more than
    two at once: all samples present is the worst.
    """
    fours = {
        "by8": (("by64", 0.5), ("by32", 1), ("by16", 2), ("by8", 4), ("by4", 8)),
        "by4": (("by4", 4),),
    }
    two = {"by40": (("by16", 2),)}
    for key in keys:
        name, _, what = key.partition(":")
        if ".four" in name:
            others = (name.replace("four", "one"), name.replace("four6", "one"))
            cuts = fours.get(what, ((what, 4),))
        elif name.startswith("encoder") and name.endswith(".one"):
            others, cuts = (name[:-3] + "two",) * 2, two.get(what, ((what, 1),))
        else:
            continue
        for other, most in cuts:
            found = [f"{n}:{other}" for n in others if f"{n}:{other}" in keys]
            if found:
                yield key, found[0], float(most)


def with_margin(coefficients: Mapping[str, float]) -> dict[str, float]:
    spare = {"node:step": SPARE, "input:step": SPARE}

    def wider(key: str) -> float:
        return 1 + (MARGIN if re.match(MICRO, key) else LOOP_MARGIN)

    return {
        k: math.ceil((v * wider(k) + spare.get(k, 0)) * 1000) / 1000
        for k, v in sorted(coefficients.items())
    }


def tightness(rows: list[Row], costs: Costs, title: str) -> bool:
    """Predicted over measured by kind of node; whether nothing lies above the model."""
    ratios: dict[str, list[float]] = {}
    sound, unknown = True, 0
    for row in rows:
        predicted = costs.of(row.counts)
        if predicted is None:
            unknown += 1
            continue
        if predicted < row.instructions:
            sound = False
            print(f"  ABOVE: {row.program} {row.node}: {row.instructions:.0f} > {predicted:.0f}")
        names = {key.split(":")[0] for key in row.counts} - {"node", "begin_first", "clear_planes"}
        main = sorted(n for n in names if not n.startswith(("begin", "fire", "readout")))
        label = re.sub(
            r"\.(queue|samples|grouped|pairs|words)", "", (main or sorted(names) or ["node"])[0]
        )
        ratios.setdefault(label, []).append(predicted / row.instructions)
    print(
        f"{title}: predicted / measured, median, 90 %, most ({unknown} rows with unmeasured kernels)"
    )
    for label, found in sorted(ratios.items()):
        a = np.array(found)
        print(f"  {label:28}{np.median(a):7.2f}{np.quantile(a, 0.9):7.2f}{a.max():7.2f}{len(a):7}")
    return sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cores", nargs="*")
    parser.add_argument("--quick", action="store_true", help="a third of the programs")
    parser.add_argument("--check", type=int, default=20, help="random programs that check the fit")
    parser.add_argument(
        "--rows", type=Path, help="keep the measurements there, and fit those that are"
    )
    options = parser.parse_args()
    chosen = [find_target(c) for c in options.cores] or [t for t in TARGETS if t.board]
    sound = True
    for target in chosen:
        print(f"{target.name} ({target.board})", flush=True)
        kept = options.rows / f"{target.name}.pickle" if options.rows else None
        with tempfile.TemporaryDirectory() as folder:
            if kept is not None and kept.is_file():
                rows, checks, compiler = pickle.loads(kept.read_bytes())
            else:
                rows, compiler = collect(programs(options.quick), target, Path(folder))
                fresh = (random_program(1000 + k) for k in range(options.check))
                checks, _ = collect(fresh, target, Path(folder))
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(pickle.dumps((rows, checks, compiler)))
        coefficients = fit(rows)
        costs = Costs(target.name, compiler, with_margin(coefficients))
        sound &= tightness(rows, costs, "fitted")
        sound &= tightness(checks, costs, "checked")
        document = {
            "format": "edgesnn-costs",
            "target": target.name,
            "unit": "instructions",
            "compiler": compiler,
            "margin": {"micro-kernels": MARGIN, "loops": LOOP_MARGIN},
            "rows": len(rows),
            "coefficients": costs.coefficients,
        }
        COSTS.mkdir(exist_ok=True)
        path = COSTS / f"{target.name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: {len(costs.coefficients)} coefficients of {len(rows)} rows")
    return 0 if sound else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
