"""`python scripts/parallel.py [--model M --data D]`: what several emulated boards at once gain.

Times whole `edgesnn run` commands on one emulated board and on several of it, in turn, and prints each and the
median ratio. The machine should have nothing else to do, and a processor for each board.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOARD = "mps2-an386"


def seconds(folder: Path, *words: str) -> float:
    """What a command takes, started in `folder`."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "edgesnn", *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="zoo:digits")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--samples", type=int, default=1400, help="of the train split")
    parser.add_argument("--boards", type=int, default=2, help="emulated at once")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds(folder, "compile", given.model, "--board", BOARD, "--out", "bundle")
        run = ["run", "bundle", "--data", given.data, "--split", "train", "--json"]
        run += ["--samples", str(given.samples), "--board"]
        for _ in range(given.rounds):
            one, several = (seconds(folder, *run, ",".join([BOARD] * n)) for n in (1, given.boards))
            ratios.append(several / one)
            print(f"one {one:.2f} s, {given.boards} at once {several:.2f} s: {ratios[-1]:.2f}")
    print(f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
