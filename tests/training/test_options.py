"""Codings, schedules, stages, operating points, weight formats and logs of training, on the bundled digits."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from edgesnn.checkpoint import load_checkpoint, load_graph
from edgesnn.networks.kind import Recipe
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.logs import COLUMNS
from edgesnn.training.options import choose
from edgesnn.training.schedule import Stages, learning_rate
from edgesnn.training.train import train

RECIPE = Recipe(epochs=4, rate_penalty=0.02, early_penalty=0.1, encoder_bias=-0.5)


def run(out: Path, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"epochs": 2, "threads": 1, "progress": False}
    return train("mcu-mlp", "digits", out, **{**given, **changes})


@pytest.mark.parametrize(
    "options",
    [
        {"coding": "rate", "epochs": 4},
        {"coding": "direct", "timesteps": 1, "epochs": 4},
        {"coding": "amos", "exit": "selector", "epochs": 3},
        {"encoder": "raw", "neuron": "if", "loss": "tet"},
        {"neuron": "psn", "exit": "margin"},
        {"paper_literal": True, "coding": "amos"},
        {"learn_leak": True, "reset": "hard", "surrogate": "atan", "loss_on": "current"},
        {"amp": True, "schedule": "cosine", "label_smoothing": 0.1, "attach": True},
        {"rate_penalty": "hidden=0.1", "augment": "none", "quantise_aware": "never"},
        {"weights": "ternary", "quantise_aware": "always", "qat_epochs": 1},
    ],
)
def test_every_kind_of_run_ends_in_a_checkpoint(tmp_path: Path, options: dict[str, Any]) -> None:
    report = run(tmp_path / "net.pt", **options)
    found = load_checkpoint(tmp_path / "net.pt")
    given = {k: v for k, v in options.items() if k not in ("rate_penalty",)}
    assert {k: report[k] for k in given} == given
    assert found.readout.kind == report["exit"]
    assert (report["integer"] is None) == (report["neuron"] == "psn")
    if report["integer"] is not None:
        assert load_graph(tmp_path / "net.pt").timesteps == report["timesteps"]
        assert 0.0 <= report["integer"]["accuracy"] <= 1.0
        assert report["integer"]["quantise_aware"] == (not found.network.norm)


def test_presets_give_way_to_what_is_given() -> None:
    rate = choose("n", "d", RECIPE, {"coding": "rate"})
    assert (rate.encoder, rate.exit, rate.output_leak, rate.loss) == (
        "direct",
        "rate",
        1.0,
        "mean-ce",
    )
    assert choose("n", "d", RECIPE, {"coding": "rate", "loss": "tet"}).loss == "tet"
    assert choose("n", "d", RECIPE, {"coding": "amos", "exit": "selector"}).stages == "1,2,4"
    assert choose("n", "d", RECIPE, {"coding": "amos"}).stages == ""
    literal = choose("n", "d", RECIPE, {"paper_literal": True, "coding": "amos"})
    assert (literal.forced, literal.loss_on, literal.rate_penalty) == (True, "current", 0.0)
    assert not choose(
        "n", "d", RECIPE, {"paper_literal": True, "coding": "amos", "forced": False}
    ).forced
    assert choose("n", "d", RECIPE, {"rate_penalty": "a=1,b=2"}).rate_penalty == {"a": 1, "b": 2}
    assert choose("n", "d", RECIPE, {}).rate_penalty == RECIPE.rate_penalty


def test_penalties_name_layers_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has hidden"):
        run(tmp_path / "net.pt", rate_penalty={"conv": 1.0})


def test_stages_split_the_epochs() -> None:
    stages = Stages.of("1,2,4", 4, 7)
    assert [stages.at(e) for e in range(7)] == [1, 1, 1, 2, 2, 4, 4]
    assert [e for e in range(7) if stages.last(e)] == [5, 6]
    assert [Stages.doubling(t) for t in (1, 2, 4, 5)] == ["1", "1,2", "1,2,4", "1,2,4,5"]


def test_a_cosine_rises_in_a_line_and_falls_to_nothing() -> None:
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = learning_rate(optimizer, "cosine", 1.0, 100, 0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_a_wanted_operating_point(tmp_path: Path) -> None:
    fast = run(tmp_path / "a.pt", epochs=4, target_steps=1.3)
    assert fast["target_met"] and fast["mean_timesteps"] < 1.6
    assert not run(tmp_path / "b.pt", target_accuracy=1.0)["target_met"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as f:
        return list(csv.DictReader(f))


def test_the_log_has_a_row_for_every_epoch(tmp_path: Path) -> None:
    report = run(tmp_path / "net.pt", epochs=3, log=tmp_path / "log")
    found = rows(tmp_path / "log" / "net.csv")
    assert [row["epoch"] for row in found] == ["1", "2", "3"]
    assert tuple(found[0]) == COLUMNS
    best = found[report["best_epoch"] - 1]
    assert float(best["val_accuracy"]) == pytest.approx(report["val_accuracy"], abs=1e-5)


def test_a_file_that_is_no_log_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "net.csv").write_text("my,table\n")
    with pytest.raises(EdgesnnError, match="no log of ours"):
        run(tmp_path / "net.pt", log=tmp_path)
    assert (tmp_path / "net.csv").read_text() == "my,table\n"


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path / "net.pt", log=tmp_path / "log", log_format="tensorboard")
    assert [p for p in (tmp_path / "log" / "net").iterdir() if "tfevents" in p.name]


def same_weights(a: Path, b: Path) -> bool:
    left, right = load_checkpoint(a).state, load_checkpoint(b).state
    return set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_killed_at_any_moment_and_resumed_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL at several moments of a run, then --resume until it is done."""
    run(tmp_path / "whole.pt", epochs=12, coding="amos", exit="selector")
    out, state = tmp_path / "net.pt", tmp_path / "net.pt.resume"
    words = [sys.executable, "-m", "edgesnn", "train", "--net", "mcu-mlp", "--data", "digits"]
    words += ["--epochs", "12", "--coding", "amos", "--exit", "selector", "--threads", "1"]
    words += ["--out", str(out), "--log", str(tmp_path), "--report", "none"]
    for name in (".net.pt.resume.abcd_123", ".net.csv.abcd_123"):
        (tmp_path / name).write_text("left by a killed write")
    seen, kills = -1, 0
    for delay in (0.0, 0.02, 0.05, 0.09, 60.0):
        resume = ["--resume"] if state.exists() else []
        process = subprocess.Popen([*words, *resume], stderr=subprocess.DEVNULL, stdout=-3)
        while process.poll() is None and delay < 60.0:  # after the next state has been written
            now = state.stat().st_mtime_ns if state.exists() else seen
            if now != seen:
                time.sleep(delay)
                break
            time.sleep(0.002)
        if delay < 60.0:
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            assert process.wait() in (0, 1 if out.exists() else 0)
        seen = state.stat().st_mtime_ns if state.exists() else -1
        if out.exists() and not state.exists():
            break
    assert kills > 0
    assert same_weights(tmp_path / "whole.pt", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.csv", "net.pt", "whole.pt"]
    assert [row["epoch"] for row in rows(tmp_path / "net.csv")] == [str(e) for e in range(1, 13)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no processes")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The same batches: equal within float32 rounding until a spike flips, near each other after that."""
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    run(one, epochs=1, log=tmp_path, quantise_aware="never")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "2", "-m", "--", "edgesnn"]
    words = ["train", "--net", "mcu-mlp", "--data", "digits", "--epochs", "1", "--threads", "1"]
    words += ["--quantise-aware", "never", "--log", str(tmp_path), "--out", str(two)]
    done = subprocess.run(
        [*launcher, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept epoch") == 1
    left, right = rows(tmp_path / "one.csv"), rows(tmp_path / "two.csv")
    assert float(right[0]["loss"]) == pytest.approx(float(left[0]["loss"]), rel=2e-3)
    a, b = load_checkpoint(one).state, load_checkpoint(two).state
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0.0, atol=0.02, msg=name)
    failed = subprocess.run([*launcher, "train", "--net", "mcu-mlp", "--data", "x"], **CAPTURED)
    assert failed.returncode != 0
    assert failed.stderr.count("edgesnn: error:") == 1


CAPTURED: dict[str, Any] = {"capture_output": True, "text": True}


def test_decay_does_not_pull_at_learned_leaks() -> None:
    from edgesnn.networks.spec import NeuronSpec
    from edgesnn.networks.spiking import SpikingNetwork
    from edgesnn.networks.zoo import network_spec
    from edgesnn.training.run import _groups

    plain = SpikingNetwork(network_spec("mcu-mlp", (8, 8, 1), 10, 4))
    assert [len(group) for group in _groups(plain)] == [1]
    neuron = NeuronSpec(learn_leak=True)
    learned = SpikingNetwork(network_spec("mcu-mlp", (8, 8, 1), 10, 4, neuron))
    rest, leaks = _groups(learned)
    assert leaks["weight_decay"] == 0.0 and len(leaks["params"]) == 1
    assert len(rest["params"]) + 1 == len(list(learned.parameters()))
