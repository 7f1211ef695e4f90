"""Every command on good input: the fields that it promises, and their values."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.files import sha256

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm"
)


def _listing(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_train_compile_run(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path with default outputs: ./<net>-<data>.pt, ./<model>-<target>/ (of a board: below)."""
    monkeypatch.chdir(tmp_path)
    words = ("--epochs", 2, "--batch", 20, "--threads", 1, "--json")
    report = run("train", "--net", "mcu-mlp", "--data", data, *words).json()
    assert report["out"] == "mcu-mlp-bars.pt" and 0 <= report["accuracy"] <= 1
    assert set(report["timesteps_histogram"]) == {"1", "2", "3", "4"}
    built = run("compile", "mcu-mlp-bars.pt", "--target", "host", "--json").json()
    assert built["bundle"] == "mcu-mlp-bars-cpu" and built["target"] == "cpu"
    seen = run("run", "mcu-mlp-bars-cpu", "--data", data, "--split", "train", "--json").json()
    assert seen["samples"] == 120
    assert run("verify", "mcu-mlp-bars-cpu", "--data", data, "--json").json()["mismatches"] == 0
    # An older result of ours is replaced, and compiling again changes no byte.
    before = {name: sha256(tmp_path / "mcu-mlp-bars-cpu" / name) for name in ("manifest.json",)}
    run("compile", "mcu-mlp-bars.pt", "--target", "cpu", "--json").json()
    assert sha256(tmp_path / "mcu-mlp-bars-cpu" / "manifest.json") == before["manifest.json"]
    made = {"mcu-mlp-bars.pt", "mcu-mlp-bars-report", "mcu-mlp-bars-cpu"}
    assert {p.name for p in tmp_path.iterdir()} == made


