"""Canonic signed spikes: engines agree, the sound exit is sound, pooling and encoding mean what they say."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import WidthError, prove
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.check import IllegalProgram, check_program
from edgesnn.compiler.esnn_file import load_program, save_program
from edgesnn.compiler.exits import DOUBLING, is_settled, lead_needed, narrowing
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.passes.convert import ternary_digits
from edgesnn.compiler.random_css import random_css_program
from edgesnn.compiler.random_program import random_samples
from edgesnn.compiler.styles import BYTES, DSP, MVE, PAIRS, Style
from edgesnn.compiler.text import from_text, to_text
from edgesnn.parity import check_parity
from edgesnn.runtime.host import HostEngine

needs_board = pytest.mark.skipif(
    not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")),
    reason="needs qemu-system-arm and arm-none-eabi-gcc",
)


# --- engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_host_equals_interpreter(seed: int, tmp_path: Path) -> None:
    codegen = "llvm" if seed % 5 == 4 else "c"
    program = random_css_program(seed)
    report = check_parity(program, "cpu", samples=5, seed=seed, folder=tmp_path, codegen=codegen)
    assert report.mismatches == []


@pytest.mark.parametrize("style", [DSP, PAIRS, BYTES, MVE], ids=lambda style: style.name)
@pytest.mark.parametrize("seed", [20, 21, 22])
def test_every_style_equals_the_interpreter(seed: int, style: Style, tmp_path: Path) -> None:
    program = random_css_program(seed)
    wanted = {node.name: style for node in program.nodes if isinstance(node, ir.Integrator)}
    report = check_parity(program, "cpu", samples=4, seed=seed, folder=tmp_path, styles=wanted)
    assert report.mismatches == []


@needs_board
@pytest.mark.parametrize(
    ("seed", "board"), [(30, "mps2-an386"), (31, "mps3-an547"), (32, "mps2-an385")]
)
def test_firmware_equals_interpreter(seed: int, board: str, tmp_path: Path) -> None:
    report = check_parity(random_css_program(seed), board, samples=3, seed=seed, folder=tmp_path)
    assert report.mismatches == []


@pytest.mark.parametrize("seed", [40, 60, 80])
def test_a_pipeline_gives_the_answers_of_single_frames(seed: int, tmp_path: Path) -> None:
    drawn = (random_css_program(s) for s in range(seed, seed + 20))
    program = next(p for p in drawn if p.timesteps > ir.period(p) > 3)
    samples = random_samples(program, 30, seed)
    with HostEngine(compile_program(program, "cpu", out=tmp_path / "b")) as engine:
        single = [engine.infer(x) for x in samples]
        for _ in range(2):  # a pipeline can be begun anew
            found = list(engine.infer_pipelined(samples))
            assert len(found) == len(single)
            for a, b in zip(single, found, strict=True):
                assert (a.label, a.step, a.exited) == (b.label, b.step, b.exited)
                assert np.array_equal(a.membranes, b.membranes)
        whole = replace(program, readout=ir.Css("never"))
        if program.readout == whole.readout:
            assert sum(b.events.sum() for b in found) == sum(a.events.sum() for a in single)


def test_a_window_follows_the_other_without_a_gap(tmp_path: Path) -> None:
    """Throughput is one frame in T + silent steps: as many steps less as windows overlap."""
    program = replace(_chain(DOUBLING, 3), readout=ir.Css("never"))
    samples = random_samples(program, 6, 1)
    with HostEngine(compile_program(program, "cpu", out=tmp_path / "b")) as engine:
        pending, steps, decided = list(samples), 0, []
        engine._call("esnn_push_frame", engine._ctx, pending.pop(0).ctypes.data, 16)
        while len(decided) < 6:
            if pending and engine._lib.esnn_push_next(engine._ctx, pending[0].ctypes.data, 16) == 0:
                pending.pop(0)
            steps += 1
            if engine._call("esnn_step", engine._ctx) == 1:
                decided.append(steps)
    period = ir.period(program)
    assert decided[0] == program.timesteps
    assert np.all(np.diff(decided) == period)


def _chain(amp: ir.Shifts, layers: int, steps: int = 6) -> ir.Program:
    """Dense layers of four units on 4 x 4 samples."""
    rng = np.random.default_rng(3)
    zero = np.zeros(4, dtype=np.int32)
    values = np.arange(256) / 255 * (2**steps - 1)
    nodes: list[ir.Node] = [
        ir.SampleInput("x", (4, 4, 1), "uint8"),
        ir.CssEncoder("encoder", "x", ternary_digits(values, steps, 2.0)[None]),
    ]
    last, size = "encoder", 16
    for i in range(layers):
        w = rng.integers(-60, 61, (4, size)).astype(np.int8)
        amplitude = np.full(4, 300, dtype=np.int32)
        nodes.append(ir.Tsa(f"tsa{i}", (ir.Dense(last, w),), amp, amplitude, zero, zero))
        last, size = f"tsa{i}", 4
    w = rng.integers(-60, 61, (4, size)).astype(np.int8)
    nodes.append(ir.CssOutput("output", (ir.Dense(last, w),), amp, zero, zero))
    return ir.Program("chain", steps + layers, tuple(nodes), ir.Css())


# --- the sound exit -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_an_early_answer_is_the_full_one(first: int) -> None:
    early = 0
    for seed in range(first, first + 30):
        program = random_css_program(seed)
        sound = Interpreter(replace(program, readout=ir.Css()))
        full = Interpreter(replace(program, readout=ir.Css("never")))
        for x in random_samples(program, 4, seed):
            a, b = sound.infer(x), full.infer(x)
            assert a.label == b.label
            early += a.step < b.step
    assert early > 0


def _trains(n: int, prefix: int) -> Iterator[tuple[int, ...]]:
    """All ternary continuations of n steps that a rectified Tsa with this prefix value can emit."""
    for digits in itertools.product((-1, 0, 1), repeat=n):
        value = prefix
        for d in digits:
            value = 2 * value + d
            if value < 0:
                break
        else:
            yield digits


@pytest.mark.parametrize("seed", range(6))
def test_a_settled_leader_survives_every_continuation(seed: int) -> None:
    """All that two source units can still say, by enumeration; and the bound is not loose by much."""
    rng = np.random.default_rng(seed)
    steps, units, classes = 4, 2, 3
    settled = refused = 0
    for _ in range(60):
        output = ir.CssOutput(
            "output",
            (ir.Dense("tsa", rng.integers(-9, 10, (classes, units)).astype(np.int8)),),
            DOUBLING,
            rng.integers(-3, 4, classes).astype(np.int32),
            rng.integers(-3, 4, classes).astype(np.int32),
        )
        source = ir.Tsa(
            "tsa",
            (ir.Dense("encoder", np.ones((units, 4), dtype=np.int8)),),
            DOUBLING,
            *(np.full(units, v, dtype=np.int32) for v in (4, 0, 0)),
        )
        digits = np.zeros((1, 256, steps), dtype=np.int8)
        nodes = (
            ir.SampleInput("x", (2, 2, 1), "uint8"),
            ir.CssEncoder("encoder", "x", digits),
            source,
            output,
        )
        program = ir.Program("small", steps + 1, nodes, ir.Css())
        check_program(program)
        assert narrowing(program) == "tsa"
        left = int(rng.integers(1, 4))
        prefix = rng.integers(0, 3, units)
        u = rng.integers(-60, 61, classes).astype(np.int64)
        said = is_settled(program, u, left, prefix == 0)
        plain = is_settled(program, u, left, None)
        assert said or not plain  # what has arrived never widens the bound
        w = output.projections[0].weight.astype(np.int64)
        leader = int(u.argmax())
        survives = True
        for trains in itertools.product(*(list(_trains(left, int(p))) for p in prefix)):
            end = u.copy()
            for step in range(left):
                end = 2 * end + w @ np.array([train[step] for train in trains]) + output.bias
            end = end + output.correction
            survives = survives and int(end.argmax()) == leader
        assert survives or not said
        settled += said
        refused += survives and not said
    assert settled > 0
    assert refused <= settled


def test_the_floors_of_other_amplifications_are_counted() -> None:
    """beta = 1.5: two membranes lose up to a half against each other in every step that is left."""
    program = _chain(((1, 0), (1, 1)), 1)
    assert narrowing(program) is None
    needed = lead_needed(program)
    assert np.all(needed[0] <= 1)
    off = ~np.eye(4, dtype=bool)
    assert np.all(needed[1:, off] > 0)
    assert np.all(np.diff(needed[1:, off], axis=0) > 0)


# --- meaning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "steps"), [(2.0, 8), (1.5, 10), (1.75, 5)])
def test_digits_encode_within_one_amplitude(beta: float, steps: int) -> None:
    """Theorem 3: |sum of beta^(T - t) S[t] - a| < theta for every a that can be encoded."""
    top = (beta**steps - 1) / (beta - 1)
    values = np.linspace(-top, top, 4001)
    weights = beta ** np.arange(steps - 1, -1, -1.0)
    assert np.all(np.abs(ternary_digits(values, steps, beta) @ weights - values) < 1)


def _decoded(program: ir.Program, name: str, x: np.ndarray) -> np.ndarray:
    """Values of a node's spike trains, sum of 2^(T - t) S[t], for beta = 2."""
    trace = Interpreter(program).trace(x)
    index = [n.name for n in program.nodes].index(name)
    units = ir.size(ir.shapes(program)[name])
    value = np.zeros(units, dtype=np.int64)
    for step in trace.events:
        found = step[index].astype(np.int64)
        value = 2 * value + np.bincount(found[found < units], minlength=units)
        value = value - np.bincount(found[found >= units] - units, minlength=units)
    last_spike = ir.starts(program)[name] + ir.coding_steps(program)  # of a silent period of one
    return value >> (program.timesteps - last_spike)


