"""Profile one compiled model: every figure of the report, measured or estimated, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.esnn_file import load_program
from edgesnn.evaluate import Advance, Tally
from edgesnn.profiling.shares import add_up, split
from edgesnn.profiling.unstopped import (
    Unstopped,
    difficulty,
    fit,
    raster,
    run_unstopped,
    sweep,
    swept,
    typical,
)
from edgesnn.reports.energy import energy
from edgesnn.reports.program import subject
from edgesnn.runtime.engine import Decision
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError

LAYER_SAMPLES = 20  # timing node by node costs a request per node: a few samples tell enough
SWEEP_SAMPLES = 200  # the interpreter takes up to a tenth of a second each
BINS = 40
SPIKING = ("encoder", "spiking")

Say = Callable[[str], None]


def spread(values: np.ndarray) -> dict[str, float]:
    """mean, p50, p95, p99, max; a percentile is a value that occurred (nearest rank)."""
    ranks = {f"p{q}": float(np.percentile(values, q, method="inverted_cdf")) for q in (50, 95, 99)}
    return {"mean": float(values.mean()), **ranks, "max": float(values.max())}


@dataclass
class _Inferences:
    """Every measured inference, a list a column. amounts: in the report's unit."""

    amounts: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    sops: list[int] = field(default_factory=list)


