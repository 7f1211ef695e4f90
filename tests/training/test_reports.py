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
from edgesnn.networks.spec import LayerSpec, NetworkSpec
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
        for _ in range(3):
            net(torch.rand(16, 1, 8, 8))
    state = {k: v.detach().clone() for k, v in net.state_dict().items()}
    names = tuple(str(n) for n in range(10))
    return Checkpoint(spec, state, 1 / 16, ReadoutSpec(kind, value), names, "digits", {})


@pytest.mark.parametrize("spec", [RESIDUAL, network_spec("mcu-lenet-s", (8, 8, 1), 10, 4)])
@pytest.mark.parametrize("kind", ["first-spike", "margin"])
def test_integer_figures_are_those_of_the_interpreter(spec: NetworkSpec, kind: str) -> None:
    checkpoint, test = checkpoint_of(spec, kind, 0.3), load("digits", "test")
    test = replace(test, x=test.x[:24], y=test.y[:24])
    found = measure(checkpoint, test, True, "int8")
    program = lower(to_graph(checkpoint))
    reference = Interpreter(program)
    decisions = [reference.infer(x) for x in test.x]
    steps = np.array([d.step for d in decisions])
    right = np.mean([d.label == y for d, y in zip(decisions, test.y, strict=True)])
    assert found["accuracy"] == right
    assert found["mean_timesteps"] == steps.mean()
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


def test_programs_run_in_the_interpreter(tmp_path: Path) -> None:
    from edgesnn.compiler.esnn_file import save_program

    path = tmp_path / "m.esnn"
    save_program(lower(to_graph(checkpoint_of(RESIDUAL))), path)
    found = api.evaluate(path, "digits", samples=16)
    exact = measure_first(16)
    for key in ("accuracy", "mean_timesteps", "sops_mean"):
        assert found["forms"][0][key] == pytest.approx(exact[key])
    with pytest.raises(UsageError, match="integers already"):
        api.evaluate(path, "digits", form="float")


def measure_first(count: int) -> dict[str, float]:
    test = load("digits", "test")
    part = replace(test, x=test.x[:count], y=test.y[:count])
    return measure(checkpoint_of(RESIDUAL), part, True, "int8")


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
