"""LIF and IF as one autograd node, against an op-by-op loop that autograd differentiates by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgesnn.neurons.if_neuron import If
from edgesnn.neurons.leak import leak_logit, rounded_leak, shift_representable
from edgesnn.neurons.lif import Lif, lif
from edgesnn.neurons.surrogate import SURROGATES, step
from edgesnn.targets.errors import UsageError


def slow_lif(
    currents: Tensor, leak: Tensor, v_threshold: float, width: float, reset: str, name: str
) -> Tensor:
    rest = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        u = leak * rest + current
        s = step(u - v_threshold, name, width)
        rest = u - v_threshold * s if reset == "soft" else u * (1 - s)
        spikes.append(s)
    return torch.stack(spikes)


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("name", sorted(SURROGATES))
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 16])
def test_forward_and_gradients_equal_the_loop(steps: int, name: str, reset: str) -> None:
    for leak, threshold, width in ((0.5, 1.0, 1.0), (0.75, 0.8, 2.0), (1.0, 1.0, 0.5)):
        outs, grads = [], []
        for run in (slow_lif, lif):
            x = normal(steps, steps, 4, 7).requires_grad_()
            alpha = torch.tensor(leak, dtype=torch.float64, requires_grad=True)
            if run is lif:
                out = lif(x, alpha, threshold, width, reset, name)
            else:
                out = slow_lif(x, alpha, threshold, width, reset, name)
            (out * normal(99, steps, 4, 7)).sum().backward()
            outs.append(out.detach())
            assert x.grad is not None
            grads.append((x.grad, torch.zeros_like(alpha) if alpha.grad is None else alpha.grad))
        assert torch.equal(*outs)
        assert 0.0 < float(outs[0].mean()) < 1.0
        for slow, fast in zip(*grads, strict=True):
            assert float((slow - fast).abs().max()) < 1e-10
        # A fixed leak goes another way through the same formulas.
        fixed = normal(steps, steps, 4, 7).requires_grad_()
        out = lif(fixed, leak, threshold, width, reset, name)
        (out * normal(99, steps, 4, 7)).sum().backward()
        assert torch.equal(out, outs[0])
        assert fixed.grad is not None and float((fixed.grad - grads[0][0]).abs().max()) < 1e-10


def test_default_gradient_is_this_arithmetic_to_the_bit() -> None:
    """Seeds give the same weights from release to release only if nobody reorders this."""
    x = normal(1, 5, 300).float().requires_grad_()
    g = normal(2, 5, 300).float()
    membranes, rest = [], torch.zeros(300)
    for current in x.detach():
        membranes.append(torch.add(current, rest, alpha=0.5))
        rest = membranes[-1] - (membranes[-1] >= 1.0).float()
    slopes = [(1.0 - (u - 1.0).abs()).clamp(min=0.0) for u in membranes]
    expected = [a * b for a, b in zip(g, slopes, strict=True)]
    for t in (3, 2, 1, 0):
        expected[t] = expected[t] + 0.5 * expected[t + 1] * (1.0 - slopes[t])
    lif(x).backward(g)
    assert x.grad is not None and torch.equal(x.grad, torch.stack(expected))


def test_resets_by_hand() -> None:
    # soft: 1.5 -> spike, rest .5; .25 + .8 = 1.05 -> spike, rest .05; .025 + .2 = .225; ...
    currents = torch.tensor([[1.5], [0.8], [0.2], [0.9]])
    assert lif(currents).flatten().tolist() == [1.0, 1.0, 0.0, 1.0]
    # hard: 1.5 -> spike, rest 0; .8; .4 + .2 = .6; .3 + .9 = 1.2 -> spike
    assert lif(currents, reset="hard").flatten().tolist() == [1.0, 0.0, 0.0, 1.0]
    # no leak, soft: 1.5 -> spike, rest .5; 1.3 -> spike, rest .3; .5; 1.4 -> spike
    assert If()(currents).flatten().tolist() == [1.0, 1.0, 0.0, 1.0]
    assert If(v_threshold=2.0)(currents).flatten().tolist() == [0.0, 1.0, 0.0, 0.0]
    assert If().leak == 1.0


def test_layouts_go_through_and_change_nothing() -> None:
    plain = normal(5, 4 * 3, 6, 2, 5)
    last = plain.contiguous(memory_format=torch.channels_last).unflatten(0, (4, 3))
    plain = plain.unflatten(0, (4, 3))
    assert lif(last).stride() == last.stride()
    weights = normal(6, 4, 3, 6, 2, 5)
    grads = []
    for x in (plain, last):
        leaf = x.requires_grad_()
        spikes = lif(leaf)
        assert torch.equal(spikes, lif(plain))
        spikes.backward(weights)
        assert leaf.grad is not None
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    repeated = plain[0].expand(4, *plain[0].shape)
    assert torch.equal(lif(repeated), lif(repeated.contiguous()))


def test_without_gradients_the_spikes_are_the_same() -> None:
    x = normal(7, 6, 40).requires_grad_()
    with torch.no_grad():
        assert torch.equal(lif(x), lif(x.detach().clone().requires_grad_()))


def test_half_precision_currents_become_membranes_in_full() -> None:
    x = normal(8, 4, 50).to(torch.bfloat16).requires_grad_()
    spikes = Lif()(x)
    assert spikes.dtype == torch.float32
    assert torch.equal(spikes, lif(x.detach().float()))
    spikes.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


def test_leaks_are_what_shifts_can_do() -> None:
    assert shift_representable(0.5) == 0.5
    assert Lif(leak=0.7).leak == pytest.approx(0.7, abs=0.02)
    assert (Lif(leak=0.7).leak * 256).is_integer()
    for name, make in (("not in", lambda: Lif(leak=1.5)), ("soft, hard", lambda: Lif(reset="no"))):
        with pytest.raises(UsageError, match=name):
            make()
    with pytest.raises(UsageError, match="triangle"):
        Lif(surrogate_name="cube")
    with pytest.raises(UsageError, match="soft, hard"):
        lif(torch.zeros(2, 3), reset="no")


def test_rounded_leaks_are_the_devices_and_pass_gradients_through() -> None:
    logits = torch.linspace(-9, 9, 101, requires_grad=True)
    leaks = rounded_leak(logits)
    assert [shift_representable(v) for v in leaks.tolist()] == leaks.tolist()
    exact = torch.sigmoid(logits.detach())
    assert float((leaks.detach() - exact).abs().max()) < 1 / 64
    leaks.sum().backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, exact * (1 - exact))
    for leak in (0.0, 0.25, 0.5, 0.75, 0.875, 1.0):
        assert float(rounded_leak(torch.tensor(leak_logit(leak)))) == leak


def test_a_learned_leak_moves_and_stays_representable() -> None:
    assert Lif().state_dict() == {}
    neurons = Lif(0.5, learn_leak=True)
    assert list(neurons.state_dict()) == ["leak_logit"]
    x = torch.rand(6, 200, generator=torch.Generator().manual_seed(3))
    assert torch.equal(neurons(x), lif(x, 0.5))
    before = float(neurons(x).detach().mean())
    optimizer = torch.optim.SGD(neurons.parameters(), lr=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        neurons(x).mean().backward()
        optimizer.step()
    assert neurons.leak < 0.4
    assert shift_representable(neurons.leak) == neurons.leak
    assert float(neurons(x).detach().mean()) < before
    assert torch.equal(neurons(x), lif(x, neurons.leak))
