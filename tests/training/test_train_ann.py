"""examples/train_ann.py: every network trains and both of torch's exporters write what it computes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SCRIPT = Path(__file__).parents[2] / "examples" / "train_ann.py"
# Net: the sample's shape, the limit on its weights (the size that others' tests and the docs rely on).
NETS = {
    "lenet": ((1, 28, 28), 220_000),
    "lenet-s": ((1, 28, 28), 85_000),
    "vgg": ((3, 32, 32), 300_000),
    "resnet": ((3, 32, 32), 300_000),
    "quant3": ((1, 28, 28), 220_000),
    "quant3-vgg": ((3, 32, 32), 300_000),
    "separable": ((1, 28, 28), 10_000),
    "signal": ((1, 64), 5_000),
}
TRIPLE = ["Clip", "QuantizeLinear", "DequantizeLinear"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module, on one thread."""
    spec = importlib.util.spec_from_file_location("train_ann", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_num_threads(1)
    return module


def learned(script: ModuleType, name: str) -> tuple[nn.Module, Tensor]:
    """(the net after two optimiser steps on noise, one sample): batch norms and steps have moved."""
    torch.manual_seed(0)
    shape, _ = NETS[name]
    net = script.NETS[name](shape[0], 10, shape[-1])
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(2):
        scores = net(torch.randn(8, *shape))
        loss = nn.functional.cross_entropy(scores, torch.arange(8))
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimiser.step()
    return net.eval(), torch.randn(1, *shape)


def onnx_scores(path: Path, x: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of the file, node by node.

    Optimised, it quantises the weights beside a QuantizeLinear to eight bits, and quant3 comes out different.
    """
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def test_the_nets_are_those_tested(script: ModuleType) -> None:
    assert sorted(script.NETS) == sorted(NETS)


@pytest.mark.parametrize("name", NETS)
def test_size_and_torchscript_export(script: ModuleType, name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    net, example = learned(script, name)
    assert sum(p.numel() for p in net.parameters() if p.dim() > 1) <= NETS[name][1]
    script.export(net, example, tmp_path / "net.onnx")
    batch = torch.cat([example, 2 * example, -example])  # the batch's size is free
    with torch.no_grad():
        expected = net(batch).numpy()
    assert np.abs(onnx_scores(tmp_path / "net.onnx", batch.numpy()) - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["resnet", "quant3", "separable", "signal"])
def test_dynamo_export(script: ModuleType, name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    net, example = learned(script, name)
    script.export(net, example, tmp_path / "net.onnx", dynamo=True)
    with torch.no_grad():
        expected = net(example).numpy()
    assert np.abs(onnx_scores(tmp_path / "net.onnx", example.numpy()) - expected).max() < 1e-4


@pytest.mark.parametrize("dynamo", [False, True])
def test_three_bits_in_onnx(script: ModuleType, dynamo: bool, tmp_path: Path) -> None:
    """Each rectifier is a Clip to [0, 7 steps] and a uint8 pair of that step."""
    onnx = pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
    net, example = learned(script, "quant3")
    steps = [m.step.item() for m in net.modules() if isinstance(m, script.Levels)]
    script.export(net, example, tmp_path / "net.onnx", dynamo=dynamo)
    graph = onnx.load(tmp_path / "net.onnx").graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    pairs = [
        [values[name] for name in (*clip.input[1:], *quantize.input[1:], *back.input[1:])]
        for clip, quantize, back in zip(nodes, nodes[1:], nodes[2:], strict=False)
        if [n.op_type for n in (clip, quantize, back)] == TRIPLE
    ]
    assert len(pairs) == len(steps) == 3
    for step, (low, high, scale, zero, again, zero_again) in zip(steps, pairs, strict=True):
        assert (low, zero, zero_again) == (0, 0, 0) and zero.dtype == np.uint8
        assert high == pytest.approx(7 * step) and scale == again == pytest.approx(step)


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8[count, 8, 8] with a bright quarter and which one it is, int64[count]."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 80, (count, 8, 8), dtype=np.uint8)
    y = np.arange(count) % 4
    for sample, label in zip(x, y, strict=True):
        sample[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 150
    return x, y


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """A data file of four classes, 360 samples to train on and 40 to test with."""
    (x_train, y_train), (x_test, y_test) = blobs(360, 1), blobs(40, 2)
    path = tmp_path / "blobs.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def command(data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("lenet", "--data", str(data), "--out", str(out), "--holdout", "40"),
        *("--batch", "32", "--seed", "3", *more),
    ]


def test_a_run_from_data_to_onnx(script: ModuleType, own_data: Path, tmp_path: Path) -> None:
    """The report's accuracy is the exported file's on the stored raw samples."""
    pytest.importorskip("onnx")
    out = tmp_path / "net.onnx"
    report = script.train(script.parsed(command(own_data, out, "--epochs", "3")))
    assert report == json.loads(out.with_suffix(".json").read_text())
    assert (report["trained_on"], report["held_out"]) == (320, 40)
    assert report["validation"] > 0.9 and report["test"] > 0.9
    calibration = np.load(tmp_path / "net-calibration.npz")
    assert calibration["x"].shape == (320, 1, 8, 8) and calibration["x"].dtype == np.uint8
    test = np.load(tmp_path / "net-test.npz")
    assert test["x"].shape == (40, 1, 8, 8) and test["x"].dtype == np.uint8
    x = (test["x"].astype(np.float32) / 255 - report["mean"][0]) / report["std"][0]
    found = onnx_scores(out, x.astype(np.float32)).argmax(1)
    assert (found == test["y"]).mean() == pytest.approx(report["test"])


def test_calibration_is_none_of_what_chose_the_epoch(
    script: ModuleType, own_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "net.onnx"
    script.train(script.parsed(command(own_data, out, "--epochs", "1", "--no-test")))
    assert not (tmp_path / "net-test.npz").exists()
    train = np.load(own_data)
    kept, _ = script.stratified_split(train["y_train"], 40 / 360, 3)
    allowed = {sample.tobytes() for sample in train["x_train"][kept]}
    used = {sample.tobytes() for sample in np.load(tmp_path / "net-calibration.npz")["x"]}
    assert used == allowed


def test_a_cut_run_is_exported_from_its_state(
    script: ModuleType, own_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    first, again = tmp_path / "first.onnx", tmp_path / "again.onnx"
    report = script.train(script.parsed(command(own_data, first, "--epochs", "1")))
    state = ("--state", str(first.with_suffix(".pt")), "--epochs", "0")
    same = script.train(script.parsed(command(own_data, again, *state)))
    assert (same["validation"], same["test"]) == (report["validation"], report["test"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch", "0"], "1 and more"),
        (["--out", "nowhere/net.onnx"], "nowhere is no folder"),
        (["--state", "nowhere.pt"], "nowhere.pt is no file"),
    ],
)
def test_options_that_cannot_be(
    script: ModuleType, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        script.parsed(["lenet", "--out", "net.onnx", *more])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_too_few_samples_is_one_line(script: ModuleType, own_data: Path, tmp_path: Path) -> None:
    options = script.parsed(command(own_data, tmp_path / "net.onnx", "--batch", "512"))
    with pytest.raises(script.EdgesnnError, match="320 samples are left"):
        script.train(options)


def test_samples_moved_by_a_known_shift(script: ModuleType) -> None:
    """Every output is the input moved by at most `reach`, blank where it left the picture."""
    x = torch.randint(1, 256, (64, 3, 6, 6), dtype=torch.uint8)
    out = script.augmented(x, False, 2, torch.Generator().manual_seed(0))
    wide = nn.functional.pad(x, (2,) * 4)
    moves = [(dy, dx) for dy in range(5) for dx in range(5)]
    used = {
        next(m for m in moves if torch.equal(a, w[:, m[0] : m[0] + 6, m[1] : m[1] + 6]))
        for a, w in zip(out, wide, strict=True)
    }
    assert len(used) > 15
    mirrored = script.augmented(x, True, 0, torch.Generator().manual_seed(0))
    flips = [torch.equal(a, b.flip(2)) for a, b in zip(mirrored, x, strict=True)]
    assert 16 < sum(flips) < 48
    assert all(f or torch.equal(a, b) for f, a, b in zip(flips, mirrored, x, strict=True))
