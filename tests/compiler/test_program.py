"""The integer program: text, file, legality, proofs, and the interpreter against equations written out."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import WidthError, fan_out, leak_interval, prove
from edgesnn.compiler.check import IllegalProgram, check_program
from edgesnn.compiler.choose import choose
from edgesnn.compiler.esnn_file import load_program, program_bytes, save_program
from edgesnn.compiler.interpret import Interpreter, project
from edgesnn.compiler.plan import PREFERENCES, plan_memory
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.compiler.text import from_text, to_text
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import find_target

TINY = """\
program(name='tiny', timesteps=3, class_names=())
x = SampleInput(shape=(1, 1, 2), dtype='uint8', scale=1.0, zero_point=0)
enc = LatencyEncoder(projection=Dense(source='x', weight=int8[2, 2](1, 0, 0, 1)), \
thresholds=int32[2, 2](10, 5, 10, 5), pool=(1, 1))
out = Accumulator(projections=(Dense(source='enc', weight=int8[2, 2](3, -1, 0, 4)),), leaks=(((1, 1),),), \
bias=int32[2](0, 0))
readout(FirstSpike(value=4))
"""


def test_a_program_worked_by_hand() -> None:
    """x = (12, 6): unit 0 spikes at t=1 (12 >= 10), unit 1 at t=2 (6 >= 5). U1 = (3, 0); U2 = (1-1, 0+4)."""
    trace = Interpreter(from_text(TINY)).trace(np.array([[[12, 6]]], dtype=np.uint8))
    assert trace.decision.label == 1
    assert trace.decision.step == 2
    assert trace.decision.exited
    assert trace.decision.membranes.tolist() == [0, 4]
    assert [[e.tolist() for e in step] for step in trace.events] == [[[], [0], []], [[], [1], []]]
    assert trace.decision.sops.tolist() == [0, 0, 4]


def test_no_output_spike_gives_the_largest_membrane_at_t() -> None:
    trace = Interpreter(from_text(TINY)).trace(np.array([[[12, 0]]], dtype=np.uint8))
    # t=1: (3, 0); t=2: (1, 0); t=3: the silent unit spikes last: (0 - 1, 0 + 4) would stop, 4 >= 4.
    assert (trace.decision.step, trace.decision.exited) == (3, True)
    quiet = from_text(TINY.replace("FirstSpike(value=4)", "FirstSpike(value=5)"))
    decision = Interpreter(quiet).infer(np.array([[[12, 0]]], dtype=np.uint8))
    assert (decision.label, decision.step, decision.exited) == (1, 3, False)


@pytest.mark.parametrize("seed", range(40))
def test_text_and_file_round_trip(seed: int, tmp_path: Path) -> None:
    program = random_program(seed)
    text = to_text(program)
    again = from_text(text)
    assert to_text(again) == text
    assert again.digest() == program.digest()
    referenced = from_text(to_text(program, inline=0), dict(ir.arrays(program)))
    assert referenced.digest() == program.digest()
    save_program(program, tmp_path / "m.esnn")
    loaded = load_program(tmp_path / "m.esnn")
    assert loaded.digest() == program.digest()
    assert program_bytes(loaded) == (tmp_path / "m.esnn").read_bytes()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("program(", "not readable"),
        ("import os", "line 1"),
        ("program(name='a', timesteps=1, class_names=())\nx = Nothing(a=1)\n", "unknown kind"),
        ("x = SampleInput(shape=(1, 1, 1), dtype='uint8')\n", "needs a program"),
        (TINY.replace("int8[2, 2](1, 0", "int8[2, 2](400, 0"), "outside int8"),
        (TINY.replace("bias=", "bogus="), "bogus"),
    ],
)
def test_bad_text_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(EdgesnnError, match=complaint) as e:
        from_text(text)
    assert "\n" not in str(e.value)


def _tampered(change: object, program: ir.Program | None = None) -> bytes:
    """A program's file (TINY's) with program.json changed by a function of its document."""
    source = zipfile.ZipFile(io.BytesIO(program_bytes(program or from_text(TINY))))
    document = json.loads(source.read("program.json"))
    change(document)  # type: ignore[operator]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for name in source.namelist():
            data = json.dumps(document).encode() if name == "program.json" else source.read(name)
            z.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(version=99), "file version 99"),
        (lambda d: d["program"]["nodes"][1].update(kind="Magic"), "Magic"),
        (lambda d: d["program"]["nodes"][1].pop("pool"), "pool"),
        (lambda d: d["program"].update(timesteps="4"), "timesteps"),
        (lambda d: d["program"]["nodes"][2].update(name="enc"), "unique"),
        (lambda d: d["program"]["nodes"][2]["bias"].update(array="none"), "none.npy"),
        (lambda d: d["program"]["nodes"][2]["bias"].update(shape=[3]), "program.json says"),
    ],
)
def test_altered_files_are_refused_in_one_line(
    change: object, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.esnn"
    path.write_bytes(_tampered(change))
    with pytest.raises(EdgesnnError, match=complaint) as e:
        load_program(path)
    assert "\n" not in str(e.value)


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    """They wrote square pooling windows as one number."""

    def old(d: dict[str, Any]) -> None:
        d["version"] = 1
        for node in d["program"]["nodes"]:
            node.update({k: node[k][0] for k in ("pool", "kernel", "stride") if k in node})

    text = TINY.replace("out =", "p = SumPool(source='enc', kernel=(1, 1), stride=(2, 2))\nout =")
    program = from_text(
        text.replace("source='enc', weight=int8[2, 2](3", "source='p', weight=int8[2, 2](3")
    )
    path = tmp_path / "m.esnn"
    path.write_bytes(_tampered(old, program))
    assert load_program(path).digest() == program.digest()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = program_bytes(from_text(TINY))
    path = tmp_path / "m.esnn"
    for length in range(0, len(data) - 1, 37):
        path.write_bytes(data[:length])
        with pytest.raises(EdgesnnError):
            load_program(path)


def test_hostile_entries_are_refused(tmp_path: Path) -> None:
    """Archives that numpy or zip choke on in their own ways."""
    path = tmp_path / "m.esnn"
    good = program_bytes(from_text(TINY))
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(2))
    for content in (archive.getvalue(), b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((", b"", b"junk"):
        buffer = io.BytesIO()
        source = zipfile.ZipFile(io.BytesIO(good))
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
            for name in source.namelist():
                z.writestr(name, content if name == "out.bias.npy" else source.read(name))
        path.write_bytes(buffer.getvalue())
        with pytest.raises(EdgesnnError) as e:
            load_program(path)
        assert "\n" not in str(e.value)
        broken = bytearray(buffer.getvalue())
        broken[60:90] = b"\xff" * 30
        path.write_bytes(broken)
        with pytest.raises(EdgesnnError):
            load_program(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(data: st.DataObject) -> None:
    """Any damage gives an EdgesnnError or, in a don't-care byte of the zip, the same program."""
    good = program_bytes(from_text(TINY))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.esnn"
        path.write_bytes(bytes(bad))
        try:
            program = load_program(path)
        except EdgesnnError:
            return
        check_program(program)


