"""Programs with a stream: text and file, rules, bounds, and the reference against cases worked by hand."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import WidthError, leak_bounds, membrane_bounds, prove
from edgesnn.compiler.check import IllegalProgram, check_program
from edgesnn.compiler.esnn_file import load_program, program_bytes, save_program
from edgesnn.compiler.exits import gain
from edgesnn.compiler.front_end import log_mel_rows, make_log_mel
from edgesnn.compiler.inspect import describe
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_program import random_program
from edgesnn.compiler.random_stream import (
    KINDS,
    random_chunks,
    random_signal,
    random_stream_program,
)
from edgesnn.compiler.stream import StreamInterpreter, Votes, windows_of
from edgesnn.compiler.text import from_text, to_text
from edgesnn.runtime.engine import TimedDecision
from edgesnn.targets.errors import EdgesnnError, UsageError

ROWS = """\
program(name='rows', timesteps=2, class_names=())
x = SampleInput(shape=(2, 3, 1), dtype='int8', scale=1.0, zero_point=0)
enc = LatencyEncoder(\
projection=Dense(source='x', weight=int8[2, 6](1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1)), \
thresholds=int32[2, 1](1, 1), pool=(1, 1))
out = Accumulator(projections=(Dense(source='enc', weight=int8[3, 2](1, 0, 0, 1, 0, 0)),), leaks=(((1, 0),),), \
bias=int32[3](0, 0, 0))
readout(FirstSpike(value=1))
stream(WindowStream(front=Rows(rate=10.0), hop=1, smooth=1, votes=1, refractory=0, background=()))
"""
EVENTS = """\
program(name='events', timesteps=4, class_names=())
x = EventInput(shape=(1, 2, 1))
h = Lif(projections=(Dense(source='x', weight=int8[1, 2](4, 0)),), leak=((1, 1),), threshold=int32[1](6), \
bias=int32[1](0), reset='soft')
out = Accumulator(projections=(Dense(source='x', weight=int8[2, 2](0, 3, 0, -1)), \
Dense(source='h', weight=int8[2, 1](0, 8))), leaks=(((1, 1),),), bias=int32[2](0, 0))
readout(FirstSpike(value=5))
stream(EventStream(step_us=10, refractory=2))
"""


def _key(d: TimedDecision) -> tuple[Any, ...]:
    x = d.decision
    counts = (x.membranes.tolist(), x.events.tolist(), x.sops.tolist())
    return (d.time, d.smoothed, d.detected, x.label, x.step, x.exited, *counts)


def _run(program: ir.Program, chunks: Iterable[np.ndarray]) -> list[tuple[Any, ...]]:
    """What falls on chunks; of events, until six steps after the last one."""
    engine, out, last = StreamInterpreter(program), [], 0
    for chunk in chunks:
        out += engine.push(chunk)
        if isinstance(program.stream, ir.EventStream) and len(chunk):
            last = int(chunk[-1, 0])
    if isinstance(program.stream, ir.EventStream):
        out += engine.advance(last + 6 * program.stream.step_us)
    return [_key(d) for d in out]


@pytest.mark.parametrize("seed", range(36))
def test_chunks_make_no_difference_and_streams_equal_batches(seed: int) -> None:
    program = random_stream_program(seed)
    signal = random_signal(program, seed)
    whole = _run(program, [signal])
    for cut in range(3):
        assert _run(program, random_chunks(signal, 100 * seed + cut)) == whole
    if isinstance(program.stream, ir.WindowStream):
        if len(signal) < 300:
            assert _run(program, np.split(signal, len(signal))) == whole
        times, samples = windows_of(program, signal)
        assert len(times) >= 4 and times.tolist() == [d[0] for d in whole]
        engine = Interpreter(program)
        for sample, found in zip(samples, whole, strict=True):
            decision = engine.infer(sample)
            assert (decision.label, decision.membranes.tolist()) == (found[3], found[6])


@pytest.mark.parametrize("seed", range(12))
def test_text_and_file_round_trip(seed: int, tmp_path: Path) -> None:
    program = random_stream_program(seed)
    bare = replace(program, stream=None)
    text = to_text(program)
    assert text.startswith(to_text(bare)) and text.splitlines()[-1].startswith("stream(")
    assert to_text(from_text(text)) == text
    referenced = from_text(to_text(program, inline=0), dict(ir.arrays(program)))
    assert referenced.digest() == program.digest() != bare.digest()
    save_program(program, tmp_path / "m.esnn")
    loaded = load_program(tmp_path / "m.esnn")
    assert loaded.digest() == program.digest()
    assert program_bytes(loaded) == (tmp_path / "m.esnn").read_bytes()
    assert _document(program)["version"] == 4


def _document(program: ir.Program) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(program_bytes(program))) as z:
        document: dict[str, Any] = json.loads(z.read("program.json"))
    return document


def test_a_program_without_a_stream_says_nothing_of_one() -> None:
    program = random_program(1)
    assert "stream" not in to_text(program)
    document = _document(program)
    assert document["version"] == 3 and "stream" not in document["program"]
    assert describe(program)["stream"] is None


def test_the_tables_of_a_front_end_are_part_of_the_identity() -> None:
    program = random_stream_program(0, "log-mel")
    assert isinstance(program.stream, ir.WindowStream)
    front = program.stream.front
    assert isinstance(front, ir.LogMel)
    assert {"stream.front.window", "stream.front.offset"} <= {p for p, _ in ir.arrays(program)}
    other = replace(program.stream, front=replace(front, offset=front.offset + np.int32(1)))
    assert replace(program, stream=other).digest() != program.digest()


# Votes: labels of windows, "-" where no label has enough votes; a detection where a label stands in `reported`.
VOTES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "every window": ({}, "00122", "00122", "00122"),
    "without background, refractory": ({"refractory": 2}, "0012221", "0012221", "0..2..1"),
    "votes": ({"smooth": 3, "votes": 2}, "0121100", "---1110", "...1110"),
    "ties to the lowest": ({"smooth": 4, "votes": 2}, "2211", "-221", ".221"),
    "once while in force": ({"background": (0,)}, "01112210011", "01112210011", ".1..2.1..1."),
    "two background classes": ({"background": (0, 2)}, "12011", "12011", "1..1."),
    "none ends it": (
        {"background": (0,), "smooth": 2, "votes": 2},
        "11211122",
        "-1--11-2",
        ".1..1..2",
    ),
    "refractory counts windows": (
        {"background": (0,), "refractory": 3},
        "1022222011",
        "1022222011",
        "1...2...1.",
    ),
    "still there after refractory": (
        {"background": (0,), "refractory": 2},
        "112222",
        "112222",
        "1..2..",
    ),
    "it ended while resting": (
        {"background": (0,), "refractory": 4},
        "1011111",
        "1011111",
        "1....1.",
    ),
}


@pytest.mark.parametrize("name", VOTES)
def test_votes_and_detections_worked_by_hand(name: str) -> None:
    settings, labels, smoothed, reported = VOTES[name]
    votes = Votes(ir.WindowStream(ir.Rows(1.0), 1, **settings), 3)
    found = [votes.add(int(c)) for c in labels]
    assert "".join("-" if s is None else str(s) for s, _ in found) == smoothed
    assert "".join(str(s) if d else "." for s, d in found) == reported


def test_windows_of_rows_worked_by_hand() -> None:
    """Where the sum of two rows is positive class 0 spikes first, where it is negative class 1."""
    engine = StreamInterpreter(from_text(ROWS))
    rows = np.array([[1, 1, 1], [1, 0, 0], [-9, 0, 0], [0, 0, 1]], dtype=np.int8)
    found = engine.push(rows)
    assert [(d.time, d.decision.label, d.smoothed, d.detected) for d in found] == [
        (2, 0, 0, True),
        (3, 1, 1, True),
        (4, 1, 1, True),
    ]
    engine.start_stream()
    assert engine.push(rows[:1]) == []
    assert [d.time for d in engine.push(rows[1:2])] == [2]


def test_a_signal_is_a_map_of_one_row() -> None:
    """(1, L, C): the rows of the stream are its L columns of C samples."""
    text = ROWS.replace("(2, 3, 1)", "(1, 3, 2)")
    times, samples = windows_of(from_text(text), np.arange(10, dtype=np.int8).reshape(5, 2))
    assert times.tolist() == [3, 4, 5]
    assert samples.shape == (3, 1, 3, 2)
    assert samples[1].ravel().tolist() == [2, 3, 4, 5, 6, 7]
    assert len(windows_of(from_text(text), np.zeros((2, 2), np.int8))[0]) == 0


def test_sound_falls_into_rows_and_windows() -> None:
    """Frames of 12 samples every 30, windows of two rows every second row: decisions at 42, 102, 162, ..."""
    front = make_log_mel(8000, frame=12, hop=30, bands=1, offset=2048, gain=200)
    x = ir.SampleInput("x", (2, 1, 1), "uint8")
    encoder = ir.Dense("x", np.array([[1, 1], [-1, -1]], dtype=np.int8))
    program = from_text(ROWS)
    nodes = (x, replace(program.nodes[1], projection=encoder), program.nodes[2])
    program = replace(program, nodes=nodes, stream=ir.WindowStream(front, hop=2))
    sound = np.random.default_rng(0).integers(-9000, 9000, 170).astype(np.int16)
    times, samples = windows_of(program, sound)
    assert times.tolist() == [42, 102, 162]
    rows = log_mel_rows(front, sound)
    assert np.array_equal(samples[1].reshape(-1), rows[2:4].reshape(-1))
    for shape in (sound, sound[:, None]):
        assert [d.time for d in StreamInterpreter(program).push(shape)] == [42, 102, 162]
    about = describe(program)["stream"]
    assert (about["window_ms"], about["hop_ms"], about["row_values"]) == (5.25, 7.5, 1)


def test_continuous_mode_worked_by_hand() -> None:
    """Unit 1 gives class 0 3; unit 0 makes h spike every other time, which gives class 1 8.

    Step 1: an event of 1 (twice: counts once), U = (3, -1). Step 2: U = (1 + 3, -1 - 1) = (4, -2), h = 4.
    Step 3: h = 2 + 4 spikes (6 >= 6), U = (2, -1 + 8): class 1 at 30 us. Steps 4, 5 rest: the event of 1 in
    step 4 does nothing, h = 4 in step 5. Step 6: h = 6 spikes, U = (0, 8), from zero.
    """
    program = from_text(EVENTS)
    engine = StreamInterpreter(program)
    events = [[0, 1], [9, 1], [10, 0], [11, 1], [29, 0], [30, 1], [45, 0], [50, 0]]
    assert engine.push(np.array(events[:5])) == []
    (first,) = engine.push(np.array(events[5:7]))
    assert (first.time, first.smoothed, first.detected) == (30, 1, True)
    assert (first.decision.label, first.decision.step, first.decision.exited) == (1, 3, True)
    assert first.decision.membranes.tolist() == [2, 7]
    assert first.decision.events.tolist() == [4, 1, 0]
    assert first.decision.sops.tolist() == [0, 4, 8 + 2]
    assert engine.push(np.array(events[7:])) == []
    assert engine.advance(59) == []
    (second,) = engine.advance(60)
    assert (second.time, second.decision.step) == (60, 6)
    assert second.decision.membranes.tolist() == [0, 8]
    # In steps 4...6: three events in, one spike; the output worked in step 6 only.
    assert second.decision.events.tolist() == [3, 1, 0]
    assert second.decision.sops.tolist() == [0, 3, 2 + 2]
    engine.start_stream()
    assert [_key(d) for d in engine.push(np.array([*events, [60, 0]]))] == [
        _key(first),
        _key(second),
    ]


def test_a_margin_decides_and_a_silence_only_leaks() -> None:
    program = from_text(EVENTS.replace("FirstSpike(value=5)", "Margin(value=6)"))
    engine = StreamInterpreter(program)
    assert engine.push(np.array([[5, 1], [10_005, 1]])) == []  # 3 and -1; then 0 and -1 stay
    (d,) = engine.push(np.array([[10_015, 1], [10_020, 1]]))
    assert d.time == 10_020 and d.decision.membranes.tolist() == [4, -2]
    assert engine.advance(15_000) == []


def test_advance_never_goes_back() -> None:
    engine = StreamInterpreter(from_text(EVENTS))
    engine.push(np.array([[25, 1]]))
    assert engine.advance(-5) == [] and engine.advance(0) == []
    engine.push(np.array([[25, 0]]))
    with pytest.raises(UsageError, match="inf is no time: give microseconds below"):
        engine.advance(float("inf"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="only a stream of events"):
        StreamInterpreter(from_text(ROWS)).advance(10)


def test_times_beyond_32_bits() -> None:
    step = 2**31 - 1
    program = replace(from_text(EVENTS), stream=ir.EventStream(step, 0))
    engine = StreamInterpreter(program)
    assert engine.push(np.array([[5 * step, 1], [6 * step, 1]])) == []
    assert engine.push(np.array([[7 * step - 1, 0]])) == []
    (d,) = engine.push(np.array([[7 * step, 0], [8 * step, 0]]))
    assert d.time == 8 * step and d.decision.step == 8


BAD_CHUNKS: dict[str, tuple[str, Callable[[], np.ndarray], str]] = {
    "dtype": (ROWS, lambda: np.zeros((2, 3), np.uint8), "takes int8"),
    "values": (ROWS, lambda: np.zeros((2, 4), np.int8), r"int8\[n, 3\]"),
    "flat rows": (ROWS, lambda: np.zeros(6, np.int8), r"got int8\[6\]"),
    "events' dtype": (EVENTS, lambda: np.zeros((1, 2)), "int64"),
    "events' shape": (EVENTS, lambda: np.zeros(2, np.int64), "int64"),
    "late": (EVENTS, lambda: np.array([[19, 0]]), "19 us is late: the step under way began at 20"),
    "negative": (EVENTS, lambda: np.array([[-1, 0]]), "late"),
    "descending": (EVENTS, lambda: np.array([[30, 0], [29, 0]]), "29 us after 30 us"),
    "descending chunks": (EVENTS, lambda: np.array([[22, 0]]), "22 us after 25 us"),
    "address": (EVENTS, lambda: np.array([[30, 0], [31, 2]]), "address 2 is outside 0...1"),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_are_refused_whole(name: str) -> None:
    text, chunk, complaint = BAD_CHUNKS[name]
    good = np.array([[5, 1], [25, 1]]) if text is EVENTS else np.ones((3, 3), np.int8)
    more = np.array([[26, 1], [41, 0]]) if text is EVENTS else good
    engine, undisturbed = StreamInterpreter(from_text(text)), StreamInterpreter(from_text(text))
    engine.push(good)
    undisturbed.push(good)
    with pytest.raises(UsageError, match=complaint) as e:
        engine.push(chunk())
    assert "\n" not in str(e.value)
    assert list(map(_key, engine.push(more))) == list(map(_key, undisturbed.push(more)))


def test_a_program_without_a_stream_has_no_stream_interpreter() -> None:
    with pytest.raises(UsageError, match="no stream"):
        StreamInterpreter(random_program(1))


def _window(**changes: Any) -> ir.Program:
    program = from_text(ROWS)
    assert program.stream is not None
    return replace(program, stream=replace(program.stream, **changes))


def _log_mel(**changes: Any) -> ir.Program:
    front = make_log_mel(8000, frame=20, hop=10, bands=3)
    program = _window(front=replace(front, **changes))
    x = replace(program.input, dtype="uint8")
    return replace(program, nodes=(x, *program.nodes[1:]))


def _continuous(old: str = "", new: str = "", **changes: Any) -> ir.Program:
    program = from_text(EVENTS.replace(old, new) if old else EVENTS)
    assert program.stream is not None
    return replace(program, stream=replace(program.stream, **changes))


_AMOS = ("h = Lif(", "h = Amos("), ("reset='soft'", "forced=False")
FRONT = make_log_mel(8000, frame=20, hop=10, bands=3)
ILLEGAL: dict[str, tuple[Callable[[], ir.Program], str]] = {
    "hop 0": (lambda: _window(hop=0), "hop is a whole number in 1...2"),
    "hop beyond the window": (lambda: _window(hop=3), "hop is a whole number in 1...2"),
    "votes": (lambda: _window(smooth=2, votes=3), "votes is a whole number in 1...2"),
    "smooth": (lambda: _window(smooth=128), "smooth is a whole number in 1...127"),
    "refractory": (lambda: _window(refractory=-1), "refractory is"),
    "background twice": (lambda: _window(background=(1, 1)), "distinct classes in 0...2"),
    "background class": (lambda: _window(background=(3,)), "distinct classes in 0...2"),
    "all background": (lambda: _window(background=(2, 0, 1)), "some class is not background"),
    "rate": (lambda: _window(front=ir.Rows(0.0)), "rate is a positive"),
    "infinite rate": (lambda: _window(front=ir.Rows(float("inf"))), "rate is a positive"),
    "no number": (lambda: _window(front=ir.Rows(float("nan"))), "rate is a positive"),
    "endless rows": (lambda: _window(front=ir.Rows(5e-324)), "rate is a positive"),
    "whole rate": (lambda: _window(front=ir.Rows(10)), "a float"),
    "events in windows": (
        lambda: replace(from_text(EVENTS), stream=ir.WindowStream(ir.Rows(1.0), 1)),
        "an input of samples",
    ),
    "bands": (lambda: _log_mel(offset=np.zeros(4, np.int32)), r"of shape \(rows, 4, 1\)"),
    "uint8": (lambda: _window(front=FRONT), "uint8 input"),
    "log-mel rate": (lambda: _log_mel(rate=0), "rate is"),
    "log-mel hop": (lambda: _log_mel(hop=0), "hop is"),
    "window dtype": (lambda: _log_mel(window=np.zeros(20)), "window is int16"),
    "window sign": (lambda: _log_mel(window=np.full(20, -1, np.int16)), "not negative"),
    "frame 1": (lambda: _log_mel(window=np.ones(1, np.int16)), "at least two"),
    "frame 4097": (lambda: _log_mel(window=np.ones(4097, np.int16)), "at most 4096"),
    "quarter's length": (lambda: _log_mel(window=np.ones(33, np.int16)), r"quarter is int32\[17\]"),
    "quarter's values": (lambda: _log_mel(quarter=FRONT.quarter - np.int32(2)), "cos"),
    "quarter's end": (
        lambda: _log_mel(quarter=FRONT.quarter + (np.arange(9) == 8).astype(np.int32)),
        "cos",
    ),
    "band order": (lambda: _log_mel(band=FRONT.band[::-1].copy()), "ascends"),
    "band range": (lambda: _log_mel(band=np.full(17, 4, np.int16)), "ascends in 0...3"),
    "band below": (lambda: _log_mel(band=np.full(17, -2, np.int16)), "ascends"),
    "rise": (lambda: _log_mel(rise=np.full(17, 257, np.int16)), "rise is in 0...256"),
    "gain": (lambda: _log_mel(gain=0), "gain is"),
    "gain and offset": (lambda: _log_mel(gain=1 << 18), "fits 32 bits"),
    "step_us": (lambda: _continuous(step_us=0), "step_us is"),
    "rest": (lambda: _continuous(refractory=-1), "refractory is"),
    "samples in steps": (
        lambda: replace(from_text(ROWS), stream=ir.EventStream(1)),
        "address events",
    ),
    "hidden leak": (
        lambda: _continuous("leak=((1, 1),)", "leak=((1, 0),)"),
        "h: rule broken: in continuous mode membranes leak",
    ),
    "growing": (lambda: _continuous("leak=((1, 1),)", "leak=((-1, 0), (-1, 3))"), "membranes leak"),
    "output leak": (
        lambda: _continuous("leaks=(((1, 1),),)", "leaks=(((1, 1),), ((1, 0),))"),
        "out: rule broken: in continuous mode membranes leak",
    ),
    "amos": (
        lambda: from_text(EVENTS.replace(*_AMOS[0]).replace(*_AMOS[1])),
        "h: rule broken: continuous mode has no Amos",
    ),
    "rate readout": (
        lambda: _continuous("FirstSpike(value=5)", "Rate()"),
        "rule broken",
    ),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_streams_name_their_rule(name: str) -> None:
    make, rule = ILLEGAL[name]
    with pytest.raises(IllegalProgram, match=rule) as e:
        check_program(make())
    assert "\n" not in str(e.value)


def test_legal_streams_are_legal() -> None:
    for program in (
        _window(),
        _log_mel(),
        _continuous(),
        _continuous("((1, 1),)", "((1, 0), (-1, 7))"),
    ):
        check_program(program)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stream(None)", "program text"),
        ("stream(WindowStream(hop=1))", "program text, line 9"),
        ("stream(Rows)", "program text, line 9"),
        ("stream(1, 2)", "unknown statement"),
    ],
)
def test_bad_text_is_refused_in_one_line(text: str, complaint: str) -> None:
    bad = "\n" + "\n".join(ROWS.splitlines()[:-1]) + "\n\n\n" + text
    with pytest.raises(EdgesnnError, match=complaint) as e:
        from_text(bad)
    assert "\n" not in str(e.value)


_LEAKS: tuple[ir.Shifts, ...] = (
    (),
    ((1, 1),),
    ((1, 5),),
    ((1, 0), (-1, 6)),
    ((1, 0), (-1, 2), (-1, 4)),
    ((1, 1), (1, 2), (1, 3)),
    ((-1, 1),),
    ((-1, 1), (1, 4)),
    ((1, 3), (-1, 0)),
)


@pytest.mark.parametrize("leak", _LEAKS)
def test_endless_bounds_are_left_by_no_step(leak: ir.Shifts) -> None:
    """They hold what any number of steps holds, a step from them stays in them; hardly wider than needed."""
    assert abs(gain(leak)) < 1
    rng = np.random.default_rng(5)
    for _ in range(4):
        below, above = -rng.integers(0, 400, 4), rng.integers(0, 400, 4)
        bias = rng.integers(-90, 91, 4)
        lo, hi = membrane_bounds(below, above, bias, (leak,), None)
        least, most = leak_bounds(lo, hi, (leak,))
        assert np.all(least + below + np.minimum(bias, 0) >= lo)
        assert np.all(most + above + np.maximum(bias, 0) <= hi)
        by_steps = membrane_bounds(below, above, bias, (leak,), 1000)
        assert np.all(lo <= by_steps[0]) and np.all(by_steps[1] <= hi)
        floors = 3 / (1 - abs(float(gain(leak))))
        assert np.all(by_steps[0] - lo <= floors) and np.all(hi - by_steps[1] <= floors)


def test_a_leak_too_weak_is_refused_and_quickly() -> None:
    for shift in (29, 31):
        with pytest.raises(WidthError, match="out: values can reach"):
            prove(_continuous("leaks=(((1, 1),),)", f"leaks=(((1, 0), (-1, {shift})),)"))
    wide = prove(_continuous("leaks=(((1, 1),),)", "leaks=(((1, 0), (-1, 20)),)"))
    assert wide.nodes["out"].width == "int32"


@pytest.mark.parametrize("seed", range(12))
def test_membranes_stay_within_their_bounds_forever(seed: int) -> None:
    """Under trains that drive a membrane up, then down, then at random; the output never decides, or always."""
    program = random_stream_program(seed, "continuous")
    never = ir.FirstSpike(2**31 - 1)
    bounds = prove(program)
    shape = program.input.shape
    reading = [p for n in program.nodes for p in ir.projections(n) if p.source == "events"]
    up = np.ones(shape, dtype=bool)
    if reading and isinstance(reading[0], ir.Dense):
        up = (reading[0].weight[0] > 0).reshape(shape)
    rng = np.random.default_rng(seed)
    engine = Interpreter(replace(program, readout=never))
    run = engine.begin()
    for t in range(1, 301):
        train = (up, ~up, rng.random(shape) < 0.3, up if t % 2 else ~up)[t // 50 % 4]
        output = seed % 3 > 0 or t % 4 > 0
        if not output:
            run.state.pop(program.output.name, None)  # decided and resting
        engine.step(run, t, train, output=output)
        for node in program.nodes:
            b, u = bounds.nodes[node.name], run.state.get(node.name)
            if u is not None:
                assert b.lo is not None and b.hi is not None
                assert np.all(b.lo <= u) and np.all(u <= b.hi)


def test_bounds_of_a_membrane_are_reached() -> None:
    """u <- u - (u >> 2) + 100 climbs to 397 ... 400, far beyond what T = 4 steps reach."""
    text = EVENTS.replace(
        "leak=((1, 1),), threshold=int32[1](6)", "leak=((1, 0), (-1, 2)), threshold=int32[1](30000)"
    )
    program = from_text(text.replace("int8[1, 2](4, 0)", "int8[1, 2](100, 0)"))
    found = prove(program).nodes["h"]
    assert found.hi is not None and 397 <= int(found.hi[0]) <= 404
    assert int(prove(replace(program, stream=None)).nodes["h"].hi[0]) < 300  # type: ignore[index]
    engine = Interpreter(program)
    run = engine.begin()
    for t in range(1, 200):
        engine.step(run, t, np.ones(program.input.shape), output=False)
    assert 397 <= int(run.state["h"].max()) <= int(found.hi[0])


@pytest.mark.parametrize("kind", KINDS)
def test_random_streams_are_the_same_for_the_same_seed(kind: str) -> None:
    a, b = (random_stream_program(7, kind) for _ in range(2))
    assert a.digest() == b.digest()
    assert np.array_equal(random_signal(a, 3), random_signal(b, 3))
    assert np.array_equal(
        np.concatenate(random_chunks(random_signal(a, 3), 1)), random_signal(a, 3)
    )
