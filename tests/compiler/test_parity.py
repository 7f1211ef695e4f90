"""The one rule: every engine gives the interpreter's answer, spike for spike, on networks nobody designed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.compare import decision_difference, trace_difference
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.compiler.random_css import random_css_program
from edgesnn.compiler.random_graph import random_graph
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.compiler.weight_format import WEIGHT_FORMATS
from edgesnn.parity import check_parity

HOST_SEEDS = range(24)
BOARD_SEEDS = range(100, 106)
GRAPH_SEEDS = range(200, 210)

needs_board = pytest.mark.skipif(
    not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")),
    reason="needs qemu-system-arm and arm-none-eabi-gcc",
)


@pytest.mark.parametrize("seed", HOST_SEEDS)
def test_host_equals_interpreter(seed: int, tmp_path: Path) -> None:
    codegen = "llvm" if seed % 4 == 0 else "c"
    report = check_parity(
        random_program(seed), "cpu", samples=6, seed=seed, folder=tmp_path, codegen=codegen
    )
    assert report.samples == 6
    assert report.mismatches == []


@needs_board
@pytest.mark.parametrize("seed", BOARD_SEEDS)
def test_firmware_equals_interpreter(seed: int, tmp_path: Path) -> None:
    codegen = "llvm" if seed % 3 == 0 else "c"
    report = check_parity(
        random_program(seed), "mps2-an386", samples=4, seed=seed, folder=tmp_path, codegen=codegen
    )
    assert report.samples == 4
    assert report.mismatches == []


@pytest.mark.parametrize("seed", GRAPH_SEEDS)
def test_host_equals_interpreter_on_lowered_graphs(seed: int, tmp_path: Path) -> None:
    program = lower(random_graph(seed), weights=WEIGHT_FORMATS[seed % 5])
    report = check_parity(program, "cpu", samples=5, seed=seed, folder=tmp_path)
    assert report.mismatches == []


@needs_board
def test_firmware_equals_interpreter_on_a_lowered_graph(tmp_path: Path) -> None:
    program = lower(random_graph(GRAPH_SEEDS[0]))
    report = check_parity(program, "mps2-an386", samples=4, seed=0, folder=tmp_path)
    assert report.mismatches == []


def test_random_graphs_are_varied() -> None:
    graphs = [random_graph(seed) for seed in range(60)]
    layers = [layer for graph in graphs for layer in graph.layers]
    assert {type(layer) for layer in layers} == set(g.Layer.__args__)
    assert {graph.timesteps for graph in graphs} >= {1, 2, 4, 8}
    assert {graph.input.dtype for graph in graphs} == set(ir.SAMPLE_RANGE)
    resets = {layer.reset for layer in layers if isinstance(layer, g.Spiking)}
    assert resets == {"soft", "hard", "amos"}
    assert any(layer.forced for layer in layers if isinstance(layer, g.Spiking))
    assert any(isinstance(graph.layers[-1].leak, tuple) for graph in graphs)
    oblong = [n for n in layers if isinstance(n, g.Pool) and len(set(g.pair(n.kernel))) == 2]
    assert {n.kind for n in oblong} == {"or", "avg"}


def test_random_programs_are_varied() -> None:
    """The generator really draws what it promises, and the drawn networks spike and stop early."""
    programs = [random_program(seed) for seed in range(60)]
    programs += [random_css_program(seed) for seed in range(10)]
    kinds = {type(n).__name__ for p in programs for n in p.nodes}
    assert kinds == set(ir.NODE_KINDS)
    assert {type(p.readout).__name__ for p in programs} == set(ir.READOUT_KINDS)
    steps, spikes = set(), 0
    for p in programs:
        for x in random_samples(p, 4, 1):
            d = Interpreter(p).infer(x)
            steps.add((d.step, d.exited))
            spikes += int(d.events.sum())
    assert spikes > 1000
    assert {s for s, exited in steps if exited} >= {1, 2, 3}
    assert any(not exited for _, exited in steps)


def test_a_difference_is_seen() -> None:
    """The comparison is not blind: a changed answer, a moved spike and a changed membrane are reported."""
    p = next(q for q in map(random_program, range(50)) if len(q.nodes) > 3)
    names = [n.name for n in p.nodes]
    x = random_samples(p, 1, 3)[0]
    engine = Interpreter(p)
    trace = engine.trace(x)
    assert trace_difference(trace, engine.trace(x), names) is None
    changed = engine.trace(x)
    changed.decision.membranes[0] += 1
    assert "membrane" in str(trace_difference(trace, changed, names))
    changed = engine.trace(x)
    changed.events[0][1] = np.append(changed.events[0][1], np.uint32(10**6))
    assert names[1] in str(trace_difference(trace, changed, names))
    for name in ("label", "step", "exited"):
        other = replace(trace.decision, **{name: getattr(trace.decision, name) + 1})
        assert decision_difference(trace.decision, other) is not None
