"""The figures of one form of a network, from what it did step by step (numpy only)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesnn.coding.readout import EARLY_EXITS, Decisions, criterion, decode
from edgesnn.data.dataset import Dataset
from edgesnn.data.events import is_events
from edgesnn.reports.energy import energy
from edgesnn.training.select import fine_candidates

BINS = 10  # of difficulty, equally many samples each
CURVE = 60  # points of a trade-off curve at most


@dataclass(frozen=True)
class Batch:
    """All T steps of some samples, exit or not.

    membranes: [T, N, classes]; spikes, sops: [layers, T, N], sums over each sample's units. decided: where
    membranes alone do not tell when to stop.
    """

    membranes: np.ndarray
    spikes: np.ndarray
    sops: np.ndarray
    decided: Decisions | None = None


@dataclass(frozen=True)
class Subject:
    """One form of a network. layers: (name, kind, neurons), the encoder first, the output last.

    macs: dense multiply-accumulates by layer; exit: as `decode` takes it, with its `value` in the membranes'
    units, or one that has no value ("css"); unit: what one of those is in the float network's, None if nobody
    knows (of a program).
    """

    form: str
    timesteps: int
    layers: list[tuple[str, str, int]]
    macs: dict[str, int]
    exit: str
    value: float
    unit: float | None


def figures(subject: Subject, batches: Iterable[Batch], data: Dataset) -> dict[str, Any]:
    """Everything that `edgesnn evaluate` reports of one form, plain values.

    Shares are 0...1; per_layer: spikes per neuron (total and by step) and synaptic operations up to the exit;
    curves: accuracy against mean steps over thresholds; difficulty: see `hardness`.
    """
    layers, exit, value = subject.layers, subject.exit, subject.value
    unit = 1.0 if subject.unit is None else subject.unit
    neurons = np.array([count for _, _, count in layers], dtype=float)
    parts, steps, labels, exited = [], [], [], []
    every = np.arange(subject.timesteps)[:, None]
    ran = np.zeros((2, len(layers), subject.timesteps))  # spikes, sops up to the exit
    whole = 0.0  # spikes of all T steps
    for batch in batches:
        decided = batch.decided or decode(batch.membranes, exit, value)
        alive = every < decided.steps[None, :]
        for i, counts in enumerate((batch.spikes, batch.sops)):
            ran[i] += (counts * alive).sum(axis=-1)
        whole += float(batch.spikes.sum())
        parts.append(batch.membranes)
        steps.append(decided.steps)
        labels.append(decided.labels)
        exited.append(decided.exited)
    membranes = np.concatenate(parts, axis=1)
    step, label = np.concatenate(steps), np.concatenate(labels)
    n = len(step)
    must_exit = is_events(data)  # a stream of events has no last step to answer at
    right = (label == data.y) & (np.concatenate(exited) | (not must_exit))
    spikes, sops = ran / n
    histogram = np.bincount(step, minlength=subject.timesteps + 1)
    return {
        "form": subject.form,
        "samples": n,
        "accuracy": float(right.mean()),
        "mean_timesteps": float(step.mean()),
        "timesteps_histogram": {str(t): int(histogram[t]) for t in range(1, subject.timesteps + 1)},
        "no_output_spike": int((~np.concatenate(exited)).sum()),
        "exit": exit,
        "threshold": float(value * unit),
        "spikes_per_neuron": {
            "hidden": float(spikes[1:-1].sum() / max(neurons[1:-1].sum(), 1.0)),
            "all": float(spikes[:-1].sum() / neurons[:-1].sum()),
        },
        "sops_mean": float(sops.sum()),
        "encoder_macs": subject.macs[layers[0][0]],
        "per_layer": [
            {
                "name": name,
                "kind": kind,
                "neurons": count,
                "spikes_per_neuron": float(spikes[i].sum() / count),
                "spikes_per_neuron_by_step": [float(v) for v in spikes[i] / count],
                "sops_mean": float(sops[i].sum()),
            }
            for i, (name, kind, count) in enumerate(layers)
        ],
        "accuracy_per_class": _per_class(label, data),
        "confusion": _confusion(label, data.y, membranes.shape[-1]),
        "curves": _curves(membranes, data.y, exit, value, unit, must_exit),
        "difficulty": by_difficulty(hardness(membranes[-1], subject.unit), step, right),
        "energy": energy(
            subject.macs,
            layers[0][0],
            float(sops.sum()),
            float(step.mean()),
            float(spikes.sum()),
            (float(subject.timesteps), whole / n),
        ),
    }


def _per_class(label: np.ndarray, data: Dataset) -> dict[str, float]:
    return {
        name: float((label[data.y == c] == c).mean())
        for c, name in enumerate(data.class_names)
        if (data.y == c).any()
    }


def _confusion(label: np.ndarray, y: np.ndarray, classes: int) -> list[list[int]]:
    """Row: the true class; column: the answer. A net may tell more classes apart than the data has."""
    out = np.zeros((classes, classes), dtype=int)
    np.add.at(out, (y, label), 1)
    return [[int(v) for v in row] for row in out]


def _curves(
    membranes: np.ndarray, y: np.ndarray, kind: str, value: float, unit: float, must_exit: bool
) -> dict[str, list[dict[str, float]]]:
    """Accuracy against mean steps over thresholds, for each early exit; empty for a readout without one.

    Every threshold that was tried, the worse ones too: the best of them on a test split say more than is true.
    """
    out: dict[str, list[dict[str, float]]] = {}
    right = membranes.argmax(axis=-1) == y
    columns, last = np.arange(len(y)), len(membranes) - 1
    # Leaks per class are the net's: its first spikes are those of a selector, and the other way round.
    other = "first-spike" if kind == "selector" else "selector"
    for exit in EARLY_EXITS:
        if kind in ("rate", "css") or exit == other or membranes.shape[-1] < 2:
            continue
        seen, points = criterion(membranes, exit), {}
        values = fine_candidates(membranes, exit)
        tried = values[np.unique(np.linspace(0, len(values) - 1, CURVE).round().astype(int))]
        for v in np.union1d(tried, [value]) if exit == kind else tried:
            reached = seen >= v
            steps = np.where(reached.any(axis=0), reached.argmax(axis=0), last)
            at = float(steps.mean()) + 1.0
            answered = reached.any(axis=0) | (not must_exit)
            points[at, float((right[steps, columns] & answered).mean())] = float(v) * unit
        out[exit] = [
            {"value": v, "accuracy": accuracy, "mean_timesteps": at}
            for (at, accuracy), v in sorted(points.items(), key=lambda item: item[1])
        ]
    return out


def hardness(last: np.ndarray, unit: float | None) -> np.ndarray:
    """Difficulty of samples, 0...1, from U[T] [N, classes].

    1 - the margin of softmax(U[T]) between the best two classes. Without a unit: 1 - the margin of U[T], as a
    share of the largest one.
    """
    u = last.astype(np.float64) * (1.0 if unit is None else unit)
    if unit is not None:
        u = np.exp(u - u.max(axis=-1, keepdims=True))
        u /= u.sum(axis=-1, keepdims=True)
    if u.shape[-1] < 2:
        return np.zeros(len(u))
    top = np.partition(u, -2, axis=-1)
    margin = top[:, -1] - top[:, -2]
    return np.asarray(1.0 - margin / (1.0 if unit is not None else max(margin.max(), 1.0)))


def by_difficulty(hard: np.ndarray, steps: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Mean step and accuracy of ten parts of the samples, easiest to hardest."""
    parts = np.array_split(np.argsort(hard, kind="stable"), min(BINS, len(hard)))
    return [
        {
            "difficulty": float(hard[part].mean()),
            "mean_timesteps": float(steps[part].mean()),
            "accuracy": float(right[part].mean()),
        }
        for part in parts
    ]
