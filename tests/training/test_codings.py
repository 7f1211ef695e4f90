"""Codings without a learned encoder: raw latency, direct current, random rate."""

from __future__ import annotations

import pytest
import torch

from edgesnn.coding.direct import direct_encode
from edgesnn.coding.latency import latency_encode
from edgesnn.coding.rate import rate_encode
from edgesnn.coding.raw import RawLatency
from edgesnn.neurons.amos import Amos
from edgesnn.neurons.lif import Lif
from edgesnn.targets.errors import UsageError


def test_raw_latency_takes_samples_as_they_are() -> None:
    samples = torch.tensor([[0.0, 0.2, 0.5, 0.75, 1.0]])
    spikes = RawLatency(4)(samples)
    assert torch.equal(spikes, latency_encode(samples, 4))
    assert (spikes.argmax(0) + 1).tolist() == [[4, 4, 2, 1, 1]]
    outside = RawLatency(4)(torch.tensor([-3.0, 7.0]))
    assert (outside.argmax(0) + 1).tolist() == [4, 1]
    assert torch.equal(RawLatency(1)(samples), torch.ones(1, 1, 5))
    with pytest.raises(UsageError, match="at least 1"):
        RawLatency(0)


@pytest.mark.parametrize("neurons", [Lif(), Amos(mode="loop"), Amos(mode="parallel")])
def test_direct_coding_is_a_view_and_sums_gradients_over_time(neurons: torch.nn.Module) -> None:
    current = torch.rand(3, 4, requires_grad=True)
    currents = direct_encode(current, 5)
    assert currents.shape == (5, 3, 4) and currents.stride(0) == 0
    assert currents.data_ptr() == current.data_ptr()
    neurons(currents).sum().backward()
    copy = current.detach().repeat(5, 1, 1).requires_grad_()
    neurons(copy).sum().backward()
    assert current.grad is not None and copy.grad is not None
    assert torch.allclose(current.grad, copy.grad.sum(0))
    with pytest.raises(UsageError, match="at least 1"):
        direct_encode(current, 0)


def test_rate_coding_has_the_rate_of_its_value_and_a_seed() -> None:
    values = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).repeat(2000, 1)
    spikes = rate_encode(values, 4, torch.Generator().manual_seed(1))
    assert spikes.shape == (4, 2000, 5) and set(spikes.unique().tolist()) == {0.0, 1.0}
    rates = spikes.mean((0, 1))
    assert rates[0] == 0.0 and rates[4] == 1.0
    assert torch.allclose(rates, values[0], atol=0.03)
    assert torch.equal(spikes, rate_encode(values, 4, torch.Generator().manual_seed(1)))
    assert not torch.equal(spikes, rate_encode(values, 4, torch.Generator().manual_seed(2)))
    with pytest.raises(UsageError, match="at least 1"):
        rate_encode(values, 0)
