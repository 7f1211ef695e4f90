"""The three nets: sizes, shapes, what the batch of steps computes, the operation counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data.dataset import Dataset
from edgesnn.networks.spec import LayerSpec, NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import NETWORKS, network_spec
from edgesnn.targets.errors import UsageError
from edgesnn.training.evaluate_float import evaluate, fan_out

BIG, SMALL = (28, 28, 1), (8, 8, 1)


def dense_macs(net: SpikingNetwork) -> dict[str, int]:
    """Multiply-accumulates of each linear map for one sample and step, from the maps it makes."""
    found: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, _: object, out: torch.Tensor) -> None:
            found[name] = module.weight.numel() * math.prod(out.shape[2:])

        return hook

    for name, module in net.linear.items():
        module.register_forward_hook(watch(name))
    height, width, channels = net.spec.input_shape
    net(torch.rand(2, channels, height, width))
    return found


def test_the_nets_of_the_design() -> None:
    assert list(NETWORKS) == ["mcu-mlp", "mcu-lenet-s", "mcu-lenet"]
    s = SpikingNetwork(network_spec("mcu-lenet-s", BIG, 10, 4))
    assert sum(p.numel() for p in s.parameters()) == 80_378
    b = network_spec("mcu-lenet", BIG, 10, 4)
    assert tuple(b.shapes().values()) == (
        (14, 14, 16),
        (14, 14, 32),
        (7, 7, 32),
        (1, 1, 128),
        (1, 1, 10),
    )
    macs = dense_macs(SpikingNetwork(b))
    assert macs == {"encoder": 313_600, "conv": 2_508_800, "dense": 200_704, "output": 1_280}
    assert sum(macs.values()) == 3_024_384  # as many as the dense network of this shape


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("shape", "classes"), [(BIG, 10), (SMALL, 10), ((49, 40, 1), 12)])
def test_nets_fit_their_data(name: str, shape: tuple[int, int, int], classes: int) -> None:
    spec = network_spec(name, shape, classes, 3)
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    act = SpikingNetwork(spec)(torch.rand(5, shape[2], *shape[:2]))
    assert act.membranes.shape == (3, 5, classes)
    assert torch.equal(act.encoder.sum(0), torch.ones_like(act.encoder[0]))


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="mcu-mlp, mcu-lenet-s, mcu-lenet"):
        network_spec("lenet", BIG, 10, 4)
    with pytest.raises(UsageError, match="too small"):
        network_spec("mcu-lenet", (2, 2, 1), 10, 4)
    with pytest.raises(UsageError, match="at least 1"):
        network_spec("mcu-mlp", BIG, 10, 0)


def test_output_membranes_leak_and_never_reset() -> None:
    net = SpikingNetwork(network_spec("mcu-mlp", SMALL, 10, 4)).eval()
    act = net(torch.rand(6, 1, 8, 8))
    u = torch.zeros(6, 10)
    for t in range(4):
        u = 0.5 * u + net.linear["output"](act.hidden["hidden"][t])
        assert torch.allclose(u, act.membranes[t], atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "side"), [(1, 0, 7), (2, 1, 8), (3, 0, 9), (2, 0, 6)]
)
def test_fan_out_counts_the_windows_over_a_position(stride: int, padding: int, side: int) -> None:
    kernel, target = 3, (side + 2 * padding - 3) // stride + 1
    layer = LayerSpec("conv", "c", out=5, kernel=kernel, stride=stride, padding=padding)
    layers = (
        LayerSpec("encode-conv", "a", out=2),
        layer,
        LayerSpec("output", "o", out=2),
    )
    spec = NetworkSpec("n", (side, side, 1), 2, 4, layers)
    expected = np.zeros((side, side))
    for oy, ox, ky, kx in itertools.product(range(target), range(target), range(3), range(3)):
        y, x = oy * stride + ky - padding, ox * stride + kx - padding
        if 0 <= y < side and 0 <= x < side:
            expected[y, x] += 5
    found = fan_out(spec, layer)
    assert np.array_equal(found[0].numpy(), expected)


def test_spikes_and_operations_stop_at_the_exit() -> None:
    net = SpikingNetwork(network_spec("mcu-lenet", SMALL, 10, 4))
    rng = np.random.default_rng(1)
    x = rng.integers(0, 17, (9, 8, 8, 1), dtype=np.uint8)
    names = tuple("0123456789")
    data = Dataset("random", "test", x, rng.integers(0, 10, 9), names, 1 / 16)
    first = evaluate(net, data, ReadoutSpec("first-spike", -1e9))
    full = evaluate(net, data, ReadoutSpec("first-spike", 1e9))
    assert first["timesteps_histogram"] == [9, 0, 0, 0]
    assert full["timesteps_histogram"] == [0, 0, 0, 9]
    assert (first["no_output_spike"], full["no_output_spike"]) == (0, 9)
    assert first["sops_mean"] < full["sops_mean"]
    with torch.no_grad():
        act = net(torch.from_numpy(x).permute(0, 3, 1, 2) / 16)
    neurons = 4 * 4 * 16 + 4 * 4 * 32 + 128
    events = float(act.encoder.sum() + sum(s.sum() for s in act.hidden.values()))
    assert full["spikes_per_neuron"]["all"] == pytest.approx(events / (9 * neurons))
