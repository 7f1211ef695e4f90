"""`python -m edgesnn.ablation NAME --data mnist`: the ablations of both papers, one command each.

encoding    latency encoder, raw pixels as spike times, direct current (LE/TAD paper, with and without LE)
loss        TAD, plain per-step and mean cross-entropy, TAD on the current (with and without TAD)
gradient    the encoder's edge gradient against straight-through
decoders    rate, TWD, TQ-TTFS, first spike, margin, temporal selector (AMOS paper, table 4)
timesteps   T = 1, 2, 4, 8
threshold   V_th of the output from 1 to 16: accuracy and exit steps (AMOS paper, table 5)

Every row is trained with the same seed and epochs; values of the exits are chosen on validation, figures are
of the test split.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.checkpoint import load_checkpoint
from edgesnn.coding.readout import decode
from edgesnn.exits import guarded
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import UsageError

Row = dict[str, Any]
Options = dict[str, Any]
THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class Ablation:
    """Trains the rows of one table; base: options of `edgesnn.training.train.train` for all of them."""

    def __init__(self, base: Options, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.count = 0

    def train(self, label: str, **options: Any) -> tuple[Row, Path]:
        from edgesnn.training.train import train

        self.count += 1
        out = self.folder / f"{self.count}.pt"
        print(f"{label} ...", file=sys.stderr, flush=True)
        report = train(out=out, **{**self.base, **options})
        row = {
            "row": label,
            "accuracy": report["accuracy"],
            "steps": report["mean_timesteps"],
            "value": report["threshold"],
            "spikes_per_neuron": report["spikes_per_neuron"]["hidden"],
            "sops": report["sops_mean"],
        }
        return row, out

    def rows(self, variants: dict[str, Options]) -> list[Row]:
        return [self.train(label, **options)[0] for label, options in variants.items()]

    def membranes(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(float32[T, N, classes] of the test split, the same of the currents, labels)."""
        from edgesnn.data import load
        from edgesnn.networks.spiking import SpikingNetwork
        from edgesnn.training.evaluate_float import output_membranes

        checkpoint = load_checkpoint(path)
        net = SpikingNetwork(checkpoint.network)
        net.load_state_dict(checkpoint.state)
        test = load(self.base["data"], "test", self.base.get("data_dir"))
        u = output_membranes(net, test.x, checkpoint.scale, checkpoint.zero_point)
        leak = net.output_leak
        before = np.concatenate([np.zeros_like(u[:1]), u[:-1]])
        return u, u - leak * before, test.y


def encoding(ablation: Ablation) -> list[Row]:
    return ablation.rows(
        {
            "latency encoder (LE)": {},
            "raw pixels as spike times": {"encoder": "raw"},
            "direct current": {"encoder": "direct"},
        }
    )


def loss(ablation: Ablation) -> list[Row]:
    return ablation.rows(
        {
            "TAD on the membrane": {},
            "TAD on the current (paper)": {"loss_on": "current"},
            "cross-entropy of every step": {"loss": "tet"},
            "cross-entropy of the mean": {"loss": "mean-ce"},
        }
    )


def gradient(ablation: Ablation) -> list[Row]:
    return ablation.rows(
        {"edge": {}, "straight-through (paper)": {"encoder_grad": "straight-through"}}
    )


def timesteps(ablation: Ablation) -> list[Row]:
    return ablation.rows({f"T = {t}": {"timesteps": t} for t in (1, 2, 4, 8)})


def decoders(ablation: Ablation) -> list[Row]:
    """One net trained with TAD, read in five ways, and two trained for their own readout."""
    from edgesnn.coding.ttfs import tq_ttfs, twd

    first, path = ablation.train("first spike")
    margin, _ = ablation.train("margin", exit="margin")
    membranes, _, y = ablation.membranes(path)
    out = [first, margin]
    for label, decoder in (("TQ-TTFS", tq_ttfs), ("TWD", twd)):
        decided = decoder(membranes, first["value"])
        right = float((decided.labels == y).mean())
        steps = float(decided.steps.mean())
        out.append({"row": label, "accuracy": right, "steps": steps, "value": first["value"]})
    out += ablation.rows({"temporal selector": {"exit": "selector"}, "rate": {"coding": "rate"}})
    return out


def threshold(ablation: Ablation) -> list[Row]:
    """One net with AMOS neurons, stopped at different thresholds."""
    _, path = ablation.train("amos", coding="amos")
    membranes, _, y = ablation.membranes(path)
    out = []
    for value in THRESHOLDS:
        decided = decode(membranes, "first-spike", value)
        shares = np.bincount(decided.steps, minlength=len(membranes) + 1)[1:] / len(y)
        out.append(
            {
                "row": f"V_th {value:g}",
                "accuracy": float((decided.labels == y).mean()),
                "steps": float(decided.steps.mean()),
                "value": value,
                "shares_of_steps": [round(float(s), 4) for s in shares],
            }
        )
    return out


ABLATIONS: dict[str, Callable[[Ablation], list[Row]]] = {
    f.__name__: f for f in (encoding, loss, gradient, decoders, timesteps, threshold)
}


def run(name: str, **base: Any) -> list[Row]:
    """The rows of one ablation; base: options of `train` for every row. UsageError for an unknown name."""
    if name not in ABLATIONS:
        raise UsageError(f"unknown ablation {name!r}: one of {', '.join(ABLATIONS)}")
    with tempfile.TemporaryDirectory() as folder:
        # Rounding is another question: the rows stay those of the float nets.
        options = {"quantise_aware": "never", **base}
        return ABLATIONS[name](Ablation(options, Path(folder)))


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded(lambda: _main(arguments), "ablation")


def _main(arguments: Sequence[str] | None) -> None:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m edgesnn.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(ABLATIONS))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--net", default="mcu-lenet-s")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, help="write the rows as JSON, too")
    args = vars(parser.parse_args(arguments))
    name, out = args.pop("name"), args.pop("out")
    rows = run(name, **args)
    if out is not None:
        text = json.dumps({"ablation": name, **args, "rows": rows}, default=str) + "\n"
        write_atomic(out, text.encode())
    print(f"{name}: {args['net']} on {args['data']}, {args['epochs']} epochs, seed {args['seed']}")
    print(f"{'':30} {'accuracy':>9} {'steps':>7} {'value':>6} {'spikes/neuron':>14} {'SOPs':>10}")
    for row in rows:
        spikes, sops = row.get("spikes_per_neuron"), row.get("sops")
        rest = f" {spikes:14.3f} {sops:10,.0f}" if spikes is not None else ""
        if "shares_of_steps" in row:
            rest = "   stopped at step: " + " ".join(
                f"{100 * s:.1f} %" for s in row["shares_of_steps"]
            )
        print(
            f"{row['row']:30} {100 * row['accuracy']:7.2f} % {row['steps']:7.3f} {row['value']:6g}{rest}"
        )


if __name__ == "__main__":
    sys.exit(main())
