"""Train a latency-coded network: LE encoder, LIF layers, TAD loss, exit chosen on validation."""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgesnn.checkpoint import (
    Checkpoint,
    load_checkpoint,
    read_archive,
    save_checkpoint,
    write_archive,
)
from edgesnn.coding.latency import GRADIENTS
from edgesnn.coding.readout import EXITS
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data import Dataset, load
from edgesnn.data.augment import AUGMENTATIONS, augmented, check_augmentation, shift_reach
from edgesnn.data.dataset import stratified_split
from edgesnn.data.folders import check_writable
from edgesnn.losses import early_penalty, rate_penalty, tad_loss
from edgesnn.networks.spec import NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_kind, network_spec
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.evaluate_float import evaluate, output_membranes
from edgesnn.training.progress import Progress
from edgesnn.training.select import Chosen, select_exit

# The neurons of the hidden layers: LIF may spike in every step, AMOS at most once.
CODINGS = {"latency": "lif", "amos": "amos"}
STATE_FORMAT = "edgesnn-training"
STATE_VERSION = 1
WEIGHT_DECAY = 1e-2
WARM_UP = 0.15
CLIP = 5.0
SMALL_SET = 5000  # below: a larger share is held out, and the epochs grow to MIN_STEPS
MIN_STEPS = 900
SMALL_VAL_FRACTION = 0.15
VAL_FRACTION = 1.0 / 12.0
MAX_LR = 10.0  # AdamW moves every weight by about lr a step
MAX_PENALTY = 1e6
MAX_BIAS = 100.0  # the encoder's sigmoid is 0 or 1 in float32 long before
THREADS_PER_CPU = 4


