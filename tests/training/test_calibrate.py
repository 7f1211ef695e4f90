"""Calibration: what is written is what was chosen, on held-out samples, float and integer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn import calibrate as module
from edgesnn.calibrate import calibrate, table_rows
from edgesnn.checkpoint import Checkpoint, load_checkpoint, load_graph, save_checkpoint
from edgesnn.coding.readout import decode
from edgesnn.compiler import ir
from edgesnn.compiler.esnn_file import load_program, save_program
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.data import load
from edgesnn.data.dataset import stratified_split
from edgesnn.networks.spec import LayerSpec, NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training import select
from edgesnn.training import train as training
from edgesnn.training.evaluate_float import output_membranes, samples_tensor

CLASSES = 5
FRACTION, SEED = 0.3, 7


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """8x8 samples of noisy bars, an .npz."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % CLASSES
    x = rng.integers(0, 160, (200, 8, 8), dtype=np.uint8)
    x[np.arange(200), y + 1] += 60
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    return str(path)


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint from a moment's training. Do not alter it."""
    out = tmp_path_factory.mktemp("net") / "bars.pt"
    training.train(
        "mcu-mlp",
        data,
        out,
        epochs=2,
        batch=16,
        seed=SEED,
        val_fraction=FRACTION,
        threads=1,
        progress=False,
    )
    return out


@pytest.fixture
def net(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained, tmp_path / "net.pt"))


