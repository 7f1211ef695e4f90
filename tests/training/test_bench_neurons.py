"""The neuron benchmark's forms compute what they are compared for; no timing is asserted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from edgesnn.neurons.lif import lif

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_neurons.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_neurons", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROW_SECONDS", 0.0)
    return module


def test_every_form_is_timed_in_both_modes(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = bench.neuron_rows("cpu", [(2, 8), (256, 2**18)])  # the second one is too large
    assert [(row["mode"], row["T"], row["N"]) for row in rows] == [
        ("training", 2, 8),
        ("inference", 2, 8),
    ]
    for row in rows:
        assert bench.BASE in row["ms"] and len(row["ms"]) == 6
        assert min(row["ms"].values()) > 0.0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_autograd_baseline_is_the_same_neuron(bench: ModuleType) -> None:
    x = torch.randn(6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    grads = []
    for run in (lif, bench.lif_autograd):
        leaf = x.clone().requires_grad_()
        (run(leaf) * torch.arange(6.0)[:, None]).sum().backward()
        assert leaf.grad is not None
        grads.append(leaf.grad)
    assert torch.equal(lif(x), bench.lif_autograd(x))
    assert torch.allclose(*grads, atol=1e-12)
