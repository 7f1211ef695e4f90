"""How a signal becomes inferences, from the data through checkpoint and graph into the program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn.checkpoint import Checkpoint, load_checkpoint, load_graph, save_checkpoint
from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.front_end import make_log_mel
from edgesnn.compiler.lower import lower
from edgesnn.data.dataset import checked, stratified_split
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_spec
from edgesnn.targets.errors import EdgesnnError

SOUND = ir.WindowStream(
    make_log_mel(8000, frame=256, hop=160, bands=8, offset=np.arange(8) * 100, gain=40),
    hop=2,
    smooth=3,
    votes=2,
    refractory=4,
    background=(2,),
)
STREAMS = (None, SOUND, ir.WindowStream(ir.Rows(50.0), hop=3), ir.EventStream(1000, 20))


def same(a: object, b: object) -> bool:
    """Equality of dataclasses that hold arrays."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    return type(a) is type(b) and a == b


def checkpoint_with(stream: ir.Stream | None) -> Checkpoint:
    spec = network_spec("mcu-mlp", (8, 8, 1), 3, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = SpikingNetwork(spec).state_dict()
    readout = g.ReadoutSpec("margin", 1.0)
    return Checkpoint(spec, state, 1 / 255, readout, ("a", "b", "c"), "x", {}, stream=stream)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_survives_a_checkpoint_and_reaches_the_graph(
    stream: ir.Stream | None, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(checkpoint_with(stream), path)
    assert same(load_checkpoint(path).stream, stream)
    assert same(load_graph(path).stream, stream)


@pytest.mark.parametrize("stream", STREAMS[:3])
def test_lowering_copies_it_into_the_program(stream: ir.Stream | None, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(checkpoint_with(stream), path)
    assert same(lower(load_graph(path)).stream, stream)


def test_older_checkpoints_have_none(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(checkpoint_with(None), path)
    table = torch.load(path, weights_only=True)
    del table["stream"]
    table["version"] = 2
    torch.save(table, path)
    assert load_checkpoint(path).stream is None


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    def alter(table: dict[str, Any]) -> None:
        *places, last, value = path
        for place in places:
            table = table[place]
        table[last] = value

    return alter


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (_set("stream", 7), "stream is 'None'"),
        (_set("stream", {"kind": "WindowStream"}), "stream has missing or unknown fields"),
        (_set("stream", "kind", "Sieve"), "'Sieve', not one of WindowStream, EventStream"),
        (_set("stream", "extra", 1), "unknown fields: extra"),
        (_set("stream", "hop", 0), "stream.hop is 0"),
        (_set("stream", "hop", 1.5), "stream.hop is '1.5', not int"),
        (_set("stream", "votes", True), "stream.votes is 'True'"),
        (_set("stream", "background", 2), "stream.background is not a list"),
        (_set("stream", "background", ["x"]), "stream.background is 'x'"),
        (_set("stream", "front", "kind", "Sieve"), "not one of Rows, LogMel"),
        (_set("stream", "front", "rate", -8000), "stream.front.rate"),
        (_set("stream", "front", "window", [1, 2]), "stream.front.window is not a plain vector"),
        (_set("stream", "front", "rise", torch.zeros(129)), "stream.front.rise"),
        (_set("stream", "front", "band", torch.zeros(3, 4, dtype=torch.int16)), "front.band"),
    ],
)
def test_what_is_no_stream_is_one_line(
    alter: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(checkpoint_with(SOUND), path)
    table = torch.load(path, weights_only=True)
    alter(table)
    torch.save(table, path)
    with pytest.raises(EdgesnnError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_data_set_carries_its_stream_and_groups() -> None:
    x, y = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    data = checked("x", "train", x, y, ("a", "b"), 1.0, stream=SOUND, groups=np.array([0, 0, 1, 1]))
    assert data.stream is SOUND
    assert data.groups is not None and data.groups.tolist() == [0, 0, 1, 1]
    assert replace(data, stream=None).groups is data.groups


def test_groups_are_held_out_whole() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 5)
    y = random.integers(0, 6, 600)
    kept, held = stratified_split(y, 0.15, 3, groups)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(600))
    assert not set(groups[kept]) & set(groups[held])
    share = np.bincount(y[held], minlength=6) / np.bincount(y)
    assert share.min() > 0.08
    assert len(held) < 0.25 * 600
    assert np.array_equal(held, stratified_split(y, 0.15, 3, groups)[1])


def test_the_last_group_of_a_class_is_kept() -> None:
    y, groups = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 3, 4])
    kept, held = stratified_split(y, 0.5, 0, groups)
    assert set(y[kept]) == {0, 1, 2}
    assert set(y[held]) == {1, 2}
