"""`make bench`, `make size`: the dense baseline computes what numpy says, the tables hold what they name."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.text import from_text
from edgesnn.targets.board import load_board
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import find_target

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BOARD = "mps2-an386"
emulated = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm")


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts import each other by their bare names; last, for one of them is called warnings."""
    sys.path.append(str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def net(scripts: None) -> ModuleType:
    return importlib.import_module("baseline.net")


@pytest.fixture
def firmware(scripts: None) -> ModuleType:
    return importlib.import_module("baseline.firmware")


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def _lif(name: str, projection: ir.Projection, channels: int) -> ir.Lif:
    threshold, bias = np.ones(channels, np.int32), np.arange(channels, dtype=np.int32)
    return ir.Lif(name, (projection,), ((1, 0),), threshold, bias)


def _output(source: str, weight: np.ndarray) -> ir.Accumulator:
    bias = np.arange(len(weight), dtype=np.int32)
    return ir.Accumulator("output", (ir.Dense(source, weight),), (((1, 0),),), bias)


def _program(name: str, nodes: tuple[ir.Node, ...]) -> ir.Program:
    return ir.Program(name, 4, nodes, ir.FirstSpike(1))


def _odd() -> ir.Program:
    """int8 samples off zero, strides, uneven padding, groups, dilation, pools of every sort."""
    rng = np.random.default_rng(1)
    first = ir.Conv("input", _weights(rng, 6, 3, 2, 2), (2, 1), (1, 0, 1, 1))
    grouped = ir.Conv("enc", _weights(rng, 8, 3, 3, 3), (1, 1), (1, 1, 1, 1), groups=2)
    dilated = ir.Conv("mean", _weights(rng, 5, 2, 2, 8), (1, 1), (1, 1, 1, 1), (2, 2))
    nodes = (
        ir.SampleInput("input", (13, 11, 2), "int8", 1.0, -7),
        ir.CurrentEncoder(
            "enc", first, ((1, 0),), np.ones(6, np.int32), np.arange(6, dtype=np.int32)
        ),
        _lif("grouped", grouped, 8),
        ir.SumPool("mean", "grouped", (2, 2), (1, 2)),
        _lif("dilated", dilated, 5),
        ir.OrPool("pool", "dilated", (3, 2), (1, 1)),
        _lif("dense", ir.Dense("pool", _weights(rng, 7, 4 * 4 * 5)), 7),
        _output("dense", _weights(rng, 3, 7)),
    )
    program = _program("odd", nodes)
    assert ir.shapes(program)["pool"] == (4, 4, 5)
    return program


def _net_b() -> ir.Program:
    rng = np.random.default_rng(2)
    same = (2, 2, 2, 2)
    nodes = (
        ir.SampleInput("input", (28, 28, 1), "uint8"),
        ir.LatencyEncoder(
            "enc",
            ir.Conv("input", _weights(rng, 16, 5, 5, 1), padding=same),
            np.zeros((16, 3), np.int32),
            (2, 2),
        ),
        _lif("conv", ir.Conv("enc", _weights(rng, 32, 5, 5, 16), padding=same), 32),
        ir.OrPool("pool", "conv", (2, 2), (2, 2)),
        _lif("dense", ir.Dense("pool", _weights(rng, 128, 1568)), 128),
        _output("dense", _weights(rng, 10, 128)),
    )
    return _program("net-b", nodes)


@emulated
@pytest.mark.parametrize("codegen", ["c", "llvm", "llvm, dot"])
@pytest.mark.parametrize("name", ["golden", "odd"])
def test_firmware_is_numpy(
    name: str, codegen: str, golden: Path, net: ModuleType, firmware: ModuleType, tmp_path: Path
) -> None:
    text = (golden / "samples.program").read_text(encoding="utf-8")
    dense = net.dense_net(_odd() if name == "odd" else from_text(text))
    board = load_board(BOARD)
    got = firmware.measure(dense, board, find_target(board.target), codegen, tmp_path / "build")
    frames = np.stack([firmware.frame(dense, seed) for seed in range(1, 5)])
    answers = net.infer(dense, frames)
    assert len(np.unique(answers, axis=0)) == len(frames)  # or equality would say little
    assert sum(macs for _, macs, _ in got.layers) == dense.macs > 0
    total = sum(count for _, _, count in got.layers)
    assert abs(total - got.instructions[-1]) < 0.1 * total
    assert max(got.instructions) < 1.05 * min(got.instructions)  # nearly independent of the values
    assert 0 < got.ram < 10_000 and 0 < got.flash < 30_000


@emulated
def test_a_wrong_answer_is_refused(
    golden: Path,
    net: ModuleType,
    firmware: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = from_text((golden / "samples.program").read_text(encoding="utf-8"))
    infer = net.infer
    monkeypatch.setattr(firmware, "infer", lambda net, frames: infer(net, frames) + 1)
    board = load_board(BOARD)
    with pytest.raises(EdgesnnError, match="dense baseline"):
        firmware.measure(
            net.dense_net(program), board, find_target(board.target), "c", tmp_path / "build"
        )


def test_numpy_is_the_sum_by_hand(net: ModuleType) -> None:
    """The first layer of the odd network, tap by tap."""
    program = _odd()
    dense = net.dense_net(program)
    layer = dense.layers[0]
    x = np.random.default_rng(3).integers(-128, 128, (1, 13, 11, 2))
    got = net.forward(layer, x)[0]
    encoder = program.nodes[1]
    assert isinstance(encoder, ir.CurrentEncoder)
    w = encoder.projection.weight
    for oy, ox, o in [(0, 0, 0), (3, 5, 2), (6, 10, 5), (0, 10, 4)]:
        total = int(encoder.bias[o])
        for ky, kx in np.ndindex(3, 2):
            y, x_ = oy * 2 + ky - 1, ox + kx
            if 0 <= y < 13 and 0 <= x_ < 11:
                total += int(((x[0, y, x_] + 7) * w[o, ky, kx]).sum())
        scaled = (total * int(layer.multiplier[o]) + 2**31) >> 32
        assert got[oy, ox, o] == min(max(scaled, 0), 127)


def test_activations_use_their_range(net: ModuleType) -> None:
    dense = net.dense_net(_odd())
    x = np.random.default_rng(4).integers(-128, 128, (4, 13, 11, 2))
    for layer in dense.layers[:-1]:
        x = net.forward(layer, x)
        assert x.max() > 30 and x.min() >= 0


def test_what_has_no_dense_counterpart(golden: Path, net: ModuleType) -> None:
    events = from_text((golden / "events.program").read_text(encoding="utf-8"))
    with pytest.raises(EdgesnnError, match="takes events"):
        net.dense_net(events)
    nodes = _net_b().nodes
    two = (*nodes[:3], ir.Merge("pool", ("enc", "conv")), *nodes[4:])
    with pytest.raises(EdgesnnError, match="pool is no layer in a row"):
        net.dense_net(_program("residual", two))


def test_constants_are_of_the_same_network(net: ModuleType) -> None:
    bench = importlib.import_module("bench")
    known = json.loads((SCRIPTS / "cmsis_nn.json").read_text(encoding="utf-8"))
    assert "CMSIS-NN at 99f736a" in known["provenance"]
    a, b = known["nets"]
    dense = net.dense_net(_net_b())
    assert bench.signature(dense) == b["layers"] and dense.macs == b["macs"]
    rng = np.random.default_rng(5)
    nodes = (
        ir.SampleInput("input", (28, 28, 1), "uint8"),
        ir.LatencyEncoder(
            "enc", ir.Dense("input", _weights(rng, 128, 784)), np.zeros((128, 3), np.int32)
        ),
        _output("enc", _weights(rng, 10, 128)),
    )
    dense = net.dense_net(_program("net-a", nodes))
    assert bench.signature(dense) == a["layers"] and dense.macs == a["macs"]


@emulated
def test_table_of_a_core(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = importlib.import_module("bench")
    monkeypatch.setattr(bench, "start_up", lambda arguments: 0.0)
    words = ["bench.py", "golden", "--images", "3", "--cores", "cortex-m4", "--layers"]
    monkeypatch.setattr(sys, "argv", words)
    assert bench.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"golden on cortex-m4 ({BOARD}, emulated), 3 random frames" in lines
    rows = [line.split() for line in lines if line.startswith("  ")]
    mine = next(row for row in rows if row[0] == "edgesnn")
    baseline = next(row for row in rows if row[:3] == ["dense", "int8", "baseline,"])
    assert int(mine[1].replace(",", "")) > 0
    assert int(baseline[5].replace(",", "")) > int(baseline[7].replace(",", "")) > 0  # i/MAC > 1
    assert {"encoder", "conv", "dense", "output"} <= {row[0] for row in rows}


def test_sizes_are_compared_by_function() -> None:
    size = importlib.import_module("size")
    now, before = (
        {".text a": 10, ".text b": 7, ".data c": 4},
        {".text a": 8, ".data c": 4, ".text d": 1},
    )
    assert size.changes(now, before, False) == [
        (".text a", 10, "+2"),
        (".text b", 7, "+7"),
        (".text d", None, "-1"),
    ]
    assert (".data c", 4, "") in size.changes(now, before, True)
    committed = json.loads(size.SIZES.read_text(encoding="utf-8"))
    assert committed[size.DETAILED]["functions"]
    for sizes in committed.values():
        assert {"compiler", "board", "functions", *size.TOTALS} == set(sizes)
