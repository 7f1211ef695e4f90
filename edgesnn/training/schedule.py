"""What changes along a run: the learning rate, and the number of time steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgesnn.targets.errors import UsageError

SCHEDULES = ("one-cycle", "cosine")


def learning_rate(
    optimizer: torch.optim.Optimizer, kind: str, peak: float, steps: int, warm_up: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of the learning rate over `steps` optimiser steps.

    one-cycle: half a cosine from peak/25 up to peak in the first `warm_up` of the steps, then one down to
    peak/250000 (Smith and Topin 2018). cosine: a straight line up to peak, then half a cosine down to 0.
    """
    if kind == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=peak, total_steps=steps + 1, pct_start=warm_up
        )
    rising = round(warm_up * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class Stages:
    """Incremental training (AMOS paper, "Temporal Selector Decoder"): fewer time steps first.

    steps: those of each stage, the last all T. The epochs are split evenly, in this order.
    """

    steps: tuple[int, ...]
    epochs: int

    @classmethod
    def of(cls, text: str, timesteps: int, epochs: int) -> Stages:
        """Stages from "1,2,4"; from "" one stage of all steps."""
        return cls(_parsed(text) or (timesteps,), epochs)

    @staticmethod
    def doubling(timesteps: object) -> str:
        """ "1,2,4" for 4: powers of two below T, then T."""
        if not isinstance(timesteps, int) or timesteps < 1:
            return ""
        powers = [2**i for i in range(timesteps.bit_length()) if 2**i < timesteps]
        return ",".join(map(str, [*powers, timesteps]))

    def at(self, epoch: int) -> int:
        """Time steps in that epoch; 0 is the first."""
        return self.steps[min(epoch * len(self.steps) // self.epochs, len(self.steps) - 1)]

    def last(self, epoch: int) -> bool:
        """Whether the epoch runs all steps, so that its net may be kept."""
        return self.at(epoch) == self.steps[-1]


def check_stages(text: str, timesteps: int, epochs: int) -> None:
    """UsageError unless `text` is rising numbers of steps that end at T, at most one an epoch."""
    try:
        steps = _parsed(text)
    except (ValueError, AttributeError):
        raise UsageError(f"stages {text!r} are not numbers of time steps such as 1,2,4") from None
    if not steps:
        return
    if sorted(set(steps)) != list(steps) or steps[0] < 1 or steps[-1] != timesteps:
        raise UsageError(f"stages {text} do not rise from at least 1 to the {timesteps} timesteps")
    if len(steps) > epochs:
        raise UsageError(f"stages {text} need at least {len(steps)} epochs, not {epochs}")


def _parsed(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",")) if text else ()
