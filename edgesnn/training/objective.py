"""The scalar that training minimises, as the options put it together."""

from __future__ import annotations

from torch import Tensor

from edgesnn.losses import (
    early_penalty,
    mean_loss,
    rate_penalty,
    selector_loss,
    step_loss,
    tad_loss,
)
from edgesnn.networks.spiking import Activity
from edgesnn.training.options import Options


def decision_loss(
    options: Options, membranes: Tensor, currents: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """The loss on the output's signal over time, both float[T, N, classes]; targets int64[N]."""
    signal = membranes if options.loss_on == "membrane" else currents
    if options.loss == "tad":
        return tad_loss(
            signal,
            targets,
            temperature=options.temperature,
            detach=not options.attach,
            label_smoothing=smoothing,
        )
    if options.loss == "tet":
        return step_loss(signal, targets, label_smoothing=smoothing)
    if options.loss == "mean-ce":
        return mean_loss(signal, targets, label_smoothing=smoothing)
    value = options.v_threshold if options.paper_literal else options.confidence
    return selector_loss(membranes, targets, value, label_smoothing=smoothing)


def objective(options: Options, activity: Activity, targets: Tensor) -> Tensor:
    """The loss and the two penalties on spikes; every term is a mean over the samples."""
    loss = decision_loss(
        options,
        activity.membranes.float(),
        activity.currents.float(),
        targets,
        options.label_smoothing,
    )
    weights = options.rate_penalty
    if activity.hidden and (isinstance(weights, dict) or weights > 0.0):
        hidden = {name: spikes.float() for name, spikes in activity.hidden.items()}
        loss = loss + rate_penalty(hidden, weights)
    if options.early_penalty > 0.0:
        loss = loss + options.early_penalty * early_penalty(activity.encoder.float())
    return loss