def _identity(source: str, delay: int = 0) -> ir.Conv:
    """One channel as it is."""
    return ir.Conv(source, np.full((1, 1, 1, 1), 64, dtype=np.int8), delay=delay)


def _finish(nodes: list[ir.Node], last: list[tuple[str, int]], timesteps: int) -> ir.Program:
    zero = np.zeros(2, dtype=np.int32)
    shapes: dict[str, ir.Shape] = {}
    for node in nodes:
        shapes[node.name] = ir.node_shape(node, shapes)
    into = tuple(
        ir.Dense(name, np.ones((2, ir.size(shapes[name])), dtype=np.int8), delay)
        for name, delay in last
    )
    output = ir.CssOutput("output", into, DOUBLING, zero, zero)
    return ir.Program("pool", timesteps, (*nodes, output), ir.Css("never"))


def test_pooled_membranes_encode_the_maximum() -> None:
    """max over a window of h is as sound as the paper's max(h, 0): the train is the maximum's.

    max(a, b) = b + relu(a - b), made of two populations, is a silent step later and sometimes off:
    it adds two trains that have both been encoded anew.
    """
    steps, rng = 8, np.random.default_rng(0)
    zero, one = np.zeros(1, dtype=np.int32), np.full(1, 128, dtype=np.int32)  # v = beta / s_c
    digits = ternary_digits(np.arange(256.0), steps, 2.0)[None]
    head: list[ir.Node] = [
        ir.SampleInput("x", (1, 2, 1), "uint8"),
        ir.CssEncoder("encoder", "x", digits),
    ]
    pooled = ir.Tsa(
        "max", (_identity("encoder"),), DOUBLING, one, zero, zero, pool=(1, 2), pool_stride=(1, 2)
    )
    direct = _finish([*head, pooled], [("max", 0)], steps + 1)
    apart = np.array([[[[64], [-64]]]], dtype=np.int8)
    difference = ir.Conv("encoder", apart, stride=(1, 2))
    second = np.array([[[[0], [64]]]], dtype=np.int8)
    made = _finish(
        [
            *head,
            ir.Tsa("relu", (difference,), DOUBLING, one, zero, zero),
            ir.Tsa(
                "max",
                (_identity("relu"), ir.Conv("encoder", second, stride=(1, 2), delay=1)),
                DOUBLING,
                one,
                zero,
                zero,
            ),
        ],
        [("max", 0)],
        steps + 2,
    )
    errors: list[list[int]] = []
    for program in (direct, made):
        check_program(program)
        prove(program)
        samples = [rng.integers(0, 256, (1, 2, 1)).astype(np.uint8) for _ in range(60)]
        errors.append([abs(int(_decoded(program, "max", x)[0]) - int(x.max())) for x in samples])
    assert max(errors[0]) == 0
    assert max(errors[1]) <= 8
    assert np.mean(errors[1]) <= 1


