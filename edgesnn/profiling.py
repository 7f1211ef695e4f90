"""`profile`: where an inference spends its time, by the board's own counter or the wall clock."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.evaluate import Advance, Tally
from edgesnn.runtime.files import replace_folder, writable_folder
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError

REPORT = "report.json"
TABLE = "report.txt"
LAYER_SAMPLES = 20  # timing node by node costs a request per node: a few samples tell enough


def spread(values: np.ndarray) -> dict[str, float]:
    """mean, p50, p95, p99, max; a percentile is a value that occurred (nearest rank)."""
    ranks = {f"p{q}": float(np.percentile(values, q, method="inverted_cdf")) for q in (50, 95, 99)}
    return {"mean": float(values.mean()), **ranks, "max": float(values.max())}


def profile(
    session: Session, x: np.ndarray, data: str, advance: Advance = lambda items: items
) -> dict[str, Any]:
    """Time every sample.

    On a board the figures are in the unit of its counter ("instructions" on an emulator that
    counts them, "cycles" on a processor), and per layer over the first LAYER_SAMPLES samples, run
    node by node. On the host they are wall-clock microseconds. Moving data over the link is timed
    apart and is in none of them.
    """
    bundle, counter = session.bundle, session.counter
    tally, values, most_sops = Tally(session), [], 0
    moved = session.link_seconds
    for sample in advance(list(x)):
        decision = session.classify(sample)
        tally.add(decision)
        most_sops = max(most_sops, int(decision.sops.sum()))
        values.append(_amount(session, decision.ticks, decision.seconds))
    unit = counter.unit if counter is not None else "microseconds"
    report: dict[str, Any] = {
        "format": "edgesnn-report",
        "version": 1,
        "model": bundle.name,
        "target": bundle.target,
        "board": session.board.name if session.board is not None else None,
        "engine": session.engine_name,
        "data": data,
        "samples": tally.count,
        "unit": unit,
        unit: spread(np.array(values)),
    }
    if counter is not None:
        seconds = {k: v / counter.per_tick / counter.hz for k, v in report[unit].items()}
        # An instruction is not a cycle: only a cycle count tells the time on the board.
        if counter.unit == "cycles":
            report["microseconds"] = {k: 1e6 * v for k, v in seconds.items()}
    report["resolution"] = counter.per_tick if counter is not None else None
    report["per_layer"] = _per_layer(session, x[:LAYER_SAMPLES], tally, unit)
    report["per_layer_samples"] = min(LAYER_SAMPLES, tally.count) if counter is not None else None
    report["timesteps"] = tally.timesteps()
    report["spikes_per_neuron"] = tally.spikes_per_neuron()
    report["sops_mean"] = float(tally.sops.sum() / tally.count)
    report["sops_max"] = most_sops
    # Beside what was observed: what no input can exceed, where it is known.
    report["worst_case"] = (bundle.manifest.get("instructions") or {}).get("worst_per_inference")
    report["worst_case_sops"] = bundle.manifest["bounds"]["worst_case_sops_per_inference"]
    report["encoder_macs"] = bundle.encoder_macs
    report["link"] = None
    if moved is not None and session.link_seconds is not None:
        total = session.link_seconds - moved
        report["link"] = {"seconds": total, "seconds_per_inference": total / tally.count}
    memory = bundle.manifest["memory"]
    report["memory"] = {k: memory[k] for k in ("flash_bytes", "ram_bytes", "stack_bytes")}
    report["memory"]["stack_high_water"] = session.stack_high_water()
    return report


def _amount(session: Session, ticks: int | None, seconds: float | None) -> float:
    if session.counter is not None:
        if ticks is None:
            raise EdgesnnError(f"{session.engine_name} reports no counter; update its firmware")
        return float(session.counter.units(ticks))
    if seconds is None:
        raise EdgesnnError(f"{session.engine_name} measures no time")
    return 1e6 * seconds


def _per_layer(session: Session, x: np.ndarray, tally: Tally, unit: str) -> list[dict[str, Any]]:
    """One row a node: mean events, synaptic operations and, where it can be timed, time.

    Every figure of a row is of the same samples: on a board of `x`, run node by node; elsewhere, without
    times, of all that `tally` has seen.
    """
    nodes, counter = session.bundle.nodes, session.counter
    ticks: np.ndarray | None = None
    if counter is not None:
        ticks, tally = np.zeros(len(nodes)), Tally(session)
        for sample in x:
            decision = session.profile(sample)
            if decision.node_ticks is None:
                raise EdgesnnError(f"{session.engine_name} times no nodes; update its firmware")
            tally.add(decision)
            ticks += decision.node_ticks * counter.per_tick / len(x)
    rows = []
    for i, node in enumerate(nodes):
        row: dict[str, Any] = {
            "name": node.name,
            "kind": node.kind,
            "neurons": node.neurons,
            "events_mean": float(tally.events[i] / tally.count),
            "sops_mean": float(tally.sops[i] / tally.count),
            f"{unit}_mean": None,
            "share": None,
        }
        if ticks is not None:
            row[f"{unit}_mean"] = float(ticks[i])
            row["share"] = float(ticks[i] / ticks.sum()) if ticks.sum() else 0.0
        rows.append(row)
    return rows


def check_report_folder(out: Path) -> None:
    """UsageError unless `out` is new, empty, or holds an older report and nothing else."""
    writable_folder(out, REPORT)
    if out.is_dir():
        others = sorted(p.name for p in out.iterdir() if p.name not in (REPORT, TABLE))
        if others:
            raise UsageError(f"{out} holds {others[0]}; choose another --out or move it away")
        if (out / REPORT).exists() and not _is_report(out / REPORT):
            raise UsageError(f"{out / REPORT} is not a report of ours; choose another --out")


def _is_report(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == "edgesnn-report"


def write_report(report: dict[str, Any], table: str, out: Path) -> None:
    """Write report.json and report.txt into the folder `out`, complete or not at all."""
    check_report_folder(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            new = Path(temporary) / "report"
            new.mkdir()
            text = json.dumps(report, indent=1) + "\n"
            (new / REPORT).write_text(text, encoding="utf-8")
            (new / TABLE).write_text(table, encoding="utf-8")
            replace_folder(new, out)
    except OSError as e:
        raise EdgesnnError(f"cannot write {out}: {e.strerror or e}") from None