@dataclass(frozen=True)
class Options:
    """What decides the outcome of a run; a resumed run must repeat it."""

    net: str
    data: str
    coding: str
    epochs: int
    seed: int
    timesteps: int
    batch: int
    lr: float
    exit: str
    rate_penalty: float
    early_penalty: float
    encoder_bias: float
    encoder_grad: str
    val_fraction: float
    augment: str

    def check(self) -> None:
        """UsageError with the first option that makes no sense."""
        for name, value, choices in (
            ("coding", self.coding, tuple(CODINGS)),
            ("exit", self.exit, EXITS),
            ("encoder-grad", self.encoder_grad, GRADIENTS),
            ("augment", self.augment, AUGMENTATIONS),
        ):
            if value not in choices:
                raise UsageError(f"unknown {name} {value!r}: one of {', '.join(choices)}")
        for name, number, low, high in (
            ("epochs", self.epochs, 1, 100_000),
            ("seed", self.seed, 0, 2**31 - 1),
            ("timesteps", self.timesteps, 2, 64),
            ("batch", self.batch, 2, 1_000_000),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
                raise UsageError(f"{name} {number!r} is not a whole number from {low} to {high}")
        for name, weight, least, most in (
            ("rate-penalty", self.rate_penalty, 0.0, MAX_PENALTY),
            ("early-penalty", self.early_penalty, 0.0, MAX_PENALTY),
            ("encoder-bias", self.encoder_bias, -MAX_BIAS, MAX_BIAS),
        ):
            if not least <= weight <= most:
                raise UsageError(f"{name} {weight!r} is not a number from {least:g} to {most:g}")
        if not 0.0 < self.lr <= MAX_LR:
            raise UsageError(f"lr {self.lr!r} is not a number above 0, up to {MAX_LR:g}")
        if not 0.0 < self.val_fraction <= 0.5:
            raise UsageError(f"val-fraction {self.val_fraction!r} is not in (0, 0.5]")


def train(
    net: str,
    data: str,
    out: Path,
    coding: str = "latency",
    epochs: int | None = None,
    seed: int = 0,
    timesteps: int = 4,
    batch: int = 100,
    lr: float = 3e-3,
    exit: str = "first-spike",
    rate_penalty: float | None = None,
    early_penalty: float | None = None,
    encoder_bias: float | None = None,
    encoder_grad: str = "edge",
    val_fraction: float | None = None,
    augment: str = "shift",
    data_dir: Path | None = None,
    download: bool = False,
    resume: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train `net` on the train split of `data`, write the best checkpoint to `out`; a report.

    Part of train is held out for validation: its accuracy picks the best epoch and the exit's
    value. The test split is looked at once, at the end. None means the net's own default.
    After every epoch `<out>.resume` is rewritten, so that `resume=True` goes on after an
    interruption and ends with the same weights; it is removed when the run is complete. `out`
    itself is written at the end, or on Ctrl-C with the best net so far. The same options, threads
    and machine give the same weights.

    Raises UsageError for options that make no sense and for an interrupted run that would be lost,
    EdgesnnError for data or files that cannot be used, and after Ctrl-C (its message says what was
    kept). All of that which does not depend on the data is found before it is loaded.
    """
    out = Path(out)
    recipe = network_kind(net).recipe
    # None becomes the default here, or once the size of the data set is known.
    options = Options(
        net=net,
        data=data,
        coding=coding,
        epochs=recipe.epochs if epochs is None else epochs,
        seed=seed,
        timesteps=timesteps,
        batch=batch,
        lr=_number("lr", lr),
        exit=exit,
        rate_penalty=_number("rate-penalty", rate_penalty, recipe.rate_penalty),
        early_penalty=_number("early-penalty", early_penalty, recipe.early_penalty),
        encoder_bias=_number("encoder-bias", encoder_bias, recipe.encoder_bias),
        encoder_grad=encoder_grad,
        val_fraction=_number("val-fraction", val_fraction, VAL_FRACTION),
        augment=augment,
    )
    options.check()
    _check_threads(threads)
    check_replaceable(out)
    state_path = out.with_name(out.name + ".resume")
    check_state(state_path, resume)
    check_writable(state_path)
    before = torch.get_num_threads()
    run: _Run | None = None
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        train_set = load(data, "train", data_dir, download)
        test_set = load(data, "test", data_dir, download)
        if test_set.shape != train_set.shape:
            raise EdgesnnError(
                f"{data}: train samples are {train_set.shape}, test samples {test_set.shape}"
            )
        if val_fraction is None and len(train_set) < SMALL_SET:
            options = replace(options, val_fraction=SMALL_VAL_FRACTION)
        if epochs is None:
            steps = max(1, round(len(train_set) * (1.0 - options.val_fraction)) // batch)
            options = replace(options, epochs=max(recipe.epochs, math.ceil(MIN_STEPS / steps)))
        neuron = CODINGS[coding]
        spec = network_spec(net, train_set.shape, train_set.classes, timesteps, neuron)
        run = _Run(options, spec, train_set, out, state_path)
        if resume:
            run.resume()
        run.fit(progress)
        report = _report(run, test_set)
        save_checkpoint(run.checkpoint(report), out)
    except KeyboardInterrupt:
        raise EdgesnnError(NOTHING_KEPT if run is None else run.interrupted()) from None
    finally:
        torch.set_num_threads(before)
    state_path.unlink(missing_ok=True)
    return {**report, "out": str(out)}


def _number(name: str, value: float | None, default: float = math.nan) -> float:
    """`value` (None: `default`) as a float; UsageError if it is no number."""
    if value is None:
        return float(default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} {value!r} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise UsageError(f"{name} is too large") from None


def _check_threads(threads: int | None) -> None:
    """UsageError for a number of threads that this machine cannot sensibly run."""
    most = THREADS_PER_CPU * (os.cpu_count() or 1)
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= most:
        raise UsageError(f"threads {threads!r} is not a whole number from 1 to {most}")


def check_replaceable(path: Path) -> None:
    """EdgesnnError if `path` exists and is not a checkpoint of ours."""
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; choose a file name for --out")
        if not path.exists():
            return
    except OSError as error:
        raise EdgesnnError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        load_checkpoint(path)
    except EdgesnnError:
        raise EdgesnnError(
            f"{path} exists and is not an edgesnn checkpoint; move it away or choose another --out"
        ) from None


def check_state(path: Path, resume: bool) -> None:
    """EdgesnnError if there is no state to resume, or one that a new run would overwrite."""
    if not path.exists():
        if resume:
            raise EdgesnnError(f"nothing to resume: {path} is not there; leave --resume out")
        return
    try:
        read_archive(path, STATE_FORMAT, STATE_VERSION, "training state")
    except EdgesnnError:
        raise EdgesnnError(
            f"{path} exists and is not a readable edgesnn training state; "
            "move it away or choose another --out"
        ) from None
    if not resume:
        raise UsageError(
            f"{path} is the state of an interrupted run: --resume goes on; delete it to start again"
        )


NOTHING_KEPT = "interrupted before an epoch was complete; nothing was changed"


class _Run:
    """One training run: everything that changes from epoch to epoch, and the loop over epochs."""

    def __init__(
        self, options: Options, spec: NetworkSpec, data: Dataset, out: Path, state_path: Path
    ) -> None:
        self.options = options
        self.data = data
        self.sha256 = _fingerprint(data)
        self.out = out
        self.state_path = state_path
        kept, held = stratified_split(data.y, options.val_fraction, options.seed)
        if len(held) < 1 or len(kept) < 2:
            raise UsageError(
                f"{data.name}: {len(data)} samples are too few to hold some out for validation"
            )
        # Raw uint8[N, C, H, W]: a quarter of the memory of float32, converted batch by batch.
        self.x = torch.from_numpy(data.x[kept]).permute(0, 3, 1, 2).contiguous()
        self.y = torch.from_numpy(data.y[kept])
        self.val_x, self.val_y = data.x[held], data.y[held]
        self.batch = min(options.batch, len(kept))
        self.steps_per_epoch = len(kept) // self.batch
        self.shift = shift_reach(data.shape)
        check_augmentation(options.augment, data.dtype, data.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.net = SpikingNetwork(
                spec, gradient=options.encoder_grad, encoder_bias=options.encoder_bias
            )
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=options.lr, weight_decay=WEIGHT_DECAY
        )
        total = options.epochs * self.steps_per_epoch
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=options.lr, total_steps=total + 1, pct_start=WARM_UP
        )
        self.epoch = 0
        self.saved_epoch = 0
        self.seconds = 0.0
        self.best: Chosen | None = None
        self.best_epoch = 0
        self.best_loss = math.inf
        self.best_state: dict[str, Tensor] = {}

    def fit(self, show: bool) -> None:
        """Run the remaining epochs; afterwards the net has the best epoch's weights."""
        total = self.options.epochs * self.steps_per_epoch
        with Progress(total, self.epoch * self.steps_per_epoch, show) as bar:
            while self.epoch < self.options.epochs:
                started = time.monotonic()
                loss = self._epoch(bar)
                self.epoch += 1
                chosen = self._validate()
                self.seconds += time.monotonic() - started
                self._save()
                bar.say(
                    f"epoch {self.epoch}/{self.options.epochs}  loss {loss:.4f}  validation "
                    f"{100 * chosen.accuracy:.2f} % at {chosen.mean_steps:.3f} steps  "
                    f"({self.options.exit} {chosen.value:g}, {self.seconds:.0f} s)"
                )
        self.net.load_state_dict(self.best_state)

    def _epoch(self, bar: Progress) -> float:
        options = self.options
        # A generator of its own for every epoch: a resumed run needs no stored random state.
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + self.epoch + 1)
        order = torch.randperm(len(self.x), generator=random)
        self.net.train()
        total = 0.0
        for i in range(self.steps_per_epoch):
            chosen = order[i * self.batch : (i + 1) * self.batch]
            raw = augmented(self.x[chosen], options.augment, self.shift, random)
            samples = raw.to(torch.float32).mul_(self.data.scale)
            activity = self.net(samples)
            loss = tad_loss(activity.membranes, self.y[chosen])
            if options.rate_penalty > 0.0 and activity.hidden:
                loss = loss + options.rate_penalty * rate_penalty(list(activity.hidden.values()))
            if options.early_penalty > 0.0:
                loss = loss + options.early_penalty * early_penalty(activity.encoder)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
            self.optimizer.step()
            self.scheduler.step()
            total += float(loss.detach())
            bar.advance()
        mean = total / self.steps_per_epoch
        # The last step's weights have made no loss yet, and a NaN that never spikes makes none.
        if not math.isfinite(mean) or not _finite(self.net.state_dict()):
            raise EdgesnnError(
                f"training diverged in epoch {self.epoch + 1}: lower --lr ({options.lr:g})"
            )
        return mean

    def _validate(self) -> Chosen:
        membranes = output_membranes(self.net, self.val_x, self.data.scale)
        chosen = select_exit(membranes, self.val_y, self.options.exit)
        loss = float(tad_loss(torch.from_numpy(membranes), torch.from_numpy(self.val_y)))
        # What ships is the accuracy with the exit; equal ones (small sets) are told apart by loss.
        rank = (chosen.accuracy, -loss)
        if self.best is None or rank >= (self.best.accuracy, -self.best_loss):
            state = _copied(self.net)
            # Nothing is called in between: Ctrl-C cannot come before all of it is taken over.
            self.best, self.best_state = chosen, state
            self.best_epoch, self.best_loss = self.epoch, loss
        return chosen

    def checkpoint(self, report: dict[str, Any]) -> Checkpoint:
        """The best epoch so far, with its exit."""
        assert self.best is not None
        readout = ReadoutSpec(self.options.exit, self.best.value)
        data = self.data
        return Checkpoint(
            self.net.spec,
            self.best_state,
            data.scale,
            readout,
            data.class_names,
            self.options.data,
            report,
        )

    def _save(self) -> None:
        assert self.best is not None
        write_archive(
            self.state_path,
            {
                "format": STATE_FORMAT,
                "version": STATE_VERSION,
                "options": vars(self.options),
                "data_sha256": self.sha256,
                "epoch": self.epoch,
                "seconds": self.seconds,
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "best": vars(self.best),
                "best_epoch": self.best_epoch,
                "best_loss": self.best_loss,
                "best_state": self.best_state,
            },
        )
        self.saved_epoch = self.epoch

    def resume(self) -> None:
        """Take up the state of an interrupted run of the same options and data."""
        table = read_archive(self.state_path, STATE_FORMAT, STATE_VERSION, "training state")
        try:
            stored = Options(**table["options"])
            for name, value in vars(self.options).items():
                was = vars(stored)[name]
                if was != value:
                    raise UsageError(
                        f"the interrupted run had {name.replace('_', '-')} {was}, not {value}: "
                        f"repeat its options, or delete {self.state_path} to start again"
                    )
            if table["data_sha256"] != self.sha256:
                raise UsageError(
                    f"{self.data.name} has other samples than the interrupted run had; "
                    f"delete {self.state_path} to start again"
                )
            self.net.load_state_dict(table["best_state"])
            self.best_state = _copied(self.net)
            self.net.load_state_dict(table["net"])
            if not _finite(self.best_state) or not _finite(self.net.state_dict()):
                raise ValueError("weights that are not finite")
            self.optimizer.load_state_dict(table["optimizer"])
            self.scheduler.load_state_dict(table["scheduler"])
            self.seconds = float(table["seconds"])
            self.best = Chosen(**table["best"])
            self.best_epoch = int(table["best_epoch"])
            self.best_loss = float(table["best_loss"])
            self.epoch = int(table["epoch"])
            if not 1 <= self.best_epoch <= self.epoch <= self.options.epochs:
                raise ValueError(f"epoch {self.epoch}")
            self.saved_epoch = self.epoch
        except UsageError:
            raise
        except Exception as error:  # torch raises many kinds for tensors that do not fit
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EdgesnnError(
                f"{self.state_path} is damaged ({reason}); delete it to start again"
            ) from None

    def interrupted(self) -> str:
        """After Ctrl-C: write the best net so far; what to tell about it and how to go on."""
        if not self.saved_epoch:
            return NOTHING_KEPT
        assert self.best is not None
        so_far = {"val_accuracy": self.best.accuracy, "epochs": self.saved_epoch}
        try:
            save_checkpoint(self.checkpoint(so_far), self.out)
        except KeyboardInterrupt:
            return f"interrupted; {self.out} was not written, --resume goes on"
        return (
            f"interrupted after epoch {self.saved_epoch} of {self.options.epochs}; {self.out} "
            "holds the best net so far; --resume goes on"
        )


def _fingerprint(data: Dataset) -> str:
    """SHA-256 over the shape, samples and labels of a data set."""
    digest = hashlib.sha256(repr((data.x.shape, data.classes)).encode())
    digest.update(np.ascontiguousarray(data.x).data)
    digest.update(np.ascontiguousarray(data.y).data)
    return digest.hexdigest()


def _copied(net: SpikingNetwork) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in net.state_dict().items()}


def _finite(state: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def _report(run: _Run, test_set: Dataset) -> dict[str, Any]:
    assert run.best is not None
    options = run.options
    tested = evaluate(run.net, test_set, ReadoutSpec(options.exit, run.best.value))
    return {
        **vars(options),
        **tested,
        "val_accuracy": run.best.accuracy,
        "val_samples": int(np.size(run.val_y)),
        "train_samples": len(run.x),
        "threshold": run.best.value,
        "best_epoch": run.best_epoch,
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "seconds": round(run.seconds, 1),
    }