def test_a_delayed_skip_adds_what_it_says() -> None:
    """relu(x) + x through a skip that waits for one silent step."""
    steps = 8
    zero, v = np.zeros(1, dtype=np.int32), np.full(1, 128, dtype=np.int32)
    digits = ternary_digits(np.arange(256) / 2.0, steps, 2.0)[None]
    nodes: list[ir.Node] = [
        ir.SampleInput("x", (1, 1, 1), "uint8"),
        ir.CssEncoder("encoder", "x", digits),
        ir.Tsa("relu", (_identity("encoder"),), DOUBLING, v, zero, zero),
        ir.Tsa("sum", (_identity("relu"), _identity("encoder", delay=1)), DOUBLING, v, zero, zero),
    ]
    program = _finish(nodes, [("sum", 0)], steps + 2)
    check_program(program)
    for value in range(0, 256, 5):
        x = np.full((1, 1, 1), value, dtype=np.uint8)
        assert abs(int(_decoded(program, "sum", x)[0]) - value) <= 2


# --- files and rules ------------------------------------------------------------------------------


def test_programs_survive_text_and_file(tmp_path: Path) -> None:
    for seed in range(8):
        program = random_css_program(seed)
        assert to_text(from_text(to_text(program))) == to_text(program)
        save_program(program, tmp_path / "m.esnn")
        assert load_program(tmp_path / "m.esnn").digest() == program.digest()


