"""Profile one compiled model: every figure of the report, measured or estimated, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.esnn_file import load_bundle_program
from edgesnn.data import Recording
from edgesnn.evaluate import Advance, Tally, must_exit, shares
from edgesnn.profiling.layers import LAYER_SAMPLES, profile_layers, shares_of
from edgesnn.profiling.signal import profile_signal
from edgesnn.profiling.spread import spread
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
from edgesnn.runtime.pool import Pool, as_pool
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError

SWEEP_SAMPLES = 200  # the interpreter takes up to a tenth of a second each
BINS = 40
SPIKING = ("encoder", "spiking")

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Inferences:
    """Every measured inference. amounts: float64[N] in `unit`; the others int64[N]; tally: their sums.

    answered: 0 where there is no answer: of events, without an exit.
    link: seconds of moving data over the links, None without one. boards: what each board did.
    """

    unit: str
    amounts: np.ndarray
    steps: np.ndarray
    labels: np.ndarray
    spikes: np.ndarray
    sops: np.ndarray
    answered: np.ndarray
    tally: Tally
    link: float | None
    boards: list[dict[str, Any]]


def profile(
    boards: Session | Pool,
    x: np.ndarray,
    data: str,
    advance: Advance = lambda items: items,
    *,
    y: np.ndarray | None = None,
    signal: Recording | None = None,
    sweep_samples: int = SWEEP_SAMPLES,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Time every sample, and look at some of them more closely.

    On a board the figures are in the unit of its counter ("instructions" on an emulator that counts them,
    "cycles" on a processor), and per layer over the first LAYER_SAMPLES samples, run node by node. On the host
    they are wall-clock microseconds. Moving data over the link is timed apart and is in none of them.

    y: int64[N], without it there is no accuracy. signal: played into a model that streams. sweep_samples: so
    many samples go through the reference interpreter without an exit, for what a threshold does; 0: none. say:
    told what begins.
    """
    pool = as_pool(boards)
    _check_alike(pool)
    bundle, session = pool.bundle, pool.sessions[0]
    program = load_bundle_program(bundle)
    name = f"{bundle.name}, {pool.engine_name}"
    say(f"{name}: timing {len(x):,} inferences")
    found = _time(pool, x, advance)
    few = min(LAYER_SAMPLES, len(x))
    if session.counter is not None:
        say(f"{name}: {few} inferences node by node")
    report = {
        "format": "edgesnn-report",
        "version": 1,
        "model": bundle.name,
        "bundle": str(bundle.path),
        "target": bundle.target,
        "board": session.board.name if session.board is not None else None,
        "engine": pool.engine_name,
        "boards": found.boards,
        "data": data,
        **_latency(session, found, y),
        **profile_layers(
            pool,
            program,
            x[:few],
            found.unit,
            found.tally,
            float(found.amounts[:few].mean()),
            advance,
        ),
        **_work(session, found),
        "readout": bundle.manifest.get("readout"),
    }
    seen = None
    if sweep_samples > 0:
        count = min(sweep_samples, len(x))
        say(f"{name}: {count:,} samples without an exit, in the interpreter")
        frames = [bundle.check_sample(sample) for sample in x[:count]]
        seen = run_unstopped(program, np.stack(frames), advance)
    report |= _exit(session, program, found, seen, y)
    report["energy"] = _energy(session, program, found, seen)
    report["raster"] = _raster(session, program, x, found, y)
    report["signal"] = None
    session = pool.sessions[0]  # one that is there to the end
    if signal is not None:
        say(f"{name}: a signal of {session.stream.seconds(signal.length):.1f} s")
        report["signal"] = profile_signal(session, signal, advance)
        _add_front_end(report)
    report["memory"] = _memory(pool)
    report["queues"] = [
        {"name": n.name, "events": n.queue_capacity} for n in bundle.nodes if n.queue_capacity
    ]
    report["versions"] = bundle.manifest.get("versions") or {}
    columns = {
        found.unit: found.amounts,
        "timesteps": found.steps,
        "spikes": found.spikes,
        "sops": found.sops,
        "answers": found.labels,
    }
    report["inferences"] = {k: v.tolist() for k, v in columns.items()}
    report["inferences"]["labels"] = None if y is None else [int(v) for v in y]
    return report


