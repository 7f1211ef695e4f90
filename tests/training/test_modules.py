"""Modules of one's own: the same membranes as the network they are traced into, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgesnn.checkpoint import load_checkpoint, state_shapes
from edgesnn.layers import (
    AvgPool,
    DirectConv,
    DirectDense,
    EncodeConv,
    EncodeDense,
    EncodeRaw,
    OrPool,
    Output,
    SpikingConv,
    SpikingDense,
)
from edgesnn.networks.resolve import OWN, label, recipe_of, resolve
from edgesnn.networks.spec import NetworkSpec, NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.trace import from_module, to_module
from edgesnn.networks.zoo import network_kind
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.train import train

Shape = tuple[int, int, int]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = SpikingConv(channels, channels, 3, padding=1, neuron="amos")
        self.b = SpikingConv(channels, channels, 3, padding=1)
        self.skip = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) + self.skip(x)


class Residual(nn.Module):
    """Nested modules, a pool used twice, additions, several neurons, learned leaks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(EncodeConv(1, 8, 3, padding=1, pool=2, timesteps=4))
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.pool = AvgPool(2)
        self.fc = SpikingDense(8, 16, neuron=NeuronSpec(learn_leak=True))
        self.out = Output(16, 10, learn_leak=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(self.pool(self.pool(self.blocks(self.stem(x))))))


