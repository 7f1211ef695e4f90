"""Layer by layer: what each does and, on a board, what it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.evaluate import Advance, Tally
from edgesnn.profiling.shares import add_up, split
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import Decision
from edgesnn.runtime.pool import Pool
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError

LAYER_SAMPLES = 20  # timing node by node costs a request per node: a few samples tell enough


def profile_layers(
    pool: Pool,
    program: ir.Program,
    x: np.ndarray,
    unit: str,
    seen: Tally,
    whole: float,
    advance: Advance,
) -> dict[str, Any]:
    """One row a node: mean events, synaptic operations and, where it can be timed, time and its parts.

    Every figure of a row is of the same samples: on a board of `x`, run node by node; elsewhere, without
    times, of all that `seen` has counted. "parts": of a mean inference of `x`, which takes `whole`.
    """
    counter, bundle = pool.sessions[0].counter, pool.bundle
    if counter is None:
        rows = [
            {**row, f"{unit}_mean": None, "share": None, "parts": None}
            for row in _rows(bundle, seen)
        ]
        return {"per_layer": rows, "per_layer_samples": None, "parts": None}
    timed = zip(advance(range(len(x))), pool.map(_node_by_node, x), strict=True)
    decisions = [decision for _, decision in timed]
    tally = Tally(pool)
    for decision in decisions:
        tally.add(decision)
    time = np.array([d.node_ticks for d in decisions]) * float(counter.per_tick)
    steps, sops = np.array([d.step for d in decisions]), np.array([d.sops for d in decisions])
    frames = np.stack([bundle.check_sample(sample) for sample in x])
    parts, method = split(bundle, program, frames, steps, sops, time)
    mean = [float(v) for v in time.mean(axis=0)]
    share = shares_of(dict(enumerate(mean)))
    rows = [
        {**row, f"{unit}_mean": mean[i], "share": share[i], "parts": parts[i]}
        for i, row in enumerate(_rows(bundle, tally))
    ]
    every = add_up(parts, mean, whole)
    return {
        "per_layer": rows,
        "per_layer_samples": len(x),
        "parts": {"samples": len(x), "method": method, unit: every, "shares": shares_of(every)},
    }


def shares_of(amounts: dict[Any, float]) -> dict[Any, float]:
    """Each as a share of their sum, 0...1."""
    total = sum(amounts.values())
    return {k: v / total if total else 0.0 for k, v in amounts.items()}


def _rows(bundle: Bundle, tally: Tally) -> list[dict[str, Any]]:
    return [
        {
            "name": node.name,
            "kind": node.kind,
            "neurons": node.neurons,
            "events_mean": float(tally.events[i] / tally.count),
            "sops_mean": float(tally.sops[i] / tally.count),
        }
        for i, node in enumerate(bundle.nodes)
    ]


def _node_by_node(session: Session, sample: np.ndarray) -> Decision:
    decision = session.profile(sample)
    if decision.node_ticks is None:
        raise EdgesnnError(f"{session.engine_name} times no nodes; update its firmware")
    return decision
