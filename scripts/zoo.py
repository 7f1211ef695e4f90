"""`python scripts/zoo.py NAME... [--models FOLDER]`: train a network of the zoo by its command, write its card.

With --models, FOLDER/NAME.pt is taken instead of training it; its report has to name the same options.
Every figure of a card is measured here: float and integers on the full test split, flash as linked.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgesnn import api, cli, evaluate
from edgesnn.checkpoint import load_checkpoint
from edgesnn.data import load
from edgesnn.runtime.files import sha256, write_atomic
from edgesnn.runtime.session import Session
from edgesnn.targets.board import load_board
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain
from edgesnn.zoo.card import MODELS, Card

BOARD = "mps2-an386"


@dataclass(frozen=True)
class Entry:
    """How one network of the zoo is made; `options` are those of `edgesnn train`."""

    title: str
    data: str
    licence: str
    options: str


MNIST_LICENCE = "CC BY-SA 3.0 as usually given (LeCun, Cortes; derived from NIST)"
ENTRIES = {
    "digits": Entry(
        "8x8 digits, for a first try",
        "digits",
        "CC BY 4.0 (UCI optical digits: Alpaydin, Kaynak)",
        "--net mcu-lenet-s --seed 0",
    ),
    "mnist": Entry(
        "handwritten digits under 100 k weights",
        "mnist",
        MNIST_LICENCE,
        "--net mcu-lenet-s --seed 1",
    ),
    "mnist-lenet": Entry(
        "handwritten digits, LeNet of 3.0 M dense multiply-accumulates",
        "mnist",
        MNIST_LICENCE,
        "--net mcu-lenet --seed 1 --epochs 20 --exit margin",
    ),
    "fashion": Entry(
        "clothes, LeNet of 3.0 M dense multiply-accumulates",
        "fashion-mnist",
        "MIT (Zalando SE)",
        "--net mcu-lenet --seed 1 --epochs 24 --augment flip --exit margin --rate-penalty 0.02 "
        "--early-penalty 0.05 --encoder-bias -0.5",
    ),
}


def command(name: str) -> list[str]:
    entry = ENTRIES[name]
    options = shlex.split(entry.options)
    return ["train", *options, "--data", entry.data, "--threads", "1", "--out", f"{name}.pt"]


def add(name: str, path: Path) -> Card:
    """Measure the checkpoint at `path`, put it and its card into the package."""
    entry, checkpoint = ENTRIES[name], load_checkpoint(path)
    test = load(entry.data, "test")
    report = checkpoint.report
    with tempfile.TemporaryDirectory() as folder:
        host = api.compile(path, "cpu", out=Path(folder) / "host")
        with Session(host) as session:
            run = evaluate.run(session, test.x, test.y, evaluate.counted)
        firmware = api.inspect(api.compile(path, board=BOARD, out=Path(folder) / "board").path)
    compiler = find_toolchain(find_target(load_board(BOARD).target)).version
    card = Card(
        name=name,
        title=entry.title,
        net=checkpoint.network.name,
        data=entry.data,
        data_licence=entry.licence,
        command=shlex.join(["edgesnn", *command(name)]),
        seed=report["seed"],
        exit=checkpoint.readout.kind,
        threshold=checkpoint.readout.value,
        timesteps=checkpoint.network.timesteps,
        samples=run["samples"],
        weights=report["parameters"],
        float_accuracy=report["accuracy"],
        float_steps=report["mean_timesteps"],
        accuracy=run["accuracy"],
        steps=run["mean_timesteps"],
        spikes_per_neuron=run["spikes_per_neuron"]["hidden"],
        sops=run["sops_mean"],
        flash_bytes=firmware["flash_bytes"],
        ram_bytes=firmware["ram_bytes"],
        compiler=compiler,
        sha256=sha256(path),
    )
    write_atomic(MODELS / f"{name}.pt", path.read_bytes())
    text = json.dumps(card.to_dict(), indent=2) + "\n"
    write_atomic(MODELS / f"{name}.json", text.encode())
    return card


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(ENTRIES))
    parser.add_argument("--models", type=Path, help="folder of <name>.pt trained before")
    args = parser.parse_args()
    for name in args.names:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.pt"
            if args.models is not None:
                path = args.models / f"{name}.pt"
            else:
                cli.main([*command(name)[:-1], str(path)])
            try:
                card = add(name, path)
            except EdgesnnError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
        print(
            f"{name}: integers {100 * card.accuracy:.2f} % at {card.steps:.3f} steps, "
            f"flash {card.flash_bytes:,} bytes"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