def _check_alike(pool: Pool) -> None:
    """Figures of different boards, or in different units, are not to be put together."""
    first, *others = pool.sessions
    for other in others:
        kinds = [(s.board.name, s.counter and s.counter.unit) for s in (first, other) if s.board]
        if len(set(kinds)) > 1:
            (one, unit), (another, its) = kinds
            counted = "" if unit == its else f", the one in {unit}, the other in {its}"
            raise UsageError(
                f"profile puts the figures of boards of one kind together; {one} and {another} are two"
                f"{counted}: profile one after the other"
            )


def _time(pool: Pool, x: np.ndarray, advance: Advance) -> _Inferences:
    """Classify every sample."""
    session, tally = pool.sessions[0], Tally(pool)
    spiking = np.array([node.kind in SPIKING for node in pool.bundle.nodes])
    if session.counter is None:
        session.classify(x[0])  # the first call loads what later ones find in the cache
    moved = pool.link_seconds
    amounts: list[float] = []
    rows: list[tuple[int, int, int, int, int]] = []
    strict = must_exit(pool.bundle)
    for _, decision in zip(advance(range(len(x))), pool.map(Session.classify, x), strict=True):
        tally.add(decision)
        amounts.append(_amount(session, decision.ticks, decision.seconds))
        spikes, sops = int(decision.events[spiking].sum()), int(decision.sops.sum())
        answered = decision.exited or not strict
        rows.append((decision.step, decision.label, spikes, sops, answered))
    link = None if moved is None else (pool.link_seconds or 0.0) - moved
    unit = session.counter.unit if session.counter is not None else "microseconds"
    steps, labels, fired, done, answers = np.array(rows, dtype=np.int64).T
    times = np.array(amounts)
    return _Inferences(unit, times, steps, labels, fired, done, answers, tally, link, shares(pool))


def _latency(session: Session, found: _Inferences, y: np.ndarray | None) -> dict[str, Any]:
    """How long an inference takes, of all samples and by stopping step."""
    counter, unit, amounts, steps = session.counter, found.unit, found.amounts, found.steps
    right = None if y is None else (found.labels == y) & (found.answered == 1)
    report: dict[str, Any] = {
        "samples": len(amounts),
        "accuracy": None if right is None else float(right.mean()),
        "unit": unit,
        unit: spread(amounts),
    }
    # An instruction is not a cycle: only a cycle count tells the time on the board.
    if counter is not None and counter.unit == "cycles":
        each = 1e6 / counter.per_tick / counter.hz
        report["microseconds"] = {k: each * v for k, v in report[unit].items()}
    report["resolution"] = counter.per_tick if counter is not None else None
    report["clock_hz"] = session.board.clock_hz if session.board is not None else None
    columns = {"timesteps": steps, "spikes": found.spikes, "sops": found.sops}
    report["distribution"] = {name: spread(values) for name, values in columns.items()}
    report["histogram"] = _histogram(amounts, steps)
    report["by_step"] = [
        {
            "step": int(t),
            "samples": int((steps == t).sum()),
            unit: float(amounts[steps == t].mean()),
        }
        for t in np.unique(steps)
    ]
    report["link"] = None
    if found.link is not None:
        each = found.link / len(amounts)
        # The share of it is known where the time on the board is: not where instructions are counted.
        ran = report["microseconds"]["mean"] / 1e6 if unit == "cycles" else None
        share = None if ran is None else each / (each + ran)
        report["link"] = {"seconds": found.link, "seconds_per_inference": each, "share": share}
    return report


def _work(session: Session, found: _Inferences) -> dict[str, Any]:
    """What an inference does, and beside what was observed what no input can exceed."""
    bundle, tally = session.bundle, found.tally
    return {
        "timesteps": tally.timesteps(),
        "timesteps_most": bundle.timesteps,
        "no_output_spike": tally.no_output_spike,
        "spikes_per_neuron": tally.spikes_per_neuron(),
        "sops_mean": float(found.sops.mean()),
        "sops_max": int(found.sops.max()),
        "worst_case": (bundle.manifest.get("instructions") or {}).get("worst_per_inference"),
        "worst_case_sops": bundle.manifest["bounds"]["worst_case_sops_per_inference"],
        "encoder_macs": bundle.encoder_macs,
    }


