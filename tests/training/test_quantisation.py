"""Integer-mode training: its forward pass is the compiled program, bit for bit, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, to_graph
from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.interpret import Interpreter, project
from edgesnn.compiler.lower import lower
from edgesnn.compiler.random_graph import random_graph
from edgesnn.compiler.random_program import random_samples
from edgesnn.compiler.weight_format import WEIGHT_FORMATS
from edgesnn.data import load
from edgesnn.losses import tad_loss
from edgesnn.networks.spec import LayerSpec, NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_spec
from edgesnn.quantisation.aware import fine_tune
from edgesnn.quantisation.fold import tuned_checkpoint
from edgesnn.quantisation.integer import Leak, exact_arithmetic
from edgesnn.quantisation.network import IntegerNetwork, integer_network
from edgesnn.targets.errors import EdgesnnError, UsageError


def assert_equal_to_the_interpreter(network: IntegerNetwork, x: np.ndarray) -> None:
    """Every event and membrane of every node and step, and every decision with its counts."""
    program = network.program()
    with torch.no_grad():
        activity = network(x, trace=True)
    counts, membranes = network.evaluate_counts(x, batch=3), network.membranes(x, batch=2)
    # A readout that is never met shows all T steps.
    whole = Interpreter(replace(program, readout=ir.FirstSpike(2**31 - 1)))
    early = Interpreter(program)
    for i, sample in enumerate(x):
        kept: list[dict[str, np.ndarray]] = []
        steps = whole.trace(sample, lambda _, state, kept=kept: kept.append(state)).events  # type: ignore[misc]
        assert len(steps) == program.timesteps
        compared = 0
        for t, step in enumerate(steps):
            for node, addresses in zip(program.nodes[1:], step[1:], strict=True):
                if node.name in activity.events:
                    found = activity.events[node.name][t, i].permute(1, 2, 0).reshape(-1)
                    want = np.bincount(addresses, minlength=len(found))
                    assert found.tolist() == want.tolist(), (node.name, t)
                    compared += 1
                if node.name in activity.states:
                    u = activity.states[node.name][t, i].permute(1, 2, 0).double().numpy()
                    assert np.array_equal(u, kept[t][node.name]), (node.name, t)
                    compared += 1
        assert compared >= 2 * program.timesteps
        decision = early.infer(sample)
        assert (counts.labels[i], counts.steps[i]) == (decision.label, decision.step)
        assert counts.exited[i] == decision.exited
        assert counts.events[i].tolist() == decision.events.tolist()
        assert counts.sops[i].tolist() == decision.sops.tolist()
        assert counts.membranes[i].tolist() == decision.membranes.tolist()
        assert membranes[decision.step - 1, i].tolist() == decision.membranes.tolist()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([*WEIGHT_FORMATS, "int3"]))
def test_the_forward_pass_is_the_program(seed: int, weights: str) -> None:
    graph = random_graph(seed)
    network = integer_network(graph, weights)
    program = network.program()
    assert program.digest() == lower(graph, weights=weights).digest()
    assert program.digest() == lower(network.to_graph(), weights=weights).digest()
    assert_equal_to_the_interpreter(network, np.stack(random_samples(program, 3, seed)))


def checkpoint_of(net: str, **changes: object) -> Checkpoint:
    """An untrained network for digits."""
    spec = replace(network_spec(net, (8, 8, 1), 10, 4), **changes)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = SpikingNetwork(spec).train()
        x = torch.as_tensor(load("digits", "train").x[:100]).float().permute(0, 3, 1, 2) / 16
        for _ in range(30):
            network(x)  # statistics for the batch norms
    rule = g.ReadoutSpec("margin", 2.0)
    names = tuple("0123456789")
    return Checkpoint(spec, network.state_dict(), 1 / 16, rule, names, "digits", {})


@pytest.mark.parametrize(("weights", "gain"), [("int4", -0.03), ("ternary", 0.05)])
def test_a_trained_network_is_exact_and_few_bits_gain_by_training(
    weights: str, gain: float
) -> None:
    data, test = load("digits", "train"), load("digits", "test")
    checkpoint = checkpoint_of("mcu-mlp")
    network = integer_network(to_graph(checkpoint), "int8")
    history = fine_tune(network, data.x, data.y, epochs=8, lr=3e-2)
    assert history[-1] < 0.2 * history[0]

    def accuracy(tuned: IntegerNetwork) -> float:
        return float((tuned.membranes(test.x)[-1].argmax(axis=-1) == test.y).mean())

    assert accuracy(network) > 0.95
    rounded = integer_network(network.to_graph(), weights)
    aware = integer_network(network.to_graph(), weights)
    fine_tune(aware, data.x, data.y, epochs=4, lr=5e-3)
    assert accuracy(aware) >= accuracy(rounded) + gain
    assert_equal_to_the_interpreter(aware, test.x[:10])


def test_changed_parameters_are_lowered_again() -> None:
    checkpoint = checkpoint_of("mcu-mlp")
    network = integer_network(to_graph(checkpoint))
    first = network.program()
    assert network.program() is first
    with torch.no_grad():
        network.weight["output"].data[0, 0] += 1.0
    assert network.program().digest() == lower(network.to_graph()).digest() != first.digest()


def test_the_same_seed_gives_the_same_weights() -> None:
    data = load("digits", "train")
    checkpoint = checkpoint_of("mcu-mlp")
    found = []
    for seed in (0, 0, 1):
        network = integer_network(to_graph(checkpoint), "int6")
        fine_tune(network, data.x[:300], data.y[:300], epochs=1, seed=seed)
        found.append(network.program().digest())
    assert found[0] == found[1] != found[2]


def layers(*middle: LayerSpec, first: LayerSpec | None = None) -> dict[str, object]:
    encoder = first or LayerSpec("encode-conv", "encoder", out=8, kernel=3, padding=1)
    return {"layers": (encoder, *middle, LayerSpec("output", "output", out=10))}


CONV = LayerSpec("conv", "conv", out=8, kernel=3, padding=1)
DENSE = LayerSpec("dense", "dense", out=24)
MERGE = LayerSpec("merge", "sum", sources=("encoder", "conv"))
MEAN = LayerSpec("avg-pool", "mean", kernel=2, stride=2)
DIRECT = LayerSpec("direct-conv", "encoder", out=8, kernel=3, padding=1)
NETS: dict[str, tuple[str, dict[str, object]]] = {
    "mlp": ("mcu-mlp", {}),
    "lenet": ("mcu-lenet-s", {}),
    "one step": ("mcu-lenet-s", {"timesteps": 1}),
    "merge and average": ("mcu-mlp", layers(CONV, MERGE, MEAN, DENSE)),
    "direct coding": ("mcu-mlp", layers(CONV, DENSE, first=DIRECT)),
    "raw": ("mcu-mlp", layers(CONV, DENSE, first=LayerSpec("encode-raw", "encoder"))),
    "hard reset": ("mcu-mlp", {"neuron": NeuronSpec(reset="hard")}),
    "amos": ("mcu-mlp", {"neuron": NeuronSpec("amos", leak=0.75)}),
    "forced": ("mcu-mlp", {"neuron": NeuronSpec("amos", forced=True)}),
}


@pytest.mark.parametrize("net", NETS)
def test_gradients_are_those_of_the_float_network(net: str) -> None:
    """With fine integers the two losses and their gradients by the same parameters nearly agree."""
    data = load("digits", "train")
    base, changes = NETS[net]
    checkpoint = checkpoint_of(base, **changes)
    network = integer_network(to_graph(checkpoint), "int8")
    folded = tuned_checkpoint(checkpoint, network)
    reference = SpikingNetwork(folded.network)
    reference.load_state_dict(folded.state)
    y = torch.as_tensor(data.y[:200].astype(np.int64))
    activity = network(data.x[:200])
    loss = tad_loss(activity.membranes * activity.scale, y)
    loss.backward()
    x = torch.as_tensor(data.x[:200]).float().permute(0, 3, 1, 2) * checkpoint.scale
    expected = tad_loss(reference(x).membranes, y)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    compared = 0
    for name, linear in reference.linear.items():
        for kind, found in (("weight", network.weight[name]), ("bias", network.bias[name])):
            want = getattr(linear, kind).grad
            if not want.any():  # an encoder with one step encodes nothing
                assert found.grad is None or not found.grad.any()
                continue
            got = found.grad.permute(0, 3, 1, 2) if found.dim() == 4 else found.grad
            cosine = torch.cosine_similarity(got.flatten(), want.flatten().double(), dim=0)
            assert cosine > 0.9, (name, kind)
            assert float(got.norm() / want.norm()) == pytest.approx(1.0, abs=0.2)
            compared += 1
    assert compared >= 4


def test_a_tuned_network_goes_back_into_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("mcu-lenet", learn_output_leak=True)
    network = integer_network(to_graph(checkpoint), "power-of-two")
    tuned = tuned_checkpoint(checkpoint, network)
    save_checkpoint(tuned, tmp_path / "tuned.pt")
    again = load_checkpoint(tmp_path / "tuned.pt")
    assert (again.weights, again.network.norm) == ("power-of-two", False)
    program = lower(to_graph(again), weights=again.weights)
    assert program.digest() == network.program().digest()


def test_raw_samples_have_no_weights_to_train() -> None:
    raw = g.Conv(np.ones((2, 1, 1, 1)), groups=2)
    layers = (
        g.LatencyEncode("raw", "input", raw, activation="identity"),
        g.Output("out", "raw", g.Dense(np.random.default_rng(0).normal(0, 1, (3, 32)))),
    )
    source = g.SampleInput((4, 4, 2), scale=1 / 255)
    graph = g.Graph("raw", source, 4, layers, g.ReadoutSpec("margin", 1.0))
    network = integer_network(graph, "ternary")
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"weight.out", "bias.out"}
    x = np.random.default_rng(1).integers(0, 256, (20, 4, 4, 2)).astype(np.uint8)
    fine_tune(network, x, np.arange(20) % 3, epochs=1)
    assert network.to_graph().layers[0].linear.weight.tolist() == raw.weight.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_of_whole_numbers_are_exact(dtype: torch.dtype) -> None:
    """3 x 3, stride 1, many channels: where Winograd and FFT would be tried, and would round."""
    rng = np.random.default_rng(0)
    top = 100 if dtype == torch.float32 else 32767
    x = rng.integers(-top, top + 1, (32, 20, 20, 16))
    w = rng.integers(-127, 128, (32, 3, 3, 16)).astype(np.int8)
    with exact_arithmetic():
        found = torch.nn.functional.conv2d(
            torch.tensor(x).to(dtype).permute(0, 3, 1, 2),
            torch.tensor(w).to(dtype).permute(0, 3, 1, 2),
        )
    assert 100 < found.abs().max() < (1 << 24 if dtype == torch.float32 else 1 << 53)
    want = np.stack([project(ir.Conv("x", w), sample) for sample in x[:4]])
    assert np.array_equal(found[:4].permute(0, 2, 3, 1).double().numpy(), want)


def test_exact_arithmetic_restores_what_it_changed() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.enabled
    try:
        torch.set_float32_matmul_precision("medium")
        with exact_arithmetic():
            assert not torch.backends.cudnn.enabled
            if hasattr(torch.backends.mkldnn, "conv"):
                assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert torch.backends.cudnn.enabled == before[1]


def test_leaks_floor_each_term_by_itself() -> None:
    leaks: tuple[ir.Shifts, ...] = (((1, 1),), ((1, 0), (-1, 2), (-1, 4)), (), ((1, 0),))
    u = torch.arange(-70, 70, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 4, 1, 1)
    found = Leak(leaks, u)(u)
    whole = np.arange(-70, 70)
    for c, leak in enumerate(leaks):
        assert found[:, c, 0, 0].tolist() == ir.leak_apply(whole, leak).tolist()


def test_errors_are_one_line() -> None:
    checkpoint = checkpoint_of("mcu-mlp")
    with pytest.raises(UsageError, match="int8, int6, int4"):
        integer_network(to_graph(checkpoint), "int16")
    with pytest.raises(UsageError, match="not int3"):
        tuned_checkpoint(checkpoint, integer_network(to_graph(checkpoint), "int3"))
    network = integer_network(to_graph(checkpoint))
    x, y = np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4)
    with pytest.raises(UsageError, match="epochs"):
        fine_tune(network, x, y, epochs=0)
    with pytest.raises(EdgesnnError, match="not finite"):
        fine_tune(network, x, y, loss=lambda u, _: u.sum() * float("nan"))
