"""Checkpoints: the round trip, the float graph for the compiler, every kind of bad file."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn import checkpoint as module
from edgesnn.checkpoint import Checkpoint, load_checkpoint, load_graph, save_checkpoint
from edgesnn.compiler import graph as g
from edgesnn.networks.spec import LayerSpec, NetworkSpec, NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_spec
from edgesnn.targets.errors import EdgesnnError, UsageError

NAMES = tuple("0123456789")


def checkpoint_of(spec: NetworkSpec) -> Checkpoint:
    """A checkpoint with random weights and batch-norm statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        net = SpikingNetwork(spec).train()
        height, width, channels = spec.input_shape
        for _ in range(4):
            net(torch.rand(16, channels, height, width) * 2 - 0.5)
        for norm in net.norm.values():
            norm.weight.data.mul_(torch.randn_like(norm.weight))  # both signs of gamma
            norm.bias.data.add_(0.3 * torch.randn_like(norm.bias))
    readout = g.ReadoutSpec("first-spike", 2.5)
    names = tuple(str(n) for n in range(spec.classes))
    state = {k: v.detach().clone() for k, v in net.state_dict().items()}
    return Checkpoint(spec, state, 1 / 16, readout, names, "digits", {"accuracy": 0.5})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    save_checkpoint(checkpoint_of(network_spec("mcu-lenet", (8, 8, 1), 10, 4)), path)
    return path


def test_round_trip(saved: Path) -> None:
    expected = checkpoint_of(network_spec("mcu-lenet", (8, 8, 1), 10, 4))
    found = load_checkpoint(saved)
    assert replace(found, state={}) == replace(expected, state={})
    assert set(found.state) == set(expected.state)
    assert all(torch.equal(found.state[k], expected.state[k]) for k in expected.state)
    assert [p.name for p in saved.parent.iterdir()] == ["net.pt"]  # no temporary file is left


def patches(x: np.ndarray, size: Any, stride: Any) -> np.ndarray:
    """(H, W, C) -> (oh, ow, size, size, C); square windows."""
    size, stride = np.broadcast_to(size, 2)[0], np.broadcast_to(stride, 2)[0]
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
    return view[::stride, ::stride].transpose(0, 1, 3, 4, 2)


def linear(layer: g.LatencyEncode | g.Spiking | g.Output, x: np.ndarray) -> np.ndarray:
    """The layer's linear map and norm, channel-last, in the graph's own terms."""
    w = layer.linear.weight
    if isinstance(layer.linear, g.Conv):
        top, left, bottom, right = layer.linear.padding
        padded = np.pad(x, ((top, bottom), (left, right), (0, 0)))
        out = np.einsum("yxijc,oijc->yxo", patches(padded, w.shape[1], layer.linear.stride[0]), w)
    else:
        out = (w @ x.reshape(-1))[None, None]
    if layer.linear.bias is not None:
        out = out + layer.linear.bias
    if layer.norm is not None:
        n = layer.norm
        out = n.gamma * (out - n.mean) / np.sqrt(n.var + n.eps) + n.beta
    return np.asarray(out)


def run_graph(graph: g.Graph, raw: np.ndarray) -> np.ndarray:
    """float64[T, classes]: the output membranes, step by step, one sample."""
    first = graph.layers[0]
    assert isinstance(first, g.LatencyEncode)
    phi = linear(first, graph.input.scale * (raw.astype(np.float64) - graph.input.zero_point))
    phi = patches(phi, *first.pool).max(axis=(2, 3))
    times = np.ceil((1 - 1 / (1 + np.exp(-phi))) * graph.timesteps)
    rest: dict[str, Any] = {}
    membranes = []
    for t in range(1, graph.timesteps + 1):
        spikes = {first.name: (times == t).astype(np.float64)}
        for layer in graph.layers[1:]:
            s = spikes[layer.source]
            if isinstance(layer, g.Pool):
                spikes[layer.name] = patches(s, layer.kernel, layer.stride).max(axis=(2, 3))
                continue
            assert isinstance(layer, g.Spiking | g.Output)
            u = layer.leak * rest.get(layer.name, 0.0) + linear(layer, s)
            if isinstance(layer, g.Spiking):
                spikes[layer.name] = (u >= layer.v_threshold).astype(np.float64)
                u = u - layer.v_threshold * spikes[layer.name]
            else:
                membranes.append(u.reshape(-1))
            rest[layer.name] = u
    return np.stack(membranes)


