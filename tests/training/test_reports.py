"""Reports: counts against naive sums, integers against the interpreter, folders that are not lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesnn import api
from edgesnn.checkpoint import Checkpoint, save_checkpoint, to_graph
from edgesnn.cli import main
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.data import load
from edgesnn.networks.spec import LayerSpec, NetworkSpec, NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_spec
from edgesnn.reports.energy import E_AC, E_MAC, energy
from edgesnn.reports.measure import dense_macs, measure
from edgesnn.targets.errors import EdgesnnError, UsageError

RESIDUAL = NetworkSpec(
    "residual",
    (8, 8, 1),
    10,
    3,
    (
        LayerSpec("encode-conv", "a", out=4, kernel=3, padding=1, pool=2),
        LayerSpec("conv", "b", out=4, kernel=3, padding=1),
        LayerSpec("merge", "m", sources=("a", "b")),
        LayerSpec("avg-pool", "p", kernel=2, stride=2),
        LayerSpec("dense", "d", out=12),
        LayerSpec("output", "o", out=10),
    ),
)


def checkpoint_of(spec: NetworkSpec, kind: str = "first-spike", value: float = 0.4) -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = SpikingNetwork(spec).train()
        # Untrained nets are silent: with these norms they spike, and samples exit at different steps.
        for name, parameter in net.named_parameters():
            if name.startswith("norm.") and name.endswith(".weight"):
                parameter.data *= 2.0
        x = torch.from_numpy(load("digits", "train").x[:64]).permute(0, 3, 1, 2) / 16
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            net(x)
    state = {k: v.detach().clone() for k, v in net.state_dict().items()}
    names = tuple(str(n) for n in range(10))
    return Checkpoint(spec, state, 1 / 16, ReadoutSpec(kind, value), names, "digits", {})


@pytest.mark.parametrize("spec", [RESIDUAL, network_spec("mcu-lenet-s", (8, 8, 1), 10, 4)])
@pytest.mark.parametrize(("kind", "value"), [("first-spike", 0.3), ("margin", 0.1)])
def test_integer_figures_are_those_of_the_interpreter(
    spec: NetworkSpec, kind: str, value: float
) -> None:
    checkpoint, test = checkpoint_of(spec, kind, value), load("digits", "test")
    test = replace(test, x=test.x[:24], y=test.y[:24])
    found = measure(checkpoint, test, True, "int8")
    program = lower(to_graph(checkpoint))
    reference = Interpreter(program)
    decisions = [reference.infer(x) for x in test.x]
    steps = np.array([d.step for d in decisions])
    right = np.mean([d.label == y for d, y in zip(decisions, test.y, strict=True)])
    assert found["accuracy"] == right
    assert found["mean_timesteps"] == steps.mean() and len(set(steps)) > 1
    assert sum(found["timesteps_histogram"].values()) == 24
    assert found["sops_mean"] == pytest.approx(np.mean([sum(d.sops) for d in decisions]))
    at = {node.name: i for i, node in enumerate(program.nodes)}
    for row in found["per_layer"]:
        events = np.mean([d.events[at[row["name"]]] for d in decisions])
        if row["kind"] != "output":
            assert row["spikes_per_neuron"] * row["neurons"] == pytest.approx(events)
            assert sum(row["spikes_per_neuron_by_step"]) == pytest.approx(row["spikes_per_neuron"])
    confusion = np.array(found["confusion"])
    assert confusion.sum() == 24 and np.trace(confusion) == round(24 * right)


def test_float_figures_have_the_same_keys_and_count_spikes() -> None:
    checkpoint, test = checkpoint_of(RESIDUAL, value=1e5), load("digits", "test")
    test = replace(test, x=test.x[:20], y=test.y[:20])
    found, other = (measure(checkpoint, test, integer, "int8") for integer in (False, True))
    assert found.keys() == other.keys()
    net = SpikingNetwork(RESIDUAL)
    net.load_state_dict(checkpoint.state)
    net.eval()
    with torch.no_grad():
        act = net(torch.from_numpy(test.x).permute(0, 3, 1, 2) / 16)
    hidden = sum(float(s.sum()) for s in act.hidden.values())
    assert found["spikes_per_neuron"]["hidden"] == pytest.approx(hidden / 20 / (4 * 4 * 4 + 12))
    assert found["no_output_spike"] == 20 and found["mean_timesteps"] == 3.0
    # Without an exit eq. 17 is what it is normalised to.
    assert found["energy"]["normalised"]["TrueNorth"] == pytest.approx(1.0)


def test_float_counts_up_to_the_exit_are_those_of_a_naive_loop() -> None:
    checkpoint, test = checkpoint_of(RESIDUAL, value=0.3), load("digits", "test")
    test = replace(test, x=test.x[:20], y=test.y[:20])
    found = measure(checkpoint, test, False, "int8")
    net = SpikingNetwork(RESIDUAL)
    net.load_state_dict(checkpoint.state)
    net.eval()
    with torch.no_grad():
        act = net(torch.from_numpy(test.x).permute(0, 3, 1, 2) / 16)
    spikes = {"a": act.encoder, **act.hidden}
    counts, right, steps, sops = dict.fromkeys(spikes, 0.0), 0, [], 0.0
    for n in range(20):
        for t in range(3):
            for name, events in spikes.items():
                counts[name] += float(events[t, n].sum())
            # b: 3 x 3 windows of 4 channels inside a map of 4 x 4; d and o: dense.
            for _, y, x in act.encoder[t, n].nonzero().tolist():
                rows, columns = 3 - (y in (0, 3)), 3 - (x in (0, 3))
                sops += 4 * rows * columns
            merged = act.encoder[t, n] + act.hidden["b"][t, n]
            sops += 12 * float(merged.sum()) + 10 * float(act.hidden["d"][t, n].sum())
            if float(act.membranes[t, n].max()) >= 0.3 or t == 2:
                break
        steps.append(t + 1)
        right += int(act.membranes[t, n].argmax()) == int(test.y[n])
    assert len(set(steps)) > 1 and found["mean_timesteps"] == np.mean(steps)
    assert found["accuracy"] == right / 20 and found["sops_mean"] == pytest.approx(sops / 20)
    per_layer = {
        row["name"]: row["spikes_per_neuron"] * row["neurons"] for row in found["per_layer"]
    }
    for name, count in counts.items():
        assert count > 0 and per_layer[name] == pytest.approx(count / 20)


def test_multiply_accumulates_and_energy() -> None:
    macs = dense_macs(network_spec("mcu-lenet", (28, 28, 1), 10, 4))
    # The encoder's map before its pool: 28 x 28.
    assert macs == {"encoder": 313_600, "conv": 2_508_800, "dense": 200_704, "output": 1_280}
    found = energy(macs, "encoder", 1000.0, 1.0, 50.0, (4.0, 200.0))
    assert found["ann_pj"] == pytest.approx(E_MAC * 3_024_384)
    assert found["snn_pj"] == pytest.approx(E_MAC * 313_600 + E_AC * 1000)
    assert found["normalised"]["SpiNNaker"] == pytest.approx(0.25)


def test_a_report_is_written_whole_and_replaces_only_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = tmp_path / "m.pt", tmp_path / "r"
    history = [{"epoch": e, "loss": 1.0 / e, "val_accuracy": 0.5 + e / 10} for e in (1.0, 2.0)]
    save_checkpoint(replace(checkpoint_of(RESIDUAL), report={"history": history}), model)
    for _ in range(2):
        words = ["evaluate", str(model), "--data", "digits", "--samples", "40"]
        assert main([*words, "--report", str(folder), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        stored = json.loads((folder / "report.json").read_text())
        assert stored["forms"] == found["forms"] and len(found["forms"]) == 2
    pictures = {"tradeoff.png", "spikes.png", "difficulty.png", "training.png"}
    assert {p.name for p in folder.iterdir()} == pictures | {"report.json"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.pt", "r"]


@pytest.mark.parametrize("other", ["thesis.txt", "report.json"])
def test_a_folder_with_other_things_is_kept(tmp_path: Path, other: str) -> None:
    model, mine = tmp_path / "m.pt", tmp_path / "mine"
    save_checkpoint(checkpoint_of(RESIDUAL), model)
    api.evaluate(model, "digits", samples=20, form="float", report=mine)
    (mine / other).write_text('{"format": "edgesnn-report"}')  # of `profile`, say
    before = {p.name: p.read_bytes() for p in mine.iterdir()}
    with pytest.raises(UsageError, match="choose another --report"):
        api.evaluate(model, "digits", samples=20, form="float", report=mine)
    assert {p.name: p.read_bytes() for p in mine.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "r"):
        with pytest.raises(EdgesnnError):
            api.check_report(folder)


def test_a_net_of_more_classes_than_the_data(tmp_path: Path) -> None:
    model, test = checkpoint_of(RESIDUAL), load("digits", "test")
    few = test.y < 3
    data = replace(test, x=test.x[few], y=test.y[few], class_names=("0", "1", "2"))
    found = measure(model, data, False, "int8")
    confusion = np.array(found["confusion"])
    assert confusion.shape == (10, 10) and confusion[:3].sum() == few.sum()
    assert np.trace(confusion) == round(found["accuracy"] * few.sum())


@pytest.mark.parametrize(("kind", "value"), [("first-spike", 0.3), ("margin", 0.1)])
def test_programs_have_the_figures_of_their_checkpoint(
    tmp_path: Path, kind: str, value: float
) -> None:
    from edgesnn.compiler.esnn_file import save_program

    path, folder = tmp_path / "m.esnn", tmp_path / "r"
    save_program(lower(to_graph(checkpoint_of(RESIDUAL, kind, value))), path)
    found = api.evaluate(path, "digits", samples=16, report=folder)["forms"][0]
    test = load("digits", "test")
    exact = measure(
        checkpoint_of(RESIDUAL, kind, value),
        replace(test, x=test.x[:16], y=test.y[:16]),
        True,
        "int8",
    )
    assert found.keys() == exact.keys()
    same = set(exact) - {"form", "threshold", "per_layer", "curves", "difficulty", "energy"}
    assert {k: found[k] for k in same} == {k: exact[k] for k in same}
    assert found["energy"] == exact["energy"]
    for row, other in zip(found["per_layer"], exact["per_layer"], strict=True):
        assert {**row, "kind": ""} == {**other, "kind": ""}
    for name, points in exact["curves"].items():
        figures = [(p["accuracy"], p["mean_timesteps"]) for p in points]
        assert [(p["accuracy"], p["mean_timesteps"]) for p in found["curves"][name]] == figures
    assert (folder / "spikes.png").exists()
    with pytest.raises(UsageError, match="integers already"):
        api.evaluate(path, "digits", form="float")
    with pytest.raises(UsageError, match="at least 1"):
        api.evaluate(path, "digits", samples=0)


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize(("kind", "value"), [("first-spike", 0.3), ("margin", 0.1)])
def test_the_operating_point_lies_on_its_curve(kind: str, value: float, integer: bool) -> None:
    found = measure(checkpoint_of(RESIDUAL, kind, value), load("digits", "test"), integer, "int8")
    points = [(p["accuracy"], p["mean_timesteps"]) for p in found["curves"][kind]]
    assert (found["accuracy"], pytest.approx(found["mean_timesteps"])) in points
    assert set(found["curves"]) == {"first-spike", "margin"}


def test_psn_nets_have_floating_point_alone(tmp_path: Path) -> None:
    model = tmp_path / "m.pt"
    save_checkpoint(checkpoint_of(replace(RESIDUAL, neuron=NeuronSpec("psn"))), model)
    (form,) = api.evaluate(model, "digits", samples=20)["forms"]
    assert form["form"] == "float"
    with pytest.raises(UsageError, match="psn neurons"):
        api.evaluate(model, "digits", samples=20, form="integer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "at least 1"),
        ({"samples": 10**6}, "359 samples"),
        ({"form": "both of them"}, "unknown form"),
        ({"weights": "int9"}, "int9"),
    ],
)
def test_what_cannot_be_evaluated(tmp_path: Path, options: dict[str, object], message: str) -> None:
    model = tmp_path / "m.pt"
    save_checkpoint(checkpoint_of(RESIDUAL), model)
    with pytest.raises(EdgesnnError, match=message):
        api.evaluate(model, "digits", **options)  # type: ignore[arg-type]


def test_data_of_another_shape(tmp_path: Path) -> None:
    model, data = tmp_path / "m.pt", tmp_path / "d.npz"
    save_checkpoint(checkpoint_of(RESIDUAL), model)
    x = np.zeros((20, 9, 8), np.uint8)
    y = np.arange(20) % 10
    np.savez(data, x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(UsageError, match=r"9x8x1 samples.*takes uint8 8x8x1"):
        api.evaluate(model, str(data))
