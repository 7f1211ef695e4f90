"""What a node costs: instructions as a sum of coefficients times counts, per kernel, style and core.

The counts follow from shapes and from how many units spike where; the coefficients are fitted to measurements
of a core's emulated board so that no measurement lies above the model (scripts/costs.py, decision 0013). At the
bounds, where every unit spikes whenever it can, the model is the worst case; at measured rates it predicts a
mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds
from edgesnn.compiler.layout import (
    ScatterConv,
    SpikeMap,
    gather_layout,
    padded,
    strip_layout,
)
from edgesnn.compiler.styles import DSP, MVE, PLAIN, Style, small

COSTS = Path(__file__).resolve().parent / "costs"
Choice = Mapping[str, Style]
Counts = dict[str, float]  # "<kernel>:<what>" -> how often


@dataclass(frozen=True)
class Run:
    """Steps looked at: how many, and whether the first and the second of an inference are among them."""

    steps: float
    first: bool
    second: bool


@dataclass(frozen=True)
class Load:
    """What a node emits over the steps of a run.

    events, words: float[H, W], events and words of the spike map that are not 0, by position. ones: the
    events left over where the events of a word are taken four at a time. reached: membranes at or above their
    threshold; eights: groups of eight channels with one. Of an input: present, float[H, W, C], the probability
    that a sample differs from the zero point. Of a latency encoder: times, float[T], units by step of their
    spike (of the whole inference), loud, groups of four with one in step 1, and slots, words of all steps' maps
    that are not 0.
    """

    events: np.ndarray
    words: np.ndarray
    ones: np.ndarray
    reached: float = 0.0
    eights: float = 0.0
    present: np.ndarray | None = None
    times: np.ndarray | None = None
    loud: float = 0.0
    slots: float = 0.0


Loads = Mapping[str, Load]


# --- what is counted ----------------------------------------------------------------------------


class _Tally:
    """Counts of one kernel at a time, added up."""

    def __init__(self) -> None:
        self.counts: Counts = {}

    def add(self, kernel: str, **counts: float) -> None:
        for what, count in counts.items():
            if count:
                key = f"{kernel}:{what}"
                self.counts[key] = self.counts.get(key, 0.0) + float(count)


def node_counts(
    program: ir.Program, bounds: Bounds, choice: Choice, node: ir.Node, run: Run, loads: Loads
) -> Counts:
    """What this node does in a run."""
    tally = _Tally()
    if isinstance(node, ir.SampleInput | ir.EventInput):
        tally.add("input", step=run.steps)
        return tally.counts
    tally.add("node", step=run.steps)
    if isinstance(node, ir.LatencyEncoder):
        _latency(tally, program, bounds, choice, node, run, loads)
    elif isinstance(node, ir.CurrentEncoder):
        _current(tally, program, bounds, node, run, loads)
    elif isinstance(node, ir.Merge):
        for source in node.sources:
            _merge(tally, bounds, source, run, loads[source])
    elif isinstance(node, ir.OrPool):
        _or_pool(tally, bounds, node, run, loads[node.name])
    elif isinstance(node, ir.SumPool):
        _sum_pool(tally, bounds, node, run, loads)
    elif isinstance(node, ir.CssEncoder | ir.Integrator):
        tally.add("signed spikes", step=run.steps)  # measured on no core
    else:
        style = choice[node.name]
        leaks = node.leaks if isinstance(node, ir.Accumulator) else (node.leak,)
        _begin(tally, bounds, node, leaks, style, run)
        for p in node.projections:
            _deliver(tally, bounds, p, style, run, loads)
        if isinstance(node, ir.Accumulator):
            kind = "margin" if isinstance(program.readout, ir.Margin) else "leader"
            tally.add(f"readout.{kind}", call=run.steps, unit=run.steps * program.classes)
        else:
            _fire(tally, bounds, node, style, run, loads[node.name])
    return tally.counts


def _map(bounds: Bounds, name: str) -> SpikeMap | None:
    b = bounds.nodes[name]
    return SpikeMap(b.shape) if b.capacity and b.multiplicity == 1 else None


def _sizes(spikes: SpikeMap) -> list[int]:
    """Channels in each word of a position."""
    last = spikes.shape[2] - (spikes.words - 1) * spikes.bits
    return [spikes.bits] * (spikes.words - 1) + [last]


def _blocks(style: Style, four: bool, n: np.ndarray) -> dict[str, np.ndarray]:
    """How a style's kernel, of one event or of four, cuts n outputs."""
    if four:
        return {"by8": n // 8, "by4": n % 8 // 4}
    if style is DSP:
        return {"by64": n // 64, "by16": n % 64 // 16, "by4": n % 16 // 4}
    if style is MVE:
        return {"by32": n // 32, "by8": n % 32 // 8}
    if style.micro:
        return {"by32": n // 32, "by8": n % 32 // 8, "by4": n % 8 // 4}
    return {"by8": n // 8, "by1": n % 8, "unit": n}


def _deliver(
    tally: _Tally,
    bounds: Bounds,
    p: ir.Projection,
    style: Style,
    run: Run,
    loads: Loads,
) -> None:
    source, load, found = bounds.nodes[p.source], loads[p.source], _map(bounds, p.source)
    layout = geometry(p, source.shape, style.lanes)
    (h, w, _), (oh, ow, co) = layout.source, layout.target
    grouped = layout.groups > 1
    kind = "dense" if isinstance(p, ir.Dense) else "grouped" if grouped else "conv"
    name = f"{kind}.{style.name}" + ("" if found else ".queue")
    tally.add(name, call=run.steps)
    parts = [("one", load.events)]
    if kind == "dense" and found and style.held:
        # Events are kept until there are so many; a step ends with what is left.
        total = float(load.events.sum())
        times = total / style.held + run.steps
        tally.add(
            f"{name}.held",
            event=total,
            call=times,
            block=times * (co // 32),
            by32=total * (co // 32),
            rest=total * (co % 32 > 0),
            by8=total * (co % 32 // 8),
        )
        parts = []
    elif style.four and found and not grouped:
        parts = [("one", load.ones), ("four", (load.events - load.ones) / 4)]
    for part, events in parts:
        few = "6" if part == "four" and style.four6 and small(p.weight) else ""
        # A micro-kernel is the same code whoever calls it.
        name_of = f"{kind}.{style.name}.{part}{few}" if style.micro else f"{name}.{part}"
        tally.add(name_of, event=float(events.sum()))
        if isinstance(p, ir.Dense):
            cut = _blocks(style, part == "four", np.array(co))
            tally.add(name_of, **{k: float(events.sum()) * float(v) for k, v in cut.items()})
            continue
        (ty, tx), (sy, sx), (top, left) = layout.taps, layout.stride, layout.padding
        columns = _reached(w, ow, tx, sx, left)
        weight = events * _reached(h, oh, ty, sy, top)[:, None]  # rows of targets, by position
        tally.add(name_of, row=float(weight.sum()))
        if grouped:
            pixels = float((weight * columns[None, :]).sum())
            tally.add(name_of, pixel=pixels, unit=pixels * layout.per_group[1])
            continue
        for k, v in _blocks(style, part == "four", columns * co).items():
            tally.add(name_of, **{k: float((weight * v[None, :]).sum())})
    if found:
        tally.add(
            name,
            line=run.steps * h * (kind != "dense"),
            position=run.steps * found.positions,
            word=run.steps * found.positions * found.words,
            hit=float(load.words.sum()),
        )
    # Positions are divided by the stride: where that is no shift, it costs more.
    if layout.stride[1] & (layout.stride[1] - 1):
        tally.add(name, divided=float(load.words.sum() if found else load.events.sum()))
    if layout.stride[0] & (layout.stride[0] - 1):
        tally.add(name, divided_line=run.steps * h if found else float(load.events.sum()))


def geometry(p: ir.Projection, source: ir.Shape, lanes: int) -> ScatterConv:
    """`scatter_conv` without laying out any weight."""
    target = ir.conv_shape(p, source)
    none = np.zeros(0, dtype=np.int8)
    outputs, target = target[2], (target[0], target[1], padded(target[2], lanes))
    if isinstance(p, ir.Dense):
        flat = (1, 1, ir.size(source))
        return ScatterConv(none, flat, target, (1, 1), (0, 0), (1, 1), 1, target[2])
    _, kh, kw, _ = p.weight.shape
    taps = tuple(
        -(-(d * (k - 1) + 1) // s) for d, k, s in zip(p.dilation, (kh, kw), p.stride, strict=True)
    )
    outputs = outputs if p.groups > 1 else target[2]
    pads = (p.padding[0], p.padding[1])
    return ScatterConv(none, source, target, p.stride, pads, (taps[0], taps[1]), p.groups, outputs)


def _reached(n: int, out: int, taps: int, stride: int, before: int) -> np.ndarray:
    """Outputs along an axis that an event at each of n positions reaches."""
    q = (np.arange(n) + before) // stride
    return np.maximum(np.minimum(q + 1, out) - np.maximum(q - (taps - 1), 0), 0)


def _begin(
    tally: _Tally,
    bounds: Bounds,
    node: ir.CurrentEncoder | ir.Population,
    leaks: tuple[ir.Shifts, ...],
    style: Style,
    run: Run,
) -> None:
    b = bounds.nodes[node.name]
    stored, positions = padded(b.shape[2], style.lanes), b.shape[0] * b.shape[1]
    size = 2 if b.width == "int16" else 4
    if run.first:
        words = stored * size % 4 == 0
        name = "begin_first" if words else "begin_first.narrow"
        each = stored * size // 4 if words else stored
        tally.add(name, call=1, position=positions, unit=positions * each)
    later = run.steps - run.first
    if later > 0 and (leaks != (((1, 0),),) or node.bias.any()):
        kind = "each" if len(leaks) > 1 else "biased" if style.biased else "shared"
        terms = sum(len(leak) for leak in leaks) / len(leaks)
        tally.add(
            f"begin_next.{kind}",
            call=later,
            position=later * positions,
            unit=later * positions * stored,
            term=later * positions * stored * terms,
        )


def _fire(
    tally: _Tally,
    bounds: Bounds,
    node: ir.CurrentEncoder | ir.Lif | ir.Amos,
    style: Style,
    run: Run,
    load: Load,
) -> None:
    found = _map(bounds, node.name)
    assert found is not None
    amos = isinstance(node, ir.Amos)
    kind = "amos" if amos else "hard" if node.reset == "hard" else "soft"  # type: ignore[union-attr]
    name = f"fire.{kind}.{style.fire or style.name}"
    sizes = [padded(n, style.lanes) for n in _sizes(found)]
    words = run.steps * found.positions
    tally.add(
        name,
        call=run.steps,
        position=words,
        word=words * found.words,
        hit=float(load.words.sum()),
        event=float(load.events.sum()),
        reached=load.reached,
    )
    if style.micro:
        tally.add(
            name,
            eight=words * sum(n // 8 for n in sizes),
            tail=words * sum(n % 8 for n in sizes),
            loud=load.eights,
        )
    else:
        tally.add(name, unit=words * sum(sizes))
    if amos and run.first:
        tally.add(name, clear=found.positions * found.words)


def _or_pool(tally: _Tally, bounds: Bounds, node: ir.OrPool, run: Run, load: Load) -> None:
    found = _map(bounds, node.name)
    assert found is not None
    words = run.steps * found.positions * found.words
    tally.add(
        f"or_pool.{found.bits}",
        call=run.steps,
        line=run.steps * found.shape[0],
        position=run.steps * found.positions,
        word=words,
        cell=words * node.kernel[0] * node.kernel[1],
        side=words * node.kernel[0],
        hit=float(load.words.sum()),
    )


def _sum_pool(tally: _Tally, bounds: Bounds, node: ir.SumPool, run: Run, loads: Loads) -> None:
    source, load, found = bounds.nodes[node.source], loads[node.source], _map(bounds, node.source)
    oh, ow, _ = bounds.nodes[node.name].shape
    (kh, kw), (sy, sx) = node.kernel, node.stride
    rows = _windows(source.shape[0], oh, kh, sy)
    columns = _windows(source.shape[1], ow, kw, sx)
    total = float(load.events.sum())
    name = "sum_pool" if found else "sum_pool.queue"
    tally.add(
        name,
        call=run.steps,
        event=total,
        row=float((load.events * rows[:, None]).sum()),
        out=float((load.events * rows[:, None] * columns[None, :]).sum()),
    )
    if found:
        tally.add(
            name,
            line=run.steps * source.shape[0],
            position=run.steps * found.positions,
            word=run.steps * found.positions * found.words,
            hit=float(load.words.sum()),
        )


def _windows(n: int, out: int, kernel: int, stride: int) -> np.ndarray:
    """Windows along an axis in which each of n positions lies."""
    at = np.arange(n)
    first = np.maximum(at - kernel + stride, 0) // stride
    return np.maximum(np.minimum(at // stride + 1, out) - first, 0)


def _merge(tally: _Tally, bounds: Bounds, source: str, run: Run, load: Load) -> None:
    found, total = _map(bounds, source), float(load.events.sum())
    if found is None:
        tally.add("merge.queue", call=run.steps, event=total)
        return
    tally.add(
        "merge",
        call=run.steps,
        position=run.steps * found.positions,
        word=run.steps * found.positions * found.words,
        hit=float(load.words.sum()),
        event=total,
    )


# --- encoders -----------------------------------------------------------------------------------


def _tap_rows(
    h: int, rows: int, height: int, stride: int, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """(first, end) sample row, inside the map, of the taps of each of `rows` output rows."""
    begin = np.arange(rows) * stride - top
    return np.clip(begin, 0, h), np.clip(begin + height, 0, h)


def _samples(
    tally: _Tally, name: str, p: ir.Projection, source: ir.Shape, rows: int, strips: int, load: Load
) -> None:
    """The plain encoder's layer: `strips` strips of `rows` output rows."""
    layout = geometry(p, source, 1)
    h, w, ci = layout.source
    (sy, _), (top, _), (ty, tx) = layout.stride, layout.padding, layout.taps
    per = layout.per_group[1]
    assert load.present is not None
    present = load.present.reshape(h, w, ci)
    begin, end = _tap_rows(h, rows * strips, ty * sy, sy, top)
    times = np.zeros(h + 1)
    np.add.at(times, begin, 1)
    np.add.at(times, end, -1)
    times = np.cumsum(times)[:h]
    hit = float((present.sum(axis=(1, 2)) * times).sum())
    segments, length = (1, tx * per) if layout.groups == 1 else (tx, per)
    lines = rows * strips * ty * sy
    columns, _ = layout.strip
    kind = f"{name}.samples" + ("" if layout.groups == 1 else ".grouped")
    if layout.stride[1] & (layout.stride[1] - 1):
        tally.add(kind, divided=hit)
    tally.add(
        kind,
        call=strips,
        zero=strips * rows * columns * layout.target[2],
        line=lines,
        pixel=float(times.sum()) * w,
        visit=float(times.sum()) * w * ci,
        hit=hit,
        segment=hit * segments,
        by8=hit * segments * (length // 8),
        by1=hit * segments * (length % 8),
        unit=hit * segments * length,
    )


def _current(
    tally: _Tally,
    program: ir.Program,
    bounds: Bounds,
    node: ir.CurrentEncoder,
    run: Run,
    loads: Loads,
) -> None:
    b, source = bounds.nodes[node.name], node.projection.source
    shape = bounds.nodes[source].shape
    if run.first:
        _samples(tally, "current", node.projection, shape, 1, b.shape[0], loads[source])
        tally.add("current", row=b.shape[0], unit=b.neurons)
    _begin(tally, bounds, node, (node.leak,), PLAIN, run)
    tally.add("add_current", call=run.steps, unit=run.steps * b.neurons)
    _fire(tally, bounds, node, PLAIN, run, loads[node.name])


def _latency(
    tally: _Tally,
    program: ir.Program,
    bounds: Bounds,
    choice: Choice,
    node: ir.LatencyEncoder,
    run: Run,
    loads: Loads,
) -> None:
    b, steps, style = bounds.nodes[node.name], program.timesteps, choice[node.name]
    found, load = _map(bounds, node.name), loads[node.name]
    assert found is not None and load.times is not None
    source = program.input
    assert isinstance(source, ir.SampleInput)
    if run.first:
        tally.add("clear_planes", call=1, word=found.plane * steps // 4, step=steps)
    window = node.pool[0] * node.pool[1]
    units, positions = b.neurons, found.positions
    back = steps - 1 - np.arange(steps)  # thresholds passed on the way from the last step
    if not style.micro:
        if run.first:
            name = "encoder.plain"
            _samples(
                tally,
                name,
                node.projection,
                source.shape,
                node.pool[0],
                b.shape[0],
                loads[source.name],
            )
            tally.add(
                name,
                row=b.shape[0],
                position=positions,
                word=positions * found.words,
                unit=units,
                cell=units * window,
                side=units * node.pool[0],
                search=float((load.times * back).sum()),
                early=float(load.times[:-1].sum()),
            )
        return
    for phase in range(2):
        if not (run.first, run.second)[phase]:
            continue
        # A unit spikes once: those of step 1 do not in step 2, unless that is looked at alone.
        earlier = 1 if run.first else 0
        put = float(load.times[0] if phase == 0 else load.times[earlier:].sum())
        if style is MVE:
            first = min(load.slots, float(positions * found.words))
            rest = min(load.slots, float(positions * found.words * (steps - 1)))
            slots = first if phase == 0 else load.slots - first if run.first else rest
            _gather(tally, bounds, node, found, source, phase, steps, slots, loads[source.name])
            continue
        name, pairs = f"encoder.{style.fire}", style is DSP and source.dtype != "int16"
        touched = _strip(tally, name, bounds, node, source, pairs, loads[source.name])
        searched = touched * b.shape[2]
        if phase == 0 and steps > 1:
            searched = min(4 * load.loud, searched)
        share = min(searched / units, 1.0) if units else 0.0
        passed = (load.times * back).sum() if phase else load.times[0] * back[0]
        passed += share * (load.times[1:] * back[1:]).sum() if phase == 0 else 0.0
        tests = touched if phase == 0 and steps > 1 else 0.0
        tested = tests * sum(-(-n // 4) for n in _sizes(found))
        tally.add(
            name,
            row=b.shape[0],
            blank=positions - touched,
            blank_word=(positions - touched) * found.words * (1 if phase == 0 else steps - 1),
            position=touched,
            word=touched * found.words,
            searched=searched,
            window=searched * window,
            side=searched * node.pool[0],
            search=float(passed),
            put=put,
        )
        tally.add(
            f"{name}.loud{2 if node.pool[1] == 2 else ''}",
            word=tests * found.words,
            quad=tested,
            line=tested * node.pool[0],
            cell=tested * window,
        )


def _strip(
    tally: _Tally,
    name: str,
    bounds: Bounds,
    node: ir.LatencyEncoder,
    source: ir.SampleInput,
    pairs: bool,
    load: Load,
) -> float:
    """micro/esnn_strip.h: the sums of all strips. Returns the windows that a sample reaches."""
    strip = strip_layout(node.projection, source.shape, pairs=pairs)
    h, w, ci = strip.conv.source
    (sy, sx), (top, left), taps = strip.conv.stride, strip.conv.padding, strip.conv.taps[1]
    co, strips, rows = strip.conv.target[2], bounds.nodes[node.name].shape[0], node.pool[0]
    assert load.present is not None
    present = load.present.reshape(h, w, ci)
    some = 1 - np.prod(1 - present, axis=2)  # by pixel
    per = 2 if strip.pairs else 1
    kind = name + (".pairs" if strip.pairs else ".words")
    groups = -(-strip.height // per)
    zero = scanned = windows = 0.0
    parts = {
        part: dict.fromkeys(("line", "column", "visit", "one", "two"), 0.0)
        for part in ("inside", "border")
    }
    across, pw = bounds.nodes[node.name].shape[1], node.pool[1]
    at_sample = (np.arange(w) + left) // sx  # the last output column that a sample column reaches
    for s in range(strips):
        first = s * rows
        begin = np.clip(first * sy - top, 0, h)
        end = np.clip((first + rows - 1) * sy - top + strip.height, 0, h)
        column = 1 - np.prod(1 - some[begin:end], axis=0)
        # Columns looked at: between the first and the last one with a sample, in expectation.
        inside = (1 - np.cumprod(1 - column)) * (1 - np.cumprod((1 - column)[::-1])[::-1])
        for column_out in range(across):
            low, high = column_out * pw, column_out * pw + pw - 1
            reaches = inside[(at_sample >= low) & (at_sample - (taps - 1) <= high)]
            windows += float(reaches.max(initial=0.0))
        scanned += float((end - begin) * (w - inside.sum())) * ci
        zero += (
            rows * co / 4 * (taps - 1 + float(inside.sum()) / sx + 1) * (inside.max(initial=0) > 0)
        )
        for r in range(rows):
            at = (first + r) * sy - top
            part = parts["inside" if at >= 0 and at + strip.height <= h else "border"]
            part["line"] += 1
            part["column"] += float(inside.sum()) * ci
            part["visit"] += float(inside.sum()) * ci * groups
            end = min(at + strip.height, h)
            words = [  # the probability that a word of samples is not 0, by column and channel
                1 - np.prod(1 - present[max(y, 0) : max(min(y + per, end), 0)], axis=0)
                for y in range(at, at + strip.height, per)
            ]
            odd = (
                (1 - np.prod([1 - 2 * q for q in words], axis=0)) / 2 if strip.pairs else sum(words)
            )
            part["one"] += float(odd.sum())
            part["two"] += float((sum(words) - odd).sum()) / 2
    n = taps * co
    tally.add(
        kind,
        call=strips,
        scanned=scanned,
        scanning=float(strips * ((rows - 1) * sy + strip.height)),
        zero=zero,
    )
    for name_of, part in parts.items():
        tally.add(f"{kind}.{name_of}", **{k: part[k] for k in ("line", "column", "visit")})
    one, two = (sum(part[k] for part in parts.values()) for k in ("one", "two"))
    cut = {"by40": n // 40, "by16": n % 40 // 16, "by4": n % 40 % 16 // 4}
    tally.add(f"{kind}.one", hit=one, **{k: one * v for k, v in cut.items()})
    tally.add(f"{kind}.two", hit=two, by16=two * (n // 16), by4=two * (n % 16 // 4))
    return windows


def _gather(
    tally: _Tally,
    bounds: Bounds,
    node: ir.LatencyEncoder,
    found: SpikeMap,
    source: ir.SampleInput,
    phase: int,
    steps: int,
    put: float,
    load: Load,
) -> None:
    """micro/esnn_gather.h."""
    gather = gather_layout(node.projection, source.shape)
    co, chunks = gather.conv.target[2], gather.chunks
    rows = (node.pool[0] - 1) * gather.conv.stride[0] + gather.taps[0]
    strips, positions = found.shape[0], found.positions
    many = node.pool[0] * node.pool[1]
    width = gather.conv.source[1] * gather.conv.source[2]
    fours = sum(-(-n // 4) for n in _sizes(found))
    end = 1 if phase == 0 else steps
    kind = f"encoder.mve.{'pair' if chunks == 2 else 'many'}"
    pairs = (many + 1) // 2
    tally.add(
        kind,
        call=strips,
        fill=strips * (rows * gather.line + 16) / 16,
        line=strips * rows,
        load=strips * rows * -(-width // 16),
        position=positions,
        patch=positions * many,
        tap_row=positions * many * gather.taps[0],
        copy=positions * many * gather.taps[0] * -(-gather.taps[1] // 16),
        pair=positions * pairs,
        unit=positions * pairs * co,
        chunk=positions * pairs * co * chunks,
        word=positions * found.words,
        step=positions * found.words * end,
        test=positions * fours * min(end, max(steps - 1, 0)),
        put=put,
    )


# --- loads --------------------------------------------------------------------------------------


def most_events(program: ir.Program) -> dict[str, int]:
    """Events of one unit in an inference at most, by node."""
    out: dict[str, int] = {}
    for node in program.nodes:
        if isinstance(node, ir.SampleInput | ir.Accumulator):
            out[node.name] = 0
        elif ir.once_per_inference(node):
            out[node.name] = 1
        elif isinstance(node, ir.OrPool):
            window = node.kernel[0] * node.kernel[1]
            out[node.name] = min(program.timesteps, out[node.source] * window)
        elif isinstance(node, ir.SumPool):
            out[node.name] = out[node.source] * node.kernel[0] * node.kernel[1]
        elif isinstance(node, ir.Merge):
            out[node.name] = sum(out[s] for s in node.sources)
        else:
            out[node.name] = program.timesteps
    return out


def worst_loads(program: ir.Program, bounds: Bounds, steps: int) -> dict[str, Load]:
    """Every unit spikes as often as it can in `steps` steps, every sample differs from the zero point."""
    most = most_events(program)
    out = {}
    for node in program.nodes:
        b = bounds.nodes[node.name]
        h, w, c = b.shape
        ones = np.ones((h, w))
        times = np.zeros(program.timesteps)
        times[0] = b.neurons
        each = min(most[node.name], steps * b.multiplicity)
        found = _map(bounds, node.name)
        slots = min(steps * found.words, c * each) if found else 0  # words that are not 0
        reached = steps if isinstance(node, ir.Amos) else each
        out[node.name] = Load(
            events=ones * c * each,
            words=ones * slots,
            # Four events at once cost no more than four alone (the fit sees to it): three alone in every word.
            ones=ones * min(3 * slots, c * each),
            reached=float(b.neurons * reached),
            eights=float(h * w * -(-c // 8) * reached),
            present=np.ones((h, w, c)),
            times=times,
            loud=float(h * w * sum(-(-n // 4) for n in _sizes(SpikeMap(b.shape)))),
            slots=float(h * w * min(program.timesteps * SpikeMap(b.shape).words, c)),
        )
    return out


def mean_loads(
    program: ir.Program, bounds: Bounds, rates: Mapping[str, float], steps: float
) -> dict[str, Load]:
    """As many events as `rates` says, spread evenly; where it says nothing, DEFAULT_RATE a unit.

    An operator that it does not name passes on what its sources emit.
    """
    out: dict[str, Load] = {}
    rates = dict(rates)
    for node in program.nodes:
        if node.name not in rates and isinstance(node, ir.OrPool | ir.SumPool | ir.Merge):
            fan = 1.0
            if isinstance(node, ir.SumPool):
                fan = float(np.prod(node.kernel)) / float(np.prod(node.stride))
            total = sum(float(out[source].events.sum()) for source in ir.sources(node))
            rates[node.name] = fan * min(total, bounds.nodes[node.name].capacity * max(steps, 1.0))
        b = bounds.nodes[node.name]
        h, w, c = b.shape
        rate = rates.get(node.name, DEFAULT_RATE * b.neurons) if not _silent(node) else 0.0
        share = min(rate / b.neurons / max(steps, 1), 1.0)  # of the units, in a step
        sizes = np.array(_sizes(SpikeMap(b.shape)))
        words = steps * float((1 - (1 - share) ** sizes).sum())
        ones = steps * float(np.minimum(share * sizes, 1.5).sum())
        times = np.zeros(program.timesteps)
        run = min(max(round(steps), 1), program.timesteps)
        times[:run] = rate / run
        times[-1] += max(b.neurons - times.sum(), 0.0)
        eights = steps * h * w * -(-c // 8) * (1 - (1 - share) ** min(8, c))
        present = rates.get(node.name, DEFAULT_PRESENT * b.neurons) / b.neurons
        out[node.name] = Load(
            events=np.full((h, w), rate / (h * w)),
            words=np.full((h, w), words),
            ones=np.full((h, w), min(ones, rate / (h * w))),
            reached=rate,
            eights=eights,
            present=np.full((h, w, c), min(present, 1.0)),
            times=times,
            loud=h * w * -(-c // 4) * (1 - (1 - share) ** min(4, c)),
            slots=h * w * min(program.timesteps * SpikeMap(b.shape).words, c),
        )
    return out


def _silent(node: ir.Node) -> bool:
    return isinstance(node, ir.SampleInput | ir.Accumulator)


DEFAULT_RATE = 0.1  # events of a unit in an inference, where a program holds no measured rates
DEFAULT_PRESENT = 0.5  # share of the samples that differ from the zero point


def measured_rates(program: ir.Program, samples: np.ndarray) -> dict[str, float]:
    """The program's `rates` over these samples, by the interpreter."""
    from edgesnn.compiler.interpret import Interpreter

    engine, source = Interpreter(program), program.input
    totals = {node.name: 0.0 for node in program.nodes}
    for sample in samples:
        decision = engine.infer(sample)
        for node, events in zip(program.nodes, decision.events, strict=True):
            totals[node.name] += float(events)
        if isinstance(source, ir.SampleInput):
            totals[source.name] += float((np.asarray(sample) != source.zero_point).sum())
        totals[program.output.name] += decision.step
    return {name: total / len(samples) for name, total in totals.items()}


def observe(program: ir.Program, bounds: Bounds, sample: np.ndarray) -> tuple[Run, dict[str, Load]]:
    """What happens in the inference of one sample, by the interpreter."""
    from edgesnn.compiler.interpret import Interpreter

    shapes = {name: b.shape for name, b in bounds.nodes.items()}
    nodes = {node.name: node for node in program.nodes}
    reached = dict.fromkeys(nodes, 0.0)
    eights = dict.fromkeys(nodes, 0.0)
    times: dict[str, np.ndarray] = {}

    def watch(_: int, state: dict[str, np.ndarray]) -> None:
        for name, u in state.items():
            node = nodes[name]
            if isinstance(node, ir.Amos):
                over = u >= node.threshold
                reached[name] += float(over.sum())
                eights[name] += _groups(over, 8)
            elif isinstance(node, ir.LatencyEncoder):
                times[name] = u

    trace = Interpreter(program).trace(sample, watch)
    steps = trace.decision.step
    out: dict[str, Load] = {}
    for i, node in enumerate(program.nodes):
        name, shape = node.name, shapes[node.name]
        events, words, ones = (np.zeros(shape[:2]) for _ in range(3))
        for step in trace.events:
            at = np.bincount(step[i].astype(np.int64), minlength=ir.size(shape)).reshape(shape)
            events += at.sum(axis=2)
            in_words = _by_word(at > 0)
            words += (in_words > 0).sum(axis=2)
            ones += (in_words % 4).sum(axis=2)
            if not isinstance(node, ir.Amos):
                reached[name] += float((at > 0).sum())
                eights[name] += _groups(at > 0, 8)
        load = Load(events, words, ones, reached[name], eights[name])
        if isinstance(node, ir.SampleInput):
            x = np.asarray(sample).reshape(shape)
            load = replace(load, present=(x != node.zero_point).astype(float))
        if name in times:
            found = np.bincount(times[name].reshape(-1) - 1, minlength=program.timesteps)
            slots = sum(
                float((_by_word(times[name] == t) > 0).sum())
                for t in range(1, program.timesteps + 1)
            )
            loud = _groups(times[name] == 1, 4)
            load = replace(load, times=found.astype(float), loud=loud, slots=slots)
        out[name] = load
    return Run(steps, True, steps > 1), out


def _groups(flags: np.ndarray, n: int) -> float:
    """Groups of n channels with a flag set, of bool[H, W, C]."""
    extra = -flags.shape[2] % n
    wide = np.pad(flags, [(0, 0), (0, 0), (0, extra)])
    return float(wide.reshape(*flags.shape[:2], -1, n).any(axis=3).sum())


def _by_word(flags: np.ndarray) -> np.ndarray:
    """Events of each word of a spike map, int64[H, W, words]."""
    bits = SpikeMap(flags.shape).bits
    wide = np.pad(flags, [(0, 0), (0, 0), (0, -flags.shape[2] % bits)])
    return np.asarray(wide.reshape(*flags.shape[:2], -1, bits).sum(axis=3))


# --- what it costs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """Fitted coefficients of a core. compiler: the one whose code was measured."""

    target: str
    compiler: str
    coefficients: Mapping[str, float]

    def of(self, counts: Counts) -> float | None:
        """Instructions; None where something was never measured."""
        total = 0.0
        for key, count in counts.items():
            # Small weights take fewer instructions than any: theirs are a bound.
            each = self.coefficients.get(
                key, self.coefficients.get(key.replace(".four6:", ".four:"))
            )
            if each is None:
                return None
            total += each * count
        return total


@lru_cache(maxsize=16)
def load_costs(target: str) -> Costs | None:
    """The coefficients of a target, None where none were fitted."""
    path = COSTS / f"{target}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Costs(target, found["compiler"], found["coefficients"])


@dataclass(frozen=True)
class Estimate:
    """Instructions of each node: at worst in a step and in an inference, and in a mean inference."""

    step: dict[str, int]
    inference: dict[str, int]
    mean: dict[str, int]
    worst_step: int

    @property
    def worst_inference(self) -> int:
        return sum(self.inference.values())

    @property
    def mean_inference(self) -> int:
        return sum(self.mean.values())


def estimate(program: ir.Program, bounds: Bounds, choice: Choice, costs: Costs) -> Estimate | None:
    """What the model says; None where the program needs a kernel that was never measured."""
    total = program.timesteps
    runs = [Run(1, True, False)]
    runs += [Run(1, False, True)] if total > 1 else []
    runs += [Run(1, False, False)] if total > 2 else []
    one, every = worst_loads(program, bounds, 1), worst_loads(program, bounds, total)
    steps = mean_steps(program)
    mean = mean_loads(program, bounds, program.rates, steps)
    table: dict[str, dict[str, int]] = {"step": {}, "inference": {}, "mean": {}}
    by_run = [0] * len(runs)
    for node in program.nodes:

        def of(run: Run, loads: Loads, node: ir.Node = node) -> int | None:
            found = costs.of(node_counts(program, bounds, choice, node, run, loads))
            return None if found is None else int(np.ceil(found))

        each = [of(run, one) for run in runs]
        whole = of(Run(total, True, total > 1), every)
        typical = of(Run(steps, True, steps >= 1.5), mean)
        if whole is None or typical is None or None in each:
            return None
        table["step"][node.name] = max(v for v in each if v is not None)
        table["inference"][node.name] = whole
        table["mean"][node.name] = typical
        by_run = [a + (b or 0) for a, b in zip(by_run, each, strict=True)]
    return Estimate(table["step"], table["inference"], table["mean"], max(by_run))


def mean_steps(program: ir.Program) -> float:
    """Steps of a mean inference, which `rates` holds under the output's name; without, all of them."""
    return float(program.rates.get(program.output.name, program.timesteps))