def _exit(
    session: Session,
    program: ir.Program,
    found: _Inferences,
    seen: Unstopped | None,
    y: np.ndarray | None,
) -> dict[str, Any]:
    """What other thresholds would do, and how steps go with difficulty."""
    report: dict[str, Any] = {"sweep": None, "difficulty": None}
    if seen is not None:
        labels = None if y is None else y[: len(seen.steps)]
        usual = np.full(len(found.amounts), True)
        if session.counter is None:  # wall-clock times have outliers that say nothing about the net
            usual = found.amounts <= spread(found.amounts)["p95"]
        cost = fit(found.amounts[usual], found.steps[usual], found.sops[usual])
        report["sweep"] = sweep(program, seen, labels, found.unit, cost)
        report["difficulty"] = difficulty(seen, labels)
    report["sweep_missing"] = _sweep_missing(program, seen)
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
    session: Session, program: ir.Program, measured: _Inferences, seen: Unstopped | None
) -> dict[str, Any]:
    """Eqs. 15-17 of the papers, and where the board's file says what it draws, an estimate of the board's."""
    about = subject(program)
    # An event input needs no multiplication anywhere.
    encoder = next((n.name for n in program.nodes if _takes_samples(n)), "")
    macs = {"": 0, **about.macs}
    steps, spikes, full = 0.0, 0.0, (1.0, 1.0)
    if seen is not None:
        alive = np.arange(len(seen.spikes))[:, None] < seen.steps
        steps, spikes = float(seen.steps.mean()), float((seen.spikes * alive).sum(axis=0).mean())
        full = (float(program.timesteps), float(seen.spikes.sum(axis=0).mean()))
    found = energy(macs, encoder, float(measured.sops.mean()), steps, spikes, full)
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
            "cycles_are_instructions": measured.unit == "instructions",
            "microjoules": {k: power.microjoules(v) for k, v in spread(measured.amounts).items()},
        }
    return found


def _takes_samples(node: ir.Node) -> bool:
    """Whether it takes samples."""
    return isinstance(node, ir.Encoder | ir.CssEncoder)


def _raster(
    session: Session, program: ir.Program, x: np.ndarray, found: _Inferences, y: np.ndarray | None
) -> dict[str, Any]:
    """One sample, step by step."""
    one = typical(found.sops)
    answer = int(found.labels[one])
    return {
        "sample": one,
        "label": None if y is None else session.class_name(int(y[one])),
        "answer": session.class_name(answer),
        "answer_class": answer,
        "step": int(found.steps[one]),
        "classes": [session.class_name(c) for c in range(session.bundle.classes)],
        **raster(program, session.bundle.check_sample(x[one])),
    }


def _add_front_end(report: dict[str, Any]) -> None:
    """Add the front end to the parts of an inference, in the proportion to them that the signal showed."""
    board, parts, unit = report["signal"]["board"], report["parts"], report["unit"]
    if board is not None and parts is not None and board["front_end_share"] < 1:
        share = board["front_end_share"]
        parts[unit]["front end"] = sum(parts[unit].values()) * share / (1 - share)
        parts["shares"] = shares_of(parts[unit])


def _memory(pool: Pool) -> dict[str, Any]:
    """Sizes as the manifest has them; bytes. stack_high_water: of all boards the most."""
    memory = pool.bundle.manifest["memory"]
    used = [s.stack_high_water() for s in pool.sessions]
    arena = memory.get("arena") or []
    return {
        **{k: memory[k] for k in ("flash_bytes", "ram_bytes", "stack_bytes", "arena_bytes")},
        "stack_high_water": max((n for n in used if n is not None), default=None),
        "stack_reserved_bytes": memory.get("stack_reserved_bytes"),
        "flash_region_bytes": memory.get("flash_region_bytes"),
        "ram_region_bytes": memory.get("ram_region_bytes"),
        "weight_bytes": pool.bundle.manifest.get("weight_bytes"),
        "sections": memory.get("sections") or {},
        "arena": [{k: b[k] for k in ("name", "offset", "bytes")} for b in arena],
    }
