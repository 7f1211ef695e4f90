"""Training on the bundled digits: it learns, repeats itself, can be interrupted and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn.checkpoint import load_checkpoint, load_graph
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data import load
from edgesnn.data.augment import shifted
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training import run as running
from edgesnn.training import train as module
from edgesnn.training.evaluate_float import evaluate
from edgesnn.training.train import train


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
    again = SpikingNetwork(checkpoint.network)
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
    whole = running.Run._epoch

    def broken(self: Any, bar: Any) -> float:
        if self.epoch == epoch:
            raise KeyboardInterrupt
        return whole(self, bar)

    monkeypatch.setattr(running.Run, "_epoch", broken)


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


def interrupted_run(out: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, **changes: Any) -> str:
    """The message of a run that Ctrl-C ended in the given epoch."""
    with monkeypatch.context() as patch:
        interrupt_in(patch, epoch)
        with pytest.raises(EdgesnnError) as caught:
            run(out, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_older_net_stays_until_there_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.pt"
    run(out, epochs=2)
    old = out.read_bytes()
    kept = []
    epoch = running.Run._epoch

    def watched(self: Any, bar: Any) -> float:
        kept.append(out.read_bytes() == old)
        return epoch(self, bar)

    monkeypatch.setattr(running.Run, "_epoch", watched)
    assert "nothing was changed" in interrupted_run(out, monkeypatch, 0, seed=5)
    assert out.read_bytes() == old
    run(out, epochs=3, seed=5)
    assert kept == [True] * 3
    assert out.read_bytes() != old


def test_ctrl_c_leaves_the_best_net_of_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole.pt", epochs=2)
    best: list[dict[str, torch.Tensor]] = []
    save = running.Run._save

    def watched(self: Any) -> None:
        save(self)
        best.append(dict(self.best_state))

    monkeypatch.setattr(running.Run, "_save", watched)
    interrupted_run(tmp_path / "whole.pt", monkeypatch, 2, epochs=4, seed=9)
    found = load_checkpoint(tmp_path / "whole.pt").state
    assert len(best) == 2
    assert all(torch.equal(found[k], best[-1][k]) for k in found)


def test_an_interrupted_run_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, state = tmp_path / "net.pt", tmp_path / "net.pt.resume"
    interrupted_run(out, monkeypatch, 1, epochs=3)
    before = state.read_bytes()
    with pytest.raises(UsageError, match=r"--resume goes on; delete it") as caught:
        run(out, epochs=3)
    assert str(state) in str(caught.value)
    assert state.read_bytes() == before
    state.unlink()
    run(out, epochs=1)


@pytest.mark.parametrize("resume", [False, True])
def test_a_foreign_state_is_not_replaced(tmp_path: Path, resume: bool) -> None:
    state = tmp_path / "net.pt.resume"
    state.write_text("curriculum vitae")
    with pytest.raises(EdgesnnError, match="not a readable edgesnn training state"):
        run(tmp_path / "net.pt", epochs=1, resume=resume)
    assert state.read_text() == "curriculum vitae"
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt.resume"]


def test_ctrl_c_right_after_a_state_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = running.Run._save

    def broken(self: Any) -> None:
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running.Run, "_save", broken)
        with pytest.raises(EdgesnnError, match=r"after epoch 1 of 2.*--resume goes on"):
            run(tmp_path / "net.pt", epochs=2)
    load_graph(tmp_path / "net.pt")
    assert run(tmp_path / "net.pt", epochs=2, resume=True)["epochs"] == 2


def test_ctrl_c_in_the_final_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = running.save_checkpoint
    calls = []

    def broken(checkpoint: Any, path: Path) -> None:
        calls.append(checkpoint.report)
        if "accuracy" in checkpoint.report:
            raise KeyboardInterrupt
        save(checkpoint, path)

    whole = run(tmp_path / "whole.pt", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_checkpoint", broken)
        patch.setattr(running, "save_checkpoint", broken)
        with pytest.raises(EdgesnnError, match=r"after epoch 2 of 2.*--resume goes on"):
            run(tmp_path / "net.pt", epochs=2)
    assert len(calls) == 2
    report = run(tmp_path / "net.pt", epochs=2, resume=True)
    assert report["accuracy"] == whole["accuracy"]
    assert same_weights(tmp_path / "whole.pt", tmp_path / "net.pt")


@pytest.mark.parametrize("place", ["load", "Run"])
def test_ctrl_c_while_a_run_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, place, broken)
    with pytest.raises(EdgesnnError, match="nothing was changed"):
        run(tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


def other_best(table: dict[str, Any]) -> None:
    table["best_state"] = {}


def other_epoch(table: dict[str, Any]) -> None:
    table["epoch"] = 10**9


def not_finite(table: dict[str, Any]) -> None:
    table["best_state"]["linear.output.bias"][0] = float("nan")


def no_optimizer(table: dict[str, Any]) -> None:
    table["optimizer"] = 3


@pytest.mark.parametrize("alter", [other_best, other_epoch, not_finite, no_optimizer])
def test_an_altered_state_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alter: Callable[[dict[str, Any]], None]
) -> None:
    out, state = tmp_path / "net.pt", tmp_path / "net.pt.resume"
    interrupted_run(out, monkeypatch, 1, epochs=2)
    table = torch.load(state, weights_only=True)
    alter(table)
    torch.save(table, state)
    with pytest.raises(EdgesnnError, match=r"is damaged.*delete it") as caught:
        run(out, epochs=2, resume=True)
    assert "\n" not in str(caught.value)


def test_other_data_of_the_same_size_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = tmp_path / "mine.npz", tmp_path / "net.pt"

    def make(seed: int) -> None:
        rng = np.random.default_rng(seed)
        x, y = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
        np.savez(archive, x_train=x, y_train=y, x_test=x, y_test=y)

    make(0)
    interrupted_run(out, monkeypatch, 1, data=str(archive), epochs=2)
    make(1)
    with pytest.raises(UsageError, match="other samples"):
        run(out, data=str(archive), epochs=2, resume=True)
    make(0)
    run(out, data=str(archive), epochs=2, resume=True)


def test_weights_that_are_not_finite_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step

    def spoiled(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = step(self, *args, **kwargs)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("nan"))
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", spoiled)
    with pytest.raises(EdgesnnError, match="diverged in epoch 1"):
        run(tmp_path / "net.pt", epochs=1, batch=5000)
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
        ({"net": "gpt"}, "mcu-lenet"),
        ({"data": "cifar"}, "did you mean cifar10"),
        ({"coding": "morse"}, "latency"),
        ({"exit": "vote"}, "margin"),
        ({"encoder_grad": "none"}, "straight-through"),
        ({"epochs": 0}, "epochs"),
        ({"timesteps": 0}, "timesteps"),
        ({"batch": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"seed": -1}, "seed"),
        ({"val_fraction": 0.9}, "val-fraction"),
        ({"rate_penalty": -1.0}, "rate-penalty"),
        ({"threads": 0}, "threads"),
        ({"threads": 100_000}, "threads"),
        ({"threads": 1.5}, "threads"),
        ({"lr": 1e38}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"val_fraction": float("nan")}, "val-fraction"),
        ({"val_fraction": float("inf")}, "val-fraction"),
        ({"encoder_bias": float("nan")}, "encoder-bias"),
        ({"encoder_bias": float("-inf")}, "encoder-bias"),
        ({"early_penalty": float("nan")}, "early-penalty"),
        ({"out": Path(".")}, "folder"),
        ({"rate_penalty": "conv=much"}, "conv=0.1"),
        ({"stages": "1,2"}, "stages"),
        ({"stages": "4,x"}, "stages"),
        ({"stages": "1,2,3,4", "epochs": 3}, "at least 4 epochs"),
        ({"neuron": "if", "leak": 0.5}, "leak"),
        ({"neuron": "amos", "reset": "hard"}, "reset"),
        ({"exit": "rate", "output_leak": 0.5}, "output-leak"),
        ({"loss": "selector"}, "selector"),
        ({"encoder": "raw", "early_penalty": 1.0}, "raw"),
        ({"target_accuracy": 0.9, "target_steps": 2.0}, "not both"),
        ({"target_steps": 0.5}, "at least 1"),
        ({"weights": "int3"}, "int4"),
        ({"quantise_aware": "perhaps"}, "never"),
        ({"schedule": "step"}, "cosine"),
        ({"device": "tpu"}, "cuda"),
        ({"surrogate_width": 0.0}, "surrogate-width"),
        ({"amp": "yes"}, "amp"),
        ({"log_format": "xml", "log": "x"}, "tensorboard"),
        ({"speed": 3}, "no option 'speed'"),
    ],
)
def test_options_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any], message: str
) -> None:
    if "data" not in option:
        monkeypatch.setattr(module, "load", never)
    with pytest.raises(UsageError, match=message) as caught:
        run(**{"out": tmp_path / "net.pt", **option})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def never(*_: object) -> None:
    raise AssertionError("data was loaded, or a download begun, before the options were checked")


def test_a_place_that_cannot_be_written_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load", never)
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "net.pt", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(EdgesnnError, match="cannot write") as caught:
            run(out)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_folders_of_the_checkpoint_are_made(tmp_path: Path) -> None:
    run(tmp_path / "new" / "er" / "net.pt", epochs=1)
    assert [p.name for p in (tmp_path / "new" / "er").iterdir()] == ["net.pt"]


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
        net = SpikingNetwork(checkpoint.network)
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