class Branches(nn.Module):
    """A sum of three, two of its terms read elsewhere too."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = DirectConv(1, 6, 3, padding=1, timesteps=4, neuron=NeuronSpec(reset="hard"))
        self.a = SpikingConv(6, 6, 1, neuron="if")
        self.b = SpikingConv(6, 6, 3, padding=1, neuron="psn", timesteps=4)
        self.out = Output(6 * 64, 10, leak=1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enc(x)
        y = self.a(x)
        return self.out(torch.add(x.add(y), self.b(y)))


def signal() -> nn.Module:
    return nn.Sequential(
        EncodeConv(3, 8, (1, 5), (1, 2), (0, 2), timesteps=4, pool=(1, 2)),
        SpikingConv(8, 12, (1, 3), padding=(0, 1)),
        OrPool((1, 2)),
        SpikingDense(12 * 4, 16),
        Output(16, 10),
    )


def plain() -> nn.Module:
    return nn.Sequential(EncodeDense(64, 20, timesteps=4), SpikingDense(20, 9), Output(9, 10))


def bare() -> nn.Module:
    """Without batch norms."""
    return nn.Sequential(
        EncodeRaw(timesteps=4, pool=2), SpikingConv(1, 4, 3, norm=False), Output(16, 10)
    )


def direct() -> nn.Module:
    return nn.Sequential(
        DirectDense(64, 12, timesteps=4, norm=False), SpikingDense(12, 8, norm=False), Output(8, 10)
    )


MAKERS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "residual": (Residual, (8, 8, 1)),
    "branches": (Branches, (8, 8, 1)),
    "signal": (signal, (1, 32, 3)),
    "plain": (plain, (8, 8, 1)),
    "bare": (bare, (8, 8, 1)),
    "direct": (direct, (8, 8, 1)),
}


def made(name: str, seed: int = 1) -> tuple[nn.Module, Shape]:
    """A module with random values in every parameter and batch-norm statistic."""
    make, shape = MAKERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        for key, tensor in module.state_dict().items():
            if "norm" in key and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) * 0.5 + (0.5 if "var" in key else 0.1))
    return module, shape


def samples(shape: Shape, seed: int = 2) -> Tensor:
    return torch.rand(9, shape[2], *shape[:2], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MAKERS)
def test_the_module_and_the_network_compute_the_same(name: str) -> None:
    module, shape = made(name)
    spec, state = from_module(module, shape, 10, 4)
    assert {key: tuple(x.shape) for key, x in state.items()} == state_shapes(spec)
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    net = SpikingNetwork(spec)
    net.load_state_dict(state)
    x = samples(shape)
    module.eval(), net.eval()
    found = module(x)
    assert found.shape == (4, 9, 10) and len(found.unique()) > 20
    assert torch.equal(found, net(x).membranes)
    module.train(), net.train()
    ours, theirs = net(x).membranes, module(x)
    assert torch.equal(theirs, ours)
    ours.square().mean().backward()
    theirs.square().mean().backward()
    again = from_module(module, shape, 10, 4)[1]  # batch-norm statistics have moved alike
    assert all(torch.equal(again[key], x) for key, x in net.state_dict().items())
    grads = sorted(float(p.grad.sum()) for p in net.parameters() if p.grad is not None)
    same = sorted(float(p.grad.sum()) for p in module.parameters() if p.grad is not None)
    assert len(grads) > 2 and grads == pytest.approx(same, abs=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_weights_go_back(name: str) -> None:
    module, shape = made(name)
    other, _ = made(name, seed=5)
    x = samples(shape)
    assert not torch.equal(module.eval()(x), other.eval()(x))
    to_module(from_module(module, shape, 10, 4)[1], other)
    assert torch.equal(module(x), other(x))


def test_weights_of_another_module_are_refused() -> None:
    module, _ = made("plain")
    state = from_module(*made("bare"), 10, 4)[1]
    before = {key: x.clone() for key, x in module.state_dict().items()}
    with pytest.raises(UsageError, match="is not the module of these weights"):
        to_module(state, module)
    assert all(torch.equal(before[key], x) for key, x in module.state_dict().items())


def test_the_description_of_a_residual_net() -> None:
    spec, _ = from_module(*made("residual"), 10, 4, name="mine")
    assert spec.name == "mine" and spec.learn_output_leak
    reads = spec.sources()
    assert reads["merge"] == ("blocks_0_b", "stem_0")
    assert reads["merge_2"] == ("blocks_1_b", "merge")
    assert reads["pool_2"] == ("pool",)
    kinds = {x.name: spec.neuron_of(x).kind for x in spec.layers if x.kind == "conv"}
    assert kinds == {f"blocks_{n}_{x}": k for n in (0, 1) for x, k in (("a", "amos"), ("b", "lif"))}
    branches, _ = from_module(*made("branches"), 10, 4)
    assert branches.sources()["merge"] == ("enc", "a", "b")


class Bad(Residual):
    """Residual with another forward."""

    def __init__(self, forward: Callable[[Residual, Tensor], object]) -> None:
        super().__init__()
        self.other = forward
        self.scale = nn.Parameter(torch.ones(()))
        self.relu = nn.ReLU()
        self.listed = [SpikingDense(16, 16)]

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self, x)  # type: ignore[return-value]


def tail(net: Residual, x: Tensor) -> Tensor:
    return net.out(net.fc(net.pool(net.pool(x))))


REFUSED: dict[str, Callable[[Bad, Tensor], object]] = {
    r"relu \(test_modules.py, line \d+\) cannot be compiled": lambda n, x: tail(
        n, torch.relu(n.stem(x))
    ),
    r"layer 'relu', a ReLU, \(test_modules": lambda n, x: tail(n, n.relu(n.stem(x))),
    r"mul \(test_modules": lambda n, x: tail(n, n.stem(x) * 2),
    r"an addition of something other": lambda n, x: tail(n, n.stem(x) + 1),
    r"something other than": lambda n, x: tail(n, torch.add(s := n.stem(x), s, alpha=2)),
    r"tensor 'scale'": lambda n, x: tail(n, n.stem(x) * n.scale),
    r"mean \(test_modules": lambda n, x: tail(n, n.stem(x)).mean(0),
    r"stem.0 is called twice": lambda n, x: tail(n, n.stem(x) + n.blocks(n.stem(x))),
    r"two or more different sources": lambda n, x: tail(n, (s := n.stem(x)) + s),
    r"cannot be followed \(test_modules.py, line \d+\): .*control flow": lambda n, x: (
        tail(n, n.stem(x)) if x.sum() > 0 else x
    ),
    r"not installed as a submodule": lambda n, x: n.out(n.listed[0](n.fc(n.stem(x)))),
    r"in_features 8, but what it reads has 128": lambda n, x: n.out(n.fc(n.stem(x))),
    r"calls 0 Output layers": lambda n, x: n.fc(n.pool(n.pool(n.stem(x)))),
    r"Output layer's membranes, no more": lambda n, x: (tail(n, n.stem(x)), 1),
    r"returns its Output": lambda n, x: x,
    r"reads samples": lambda n, x: n.out(n.fc(x)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_net_of_ours_is_refused_in_a_line(message: str) -> None:
    forward = REFUSED[message]
    if message == r"reads samples":
        message = r"the first layer and no other is an encoder|reads samples"
    with pytest.raises(UsageError, match=message) as caught:
        from_module(Bad(forward), (8, 8, 1), 10, 4)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: nn.Linear(64, 10), (8, 8, 1), "calls no layer|cannot be compiled|followed"),
        (plain, (1, 64, 2), "in_features 64, but what it reads has 128"),
        (signal, (8, 32, 3), "is not square"),
        (Residual, (1, 64, 1), r"samples of height 1 need kernel \(1, n\)"),
        (Residual, (8, 8, 3), "in_channels 1, but what it reads has 3"),
        (lambda: nn.Sequential(plain(), Output(10, 10)), (8, 8, 1), "2 Output layers"),
        (
            lambda: nn.Sequential(EncodeDense(64, 4, timesteps=4, norm=False), SpikingDense(4, 4)),
            (8, 8, 1),
            "Output layer|batch norm",
        ),
        (
            lambda: nn.Sequential(EncodeDense(64, 4, timesteps=8), Output(4, 10)),
            (8, 8, 1),
            "made for 8 timesteps, not 4",
        ),
        (
            lambda: nn.Sequential(
                EncodeDense(64, 4, timesteps=4, norm=False), SpikingDense(4, 4), Output(4, 10)
            ),
            (8, 8, 1),
            "either all layers have a batch norm",
        ),
    ],
)
def test_modules_that_do_not_fit(make: Callable[[], nn.Module], shape: Shape, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_module(make(), shape, 10, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikingConv(1, 2, 0), "kernel 0"),
        (lambda: SpikingConv(1, 2, (3, 3, 3)), "kernel"),  # type: ignore[arg-type]
        (lambda: SpikingConv(0, 2, 3), "in_channels 0"),
        (lambda: SpikingDense(4, -1), "out_features -1"),
        (lambda: SpikingDense(4, 2, neuron="psn"), "give the layer its timesteps"),
        (lambda: SpikingDense(4, 2, neuron="relu"), "one of lif"),
        (lambda: EncodeDense(4, 2, timesteps=0), "timesteps 0"),
        (lambda: Output(4, 2, leak=2.0), "leak 2.0"),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


FILE = """
from torch import nn
from edgesnn.layers import EncodeDense, Output
def make(shape, classes, timesteps):
    n = shape[0] * shape[1] * shape[2]
    return nn.Sequential(EncodeDense(n, 20, timesteps=timesteps), Output(20, classes))
