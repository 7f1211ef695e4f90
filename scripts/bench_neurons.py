"""`make bench`, neurons: AMOS in parallel against the loop and others, alone and with `--net` in psn-net.

    python scripts/bench_neurons.py [--device cpu|cuda] [--threads 1] [--full] [--net] [--json FILE]

Every row times all forms in turn, several times over, and takes medians, so that a noisy machine disturbs
all of them alike: look at the ratios. The autograd loops run over `X.unbind(0)`; indexing X[t] instead
would make their backward pass quadratic in T and any comparison with them worthless.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgesnn.losses import mean_loss
from edgesnn.networks.spec import NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_spec
from edgesnn.neurons.amos import amos, amos_loop
from edgesnn.neurons.lif import lif
from edgesnn.neurons.psn import Psn
from edgesnn.neurons.surrogate import step
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError

ROW_SECONDS = 1.0  # aim of a row: as many repeats as fit, within REPEATS
REPEATS = (3, 30)
MEMORY_LIMIT = 2e9  # bytes of the autograd loop's graph, about 8 floats a neuron and step
QUICK = [(t, n) for n in (2**10, 2**14) for t in (4, 16, 64)] + [(4, 2**18)]
FULL = [(t, n) for n in (2**10, 2**14, 2**18) for t in (4, 16, 64, 256)]
BASE = "amos parallel"
NETS = {
    BASE: (NeuronSpec("amos"), "parallel"),
    "amos loop": (NeuronSpec("amos"), "loop"),
    "psn": (NeuronSpec("psn"), "auto"),
    "lif": (NeuronSpec("lif"), "auto"),
}
SHAPE, CLASSES = (32, 32, 3), 10


def lif_autograd(currents: Tensor, leak: float = 0.5) -> Tensor:
    """`lif` as a plain loop that autograd differentiates by itself."""
    steps = currents.unbind(0)
    rest = torch.zeros_like(steps[0])
    spikes = []
    for current in steps:
        membrane = leak * rest + current
        spikes.append(step(membrane - 1.0))
        rest = membrane - spikes[-1]
    return torch.stack(spikes)


def medians(forms: dict[str, Callable[[], None]], device: str) -> dict[str, float]:
    """Milliseconds of each form, measured in turn."""

    def once(run: Callable[[], None]) -> float:
        begin = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begin)

    first = sum(
        once(run) for run in forms.values()
    )  # also loads and allocates what the rest reuses
    repeats = min(max(int(1e3 * ROW_SECONDS / first), REPEATS[0]), REPEATS[1])
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, run in forms.items():
            times[name].append(once(run))
    return {name: statistics.median(values) for name, values in times.items()}


def neuron_rows(device: str, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Every neuron alone: float32[T, N] normal currents, with and without the backward pass."""
    rows = []
    for steps, count in sizes:
        if 8 * 4 * steps * count > MEMORY_LIMIT:
            continue
        random = torch.Generator().manual_seed(steps)
        x = torch.randn(steps, count, generator=random).to(device).requires_grad_()
        g = torch.randn(steps, count, generator=random).to(device)
        psn = Psn(steps).to(device)
        forms: dict[str, Callable[[Tensor], Tensor]] = {
            BASE: lambda x: amos(x, 0.5, parallel=True),
            "amos loop": lambda x: amos(x, 0.5),
            "amos autograd": lambda x: amos_loop(x, 0.5),
            "psn": psn,
            "lif": lif,
            "lif autograd": lif_autograd,
        }

        def training(run: Callable[[Tensor], Tensor], x: Tensor = x, g: Tensor = g) -> None:
            x.grad = None
            run(x).backward(g)

        def inference(run: Callable[[Tensor], Tensor], x: Tensor = x) -> None:
            with torch.no_grad():
                run(x.detach())

        for mode, wrap in (("training", training), ("inference", inference)):
            runs = {name: (lambda f=f, wrap=wrap: wrap(f)) for name, f in forms.items()}
            row = {"mode": mode, "device": device, "T": steps, "N": count}
            rows.append({**row, "ms": medians(runs, device)})
            show(rows[-1])
    return rows


def net_rows(device: str, steps_of: tuple[int, ...]) -> list[dict[str, Any]]:
    """psn-net on random CIFAR-sized samples: the same layers with different neurons."""
    batch = 2 if device == "cpu" else 32
    rows = []
    for steps in steps_of:
        x = torch.rand(batch, SHAPE[2], *SHAPE[:2], device=device)
        y = torch.zeros(batch, dtype=torch.int64, device=device)
        nets = {}
        for name, (neuron, mode) in NETS.items():
            spec = network_spec("psn-net", SHAPE, CLASSES, steps)
            layers = tuple(replace(layer, neuron=None) for layer in spec.layers)
            spec = replace(spec, layers=layers, neuron=neuron)
            nets[name] = SpikingNetwork(spec, neuron_mode=mode).to(device)

        def training(net: SpikingNetwork, x: Tensor = x, y: Tensor = y) -> None:
            net.zero_grad(set_to_none=True)
            mean_loss(net(x).membranes, y).backward()

        def inference(net: SpikingNetwork, x: Tensor = x) -> None:
            with torch.no_grad():
                net(x)

        for mode, wrap in (("training", training), ("inference", inference)):
            runs = {name: (lambda net=net, wrap=wrap: wrap(net)) for name, net in nets.items()}
            row = {"mode": mode, "device": device, "T": steps, "batch": batch}
            rows.append({**row, "ms": medians(runs, device)})
            show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    """One line: the base in milliseconds, the others as multiples of it."""
    size = f"N {row['N']:7}" if "N" in row else f"batch {row['batch']:3}"
    base = row["ms"][BASE]
    others = "".join(f"{ms / base:16.2f}" for name, ms in row["ms"].items() if name != BASE)
    head = f"{row['device']:5} {row['mode']:10} T {row['T']:3}  {size}"
    print(f"{head:36}{base:12.2f} ms{others}", flush=True)


def title(what: str, others: list[str]) -> None:
    print(f"{what:36}{BASE:>15}" + "".join(f"{name:>16}" for name in others))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: all there are")
    parser.add_argument(
        "--threads", type=int, default=1, help="of the CPU; more on a busy one lies"
    )
    parser.add_argument("--full", action="store_true", help="all sizes, several minutes")
    parser.add_argument("--net", action="store_true", help="psn-net too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all medians there")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EdgesnnError("torch finds no CUDA device here; use --device cpu")
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if options.device:
        devices = [options.device]
    torch.manual_seed(0)
    torch.set_num_threads(max(options.threads, 1))
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if "cuda" in devices else None,
        "neurons": [],
        "psn-net": [],
    }
    print("medians; the others as multiples of the first column (above 1: slower than it)")
    title("neuron alone", ["amos loop", "amos autograd", "psn", "lif", "lif autograd"])
    for device in devices:
        report["neurons"] += neuron_rows(device, FULL if options.full else QUICK)
    if options.net:
        title("psn-net", [name for name in NETS if name != BASE])
        for device in devices:
            report["psn-net"] += net_rows(device, (4, 16, 64) if options.full else (4,))
    if options.json:
        write_atomic(options.json, (json.dumps(report, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