ODD = NetworkSpec(  # two input channels, a stride, two spiking convolutions, other constants
    "odd",
    (9, 11, 2),
    5,
    3,
    (
        LayerSpec("encode-conv", "a", out=6, kernel=3, stride=2, padding=1),
        LayerSpec("conv", "b", out=7, kernel=2, padding=1),
        LayerSpec("conv", "c", out=4, kernel=3, stride=2),
        LayerSpec("dense", "d", out=9),
        LayerSpec("output", "e", out=5),
    ),
    NeuronSpec(leak=0.75, v_threshold=0.8),
    output_leak=0.25,
)


@pytest.mark.parametrize(
    "spec",
    [
        network_spec("mcu-mlp", (8, 8, 1), 10, 4),
        network_spec("mcu-lenet-s", (28, 28, 1), 10, 4),
        network_spec("mcu-lenet", (28, 28, 3), 10, 2),
        ODD,
    ],
    ids=lambda spec: spec.name,
)
def test_the_graph_computes_what_the_network_computes(spec: NetworkSpec, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    checkpoint = checkpoint_of(spec)
    save_checkpoint(checkpoint, path)
    graph = load_graph(path)
    assert (graph.input.shape, graph.input.scale) == (spec.input_shape, 1 / 16)
    net = SpikingNetwork(spec).double().eval()
    net.load_state_dict(checkpoint.state)
    raw = np.random.default_rng(0).integers(0, 17, (6, *spec.input_shape), dtype=np.uint8)
    with torch.no_grad():
        found = net(torch.from_numpy(raw / 16).permute(0, 3, 1, 2)).membranes.numpy()
    assert len(np.unique(found.round(6))) > 10
    for i in range(len(raw)):
        assert np.allclose(run_graph(graph, raw[i]), found[:, i], atol=1e-9)


def table_of(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = torch.load(path, weights_only=True)
    return table


def _drop_field(t: dict[str, Any]) -> None:
    del t["readout"]


def _drop_tensor(t: dict[str, Any]) -> None:
    del t["state"]["linear.conv.weight"]


def _reshape(t: dict[str, Any]) -> None:
    t["state"]["linear.conv.weight"] = torch.zeros(3)


def _not_finite(t: dict[str, Any]) -> None:
    t["state"]["linear.output.bias"][0] = float("nan")


def _newer(t: dict[str, Any]) -> None:
    t["version"] = 99


def _foreign(t: dict[str, Any]) -> None:
    t["format"] = "something"


def _kind(t: dict[str, Any]) -> None:
    t["network"]["layers"][1]["kind"] = "attention"


def _threshold(t: dict[str, Any]) -> None:
    t["network"]["v_threshold"] = float("nan")


def _same_name(t: dict[str, Any]) -> None:
    t["network"]["layers"][1]["name"] = "encoder"


def _classes(t: dict[str, Any]) -> None:
    t["class_names"] = ["a"]


def _network(t: dict[str, Any]) -> None:
    t["network"] = {"name": "x"}


def _input(t: dict[str, Any]) -> None:
    t["input"] = 3


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (_drop_field, "readout"),
        (_drop_tensor, "linear.conv.weight"),
        (_reshape, "linear.conv.weight"),
        (_not_finite, "not finite"),
        (_newer, "version 99"),
        (_foreign, "not an edgesnn checkpoint"),
        (_kind, "attention"),
        (_classes, "10 names"),
        (_threshold, "v_threshold"),
        (_same_name, "distinct"),
        (_network, "network"),
        (_input, "damaged"),
    ],
)
def test_altered_tables_end_in_one_line(
    saved: Path, alter: Callable[[dict[str, Any]], None], message: str
) -> None:
    table = table_of(saved)
    alter(table)
    torch.save(table, saved)
    with pytest.raises(EdgesnnError, match=message) as caught:
        load_graph(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


Change = Callable[[dict[str, Any]], None]


def tensor(name: str, change: Callable[[torch.Tensor], object]) -> Change:
    def alter(table: dict[str, Any]) -> None:
        table["state"][name] = change(table["state"][name])

    return alter


def put(*path: Any) -> Change:
    """Set the last of `path` at the place the others name."""

    def alter(table: dict[str, Any]) -> None:
        *places, last, value = path
        at: Any = table
        for place in places:
            at = at[place]
        at[last] = value

    return alter


def quantised(t: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


def _huge(t: dict[str, Any]) -> None:
    """A billion units in a file of a few kilobytes."""
    units = 10**9
    t["network"]["layers"][3]["out"] = units
    state = t["state"]
    inputs = state["linear.dense.weight"].shape[1]
    state["linear.dense.weight"] = torch.zeros(1, 1).expand(units, inputs)
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"norm.dense.{part}"] = torch.zeros(1).expand(units)
    state["linear.output.weight"] = torch.zeros(1, 1).expand(10, units)


LAYERS = ("network", "layers")


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (tensor("linear.conv.weight", lambda t: t.bfloat16()), "plain"),
        (tensor("linear.conv.weight", lambda t: t.to(torch.complex64)), "plain"),
        (tensor("norm.conv.running_var", lambda t: t.to(torch.complex64)), "plain"),
        (tensor("linear.conv.weight", lambda t: t > 0), "plain"),
        (tensor("linear.conv.weight", lambda t: t.to("meta")), "plain"),
        (tensor("linear.conv.weight", lambda t: t.to(torch.float8_e4m3fn)), "plain"),
        (tensor("linear.conv.weight", lambda t: t.to(torch.int64)), "plain"),
        (tensor("linear.output.weight", lambda t: t.to_sparse()), "plain"),
        (tensor("linear.output.weight", quantised), "plain"),
        (tensor("norm.conv.num_batches_tracked", lambda t: t.float()), "plain"),
        (_huge, "plain"),
        (put("network", "timesteps", 0), "timesteps"),
        (put("network", "timesteps", 128), "timesteps"),
        (put("network", "timesteps", 10**12), "timesteps"),
        (put("network", "name", "a\nb"), "name"),
        (put("network", "name", "../../x"), "name"),
        (put(*LAYERS, 1, "pool", 3), "conv has no pool"),
        (put(*LAYERS, 2, "pool", 3), "or-pool has no pool"),
        (put(*LAYERS, 2, "out", 7), "or-pool has no out"),
        (put(*LAYERS, 2, "padding", 1), "or-pool has no padding"),
        (put(*LAYERS, 3, "stride", 2), "dense has no stride"),
        (put(*LAYERS, 3, "pool", 2), "dense has no pool"),
        (put(*LAYERS, 4, "kernel", 2), "output has no kernel"),
        (put(*LAYERS, 1, "padding", 10**9), "padding"),
        (put("network", "neuron", "v_threshold", 1e308), "v_threshold"),
        (put("network", "neuron", "v_threshold", 10**400), "larger than any float"),
        (put("network", "neuron", "surrogate", "cube"), "surrogate 'cube'"),
        (put("input", torch.zeros(3)), "input is not a table"),
        (put("readout", []), "readout is not a table"),
        (put("report", "x", torch.zeros(3)), "plain values"),
        (put("report", "x", [{"y": (1, 2)}]), "plain values"),
        (put("class_names", 0, "a\x1b[31m"), "10 names"),
        (put("version", True), "version"),
    ],
)
def test_what_no_checkpoint_holds_is_refused(saved: Path, alter: Change, message: str) -> None:
    table = table_of(saved)
    alter(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about kinds of tensors it means to drop
        torch.save(table, saved)
        with pytest.raises(EdgesnnError, match=message) as caught:
            load_graph(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), MemoryError(), OverflowError("too large")])
