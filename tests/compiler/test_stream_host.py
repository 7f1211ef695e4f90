"""Streams on the host engine: the C core's answers are the reference's, in any portions; what it refuses."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.build import C_CORE, compile_program
from edgesnn.compiler.compare import decision_difference, streams_difference
from edgesnn.compiler.front_end import log_mel_rows, make_log_mel, points
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_stream import KINDS, random_signal, random_stream_program
from edgesnn.compiler.stream import StreamInterpreter, window_shape
from edgesnn.compiler.stream_plan import stream_memory
from edgesnn.compiler.text import from_text
from edgesnn.parity import check_stream_parity
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.host import HostEngine
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain

OK, DECIDED, DUE = 0, 1, 2
ERR_ARGUMENT, ERR_MEMORY, ERR_STATE, ERR_INPUT = -1, -2, -4, -5

WINDOWS = """\
program(name='windows', timesteps=2, class_names=())
x = SampleInput(shape=(3, 2, 1), dtype='int16', scale=1.0, zero_point=0)
enc = LatencyEncoder(\
projection=Dense(source='x', weight=int8[2, 6](1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1)), \
thresholds=int32[2, 1](1, 1), pool=(1, 1))
out = Accumulator(projections=(Dense(source='enc', weight=int8[3, 2](1, 0, 0, 1, 0, 0)),), leaks=(((1, 0),),), \
bias=int32[3](0, 0, 0))
readout(FirstSpike(value=1))
stream(WindowStream(front=Rows(rate=10.0), hop=2, smooth=2, votes=1, refractory=0, background=()))
"""
EVENTS = """\
program(name='events', timesteps=1, class_names=())
x = EventInput(shape=(1, 2, 1))
h = Lif(projections=(Dense(source='x', weight=int8[1, 2](4, 0)),), leak=((1, 1),), threshold=int32[1](6), \
bias=int32[1](0), reset='soft')
out = Accumulator(projections=(Dense(source='x', weight=int8[2, 2](0, 3, 0, -1)), \
Dense(source='h', weight=int8[2, 1](0, 8))), leaks=(((1, 1),),), bias=int32[2](0, 0))
readout(FirstSpike(value=5))
stream(EventStream(step_us=10, refractory=2))
"""


@pytest.mark.parametrize("seed", range(12))
def test_host_equals_reference(seed: int, tmp_path: Path) -> None:
    """Log-mel, rows and events in turn; also by LLVM, and where memory is preferred to speed."""
    options: dict[str, Any] = {}
    if seed >= 9:
        options = {"codegen": "llvm"}
    elif seed >= 6:
        options = {"prefer": "ram"}
    program = random_stream_program(seed)
    report = check_stream_parity(program, "cpu", samples=4, seed=seed, folder=tmp_path, **options)
    assert report.samples > 0
    assert report.mismatches == []


class Core:
    """The C interface of a compiled program, with buffers of exactly the sizes that it asks for."""

    GUARD = 64

    def __init__(self, program: ir.Program, folder: Path) -> None:
        self.bundle = compile_program(program, "cpu", out=folder)
        assert self.bundle.library is not None and self.bundle.stream is not None
        self.lib = ctypes.CDLL(str(self.bundle.library))
        for name in ("esnn_host_model", "esnn_host_stream_model"):
            getattr(self.lib, name).restype = ctypes.c_void_p
        for name in ("esnn_stream_event", "esnn_stream_advance"):
            function = getattr(self.lib, name)
            function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32][
                : 3 if name.endswith("event") else 2
            ]
        self.lib.esnn_stream_push.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
        ]
        self.ctx = ctypes.create_string_buffer(256)
        self.stream = ctypes.create_string_buffer(256)
        arena = int(self.bundle.manifest["memory"]["arena_bytes"])
        self.arena = np.zeros(arena // 8, dtype=np.uint64)
        self.bytes = self.bundle.stream.memory_bytes
        self.memory = np.full(self.bytes + self.GUARD, 0xA5, dtype=np.uint8)
        model = ctypes.c_void_p(self.lib.esnn_host_model())
        status = self.lib.esnn_init(
            self.ctx, model, self._at(self.arena), ctypes.c_size_t(self.arena.nbytes)
        )
        assert status == OK

    @staticmethod
    def _at(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def init(self, *, ctx: Any = True, offset: int = 0, missing: int = 0) -> int:
        return int(
            self.lib.esnn_stream_init(
                self.stream,
                ctypes.c_void_p(self.lib.esnn_host_stream_model()),
                self.ctx if ctx is True else ctx,
                ctypes.c_void_p(self.memory.ctypes.data + offset),
                ctypes.c_size_t(self.bytes - missing),
            )
        )

    def push(self, data: bytes) -> tuple[int, int]:
        """(status, bytes used)."""
        used = ctypes.c_size_t(99)
        status = self.lib.esnn_stream_push(self.stream, data, len(data), ctypes.addressof(used))
        return int(status), used.value

    def call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self.lib, name)(self.stream, *arguments))

    def result(self) -> list[int]:
        """[status, time, label, step, exited, smoothed, detected]."""
        out = np.zeros(8, dtype=np.uint32)
        status = self.lib.esnn_stream_result(self.stream, self._at(out))
        return [int(status), int(out[:2].view(np.uint64)[0]), *(int(n) for n in out[2:7])]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Core:
    return Core(from_text(WINDOWS), tmp_path_factory.mktemp("windows") / "b")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Core:
    return Core(from_text(EVENTS), tmp_path_factory.mktemp("events") / "b")


@pytest.fixture
def window_core(windows: Core) -> Core:
    assert windows.init() == OK
    return windows


@pytest.fixture
def event_core(events: Core) -> Core:
    assert events.init() == OK
    return events


def test_memory_is_refused_where_it_does_not_do(windows: Core) -> None:
    assert windows.init(missing=1) == ERR_MEMORY
    assert windows.init(offset=4) == ERR_MEMORY
    null = ctypes.c_void_p(None)
    assert windows.lib.esnn_stream_init(windows.stream, null, windows.ctx, null, 0) == ERR_ARGUMENT
    assert windows.init(ctx=null) == ERR_ARGUMENT
    unbound = ctypes.create_string_buffer(256)
    assert windows.init(ctx=unbound) == ERR_ARGUMENT
    model = ctypes.c_void_p(windows.lib.esnn_host_stream_model())
    assert windows.lib.esnn_stream_init(windows.stream, model, windows.ctx, null, 999) == ERR_MEMORY


def test_a_stream_needs_a_model_of_its_kind(windows: Core, events: Core) -> None:
    model = ctypes.c_void_p(windows.lib.esnn_host_stream_model())
    memory = windows._at(windows.memory)
    size = ctypes.c_size_t(windows.bytes)
    status = windows.lib.esnn_stream_init(windows.stream, model, events.ctx, memory, size)
    assert status == ERR_INPUT


def test_nothing_works_unbound(windows: Core) -> None:
    blank = ctypes.create_string_buffer(256)
    for stream in (blank, ctypes.c_void_p(None)):
        for name in ("reset", "begin", "end", "classify", "step", "step_node", "result"):
            arguments = (blank,) if name == "result" else ()
            function = getattr(windows.lib, f"esnn_stream_{name}")
            assert function(stream, *arguments) == ERR_ARGUMENT, name


def test_windows_in_the_wrong_order(window_core: Core) -> None:
    core, row = window_core, np.array([1, 1], dtype="<i2").tobytes()
    assert core.result()[0] == ERR_STATE
    assert core.call("esnn_stream_classify") == ERR_STATE
    assert core.call("esnn_stream_begin") == ERR_STATE
    assert core.call("esnn_stream_end") == ERR_STATE
    assert core.push(2 * row) == (OK, 8)
    assert core.call("esnn_stream_classify") == ERR_STATE
    assert core.push(2 * row) == (DUE, 4)
    assert core.push(row) == (DUE, 0)  # nothing is taken before it is classified
    assert core.push(b"") == (DUE, 0)
    assert core.call("esnn_stream_end") == ERR_STATE
    assert core.call("esnn_stream_begin") == OK
    assert core.call("esnn_stream_end") == ERR_STATE
    while core.lib.esnn_step(core.ctx) != DECIDED:
        pass
    assert core.push(row) == (DUE, 0)
    assert core.call("esnn_stream_end") == DECIDED
    assert core.result() == [OK, 3, 0, 1, 1, 0, 1]
    assert core.call("esnn_stream_end") == ERR_STATE
    assert core.push(2 * row) == (DUE, 8)
    assert core.call("esnn_stream_end") == ERR_STATE  # what was decided is the window before
    assert core.call("esnn_stream_classify") == DECIDED
    assert core.result()[1] == 5


def test_windows_refuse_what_is_theirs_not(window_core: Core) -> None:
    core = window_core
    assert core.call("esnn_stream_event", 0, 0) == ERR_INPUT
    assert core.call("esnn_stream_advance", 5) == ERR_INPUT
    assert core.call("esnn_stream_step") == ERR_INPUT
    assert core.lib.esnn_stream_push(core.stream, None, 1, core._at(core.memory)) == ERR_ARGUMENT
    assert core.lib.esnn_stream_push(core.stream, b"ab", 2, None) == ERR_ARGUMENT
    assert core.lib.esnn_stream_result(core.stream, None) == ERR_ARGUMENT


def test_events_in_the_wrong_order(event_core: Core) -> None:
    core = event_core
    assert core.call("esnn_stream_push", b"", 0, None) == ERR_INPUT
    assert core.call("esnn_stream_classify") == ERR_INPUT
    assert core.call("esnn_stream_event", 9, 2) == ERR_ARGUMENT  # no such address
    assert core.call("esnn_stream_event", 9, 1) == OK
    assert core.call("esnn_stream_event", 3, 1) == OK  # within a step the order is free
    assert core.call("esnn_stream_event", 10, 1) == DUE
    assert core.call("esnn_stream_advance", 9) == OK
    assert core.call("esnn_stream_advance", 10) == DUE
    assert core.call("esnn_stream_step") == OK
    assert core.call("esnn_stream_advance", 10) == OK
    assert core.call("esnn_stream_event", 9, 1) == ERR_ARGUMENT  # late
    assert core.result()[0] == ERR_STATE
    assert core.call("esnn_stream_step_node") == OK
    assert core.call("esnn_stream_event", 10, 1) == ERR_STATE  # in the middle of a step
    assert core.call("esnn_stream_step") == OK
    assert core.call("esnn_stream_advance", 20) == OK


def test_a_decision_can_be_read_until_the_next_step(event_core: Core) -> None:
    core, u = event_core, ctypes.c_int32()
    assert core.call("esnn_stream_event", 0, 1) == OK
    assert core.call("esnn_stream_step") == OK  # u = 3
    assert core.call("esnn_stream_event", 10, 1) == OK
    assert core.call("esnn_stream_step") == OK  # 1 + 3
    assert core.call("esnn_stream_event", 20, 1) == OK
    assert core.call("esnn_stream_step") == DECIDED  # 2 + 3
    for _ in range(2):
        assert core.result() == [OK, 30, 0, 3, 1, 0, 1]
        assert core.lib.esnn_membrane(core.ctx, 0, ctypes.byref(u)) == OK and u.value == 5
    for _ in range(2):  # it rests
        assert core.call("esnn_stream_step") == OK
        assert core.lib.esnn_membrane(core.ctx, 0, ctypes.byref(u)) == OK and u.value == 0
    assert core.result() == [OK, 30, 0, 3, 1, 0, 1]


def test_an_inference_in_between_ends_the_stream(event_core: Core) -> None:
    """It has T steps as any other; whoever goes on with the stream is told to reset it."""
    core = event_core
    for time in (0, 10):
        assert core.call("esnn_stream_event", time, 1) == OK
        assert core.call("esnn_stream_step") == OK
    assert core.lib.esnn_step(core.ctx) == DECIDED  # T = 1
    assert core.call("esnn_stream_step") == ERR_STATE
    assert core.call("esnn_stream_reset") == OK
    assert core.call("esnn_stream_step") == OK


@pytest.mark.parametrize("kind", ["log-mel", "rows"])
def test_bytes_may_come_one_by_one(kind: str, tmp_path: Path) -> None:
    """And nothing is written beyond the memory."""
    program = random_stream_program(40, kind)
    core, signal = Core(program, tmp_path / "b"), random_signal(program, 1)
    wanted = StreamInterpreter(program).push(signal)
    assert core.init() == OK
    found = []
    for byte in signal.tobytes():
        status, used = core.push(bytes([byte]))
        assert used == 1
        if status == DUE:
            assert core.call("esnn_stream_classify") == DECIDED
            found.append(core.result()[1:3])
    assert found == [[d.time, d.decision.label] for d in wanted]
    assert (core.memory[core.bytes :] == 0xA5).all()
    assert core.bytes == stream_memory(program, prove(program))


def extremes(frame: int) -> Iterator[np.ndarray]:
    """Frames at the ends of the range, where a bit too few shows."""
    t = np.arange(frame)
    for value in (0, 1, -1, 32767, -32768):
        yield np.full(frame, value)
    for period in (2, 3, 4, 8, 64):
        yield np.where(t % period < (period + 1) // 2, 32767, -32768)
    yield np.where(t == frame // 2, -32768, 0)
    yield np.random.default_rng(0).integers(-32768, 32768, frame)
    yield np.random.default_rng(1).choice([-32768, 32767], frame)


def loudest(front: ir.LogMel) -> ir.LogMel:
    """The same with the largest window that is legal."""
    return replace(front, window=np.full_like(front.window, 32767))


class LogMel(ctypes.Structure):
    """esnn_log_mel"""

    _fields_ = (
        *((n, ctypes.c_void_p) for n in ("row", "window", "quarter", "band", "rise", "offset")),
        ("gain", ctypes.c_int32),
        *((n, ctypes.c_uint32) for n in ("frame", "hop", "points", "bands")),
    )


@pytest.fixture(scope="module")
def front_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The front end alone."""
    folder, tools = tmp_path_factory.mktemp("front"), find_toolchain(find_target("cpu"))
    flags = ["-std=c99", "-O2", "-fPIC", "-fvisibility=default"]
    tools.compile(str(C_CORE / "esnn_log_mel.c"), "front.o", flags, folder)
    tools.link(["front.o"], "front.so", ["-shared"], folder)
    library = ctypes.CDLL(str(folder / "front.so"))
    library.esnn_log_mel_row.restype = None
    return library