def test_calibrate(run: Any, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    before = checkpoint.read_bytes()
    out = tmp_path / "quick.pt"
    words = ("calibrate", checkpoint, "--data", data, "--exit", "margin", "--out", out)
    report = run(*words, "--steps", 1.5, "--json").json()
    assert (report["out"], report["met"]) == (str(out), True) and report["mean_steps"] <= 1.5
    assert report["front"] and report["before"]["exit"] == "first-spike"
    text = run(*words, "--steps", 1.5).out
    assert "chosen" in text and f"margin at {report['value']:g}:" in text
    best = run(*words, "--accuracy", 1)
    assert ("no value of this exit reaches" in best.err) != ("100.00 %" in best.out)
    assert checkpoint.read_bytes() == before


def _check_run(report: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    steps = [row["step"] for row in rows]
    assert report["samples"] == len(rows) and report["accuracy"] == 1.0
    assert report["mean_timesteps"] == pytest.approx(np.mean(steps))
    assert report["timesteps_histogram"] == {str(t): steps.count(t) for t in range(1, 5)}
    assert report["no_output_spike"] == sum(not row["exited"] for row in rows)
    events = np.array([row["events"] for row in rows]).mean(axis=0)
    # encoder 4x4x4, conv 4x4x6, dense 12 spike; the pool between them does not.
    assert report["spikes_per_neuron"]["hidden"] == pytest.approx((events[2] + events[4]) / 108)
    assert report["spikes_per_neuron"]["all"] == pytest.approx(
        (events[1] + events[2] + events[4]) / 172
    )
    assert report["sops_mean"] == pytest.approx(np.mean([sum(row["sops"]) for row in rows]))
    assert report["encoder_macs"] > 0


def test_run(run: Any, host_bundle: Bundle, data: Path, frames: Any) -> None:
    report = run("run", host_bundle.path, "--data", data, "--json").json()
    _check_run(report, frames[2])
    assert report["engine"] == "host"
    first = run("run", host_bundle.path, "--data", data, "--samples", 2, "--json").json()
    assert first["samples"] == 2
    assert "accuracy" in run("run", host_bundle.path, "--data", data).out


@needs_qemu
def test_two_boards_share_the_samples(
    run: Any, board_bundle: Bundle, data: Path, frames: Any, tmp_path: Path
) -> None:
    twice = ("--board", "mps2-an386", "--board", "mps2-an386")
    words = (board_bundle.path, "--data", data)
    report = run("run", *words, *twice, "--json").json()
    _check_run(report, frames[2])
    assert report["engine"] == "2 x emulated mps2-an386"
    names = ["emulated mps2-an386 (1)", "emulated mps2-an386 (2)"]
    assert [board["name"] for board in report["boards"]] == names
    assert sum(board["samples"] for board in report["boards"]) == len(frames[2])
    assert {board["resent"] for board in report["boards"]} == {0}
    text = run("verify", *words, "--board", "mps2-an386,mps2-an386", "--trace").out
    assert re.search(r"mismatches +0", text) and re.search(r"boards +2\b", text)
    assert all(re.search(rf"{re.escape(name)} +\d+ samples", text) for name in names)
    out = tmp_path / "report"
    shown = run("profile", *words, *twice, "--sweep", 0, "--out", out)
    assert shown.code == 0 and "mcu" not in shown.err
    found = json.loads((out / "report.json").read_text())
    assert sum(board["samples"] for board in found["boards"]) == found["samples"]
    alone = run("profile", *words, "--sweep", 0, "--json").json()
    assert found["instructions"] == alone["instructions"]
    assert [board["name"] for board in alone["boards"]] == ["emulated mps2-an386"]


@needs_qemu
def test_a_board_without_an_emulator_is_found(
    run: Any, golden: Path, data: Path, frames: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU runs its image, behind the port that is found."""
    from edgesnn.compiler.build import compile_program
    from edgesnn.compiler.text import from_text
    from edgesnn.targets.board import load_board
    from edgesnn.targets.emulator import Emulator

    program = from_text((golden / "samples.program").read_text(encoding="utf-8"))
    bundle = compile_program(program, board="microbit-v1", out=tmp_path / "b")
    words = ("run", bundle.path, "--data", data, "--json")
    monkeypatch.setattr("edgesnn.runtime.session.find_port", lambda board: None)
    assert "none is found on a USB port; plug it in, or name its --port" in run(*words).error(2)
    assert bundle.firmware is not None
    with Emulator(load_board("microbit"), bundle.firmware) as emulator:
        monkeypatch.setattr("edgesnn.runtime.session.find_port", lambda board: emulator.url)
        done = run(*words)
    _check_run(done.json(), frames[2])
    assert done.err == f"microbit-v1 is taken to be on {emulator.url}\n"
    assert done.json()["engine"] == f"board on {emulator.url}"


@needs_qemu
def test_run_and_verify_on_the_emulated_board(
    run: Any, board_bundle: Bundle, data: Path, frames: Any
) -> None:
    words = (board_bundle.path, "--board", "mps2-an386", "--data", data, "--json")
    _check_run(run("run", *words).json(), frames[2])
    report = run("verify", *words, "--trace").json()
    assert report["mismatches"] == 0 and report["engine"] == "emulated mps2-an386"


def test_verify(run: Any, host_bundle: Bundle, event_bundle: Bundle, data: Path) -> None:
    report = run("verify", host_bundle.path, "--data", data, "--json").json()
    assert (report["engine"], report["samples"], report["mismatches"]) == ("host", 6, 0)
    assert {"class", "step", "membranes"} <= set(report["compared"])
    assert "spikes" not in report["compared"]
    report = run("verify", event_bundle.path, "--samples", 7, "--trace", "--json").json()
    assert report["samples"] == 7 and report["mismatches"] == 0 and "spikes" in report["compared"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no cc")
def test_verify_finds_a_difference(run: Any, copy: Path, data: Path) -> None:
    """A library whose code is wrong by one unit of one bias: exit code 1, and what differs."""
    source = copy / "src" / "model.c"
    text, count = re.subn(
        r"(int16_t (?:first|bias)_5\[5\] = \{\s*)0,", r"\g<1>1,", source.read_text(encoding="utf-8")
    )
    assert count == 2  # in the first step, and in later ones
    source.write_text(text, encoding="utf-8")
    library = copy / "lib" / "libmodel.so"
    files = [str(file) for file in sorted(source.parent.glob("*.c"))]
    subprocess.run(["cc", "-O1", "-fPIC", "-shared", *files, "-o", str(library)], check=True)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    for file in (source, library):
        manifest["files"][file.relative_to(copy).as_posix()] = sha256(file)
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    outcome = run("verify", copy, "--data", data, "--trace", "--json")
    assert outcome.code == 1
    report = json.loads(outcome.out)
    assert report["mismatches"] == report["samples"] == 6
    assert report["first_mismatch"].startswith("sample 0: membrane of class 0 is ")
    assert outcome.err.count("\n") == 1 and "differ from the reference" in outcome.err


def test_inspect(
    run: Any, host_bundle: Bundle, board_bundle: Bundle, checkpoint: Path, tmp_path: Path
) -> None:
    about = run("inspect", board_bundle.path, "--json").json()
    memory = board_bundle.manifest["memory"]
    for name in ("flash_bytes", "ram_bytes", "stack_bytes"):
        assert about[name] == memory[name] > 0
    assert about["queues"]["encoder"] == 64
    assert about["worst_case_sops_per_step"] > 0
    assert set(about["widths"].values()) <= {"int16", "int32"} and "conv" in about["widths"]
    program = tmp_path / "model.esnn"
    shutil.copy(host_bundle.program_path, program)
    alone = run("inspect", program, "--json").json()
    assert alone["flash_bytes"] is None and alone["queues"] == about["queues"]
    assert run("inspect", checkpoint, "--json").json()["queues"]
    assert "stack, worst case" in run("inspect", board_bundle.path).out
    text = run("inspect", board_bundle.path, "--text").out
    assert text.startswith("program(name=") and "readout(" in text


def test_compile_takes_a_program_without_torch(
    fresh: Any, host_bundle: Bundle, tmp_path: Path
) -> None:
    """Also: the board implies the target."""
    program = tmp_path / "net.esnn"
    shutil.copy(host_bundle.program_path, program)
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    built = fresh("compile", program, "--board", "mps2-an386", "--json", cwd=tmp_path).json()
    assert built["bundle"] == "net-mps2-an386" and built["board"] == "mps2-an386"


@needs_qemu
def test_profile_on_the_emulated_board(
    run: Any, board_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    words = ("profile", board_bundle.path, "--data", data, "--json")
    report = run(*words).json()
    figures = report["instructions"]
    assert set(figures) == {"mean", "p50", "p95", "p99", "max"}
    assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
    assert "cycles" not in report
    layers = {row["name"]: row for row in report["per_layer"]}
    assert list(layers) == [node.name for node in board_bundle.nodes]
    assert sum(row["share"] for row in layers.values()) == pytest.approx(1)
    for row in layers.values():
        assert sum(row["parts"].values()) == pytest.approx(row["instructions_mean"])
    assert sum(report["parts"]["shares"].values()) == pytest.approx(1)
    assert report["link"]["seconds"] > 0
    assert sum(report["timesteps"]["timesteps_histogram"].values()) == 6
    assert 0 < report["memory"]["stack_high_water"] <= report["memory"]["stack_bytes"]
    # Instructions are counted, not timed: a second run gives the same numbers.
    assert run(*words).json()["instructions"] == figures
    out = tmp_path / "report"
    for _ in range(2):  # the second replaces the first
        assert run(*words, "--out", out).json()["samples"] == 6
        names = ("report.html", "report.json", "report.txt")
        assert _listing(tmp_path) == ["report", *(f"report/{name}" for name in names)]
    assert json.loads((out / "report.json").read_text())["instructions"] == figures


def test_profile_on_the_host(run: Any, host_bundle: Bundle) -> None:
    report = run("profile", host_bundle.path, "--samples", 3, "--json").json()
    assert report["unit"] == "microseconds" and report["microseconds"]["max"] > 0
    assert "instructions" not in report and report["link"] is None
    assert "microseconds per inference" in run("profile", host_bundle.path).out


def test_targets_and_boards(run: Any) -> None:
    targets = {t["name"]: t for t in run("targets", "--json").json()["targets"]}
    assert {"cpu", "cortex-m4"} <= set(targets) and "cortex-m" in targets["cortex-m4"]["aliases"]
    boards = {b["name"]: b for b in run("boards", "--json").json()["boards"]}
    assert boards["mps2-an386"]["target"] == "cortex-m4"
    assert "cortex-m4" in run("targets").out and "mps2-an386" in run("boards").out
