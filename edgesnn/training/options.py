"""What decides the outcome of a training run: presets, the net's recipe, and the options given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgesnn.checkpoint import WEIGHTS
from edgesnn.coding.latency import GRADIENTS
from edgesnn.coding.readout import EXITS
from edgesnn.compiler.check import MAX_TIMESTEPS
from edgesnn.data.augment import AUGMENTATIONS
from edgesnn.networks.kind import Recipe
from edgesnn.networks.spec import NEURONS, RESETS, NeuronSpec
from edgesnn.networks.zoo import ENCODER_FORMS
from edgesnn.neurons.surrogate import SURROGATES
from edgesnn.targets.errors import UsageError
from edgesnn.training.schedule import SCHEDULES, Stages, check_stages

CODINGS: dict[str, dict[str, Any]] = {
    "latency": {},
    "amos": {"neuron": "amos"},
    "rate": {"encoder": "direct", "exit": "rate"},
    "direct": {"encoder": "direct"},
}
LOSSES = ("tad", "tet", "mean-ce", "selector")
SIGNALS = ("membrane", "current")
MODES = ("auto", "loop", "parallel")
QUANTISE_AWARE = ("auto", "always", "never")
WEIGHT_DECAY = 1e-2
CLIP = 5.0
MAX_LR = 10.0  # AdamW moves every weight by about lr a step
MAX_PENALTY = 1e6
MAX_BIAS = 100.0  # the encoder's sigmoid is 0 or 1 in float32 long before
MAX_WARM_UP = 0.9

Penalty = float | dict[str, float]


@dataclass(frozen=True)
class Options:
    """Every option with its value; a resumed run must repeat them (docs/TRAINING.md explains each).

    stages: numbers of time steps, () for none; target_accuracy, target_steps: 0 for none.
    """

    net: str
    data: str
    coding: str = "latency"
    encoder: str = "latency"
    neuron: str = "lif"
    reset: str = "soft"
    leak: float = 0.5
    v_threshold: float = 1.0
    learn_leak: bool = False
    forced: bool = False
    surrogate: str = "triangle"
    surrogate_width: float = 1.0
    neuron_mode: str = "auto"
    output_leak: float = 0.5
    exit: str = "first-spike"
    loss: str = "tad"
    loss_on: str = "membrane"
    temperature: float = 2.0
    attach: bool = False
    confidence: float = 4.0
    label_smoothing: float = 0.0
    rate_penalty: Penalty = 0.0
    early_penalty: float = 0.0
    encoder_bias: float = 0.0
    encoder_grad: str = "edge"
    paper_literal: bool = False
    timesteps: int = 4
    stages: str = ""
    epochs: int = 1
    batch: int = 100
    lr: float = 3e-3
    schedule: str = "one-cycle"
    warm_up: float = 0.15
    augment: str = "shift"
    seed: int = 0
    val_fraction: float = 1.0 / 12.0
    target_accuracy: float = 0.0
    target_steps: float = 0.0
    weights: str = "int8"
    quantise_aware: str = "auto"
    qat_epochs: int = 5
    device: str = "cpu"
    amp: bool = False
    compile: bool = False

    def check(self) -> None:
        """UsageError with the first option that makes no sense."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(f"unknown {_dashes(name)} {value!r}: one of {', '.join(choices)}")
        for name, (least, most) in WHOLE.items():
            number = getattr(self, name)
            if (
                not isinstance(number, int)
                or isinstance(number, bool)
                or not least <= number <= most
            ):
                raise UsageError(
                    f"{_dashes(name)} {number!r} is not a whole number from {least} to {most}"
                )
        for name, (low, high) in NUMBERS.items():
            weight = getattr(self, name)
            if not low <= weight <= high:
                raise UsageError(
                    f"{_dashes(name)} {weight!r} is not a number from {low:g} to {high:g}"
                )
        for name in ("attach", "forced", "learn_leak", "paper_literal", "amp", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{_dashes(name)} is True or False, not {getattr(self, name)!r}")
        penalties = self.rate_penalty
        for penalty in penalties.values() if isinstance(penalties, dict) else (penalties,):
            if not 0.0 <= penalty <= MAX_PENALTY:
                raise UsageError(
                    f"rate-penalty {penalty!r} is not a number from 0 to {MAX_PENALTY:g}"
                )
        for name, limit in POSITIVE.items():
            value = getattr(self, name)
            if not 0.0 < value <= limit:
                raise UsageError(
                    f"{_dashes(name)} {value!r} is not a number above 0, up to {limit:g}"
                )
        if not 0.0 < self.val_fraction <= 0.5:
            raise UsageError(f"val-fraction {self.val_fraction!r} is not in (0, 0.5]")
        self._check_together()

    def _check_together(self) -> None:
        """UsageError for options that make no sense together."""
        try:
            self.rule().check()
        except ValueError as error:
            raise UsageError(str(error)) from None
        check_stages(self.stages, self.timesteps, self.epochs)
        if self.exit == "rate" and self.output_leak != 1.0:
            raise UsageError("a rate exit sums currents: output-leak is 1, or leave it out")
        if self.loss == "selector" and self.exit != "selector":
            raise UsageError("the selector loss is for --exit selector")
        if self.loss == "selector" and self.loss_on != "membrane":
            raise UsageError("the selector loss looks at the membrane")
        if self.early_penalty > 0.0 and self.encoder == "raw":
            raise UsageError("early-penalty: the spikes of raw samples cannot be trained away")
        if self.target_accuracy > 0.0 and self.target_steps > 0.0:
            raise UsageError("name a target-accuracy or target-steps, not both")
        if 0.0 < self.target_steps < 1.0:
            raise UsageError("target-steps: a mean number of steps is at least 1")
        if (self.target_accuracy or self.target_steps) and self.exit == "rate":
            raise UsageError("a rate exit takes all steps: there is no operating point to choose")
        if self.paper_literal and (self.target_accuracy or self.target_steps):
            raise UsageError("paper-literal exits at the threshold: leave the target out")
        if self.paper_literal and self.exit not in ("first-spike", "selector"):
            raise UsageError("paper-literal exits at the first spike: leave --exit out")

    def rule(self) -> NeuronSpec:
        """The hidden neurons."""
        return NeuronSpec(
            self.neuron,
            self.leak,
            self.v_threshold,
            self.reset,
            self.forced,
            self.learn_leak,
            self.surrogate,
            self.surrogate_width,
        )

    def staged(self) -> Stages:
        """What `stages` means for this run."""
        return Stages.of(self.stages, self.timesteps, self.epochs)


CHOICES: dict[str, tuple[str, ...]] = {
    "coding": tuple(CODINGS),
    "encoder": ENCODER_FORMS,
    "neuron": NEURONS,
    "reset": RESETS,
    "surrogate": tuple(SURROGATES),
    "neuron_mode": MODES,
    "exit": EXITS,
    "loss": LOSSES,
    "loss_on": SIGNALS,
    "encoder_grad": GRADIENTS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "weights": WEIGHTS,
    "quantise_aware": QUANTISE_AWARE,
    "device": ("cpu", "cuda"),
}
WHOLE: dict[str, tuple[int, int]] = {
    "epochs": (1, 100_000),
    "seed": (0, 2**31 - 1),
    "timesteps": (1, MAX_TIMESTEPS),
    "batch": (2, 1_000_000),
    "qat_epochs": (1, 100_000),
}
NUMBERS: dict[str, tuple[float, float]] = {
    "early_penalty": (0.0, MAX_PENALTY),
    "encoder_bias": (-MAX_BIAS, MAX_BIAS),
    "leak": (0.0, 1.0),
    "output_leak": (0.0, 1.0),
    "label_smoothing": (0.0, 0.9),
    "warm_up": (0.0, MAX_WARM_UP),
    "confidence": (0.0, 1e6),
    "target_accuracy": (0.0, 1.0),
    "target_steps": (0.0, float(MAX_TIMESTEPS)),
}
POSITIVE: dict[str, float] = {
    "lr": MAX_LR,
    "v_threshold": 1e6,
    "surrogate_width": 1e6,
    "temperature": 1e6,
}


def choose(net: str, data: str, recipe: Recipe, given: Mapping[str, Any]) -> Options:
    """The options of a run: those `given` (None is not given), else the coding's, else the net's, else ours.

    Raises UsageError for an unknown name or a value that makes no sense.
    """
    known = {f.name: f.type for f in fields(Options)}
    explicit = {name: value for name, value in given.items() if value is not None}
    for name in explicit:
        if name not in known or name in ("net", "data"):
            raise UsageError(f"train has no option {name!r}")
    coding = explicit.get("coding", "latency")
    if coding not in CODINGS:
        raise UsageError(f"unknown coding {coding!r}: one of {', '.join(CODINGS)}")
    values = {**vars(recipe), **CODINGS[coding], **explicit}
    for name, value in _consequences(values).items():
        values[name] = explicit.get(name, value)
    for name, value in values.items():
        if name == "rate_penalty":
            values[name] = _penalty(value)
        elif known[name] == "float":
            values[name] = number(_dashes(name), value)
    options = Options(net, data, **values)
    options.check()
    return options


def _consequences(values: dict[str, Any]) -> dict[str, Any]:
    """What some choices imply for options that are not given."""
    out: dict[str, Any] = {}
    if values.get("neuron") == "if":
        out["leak"] = 1.0
    if values.get("encoder", "latency") != "latency":
        out["early_penalty"] = 0.0  # there is no spike time to learn
    if values.get("schedule") == "cosine":
        out["warm_up"] = 0.05
    if values.get("exit") == "rate":
        out |= {"output_leak": 1.0, "loss": "mean-ce", "loss_on": "current"}
    if values.get("exit") == "selector":
        out["loss"] = "selector"
        if values.get("neuron") == "amos":
            out["stages"] = Stages.doubling(values.get("timesteps", 4))
    if values.get("paper_literal"):
        out |= {"encoder_grad": "straight-through", "rate_penalty": 0.0, "early_penalty": 0.0}
        out["encoder_bias"] = 0.0
        if values.get("exit", "first-spike") == "first-spike":
            out["loss_on"] = "current"
        if values.get("neuron") == "amos":
            out["forced"] = True
    return out


def number(name: str, value: object) -> float:
    """`value` as a float; UsageError if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} {value!r} is not a number")
    try:
        out = float(value)
    except OverflowError:
        raise UsageError(f"{name} is too large") from None
    if math.isnan(out):
        raise UsageError(f"{name} {value!r} is not a number")
    return out


def _penalty(value: object) -> Penalty:
    """One weight, or one for each named layer: a mapping, or "conv=0.1,dense=0.02"."""
    if isinstance(value, Mapping):
        return {str(name): number(f"rate-penalty {name}", w) for name, w in value.items()}
    if not isinstance(value, str):
        return number("rate-penalty", value)
    try:
        if "=" not in value:
            return number("rate-penalty", float(value))
        pairs = [part.split("=") for part in value.split(",")]
        return {name.strip(): number("rate-penalty", float(w)) for name, w in pairs}
    except ValueError:
        raise UsageError(
            f"rate-penalty {value!r} is neither a number nor weights by layer, conv=0.1,dense=0.02"
        ) from None


def _dashes(name: str) -> str:
    return name.replace("_", "-")
