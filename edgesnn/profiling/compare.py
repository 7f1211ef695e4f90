"""Several runs side by side: one row a run, of figures that every report has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def labels(runs: Sequence[dict[str, Any]]) -> list[str]:
    """A short name of each run: model and machine; with the bundle's folder where those are the same."""
    short = [f"{r['model']}, {r['board'] or r['target']}" for r in runs]
    return [
        name if short.count(name) == 1 else f"{name} ({run['bundle']})"
        for name, run in zip(short, runs, strict=True)
    ]


def compare(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is compared; "amount" is in the run's own unit: instructions of different cores are no times."""
    rows = []
    for label, run in zip(labels(runs), runs, strict=True):
        memory, energy, unit = run["memory"], run["energy"], run["unit"]
        signal = (run["signal"] or {}).get("board")
        rows.append(
            {
                "label": label,
                "bundle": run["bundle"],
                "samples": run["samples"],
                "accuracy": run["accuracy"],
                "unit": unit,
                "amount": run[unit],
                "worst_case": run["worst_case"],
                "mean_timesteps": run["timesteps"]["mean_timesteps"],
                "spikes_mean": run["distribution"]["spikes"]["mean"],
                "sops_mean": run["sops_mean"],
                "flash_bytes": memory["flash_bytes"],
                "ram_bytes": memory["ram_bytes"],
                "stack_bytes": memory["stack_bytes"],
                "snn_pj": energy["snn_pj"],
                "board_uj": energy["board"]["microjoules"]["mean"] if energy["board"] else None,
                # Of a second of signal: all that it takes, and its share of the nominal clock.
                "per_second": signal["per_second"] if signal else None,
                "share_of_clock": signal["share_of_clock"] if signal else None,
            }
        )
    return rows


def together(runs: Sequence[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """One report of all runs: of a single one its own keys, else {"runs": [...], "comparison": [...]}.

    about: what was run, when and with what; plain values.
    """
    if len(runs) == 1:
        return {**runs[0], "about": about}
    return {
        "format": "edgesnn-report",
        "version": 1,
        "about": about,
        "comparison": compare(runs),
        "runs": list(runs),
    }
