"""`run` and `verify`: what a compiled model answers, and whether it is the reference's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import asdict
from typing import Any

import numpy as np

from edgesnn.compiler.compare import decision_difference, trace_difference
from edgesnn.compiler.esnn_file import load_bundle_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.data import Dataset, load
from edgesnn.data.events import as_steps, is_events
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import Decision, Trace
from edgesnn.runtime.pool import Pool, as_pool
from edgesnn.runtime.session import Session, frame_shape, input_text
from edgesnn.targets.errors import UsageError

RANDOM_SAMPLES = 100
Advance = Callable[[Iterable[Any]], Iterable[Any]]


def load_samples(
    session: Session | Pool,
    data: str | None,
    split: str = "test",
    samples: int | None = None,
    data_dir: str | None = None,
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """(x, y, what it is) for a bundle: the first `samples` of a split, else random frames.

    Random frames (seed 0) have no labels: they can be verified and timed.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples {samples} is not at least 1")
    bundle = session.bundle
    if data is None:
        return random_frames(session, samples or RANDOM_SAMPLES), None, "random frames (seed 0)"
    dataset: Dataset = load(data, split, data_dir)
    shape = tuple(bundle.input_shape)
    events = bundle.input_kind == "events"
    if events:
        shape = (*shape[:2], bundle.timesteps * shape[2])
    if (
        events != is_events(dataset)
        or dataset.shape != shape
        or dataset.dtype != bundle.input_dtype
    ):
        what = "events" if is_events(dataset) else "samples"
        raise UsageError(
            f"{data} has {dataset.dtype} {'x'.join(map(str, dataset.shape))} {what}, {bundle.name} takes "
            f"{input_text(bundle)}{dataset.layout_hint}"
        )
    count = len(dataset) if samples is None else samples
    if count > len(dataset):
        raise UsageError(f"the {split} split of {data} has {len(dataset)} samples, not {count}")
    if dataset.y[:count].max() >= bundle.classes:
        raise UsageError(
            f"{data} has {dataset.classes} classes, {bundle.name} tells {bundle.classes} apart"
        )
    x = dataset.x[:count]
    if events:
        x = as_steps(x, bundle.input_shape[2])
    return x, dataset.y[:count], f"{data} {split}"


def random_frames(session: Session | Pool, count: int, seed: int = 0) -> np.ndarray:
    """Frames [count, *frame_shape] over the whole range of the input, from sparse to full.

    Every tenth is constant, the lowest and the highest value in turn: accumulators reach their
    bounds there. In each other one a share of the addresses, drawn anew from 0...1, has uniform
    values (events: one), and the rest are 0. The same seed gives the same frames.
    """
    bundle, rng = session.bundle, np.random.default_rng(seed)
    shape = (count, *frame_shape(bundle))
    events = bundle.input_kind == "events"
    dtype = np.dtype("uint8" if events else bundle.input_dtype)
    low, high = (0, 1) if events else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    share = rng.random((count,) + (1,) * (len(shape) - 1))
    values = rng.integers(1 if events else low, high + 1, shape)
    frames = np.where(rng.random(shape) < share, values, 0).astype(dtype)
    frames[9::20], frames[19::20] = low, high
    return frames


def must_exit(bundle: Bundle) -> bool:
    """Whether only an exit is an answer: a stream of events has no last step to answer at."""
    return bundle.stream is not None and bundle.stream.mode == "continuous"