def _replaced(node: str, **changes: object) -> ir.Program:
    p = from_text(TINY)
    return replace(p, nodes=tuple(replace(n, **changes) if n.name == node else n for n in p.nodes))


ILLEGAL = {
    "timesteps": lambda: replace(from_text(TINY), timesteps=0),
    "identifiers": lambda: _replaced("x", name="1x"),
    "stands before": lambda: _replaced(
        "out", projections=(ir.Dense("later", np.ones((2, 2), np.int8)),)
    ),
    "do not increase": lambda: _replaced("enc", thresholds=np.array([[1, 2], [2, 1]], np.int32)),
    "int32": lambda: _replaced("out", bias=np.zeros(2, np.int64)),
    "inputs": lambda: _replaced("out", projections=(ir.Dense("enc", np.ones((2, 3), np.int8)),)),
    "weights are int8": lambda: _replaced("out", projections=(ir.Dense("enc", np.ones((2, 2))),)),
    "only encoders": lambda: _replaced(
        "out", projections=(ir.Dense("x", np.ones((2, 2), np.int8)),)
    ),
    "4096": lambda: _replaced(
        "out", projections=(ir.Conv("enc", np.ones((2, 1, 1, 2), np.int8), stride=(2**40, 1)),)
    ),
    "shape is": lambda: _replaced("x", shape=(10**9, 10**9, 1)),
    "scale is": lambda: _replaced("x", scale=np.float64(0.5)),
    "leak": lambda: _replaced("out", leaks=(((1, 40),),)),
    "zero_point": lambda: _replaced("x", zero_point=300),
    "readout": lambda: replace(from_text(TINY), readout=ir.FirstSpike(2**40)),
    "class_names": lambda: replace(from_text(TINY), class_names=("a",)),
    "last node": lambda: replace(from_text(TINY), nodes=from_text(TINY).nodes[:2]),
}


@pytest.mark.parametrize("rule", ILLEGAL)
def test_illegal_programs_name_their_rule(rule: str) -> None:
    with pytest.raises(IllegalProgram, match=rule):
        check_program(ILLEGAL[rule]())


def test_or_pool_refuses_multiplicity() -> None:
    text = TINY.replace(
        "out =",
        "s = SumPool(source='enc', kernel=(1, 1), stride=(1, 1))\n"
        "o = OrPool(source='s', kernel=(1, 1), stride=(1, 1))\nout =",
    ).replace("source='enc', weight=int8[2, 2](3", "source='o', weight=int8[2, 2](3")
    check_program(from_text(text))  # a 1 x 1 window keeps multiplicity 1
    wide = """\
program(name='wide', timesteps=2, class_names=())
e = EventInput(shape=(4, 4, 1))
s = SumPool(source='e', kernel=(2, 2), stride=(2, 2))
o = OrPool(source='s', kernel=(2, 2), stride=(2, 2))
out = Accumulator(projections=(Dense(source='o', weight=int8[2, 1](1, 2)),), leaks=((),), bias=int32[2](0, 0))
readout(FirstSpike(value=1))
"""
    with pytest.raises(IllegalProgram, match="multiplicity 1"):
        check_program(from_text(wide))


