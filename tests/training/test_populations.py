"""Populations from their description, and the parallel spiking neuron, which only trains."""

from __future__ import annotations

import pytest
import torch

from edgesnn.networks.spec import NeuronSpec
from edgesnn.neurons.amos import Amos
from edgesnn.neurons.build import population
from edgesnn.neurons.if_neuron import If
from edgesnn.neurons.lif import Lif
from edgesnn.neurons.psn import Psn
from edgesnn.neurons.surrogate import SURROGATES, step
from edgesnn.targets.errors import UsageError

SPECS = [
    (NeuronSpec(), Lif),
    (NeuronSpec(reset="hard", surrogate="atan", width=2.0, v_threshold=0.8), Lif),
    (NeuronSpec(leak=0.75, learn_leak=True), Lif),
    (NeuronSpec("if", leak=1.0, reset="hard"), If),
    (NeuronSpec("amos", forced=True, surrogate="sigmoid"), Amos),
    (NeuronSpec("amos", leak=0.25, learn_leak=True), Amos),
    (NeuronSpec("psn", v_threshold=2.0, surrogate="rectangle"), Psn),
]


@pytest.mark.parametrize(("spec", "kind"), SPECS)
def test_every_description_has_its_population(spec: NeuronSpec, kind: type) -> None:
    neurons = population(spec, 4)
    assert type(neurons) is kind
    assert neurons.v_threshold == spec.v_threshold and neurons.width == spec.width
    assert neurons.surrogate_name == spec.surrogate
    if kind is not Psn:
        assert neurons.leak == spec.leak
        assert ("leak_logit" in neurons.state_dict()) == spec.learn_leak
    for steps in (1, 2, 4):  # stages of fewer steps included
        x = torch.randn(steps, 3, 5, requires_grad=True)
        spikes = neurons(x)
        assert spikes.shape == x.shape and set(spikes.unique().tolist()) <= {0.0, 1.0}
        spikes.sum().backward()
        assert x.grad is not None


def test_descriptions_without_sense_are_refused() -> None:
    for spec, message in (
        (NeuronSpec("izhikevich"), "lif, if, amos, psn"),
        (NeuronSpec("amos", reset="hard"), "not reset"),
        (NeuronSpec(surrogate="cube"), "triangle"),
        (NeuronSpec("psn", surrogate="cube"), "triangle"),
    ):
        with pytest.raises(UsageError, match=message):
            population(spec, 4)
    with pytest.raises(UsageError, match="auto, loop, parallel"):
        population(NeuronSpec("amos"), 4, mode="fast")
    with pytest.raises(UsageError, match="at least 1"):
        population(NeuronSpec("psn"), 0)


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_psn_equals_its_equation(name: str) -> None:
    torch.manual_seed(0)
    neurons = Psn(5, 0.5, 2.0, surrogate_name=name).double()
    assert torch.equal(neurons.bias.detach(), torch.full((5, 1), -0.5, dtype=torch.float64))
    bound = 1 / 5**0.5  # Kaiming-uniform with a = sqrt(5)
    assert float(neurons.weight.detach().abs().max()) <= bound
    for steps in (1, 3, 5):
        grads, outs = [], []
        for run in (neurons, None):
            neurons.zero_grad()
            x = torch.randn(steps, 4, 6, generator=torch.Generator().manual_seed(2)).double()
            x.requires_grad_()
            if run is None:
                weight, bias = neurons.weight[:steps, :steps], neurons.bias[:steps]
                out = step(torch.einsum("tk,kij->tij", weight, x) + bias[:, :, None], name, 2.0)
            else:
                out = neurons(x)
            (out * torch.arange(24.0).view(4, 6)).sum().backward()
            outs.append(out.detach())
            grads.append((x.grad, neurons.weight.grad, neurons.bias.grad))
        assert torch.equal(*outs)
        for a, b in zip(*grads, strict=True):
            assert a is not None and b is not None and float((a - b).abs().max()) < 1e-10
    with pytest.raises(UsageError, match="made for 5"):
        neurons(torch.zeros(6, 2, dtype=torch.float64))


def test_psn_mixes_later_steps_into_earlier_ones() -> None:
    """Why it never lowers: a device would have to know the future."""
    torch.manual_seed(0)
    neurons = Psn(4)
    x = torch.randn(4, 200)
    changed = x.clone()
    changed[3] += 20.0
    assert not torch.equal(neurons(x)[0], neurons(changed)[0])


@pytest.mark.parametrize(("spec", "kind"), SPECS)
def test_no_neurons_and_one_neuron(spec: NeuronSpec, kind: type) -> None:
    neurons = population(spec, 4)
    assert neurons(torch.zeros(4, 0, 3)).shape == (4, 0, 3)
    assert neurons(torch.ones(4)).shape == (4,)