def test_what_is_not_legal_is_named() -> None:
    program = _chain(DOUBLING, 2)
    x, encoder, first, second, output = program.nodes
    assert isinstance(first, ir.Tsa) and isinstance(second, ir.Tsa)
    assert isinstance(encoder, ir.CssEncoder)

    def illegal(rule: str, **changes: object) -> None:
        with pytest.raises(IllegalProgram, match=rule):
            check_program(replace(program, **changes))  # type: ignore[arg-type]

    def with_second(**changes: object) -> tuple[ir.Node, ...]:
        return (x, encoder, first, replace(second, **changes), output)  # type: ignore[arg-type]

    illegal("timesteps is 8", timesteps=9)
    illegal("Css is the readout", readout=ir.Rate())
    illegal("margins are 6", readout=ir.Css("margin", (1, 2)))
    illegal("exit is sound", readout=ir.Css("soon"))
    illegal("amplifications are the same", nodes=with_second(amplification=((1, 0), (1, 1))))
    illegal("above 1 and at most 2", nodes=with_second(amplification=((1, 1),)))
    illegal("silent periods are the same", nodes=with_second(silent=2))
    illegal("at least 2", nodes=with_second(amplitude=np.ones(4, dtype=np.int32)))
    late = (replace(second.projections[0], delay=1),)
    both = (*second.projections, ir.Dense("tsa0", np.ones((4, 4), dtype=np.int8), 1))
    illegal("arrive at the same time", nodes=with_second(projections=both))
    illegal("timesteps is 9", nodes=with_second(projections=late))
    wide = replace(encoder, digits=encoder.digits * np.int8(2))
    illegal("digits are -1, 0 or 1", nodes=(x, wide, first, second, output))
    lowest = replace(encoder, digits=np.full_like(encoder.digits, -128))
    illegal("digits are -1, 0 or 1", nodes=(x, lowest, first, second, output))


def test_a_membrane_that_leaves_32_bits_is_refused() -> None:
    """Also where an amplification with a far shift would hide it in the proof's own arithmetic."""
    program = _chain(((1, 0), (1, 0), (-1, 31)), 1)
    x, encoder, tsa, output = program.nodes
    wide = replace(tsa, bias=np.full(4, 2**28, dtype=np.int32))  # type: ignore[type-var]
    with pytest.raises(WidthError):
        prove(replace(program, nodes=(x, encoder, wide, output)))
