"""What a training run may look at, and when; which epoch it keeps; how its steps are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn.checkpoint import load_checkpoint
from edgesnn.data import load
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import NETWORKS, network_spec
from edgesnn.training import objective, options
from edgesnn.training import run as running
from edgesnn.training import train as module
from edgesnn.training.select import Chosen
from edgesnn.training.train import train


def run(out: Path, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"epochs": 3, "threads": 1, "progress": False}
    return train("mcu-mlp", "digits", out, **{**given, **changes})


def samples_of(x: np.ndarray) -> list[bytes]:
    """One value for each raw sample; the digits are all different."""
    return [sample.tobytes() for sample in x]


def test_no_sample_is_used_for_two_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample that goes through the network, in order, by what the network did with it."""
    seen: list[tuple[bool, list[bytes]]] = []
    forward = SpikingNetwork.forward

    def spied(self: SpikingNetwork, samples: torch.Tensor) -> Any:
        raw = (samples * 16).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        seen.append((self.training, samples_of(raw)))
        return forward(self, samples)

    monkeypatch.setattr(SpikingNetwork, "forward", spied)
    report = run(tmp_path / "net.pt")
    known = samples_of(load("digits", "train").x)
    test = samples_of(load("digits", "test").x)
    last = max(i for i, (training, _) in enumerate(seen) if training)
    trained = {s for training, batch in seen if training for s in batch}
    looked = [s for training, batch in seen if not training for s in batch]
    validation = set(known) - trained
    assert 0 < len(validation) == report["val_samples"]
    assert len(trained) == report["train_samples"] == len(known) - len(validation)
    # Validation once an epoch, then every test sample once, after the last step of training.
    assert sorted(looked) == sorted(3 * list(validation) + test)
    assert [s for _, batch in seen for s in batch if s in set(test)] == test
    after = [s for _, batch in seen[last + 1 :] for s in batch]
    assert after[-len(test) :] == test
    assert set(after[: -len(test)]) == validation


def test_the_labels_of_test_decide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "a.pt")

    def other_labels(name: str, split: str, *rest: Any) -> Any:
        data = load(name, split, *rest)
        if split == "test":
            data.y[:] = (data.y + 1) % 10
        return data

    monkeypatch.setattr(module, "load", other_labels)
    second = run(tmp_path / "b.pt")
    a, b = load_checkpoint(tmp_path / "a.pt"), load_checkpoint(tmp_path / "b.pt")
    assert all(torch.equal(a.state[k], b.state[k]) for k in a.state)
    assert (a.readout, first["best_epoch"]) == (b.readout, second["best_epoch"])
    assert first["accuracy"] != second["accuracy"]


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.9, 0.7, 0.6], [4.0, 3.0, 2.0, 1.0], 2),
        ([0.9, 0.2, 0.3, 0.4], [4.0, 3.0, 2.0, 1.0], 1),
        ([0.5, 0.6, 0.7, 0.8], [1.0, 2.0, 3.0, 4.0], 4),
        ([0.5, 0.9, 0.9, 0.9], [4.0, 2.0, 1.0, 3.0], 3),
    ],
)
def test_the_best_epoch_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accuracies: list[float],
    losses: list[float],
    best: int,
) -> None:
    """By validation accuracy, equal ones by validation loss; its weights and its exit."""
    states: list[dict[str, torch.Tensor]] = []
    tad = objective.tad_loss

    def loss(membranes: torch.Tensor, y: torch.Tensor, **kept: Any) -> torch.Tensor:
        return (
            tad(membranes, y, **kept)
            if membranes.requires_grad
            else torch.tensor(losses[len(states)])
        )

    def select(*_: object, **__: object) -> Chosen:
        epoch = len(states)
        return Chosen(1.0 + epoch, accuracies[epoch], 1.0)

    validate = running.Run._validate

    def validated(self: Any, outputs: Any) -> Chosen:
        chosen = validate(self, outputs)
        states.append({k: v.clone() for k, v in self.net.state_dict().items()})
        return chosen

    monkeypatch.setattr(objective, "tad_loss", loss)
    monkeypatch.setattr(running, "select_exit", select)
    monkeypatch.setattr(running.Run, "_validate", validated)
    report = run(tmp_path / "net.pt", epochs=4, quantise_aware="never")
    found = load_checkpoint(tmp_path / "net.pt")
    assert (report["best_epoch"], report["val_accuracy"]) == (best, accuracies[best - 1])
    assert found.readout.value == float(best)
    assert all(torch.equal(found.state[k], states[best - 1][k]) for k in found.state)
    assert not torch.equal(states[0]["linear.output.weight"], states[1]["linear.output.weight"])


def watch_steps(monkeypatch: pytest.MonkeyPatch, look: Callable[[Any], float]) -> list[float]:
    """`look` at the optimiser just before each of its steps."""
    found: list[float] = []
    step = torch.optim.AdamW.step

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(look(self))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    return found


def test_the_learning_rate_goes_up_and_down_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OneCycle: lr/25 to lr in the first 15 % of the steps, then down to lr/250000; cosines."""
    rates = watch_steps(monkeypatch, lambda optimizer: optimizer.param_groups[0]["lr"])
    peak = 4e-3
    run(tmp_path / "net.pt", lr=peak)
    steps = 3 * (1222 // 100)
    assert len(rates) == steps
    top = 0.15 * (steps + 1) - 1
    low, end = peak / 25, peak / 25 / 1e4

    def cosine(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))

    expected = [
        cosine(low, peak, i / top) if i <= top else cosine(peak, end, (i - top) / (steps - top))
        for i in range(steps)
    ]
    assert rates == pytest.approx(expected, rel=1e-9)
    assert rates[0] == pytest.approx(low)
    assert max(rates) == pytest.approx(peak, rel=0.01)
    assert rates[-1] < peak / 100


def test_gradients_are_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def norm(optimizer: Any) -> float:
        grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        return float(torch.stack([g.norm() for g in grads]).norm())

    tad = objective.tad_loss
    monkeypatch.setattr(objective, "tad_loss", lambda u, y, **k: 1e4 * tad(u, y, **k))
    norms = watch_steps(monkeypatch, norm)
    run(tmp_path / "net.pt", epochs=1)
    assert norms == pytest.approx([options.CLIP] * len(norms), rel=1e-3)


@pytest.mark.parametrize("net", [n for n in NETWORKS if n != "mcu-events"])
def test_initial_batch_norms(net: str) -> None:
    """Half a threshold per current in spiking layers; the encoder starts at the bias it is given."""
    spec = network_spec(net, (8, 8, 1), 10, 4)
    norms = dict(SpikingNetwork(spec, encoder_bias=-0.75).norm.items())
    encoder = norms.pop("encoder")
    assert (set(encoder.weight.tolist()), set(encoder.bias.tolist())) == ({1.0}, {-0.75})
    assert norms
    for norm in norms.values():
        assert (set(norm.weight.tolist()), set(norm.bias.tolist())) == ({0.5}, {0.0})


@pytest.mark.parametrize("bias", [None, 0.25])
def test_a_run_starts_with_its_encoder_bias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bias: float | None
) -> None:
    found: list[set[float]] = []
    fit = running.Run.fit

    def spied(self: Any, show: bool) -> None:
        found.append(set(self.net.norm["encoder"].bias.tolist()))
        fit(self, show)

    monkeypatch.setattr(running.Run, "fit", spied)
    run(tmp_path / "net.pt", epochs=1, encoder_bias=bias)
    assert found == [{NETWORKS["mcu-mlp"].recipe.encoder_bias if bias is None else bias}]