@pytest.mark.parametrize(
    ("frame", "count"), [(2, 1), (16, 2), (17, 3), (200, 24), (256, 40), (1025, 64), (4096, 80)]
)
@pytest.mark.parametrize("change", [lambda front: front, loudest])
def test_log_mel_at_the_extremes(
    frame: int, count: int, change: Callable[[ir.LogMel], ir.LogMel], front_library: ctypes.CDLL
) -> None:
    front = change(make_log_mel(16000, frame=frame, hop=frame, bands=count, offset=2048, gain=90))
    names = ("window", "quarter", "band", "rise", "offset")
    tables = [ctypes.c_void_p(getattr(front, name).ctypes.data) for name in names]
    model = LogMel(None, *tables, front.gain, frame, front.hop, points(front), count)
    work = np.zeros(points(front), dtype=np.int32)
    for i, samples in enumerate(extremes(frame)):
        signal, row = samples.astype(np.int16), np.zeros(count, dtype=np.uint8)
        first = 7 * i % frame
        ring = np.roll(signal, first)
        at = [ctypes.c_void_p(a.ctypes.data) for a in (ring, work, row)]
        front_library.esnn_log_mel_row(ctypes.byref(model), at[0], ctypes.c_uint32(first), *at[1:])
        assert np.array_equal(row, log_mel_rows(front, signal)[0]), i


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ir.Program, Bundle]]:
    folder = tmp_path_factory.mktemp("engines")
    programs = {kind: random_stream_program(50, kind) for kind in KINDS}
    return {
        kind: (program, compile_program(program, "cpu", out=folder / kind))
        for kind, program in programs.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_samples_in_between_change_nothing(
    kind: str, engines: dict[str, tuple[ir.Program, Bundle]]
) -> None:
    program, bundle = engines[kind]
    signal, shape = random_signal(program, 3), program.input.shape
    rng = np.random.default_rng(0)
    if isinstance(program.input, ir.SampleInput):
        sample = rng.integers(0, 100, shape).astype(program.input.dtype)
    else:
        sample = rng.integers(0, 2, (program.timesteps, *shape)).astype(np.uint8)
    wanted = StreamInterpreter(program).push(signal)
    classified = Interpreter(program).infer(sample)
    found = []
    with HostEngine(bundle) as engine:
        for chunk in np.array_split(signal, 5):
            found += engine.push(chunk)
            assert decision_difference(classified, engine.infer(sample)) is None
        assert streams_difference(wanted, found) is None
        engine.start_stream()
        assert streams_difference(wanted, engine.push(signal)) is None


def test_rows_that_do_not_fit_are_refused(engines: dict[str, tuple[ir.Program, Bundle]]) -> None:
    program, bundle = engines["log-mel"]
    with HostEngine(bundle) as engine:
        for odd in (np.zeros((4, 2), np.int16), np.zeros(4), np.array([40000]), np.zeros(())):
            with pytest.raises(UsageError):
                engine.push(odd)
        with pytest.raises(UsageError, match="push rows"):
            engine.advance(10)
        signal = random_signal(program, 0)
        wanted = engine.push(signal)  # nothing was taken
        engine.start_stream()
        assert streams_difference(wanted, engine.push(signal.astype(np.int64)[:, None])) is None


def test_events_that_do_not_fit_are_refused(engines: dict[str, tuple[ir.Program, Bundle]]) -> None:
    program, bundle = engines["continuous"]
    assert isinstance(program.stream, ir.EventStream)
    step = program.stream.step_us
    units = ir.size(program.input.shape)
    with HostEngine(bundle) as engine:
        engine.push(np.array([[5 * step, 0]]))
        for odd, why in (
            ([[5 * step - 1, 0]], "late"),
            ([[6 * step, 0], [6 * step - 1, 0]], "descend"),
            ([[6 * step, units]], "outside"),
            ([[6 * step, -1]], "outside"),
            ([6 * step, 0], "int64"),
            ([[0.5, 1.0]], "int64"),
        ):
            with pytest.raises(UsageError, match=why):
                engine.push(np.array(odd))
        engine.advance(9 * step)
        with pytest.raises(UsageError, match="late"):
            engine.push(np.array([[9 * step - 1, 0]]))
        assert engine.push(np.zeros((0, 2), dtype=np.int64)) == []


def test_a_long_silence_can_be_interrupted(
    engines: dict[str, tuple[ir.Program, Bundle]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run in pieces, which shows nowhere else."""
    program, bundle = engines["continuous"]
    assert isinstance(program.stream, ir.EventStream)
    step, reference = program.stream.step_us, StreamInterpreter(program)

    with HostEngine(bundle) as engine:
        for at in (511, 512, 1100):
            events = np.array([[at * step, 0], [at * step + step - 1, 1]])
            assert streams_difference(reference.push(events), engine.push(events)) is None
        for at in (1101, 1613, 2200):
            wanted = reference.advance(at * step)
            assert streams_difference(wanted, engine.advance(at * step)) is None
        for none in (2**70, float("inf")):
            with pytest.raises(UsageError, match="is no time: give microseconds below"):
                engine.advance(none)  # type: ignore[arg-type]
        core = engine._call
        for endless in (
            lambda: engine.advance(2**62),
            lambda: engine.push(np.array([[2**62, 0]])),
        ):
            engine.start_stream()
            calls: list[str] = []

            def interrupted(name: str, *arguments: object, calls: list[str] = calls) -> int:
                calls.append(name)
                if len(calls) == 5:  # Ctrl-C is seen between two calls, and there have to be such
                    raise KeyboardInterrupt
                return core(name, *arguments)

            monkeypatch.setattr(engine, "_call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                endless()
            monkeypatch.undo()


def test_without_a_stream_there_is_none(host_bundle: Bundle) -> None:
    assert host_bundle.stream is None
    source = host_bundle.path / "src"
    assert not list(source.glob("*stream*")) and "stream" not in (source / "model.h").read_text()
    with HostEngine(host_bundle) as engine, pytest.raises(EdgesnnError, match="no stream"):
        engine.push(np.zeros(3, dtype=np.int16))


def test_the_manifest_says_how_a_signal_is_taken(
    engines: dict[str, tuple[ir.Program, Bundle]],
) -> None:
    for program, bundle in engines.values():
        found, stream = bundle.stream, program.stream
        assert found is not None
        assert found.memory_bytes == stream_memory(program, prove(program))
        if isinstance(stream, ir.EventStream):
            assert (found.mode, found.source, found.step_us) == (
                "continuous",
                "events",
                stream.step_us,
            )
            assert found.seconds(2_500_000) == 2.5
            continue
        assert isinstance(stream, ir.WindowStream)
        shape = window_shape(program)
        assert (found.mode, found.dtype, found.values) == ("window", shape.dtype, shape.values)
        assert (found.rows, found.hop, found.frame, found.row_samples) == (
            shape.rows,
            shape.hop,
            shape.frame,
            shape.row_hop,
        )
        assert found.background == stream.background
        assert found.seconds(int(stream.front.rate * 10)) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("rows", "mode", "frame"),
        ("rows", "hop", 0),
        ("rows", "rate", "8000"),
        ("rows", "background", [99]),
        ("rows", "memory_bytes", -1),
        ("rows", "step_us", 0),
        ("continuous", "rate", [1]),
        ("continuous", "rows", 3),
    ],
)
def test_a_damaged_stream_is_noticed(
    kind: str,
    field: str,
    value: object,
    engines: dict[str, tuple[ir.Program, Bundle]],
    tmp_path: Path,
) -> None:
    bundle = engines[kind][1]
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["stream"][field] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EdgesnnError, match=r"damaged \(stream\)"):
        Bundle.open(tmp_path)