def profile(
    session: Session,
    x: np.ndarray,
    data: str,
    advance: Advance = lambda items: items,
    *,
    y: np.ndarray | None = None,
    sweep_samples: int = SWEEP_SAMPLES,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Time every sample, and look at some of them more closely.

    On a board the figures are in the unit of its counter ("instructions" on an emulator that counts them,
    "cycles" on a processor), and per layer over the first LAYER_SAMPLES samples, run node by node. On the host
    they are wall-clock microseconds. Moving data over the link is timed apart and is in none of them.

    y: int64[N], without it there is no accuracy. sweep_samples: so many samples go through the reference
    interpreter without an exit, for what a threshold does; 0: none. say: told what begins.
    """
    bundle, counter = session.bundle, session.counter
    program = load_program(bundle.program_path)
    if program.digest()[:16] != bundle.model_id:
        raise EdgesnnError(
            f"{bundle.program_path} is another program than the bundle's; compile again"
        )
    name = f"{bundle.name}, {session.engine_name}"
    unit = counter.unit if counter is not None else "microseconds"
    tally, found = Tally(session), _Inferences()
    spiking = np.array([node.kind in SPIKING for node in bundle.nodes])
    moved = session.link_seconds
    say(f"{name}: timing {len(x):,} inferences")
    if counter is None:
        session.classify(x[0])  # the first call loads what later ones find in the cache
    for sample in advance(list(x)):
        decision = session.classify(sample)
        tally.add(decision)
        found.amounts.append(_amount(session, decision.ticks, decision.seconds))
        found.steps.append(decision.step)
        found.labels.append(decision.label)
        found.spikes.append(int(decision.events[spiking].sum()))
        found.sops.append(int(decision.sops.sum()))
    link = None if moved is None else (session.link_seconds or 0.0) - moved
    amounts, steps, sops = (np.array(v) for v in (found.amounts, found.steps, found.sops))
    right = None if y is None else np.array(found.labels) == y
    report: dict[str, Any] = {
        "format": "edgesnn-report",
        "version": 1,
        "model": bundle.name,
        "bundle": str(bundle.path),
        "target": bundle.target,
        "board": session.board.name if session.board is not None else None,
        "engine": session.engine_name,
        "data": data,
        "samples": tally.count,
        "accuracy": None if right is None else float(right.mean()),
        "unit": unit,
        unit: spread(amounts),
    }
    if counter is not None:
        seconds = {k: v / counter.per_tick / counter.hz for k, v in report[unit].items()}
        # An instruction is not a cycle: only a cycle count tells the time on the board.
        if counter.unit == "cycles":
            report["microseconds"] = {k: 1e6 * v for k, v in seconds.items()}
    report["resolution"] = counter.per_tick if counter is not None else None
    report["clock_hz"] = session.board.clock_hz if session.board is not None else None
    report["distribution"] = {
        name: spread(np.array(values))
        for name, values in (("timesteps", steps), ("spikes", found.spikes), ("sops", sops))
    }
    report["histogram"] = _histogram(amounts, steps)
    report["by_step"] = [
        {
            "step": int(t),
            "samples": int((steps == t).sum()),
            unit: float(amounts[steps == t].mean()),
        }
        for t in np.unique(steps)
    ]
    report |= _per_layer(
        session, program, x[:LAYER_SAMPLES], tally, unit, amounts, say, name, advance
    )
    report["timesteps"] = tally.timesteps()
    report["timesteps_most"] = bundle.timesteps
    report["no_output_spike"] = tally.no_output_spike
    report["spikes_per_neuron"] = tally.spikes_per_neuron()
    report["sops_mean"] = float(tally.sops.sum() / tally.count)
    report["sops_max"] = int(sops.max())
    # Beside what was observed: what no input can exceed, where it is known.
    report["worst_case"] = (bundle.manifest.get("instructions") or {}).get("worst_per_inference")
    report["worst_case_sops"] = bundle.manifest["bounds"]["worst_case_sops_per_inference"]
    report["encoder_macs"] = bundle.encoder_macs
    report["link"] = None
    if link is not None:
        report["link"] = {"seconds": link, "seconds_per_inference": link / tally.count}
    seen = None
    if sweep_samples > 0:
        count = min(sweep_samples, len(x))
        say(f"{name}: {count:,} samples without an exit, in the interpreter")
        frames = [bundle.check_sample(sample) for sample in x[:count]]
        seen = run_unstopped(program, np.stack(frames), advance)
    labels = None if y is None or seen is None else y[: len(seen.steps)]
    report["readout"] = bundle.manifest.get("readout")
    report["sweep"] = report["difficulty"] = None
    if seen is not None:
        # Wall-clock times have outliers that say nothing about the net.
        usual = amounts <= (np.inf if counter is not None else report[unit]["p95"])
        cost = fit(amounts[usual], steps[usual], sops[usual])
        report["sweep"] = sweep(program, seen, labels, unit, cost)
        report["difficulty"] = difficulty(seen, labels)
    report["sweep_missing"] = _sweep_missing(program, seen)
    report["energy"] = _energy(session, program, report, seen)
    one = typical(found.sops)
    report["raster"] = {
        "sample": one,
        "label": None if y is None else session.class_name(int(y[one])),
        "answer": session.class_name(found.labels[one]),
        "answer_class": found.labels[one],
        "step": found.steps[one],
        "classes": [session.class_name(c) for c in range(bundle.classes)],
        **raster(program, bundle.check_sample(x[one])),
    }
    report["memory"] = _memory(session)
    report["queues"] = [
        {"name": n.name, "events": n.queue_capacity} for n in bundle.nodes if n.queue_capacity
    ]
    report["versions"] = bundle.manifest.get("versions") or {}
    report["inferences"] = {
        unit: found.amounts,
        "timesteps": found.steps,
        "spikes": found.spikes,
        "sops": found.sops,
        "answers": found.labels,
        "labels": None if y is None else [int(v) for v in y],
    }
    return report


def _amount(session: Session, ticks: int | None, seconds: float | None) -> float:
    if session.counter is not None:
        if ticks is None:
            raise EdgesnnError(f"{session.engine_name} reports no counter; update its firmware")
        return float(session.counter.units(ticks))
    if seconds is None:
        raise EdgesnnError(f"{session.engine_name} measures no time")
    return 1e6 * seconds


def _histogram(values: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """Counts in equal bins, of all and by stopping step; "beyond" are outliers above the last edge."""
    low, high = float(values.min()), float(values.max())
    usual = float(np.percentile(values, 99, method="inverted_cdf"))
    if high > 2 * usual:
        high = low + 1.1 * (usual - low)
    limits = (low, high) if high > low else (0.9 * low, 1.1 * low + 1)
    counts, edges = np.histogram(values, BINS, limits)
    by_step = {
        str(t): [int(v) for v in np.histogram(values[steps == t], edges)[0]]
        for t in np.unique(steps)
    }
    return {
        "edges": [float(v) for v in edges],
        "counts": [int(v) for v in counts],
        "by_step": by_step,
        "beyond": int((values > edges[-1]).sum()),
    }


def _per_layer(
    session: Session,
    program: ir.Program,
    x: np.ndarray,
    tally: Tally,
    unit: str,
    amounts: np.ndarray,
    say: Say,
    name: str,
    advance: Advance,
) -> dict[str, Any]:
    """One row a node: mean events, synaptic operations and, where it can be timed, time and its parts.

    Every figure of a row is of the same samples: on a board of `x`, run node by node; elsewhere, without
    times, of all that `tally` has seen. "parts": of a mean inference of those samples.
    """
    bundle, counter = session.bundle, session.counter
    nodes = bundle.nodes
    time: np.ndarray | None = None
    parts: list[dict[str, float] | None] = [None] * len(nodes)
    whole = None
    if counter is not None:
        say(f"{name}: {len(x)} inferences node by node")
        decisions = [_node_by_node(session, sample) for sample in advance(list(x))]
        tally = Tally(session)
        for decision in decisions:
            tally.add(decision)
        time = np.array([d.node_ticks for d in decisions]) * float(counter.per_tick)
        steps, sops = np.array([d.step for d in decisions]), np.array([d.sops for d in decisions])
        frames = np.stack([bundle.check_sample(sample) for sample in x])
        parts, method = split(bundle, program, frames, steps, sops, time)
        mean = time.mean(axis=0)
        every = add_up(parts, [float(v) for v in mean], float(amounts[: len(x)].mean()))
        total = sum(every.values())
        whole = {
            "samples": len(x),
            "method": method,
            unit: every,
            "shares": {k: v / total if total else 0.0 for k, v in every.items()},
        }
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
            "parts": parts[i],
        }
        if time is not None:
            mean = time.mean(axis=0)
            row[f"{unit}_mean"] = float(mean[i])
            row["share"] = float(mean[i] / mean.sum()) if mean.sum() else 0.0
        rows.append(row)
    return {
        "per_layer": rows,
        "per_layer_samples": len(x) if counter is not None else None,
        "parts": whole,
    }


def _node_by_node(session: Session, sample: np.ndarray) -> Decision:
    decision = session.profile(sample)
    if decision.node_ticks is None:
        raise EdgesnnError(f"{session.engine_name} times no nodes; update its firmware")
    return decision


def _sweep_missing(program: ir.Program, seen: Unstopped | None) -> str | None:
    """Why there is no sweep of the threshold."""
    rule = program.readout
    if isinstance(rule, ir.Rate):
        return "a rate readout has no threshold: it always takes all steps"
    if isinstance(rule, ir.Css):
        return "signed spikes stop where the answer is proved or at margins of the conversion"
    if swept(program) is None:
        return "there is one timestep: nothing stops earlier"
    return "it was not asked for (--sweep 0)" if seen is None else None


def _energy(
    session: Session, program: ir.Program, report: dict[str, Any], seen: Unstopped | None
) -> dict[str, Any]:
    """Eqs. 15-17 of the papers, and where the board's file says what it draws, an estimate of the board's."""
    about, unit = subject(program), report["unit"]
    # An event input needs no multiplication anywhere.
    encoder = next((n.name for n in program.nodes if _takes_samples(n)), "")
    macs = {"": 0, **about.macs}
    steps, spikes, full = 0.0, 0.0, (1.0, 1.0)
    if seen is not None:
        alive = np.arange(len(seen.spikes))[:, None] < seen.steps
        steps, spikes = float(seen.steps.mean()), float((seen.spikes * alive).sum(axis=0).mean())
        full = (float(program.timesteps), float(seen.spikes.sum(axis=0).mean()))
    found = energy(macs, encoder, report["sops_mean"], steps, spikes, full)
    # As a dense network does them, padding included: a little more than the device's own.
    found["macs"], found["encoder_macs"] = sum(macs.values()), macs[encoder]
    if seen is None:
        found["normalised"] = None
    found["board"] = None
    power = session.board.power if session.board is not None else None
    if power is not None:
        found["board"] = {
            "current_ua_per_mhz": power.current_ua_per_mhz,
            "supply_v": power.supply_v,
            "cycles_are_instructions": unit == "instructions",
            "microjoules": {k: power.microjoules(v) for k, v in report[unit].items()},
        }
    return found


def _takes_samples(node: ir.Node) -> bool:
    """Whether it takes samples."""
    return isinstance(node, ir.Encoder | ir.CssEncoder)


def _memory(session: Session) -> dict[str, Any]:
    """Sizes as the manifest has them; bytes."""
    memory = session.bundle.manifest["memory"]
    arena = memory.get("arena") or []
    return {
        **{k: memory[k] for k in ("flash_bytes", "ram_bytes", "stack_bytes", "arena_bytes")},
        "stack_high_water": session.stack_high_water(),
        "stack_reserved_bytes": memory.get("stack_reserved_bytes"),
        "flash_region_bytes": memory.get("flash_region_bytes"),
        "ram_region_bytes": memory.get("ram_region_bytes"),
        "weight_bytes": session.bundle.manifest.get("weight_bytes"),
        "sections": memory.get("sections") or {},
        "arena": [{k: b[k] for k in ("name", "offset", "bytes")} for b in arena],
    }
