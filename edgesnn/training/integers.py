"""After training: what the net does in integers, and fine-tuning with them where they lose accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgesnn.checkpoint import Checkpoint, to_graph
from edgesnn.compiler import ir
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data.events import PHASES
from edgesnn.quantisation.aware import fine_tune
from edgesnn.quantisation.fold import tuned_checkpoint
from edgesnn.quantisation.network import IntegerNetwork, integer_network
from edgesnn.training.objective import decision_loss
from edgesnn.training.options import Options
from edgesnn.training.select import select_exit

TOLERANCE = 0.002  # accuracy lost to integers that is not worth fine-tuning
NOISE = 3  # nor are so many samples of a small validation split
Split = tuple[np.ndarray, np.ndarray]  # raw samples [N, H, W, C], labels int64[N]


@dataclass(frozen=True)
class Lowered:
    """A checkpoint and its integer form; what that does on validation. tuned: fine-tuned in integers."""

    checkpoint: Checkpoint
    network: IntegerNetwork
    accuracy: float
    tuned: bool = False


def lowered(checkpoint: Checkpoint, options: Options) -> IntegerNetwork | None:
    """The integer form; None for a net that has none (psn neurons)."""
    if any(checkpoint.network.neuron_of(x).kind == "psn" for x in checkpoint.network.layers):
        return None
    network = integer_network(to_graph(checkpoint), options.weights)
    network.surrogate, network.width = options.surrogate, options.surrogate_width
    return network


def accuracy_of(network: IntegerNetwork, data: Split) -> tuple[float, float]:
    """(accuracy, mean steps) of the integer program with its exit, on raw samples."""
    counts = network.evaluate_counts(data[0])
    answered = counts.exited | (not _must_exit(network))
    right = (counts.labels == data[1]) & answered
    return float(right.mean()), float(counts.steps.mean())


def _must_exit(network: IntegerNetwork) -> bool:
    """Whether a sample without an exit is wrong: of a stream of events it gets no answer."""
    return isinstance(network.graph.stream, ir.EventStream)


def with_integers(
    checkpoint: Checkpoint,
    options: Options,
    kept: Split,
    held: Split,
    float_accuracy: float,
    say: Callable[[str], None],
    device: torch.device,
) -> Lowered | None:
    """Lower a trained net, fine-tuned on `kept` first if `quantise_aware` says so.

    auto: if it loses more than 0.2 points (and three samples) of `float_accuracy` on validation (`held`); the
    fine-tuned net is then kept if it is better there. None for a net that has no integer form.
    """
    network = lowered(checkpoint, options)
    if network is None:
        return None
    network.to(device)
    accuracy, _ = accuracy_of(network, held)
    plain = Lowered(checkpoint, network, accuracy)
    lost = float_accuracy - accuracy
    if options.quantise_aware == "never":
        return plain
    if options.quantise_aware == "auto" and lost <= max(TOLERANCE, NOISE / len(held[1])) + 1e-9:
        return plain
    say(
        f"{options.weights} weights: {100 * accuracy:.2f} % on validation, "
        f"{100 * float_accuracy:.2f} % in floating point; fine-tuning {options.qat_epochs} epochs"
    )
    tuned = lowered(checkpoint, options)
    assert tuned is not None
    tuned.to(device)

    def loss(membranes: Tensor, targets: Tensor) -> Tensor:
        leak = tuned_leak(checkpoint, membranes)
        before = torch.cat([torch.zeros_like(membranes[:1]), membranes[:-1]])
        return decision_loss(
            options, membranes, membranes - leak * before, targets, options.label_smoothing
        )

    fine_tune(
        tuned,
        *kept,
        epochs=options.qat_epochs,
        lr=options.lr / 3.0,
        seed=options.seed,
        batch=min(options.batch, len(kept[1])),
        loss=loss,
        progress=lambda epoch, value: say(f"integers, epoch {epoch}  loss {value:.4f}"),
    )
    result = _read_again(tuned_checkpoint(checkpoint, tuned), tuned, options, held)
    if options.quantise_aware == "auto" and result.accuracy <= plain.accuracy:
        say(f"fine-tuning did not help ({100 * result.accuracy:.2f} %): the net stays as it was")
        return plain
    return result


def _read_again(
    checkpoint: Checkpoint, tuned: IntegerNetwork, options: Options, held: Split
) -> Lowered:
    """A fine-tuned net with its exit chosen anew on what its integers do on validation."""
    if options.exit != "rate" and not options.paper_literal:
        with torch.no_grad():
            scale = tuned(held[0][:1]).scale
        # In units of the float network, in which a checkpoint has its exit's value.
        chosen = select_exit(
            tuned.membranes(held[0]) * scale,
            held[1],
            options.exit,
            accuracy=options.target_accuracy or None,
            steps=options.target_steps or None,
            must_exit=_must_exit(tuned),
            copies=PHASES if _must_exit(tuned) else 1,
        )
        readout = ReadoutSpec(options.exit, chosen.value)
        checkpoint = replace(checkpoint, readout=readout)
        network = lowered(checkpoint, options)
        assert network is not None
        tuned = network.to(next(tuned.parameters()).device)
    return Lowered(checkpoint, tuned, accuracy_of(tuned, held)[0], tuned=True)


def tuned_leak(checkpoint: Checkpoint, like: Tensor) -> Tensor | float:
    """The output membranes' leak, one or one a class."""
    from edgesnn.neurons.leak import rounded_leak

    if not checkpoint.network.learn_output_leak:
        return checkpoint.network.output_leak
    leak: Tensor = rounded_leak(checkpoint.state["output_leak_logit"].detach().cpu())
    return leak.to(like)


def summary(low: Lowered, options: Options, test: Split) -> dict[str, Any]:
    """The report's `integer`: what the compiled program does, exactly."""
    accuracy, steps = accuracy_of(low.network, test)
    return {
        "weights": options.weights,
        "quantise_aware": low.tuned,
        "threshold": low.checkpoint.readout.value,
        "val_accuracy": low.accuracy,
        "accuracy": accuracy,
        "mean_timesteps": steps,
    }
