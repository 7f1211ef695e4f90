"""The TAD loss and the penalties, worked out by hand from the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch

from edgesnn.losses import early_penalty, rate_penalty, tad_loss


def test_tad_loss_equals_equations_12_to_14() -> None:
    steps, batch, classes, temperature = 3, 4, 5, 2.0
    generator = torch.Generator().manual_seed(0)
    u = (2 * torch.randn(steps, batch, classes, generator=generator)).double()
    y = torch.tensor([0, 3, 4, 1])
    total = 0.0
    for n in range(batch):
        confidence, cross_entropy = [], []
        for t in range(steps):
            e = [math.exp(float(v)) for v in u[t, n]]
            z = [v / sum(e) for v in e]
            entropy = -sum(p * math.log(p) for p in z)
            confidence.append(1 - entropy / math.log(classes))  # eq. 12
            cross_entropy.append(-math.log(z[int(y[n])]))
        weight = [math.exp(c / temperature) for c in confidence]  # eq. 13
        total += sum(w / sum(weight) * c for w, c in zip(weight, cross_entropy, strict=True))  # 14
    assert float(tad_loss(u, y, temperature)) == pytest.approx(total / batch, rel=1e-12)


def test_the_weights_of_tad_are_not_differentiated() -> None:
    u = torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1])
    tad_loss(u, y).backward()
    p = torch.softmax(u.detach(), -1)
    confidence = 1 + (p * p.log()).sum(-1) / math.log(3)
    weight = torch.softmax(confidence / 2, 0)
    onehot = torch.nn.functional.one_hot(y, 3)
    assert u.grad is not None
    assert torch.allclose(u.grad, weight[..., None] * (p - onehot), atol=1e-12)


def test_penalties_count_spikes() -> None:
    first = torch.zeros(4, 2, 10)
    first[0, :, :5] = 1  # half the neurons spike once
    second = torch.ones(4, 2, 3)  # all spike in all four steps
    assert float(rate_penalty([first, second])) == pytest.approx(0.5 + 4.0)
    assert float(early_penalty(first)) == pytest.approx(0.5)
    assert float(early_penalty(first.flip(0))) == 0.0
