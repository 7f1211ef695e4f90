"""compile --budget and --explain, inspect --target: what a model takes, before it is flashed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesnn.compiler.cost import load_costs
from edgesnn.runtime.bundle import Bundle

Run = Callable[..., Any]
known = pytest.mark.skipif(load_costs("cortex-m4") is None, reason="no costs of the Cortex-M4")


def test_a_budget_that_is_kept_changes_nothing(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    words = ("compile", "zoo:digits", "--target", "cpu", "--out", out)
    about = run(*words, "--budget", "ram=1M,flash=1M", "--json").json()
    assert about["bundle"] == str(out) and Bundle.open(out).name


def test_a_budget_that_breaks_leaves_the_old_bundle(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    words = ("compile", "zoo:digits", "--target", "cpu", "--out", out)
    assert run(*words).code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    message = run(*words, "--budget", "flash=1k").error(1)
    assert "bytes of flash" in message and "more than 1,024" in message
    encoder_or_layer = [n.name for n in Bundle.open(out).nodes]
    assert any(f"most of them in {name}" in message for name in encoder_or_layer)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_instructions_that_nobody_knows_break_a_budget(run: Run, tmp_path: Path) -> None:
    words = ("compile", "zoo:digits", "--target", "cpu", "--out", tmp_path / "bundle")
    message = run(*words, "--budget", "instructions=100M").error(1)
    assert "instructions are not known" in message
    assert not (tmp_path / "bundle").exists()


def test_a_malformed_budget_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    words = ("compile", "zoo:digits", "--target", "cpu", "--out", tmp_path / "bundle")
    assert "no 'rom'" in run(*words, "--budget", "rom=3k").error(2)


@known
def test_explain_prints_the_kernels_and_the_choice(run: Run, tmp_path: Path) -> None:
    words = ("compile", "zoo:digits", "--target", "cortex-m4", "--out", tmp_path / "bundle")
    found = run(*words, "--explain")
    assert found.code == 0
    assert "chosen" in found.out and "dsp" in found.out and "plain" in found.out
    about = run("inspect", tmp_path / "bundle", "--json").json()
    for name, kernels in about["kernels"].items():
        styles = [one["style"] for one in kernels["considered"]]
        assert kernels["style"] in styles, name
        assert all(one["flash_bytes"] > 0 for one in kernels["considered"])


@known
def test_inspect_states_the_worst_case_of_a_target(run: Run) -> None:
    about = run("inspect", "zoo:digits", "--target", "cortex-m4", "--json").json()
    stated = about["instructions"]
    assert 0 < stated["mean"] < stated["worst_per_inference"]
    assert stated["worst_per_step"] < stated["worst_per_inference"]
    nodes = stated["by_node"].values()
    assert sum(n["worst_per_inference"] for n in nodes) == stated["worst_per_inference"]
    assert "a step" in run("inspect", "zoo:digits", "--target", "cortex-m4").out


def test_a_bundle_has_its_target_already(run: Run, host_bundle: Bundle) -> None:
    assert "--target" in run("inspect", host_bundle.path, "--target", "cortex-m4").error(2)


def test_a_host_counts_no_instructions(run: Run) -> None:
    about = run("inspect", "zoo:digits", "--target", "cpu", "--json").json()
    assert "host" in about["instructions"]["unknown"]
