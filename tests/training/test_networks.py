"""The nets by name: sizes, shapes, what the batch of steps computes, the operation counts, lowering."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn.checkpoint import Checkpoint, state_shapes, to_graph
from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.data.dataset import Dataset
from edgesnn.networks.spec import CONVS, LayerSpec, NetworkSpec, NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import ENCODER_FORMS, NETWORKS, network_spec
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
    assert list(NETWORKS) == [
        "mcu-mlp",
        "mcu-lenet-s",
        "mcu-lenet",
        "mcu-signal",
        "mcu-sound",
        "mcu-events",
        "mcu-resnet8",
        "sew-resnet18",
        "vgg11",
        "vgg16",
        "psn-net",
    ]
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


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "mcu-events"])
@pytest.mark.parametrize("form", ENCODER_FORMS)
@pytest.mark.parametrize(
    "shape", [BIG, SMALL, (49, 40, 1), (32, 32, 3), (1, 512, 3), (1, 16, 1), (4, 5, 2)], ids=str
)
def test_nets_fit_their_data(name: str, form: str, shape: tuple[int, int, int]) -> None:
    spec = network_spec(name, shape, 12, 3, encoder=form)
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    assert spec.shapes()["output"] == (1, 1, 12)
    first = {"latency": "encode-", "raw": "encode-raw", "direct": "direct-"}[form]
    assert spec.encoder.kind.startswith(first)


@pytest.mark.parametrize("name", ["mcu-mlp", "mcu-lenet-s", "mcu-lenet", "mcu-signal"])
@pytest.mark.parametrize(("shape", "classes"), [(BIG, 10), (SMALL, 10), ((49, 40, 1), 12)])
def test_encoders_spike_once(name: str, shape: tuple[int, int, int], classes: int) -> None:
    spec = network_spec(name, shape, classes, 3)
    act = SpikingNetwork(spec)(torch.rand(5, shape[2], *shape[:2]))
    assert act.membranes.shape == (3, 5, classes)
    assert torch.equal(act.encoder.sum(0), torch.ones_like(act.encoder[0]))


def test_resnet8_does_the_work_of_mlperf_tiny() -> None:
    net = SpikingNetwork(network_spec("mcu-resnet8", (32, 32, 3), 10, 1))
    macs = dense_macs(net)
    assert macs == {
        "encoder": 442_368,
        "stack1_a": 2_359_296,
        "stack1_b": 2_359_296,
        "stack2_a": 1_179_648,
        "stack2_b": 2_359_296,
        "stack2_shortcut": 131_072,
        "stack3_a": 1_179_648,
        "stack3_b": 2_359_296,
        "stack3_shortcut": 131_072,
        "output": 640,
    }
    assert sum(macs.values()) == 12_501_632  # counted in a dense ResNet-8 of the benchmark
    shapes = net.spec.shapes()
    assert [shapes[f"stack{n}_add"] for n in (1, 2, 3)] == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]


@pytest.mark.parametrize(
    ("name", "convs", "weights"),
    [
        ("vgg11", 8, 9_217_728),
        ("vgg16", 13, 14_710_464),
        ("sew-resnet18", 20, 11_159_232),
        ("psn-net", 6, 2_956_032),
        ("mcu-resnet8", 9, 76_720),
    ],
)
def test_the_papers_nets(name: str, convs: int, weights: int) -> None:
    """The weights of their convolutions for 32x32x3 samples, as of the dense nets."""
    spec = network_spec(name, (32, 32, 3), 10, 4)
    layers = [layer for layer in spec.layers if layer.kind in CONVS]
    assert len(layers) == convs
    shapes = state_shapes(spec)
    assert sum(math.prod(shapes[f"linear.{x.name}.weight"]) for x in layers) == weights


def test_the_signal_net_is_small() -> None:
    for shape in ((1, 512, 3), (1, 16, 1), (1, 100, 6), (1, 8000, 1)):
        spec = network_spec("mcu-signal", shape, 6, 4)
        shapes = state_shapes(spec)
        assert sum(math.prod(x) for key, x in shapes.items() if "linear" in key) <= 60_000
        assert all(x[2] == 1 for x in shapes.values() if len(x) == 4)


@pytest.mark.parametrize("form", ["raw", "direct"])
def test_another_encoder_has_the_same_geometry(form: str) -> None:
    spec = network_spec("mcu-lenet", BIG, 10, 4, encoder=form)
    shapes = network_spec("mcu-lenet", BIG, 10, 4).shapes()
    last = {"raw": "features_pool", "direct": "encoder_pool"}[form]
    assert spec.shapes()[last] == shapes["encoder"]
    residual = network_spec("mcu-resnet8", SMALL, 10, 4, "if", encoder=form)
    assert residual.neuron == NeuronSpec("if", leak=1.0)
    (merge,) = [x for x in residual.layers if x.name == "stack1_add"]
    assert merge.sources == ("stack1_b", {"raw": "features", "direct": "encoder"}[form])


def checkpoint_of(spec: NetworkSpec) -> Checkpoint:
    """Random weights, and batch-norm statistics of random samples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = SpikingNetwork(spec).train()
        height, width, channels = spec.input_shape
        with torch.no_grad():
            for _ in range(3):
                net(torch.rand(8, channels, height, width))
            for norm in net.norm.values():
                norm.bias.add_(0.2 * torch.randn_like(norm.bias))
    names = tuple(str(n) for n in range(spec.classes))
    readout = ReadoutSpec("first-spike", 1e4)
    return Checkpoint(spec, net.state_dict(), 1 / 255, readout, names, "random", {})


