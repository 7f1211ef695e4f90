"""Every style gives the interpreter's answer, here on the host, where micro-kernels are plain C."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesnn.compiler import build, ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.layout import SpikeMap, gather_layout, strip_layout
from edgesnn.compiler.random_program import random_program
from edgesnn.compiler.styles import BYTES, DSP, MVE, PAIRS, PLAIN, Style, small
from edgesnn.parity import check_parity

MICRO = (DSP, PAIRS, BYTES, MVE)


def forced(style: Style) -> object:
    """A choice that takes `style` wherever it is possible."""

    def choose(program: ir.Program, bounds: object, *_: object, **__: object) -> dict[str, Style]:
        out = {}
        for node in program.nodes:
            if isinstance(node, ir.Population | ir.LatencyEncoder):
                out[node.name] = style if possible(program, node, style) else PLAIN
        return out

    return choose


def possible(program: ir.Program, node: ir.Node, style: Style) -> bool:
    bounds = prove(program).nodes[node.name]
    if any(isinstance(p, ir.Conv) and p.groups > 1 for p in ir.projections(node)):
        return False
    if isinstance(node, ir.LatencyEncoder):
        source = program.input
        assert isinstance(source, ir.SampleInput)
        return style is not MVE or source.dtype != "int16"
    if isinstance(node, ir.Accumulator) and style.biased:
        return False
    top = 0 if isinstance(node, ir.Accumulator) else int(np.max(node.threshold))
    return bounds.width == "int16" and top < 2**15


def clipped(program: ir.Program) -> ir.Program:
    """The same program with weights of six bits."""

    def less(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Population):
            return node
        pairs = tuple(replace(p, weight=np.clip(p.weight, -32, 31)) for p in node.projections)
        return replace(node, projections=pairs)

    return replace(program, nodes=tuple(less(node) for node in program.nodes))


@pytest.mark.parametrize("style", MICRO, ids=lambda style: style.name)
@pytest.mark.parametrize("seed", range(300, 306))
def test_every_style_equals_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, style: Style, seed: int
) -> None:
    monkeypatch.setattr(build, "choose", forced(style))
    program = random_program(seed)
    for variant in (program, clipped(program)):
        folder = tmp_path / str(variant is program)
        report = check_parity(variant, "cpu", samples=4, seed=seed, folder=folder)
        assert not report.mismatches


def test_a_spike_map_holds_its_channels() -> None:
    for channels, bits, words in ((1, 8, 1), (8, 8, 1), (9, 16, 1), (17, 32, 1), (33, 32, 2)):
        spikes = SpikeMap((3, 5, channels))
        assert (spikes.bits, spikes.words) == (bits, words)
        assert spikes.plane % 4 == 0 and spikes.plane * 8 >= 15 * words * bits


def test_encoder_layouts_hold_every_weight() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, size=(5, 3, 4, 2)).astype(np.int8)
    p = ir.Conv("input", weight, stride=(2, 1), padding=(1, 1, 1, 1), dilation=(2, 1))
    strip = strip_layout(p, (9, 8, 2), pairs=True)
    low, high = strip.words.astype(np.int64) & 0xFFFF, strip.words.astype(np.int64) >> 16
    halves = np.stack([low, high])
    signed = np.where(halves >= 2**15, halves - 2**16, halves)
    assert np.array_equal(np.sort(signed[signed != 0]), np.sort(weight[weight != 0]))
    gather = gather_layout(p, (9, 8, 2))
    assert gather.taps == (5, 8) and gather.weights.shape[1] % 16 == 0
    assert np.array_equal(gather.weights[:5, :8], weight[:, 0].reshape(5, 8))


def test_small_weights() -> None:
    assert small(np.array([-32, 31], dtype=np.int8))
    assert not small(np.array([32], dtype=np.int8))
    assert not small(np.array([-33], dtype=np.int8))
