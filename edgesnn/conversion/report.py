"""What a conversion reports, in plain values (JSON)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.conversion.simulate import Simulation
from edgesnn.reports.energy import E_AC, E_MAC


def layer_rows(
    program: ir.Program, run: Simulation, amplitudes: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row per node behind the input. Spikes and synaptic operations are means up to the stop.

    amplitude: theta, of a rate the activation of a spike in every step; residual: 99.9th percentile of what is
    left on a membrane, in spikes.
    """
    rows, bounds = [], prove(program).nodes
    for i, node in enumerate(program.nodes[1:], 1):
        spikes, units = float(run.events[:, i].mean()), bounds[node.name].neurons
        last = isinstance(node, ir.Output)
        rows.append(
            {
                "name": node.name,
                "kind": type(node).__name__,
                "shape": list(bounds[node.name].shape),
                "amplitude": amplitudes.get(node.name),
                "residual": run.residuals.get(node.name),
                "spikes": None if last else spikes,
                "spikes_per_neuron": None if last else spikes / units,
                "sops": float(run.sops[:, i].mean()),
                "weights": sorted({p.weight.dtype.name for p in ir.projections(node)}),
                "sums": bounds[node.name].sums,
            }
        )
    return rows


def work(run: Simulation, macs: int, encoder_macs: int) -> dict[str, Any]:
    """Means of an inference up to its stop, and an estimate of the energy.

    It takes the CSS paper's figures (section 5.4): 0.9 pJ for a synaptic operation, 4.6 pJ for a
    multiply-accumulate, of the network's and of an encoder's.
    """
    sops = float(run.sops.sum(axis=1).mean())
    ann, snn = E_MAC * macs, E_AC * sops + E_MAC * encoder_macs
    return {
        "spikes": float(run.events.sum(axis=1).mean()),
        "sops": sops,
        "macs": macs,
        "energy": {"ann_pj": ann, "snn_pj": snn, "ratio": snn / ann if ann else None},
    }


def answers(run: Simulation, classes: np.ndarray, y: np.ndarray | None) -> dict[str, Any]:
    """Accuracy (None without labels), agreement with the network's `classes`, and the stop.

    loss_points: percentage points that the program is behind the network. full: the same without stopping
    early. changed: answers that differ from the full length's.
    """
    full = run.history[:, -1].argmax(axis=1)
    out: dict[str, Any] = {
        "agreement": float((run.labels == classes).mean()),
        "full_agreement": float((full == classes).mean()),
        "changed": int((run.labels != full).sum()),
        "mean_steps": float(run.steps.mean()),
        "mean_output_steps": float(run.output_steps.mean()),
        "stopped_early": float((run.output_steps < run.history.shape[1]).mean()),
        "ann_accuracy": None,
        "accuracy": None,
        "full_accuracy": None,
        "loss_points": None,
    }
    if y is not None:
        ann, mine = float((classes == y).mean()), float((run.labels == y).mean())
        out |= {
            "ann_accuracy": ann,
            "accuracy": mine,
            "full_accuracy": float((full == y).mean()),
            "loss_points": 100.0 * (ann - mine),
        }
    return out


def rates_of(program: ir.Program, run: Simulation, x: np.ndarray) -> dict[str, float]:
    """What ir.Program.rates holds, measured."""
    source = program.input
    assert isinstance(source, ir.SampleInput)
    out = {n.name: float(run.events[:, i].mean()) for i, n in enumerate(program.nodes)}
    out[source.name] = float((x != source.zero_point).sum() / len(x))
    out[program.output.name] = float(run.steps.mean())
    return out


def shifts_text(terms: ir.Shifts) -> str:
    """((1, 0), (1, 1)) as "u + (u >> 1)"."""
    parts = [("-" if sign < 0 else "+", "u" if k == 0 else f"(u >> {k})") for sign, k in terms]
    return "".join(f" {s} {p}" for s, p in parts).removeprefix(" + ")
