"""The report as one HTML file that needs nothing else: text and pictures from a report's plain values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgesnn.profiling import plots
from edgesnn.profiling.compare import labels

TEMPLATES = Path(__file__).parent / "templates"
Run = dict[str, Any]


def render(report: dict[str, Any]) -> str:
    """HTML of a report of `profile`, or of several as "runs"; the same values give the same bytes."""
    runs = report.get("runs") or [report]
    names = labels(runs)
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"n": number, "percent": percent, "bytes": kib, "amount": amount, "short": short}
    together = None
    if len(runs) > 1:
        together = {
            "rows": report["comparison"],
            "streams": any(row["per_second"] is not None for row in report["comparison"]),
            "latency": _picture(plots.side_by_side(report["comparison"], "all-latency")),
            "tradeoff": _picture(plots.tradeoff(runs, names, "all-tradeoff")),
        }
    return env.get_template("report.html").render(
        title=names[0] if len(runs) == 1 else f"{len(runs)} models side by side",
        about=report.get("about"),
        together=together,
        runs=[
            _prepared(run, name, i) for i, (run, name) in enumerate(zip(runs, names, strict=True))
        ],
    )


def _prepared(run: Run, name: str, index: int) -> dict[str, Any]:
    """What the template shows of a run: values, sentences and pictures."""
    drawn: dict[str, Callable[[Run, str], str | None]] = {
        "latency": plots.latency,
        "shares": plots.shares,
        "layers": plots.layers,
        "work": plots.work,
        "difficulty": plots.difficulty,
        "raster": plots.raster,
        "membranes": plots.membranes,
        "memory": plots.memory,
        "arena": plots.arena,
        "timeline": plots.timeline,
    }
    pictures = {k: _picture(draw(run, f"r{index}-{k}")) for k, draw in drawn.items()}
    pictures["tradeoff"] = _picture(plots.tradeoff([run], [name], f"r{index}-tradeoff"))
    return {
        "name": name,
        "id": f"r{index}",
        "r": run,
        "unit": run["unit"],
        "figures": run[run["unit"]],
        "pictures": pictures,
        "summary": summary(run),
        "nominal": nominal(run, run[run["unit"]]["p95"]),
        "tiles": _tiles(run),
        "thresholds": _thresholds(run),
    }


def _picture(svg: str | None) -> Markup | None:
    """Our own SVG, which may stand in the page as it is."""
    return None if svg is None else Markup(svg)


def summary(run: Run) -> str:
    """What a person wants to know first, in one sentence."""
    unit, memory = run["unit"], run["memory"]
    figures = run[unit]
    right = run["accuracy"]
    start = f"{percent(right)} of {run['samples']:,} samples right; " if right is not None else ""
    time = f"95 of 100 inferences take at most {amount(figures['p95'], unit)}"
    at = nominal(run, figures["p95"])
    worst = run["worst_case"]
    never = f", none ever more than {amount(worst, unit)}" if worst is not None else ""
    stack = memory["stack_bytes"]
    stacked = f", {stack:,} bytes of stack at worst" if stack is not None else ""
    sizes = f"{kib(memory['flash_bytes'])} of flash, {kib(memory['ram_bytes'])} of RAM{stacked}"
    return f"{start}{time}{f' ({at})' if at else ''}{never}; {sizes}."


def nominal(run: Run, value: float) -> str | None:
    """Time at the board's clock; of instructions as if each took one cycle."""
    clock, unit = run["clock_hz"], run["unit"]
    if clock is None or unit == "microseconds":
        return None
    each = ", one cycle each" if unit == "instructions" else ""
    return f"{1e3 * value / clock:.3g} ms at {clock / 1e6:g} MHz{each}"


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """(what, figure, remark)."""
    unit, memory = run["unit"], run["memory"]
    figures, steps = run[unit], run["timesteps"]["mean_timesteps"]
    tiles = []
    if run["accuracy"] is not None:
        tiles.append(("accuracy", percent(run["accuracy"]), f"{run['samples']:,} samples"))
    tiles += [
        ("p95", short(figures["p95"]), f"{unit} per inference"),
        ("mean", short(figures["mean"]), f"{unit} per inference"),
    ]
    if run["worst_case"] is not None:
        share = 100 * figures["max"] / run["worst_case"] if unit == "instructions" else None
        seen = f"; {share:.0f} % of it observed" if share is not None else ""
        tiles.append(("worst case", short(run["worst_case"]), f"instructions{seen}"))
    tiles += [
        ("timesteps", f"{steps:.2f}", f"mean, of {run['timesteps_most']} at most"),
        ("flash", kib(memory["flash_bytes"], 1024), "code, weights, tables"),
        ("RAM", kib(memory["ram_bytes"], 1024), "arena and other data"),
    ]
    if memory["stack_bytes"] is not None:
        tiles.append(("stack", kib(memory["stack_bytes"], 1024), "at worst, beside the RAM"))
    return tiles


def _thresholds(run: Run) -> list[dict[str, Any]]:
    """About a dozen points of the sweep, the own one among them."""
    if run["sweep"] is None:
        return []
    points, unit = run["sweep"]["points"], run["unit"]
    picked = {round(i * (len(points) - 1) / 11) for i in range(12)}
    return [
        {**p, "estimate": p[f"{unit}_estimate"]}
        for i, p in enumerate(points)
        if i in picked or p["own"]
    ]


def number(value: float | None, digits: int = 0) -> str:
    """1,234; nothing for None."""
    return "" if value is None else f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """Of 0...1."""
    return "" if share is None else f"{100 * share:.2f} %"


def short(value: float) -> str:
    """Three digits and k or M.

    >>> short(955363), short(62.5), short(3141592)
    ('955 k', '62.5', '3.14 M')
    """
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def amount(value: float, unit: str) -> str:
    """With its unit."""
    return f"{value:,.0f} {unit}"


def kib(value: int, least: int = 10_000) -> str:
    """KiB from so many bytes on."""
    return f"{value:,} bytes" if value < least else f"{value / 1024:.1f} KiB"
