"""Hop, votes and refractory windows of a window stream, compared on what training held out.

    python scripts/votes.py fsdd.pt --data fsdd --seed 1

The recordings that `edgesnn train --seed 1` held out become one signal; the integer program classifies its
windows once, and every rule is tried on the labels. The rules in edgesnn/data/fsdd.py and wand.py were chosen
here. --split test judges the rule that stands there on the test recording, and no other.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgesnn.checkpoint import load_checkpoint, to_graph
from edgesnn.compiler import ir
from edgesnn.compiler.lower import lower
from edgesnn.compiler.stream import Votes, windows_of
from edgesnn.data import data_folder, fsdd, load, wand
from edgesnn.data.dataset import stratified_split
from edgesnn.data.recording import Recording
from edgesnn.data.recordings import load_recording
from edgesnn.quantisation.network import integer_network
from edgesnn.scoring import Score, score_recording
from edgesnn.training.select import default_val_fraction


def held_out(name: str, seed: int, fraction: float) -> Recording:
    """The train recordings of the groups that training held out, as one signal."""
    data = load(name, "train")
    _, held = stratified_split(
        data.y, fraction or default_val_fraction(len(data)), seed, data.groups
    )
    assert data.groups is not None
    groups = np.unique(data.groups[held]).tolist()
    if name == fsdd.NAME:
        return fsdd.recording_of(fsdd.words_of_groups(groups, data_folder()), "train")
    return wand.recording_of(wand.pieces_of_decks(groups, data_folder()), "train")


def judged(
    stream: ir.WindowStream, times: np.ndarray, labels: np.ndarray, signal: Recording
) -> Score:
    """The score of one rule; times and labels of windows a row apart."""
    votes = Votes(stream, len(signal.class_names))
    at, found = range(0, len(times), stream.hop), []
    for i in at:
        smoothed, detected = votes.add(int(labels[i]))
        if detected and smoothed is not None:
            found.append((int(times[i]), smoothed))
    unit = 1 / signal.rate if signal.rate else 1e-3
    return score_recording(signal, found, stream.background, unit)


def line(stream: ir.WindowStream, result: Score) -> str:
    latency = result.to_dict()["latency_ms"]["from_end"]
    return (
        f"hop {stream.hop:2d}  smooth {stream.smooth}  votes {stream.votes}  refractory {stream.refractory:2d}"
        f"  {100 * result.accuracy:6.2f} %  extra {result.extra:3d}  false {result.false_alarms}"
        f"  {latency['mean'] if latency else 0:6.0f} ms after the end"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", choices=(fsdd.NAME, wand.NAME), required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--val-fraction", type=float, default=0.0, help="of the training")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--refractory", type=float, default=0.4, help="seconds, about")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.checkpoint)
    stream = load(args.data, "test").stream
    assert isinstance(stream, ir.WindowStream)
    finest = replace(stream, hop=1)
    graph = to_graph(replace(checkpoint, stream=finest))
    test = args.split == "test"
    signal = (
        load_recording(args.data) if test else held_out(args.data, args.seed, args.val_fraction)
    )
    times, x = windows_of(lower(graph, weights=checkpoint.weights), signal.signal)
    labels = integer_network(graph, checkpoint.weights).evaluate_counts(x.copy()).labels
    print(f"{len(signal.labels)} intervals, {len(x)} windows a row apart")
    print(line(stream, judged(stream, times, labels, signal)), " as it stands")
    if test:
        return
    row = float(times[1] - times[0]) / (signal.rate or 1.0)
    results = []
    for hop, smooth in itertools.product((2, 3, 4, 5, 8), (1, 2, 3, 4, 5)):
        for votes in range((smooth + 2) // 2, smooth + 1):
            rest = round(args.refractory / (row * hop))
            rule = replace(stream, hop=hop, smooth=smooth, votes=votes, refractory=rest)
            results.append((rule, judged(rule, times, labels, signal)))
    for rule, result in sorted(results, key=lambda r: (-r[1].accuracy, r[1].extra)):
        print(line(rule, result))


if __name__ == "__main__":
    main()
