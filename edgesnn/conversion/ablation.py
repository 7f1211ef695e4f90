"""`python -m edgesnn.conversion.ablation ann.onnx --calibration c.npz --test t.npz`: the CSS paper's ablations.

One network converted again and again, each time with one thing left out (Algorithm 2): the negative spikes, the
silent period, the adjustment of amplitudes (A.3); then with other gains beta, each as the nearest sum of three
shifts. Everything is chosen on the calibration data; the figures are of the test samples and of the integers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesnn.compiler.passes.convert import amplification_of
from edgesnn.conversion.conversion import Say, as_ann, convert
from edgesnn.conversion.forward import AnnForward
from edgesnn.conversion.samples import Numbers, raw_samples, read_samples
from edgesnn.conversion.simulate import simulate
from edgesnn.data.npz import read_arrays
from edgesnn.exits import guarded
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError, UsageError

if TYPE_CHECKING:
    from edgesnn.compiler.ann import Ann

Row = dict[str, Any]
BETAS = (1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0)


def variants(beta: float = 2.0) -> dict[str, dict[str, Any]]:
    """Options of `convert` by the row's name; the first is the whole method with gain `beta`."""
    return {
        "as is": {"beta": beta},
        "without negative spikes": {"beta": beta, "signed": False},
        "without silent period": {"beta": beta, "silent": 0},
        "without adjustment": {"beta": beta, "adjust": False},
        # Adjustment makes up for part of what the others leave out.
        "neither silence nor adjustment": {"beta": beta, "silent": 0, "adjust": False},
        "none of the three": {"beta": beta, "signed": False, "silent": 0, "adjust": False},
        **{f"beta {b:g}": {"beta": b} for b in BETAS if b != beta},
    }


def run(
    model: str | Path | Ann,
    calibration: str | Path,
    test: str | Path,
    *,
    beta: float = 2.0,
    timesteps: int = 8,
    weights: str = "int8",
    mean: Numbers = None,
    std: Numbers = None,
    samples: int | None = None,
    seed: int = 0,
    say: Say = lambda line: None,
) -> list[Row]:
    """A row per variant, plain values.

    test: an .npz with x like the calibration's and labels y; samples: so many of its first ones. accuracy and
    agreement (with the network's classes) are shares; output_steps, steps, spikes and sops means up to the
    sound exit; beta the exact gain, amplification its shifts. Raises UsageError or EdgesnnError, one line.
    """
    ann = as_ann(model, calibration)
    fed = read_samples(ann, calibration, mean, std)
    x, y = _labelled(ann, test, fed.about, samples)
    classes = AnnForward(ann, fed.values).scores(x).argmax(axis=1)
    rows: list[Row] = [{"row": "the network", "accuracy": float((classes == y).mean())}]
    known: dict[str, Row] = {}
    for name, options in variants(beta).items():
        # Several betas may come to the same shifts.
        key = repr({**options, "beta": amplification_of(options["beta"])})
        if key not in known:
            say(f"{name} ...")
            found = convert(
                ann,
                calibration,
                timesteps=timesteps,
                weights=weights,
                mean=mean,
                std=std,
                seed=seed,
                **options,
            )
            seen = simulate(found.program, x)
            known[key] = {
                "beta": found.report["beta"],
                "amplification": found.report["amplification"],
                "accuracy": float((seen.labels == y).mean()),
                "agreement": float((seen.labels == classes).mean()),
                "output_steps": float(seen.output_steps.mean()),
                "steps": float(seen.steps.mean()),
                "spikes": float(seen.events.sum(axis=1).mean()),
                "sops": float(seen.sops.sum(axis=1).mean()),
            }
        rows.append({"row": name, **known[key]})
    return rows


def _labelled(
    ann: Ann, test: str | Path, about: dict[str, Any], samples: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(raw maps uint8[N, H, W, C], labels [N]) of the first `samples` of the test file."""
    path = Path(test).expanduser()
    arrays = read_arrays(path, ("x", "y"))
    x, y = arrays["x"], arrays["y"]
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise EdgesnnError(f"{path}: y is {y.dtype} of shape {y.shape}, not a label per sample")
    if (x.dtype == np.uint8) != (about["dtype"] == "uint8") or x.dtype.kind not in "uf":
        raise UsageError(
            f"{path}: x is {x.dtype}, the calibration's {about['dtype']}: give the same"
        )
    if samples is not None and not 0 < samples <= len(x):
        raise UsageError(f"{path} has {len(x)} samples, not {samples}")
    raw = raw_samples(x[:samples], about)
    return read_samples(ann, raw).x, y[:samples]


def numbers(text: str) -> tuple[float, ...]:
    """0.13, or one number per channel: 0.49,0.48,0.45."""
    return tuple(float(word) for word in text.split(","))


def table(rows: Sequence[Row]) -> str:
    """The rows as lines of columns."""
    heads = f"{'':30} {'gain':>7} {'accuracy':>9} {'as the network':>14} {'output steps':>12}"
    lines = [f"{heads} {'steps':>6} {'SOPs':>11}"]
    for r in rows:
        line = f"{r['row']:30} {r.get('beta', float('nan')):7.5g} {100 * r['accuracy']:7.2f} %"
        if "agreement" in r:
            line += f" {100 * r['agreement']:12.2f} % {r['output_steps']:12.2f} {r['steps']:6.2f}"
            line += f" {r['sops']:11,.0f}"
        lines.append(line.replace("    nan", "       "))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded(lambda: _main(arguments), "ablation")


def _main(arguments: Sequence[str] | None) -> None:
    import argparse

    import torch

    parser = argparse.ArgumentParser(
        prog="python -m edgesnn.conversion.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument(
        "--calibration", required=True, help="an .npz with x, as for edgesnn convert"
    )
    parser.add_argument(
        "--test", required=True, help="an .npz with x like the calibration's, and y"
    )
    parser.add_argument(
        "--mean", type=numbers, help="of uint8 samples / 255, one or one per channel"
    )
    parser.add_argument("--std", type=numbers)
    parser.add_argument(
        "--beta", type=float, default=2.0, help="of the rows that leave something out"
    )
    parser.add_argument("--timesteps", type=int, default=8)
    parser.add_argument("--weights", default="int8", help="int8 or int16")
    parser.add_argument("--samples", type=int, help="the first N of the test samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="write the rows as JSON, too")
    args = vars(parser.parse_args(arguments))
    out, threads = args.pop("out"), args.pop("threads")
    if threads is not None:
        torch.set_num_threads(max(1, threads))
    said: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    rows = run(args.pop("model"), args.pop("calibration"), args.pop("test"), say=said, **args)
    if out is not None:
        text = json.dumps({**args, "rows": rows}) + "\n"
        write_atomic(out.expanduser(), text.encode())
    print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