@pytest.fixture
def program(trained: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.esnn"
    save_program(lower(load_graph(trained)), path)
    return path


@pytest.fixture
def selector(data: str, tmp_path: Path) -> Path:
    """An untrained net with one learned leak per class, without a report."""
    layers = (
        LayerSpec("encode-conv", "encoder", out=4, kernel=3),
        LayerSpec("dense", "hidden", out=16),
        LayerSpec("output", "output", out=CLASSES),
    )
    spec = NetworkSpec("bars", (8, 8, 1), CLASSES, 4, layers, learn_output_leak=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SpikingNetwork(spec)
    samples = load(data, "train")
    with torch.no_grad():
        net.output_leak_logit.copy_(torch.linspace(-2.0, 2.0, CLASSES))
        for _ in range(20):  # statistics of the batch norms
            net(samples_tensor(samples.x, samples.scale))
    path = tmp_path / "selector.pt"
    readout = ReadoutSpec("selector", 1.0)
    names = tuple(map(str, range(CLASSES)))
    save_checkpoint(
        Checkpoint(spec, dict(net.state_dict()), samples.scale, readout, names, data, {}), path
    )
    return path


def held_out(data: str) -> tuple[np.ndarray, np.ndarray]:
    train = load(data, "train")
    _, held = stratified_split(train.y, FRACTION, SEED)
    return train.x[held], train.y[held]


def figures(path: Path, data: str) -> tuple[float, float]:
    """(accuracy, mean steps) of a checkpoint as it stands, on what training held out."""
    checkpoint = load_checkpoint(path)
    net = SpikingNetwork(checkpoint.network)
    net.load_state_dict(checkpoint.state)
    x, y = held_out(data)
    membranes = output_membranes(net, x, checkpoint.scale, checkpoint.zero_point)
    out = decode(membranes, checkpoint.readout.kind, checkpoint.readout.value)
    return float((out.labels == y).mean()), float(out.steps.mean())


@pytest.mark.parametrize(
    "options", [{}, {"steps": 1.5}, {"accuracy": 0.5}, {"exit": "margin"}, {"accuracy": 1.0}]
)
def test_the_checkpoint_does_what_the_report_says(
    net: Path, trained: Path, data: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: list[str] = []

    def spied(name: str, split: str, data_dir: Any) -> Any:
        splits.append(split)
        return load(name, split, data_dir)

    monkeypatch.setattr(module, "load", spied)
    report = calibrate(net, data, **options)
    assert splits == ["train"]
    before, after = load_checkpoint(trained), load_checkpoint(net)
    assert after.readout == ReadoutSpec(report["exit"], report["value"])
    assert figures(net, data) == (report["accuracy"], report["mean_steps"])
    assert figures(trained, data) == (
        report["before"]["accuracy"],
        report["before"]["mean_steps"],
    )
    assert (report["samples"], report["held_out"]) == (len(held_out(data)[1]), True)
    assert all(torch.equal(before.state[k], after.state[k]) for k in before.state)
    assert replace(after, state={}, report={}) == replace(
        before, state={}, report={}, readout=after.readout
    )
    # What training measured on the test split holds only for the exit that it chose.
    assert ("mean_timesteps" in after.report) == (after.readout == before.readout)
    assert after.report["threshold"] == report["value"]
    assert after.report["seed"] == SEED and after.report["calibration"]["met"] == report["met"]
    steps = [c["mean_steps"] for c in report["front"]]
    accuracies = [c["accuracy"] for c in report["front"]]
    assert steps == sorted(set(steps)) and accuracies == sorted(set(accuracies))


def test_without_a_wish_it_is_training_s_own_choice(net: Path, data: str) -> None:
    chosen = load_checkpoint(net).readout
    assert calibrate(net, data)["value"] == chosen.value
    assert load_checkpoint(net).readout == chosen


@pytest.mark.parametrize("kind", ["first-spike", "margin"])
def test_the_program_does_what_the_report_says(
    program: Path, data: str, kind: str, tmp_path: Path
) -> None:
    out = tmp_path / "other.esnn"
    before = program.read_bytes()
    options = {"val_fraction": FRACTION, "seed": SEED}
    report = calibrate(program, data, steps=2.0, exit=kind, out=out, **options)
    assert program.read_bytes() == before and report["out"] == str(out)
    engine = Interpreter(load_program(out))
    assert isinstance(engine.program.readout, ir.Margin if kind == "margin" else ir.FirstSpike)
    x, y = held_out(data)
    decisions = [engine.infer(sample) for sample in x]
    assert report["samples"] == len(y)
    assert report["mean_steps"] == np.mean([d.step for d in decisions]) <= 2.0
    right = [d.label == label for d, label in zip(decisions, y, strict=True)]
    assert report["accuracy"] == np.mean(right)


def test_a_program_needs_no_torch(program: Path, data: str) -> None:
    code = "import sys; sys.modules['torch'] = None; from edgesnn.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["calibrate", str(program), "--data", data, "--samples", "20", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"samples": 20' in done.stdout and '"held_out": null' in done.stdout


def test_a_selector_in_float_and_in_integers(selector: Path, data: str, tmp_path: Path) -> None:
    report = calibrate(selector, data, steps=2.5, val_fraction=FRACTION, seed=SEED)
    assert (report["exit"], report["met"]) == ("selector", True)
    assert load_checkpoint(selector).readout == ReadoutSpec("selector", report["value"])
    program = tmp_path / "selector.esnn"
    save_program(lower(load_graph(selector)), program)
    assert len(set(load_program(program).output.leaks)) > 1
    options = {"val_fraction": FRACTION, "seed": SEED}
    integers = calibrate(program, data, exit="selector", steps=2.5, **options)
    assert (integers["arithmetic"], integers["exit"]) == ("integers", "selector")
    assert isinstance(load_program(program).readout, ir.FirstSpike)


def test_other_data_than_in_training_is_told(net: Path, data: str, tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    with np.load(data) as arrays:
        np.savez(
            other,
            **{**arrays, "x_train": arrays["x_train"][:90], "y_train": arrays["y_train"][:90]},
        )
    assert calibrate(net, str(other))["held_out"] is False


def test_the_table_has_about_a_dozen_rows_with_the_choice() -> None:
    front = [{"value": float(i)} for i in range(100)]
    values = [row["value"] for row in table_rows(front, 5.0)]
    assert values[0] == 0.0 and values[-1] == 99.0 and 5.0 in values and len(values) == 13
    assert table_rows(front[:3], 1.0) == front[:3]


def test_what_is_held_out_by_default_is_what_training_holds_out() -> None:
    assert training.default_val_fraction is select.default_val_fraction
    assert select.default_val_fraction(select.SMALL_SET - 1) == select.SMALL_VAL_FRACTION
    assert select.default_val_fraction(select.SMALL_SET) == select.VAL_FRACTION


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exit": "rate"}, "unknown exit"),
        ({"exit": "selector"}, "learned output leaks"),
        ({"accuracy": 0.9, "steps": 2.0}, "not both"),
        ({"seed": SEED + 1}, "leave --seed out"),
        ({"val_fraction": 0.1}, "leave --val-fraction out"),
        ({"val_fraction": 0.7}, r"\(0, 0.5\]"),
        ({"seed": -1}, "whole number"),
        ({"samples": 0}, "at least 1"),
        ({"out": Path("net.esnn")}, "is one, too"),
    ],
)
def test_senseless_options(net: Path, data: str, options: dict[str, Any], message: str) -> None:
    before = net.read_bytes()
    with pytest.raises(UsageError, match=message):
        calibrate(net, data, **options)
    assert net.read_bytes() == before


def test_files_that_cannot_be_used(net: Path, program: Path, data: str, tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match="no model"):
        calibrate(tmp_path / "none.pt", data)
    with pytest.raises(UsageError, match="neither"):
        calibrate(tmp_path, data)
    foreign = tmp_path / "foreign.pt"
    foreign.write_bytes(b"mine")
    with pytest.raises(EdgesnnError, match="move it away"):
        calibrate(net, data, out=foreign)
    assert foreign.read_bytes() == b"mine"
    checkpoint = load_checkpoint(net)
    name = "linear.output.bias"
    huge = {**checkpoint.state, name: torch.full((CLASSES,), 3e38)}
    save_checkpoint(replace(checkpoint, state=huge), net)
    with pytest.raises(EdgesnnError, match="not finite"):
        calibrate(net, data)
    with pytest.raises(UsageError, match="takes uint8 8x8x1"):
        wide = tmp_path / "wide.npz"
        x, y = np.zeros((4, 9, 9), np.uint8), np.array([0, 1, 0, 1])
        np.savez(wide, x_train=x, y_train=y, x_test=x, y_test=y)
        calibrate(net, str(wide))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("seed", float("nan")),
        ("val_fraction", float("nan")),
        ("val_fraction", 5.0),
    ],
)
def test_a_report_whose_split_makes_no_sense(net: Path, data: str, name: str, value: float) -> None:
    checkpoint = load_checkpoint(net)
    save_checkpoint(replace(checkpoint, report={**checkpoint.report, name: value}), net)
    with pytest.raises(EdgesnnError, match=f"damaged checkpoint: report.{name}"):
        calibrate(net, data)


def test_a_rate_readout_has_nothing_to_choose(trained: Path, data: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained)
    spec = replace(checkpoint.network, output_leak=1.0)
    rate = tmp_path / "rate.pt"
    save_checkpoint(replace(checkpoint, network=spec, readout=ReadoutSpec("rate", 0.0)), rate)
    program = tmp_path / "rate.esnn"
    save_program(lower(load_graph(rate)), program)
    for path in (rate, program):
        with pytest.raises(UsageError, match="rate readout"):
            calibrate(path, data)
