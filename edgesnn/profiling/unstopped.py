"""What the samples would do without an exit: all T steps in the reference interpreter.

From that follow accuracy against latency at every threshold, steps against difficulty, and the picture of one
inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesnn.coding.readout import criterion
from edgesnn.compiler import ir
from edgesnn.compiler.interpret import Interpreter
from edgesnn.evaluate import Advance
from edgesnn.profiling.least_squares import nonnegative
from edgesnn.reports.program import batches, layers, without_exit
from edgesnn.reports.tables import by_difficulty, hardness
from edgesnn.training.select import fine_candidates

POINTS = 48  # thresholds tried
SHOWN = 24  # neurons of a layer in the picture
FORMULA = "fitted: constant + steps + synaptic operations"


@dataclass(frozen=True)
class Unstopped:
    """membranes: int64[T, N, classes] of the output; spikes, sops: [T, N] of all layers together.

    steps, labels: int64[N], stopping step and answer with the program's own exit.
    """

    membranes: np.ndarray
    spikes: np.ndarray
    sops: np.ndarray
    steps: np.ndarray
    labels: np.ndarray


def run_unstopped(program: ir.Program, x: np.ndarray, advance: Advance) -> Unstopped:
    """All T steps of every sample; slow (some 5 to 100 ms a sample)."""
    found = list(batches(program, advance(x)))
    membranes = np.concatenate([b.membranes for b in found], axis=1)
    spikes = np.concatenate([b.spikes.sum(axis=0) for b in found], axis=1)
    sops = np.concatenate([b.sops.sum(axis=0) for b in found], axis=1)
    rule, last = program.readout, len(membranes) - 1
    if isinstance(rule, ir.Css):
        decided = [b.decided for b in found if b.decided is not None]
        steps = np.concatenate([d.steps for d in decided])
        labels = np.concatenate([d.labels for d in decided])
    else:
        at = np.full(membranes.shape[1], last)
        kind = swept(program)
        if kind is not None and isinstance(rule, ir.FirstSpike | ir.Margin):
            at = _stops(criterion(membranes, kind), rule.value)
        steps, labels = at + 1, membranes[at, np.arange(len(at))].argmax(axis=-1)
    return Unstopped(membranes, spikes, sops, steps, labels)


def swept(program: ir.Program) -> str | None:
    """The exit whose threshold can be swept: "first-spike" or "margin"; None of others."""
    kinds = {ir.FirstSpike: "first-spike", ir.Margin: "margin"}
    return kinds.get(type(program.readout)) if program.timesteps > 1 else None


def _stops(seen: np.ndarray, value: int) -> np.ndarray:
    """Index of the first step that reaches `value`, the last one where none does: [T, N] -> [N]."""
    reached = seen >= value
    return np.asarray(np.where(reached.any(axis=0), reached.argmax(axis=0), len(seen) - 1))


@dataclass(frozen=True)
class Fit:
    """amount = constant + each_step * steps + each_sop * synaptic operations, by least squares.

    error: the mean absolute deviation from what was measured, as a share of its mean.
    """

    constant: float
    each_step: float
    each_sop: float
    error: float

    def __call__(self, steps: np.ndarray, sops: np.ndarray) -> np.ndarray:
        return np.asarray(self.constant + self.each_step * steps + self.each_sop * sops)


def fit(amounts: np.ndarray, steps: np.ndarray, sops: np.ndarray) -> Fit | None:
    """What a step and a synaptic operation cost, from measured inferences; None where that says too little.

    Too little: fewer than ten inferences, or all of one stopping step: nothing tells what another costs.
    """
    if len(amounts) < 10 or steps.min() == steps.max() or not amounts.mean() > 0:
        return None
    terms = np.stack([np.ones(len(steps)), steps, sops], axis=1)
    found = nonnegative(terms, amounts)
    constant, each_step, each_sop = (float(v) for v in found)
    error = float(np.abs(terms @ found - amounts).mean() / amounts.mean())
    return Fit(constant, each_step, each_sop, error)


def sweep(
    program: ir.Program, seen: Unstopped, y: np.ndarray | None, unit: str, cost: Fit | None
) -> dict[str, Any] | None:
    """Accuracy and mean steps at every threshold, and the time that `cost` estimates; None for other exits.

    In a stream of events a sample that reaches no exit gets no answer: it is not right.
    """
    kind, rule = swept(program), program.readout
    if kind is None or not isinstance(rule, ir.FirstSpike | ir.Margin):
        return None
    reached = criterion(seen.membranes, kind)
    values = fine_candidates(seen.membranes, kind)
    tried = values[np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))]
    columns, sops = np.arange(reached.shape[1]), seen.sops.cumsum(axis=0)
    rows: list[dict[str, Any]] = []
    endless = isinstance(program.stream, ir.EventStream)
    for value in np.union1d(tried, [rule.value]):
        at = _stops(reached, int(value))
        right = seen.membranes[at, columns].argmax(axis=-1) == y if y is not None else None
        if right is not None and endless:
            right = right & (reached >= value).any(axis=0)
        amount = None if cost is None else float(cost(at + 1, sops[at, columns]).mean())
        rows.append(
            {
                "value": int(value),
                "own": bool(value == rule.value),
                "accuracy": None if right is None else float(right.mean()),
                "mean_timesteps": float(at.mean() + 1),
                f"{unit}_estimate": amount,
            }
        )
    return {
        "exit": kind,
        "samples": len(columns),
        "estimate": None if cost is None else FORMULA,
        "estimate_error": None if cost is None else cost.error,
        "points": rows,
    }


def difficulty(seen: Unstopped, y: np.ndarray | None) -> list[dict[str, Any]]:
    """Mean stopping step, and accuracy where there are labels, of ten parts of the samples by difficulty."""
    right = seen.labels == y if y is not None else np.zeros(len(seen.labels), dtype=bool)
    rows = by_difficulty(hardness(seen.membranes[-1], None), seen.steps, right)
    return [{**row, "accuracy": row["accuracy"] if y is not None else None} for row in rows]


def raster(program: ir.Program, sample: np.ndarray) -> dict[str, Any]:
    """Spikes of some neurons of every layer, step by step, and the output membranes, all T steps.

    Of the neurons that spike, SHOWN spread evenly over the layer; "spikes" are [row, step, sign].
    """
    shapes, output = ir.shapes(program), program.output.name
    membranes: list[list[int] | None] = []

    def watch(_: int, state: dict[str, np.ndarray]) -> None:
        found = state.get(output)
        membranes.append(None if found is None else [int(v) for v in found.reshape(-1)])

    engine = Interpreter(without_exit(program))
    events = engine.trace(sample, watch).events
    rows = []
    names = [n.name for n in program.nodes]
    wanted = [n for n in program.nodes if isinstance(n, ir.EventInput)] + layers(program)
    for node in wanted:
        if node is program.output:
            continue
        index, size = names.index(node.name), ir.size(shapes[node.name])
        trains = [(t, step[index].astype(np.int64)) for t, step in enumerate(events, start=1)]
        active = np.unique(np.concatenate([a % size for _, a in trains]))
        shown = (
            active[np.unique(np.linspace(0, len(active) - 1, SHOWN).round().astype(int))]
            if len(active)
            else active
        )
        place = {int(a): i for i, a in enumerate(shown)}
        rows.append(
            {
                "name": node.name,
                "neurons": size,
                "active": len(active),
                "shown": len(shown),
                "spikes": [
                    [place[int(a % size)], t, 1 if a < size else -1]
                    for t, found in trains
                    for a in found
                    if int(a % size) in place
                ],
                "by_step": [len(found) for _, found in trains],
            }
        )
    signed = any(ir.is_signed(node) for node in wanted)
    return {"timesteps": len(events), "signed": signed, "layers": rows, "membranes": membranes}


def typical(sops: np.ndarray) -> int:
    """The sample in the middle by synaptic operations."""
    return int(np.argsort(sops, kind="stable")[len(sops) // 2])
