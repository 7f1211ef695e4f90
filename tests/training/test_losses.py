"""The losses and penalties against naive loops over the papers' equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from edgesnn.losses import (
    early_penalty,
    mean_loss,
    rate_penalty,
    selector_loss,
    step_loss,
    tad_loss,
)
from edgesnn.targets.errors import UsageError

Loss = Callable[..., Tensor]
STEPS, BATCH, CLASSES = 3, 4, 5
Y = torch.tensor([0, 3, 4, 1])
VALUE = 2.5


def signal(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(STEPS, BATCH, CLASSES, generator=generator)).double()


def ce(u: Tensor, y: int, smoothing: float) -> float:
    e = [math.exp(float(v)) for v in u]
    wanted = [smoothing / len(e) + (1 - smoothing) * (c == y) for c in range(len(e))]
    return -sum(q * math.log(v / sum(e)) for q, v in zip(wanted, e, strict=True))


def naive_tad(u: Tensor, smoothing: float, temperature: float) -> float:
    total = 0.0
    for n in range(BATCH):
        confidence = []
        for t in range(STEPS):
            e = [math.exp(float(v)) for v in u[t, n]]
            z = [v / sum(e) for v in e]
            entropy = -sum(p * math.log(p) for p in z)
            confidence.append(1 - entropy / math.log(CLASSES))  # eq. 12
        weight = [math.exp(c / temperature) for c in confidence]  # eq. 13
        for t in range(STEPS):
            total += weight[t] / sum(weight) * ce(u[t, n], int(Y[n]), smoothing)  # eq. 14
    return total / BATCH


def naive_step(u: Tensor, smoothing: float) -> float:
    pairs = [(t, n) for t in range(STEPS) for n in range(BATCH)]
    return sum(ce(u[t, n], int(Y[n]), smoothing) for t, n in pairs) / len(pairs)


def naive_mean(u: Tensor, smoothing: float) -> float:
    return sum(ce(sum(u[:, n]) / STEPS, int(Y[n]), smoothing) for n in range(BATCH)) / BATCH


def naive_selector(u: Tensor, smoothing: float) -> float:
    total = 0.0
    for n in range(BATCH):
        t = next((t for t in range(STEPS) if float(u[t, n].max()) >= VALUE), STEPS - 1)
        total += ce(u[t, n], int(Y[n]), smoothing)
    return total / BATCH


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_losses_equal_their_equations(seed: int, smoothing: float) -> None:
    u = signal(seed)
    eps = {"label_smoothing": smoothing}
    assert float(tad_loss(u, Y, **eps)) == pytest.approx(naive_tad(u, smoothing, 2.0), rel=1e-12)
    assert float(tad_loss(u, Y, temperature=0.3, **eps)) == pytest.approx(
        naive_tad(u, smoothing, 0.3), rel=1e-12
    )
    assert float(step_loss(u, Y, **eps)) == pytest.approx(naive_step(u, smoothing), rel=1e-12)
    assert float(mean_loss(u, Y, **eps)) == pytest.approx(naive_mean(u, smoothing), rel=1e-12)
    assert float(selector_loss(u, Y, VALUE, **eps)) == pytest.approx(
        naive_selector(u, smoothing), rel=1e-12
    )


@pytest.mark.parametrize(
    ("loss", "more"), [(tad_loss, ()), (step_loss, ()), (mean_loss, ()), (selector_loss, (VALUE,))]
)
def test_no_smoothing_is_the_plain_loss(loss: Loss, more: tuple[float, ...]) -> None:
    u = signal()
    assert torch.equal(loss(u, Y, *more), loss(u, Y, *more, label_smoothing=0.0))
    assert loss(u, Y, *more) != loss(u, Y, *more, label_smoothing=0.1)


def gradient(loss: Loss, u: Tensor, *more: Any, **options: Any) -> Tensor:
    u = u.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(u, Y, *more, **options), u)
    return found


def test_the_weights_of_tad_are_not_differentiated() -> None:
    u = signal()
    p = torch.softmax(u, -1)
    confidence = 1 + (p * p.log()).sum(-1) / math.log(CLASSES)
    weight = torch.softmax(confidence / 2, 0)
    onehot = torch.nn.functional.one_hot(Y, CLASSES)
    expected = weight[..., None] * (p - onehot) / BATCH
    assert torch.allclose(gradient(tad_loss, u), expected, atol=1e-12)


def test_detach_changes_the_gradient_and_not_the_value() -> None:
    u = signal()
    assert torch.equal(tad_loss(u, Y), tad_loss(u, Y, detach=False))
    assert not torch.allclose(gradient(tad_loss, u), gradient(tad_loss, u, detach=False))
    u.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: tad_loss(v, Y, detach=False), (u,))


def test_the_selector_is_taught_at_the_step_that_it_reads() -> None:
    u = torch.zeros(STEPS, BATCH, CLASSES, dtype=torch.float64)
    u[1, 0, 2] = VALUE  # at the threshold: read at t = 2
    u[0, 1, 0] = u[2, 1, 0] = 9.0  # the first of two: t = 1
    u[2, 2, 1] = 9.0  # t = 3; sample 3 never: t = 3
    found = gradient(selector_loss, u, VALUE).abs().sum(-1) > 0
    assert found.T.tolist() == [
        [False, True, False],
        [True, False, False],
        [False, False, True],
        [False, False, True],
    ]


def test_penalties_count_spikes() -> None:
    first = torch.zeros(4, 2, 10)
    first[0, :, :5] = 1  # half the neurons spike once
    second = torch.ones(4, 2, 3)  # all spike in all four steps
    layers = {"a": first, "b": second}
    assert float(rate_penalty([first, second])) == pytest.approx(0.5 + 4.0)
    assert torch.equal(rate_penalty(layers), rate_penalty([first, second]))
    assert torch.equal(rate_penalty(layers, 0.02), 0.02 * rate_penalty([first, second]))
    assert float(rate_penalty(layers, {"b": 0.5, "a": 3.0})) == pytest.approx(1.5 + 2.0)
    assert float(rate_penalty(layers, {"a": 3.0})) == pytest.approx(1.5)
    with pytest.raises(UsageError, match="no hidden layer c; there is a, b"):
        rate_penalty(layers, {"a": 1.0, "c": 1.0})
    assert float(early_penalty(first)) == pytest.approx(0.5)
    assert float(early_penalty(first.flip(0))) == 0.0