@pytest.mark.parametrize("name", ["mcu-lenet-s", "mcu-signal", "mcu-resnet8"])
@pytest.mark.parametrize("form", ENCODER_FORMS)
def test_nets_lower_and_answer_as_in_floating_point(name: str, form: str) -> None:
    shape = (1, 64, 3) if name == "mcu-signal" else (12, 12, 3)
    spec = network_spec(name, shape, 5, 3, encoder=form)
    checkpoint = checkpoint_of(spec)
    raw = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    with Interpreter(lower(to_graph(checkpoint))) as engine:
        found = [engine.infer(x).label for x in raw]
    net = SpikingNetwork(spec).eval()
    net.load_state_dict(checkpoint.state)
    with torch.no_grad():
        membranes = net(torch.from_numpy(raw / 255).float().permute(0, 3, 1, 2)).membranes
    expected = membranes[-1].argmax(-1).tolist()
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 8


@pytest.mark.parametrize("name", ["vgg11", "sew-resnet18", "psn-net", "vgg16"])
def test_large_nets_lower_and_run(name: str) -> None:
    """The large nets with a sixteenth of their channels."""
    spec = network_spec(name, (8, 8, 3), 5, 2)
    layers = [
        layer if layer.kind == "output" else replace(layer, out=layer.out // 16)
        for layer in spec.layers
    ]
    small = replace(spec, layers=tuple(layers))
    with Interpreter(lower(to_graph(checkpoint_of(small)))) as engine:
        assert engine.infer(np.full((8, 8, 3), 99, np.uint8)).step == 2


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="mcu-mlp, mcu-lenet-s, mcu-lenet"):
        network_spec("lenet", BIG, 10, 4)
    with pytest.raises(UsageError, match="too small"):
        network_spec("mcu-lenet", (2, 2, 1), 10, 4)
    with pytest.raises(UsageError, match="at least 1"):
        network_spec("mcu-mlp", BIG, 10, 0)
    with pytest.raises(UsageError, match="is more than"):
        network_spec("mcu-mlp", BIG, 10, MAX_TIMESTEPS + 1)
    with pytest.raises(UsageError, match="at least 2"):
        network_spec("mcu-mlp", BIG, 1, 4)
    with pytest.raises(UsageError, match="latency, raw, direct"):
        network_spec("mcu-mlp", BIG, 10, 4, encoder="morse")
    with pytest.raises(UsageError, match="one of lif, if, amos, psn"):
        network_spec("mcu-mlp", BIG, 10, 4, "relu")


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
