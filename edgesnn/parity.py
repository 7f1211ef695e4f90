"""Parity: engines against the interpreter over random programs, every spike; of streams every decision.

`python -m edgesnn.parity --count 200` compiles random programs for the host and for an emulated
board and prints one line per mismatch; a port to a new target is done when it prints none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.compare import decision_difference, streams_difference, trace_difference
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.plan import PREFERENCES
from edgesnn.compiler.random_ann import random_converted
from edgesnn.compiler.random_css import random_css_program
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.compiler.random_stream import random_chunks, random_signal, random_stream_program
from edgesnn.compiler.stream import StreamInterpreter
from edgesnn.compiler.styles import Style
from edgesnn.exits import guarded
from edgesnn.runtime.engine import SignalEngine, TimedDecision
from edgesnn.runtime.host import HostEngine
from edgesnn.runtime.link import LinkEngine


@dataclass
class ParityReport:
    """Samples compared and one line per sample that differed."""

    samples: int = 0
    mismatches: list[str] = field(default_factory=list)


def check_parity(
    program: ir.Program,
    target: str,
    *,
    samples: int,
    seed: int,
    folder: Path,
    codegen: str = "c",
    toolchain: str | None = None,
    prefer: str = "speed",
    styles: Mapping[str, Style] | None = None,
) -> ParityReport:
    """Compile for "cpu" or an emulated board's name and compare on random samples, every spike.

    Each sample also runs through `infer`, the path without tracing.
    """
    inputs = random_samples(program, samples, seed)
    report = ParityReport()
    reference = Interpreter(program)
    names = [node.name for node in program.nodes]
    with ExitStack() as stack:
        engine = _engine(
            program,
            target,
            stack,
            out=folder / target,
            codegen=codegen,
            toolchain=toolchain,
            prefer=prefer,
            styles=styles,
        )
        for i, x in enumerate(inputs):
            expected = reference.trace(x)
            found = engine.trace(x)
            odd = trace_difference(expected, found, names)
            odd = odd or decision_difference(expected.decision, engine.infer(x))
            report.samples += 1
            if odd is not None:
                report.mismatches.append(f"{program.name} on {target}, sample {i}: {odd}")
    return report


def check_stream_parity(
    program: ir.Program,
    target: str,
    *,
    samples: int,
    seed: int,
    folder: Path,
    **options: Any,
) -> ParityReport:
    """As `check_parity`, for a program with a stream: `samples` random signals, each cut in random chunks.

    Every decision counts as one sample. Time goes on for a while after the last event, and between two chunks.
    """
    report = ParityReport()
    reference = StreamInterpreter(program)
    with ExitStack() as stack:
        engine = _engine(program, target, stack, out=folder / target, **options)
        for i in range(samples):
            signal = random_signal(program, seed + i)
            expected = _streamed(reference, program, [signal])
            found = _streamed(engine, program, random_chunks(signal, seed + i))
            report.samples += len(expected)
            odd = streams_difference(expected, found)
            if odd is not None:
                report.mismatches.append(f"{program.name} on {target}, signal {i}: {odd}")
    return report


def _streamed(
    engine: SignalEngine, program: ir.Program, chunks: list[np.ndarray]
) -> list[TimedDecision]:
    engine.start_stream()
    out: list[TimedDecision] = []
    for chunk in chunks:
        out += engine.push(chunk)
        if isinstance(program.stream, ir.EventStream) and len(chunk):
            out += engine.advance(int(chunk[-1, 0]))
    if isinstance(program.stream, ir.EventStream):
        last = max((int(chunk[-1, 0]) for chunk in chunks if len(chunk)), default=0)
        out += engine.advance(last + 20 * program.stream.step_us)
    return out


def _engine(
    program: ir.Program, target: str, stack: ExitStack, **options: Any
) -> HostEngine | LinkEngine:
    if target == "cpu":
        host = compile_program(program, "cpu", **options)
        return stack.enter_context(HostEngine(host))
    from edgesnn.targets.board import load_board
    from edgesnn.targets.emulator import Emulator

    bundle = compile_program(program, board=target, **options)
    assert bundle.firmware is not None
    emulator = stack.enter_context(Emulator(load_board(target), bundle.firmware))
    return stack.enter_context(LinkEngine(bundle, emulator.url))


# Any program; convolutions on a latency encoder; of canonic signed spikes; converted networks; with a stream.
KINDS: dict[str, Callable[[int], ir.Program]] = {
    "any": random_program,
    "stacks": partial(random_program, stack=True),
    "css": random_css_program,
    "converted": random_converted,
    "stream": random_stream_program,
}


def main() -> int:
    """Compare random programs on the host and on boards; exit code 1 on any mismatch."""
    return guarded(_main, "parity")


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="random programs")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--samples", type=int, default=8, help="samples per program")
    parser.add_argument("--targets", default="cpu,mps2-an386", help="cpu and emulated boards")
    parser.add_argument("--codegen", default="c", choices=["c", "llvm"])
    parser.add_argument("--toolchain", default=None, choices=["gcc", "zig"])
    parser.add_argument("--kind", default="any", choices=list(KINDS), help="of random programs")
    parser.add_argument("--prefer", default="speed", choices=PREFERENCES)
    arguments = parser.parse_args()
    programs = mismatches = compared = 0
    check = check_stream_parity if arguments.kind == "stream" else check_parity
    for seed in range(arguments.first, arguments.first + arguments.count):
        program = KINDS[arguments.kind](seed)
        programs += 1
        for target in arguments.targets.split(","):
            with tempfile.TemporaryDirectory() as folder:
                report = check(
                    program,
                    target,
                    samples=arguments.samples,
                    seed=seed,
                    folder=Path(folder),
                    codegen=arguments.codegen,
                    toolchain=arguments.toolchain,
                    prefer=arguments.prefer,
                )
            compared += report.samples
            mismatches += len(report.mismatches)
            for line in report.mismatches:
                print(line)
        if programs % 10 == 0:
            print(
                f"{programs} programs, {compared} comparisons, {mismatches} mismatches",
                file=sys.stderr,
            )
    print(f"{programs} programs, {compared} comparisons, {mismatches} mismatches")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
