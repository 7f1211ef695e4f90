"""Train a latency-coded network: LE encoder, LIF layers, TAD loss, exit chosen on validation."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
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
from edgesnn.data.dataset import stratified_split
from edgesnn.losses import early_penalty, rate_penalty, tad_loss
from edgesnn.networks.latency import LatencyNetwork
from edgesnn.networks.spec import NetworkSpec
from edgesnn.networks.zoo import network_kind, network_spec
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.evaluate_float import evaluate, output_membranes
from edgesnn.training.progress import Progress
from edgesnn.training.select import Chosen, select_exit

CODINGS = ("latency",)
STATE_FORMAT = "edgesnn-training"
STATE_VERSION = 1
WEIGHT_DECAY = 1e-2
WARM_UP = 0.15
CLIP = 5.0
SHIFT_SHARE = 14  # samples move by up to 1/14 of their side: 2 pixels of 28, none of 8
SMALL_SET = 5000  # below: a larger share is held out, and the epochs grow to MIN_STEPS
MIN_STEPS = 900


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

    def check(self) -> None:
        """UsageError with the first option that makes no sense."""
        for name, value, choices in (
            ("coding", self.coding, CODINGS),
            ("exit", self.exit, EXITS),
            ("encoder-grad", self.encoder_grad, GRADIENTS),
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
        for name, weight in (
            ("rate-penalty", self.rate_penalty),
            ("early-penalty", self.early_penalty),
        ):
            if not 0.0 <= weight < math.inf:
                raise UsageError(f"{name} {weight!r} is not a number from 0 up")
        if not 0.0 < self.lr < math.inf:
            raise UsageError(f"lr {self.lr!r} is not a positive number")
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
    interruption and ends with the same weights; it is removed when the run is complete. The same
    options, threads and machine give the same weights.

    Raises UsageError for options that make no sense, EdgesnnError for data or files that cannot be
    used, and after Ctrl-C (its message says what was kept).
    """
    out = Path(out)
    recipe = network_kind(net).recipe
    train_set = load(data, "train", data_dir, download)
    test_set = load(data, "test", data_dir, download)
    if test_set.shape != train_set.shape:
        raise EdgesnnError(
            f"{data}: train samples are {train_set.shape}, test samples {test_set.shape}"
        )
    if val_fraction is None:
        val_fraction = 0.15 if len(train_set) < SMALL_SET else 1.0 / 12.0
    if epochs is None:
        steps = max(1, round(len(train_set) * (1.0 - val_fraction)) // max(batch, 1))
        epochs = max(recipe.epochs, math.ceil(MIN_STEPS / steps))
    options = Options(
        net=net,
        data=data,
        coding=coding,
        epochs=epochs,
        seed=seed,
        timesteps=timesteps,
        batch=batch,
        lr=float(lr),
        exit=exit,
        rate_penalty=float(recipe.rate_penalty if rate_penalty is None else rate_penalty),
        early_penalty=float(recipe.early_penalty if early_penalty is None else early_penalty),
        encoder_bias=float(recipe.encoder_bias if encoder_bias is None else encoder_bias),
        encoder_grad=encoder_grad,
        val_fraction=float(val_fraction),
    )
    options.check()
    spec = network_spec(net, train_set.shape, train_set.classes, timesteps)
    check_replaceable(out)
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads} is not at least 1")
    run = _Run(options, spec, train_set, out)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        if resume:
            run.resume()
        run.fit(progress)
        report = _report(run, test_set)
    except KeyboardInterrupt:
        raise EdgesnnError(run.interrupted()) from None
    finally:
        torch.set_num_threads(before)
    save_checkpoint(run.checkpoint(report), out)
    run.state_path.unlink(missing_ok=True)
    return {**report, "out": str(out)}


def check_replaceable(path: Path) -> None:
    """EdgesnnError if `path` exists and is not a checkpoint of ours."""
    if not path.exists():
        return
    try:
        load_checkpoint(path)
    except EdgesnnError:
        raise EdgesnnError(
            f"{path} exists and is not an edgesnn checkpoint; move it away or choose another --out"
        ) from None


class _Run:
    """One training run: everything that changes from epoch to epoch, and the loop over epochs."""

    def __init__(self, options: Options, spec: NetworkSpec, data: Dataset, out: Path) -> None:
        self.options = options
        self.data = data
        self.out = out
        self.state_path = out.with_name(out.name + ".resume")
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
        self.shift = min(data.shape[:2]) // SHIFT_SHARE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.net = LatencyNetwork(
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
            samples = (
                shifted(self.x[chosen], self.shift, random).to(torch.float32).mul_(self.data.scale)
            )
            activity = self.net(samples)
            loss = tad_loss(activity.membranes, self.y[chosen])
            if options.rate_penalty > 0.0 and activity.hidden:
                loss = loss + options.rate_penalty * rate_penalty(activity.hidden)
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
        if not math.isfinite(mean):
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
            self.best, self.best_epoch, self.best_loss = chosen, self.epoch, loss
            self.best_state = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
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
                "samples": len(self.data),
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
        if self.best_epoch == self.epoch:
            so_far = {"val_accuracy": self.best.accuracy, "epochs": self.epoch}
            save_checkpoint(self.checkpoint(so_far), self.out)
        self.saved_epoch = self.epoch

    def resume(self) -> None:
        """Take up the state of an interrupted run of the same options."""
        if not self.state_path.exists():
            raise EdgesnnError(
                f"nothing to resume: {self.state_path} is not there; leave --resume out"
            )
        table = read_archive(self.state_path, STATE_FORMAT, STATE_VERSION, "training state")
        try:
            stored = Options(**table["options"])
            for name, value in vars(self.options).items():
                was = vars(stored)[name]
                if was != value:
                    raise UsageError(
                        f"the interrupted run had {name.replace('_', '-')} {was}, not {value}: "
                        "repeat its options, or leave --resume out"
                    )
            if table["samples"] != len(self.data):
                raise UsageError(f"{self.data.name} has other samples than the interrupted run had")
            self.net.load_state_dict(table["net"])
            self.optimizer.load_state_dict(table["optimizer"])
            self.scheduler.load_state_dict(table["scheduler"])
            self.epoch = self.saved_epoch = int(table["epoch"])
            self.seconds = float(table["seconds"])
            self.best = Chosen(**table["best"])
            self.best_epoch = int(table["best_epoch"])
            self.best_loss = float(table["best_loss"])
            self.best_state = table["best_state"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EdgesnnError(
                f"{self.state_path} is damaged ({reason}); leave --resume out to start again"
            ) from None

    def interrupted(self) -> str:
        """What to tell a person who pressed Ctrl-C: what was kept, and how to go on."""
        if not self.saved_epoch:
            return "interrupted before the first epoch was complete; nothing was changed"
        return (
            f"interrupted after epoch {self.saved_epoch} of {self.options.epochs}; {self.out} "
            "holds the best net so far; --resume goes on"
        )


def shifted(x: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """Every sample of [N, C, H, W] moved by up to `reach` samples each way, zeros moving in."""
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (reach, reach, reach, reach))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2r+1, 2r+1, H, W], a view
    by = torch.randint(0, 2 * reach + 1, (2, n), generator=random)
    return windows[torch.arange(n), :, by[0], by[1]]


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
