"""The pictures of a profile as SVG to stand inside a page: small, text as text, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Run = dict[str, Any]

INK, MUTED, LINE = "#1f2933", "#66727f", "#d5dbe1"
BLUE, ORANGE, GREEN, PURPLE, GREY, SKY = (
    "#2f6690", "#d9822b", "#4f9d7e", "#8a6fae", "#a9b3bd", "#8bbdd9"
)  # fmt: skip
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)
PART_COLOURS = {  # in the order in which they are shown
    "front end": "#7a9e3f",
    "encoder": GREEN,
    "events": BLUE,
    "updates": ORANGE,
    "readout": PURPLE,
    "other": GREY,
    "unsplit": SKY,
}
WIDTH = 4.5  # inches; the page scales it to its column
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold a $
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "patch.linewidth": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def scaled(most: float, unit: str) -> tuple[float, str]:
    """(divisor, unit in words) that make numbers up to `most` short."""
    if unit == "microseconds":
        return (1e3, "milliseconds") if most >= 1e4 else (1.0, "microseconds")
    if most >= 1e6:
        return 1e6, f"million {unit}"
    return (1e3, f"thousand {unit}") if most >= 1e3 else (1.0, unit)


def _axes(height: float, rows: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows)


def _svg(figure: Figure, name: str, label: str) -> str:
    """The picture as an <svg> element for a page. name: makes its ids differ from every other picture's."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    # The reader's own font: it has to be there, the page brings none.
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    words = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)