class Tally:
    """Sums over decisions, and the figures that follow from them."""

    def __init__(self, boards: Session | Pool) -> None:
        self._nodes = boards.bundle.nodes
        self._timesteps = boards.bundle.timesteps
        self.steps = np.zeros(self._timesteps + 1, dtype=np.int64)
        self.no_output_spike = 0
        self.events = np.zeros(len(self._nodes), dtype=np.int64)
        self.sops = np.zeros(len(self._nodes), dtype=np.int64)
        self.count = 0

    def add(self, decision: Decision) -> None:
        self.count += 1
        self.steps[decision.step] += 1
        self.no_output_spike += not decision.exited
        self.events += decision.events
        self.sops += decision.sops

    def spikes_per_neuron(self) -> dict[str, float | None]:
        """Mean spikes per neuron and inference up to the exit; hidden: without the encoder.

        None where the network has no such neuron. Pooling units and outputs are not neurons that
        spike.
        """
        out: dict[str, float | None] = {}
        for name, kinds in (("hidden", ("spiking",)), ("all", ("encoder", "spiking"))):
            chosen = [i for i, node in enumerate(self._nodes) if node.kind in kinds]
            neurons = sum(self._nodes[i].neurons for i in chosen)
            spikes = int(self.events[chosen].sum())
            out[name] = spikes / (neurons * self.count) if neurons else None
        return out

    def timesteps(self) -> dict[str, Any]:
        """mean_timesteps and timesteps_histogram {"1": ..., "T": ...}."""
        every = np.arange(self._timesteps + 1)
        return {
            "mean_timesteps": float((every * self.steps).sum() / self.count),
            "timesteps_histogram": {str(t): int(self.steps[t]) for t in every[1:]},
        }


def run(
    boards: Session | Pool,
    x: np.ndarray,
    y: np.ndarray,
    advance: Advance = lambda items: items,
) -> dict[str, Any]:
    """Classify every sample and compare with its label.

    `advance` wraps the iteration (a progress bar). accuracy: 0...1; of events a sample without an exit has no
    answer and is wrong. sops_mean: synaptic operations
    per inference, one weight added to one membrane inside the map; encoder_macs:
    multiply-accumulates of the encoder per inference. boards: what each did (`Share`).
    """
    pool = as_pool(boards)
    tally, right, strict = Tally(pool), 0, must_exit(pool.bundle)
    decisions = pool.map(Session.classify, x)
    for label, decision in zip(advance(list(y)), decisions, strict=True):
        tally.add(decision)
        right += decision.label == int(label) and (decision.exited or not strict)
    return {
        "samples": tally.count,
        "accuracy": right / tally.count,
        **tally.timesteps(),
        "no_output_spike": tally.no_output_spike,
        "spikes_per_neuron": tally.spikes_per_neuron(),
        "sops_mean": float(tally.sops.sum() / tally.count),
        "encoder_macs": pool.bundle.encoder_macs,
        "boards": shares(pool),
    }


def verify(
    boards: Session | Pool,
    x: np.ndarray,
    trace: bool = False,
    advance: Advance = lambda items: items,
) -> dict[str, Any]:
    """Compare the engine with the reference interpreter on every sample, bit for bit.

    With `trace` also every event of every node and step. "first_mismatch" describes the first
    difference, boards what each did (`Share`).
    """
    pool = as_pool(boards)
    reference = Interpreter(load_bundle_program(pool.bundle))
    names = [node.name for node in pool.bundle.nodes]
    compared = ["class", "step", "exited", "membranes", "events", "sops"]
    mismatches, first, count = 0, None, 0
    frames = [pool.bundle.check_sample(sample) for sample in x]
    # Boards go on while the interpreter, in this thread, is at the sample before.
    found: Iterator[Decision | Trace] = pool.map(
        Session.trace if trace else Session.classify, frames
    )
    for i, (frame, answer) in enumerate(zip(advance(frames), found, strict=True)):
        if isinstance(answer, Trace):
            problem = trace_difference(reference.trace(frame), answer, names)
        else:
            problem = decision_difference(reference.infer(frame), answer)
        count += 1
        if problem is not None:
            mismatches += 1
            first = first or f"sample {i}: {problem}"
    return {
        "engine": pool.engine_name,
        "samples": count,
        "mismatches": mismatches,
        "compared": [*compared, "spikes"] if trace else compared,
        "first_mismatch": first,
        "boards": shares(pool),
    }


def shares(pool: Pool) -> list[dict[str, Any]]:
    """What each board did, as plain values."""
    return [asdict(share) for share in pool.shares()]


def counted(items: Iterable[Any], every: float = 10.0) -> Iterator[Any]:
    """Pass items on and say on standard error how far it is: a bar on a terminal, else lines."""
    import sys
    import time

    total = len(items) if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, "", total, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for i, item in enumerate(items):
        now = time.monotonic()
        if now - last >= every:
            print(f"{i} of {total}" if total else f"{i}", file=sys.stderr, flush=True)
            last = now
        yield item
