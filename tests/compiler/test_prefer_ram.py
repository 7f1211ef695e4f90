"""`--prefer ram`: less memory where that is possible, and the same answers, spikes and counters."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgesnn import api
from edgesnn.cli import main
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.choose import choose
from edgesnn.compiler.compare import decision_difference
from edgesnn.compiler.esnn_file import save_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.layout import row_taps
from edgesnn.compiler.plan import Plan, plan_memory
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.parity import check_parity
from edgesnn.runtime.host import HostEngine
from edgesnn.targets.errors import UsageError
from edgesnn.targets.target import find_target

needs_board = pytest.mark.skipif(
    not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")),
    reason="needs qemu-system-arm and arm-none-eabi-gcc",
)


def planned(program: ir.Program, prefer: str, target: str = "cortex-m4") -> Plan:
    bounds = prove(program)
    return plan_memory(program, bounds, choose(program, bounds, find_target(target)), prefer)


def layered(program: ir.Program, plan: Plan) -> list[ir.Population]:
    found = [program.node(name) for name in plan.bands]
    return [node for node in found if isinstance(node, ir.Population)]


# Stacks of which the host's plan layers a population.
STACKS = [
    s for s in range(60) if layered(p := random_program(s, stack=True), planned(p, "ram", "cpu"))
]


@pytest.mark.parametrize("seed", STACKS[:12])
def test_host_equals_interpreter(seed: int, tmp_path: Path) -> None:
    report = check_parity(
        random_program(seed, stack=True),
        "cpu",
        samples=6,
        seed=seed,
        folder=tmp_path,
        codegen="llvm" if seed % 4 == 0 else "c",
        prefer="ram",
    )
    assert report.samples == 6
    assert report.mismatches == []


@needs_board
@pytest.mark.parametrize("board", ["microbit", "mps2-an385", "mps2-an386", "mps3-an547"])
def test_firmware_equals_interpreter(board: str, tmp_path: Path) -> None:
    program = random_program(STACKS[0], stack=True)
    report = check_parity(program, board, samples=4, seed=0, folder=tmp_path, prefer="ram")
    assert report.mismatches == []


@pytest.mark.parametrize("stack", [False, True])
def test_the_arena_is_never_larger(stack: bool) -> None:
    smaller = 0
    for seed in range(60):
        program = random_program(seed, stack=stack)
        for target in ("cpu", "cortex-m4", "cortex-m55"):
            ram, speed = (planned(program, prefer, target) for prefer in ("ram", "speed"))
            assert ram.arena_bytes <= speed.arena_bytes
            assert not speed.bands
            assert bool(ram.bands) == (ram.arena_bytes < speed.arena_bytes)
            smaller += ram.arena_bytes < speed.arena_bytes
    assert smaller >= (60 if stack else 10)


def test_stacks_are_varied() -> None:
    """What is layered: both neurons, groups, strides, wide bands, sources that are layered or pools."""
    found, sources, rows, heights, steps = [], [], [], [], set()
    for seed in STACKS:
        program = random_program(seed, stack=True)
        plan, shapes = planned(program, "ram", "cpu"), ir.shapes(program)
        for node in layered(program, plan):
            found.append(node)
            sources += [program.node(name) for name in ir.sources(node)]
            rows.append(plan.bands[node.name])
            heights.append(shapes[node.name][0])
            steps.add(program.timesteps)
            assert heights[-1] % rows[-1] == 0
    assert {type(node) for node in found} == {ir.Lif, ir.Amos}
    assert {ir.LatencyEncoder, ir.Lif, ir.OrPool} <= {type(node) for node in sources}
    convs = [p for node in found for p in node.projections if isinstance(p, ir.Conv)]
    assert any(p.groups > 1 for p in convs)
    assert any(p.stride[0] > 1 for p in convs) and any(p.dilation[0] > 1 for p in convs)
    assert any(len(node.projections) > 1 for node in found)
    assert min(rows) == 1 and any(1 < r < h for r, h in zip(rows, heights, strict=True))
    assert len(steps) >= 4 and 1 in steps


def test_an_early_exit_counts_the_steps_that_ran(tmp_path: Path) -> None:
    """Events and synaptic operations after a decision in a step before T are those of the steps until then."""
    early = set()
    for seed in STACKS[:5]:
        program = random_program(seed, stack=True)
        bundle = compile_program(program, "cpu", out=tmp_path / str(seed), prefer="ram")
        with HostEngine(bundle) as engine:
            reference = Interpreter(program)
            for x in random_samples(program, 6, seed):
                expected = reference.infer(x)
                assert decision_difference(expected, engine.infer(x)) is None
                if expected.step < program.timesteps:
                    early.add(expected.step)
    assert early >= {1, 2}


def test_row_taps_counts_weights() -> None:
    for kernel, stride, dilation in (
        (1, 1, 1),
        (5, 1, 1),
        (3, 2, 1),
        (4, 3, 2),
        (2, 1, 3),
        (1, 3, 1),
    ):
        weight = np.ones((1, kernel, 1, 1), np.int8)
        p = ir.Conv("x", weight, (stride, 1), dilation=(dilation, 1))
        taps = row_taps(p)
        for phase, counts in enumerate(taps):
            for n, count in enumerate(counts):
                first = [phase + j * stride for j in range(n)]
                assert count == sum(k % dilation == 0 and k // dilation < kernel for k in first)
        assert taps[:, -1].sum() == kernel


def test_manifest_and_inspect_say_it(tmp_path: Path) -> None:
    program = random_program(STACKS[0], stack=True)
    plan = planned(program, "ram", "cpu")
    bundle = compile_program(program, "cpu", out=tmp_path / "b", prefer="ram")
    bands = {node["name"]: node["band"] for node in bundle.manifest["nodes"]}
    assert {n: rows for n, rows in bands.items() if rows} == {
        node.name: plan.bands[node.name] for node in layered(program, plan)
    }
    about = api.inspect(tmp_path / "b")
    assert (
        about["arena_bytes"]
        == plan.arena_bytes
        < api.inspect(_saved(program, tmp_path))["arena_bytes"]
    )


def _saved(program: ir.Program, folder: Path) -> Path:
    save_program(program, folder / "p.esnn")
    return folder / "p.esnn"


def test_an_unknown_preference_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = random_program(0)
    with pytest.raises(UsageError, match="choose one of: speed, ram"):
        compile_program(program, "cpu", out=tmp_path / "b", prefer="size")
    out = str(tmp_path / "b")
    command = ["compile", str(_saved(program, tmp_path)), "--target", "cpu", "--out", out]
    assert main([*command, "--prefer", "size"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert main([*command, "--prefer", "ram"]) == 0