def latency(run: Run, name: str) -> str:
    """Histogram of time by stopping step, with the percentiles."""
    found, unit = run["histogram"], run["unit"]
    figures = run[unit]
    by, words = scaled(found["edges"][-1], unit)
    edges = [v / by for v in found["edges"]]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.7)
        bottom = [0] * len(found["counts"])
        shades = _shades(len(found["by_step"]))
        width = edges[1] - edges[0]
        for shade, (step, counts) in zip(shades, found["by_step"].items(), strict=True):
            some = [i for i, count in enumerate(counts) if count]
            axes.bar(
                [edges[i] for i in some],
                [counts[i] for i in some],
                width * 0.94,
                [bottom[i] for i in some],
                align="edge",
                color=shade,
                label=step,
            )
            bottom = [a + b for a, b in zip(bottom, counts, strict=True)]
        top = max(bottom) or 1
        span, marks = edges[-1] - edges[0], [figures[key] / by for key in ("p50", "p95", "p99")]
        for i, (key, at) in enumerate(zip(("p50", "p95", "p99"), marks, strict=True)):
            if at > edges[-1] or at in marks[:i]:
                continue
            # One line higher for each mark that is close on the left.
            close = sum(1 for other in marks[:i] if at - other < 0.09 * span)
            height = top * (1.05 + 0.09 * close)
            axes.plot([at, at], [0, height + 0.07 * top], color=INK, linewidth=0.9, dashes=(3, 2))
            axes.annotate(
                key,
                (at, height),
                (3, 0),
                textcoords="offset points",
                va="bottom",
                fontsize=8.5,
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
        axes.set_xlim(edges[0] - width, edges[-1] + width)
        axes.set_ylim(0, top * 1.36)
        axes.set(xlabel=f"{words} per inference", ylabel="inferences")
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        axes.grid(axis="y")
        if len(found["by_step"]) > 1:
            _legend(figure, axes, "stopped at step")
        return _svg(figure, name, f"Histogram of {unit} per inference")


def _legend(figure: Figure, axes: Axes, title: str = "") -> None:
    """One row above the picture: nothing inside may be covered."""
    handles, labels = axes.get_legend_handles_labels()
    if not title:
        order = sorted(range(len(labels)), key=lambda i: _place(labels[i]))
        handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    widest = max(len(text) for text in labels) + 4
    columns = max(1, min(len(labels), 6, 72 // widest))
    # matplotlib fills column by column; people read row by row.
    rows = [i for column in range(columns) for i in range(column, len(labels), columns)]
    legend = figure.legend(
        [handles[i] for i in rows],
        [labels[i] for i in rows],
        loc="outside upper left",
        ncols=columns,
        title=title or None,
        alignment="left",
        handlelength=1.0,
        columnspacing=1.2,
        handletextpad=0.5,
        borderaxespad=0.2,
    )
    legend.get_title().set_fontsize(8.5)


def _place(label: str) -> int:
    """Parts in their own order, everything else as it was drawn."""
    order = ["membranes", "spikes", "input", *PART_COLOURS]
    return next((i for i, name in enumerate(order) if label.startswith(name)), 0)


def _shades(count: int) -> list[Any]:
    """From dark blue to orange."""
    fixed = [BLUE, SKY, "#e8c07d", ORANGE]
    if count <= len(fixed):
        return [*fixed[: count - 1], ORANGE] if count > 1 else [BLUE]
    scale = matplotlib.colors.LinearSegmentedColormap.from_list("", fixed)
    return [scale(i / (count - 1)) for i in range(count)]


def shares(run: Run, name: str) -> str | None:
    """One bar: the parts of a mean inference."""
    whole = run["parts"]
    if whole is None:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(1.35)
        left = 0.0
        for part in PART_COLOURS:
            share = whole["shares"].get(part, 0.0)
            if share < 5e-4:
                continue
            label = (
                f"{part} {100 * share:.0f} %" if share >= 0.005 else f"{part} {100 * share:.1f} %"
            )
            axes.barh([0], [100 * share], left=left, color=PART_COLOURS[part], label=label)
            left += 100 * share
        axes.set(xlim=(0, 100), xlabel="share of an inference (%)", yticks=[])
        axes.spines[["left"]].set_visible(False)
        _legend(figure, axes)
        return _svg(figure, name, "Share of time by part")


def layers(run: Run, name: str) -> str | None:
    """Time of each node; of populations in two parts."""
    rows, unit = run["per_layer"], run["unit"]
    if run["parts"] is None:
        return None
    by, words = scaled(max(r[f"{unit}_mean"] for r in rows), unit)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(_height(len(rows)))
        drawn: set[str] = set()
        for y, row in enumerate(rows):
            left = 0.0
            found = row["parts"] or {"unsplit": row[f"{unit}_mean"]}
            for part, value in ((k, found[k]) for k in PART_COLOURS if k in found):
                axes.barh(
                    y,
                    value / by,
                    left=left / by,
                    height=0.7,
                    color=PART_COLOURS[part],
                    label="" if part in drawn else part,
                )
                drawn.add(part)
                left += value
            axes.annotate(
                f"{100 * row['share']:.1f} %", (left / by, y), (4, 0), textcoords="offset points",
                va="center", fontsize=8.5,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_short(r["name"]) for r in rows])
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.set_xlabel(f"{words} per inference")
        axes.grid(axis="x")
        _legend(figure, axes)
        return _svg(figure, name, f"{unit} by layer")


def work(run: Run, name: str) -> str:
    """Spikes and synaptic operations of each node."""
    rows = [r for r in run["per_layer"] if r["kind"] != "input" or r["events_mean"]]
    places = range(len(rows))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, _height(len(rows))), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        each = [r["events_mean"] / r["neurons"] for r in rows]
        left.barh(places, each, height=0.7, color=BLUE)
        left.set(xlabel="spikes per neuron")
        sops = [r["sops_mean"] for r in rows]
        by, words = scaled(max(sops), "operations")
        right.barh(places, [v / by for v in sops], height=0.7, color=ORANGE)
        right.set(xlabel=f"synaptic operations\n({words})" if by > 1 else "synaptic operations")
        left.set_yticks(places, [_short(r["name"]) for r in rows])
        left.invert_yaxis()
        for axes in (left, right):
            axes.grid(axis="x")
            axes.locator_params(axis="x", nbins=4)
        return _svg(figure, name, "Spikes and synaptic operations by layer")


def _height(rows: int) -> float:
    return min(1.0 + 0.24 * rows, 9.0)


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def tradeoff(runs: Sequence[Run], names: Sequence[str], name: str) -> str | None:
    """Accuracy against mean timesteps over thresholds, the own one marked."""
    chosen: list[tuple[Run, str]] = []
    for run, label in zip(runs, names, strict=True):
        if run["sweep"] is None or run["sweep"]["points"][0]["accuracy"] is None:
            continue
        # The same program on another board does the same.
        if not any(_curve(run) == _curve(other) for other, _ in chosen):
            chosen.append((run, label))
    if not chosen:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.8)
        for colour, (run, label) in zip(SERIES * 9, chosen, strict=False):
            points = sorted(run["sweep"]["points"], key=lambda p: float(p["mean_timesteps"]))
            axes.plot(
                [p["mean_timesteps"] for p in points],
                [100 * p["accuracy"] for p in points],
                color=colour,
                marker=".",
                markersize=4,
                # Of a label that begins with _ there is no legend.
                label=_short(f" {label}".rstrip(), 44) if len(chosen) > 1 else "other thresholds",
            )
            own = next(p for p in points if p["own"])
            axes.plot(
                own["mean_timesteps"],
                100 * own["accuracy"],
                "o",
                color=ORANGE if len(chosen) == 1 else colour,
                markeredgecolor="white",
                markersize=9,
                label="the model's own threshold" if len(chosen) == 1 else "",
                zorder=3,
            )
        axes.set(xlabel="mean timesteps until the answer", ylabel="accuracy (%)")
        axes.grid()
        axes.margins(x=0.05, y=0.12)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 98.9), min(max(high, 100.0), 100.3) if high > 99 else high)
        run = chosen[0][0]
        if len(runs) == 1 and run["sweep"]["estimate"] is not None:
            _second_axis(axes, run)
        _legend(figure, axes)
        return _svg(figure, name, "Accuracy against latency over thresholds")


