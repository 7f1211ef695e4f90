"""Where a layer's time goes: delivering events into membranes, or updating them. An estimate.

A board times a node as a whole. Its time is split in the proportion that the cost model of the core
(compiler/cost.py) predicts for the very same samples; where there is no such model, by least squares over
the samples, time = a * steps + b * synaptic operations with a, b >= 0: the first term is the update.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.cost import Counts, load_costs, node_counts, observe
from edgesnn.compiler.styles import STYLES
from edgesnn.profiling.least_squares import nonnegative
from edgesnn.runtime.bundle import Bundle, NodeInfo

PARTS = ("encoder", "events", "updates", "readout", "other")
COST_MODEL, LEAST_SQUARES = "cost model", "least squares"
_PART_OF = {  # by the first word of a kernel's name
    "dense": "events",
    "conv": "events",
    "grouped": "events",
    "or_pool": "events",
    "sum_pool": "events",
    "merge": "events",
    "begin_first": "updates",
    "begin_next": "updates",
    "fire": "updates",
    "readout": "readout",
    "input": "other",
    "node": "other",
}
_LEAST_SPREAD = (
    0.02  # of synaptic operations per step, below which the two terms cannot be told apart
)
_SAMPLES = 3  # at least, for two unknowns


def split(
    bundle: Bundle,
    program: ir.Program,
    samples: np.ndarray,
    steps: np.ndarray,
    sops: np.ndarray,
    time: np.ndarray,
) -> tuple[list[dict[str, float] | None], str | None]:
    """(parts of each node's mean time, by which method), None for a node that cannot be split.

    steps: int64[N]; sops, time: [N, nodes]. A node's parts add up to its mean time, in the unit of `time`.
    """
    mean = time.mean(axis=0)
    shares = _by_cost_model(bundle, program, samples)
    method = COST_MODEL if shares is not None else LEAST_SQUARES
    out: list[dict[str, float] | None] = []
    for i, node in enumerate(bundle.nodes):
        whole = _whole(node)
        if whole is not None:
            found: dict[str, float] | None = {whole: 1.0}
        elif shares is not None:
            found = shares[i]
        else:
            found = _by_least_squares(steps, sops[:, i], time[:, i])
        out.append(None if found is None else {k: float(mean[i] * v) for k, v in found.items()})
    unsplit = any(p is None for p in out)
    return out, None if method == LEAST_SQUARES and unsplit else method


def _whole(node: NodeInfo) -> str | None:
    """The part that all of a node belongs to, None where it has several."""
    return {"input": "other", "encoder": "encoder", "operator": "events"}.get(node.kind)


def _by_cost_model(
    bundle: Bundle, program: ir.Program, samples: np.ndarray
) -> list[dict[str, float]] | None:
    """Shares of every node's predicted instructions, of all samples together; None without a model."""
    stated = bundle.manifest.get("instructions") or {"unknown": "a bundle of an older version"}
    costs, kernels = load_costs(bundle.target), bundle.manifest.get("kernels") or {}
    if costs is None or "unknown" in stated:
        return None
    styles = {name: k.get("style") for name, k in kernels.items()}
    if any(name not in STYLES for name in styles.values()):
        return None
    bounds, choice = prove(program), {name: STYLES[s] for name, s in styles.items()}
    totals: list[dict[str, float]] = [{} for _ in program.nodes]
    for sample in samples:
        run, loads = observe(program, bounds, sample)
        for total, node in zip(totals, program.nodes, strict=True):
            parts: dict[str, Counts] = {}
            for key, count in node_counts(program, bounds, choice, node, run, loads).items():
                part = _PART_OF.get(key.split(":")[0].split(".")[0], "encoder")
                parts.setdefault(part, {})[key] = count
            for part, counts in parts.items():
                each = costs.of(counts)
                if each is None:
                    return None
                total[part] = total.get(part, 0.0) + each
    return [_shares(total) for total in totals]


def _shares(total: dict[str, float]) -> dict[str, float]:
    every = sum(total.values())
    return {k: v / every for k, v in total.items()} if every > 0 else {"other": 1.0}


def _by_least_squares(
    steps: np.ndarray, sops: np.ndarray, time: np.ndarray
) -> dict[str, float] | None:
    """Shares of updates and events of a population; None where the samples do not tell them apart.

    >>> steps, sops = np.array([1, 2, 2, 3]), np.array([10, 50, 10, 90])
    >>> {k: round(v, 3) for k, v in _by_least_squares(steps, sops, 100 * steps + 10 * sops).items()}
    {'updates': 0.333, 'events': 0.667}
    """
    if len(time) < _SAMPLES or not time.any():
        return None
    if not sops.any():
        return {"updates": 1.0}
    rate = sops / steps
    if rate.std() < _LEAST_SPREAD * rate.mean():
        return None
    terms = np.stack([steps, sops], axis=1)
    amounts = nonnegative(terms, time) * terms.mean(axis=0)
    if amounts.sum() <= 0:
        return None
    update, events = amounts / amounts.sum()
    return {"updates": float(update), "events": float(events)}


def add_up(
    parts: Sequence[dict[str, float] | None], nodes: Sequence[float], whole: float
) -> dict[str, float]:
    """Parts of a whole inference; what no part claims is "unsplit", what no node took "other".

    nodes: mean time of each node; whole: of an inference, by the same samples.
    """
    out = dict.fromkeys(PARTS, 0.0)
    unsplit = 0.0
    for part, time in zip(parts, nodes, strict=True):
        if part is None:
            unsplit += time
            continue
        for name, value in part.items():
            out[name] += value
    if unsplit > 0:
        out["unsplit"] = unsplit
    out["other"] += max(whole - sum(nodes), 0.0)
    return out
