"""`python scripts/parallel.py [--boards N] [--samples N] [--rounds N]`: what several boards at once gain.

Times whole `edgesnn run` commands, zoo:mnist-lenet on random images, on one emulated board and on several of
it, in turn, and prints each and the median ratio. The machine should have nothing else to do, and a processor
for each board.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgesnn.runtime.bundle import Bundle

BOARD = "mps2-an386"


def seconds(folder: Path, *words: str) -> float:
    """What a command takes, started in `folder`."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "edgesnn", *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def random_frames(bundle: Bundle, count: int) -> np.ndarray:
    """Images of which a sixth is not 0, about as many as of a drawn digit's."""
    rng, shape = np.random.default_rng(0), (count, *bundle.input_shape)
    return np.where(rng.random(shape) < 1 / 6, rng.integers(0, 256, shape), 0).astype(np.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--boards", type=int, default=2, help="emulated at once")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds(folder, "compile", "zoo:mnist-lenet", "--board", BOARD, "--out", "bundle")
        x = random_frames(Bundle.open(folder / "bundle"), given.samples)
        y = np.zeros(given.samples, np.int64)
        np.savez(folder / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        run = ["run", "bundle", "--data", "x.npz", "--json", "--board"]
        for _ in range(given.rounds):
            one, several = (seconds(folder, *run, ",".join([BOARD] * n)) for n in (1, given.boards))
            ratios.append(several / one)
            print(f"one {one:.2f} s, {given.boards} at once {several:.2f} s: {ratios[-1]:.2f}")
    print(f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
