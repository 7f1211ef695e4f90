"""The cost model: what it counts, that it grows, and that nothing measured lies above what it states."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.budget import Budget, Use, check_budget, parse_budget
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.choose import choose, options
from edgesnn.compiler.cost import (
    COSTS,
    Run,
    estimate,
    load_costs,
    mean_loads,
    measured_rates,
    node_counts,
    observe,
    worst_loads,
)
from edgesnn.compiler.esnn_file import load_program, save_program
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.compiler.styles import PLAIN
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import TARGETS, find_target

BOARD = "mps2-an386"
emulated = pytest.mark.skipif(
    shutil.which("qemu-system-arm") is None or shutil.which("arm-none-eabi-gcc") is None,
    reason="needs qemu-system-arm and arm-none-eabi-gcc",
)
fitted = [path.stem for path in sorted(COSTS.glob("*.json"))]


def _dense(inputs: int, outputs: int, rates: dict[str, float] | None = None) -> ir.Program:
    """Events into one big layer and a small output."""
    rng = np.random.default_rng(0)
    one = ir.Dense("events", rng.integers(-2, 3, (outputs, inputs)).astype(np.int8))
    two = ir.Dense("big", rng.integers(-9, 10, (4, outputs)).astype(np.int8))
    theta, bias = np.full(outputs, 3, np.int32), np.zeros(outputs, np.int32)
    nodes = (
        ir.EventInput("events", (1, 1, inputs)),
        ir.Lif("big", (one,), ((1, 1),), theta, bias),
        ir.Accumulator("output", (two,), (((1, 1),),), np.zeros(4, np.int32)),
    )
    return ir.Program("dense", 3, nodes, ir.FirstSpike(2**30), rates=rates or {})


@pytest.mark.parametrize("target", [None, "cortex-m3", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("seed", range(20))
def test_no_input_does_more_than_the_worst_case(seed: int, target: str | None) -> None:
    """Every count of every input is at most that of the worst case, but for what is cheaper than others' lack.

    Four events at once take the place of four alone, one word of samples that of two: the fit orders them.
    """
    program = random_program(seed)
    bounds = prove(program)
    total = program.timesteps
    choice = choose(program, bounds, None if target is None else find_target(target))
    worst = worst_loads(program, bounds, total)
    for sample in random_samples(program, 6, seed):
        run, loads = observe(program, bounds, sample)
        for node in program.nodes:
            most = node_counts(program, bounds, choice, node, Run(total, True, total > 1), worst)
            for key, count in node_counts(program, bounds, choice, node, run, loads).items():
                cheaper = (
                    ".four" in key or ".one:" in key or "blank" in key or ":scanned" in key
                ) and target is not None
                assert cheaper or count <= most.get(key, 0.0) + 1e-6, (node.name, key)


@pytest.mark.parametrize("target", fitted)
def test_costs_do_not_fall_with_events(target: str) -> None:
    costs = load_costs(target)
    assert costs is not None and all(v >= 0 for v in costs.coefficients.values())
    program = _dense(200, 64)
    bounds = prove(program)
    choice = choose(program, bounds, find_target(target))
    before = 0.0
    for events in (0, 1, 10, 100, 200):
        rates = {"events": float(events), "big": events / 10}
        loads = mean_loads(program, bounds, rates, 1)
        counts = node_counts(program, bounds, choice, program.nodes[1], Run(1, True, False), loads)
        now = costs.of(counts)
        assert now is not None and now > before
        before = now


@pytest.mark.parametrize("target", fitted)
def test_a_step_costs_less_than_an_inference_and_the_mean_less_than_the_worst(target: str) -> None:
    program = _dense(200, 64, {"events": 20.0, "big": 5.0, "output": 1.0})
    bounds = prove(program)
    costs = load_costs(target)
    assert costs is not None
    found = estimate(program, bounds, choose(program, bounds, find_target(target)), costs)
    assert found is not None
    assert 0 < found.mean_inference < found.worst_inference
    assert found.worst_step < found.worst_inference <= program.timesteps * found.worst_step


def test_what_was_never_measured_has_no_bound() -> None:
    program = _dense(20, 8)
    bounds = prove(program)
    target = replace(find_target("cortex-m4"), name="unmeasured")
    assert load_costs("unmeasured") is None
    found = options(program, bounds, target)
    assert {o.mean for every in found.values() for o in every} == {None}
    assert choose(program, bounds, target)["big"].name == "dsp"  # what the core is made for


@pytest.mark.skipif("cortex-m3" not in fitted, reason="no costs of the Cortex-M3")
def test_a_byte_of_flash_has_to_save_an_instruction() -> None:
    """Pairs double a table: not worth it where next to nothing spikes."""
    target = find_target("cortex-m3")
    busy = _dense(1000, 100, {"events": 1000.0, "big": 50.0, "output": 3.0})
    idle = _dense(1000, 100, {"events": 1.0, "big": 0.1, "output": 1.0})
    assert choose(busy, prove(busy), target)["big"].micro
    assert choose(idle, prove(idle), target)["big"].name != "pairs"
    for program in (busy, idle):
        for every in options(program, prove(program), target).values():
            best = min(every, key=lambda o: o.weight)
            for other in every:
                saved = (other.mean or 0) - (best.mean or 0)
                assert saved >= best.flash - other.flash


def test_rates_are_kept_and_are_not_the_program(tmp_path: Path) -> None:
    program = random_program(3)
    rated = replace(program, rates=measured_rates(program, np.stack(random_samples(program, 4, 0))))
    assert rated.rates[program.output.name] >= 1
    save_program(rated, tmp_path / "a.esnn")
    assert load_program(tmp_path / "a.esnn").rates == rated.rates
    assert rated.digest() == program.digest()
    save_program(program, tmp_path / "b.esnn")
    assert b'"rates"' not in (tmp_path / "b.esnn").read_bytes()


@emulated
@pytest.mark.skipif("cortex-m4" not in fitted, reason="no costs of the Cortex-M4")
@pytest.mark.parametrize("seed", [0, 1003, 2005, 2013, 2018])
def test_measured_instructions_stay_below_the_bound(seed: int, tmp_path: Path) -> None:
    program = random_program(seed)
    bundle = compile_program(program, board=BOARD, out=tmp_path / "bundle")
    stated = bundle.manifest["instructions"]
    if "unknown" in stated:
        pytest.skip(stated["unknown"])
    source = program.input
    samples = random_samples(program, 8, seed)
    if isinstance(source, ir.SampleInput):
        low, high = ir.SAMPLE_RANGE[source.dtype]
        board = np.indices(source.shape).sum(axis=0) % 2
        samples += [np.where(board, high, low).astype(source.dtype)]
    with Session(bundle) as session:
        assert session.counter is not None
        for sample in samples:
            whole, apart = session.classify(sample), session.profile(sample)
            assert whole.ticks is not None and apart.node_ticks is not None
            assert whole.ticks * session.counter.per_tick <= stated["worst_per_inference"]
            for node, ticks in zip(program.nodes, apart.node_ticks, strict=True):
                most = stated["by_node"][node.name]["worst_per_inference"]
                assert ticks * session.counter.per_tick <= most, node.name


def test_no_bound_without_measured_code(tmp_path: Path) -> None:
    bundle = compile_program(_dense(20, 8), "cortex-m4", out=tmp_path / "bundle", codegen="llvm")
    assert "C" in bundle.manifest["instructions"]["unknown"]
    assert {k["style"] for k in bundle.manifest["kernels"].values()} == {PLAIN.name}


def test_every_cost_file_is_of_a_target() -> None:
    assert set(fitted) <= {t.name for t in TARGETS}


def test_budgets_are_read() -> None:
    got = parse_budget("ram=64k,flash=256k, stack=2k,instructions=2.5M").limits
    assert got == {"ram": 65536, "flash": 262144, "stack": 2048, "instructions": 2_500_000}


@pytest.mark.parametrize("text", ["", "ram", "ram=", "rom=3", "ram=3g", "ram=1k,ram=2k", "ram=-1"])
def test_malformed_budgets_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_budget(text)


def test_a_budget_names_what_breaks_it_by_how_much_and_the_layer() -> None:
    use = {
        "flash": Use(1500, "", {"a": 400, "b": 900}),
        "ram": Use(9, "", {}),
        "instructions": Use(None, "so", {}),
    }
    check_budget(Budget({"flash": 1500, "ram": 10}), use)
    with pytest.raises(
        EdgesnnError, match=r"1,500 bytes of flash, 500 more than 1,000, most of them in b"
    ):
        check_budget(Budget({"flash": 1000, "ram": 10}), use)
    with pytest.raises(EdgesnnError, match="not known: so"):
        check_budget(Budget({"instructions": 10}), use)
