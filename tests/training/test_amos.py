"""AMOS: both forms are the loop, forward bit for bit and backward to 1e-10, learned leaks included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgesnn.checkpoint import load_graph
from edgesnn.compiler import ir
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.data import load
from edgesnn.neurons.amos import Amos, amos, amos_loop
from edgesnn.neurons.leak import shift_representable
from edgesnn.neurons.surrogate import SURROGATES
from edgesnn.targets.errors import UsageError
from edgesnn.training.train import train


def loop_node(*args: Any) -> Tensor:
    return amos(*args, parallel=False)


def products(*args: Any) -> Tensor:
    return amos(*args, parallel=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 16, 33, 64])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_both_forms_equal_the_loop_that_autograd_differentiates(
    steps: int, forced: bool, name: str
) -> None:
    random = torch.Generator().manual_seed(steps)
    for alpha, gain, width in ((0.5, 1.0, 1.0), (0.75, 0.25, 0.5), (1.0, 1.0, 2.0)):
        x = torch.randn(steps, 5, 7, generator=random, dtype=torch.float64)
        g = torch.randn(steps, 5, 7, generator=random, dtype=torch.float64)
        outs, grads = [], []
        for run in (amos_loop, loop_node, products):
            for learned in (False, True):
                leaf = x.clone().requires_grad_()
                leak = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
                out = run(leaf, leak if learned else alpha, gain, 1.0, forced, name, width)
                # "+ 0": forced at T = 1 the loop has no path to its input at all
                (out + 0 * leaf + 0 * leak).backward(g)
                assert leaf.grad is not None and leak.grad is not None
                outs.append(out.detach())
                grads.append((leaf.grad, leak.grad if learned else None))
        assert outs[0].sum(0).max() <= 1
        if forced:
            assert torch.equal(outs[0].sum(0), torch.ones(5, 7, dtype=torch.float64))
        for out, (by_x, by_leak) in zip(outs[1:], grads[1:], strict=True):
            assert torch.equal(out, outs[0])
            assert (by_x - grads[0][0]).abs().max() < 1e-10
            if by_leak is not None:
                assert grads[1][1] is not None and (by_leak - grads[1][1]).abs() < 1e-10


@pytest.mark.parametrize("run", [loop_node, products])
def test_long_windows_stay_finite(run: Callable[..., Tensor]) -> None:
    """The paper's alpha^-t overflows float32 here."""
    x = torch.randn(256, 50, generator=torch.Generator().manual_seed(0), requires_grad=True)
    leak = torch.tensor(0.5, requires_grad=True)
    out = run(x, leak)
    (out * torch.linspace(1, 2, 256)[:, None]).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and float(x.grad.abs().sum()) > 0.0
    assert leak.grad is not None and torch.isfinite(leak.grad)
    assert torch.equal(out, amos_loop(x.detach(), 0.5))


def test_modes_are_checked_and_agree() -> None:
    for shape in ((4, 6), (2, 6), (4, 5000), (300, 2000)):
        x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        assert torch.equal(Amos(mode="loop")(x), Amos(mode="parallel")(x))
        assert torch.equal(Amos()(x), Amos(mode="loop")(x))
    with pytest.raises(UsageError, match="auto, loop, parallel"):
        Amos(mode="fast")
    with pytest.raises(UsageError, match="triangle"):
        Amos(surrogate_name="cube")


@pytest.mark.parametrize("mode", ["loop", "parallel"])
def test_a_node_keeps_its_membranes_only_and_their_layout(mode: str) -> None:
    kept: list[int] = []
    x = torch.randn(4 * 3, 6, 2, 5).contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (4, 3)).requires_grad_()

    def pack(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        spikes = Amos(mode=mode)(x)
    assert kept == [x.numel()]
    assert spikes.stride() == x.stride()
    plain = x.detach().contiguous().requires_grad_()
    weights = torch.randn(x.shape)
    for leaf in (x, plain):
        Amos(mode=mode)(leaf).backward(weights)
    assert x.grad is not None and plain.grad is not None
    assert torch.equal(spikes, Amos(mode=mode)(plain))
    assert torch.allclose(x.grad, plain.grad, atol=1e-6)


@pytest.mark.parametrize("mode", ["loop", "parallel"])
def test_a_learned_leak_moves_and_stays_representable(mode: str) -> None:
    assert Amos().state_dict() == {}
    neurons = Amos(0.5, learn_leak=True, mode=mode)
    assert list(neurons.state_dict()) == ["leak_logit"]
    x = torch.rand(6, 200, generator=torch.Generator().manual_seed(3)) / 2
    before = float(neurons(x).detach().sum())
    optimizer = torch.optim.SGD(neurons.parameters(), lr=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        (-neurons(x).mean()).backward()
        optimizer.step()
    assert neurons.leak > 0.6 and float(neurons(x).detach().sum()) > before
    assert shift_representable(neurons.leak) == neurons.leak
    assert torch.equal(neurons(x), amos_loop(x, neurons.leak))


@pytest.mark.parametrize("mode", ["loop", "parallel"])
def test_mixed_precision_leaves_membranes_in_full(mode: str) -> None:
    x = torch.randn(8, 500, generator=torch.Generator().manual_seed(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Amos(0.75, mode=mode)(x), Amos(0.75, mode="loop")(x))
        assert Amos(mode=mode)(x.bfloat16()).dtype == torch.float32


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
