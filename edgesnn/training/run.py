"""One training run: everything that changes from epoch to epoch, and the loop over epochs."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgesnn.checkpoint import Checkpoint, save_checkpoint
from edgesnn.coding.readout import decode
from edgesnn.compiler.graph import ReadoutSpec
from edgesnn.data import Dataset
from edgesnn.data.augment import augmented, check_augmentation, shift_reach
from edgesnn.data.dataset import stratified_split
from edgesnn.data.events import at_phases, is_events
from edgesnn.networks.resolve import Resolved
from edgesnn.networks.spec import SPIKING, NetworkSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.distributed import World, share_norms
from edgesnn.training.evaluate_float import BATCH, samples_tensor
from edgesnn.training.logs import Log, Row
from edgesnn.training.objective import decision_loss, objective
from edgesnn.training.options import CLIP, WEIGHT_DECAY, Options
from edgesnn.training.progress import Progress
from edgesnn.training.schedule import learning_rate
from edgesnn.training.select import Chosen, select_exit
from edgesnn.training.state import write_state

ALONE = World()
NOTHING_KEPT = "interrupted before an epoch was complete; nothing was changed"


@dataclass(frozen=True)
class Outputs:
    """What the net does on validation samples in inference mode: float32[T, N, classes] each.

    spikes_per_neuron: hidden spikes of a sample in all the steps, a mean over neurons and samples.
    """

    membranes: np.ndarray
    currents: np.ndarray
    spikes_per_neuron: float


class Run:
    """world: the processes that share it; `batch` is the batch of all of them together."""

    def __init__(
        self,
        options: Options,
        net: Resolved,
        data: Dataset,
        out: Path,
        state_path: Path,
        world: World = ALONE,
        log: Log | None = None,
    ) -> None:
        self.options = options
        self.data = data
        self.sha256 = _fingerprint(data)
        self.out = out
        self.state_path = state_path
        self.world = world
        self.log = log
        self.stages = options.staged()
        kept, held = stratified_split(data.y, options.val_fraction, options.seed, data.groups)
        if len(held) < 1 or len(kept) < 2:
            raise UsageError(
                f"{data.name}: {len(data)} samples are too few to hold some out for validation"
            )
        self.kept, self.held = kept, held
        # Raw [N, C, H, W]: uint8 is a quarter of the memory of float32, converted batch by batch.
        self.x = torch.from_numpy(data.x[kept]).permute(0, 3, 1, 2).contiguous()
        self.y = torch.from_numpy(data.y[kept])
        self.val_x, self.val_y = data.x[held], data.y[held]
        if is_events(data):
            self.val_x, self.val_y = at_phases(self.val_x, self.val_y, options.seed)
        self.batch = min(options.batch, len(kept))
        self.steps_per_epoch = len(kept) // self.batch
        if self.batch < 2 * world.size:
            raise UsageError(f"a batch of {self.batch} is too small for {world.size} processes")
        self.shift = shift_reach(data.shape)
        check_augmentation(options.augment, data.dtype, data.shape)
        _check_penalties(options, net.spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.net = SpikingNetwork(
                net.spec,
                gradient=options.encoder_grad,
                encoder_bias=options.encoder_bias,
                neuron_mode=options.neuron_mode,
            )
        if net.state is not None:
            self.net.load_state_dict(net.state)
        self.device = torch.device(options.device)
        if world.size > 1:
            share_norms(self.net)
            if options.device == "cuda":
                self.device = torch.device("cuda", torch.cuda.current_device())
        self.net.to(self.device)
        self.forward = self._forward()
        self.optimizer = torch.optim.AdamW(
            _groups(self.net), lr=options.lr, weight_decay=WEIGHT_DECAY
        )
        total = options.epochs * self.steps_per_epoch
        self.scheduler = learning_rate(
            self.optimizer, options.schedule, options.lr, total, options.warm_up
        )
        self.epoch = 0
        self.saved_epoch = 0
        self.seconds = 0.0
        self.history: list[Row] = []
        self.best: Chosen | None = None
        self.best_epoch = 0
        self.best_loss = math.inf
        self.best_state: dict[str, Tensor] = {}

    def _forward(self) -> Callable[..., Any]:
        """The net as training calls it; its state keeps the names of `self.net`."""
        forward: nn.Module = self.net
        if self.world.size > 1:
            forward = nn.parallel.DistributedDataParallel(
                forward,
                find_unused_parameters=len(self.stages.steps) > 1,  # a leak is not used in one step
            )
        return torch.compile(forward) if self.options.compile else forward

    def fit(self, show: bool) -> None:
        """Run the remaining epochs; afterwards the net has the best epoch's weights."""
        total = self.options.epochs * self.steps_per_epoch
        with Progress(total, self.epoch * self.steps_per_epoch, show) as bar:
            self._write_log()
            while self.epoch < self.options.epochs:
                started = time.monotonic()
                loss = self._epoch(bar)
                self.epoch += 1
                if self.world.first:
                    self._end_of_epoch(loss, started, bar)
        if self.world.first:
            self.net.load_state_dict(self.best_state)

    def _end_of_epoch(self, loss: float, started: float, bar: Progress) -> None:
        steps = self.stages.at(self.epoch - 1)
        outputs = self._outputs(steps)
        chosen = self._validate(outputs)
        self.seconds += time.monotonic() - started
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": loss,
                "val_accuracy": chosen.accuracy,
                "mean_steps": chosen.mean_steps,
                "threshold": chosen.value,
                "lr": float(self.scheduler.get_last_lr()[0]),
                "seconds": round(self.seconds, 3),
                "spikes_per_neuron": outputs.spikes_per_neuron,
            }
        )
        self._save()
        self._write_log()
        of = f" of the first {steps}" if steps < self.net.spec.timesteps else ""
        exit = (
            self.options.exit
            if self.options.exit == "rate"
            else (f"{self.options.exit} {chosen.value:g}")
        )
        bar.say(
            f"epoch {self.epoch}/{self.options.epochs}  loss {loss:.4f}  validation "
            f"{100 * chosen.accuracy:.2f} % at {chosen.mean_steps:.3f} steps{of}  "
            f"({exit}, {self.seconds:.0f} s)"
        )

    def _epoch(self, bar: Progress) -> float:
        options, data = self.options, self.data
        # A generator of its own for every epoch: a resumed run needs no stored random state.
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + self.epoch + 1)
        order = torch.randperm(len(self.x), generator=random)
        steps = self.stages.at(self.epoch)
        self.net.train()
        total = 0.0
        for i in range(self.steps_per_epoch):
            chosen = order[i * self.batch : (i + 1) * self.batch]
            # Changed before it is shared out: the random numbers are those of a single process.
            raw = augmented(self.x[chosen], options.augment, self.shift, random, data.zero_point)
            raw, targets = self.world.slice(raw), self.world.slice(self.y[chosen])
            # Rank r's mean counts as its share of the batch; gradients are averaged over the ranks.
            share = len(raw) * self.world.size / self.batch
            samples = raw.to(self.device, torch.float32)
            if data.zero_point:
                samples = samples - data.zero_point
            samples = samples.mul_(data.scale)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=options.amp):
                activity = (
                    self.forward(samples)
                    if steps == self.net.spec.timesteps
                    else self.forward(samples, steps=steps)
                )
            loss = objective(options, activity, targets.to(self.device))
            if share != 1.0:
                loss = loss * share
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
            self.optimizer.step()
            self.scheduler.step()
            total += float(loss.detach())
            bar.advance()
        mean = self.world.mean(total / self.steps_per_epoch)
        # The last step's weights have made no loss yet, and a NaN that never spikes makes none.
        if not math.isfinite(mean) or not finite(self.net.state_dict()):
            message = f"training diverged in epoch {self.epoch + 1}: lower --lr ({options.lr:g})"
            if not self.world.first:
                raise SystemExit(0)  # so does every rank: rank 0 says it
            raise EdgesnnError(message)
        return mean

    def _outputs(self, steps: int) -> Outputs:
        """The validation samples through the first `steps` of all time steps."""
        net, data = self.net, self.data
        net.eval()
        membranes, currents = [], []
        spikes = neurons = 0.0
        with torch.inference_mode():
            for i in range(0, len(self.val_x), BATCH):
                part = self.val_x[i : i + BATCH]
                samples = samples_tensor(part, data.scale, data.zero_point).to(self.device)
                activity = net(samples) if steps == net.spec.timesteps else net(samples, steps)
                membranes.append(activity.membranes.cpu())
                currents.append(activity.currents.cpu())
                for layer in activity.hidden.values():
                    spikes += float(layer.sum(dtype=torch.float64))
                    neurons += layer.numel() / len(layer)
        return Outputs(
            torch.cat(membranes, dim=1).numpy(),
            torch.cat(currents, dim=1).numpy(),
            spikes / neurons if neurons else 0.0,
        )

    def _validate(self, outputs: Outputs) -> Chosen:
        """The exit's value; takes the net over as the best if it is."""
        options, membranes = self.options, outputs.membranes
        if options.paper_literal:
            chosen = _at_threshold(membranes, self.val_y, options, is_events(self.data))
        else:
            chosen = select_exit(
                membranes,
                self.val_y,
                options.exit,
                accuracy=options.target_accuracy or None,
                steps=options.target_steps or None,
                must_exit=is_events(self.data),
                copies=len(self.val_y) // len(self.held),
            )
        if not self.stages.last(self.epoch - 1):
            return chosen
        signals = torch.from_numpy(membranes), torch.from_numpy(outputs.currents)
        loss = float(decision_loss(options, *signals, torch.from_numpy(self.val_y)))
        if self.best is None or self._rank(chosen, loss) >= self._rank(self.best, self.best_loss):
            state = _copied(self.net)
            # Nothing is called in between: Ctrl-C cannot come before all of it is taken over.
            self.best, self.best_state = chosen, state
            self.best_epoch, self.best_loss = self.epoch, loss
        return chosen

    def _rank(self, chosen: Chosen, loss: float) -> tuple[float, ...]:
        """What ships is the accuracy with the exit; equal ones (small sets) are told apart by loss.

        With a wanted operating point, nets that reach it come first; then what it leaves open counts.
        """
        accuracy, speed = chosen.accuracy, -chosen.mean_steps
        if self.options.target_accuracy > 0.0:
            first = (speed, accuracy) if chosen.met else (accuracy, speed)
            return (chosen.met, *first, -loss)
        if self.options.target_steps > 0.0:
            first = (accuracy, speed) if chosen.met else (speed, accuracy)
            return (chosen.met, *first, -loss)
        return (accuracy, -loss)

    def checkpoint(self, report: dict[str, Any]) -> Checkpoint:
        """The best epoch so far, with its exit."""
        assert self.best is not None
        data, options = self.data, self.options
        return Checkpoint(
            self.net.spec,
            {name: tensor.cpu() for name, tensor in self.best_state.items()},
            data.scale,
            ReadoutSpec(options.exit, self.best.value),
            data.class_names,
            options.data,
            report,
            dtype=data.dtype,
            zero_point=data.zero_point,
            weights=options.weights,
            stream=data.stream,
        )

    def _write_log(self) -> None:
        if self.log is not None and self.world.first:
            self.log.write(self.history)

    def _save(self) -> None:
        write_state(
            self.state_path,
            {
                "options": vars(self.options),
                "data_sha256": self.sha256,
                "epoch": self.epoch,
                "seconds": self.seconds,
                "history": self.history,
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "best": None if self.best is None else vars(self.best),
                "best_epoch": self.best_epoch,
                "best_loss": self.best_loss,
                "best_state": self.best_state,
            },
        )
        self.saved_epoch = self.epoch

    def resume(self, table: dict[str, Any]) -> None:
        """Take up the state of an interrupted run of the same options and data."""
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
            if table["best"] is not None:
                self.net.load_state_dict(table["best_state"])
                self.best_state = _copied(self.net)
                self.best = Chosen(**table["best"])
            self.net.load_state_dict(table["net"])
            if not finite(self.best_state) or not finite(self.net.state_dict()):
                raise ValueError("weights that are not finite")
            self.optimizer.load_state_dict(table["optimizer"])
            self.scheduler.load_state_dict(table["scheduler"])
            self.seconds = float(table["seconds"])
            self.history = [{k: float(v) for k, v in row.items()} for row in table["history"]]
            self.best_epoch = int(table["best_epoch"])
            self.best_loss = float(table["best_loss"])
            self.epoch = int(table["epoch"])
            least = 1 if self.best is not None else 0
            if not least <= self.best_epoch <= self.epoch <= self.options.epochs:
                raise ValueError(f"epoch {self.epoch}")
            if (self.best is None) == self.stages.last(self.epoch - 1):
                raise ValueError(f"epoch {self.epoch} without a best one")
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
        after = f"interrupted after epoch {self.saved_epoch} of {self.options.epochs}"
        if self.best is None:
            return f"{after}; no net runs all its time steps yet; --resume goes on"
        so_far = {"val_accuracy": self.best.accuracy, "epochs": self.saved_epoch}
        try:
            save_checkpoint(self.checkpoint(so_far), self.out)
        except KeyboardInterrupt:
            return f"interrupted; {self.out} was not written, --resume goes on"
        return f"{after}; {self.out} holds the best net so far; --resume goes on"


