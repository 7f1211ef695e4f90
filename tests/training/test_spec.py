"""Network descriptions: the round trip through plain values, the tables of version 1, every refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from edgesnn.networks.spec import LayerSpec, NetworkSpec, NeuronSpec, neuron_spec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import NETWORKS, network_spec
from edgesnn.targets.errors import UsageError

A = LayerSpec("encode-conv", "a", out=4, kernel=3, padding=1)
B = LayerSpec("conv", "b", out=4, kernel=3, padding=1)
M = LayerSpec("merge", "m", sources=("a", "b"))
D = LayerSpec("dense", "d", out=6, neuron=NeuronSpec("amos", leak=0.75))
O = LayerSpec("output", "o", out=3)  # noqa: E741


def net(*layers: LayerSpec, **changes: Any) -> NetworkSpec:
    return replace(NetworkSpec("n", (6, 6, 2), 3, 4, layers), **changes)


GOOD = net(A, B, M, D, O, neuron=NeuronSpec("lif", 0.25, reset="hard"), learn_output_leak=True)


@pytest.mark.parametrize("spec", [GOOD, *(network_spec(n, (16, 16, 4), 4, 2) for n in NETWORKS)])
def test_plain_values_and_back(spec: NetworkSpec) -> None:
    plain = spec.to_dict()
    assert NetworkSpec.from_dict(json.loads(json.dumps(plain))) == spec
    assert NetworkSpec.from_dict(plain).shapes() == spec.shapes()


def test_tables_of_version_1_load() -> None:
    """As edgesnn 0.1.0 wrote them: one rule for the whole net, a chain of layers."""
    layer = {"out": 0, "kernel": 1, "stride": 1, "padding": 0, "pool": 1}
    layers = [
        {**layer, "kind": "encode-dense", "name": "encoder", "out": 128},
        {**layer, "kind": "dense", "name": "hidden", "out": 64},
        {**layer, "kind": "output", "name": "output", "out": 10},
    ]
    plain = {
        "name": "mcu-mlp",
        "input_shape": [8, 8, 1],
        "classes": 10,
        "timesteps": 4,
        "layers": layers,
        "neuron": "amos",
        "leak": 0.5,
        "v_threshold": 1.0,
        "output_leak": 0.5,
    }
    assert NetworkSpec.from_dict(plain) == network_spec("mcu-mlp", (8, 8, 1), 10, 4, "amos")


BAD = {
    "unknown kind": net(replace(A, kind="morse"), O),
    "the first layer and no other is an encoder": net(B, O),
    "no other is an encoder": net(A, replace(A, name="c"), O),
    "the last layer and no other": net(A, B),
    "no other is the output": net(A, replace(O, name="p"), O),
    "distinct plain words": net(A, replace(B, name="a"), O),
    "not distinct plain": net(replace(A, name="no word"), O),
    "the samples' name": net(replace(A, name="input"), O),
    "output has no kernel": net(A, replace(O, kernel=3)),
    "conv has no pool": net(A, replace(B, pool=2), O),
    "merge has no neuron": net(A, B, replace(M, neuron=NeuronSpec()), O),
    "kernel, stride and pool": net(A, replace(B, stride=0), O),
    "padding is smaller": net(A, replace(B, padding=3), O),
    "at least one output": net(A, replace(B, out=0), O),
    "two or more different sources": net(A, B, replace(M, sources=("b",)), O),
    "more different sources": net(A, B, replace(M, sources=("b", "b")), O),
    "only a merge has several sources": net(A, B, replace(D, sources=("a", "b")), O),
    "'z' does not stand before": net(A, B, replace(M, sources=("b", "z")), O),
    "no other reads samples": net(A, replace(B, sources=("input",)), O),
    "a merge of its own": net(A, B, M, LayerSpec("or-pool", "p", kernel=2, stride=2), O),
    "different shapes": net(A, replace(B, out=5), M, O),
    "nothing reads b": net(A, B, replace(D, sources=("a",)), O),
    "6x6x2 samples are too small": net(A, replace(B, kernel=9, padding=0), O),
    "has not 3 classes": net(A, replace(O, out=4)),
    "one of lif, if, amos, psn": net(A, replace(B, neuron=NeuronSpec("relu")), O),
    "leak 1.5": net(A, B, O, neuron=NeuronSpec(leak=1.5)),
    "its leak is 1": net(A, B, O, neuron=NeuronSpec("if")),
    "v_threshold": net(A, B, O, neuron=NeuronSpec(v_threshold=0.0)),
    "surrogate width": net(A, B, O, neuron=NeuronSpec(width=float("nan"))),
    "reset 'none'": net(A, B, O, neuron=NeuronSpec(reset="none")),
    "are not reset": net(A, B, O, neuron=NeuronSpec("amos", reset="hard")),
    "forced is for amos": net(A, B, O, neuron=NeuronSpec(forced=True)),
    "no leak to learn": net(A, B, O, neuron=NeuronSpec("psn", learn_leak=True)),
}


@pytest.mark.parametrize("message", BAD)
def test_layers_that_do_not_fit(message: str) -> None:
    wanted = "pool before the merge" if message == "a merge of its own" else message
    with pytest.raises(UsageError, match=wanted) as caught:
        BAD[message].shapes()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", "all", "not a list"),
        ("layers", [{}], "missing or unknown fields"),
        ("input_shape", [6, 6], "height, width, channels"),
        ("input_shape", [6, 0, 2], "height, width, channels"),
        ("classes", 0, "not positive"),
        ("classes", True, "classes is True"),
        ("timesteps", 1000, "timesteps 1000"),
        ("name", "a net", "plain word"),
        ("output_leak", 1.5, "output_leak"),
        ("neuron", None, "network.neuron is not a table"),
        ("norm", 1, "norm is 1"),
    ],
)
def test_tables_that_are_no_network(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkSpec.from_dict({**GOOD.to_dict(), field: value})


def test_a_rule_by_its_name() -> None:
    assert neuron_spec("if") == NeuronSpec("if", leak=1.0)
    assert neuron_spec("amos") == NeuronSpec("amos")
    assert neuron_spec(GOOD.neuron) is GOOD.neuron


def test_units_are_maps_of_one_position() -> None:
    """A convolution may read a dense layer, and a merge both forms."""
    layers = (
        LayerSpec("encode-dense", "a", out=4),
        LayerSpec("conv", "b", out=4),
        LayerSpec("merge", "m", sources=("a", "b")),
        LayerSpec("conv", "c", out=5),
        O,
    )
    act = SpikingNetwork(net(*layers))(torch.rand(7, 2, 6, 6))
    assert act.membranes.shape == (4, 7, 3)
    expected = act.encoder + act.hidden["b"].flatten(2)
    assert torch.equal(act.sources["c"].flatten(2), expected)