def _curve(run: Run) -> list[tuple[Any, ...]]:
    return [(p["value"], p["accuracy"], p["mean_timesteps"]) for p in run["sweep"]["points"]]


def _second_axis(axes: Axes, run: Run) -> None:
    """Estimated time above the steps, where it grows with them."""
    unit = run["unit"]
    points = {p["mean_timesteps"]: p[f"{unit}_estimate"] for p in run["sweep"]["points"]}
    steps = sorted(points)
    amounts = [points[s] for s in steps]
    if len(steps) < 2 or any(a >= b for a, b in pairwise(amounts)):
        return
    by, words = scaled(amounts[-1], unit)
    low, high = axes.get_xlim()
    ticks = matplotlib.ticker.MaxNLocator(5).tick_values(amounts[0] / by, amounts[-1] / by)
    inside = [t for t in ticks if amounts[0] / by <= t <= amounts[-1] / by]
    other = axes.twiny()
    other.set_xlim(low, high)
    other.spines[["top"]].set_visible(True)
    place = [_between(t * by, amounts, steps) for t in inside]
    other.set_xticks(place, [f"{t:g}" for t in inside])
    other.set_xlabel(f"{words}, estimated")


def _between(value: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    import numpy as np

    return float(np.interp(value, xs, ys))


def difficulty(run: Run, name: str) -> str | None:
    """Mean stopping step and accuracy by difficulty."""
    bins = run["difficulty"]
    if not bins or len(bins) < 2:
        return None
    x = range(1, len(bins) + 1)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.7)
        axes.bar(x, [b["mean_timesteps"] for b in bins], 0.72, color=BLUE, label="mean timesteps")
        axes.set(
            xlabel="samples from the easiest to the hardest, in equal parts",
            ylabel="mean timesteps",
            xticks=list(x),
        )
        axes.grid(axis="y")
        if bins[0]["accuracy"] is not None:
            other = axes.twinx()
            other.spines[["right"]].set_visible(True)
            values = [100 * b["accuracy"] for b in bins]
            other.plot(x, values, "o-", color=ORANGE, markersize=4)
            axes.plot([], [], "o-", color=ORANGE, markersize=4, label="accuracy")
            other.set_ylabel("accuracy (%)")
            other.set_ylim(min(90.0, 10 * int(min(values) / 10)), 101)
            _legend(figure, axes)
        return _svg(figure, name, "Timesteps against difficulty")