def _at_threshold(
    membranes: np.ndarray, y: np.ndarray, options: Options, must_exit: bool
) -> Chosen:
    """The exit at the neurons' threshold, as the papers have it."""
    value = options.v_threshold
    decided = decode(membranes, options.exit, value)
    right = (decided.labels == y) & (decided.exited | (not must_exit))
    return Chosen(value, float(right.mean()), float(decided.steps.mean()))


def _check_penalties(options: Options, spec: NetworkSpec) -> None:
    """UsageError for a penalty on layers that the net does not have."""
    if spec.takes_events and options.early_penalty > 0.0:
        raise UsageError("early-penalty: the events of a sensor cannot be trained away")
    if not isinstance(options.rate_penalty, dict):
        return
    hidden = [layer.name for layer in spec.layers[1:] if layer.kind in SPIKING]
    unknown = sorted(set(options.rate_penalty) - set(hidden))
    if unknown:
        raise UsageError(
            f"rate-penalty: {spec.name} has no hidden layer {unknown[0]!r}; "
            f"it has {', '.join(hidden) or 'none'}"
        )


def _groups(net: SpikingNetwork) -> list[dict[str, Any]]:
    """The parameters; learned leaks apart, for decay would pull their logits to 0, a leak of one half."""
    leaks = [p for name, p in net.named_parameters() if name.endswith("leak_logit")]
    own = {id(p) for p in leaks}
    groups: list[dict[str, Any]] = [{"params": [p for p in net.parameters() if id(p) not in own]}]
    return [*groups, {"params": leaks, "weight_decay": 0.0}] if leaks else groups


def _fingerprint(data: Dataset) -> str:
    """SHA-256 over the shape, samples and labels of a data set."""
    digest = hashlib.sha256(repr((data.x.shape, data.classes)).encode())
    digest.update(np.ascontiguousarray(data.x).data)
    digest.update(np.ascontiguousarray(data.y).data)
    return digest.hexdigest()


def _copied(net: SpikingNetwork) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in net.state_dict().items()}


def finite(state: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