def broken(shape, classes, timesteps):
    raise ValueError("no\\nsuch net")
def number(shape, classes, timesteps):
    return 7
constant = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_what_a_net_stands_for(file: Path) -> None:
    named = resolve("mcu-mlp", (8, 8, 1), 10, 4, neuron="amos", encoder="raw")
    assert named.state is None and named.recipe == network_kind("mcu-mlp").recipe
    assert named.spec.neuron.kind == "amos" and named.spec.encoder.kind == "encode-raw"
    module, shape = made("plain")
    own = resolve(module, shape, 10, 4, neuron=NeuronSpec(), encoder="latency", output_leak=0.5)
    assert own.state is not None and own.recipe is OWN is recipe_of(module)
    assert label(module) == own.name == "Sequential"
    net = f"{file}:make"
    a, b, c = (resolve(net, shape, 10, 4, seed=seed) for seed in (0, 0, 1))
    assert label(net) == "make" and a.state is not None and b.state is not None
    assert all(torch.equal(a.state[key], b.state[key]) for key in a.state)
    assert c.state is not None
    assert not all(torch.equal(a.state[key], c.state[key]) for key in a.state)


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        ("lenet", UsageError, "one of mcu-mlp"),
        ("none.py:make", EdgesnnError, "none.py: no such file"),
        ("mine.py", UsageError, "mine.py:name"),
        ("mine.py:other", UsageError, "no function 'other'"),
        ("mine.py:constant", UsageError, "no function 'constant'"),
        ("mine.py:broken", EdgesnnError, r"raised ValueError: no \(line 8\)"),
        ("mine.py:number", UsageError, "returned a int, not a torch.nn.Module"),
        ("syntax.py:make", EdgesnnError, "cannot import .*: SyntaxError"),
        (7, UsageError, "neither a name"),
    ],
)
def test_nets_that_are_none(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    net: str,
    error: type[EdgesnnError],
    message: str,
) -> None:
    monkeypatch.chdir(file.parent)
    Path("syntax.py").write_text("def make(:\n")
    with pytest.raises(error, match=message) as caught:
        resolve(net, (8, 8, 1), 10, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option", [{"neuron": "amos"}, {"encoder": "raw"}, {"output_leak": 1.0}], ids=str
)
def test_a_module_decides_for_itself(option: dict[str, object]) -> None:
    module, shape = made("plain")
    with pytest.raises(UsageError, match="module of your own"):
        resolve(module, shape, 10, 4, **option)  # type: ignore[arg-type]


def test_a_checkpoint_needs_no_code_of_the_user(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.pt"
    train(f"{file}:make", "digits", out, epochs=1, progress=False, threads=1)
    file.unlink()
    code = f"""
from edgesnn import api
from edgesnn.compiler.interpret import Interpreter
import numpy as np
with Interpreter(api.load_program({str(out)!r})) as engine:
    print(engine.infer(np.zeros((8, 8, 1), np.uint8)).step)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 4
    assert load_checkpoint(out).network.name == "Sequential"


def test_the_guide_shows_the_example_and_it_runs(repo: Path, tmp_path: Path) -> None:
    example = (repo / "examples" / "own_module.py").read_text()
    guide = (repo / "docs" / "MODULES.md").read_text()
    body = example.split('"""\n', 1)[1].strip()
    assert body in guide
    done = subprocess.run(
        [sys.executable, str(repo / "examples" / "own_module.py"), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "in integers: " in done.stdout
    assert (tmp_path / "own.pt").exists()