def test_what_conversion_raises_is_one_line(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(_: object) -> None:
        raise error

    monkeypatch.setattr(module, "to_graph", broken)
    with pytest.raises(EdgesnnError, match=r"damaged checkpoint: .") as caught:
        load_graph(saved)
    assert "\n" not in str(caught.value)


def _truncate(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def _flip(raw: bytes) -> bytes:
    # A bit in the middle of the largest stored tensor.
    at = len(raw) // 2
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda _: b"", lambda _: b"hello"])
def test_damaged_files_end_in_one_line(saved: Path, damage: Callable[[bytes], bytes]) -> None:
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(EdgesnnError) as caught:
        load_graph(saved)
    assert "\n" not in str(caught.value)


def test_other_archives_and_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match="no such file"):
        load_graph(tmp_path / "missing.pt")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(EdgesnnError, match="not an edgesnn checkpoint"):
        load_graph(tmp_path / "plain.zip")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")  # a pickled class, not plain values
    with pytest.raises(EdgesnnError, match="not an edgesnn checkpoint"):
        load_graph(tmp_path / "module.pt")


def test_direct_coding_into_amos_neurons_is_refused_before_training() -> None:
    layers = (LayerSpec("direct-dense", "first", out=4), LayerSpec("output", "out", out=2))
    spec = NetworkSpec("x", (2, 2, 1), 2, 4, layers, NeuronSpec("amos"))
    with pytest.raises(UsageError, match="lif or if neurons, not amos"):
        spec.shapes()