def raster(run: Run, name: str) -> str:
    """Spikes of some neurons of each layer, step by step; what the device did not run is pale."""
    found = run["raster"]
    rows = sum(max(x["shown"], 4) + 2 for x in found["layers"])
    steps = found["timesteps"]
    with matplotlib.rc_context(_STYLE):
        height = min(max(2.4, 0.7 + 0.034 * rows), 8.0)
        figure, axes = _axes(height)
        thick = min(max((height - 0.7) * 72 / rows * 0.72, 0.8), 5.0)
        y, ticks = 0.0, []
        for colour, layer in zip(SERIES * 9, found["layers"], strict=False):
            room = max(layer["shown"], 4)
            for sign, shade in ((1, colour), (-1, INK)):
                spikes = [(r, t) for r, t, s in layer["spikes"] if s == sign]
                axes.hlines(
                    [y + r for r, _ in spikes],
                    [t - 0.38 for _, t in spikes],
                    [t + 0.38 for _, t in spikes],
                    color=shade,
                    linewidth=thick,
                )
            ticks.append((y + (room - 1) / 2, layer))
            y += room + 2
            axes.axhline(y - 1.5, color=LINE, linewidth=0.7)
        if run["raster"]["step"] < steps:
            end = found["step"] + 0.5
            axes.axvspan(end, steps + 0.6, color="white", alpha=0.72, zorder=2.5)
            axes.axvline(end, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)
        axes.set_yticks(
            [at for at, _ in ticks],
            [f"{_short(x['name'])}\n{x['active']:,} of {x['neurons']:,}" for _, x in ticks],
        )
        axes.set_ylim(y - 1.5, -1.5)
        axes.set_xlim(0.4, steps + 0.6)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(12, integer=True))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("timestep")
        return _svg(figure, name, "Spikes of one sample by layer and timestep")


def membranes(run: Run, name: str) -> str | None:
    """Output membranes of the same sample, and the threshold where membranes are compared with it."""
    found, readout = run["raster"], run["readout"] or {}
    kept = [(t, u) for t, u in enumerate(found["membranes"], start=1) if u is not None]
    if not kept:
        return None
    steps = [t for t, _ in kept]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.6)
        answer = found["answer_class"]
        order = [c for c in range(len(found["classes"])) if c != answer] + [answer]
        names = {answer: f"class {_short(found['answer'])}, the answer", order[0]: "other classes"}
        for c in order:
            mine = c == answer
            axes.plot(
                steps,
                [u[c] for _, u in kept],
                color=ORANGE if mine else GREY,
                linewidth=2.2 if mine else 1.0,
                marker="o" if len(steps) < 9 else None,
                markersize=4 if mine else 2.5,
                label=names.get(c, ""),
            )
        if readout.get("kind") == "first-spike":
            axes.axhline(
                readout["value"], color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label="threshold"
            )
        if found["step"] < found["timesteps"]:
            axes.axvline(found["step"], color=MUTED, linewidth=0.9, linestyle=":", label="stopped")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(12, integer=True))
        axes.set(xlabel="timestep", ylabel="membrane (integer)")
        axes.grid()
        _legend(figure, axes)
        return _svg(figure, name, "Output membranes of one sample")


def memory(run: Run, name: str) -> str:
    """Flash and RAM, each a bar of its parts."""
    bars = [("flash", flash_parts(run)), ("RAM", ram_parts(run))]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        for axes, (title, parts) in zip(figure.subplots(2), bars, strict=True):
            by, unit = (1024.0, "KiB") if sum(v for _, v in parts) >= 8192 else (1.0, "bytes")
            left = 0.0
            for colour, (label, value) in zip(SERIES, parts, strict=False):
                axes.barh([0], [value / by], left=left, color=colour, label=f"{label} {value:,}")
                left += value / by
            axes.set(xlabel=unit, yticks=[0], yticklabels=[title], xlim=(0, left))
            axes.tick_params(axis="y", length=0)
            axes.legend(
                loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, handlelength=1.0,
                columnspacing=1.0, handletextpad=0.4, borderaxespad=0.2, fontsize=8.0,
            )  # fmt: skip
        return _svg(figure, name, "Flash and RAM by part, in bytes")


def flash_parts(run: Run) -> list[tuple[str, int]]:
    """(part, bytes) of what is stored."""
    sections, total = run["memory"]["sections"], run["memory"]["flash_bytes"]
    tables = sum(v for k, v in sections.items() if k.startswith(".rodata"))
    code = sum(v for k, v in sections.items() if k.startswith(".text"))
    parts = [("weights and tables", tables), ("code", code), ("other", total - tables - code)]
    return [(name, value) for name, value in parts if value > 0]


def ram_parts(run: Run) -> list[tuple[str, int]]:
    """(part, bytes) of what is written to."""
    memory = run["memory"]
    arena, stack = memory["arena_bytes"], memory["stack_bytes"]
    parts = [("arena", arena), ("other data", memory["ram_bytes"] - arena)]
    parts.append(("stack, at worst", stack or 0))
    return [(name, value) for name, value in parts if value > 0]


