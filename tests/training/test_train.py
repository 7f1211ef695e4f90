"""Training on the bundled digits: it learns, repeats itself, can be interrupted and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn.checkpoint import load_checkpoint, load_graph
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data import load
from edgesnn.networks.latency import LatencyNetwork
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training import train as module
from edgesnn.training.evaluate_float import evaluate
from edgesnn.training.train import shifted, train


def run(out: Path, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "net": "mcu-mlp",
        "data": "digits",
        "out": out,
        "epochs": 12,
        "threads": 1,
        "progress": False,
    }
    return train(**{**options, **changes})


def same_weights(a: Path, b: Path) -> bool:
    left, right = load_checkpoint(a).state, load_checkpoint(b).state
    return set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("net", ["mcu-mlp", "mcu-lenet-s", "mcu-lenet"])
def test_a_few_epochs_reach_a_real_accuracy(net: str, tmp_path: Path) -> None:
    out = tmp_path / "net.pt"
    report = run(out, net=net)
    assert report["accuracy"] > 0.9
    assert report["val_accuracy"] > 0.9
    assert 1.0 <= report["mean_timesteps"] <= 4.0
    assert report["samples"] == 359
    assert 0.0 < report["spikes_per_neuron"]["hidden"] < 1.0
    json.dumps(report)
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]
    # The file alone gives the reported figures again.
    checkpoint = load_checkpoint(out)
    again = LatencyNetwork(checkpoint.network)
    again.load_state_dict(checkpoint.state)
    measured = evaluate(again, load("digits", "test"), checkpoint.readout)
    assert {k: report[k] for k in measured} == measured
    assert load_graph(out).readout.value == report["threshold"]


def test_the_seed_decides(tmp_path: Path) -> None:
    first = run(tmp_path / "a.pt", epochs=3)
    again = run(tmp_path / "b.pt", epochs=3)
    other = run(tmp_path / "c.pt", epochs=3, seed=1)
    assert same_weights(tmp_path / "a.pt", tmp_path / "b.pt")
    assert not same_weights(tmp_path / "a.pt", tmp_path / "c.pt")
    for report in (first, again, other):
        del report["seconds"], report["out"]
    assert first == again


def interrupt_in(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C during the given epoch (0 is the first)."""
    whole = module._Run._epoch

    def broken(self: Any, bar: Any) -> float:
        if self.epoch == epoch:
            raise KeyboardInterrupt
        return whole(self, bar)

    monkeypatch.setattr(module._Run, "_epoch", broken)


def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    expected = run(whole, epochs=5, exit="margin")
    with monkeypatch.context() as patch:
        interrupt_in(patch, 3)
        with pytest.raises(EdgesnnError, match=r"after epoch 3 of 5.*--resume"):
            run(parts, epochs=5, exit="margin")
    assert load_graph(parts).readout.kind == "margin"  # the last good net is there and complete
    with pytest.raises(UsageError, match="seed 0, not 4"):
        run(parts, epochs=5, exit="margin", seed=4, resume=True)
    found = run(parts, epochs=5, exit="margin", resume=True)
    assert same_weights(whole, parts)
    for report in (expected, found):
        del report["seconds"], report["out"]
    assert found == expected
    with pytest.raises(EdgesnnError, match="nothing to resume"):
        run(parts, epochs=5, exit="margin", resume=True)


def test_interrupted_before_anything_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in(monkeypatch, 0)
    with pytest.raises(EdgesnnError, match="nothing was changed"):
        run(tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_in(patch, 1)
        with pytest.raises(EdgesnnError):
            run(tmp_path / "net.pt", epochs=2)
    state = tmp_path / "net.pt.resume"
    table = torch.load(state, weights_only=True)
    torch.save({**table, "net": {}}, state)
    with pytest.raises(EdgesnnError, match="start again") as caught:
        run(tmp_path / "net.pt", epochs=2, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"net": "resnet"}, "mcu-lenet"),
        ({"data": "cifar"}, "digits"),
        ({"coding": "rate"}, "latency"),
        ({"exit": "vote"}, "margin"),
        ({"encoder_grad": "none"}, "straight-through"),
        ({"epochs": 0}, "epochs"),
        ({"timesteps": 1}, "timesteps"),
        ({"batch": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"seed": -1}, "seed"),
        ({"val_fraction": 0.9}, "val-fraction"),
        ({"rate_penalty": -1.0}, "rate-penalty"),
        ({"threads": 0}, "threads"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "net.pt", **option)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "thesis.pt"
    out.write_text("ten years of work")
    with pytest.raises(EdgesnnError, match="not an edgesnn checkpoint"):
        run(out)
    assert out.read_text() == "ten years of work"


def test_shifts_move_whole_samples() -> None:
    x = torch.zeros(200, 1, 6, 6, dtype=torch.uint8)
    x[:, 0, 3, 2] = 9
    moved = shifted(x, 2, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    places = {tuple(p) for p in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(3 + dy, 2 + dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert int(moved.sum()) == 200 * 9


def test_penalties_make_spikes_rarer(tmp_path: Path) -> None:
    def measure(name: str, **options: float) -> tuple[float, float]:
        """Hidden spikes per neuron in all four steps; operations of the first step alone."""
        run(tmp_path / name, **options)
        checkpoint = load_checkpoint(tmp_path / name)
        net = LatencyNetwork(checkpoint.network)
        net.load_state_dict(checkpoint.state)
        whole, first = (
            evaluate(net, load("digits", "test"), ReadoutSpec("first-spike", v))
            for v in (1e9, -1e9)
        )
        return whole["spikes_per_neuron"]["hidden"], first["sops_mean"]

    free = measure("a.pt", rate_penalty=0, early_penalty=0, encoder_bias=0)
    rare = measure("b.pt", rate_penalty=0.2, early_penalty=0, encoder_bias=0)
    late = measure("c.pt", rate_penalty=0, early_penalty=0.5, encoder_bias=-1)
    assert rare[0] < free[0]
    assert late[1] < free[1]


def test_straight_through_and_other_lengths_train(tmp_path: Path) -> None:
    report = run(tmp_path / "net.pt", encoder_grad="straight-through", timesteps=3)
    assert report["accuracy"] > 0.8
    assert np.sum(report["timesteps_histogram"]) == 359
    assert len(report["timesteps_histogram"]) == 3
