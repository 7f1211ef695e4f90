"""The pictures of a report, as PNG (matplotlib, without a display)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

# Okabe-Ito: told apart by colour-blind readers, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Form = dict[str, Any]


def write_plots(report: dict[str, Any], folder: Path) -> list[str]:
    """tradeoff.png, spikes.png, difficulty.png and, with a history, training.png; their names."""
    forms = report["forms"]
    names = ["spikes.png", "difficulty.png"]
    _spikes(forms[-1], folder / "spikes.png")
    _difficulty(forms, folder / "difficulty.png")
    if any(form["curves"] for form in forms):
        _tradeoff(forms, folder / "tradeoff.png")
        names.insert(0, "tradeoff.png")
    if len(report.get("history") or []) > 1:
        _training(report["history"], folder / "training.png")
        names.append("training.png")
    return names


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _done(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _tradeoff(forms: list[Form], path: Path) -> None:
    figure, axes = _axes("Accuracy against speed", "mean timesteps up to the exit", "accuracy (%)")
    number = 0
    for form in forms:
        for exit, points in form["curves"].items():
            colour = COLOURS[number % len(COLOURS)]
            number += 1
            axes.plot(
                [p["mean_timesteps"] for p in points],
                [100 * p["accuracy"] for p in points],
                color=colour,
                linestyle="-" if form["form"] == "float" else "--",
                label=f"{exit}, {form['form']}",
            )
    for form, marker in zip(forms, ("o", "s"), strict=False):
        axes.plot(
            form["mean_timesteps"],
            100 * form["accuracy"],
            marker,
            color="black",
            fillstyle="none" if form["form"] == "float" else "full",
            linestyle="none",
            label=f"as chosen, {form['form']}",
        )
    axes.legend(loc="lower right", frameon=False)
    _done(figure, path)


def _spikes(form: Form, path: Path) -> None:
    layers = form["per_layer"][:-1]  # the output does not spike
    figure, axes = _axes(
        f"Spikes up to the exit ({form['form']})", "spikes per neuron and inference", ""
    )
    steps = len(layers[0]["spikes_per_neuron_by_step"])
    left = [0.0] * len(layers)
    shades = plt.get_cmap("viridis")
    for t in range(steps):
        values = [x["spikes_per_neuron_by_step"][t] for x in layers]
        axes.barh(
            [x["name"] for x in layers],
            values,
            left=left,
            color=shades(t / max(steps - 1, 1)),
            label=f"step {t + 1}",
        )
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside right upper", frameon=False)
    _done(figure, path)


def _difficulty(forms: list[Form], path: Path) -> None:
    form = forms[-1]
    bins = form["difficulty"]
    figure, axes = _axes(
        f"Exit step and accuracy by difficulty ({form['form']})",
        f"samples by difficulty, in {len(bins)} equal parts: easiest to hardest",
        "mean exit step",
    )
    other = axes.twinx()
    other.spines[["top"]].set_visible(False)
    other.set_ylabel("accuracy (%)", color=COLOURS[1])
    x = range(1, len(bins) + 1)
    axes.set_xticks(list(x))
    axes.plot(x, [b["mean_timesteps"] for b in bins], "o-", color=COLOURS[0])
    axes.yaxis.label.set_color(COLOURS[0])
    other.plot(x, [100 * b["accuracy"] for b in bins], "s--", color=COLOURS[1])
    _done(figure, path)


def _training(history: list[dict[str, float]], path: Path) -> None:
    figure, axes = _axes("Training", "epoch", "validation accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [100 * row["val_accuracy"] for row in history], "o-", color=COLOURS[0])
    axes.yaxis.label.set_color(COLOURS[0])
    other = axes.twinx()
    other.spines[["top"]].set_visible(False)
    other.plot(epochs, [row["loss"] for row in history], "s--", color=COLOURS[1])
    other.set_ylabel("training loss", color=COLOURS[1])
    _done(figure, path)