def timeline(run: Run, name: str) -> str | None:
    """Labelled pieces of the signal, and the detections below them."""
    signal = run["signal"]
    if signal is None:
        return None
    found = signal["timeline"]
    end = min(signal["signal_seconds"], 12.0)
    classes = sorted({x[2] for x in found["intervals"]} | {x[1] for x in found["detections"]})
    colour = {label: SERIES[i % len(SERIES)] for i, label in enumerate(classes)}
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(1.7)
        for start, stop, label in found["intervals"]:
            if start >= end:
                continue
            axes.barh([0], [stop - start], left=start, height=0.6, color=colour[label])
            if stop <= end and stop - start > 0.016 * end * len(label):
                axes.annotate(
                    label,
                    ((start + stop) / 2, 0),
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=8.0,
                )
        for at, label in found["detections"]:
            if at < end:
                axes.plot([at, at], [0.55, 0.95], color=colour[label], linewidth=2.0)
                axes.annotate(
                    _short(label, 8), (at, 1.0), (0, -2), textcoords="offset points", ha="center", va="top",
                    fontsize=7.5,
                )  # fmt: skip
        axes.set(xlim=(0, end), ylim=(1.45, -0.5), xlabel="seconds of signal")
        axes.set_yticks([0, 0.75], ["labelled", "detected"])
        axes.tick_params(axis="y", length=0)
        axes.spines[["left"]].set_visible(False)
        return _svg(figure, name, "Labelled intervals and detections")


ARENA_KINDS = {"u": "membranes", "spikes": "spikes", "frame": "input"}


def arena(run: Run, name: str) -> str | None:
    """The arena's buffers by offset; those that are never alive at once lie above each other."""
    buffers = run["memory"]["arena"]
    if not buffers:
        return None
    lanes: list[int] = []  # the end of what lies in each
    colours = {"membranes": BLUE, "spikes": ORANGE, "input": GREEN, "other": GREY}
    size = max(b["offset"] + b["bytes"] for b in buffers)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(1.0)
        drawn: set[str] = set()
        for b in sorted(buffers, key=lambda b: (int(b["offset"]), -int(b["bytes"]))):
            lane = next((i for i, end in enumerate(lanes) if end <= b["offset"]), len(lanes))
            lanes[lane:] = [b["offset"] + b["bytes"], *lanes[lane + 1 :]]
            kind = ARENA_KINDS.get(b["name"].rpartition(".")[2], "other")
            axes.add_patch(
                Rectangle(
                    (b["offset"], lane + 0.08), b["bytes"], 0.84, facecolor=colours[kind],
                    edgecolor="white", linewidth=0.5, label="" if kind in drawn else kind,
                )
            )  # fmt: skip
            drawn.add(kind)
            text = b["name"].rpartition(".")[0] or b["name"]
            if b["bytes"] > size * 0.022 * len(text):
                axes.text(
                    b["offset"] + b["bytes"] / 2, lane + 0.5, text, ha="center", va="center",
                    color="white" if kind != "other" else INK, fontsize=8.0,
                )  # fmt: skip
        figure.set_figheight(min(1.0 + 0.27 * len(lanes), 6.0))
        axes.set(xlim=(0, size), ylim=(0, len(lanes)), yticks=[], xlabel="offset (bytes)")
        axes.spines[["left"]].set_visible(False)
        _legend(figure, axes)
        return _svg(figure, name, "Memory map of the arena")


def side_by_side(rows: Sequence[dict[str, Any]], name: str) -> str | None:
    """p50, p95, p99 of the runs in one unit; None where no two have the same."""
    units = [r["unit"] for r in rows]
    unit = max(units, key=units.count)
    rows = [r for r in rows if r["unit"] == unit]
    if len(rows) < 2:
        return None
    by, words = scaled(max(r["amount"]["p99"] for r in rows), unit)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(1.1 + 0.42 * len(rows))
        for i, (key, colour) in enumerate((("p50", BLUE), ("p95", SKY), ("p99", ORANGE))):
            axes.barh(
                [y + 0.26 * (i - 1) for y in range(len(rows))],
                [r["amount"][key] / by for r in rows],
                0.24,
                color=colour,
                label=key,
            )
        axes.set_yticks(range(len(rows)), [_wrapped(r["label"]) for r in rows])
        axes.invert_yaxis()
        axes.set_xlabel(f"{words} per inference")
        axes.grid(axis="x")
        _legend(figure, axes)
        return _svg(figure, name, "Latency side by side")


def _wrapped(text: str) -> str:
    return "\n".join(_short(part.strip(), 20) for part in text.replace(" (", ", (").split(","))
