"""Bit-exact comparison of engines: against the interpreter on one sample, or over random programs.

`python -m edgesnn.compiler.parity --count 200` compiles random programs for the host and for an emulated
board and prints one line per mismatch; a port to a new target is done when it prints none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.runtime.engine import Engine, Trace
from edgesnn.runtime.host import HostEngine


def differences(expected: Trace, found: Trace, *, spikes: bool) -> list[str]:
    """What differs, in words; empty when bit for bit equal. `spikes` compares every event of every node."""
    a, b = expected.decision, found.decision
    out = []
    if a.label != b.label:
        out.append(f"class {b.label}, expected {a.label}")
    if a.step != b.step:
        out.append(f"stopping timestep {b.step}, expected {a.step}")
    if a.exited != b.exited:
        out.append(f"exited is {b.exited}, expected {a.exited}")
    if not np.array_equal(a.membranes, b.membranes):
        k = _first(a.membranes, b.membranes)
        out.append(f"output membrane {k} is {_at(b.membranes, k)}, expected {_at(a.membranes, k)}")
    for what, x, y in (("events", a.events, b.events), ("SOPs", a.sops, b.sops)):
        if not np.array_equal(x, y):
            i = _first(x, y)
            out.append(f"node {i} has {_at(y, i)} {what}, expected {_at(x, i)}")
    if spikes:
        out += _spike_differences(expected, found)
    return out


def _spike_differences(expected: Trace, found: Trace) -> list[str]:
    if len(expected.events) != len(found.events):
        return [f"{len(found.events)} timesteps traced, expected {len(expected.events)}"]
    for t, (step, other) in enumerate(zip(expected.events, found.events, strict=True), start=1):
        if len(step) != len(other):
            return [f"t={t}: {len(other)} nodes traced, expected {len(step)}"]
        for node, (x, y) in enumerate(zip(step, other, strict=True)):
            if not np.array_equal(x, y):
                odd = np.setxor1d(x, y)[:4].tolist()
                return [
                    f"t={t}, node {node}: {len(y)} events, expected {len(x)}; differing addresses {odd}"
                ]
    return []


def _first(x: np.ndarray, y: np.ndarray) -> int:
    if x.shape != y.shape:
        return 0
    return int(np.flatnonzero(x != y)[0])


def _at(x: np.ndarray, i: int) -> object:
    return int(x[i]) if i < len(x) else "missing"


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
) -> ParityReport:
    """Compile for "cpu" or an emulated board's name and compare on random samples, every spike.

    Each sample also runs through `infer`, the path without tracing.
    """
    inputs = random_samples(program, samples, seed)
    report = ParityReport()
    reference = Interpreter(program)
    with ExitStack() as stack:
        engine = _engine(program, target, folder / target, codegen, toolchain, stack)
        for i, x in enumerate(inputs):
            expected = reference.trace(x)
            found = engine.trace(x)
            odd = differences(expected, found, spikes=True)
            odd += differences(expected, Trace(engine.infer(x)), spikes=False)
            report.samples += 1
            if odd:
                report.mismatches.append(
                    f"{program.name} on {target}, sample {i}: {'; '.join(odd)}"
                )
    return report


def _engine(
    program: ir.Program,
    target: str,
    out: Path,
    codegen: str,
    toolchain: str | None,
    stack: ExitStack,
) -> Engine:
    if target == "cpu":
        host = compile_program(program, "cpu", out=out, codegen=codegen, toolchain=toolchain)
        return stack.enter_context(HostEngine(host))
    from edgesnn.runtime.link import LinkEngine
    from edgesnn.targets.board import load_board
    from edgesnn.targets.emulator import Emulator

    bundle = compile_program(program, board=target, out=out, codegen=codegen, toolchain=toolchain)
    assert bundle.firmware is not None
    emulator = stack.enter_context(Emulator(load_board(target), bundle.firmware))
    return stack.enter_context(LinkEngine(bundle, emulator.url))


def main() -> int:
    """Compare random programs on the host and on boards; exit code 1 on any mismatch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="random programs")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--samples", type=int, default=8, help="samples per program")
    parser.add_argument("--targets", default="cpu,mps2-an386", help="cpu and emulated boards")
    parser.add_argument("--codegen", default="c", choices=["c", "llvm"])
    parser.add_argument("--toolchain", default=None, choices=["gcc", "zig"])
    arguments = parser.parse_args()
    programs = mismatches = compared = 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        program = random_program(seed)
        programs += 1
        for target in arguments.targets.split(","):
            with tempfile.TemporaryDirectory() as folder:
                report = check_parity(
                    program,
                    target,
                    samples=arguments.samples,
                    seed=seed,
                    folder=Path(folder),
                    codegen=arguments.codegen,
                    toolchain=arguments.toolchain,
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