def _slow_conv(p: ir.Conv, s: np.ndarray) -> np.ndarray:
    """The convolution exactly as ir.Conv's docstring states it, one sum at a time."""
    oh, ow, o = ir.conv_shape(p, s.shape)  # type: ignore[arg-type]
    _, kh, kw, per_in = p.weight.shape
    out = np.zeros((oh, ow, o), dtype=np.int64)
    for oy, ox, c in np.ndindex(oh, ow, o):
        group = c // (o // p.groups)
        for ky, kx, i in np.ndindex(kh, kw, per_in):
            y = oy * p.stride[0] + ky * p.dilation[0] - p.padding[0]
            x = ox * p.stride[1] + kx * p.dilation[1] - p.padding[1]
            if 0 <= y < s.shape[0] and 0 <= x < s.shape[1]:
                out[oy, ox, c] += int(p.weight[c, ky, kx, i]) * int(s[y, x, group * per_in + i])
    return out


def _convolutions() -> list[tuple[ir.Conv, ir.Shape]]:
    found = []
    for seed in range(60):
        program = random_program(seed)
        shapes = ir.shapes(program)
        for node in program.nodes:
            for p in ir.projections(node):
                if isinstance(p, ir.Conv) and p.weight.size < 3000:
                    found.append((p, shapes[p.source]))
    return found


def test_projection_and_fan_out_equal_their_definitions() -> None:
    cases = _convolutions()
    assert len(cases) > 25
    rng = np.random.default_rng(0)
    for p, shape in cases:
        s = rng.integers(0, 3, shape)
        assert np.array_equal(project(p, s), _slow_conv(p, s))
        ones = replace(p, weight=np.ones_like(p.weight))
        fan = fan_out(p, shape)
        y, x = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
        single = np.zeros(shape, dtype=np.int64)
        single[y, x, 0] = 1
        assert fan[y, x] == _slow_conv(ones, single).sum()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-(2**20), 0),
    st.integers(0, 2**20),
    st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(0, 8)), max_size=3),
    st.data(),
)
def test_leak_interval_is_sound(
    lo: int, hi: int, leak: list[tuple[int, int]], data: st.DataObject
) -> None:
    terms = tuple(leak)
    low, high = leak_interval(np.array([lo]), np.array([hi]), terms)
    for u in (lo, hi, data.draw(st.integers(lo, hi)), data.draw(st.integers(lo, hi))):
        assert low[0] <= ir.leak_apply(np.array([u]), terms)[0] <= high[0]


@pytest.mark.parametrize("seed", range(30))
def test_bounds_hold_on_what_happens(seed: int) -> None:
    """Membranes, queues and SOPs of real runs stay within what was proved beforehand."""
    program = random_program(seed)
    bounds = prove(program)
    engine = Interpreter(program)
    for x in random_samples(program, 4, seed):
        trace = engine.trace(x)
        d = trace.decision
        for i, node in enumerate(program.nodes):
            b = bounds.nodes[node.name]
            assert all(len(step[i]) <= b.capacity for step in trace.events)
            assert d.sops[i] <= b.sops_per_inference
        out = bounds.nodes[program.output.name]
        assert out.lo is not None and out.hi is not None
        assert np.all(out.lo <= d.membranes) and np.all(d.membranes <= out.hi)


def test_the_interpreter_refuses_what_every_engine_refuses() -> None:
    engine = Interpreter(from_text(TINY))
    for bad in (np.zeros((2, 1, 1), np.uint8), np.zeros((1, 1, 2)), np.zeros((1, 1, 2), np.int16)):
        with pytest.raises(EdgesnnError, match="takes uint8 samples"):
            engine.infer(bad)


def test_a_value_that_cannot_fit_is_refused() -> None:
    leaks = (((1, 0), (1, 0), (-1, 1)),)
    with pytest.raises(WidthError, match="leak"):
        prove(_replaced("out", leaks=leaks, bias=np.array([45 * 10**7, 0], np.int32)))
    with pytest.raises(WidthError, match="out: values can reach"):
        prove(_replaced("out", bias=np.array([2**31 - 1, 0], np.int32)))


@pytest.mark.parametrize("seed", range(40))
def test_buffers_that_live_together_never_overlap(seed: int) -> None:
    program = random_program(seed, stack=seed % 2 == 1)
    bounds = prove(program)
    target = find_target(("cpu", "cortex-m3", "cortex-m4", "cortex-m55")[seed % 4])
    plan = plan_memory(program, bounds, choose(program, bounds, target), PREFERENCES[seed % 2])
    buffers = list(plan.buffers.values())
    for i, a in enumerate(buffers):
        assert a.offset % 8 == 0 and a.offset + a.bytes <= plan.arena_bytes
        for b in buffers[i + 1 :]:
            apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
            assert apart or not a.meets(b), (a, b)
