"""AMOS: the parallel form is the loop, forward bit for bit and backward to 1e-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgesnn.checkpoint import load_graph
from edgesnn.compiler import ir
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.data import load
from edgesnn.neurons.amos import Amos, amos_loop, amos_parallel
from edgesnn.neurons.surrogate import SURROGATES
from edgesnn.targets.errors import UsageError
from edgesnn.training.train import train


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 16, 33, 64])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_parallel_equals_loop(steps: int, forced: bool, name: str) -> None:
    random = torch.Generator().manual_seed(steps)
    for alpha, gain, width in ((0.5, 1.0, 1.0), (0.75, 0.25, 0.5), (1.0, 1.0, 2.0)):
        x = torch.randn(steps, 5, 7, generator=random, dtype=torch.float64)
        g = torch.randn(steps, 5, 7, generator=random, dtype=torch.float64)
        outs, grads = [], []
        for run in (amos_loop, amos_parallel):
            leaf = x.clone().requires_grad_()
            # "+ 0": forced at T = 1 the loop has no path to its input at all
            out = run(leaf, alpha, gain, 1.0, forced, name, width) + 0 * leaf
            out.backward(g)
            assert leaf.grad is not None
            outs.append(out.detach())
            grads.append(leaf.grad)
        assert torch.equal(outs[0], outs[1])
        assert outs[0].sum(0).max() <= 1
        if forced:
            assert torch.equal(outs[0].sum(0), torch.ones(5, 7, dtype=torch.float64))
        assert (grads[0] - grads[1]).abs().max() < 1e-10


def test_long_windows_stay_finite() -> None:
    """The paper's alpha^-t overflows float32 here."""
    x = torch.randn(256, 50, requires_grad=True)
    out = amos_parallel(x, 0.5)
    out.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert torch.equal(out, amos_loop(x.detach(), 0.5))


def test_modes_are_checked_and_agree() -> None:
    x = torch.randn(4, 6)
    assert torch.equal(Amos(mode="loop")(x), Amos(mode="parallel")(x))
    assert torch.equal(Amos()(x), Amos(mode="loop")(x))
    with pytest.raises(UsageError, match="auto, loop, parallel"):
        Amos(mode="fast")
    with pytest.raises(UsageError, match="triangle"):
        Amos(surrogate_name="cube")


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_surrogates_integrate_to_one(name: str) -> None:
    x = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    for width in (0.5, 1.0, 2.0):
        area = torch.trapezoid(SURROGATES[name](x, width), x)
        assert abs(float(area) - 1.0) < 2e-3


def test_a_trained_amos_net_spikes_at_most_once_and_keeps_its_accuracy(tmp_path: Path) -> None:
    report = train(
        "mcu-mlp",
        "digits",
        tmp_path / "net.pt",
        coding="amos",
        epochs=20,
        threads=1,
        progress=False,
    )
    assert report["coding"] == "amos" and report["accuracy"] > 0.9
    program = lower(load_graph(tmp_path / "net.pt"))
    hidden = program.node("hidden")
    assert isinstance(hidden, ir.Amos) and not hidden.forced
    engine, test = Interpreter(program), load("digits", "test")
    right = 0
    for x, y in zip(test.x[:120], test.y[:120], strict=True):
        trace = engine.trace(x)
        fired = np.concatenate([step[2] for step in trace.events])
        assert len(fired) == len(set(fired.tolist()))
        right += trace.decision.label == int(y)
    assert right / 120 > 0.88
