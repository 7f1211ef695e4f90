"""Streams on an emulated board: compiled programs against the definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.compare import decision_difference, timed_difference, trace_difference
from edgesnn.compiler.random_program import random_samples
from edgesnn.compiler.random_stream import random_chunks, random_signal, random_stream_program
from edgesnn.compiler.stream import StreamInterpreter
from edgesnn.runtime.engine import SignalEngine, TimedDecision
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError

pytestmark = pytest.mark.usefixtures("emulator_program")

# Sound through log-mel rows, a signal of four values, signed spikes, events.
STREAMS = [("log-mel", 5), ("rows", 4), ("rows", 3), ("continuous", 7)]


@dataclass(frozen=True)
class Case:
    seed: int
    program: ir.Program
    signal: np.ndarray
    session: Session

    @property
    def board(self) -> LinkEngine:
        assert isinstance(self.session.engine, LinkEngine)
        return self.session.engine

    def stream(
        self, engine: SignalEngine | Session, chunks: list[np.ndarray]
    ) -> list[TimedDecision]:
        """All that falls; of events also in the steps behind the last one."""
        out = [d for chunk in chunks for d in engine.push(chunk)]
        if isinstance(self.program.stream, ir.EventStream):
            out += engine.advance(int(self.signal[-1, 0]) + 9 * self.program.stream.step_us)
        return out


@pytest.fixture(scope="module", params=STREAMS, ids=lambda s: f"{s[0]}{s[1]}")
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    pytest.importorskip("tvm")
    from edgesnn.compiler.build import compile_program

    kind, seed = request.param
    program = random_stream_program(seed, kind)
    out = tmp_path_factory.mktemp("stream") / "bundle"
    try:
        bundle = compile_program(program, board="mps2-an386", out=out)
    except EdgesnnError as e:
        pytest.skip(str(e))
    with Session(bundle) as session:
        yield Case(seed, program, random_signal(program, seed), session)


@pytest.fixture(scope="module")
def want(case: Case) -> list[TimedDecision]:
    found = case.stream(StreamInterpreter(case.program), [case.signal])
    assert len(found) > 5
    return found


def same(want: list[TimedDecision], got: list[TimedDecision]) -> None:
    assert len(want) == len(got)
    assert [timed_difference(a, b) for a, b in zip(want, got, strict=True)] == [None] * len(want)


def test_any_cut_into_chunks(case: Case, want: list[TimedDecision]) -> None:
    assert case.board.info.streams
    for chunks in ([case.signal], random_chunks(case.signal, 1), np.array_split(case.signal, 60)):
        case.session.start_stream()
        same(want, case.stream(case.session, chunks))
    assert case.board.resent == 0


def test_instructions(case: Case) -> None:
    """Equal every time, of the front end apart from the network's, whose are those of the same sample."""
    counts = []
    for _ in range(2):
        case.board.start_stream()
        found = case.stream(case.board, [case.signal])
        counts.append([(d.front_ticks, d.decision.ticks) for d in found])
    assert counts[0] == counts[1]
    assert all(front and network for front, network in counts[0])
    if isinstance(case.program.stream, ir.WindowStream):
        from edgesnn.compiler.stream import windows_of

        times, samples = windows_of(case.program, case.signal)
        assert times.tolist() == [d.time for d in found]
        for sample, one in zip(samples, found, strict=True):
            batch = case.board.infer(sample)
            assert decision_difference(batch, one.decision) is None
            assert abs(batch.ticks - one.decision.ticks) <= 1  # type: ignore[operator]
    used = case.board.stack_high_water()
    assert used <= case.session.bundle.manifest["memory"]["stack_bytes"]


def test_samples_and_profiles_of_the_same_firmware(case: Case, want: list[TimedDecision]) -> None:
    reference = StreamInterpreter(case.program)
    names = [n.name for n in case.program.nodes]
    for sample in random_samples(case.program, 3, case.seed):
        expected = reference.trace(sample)
        assert trace_difference(expected, case.board.trace(sample), names) is None
        profile = case.board.profile(sample)
        assert decision_difference(expected.decision, profile) is None
        assert profile.node_ticks is not None and profile.node_ticks.sum() > 0
    case.session.start_stream()
    half = len(case.signal) // 2
    got = case.board.push(case.signal[:half])
    case.board.infer(random_samples(case.program, 1, 1)[0])
    if isinstance(case.program.stream, ir.EventStream):  # its membranes are gone
        with pytest.raises(UsageError, match="has ended the stream"):
            case.board.push(case.signal[half:])
    else:
        same(want, got + case.stream(case.board, [case.signal[half:]]))
