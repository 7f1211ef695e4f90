"""`python scripts/worst.py MODEL [BOARD] [--count N] [--data NAME]`: does an input exceed the worst case?

The model is compiled for the board and run there on random and adversarial inputs: noise of every density,
blank, full, checkerboards and stripes, images if a data set is named, and inputs bred from those that took most
so far. Prints the most instructions found, the bound and their ratio; exit code 1 if the bound is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgesnn import api
from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.data import load
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError

POOL = 24  # inputs that are bred from


class Inputs:
    """Endless inputs; `learn` says how many instructions one took."""

    def __init__(self, program: ir.Program, images: np.ndarray | None, seed: int) -> None:
        source = program.input
        self.rng, self.images, self.turn = np.random.default_rng(seed), images, 0
        self.best: list[tuple[float, np.ndarray]] = []
        self.events = isinstance(source, ir.EventInput)
        if isinstance(source, ir.EventInput):
            self.shape: tuple[int, ...] = (program.timesteps, *source.shape)
            self.low, self.high, self.zero, self.dtype = 0, 1, 0, "uint8"
        else:
            self.shape, self.dtype, self.zero = source.shape, source.dtype, source.zero_point
            self.low, self.high = ir.SAMPLE_RANGE[source.dtype]

    def __iter__(self) -> Iterator[np.ndarray]:
        for x in self._fixed():
            yield x.astype(self.dtype)
        while True:
            self.turn += 1
            kind = self.turn % 4
            x = self._noise() if kind == 0 else self._image() if kind == 1 else self._bred()
            yield x.astype(self.dtype)

    def learn(self, x: np.ndarray, instructions: float) -> None:
        self.best = sorted([*self.best, (instructions, x)], key=lambda b: -b[0])[:POOL]

    def _fixed(self) -> Iterator[np.ndarray]:
        """Blank, lowest, highest; checkerboards, lines and columns of every period up to 5."""
        index = np.indices(self.shape)[-3:]
        for value in (self.zero, self.low, self.high):
            yield np.full(self.shape, value)
        for period in range(1, 6):
            for pattern in (index[0] + index[1], index[0], index[1]):
                for value in (self.high, self.low, (self.high + self.zero) // 2):
                    yield np.where(pattern // period % 2 == 1, value, self.zero)

    def _noise(self) -> np.ndarray:
        """A share of the samples, drawn anew, differs from the zero point: any value, or an end."""
        rng = self.rng
        ends = rng.random() < 0.5
        values = rng.integers(self.low, self.high + 1, self.shape)
        if ends:
            values = np.where(rng.random(self.shape) < rng.random(), self.high, self.low)
        return np.where(rng.random(self.shape) < rng.random(), values, self.zero)

    def _image(self) -> np.ndarray:
        if self.images is None:
            return self._noise()
        return np.asarray(self.images[int(self.rng.integers(len(self.images)))]).reshape(self.shape)

    def _bred(self) -> np.ndarray:
        """One of the worst so far with some of its samples drawn anew, or part of another's."""
        rng = self.rng
        if not self.best:
            return self._noise()
        x = self.best[int(rng.integers(len(self.best)))][1]
        other = (
            self.best[int(rng.integers(len(self.best)))][1] if rng.random() < 0.5 else self._noise()
        )
        return np.where(rng.random(self.shape) < rng.choice((0.003, 0.02, 0.1, 0.5)), other, x)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("board", nargs="?", default="mps2-an386")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--data", help="images of its test split take part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", help="the core, where a board stands in for several")
    options = parser.parse_args()
    program = api.load_program(options.model)
    images = None
    if options.data:
        images = load(options.data, "test").x
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_program(
            program, options.target, board=options.board, out=Path(folder) / "bundle"
        )
        stated = bundle.manifest["instructions"]
        if "unknown" in stated:
            raise EdgesnnError(f"no bound is stated for {options.board}: {stated['unknown']}")
        bound, most, total, fewest = stated["worst_per_inference"], 0.0, 0.0, float("inf")
        inputs = Inputs(program, images, options.seed)
        with Session(bundle) as session:
            assert session.counter is not None
            for i, x in enumerate(inputs):
                if i == options.count:
                    break
                decision = session.classify(x)
                assert decision.ticks is not None
                took = decision.ticks * session.counter.per_tick
                inputs.learn(x, took)
                total, fewest = total + took, min(fewest, took)
                if took > most:
                    most, at = took, (i, decision)
                if i % 1000 == 999:
                    print(f"  {i + 1:,} inputs: most {most:,.0f}", file=sys.stderr, flush=True)
            i, decision = at
            took = time.monotonic() - begin
            print(f"{program.name} on {options.board}: {options.count:,} inputs in {took:.0f} s")
            print(f"  mean {total / options.count:,.0f}, fewest {fewest:,.0f} instructions")
            print(
                f"  most {most:,.0f}, input {i}, {decision.step} steps, events {decision.events.tolist()}"
            )
            print(f"  stated worst case {bound:,}, {bound / most:.2f} times the most found")
            found = session.profile(inputs.best[0][1])
            assert found.node_ticks is not None
            for node, ticks in zip(bundle.nodes, found.node_ticks, strict=True):
                here = ticks * session.counter.per_tick
                worst = stated["by_node"][node.name]["worst_per_inference"]
                print(f"    {node.name:16}{here:12,.0f}{worst:12,}")
    return int(most > bound)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
