"""One run on several processes (torchrun): each takes its slice of every batch; rank 0 writes and prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgesnn.targets.errors import EdgesnnError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run; `size` 1 is a run without any others."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` in every process; if it fails in one, rank 0 raises its error and the others leave.

        They leave with exit code 0, so that the launcher waits for rank 0's message.
        """
        if self.size == 1:
            return work()
        done: list[T] = []
        failed: tuple[int, str] | None = None
        try:
            done.append(work())
        except EdgesnnError as error:
            failed = (error.exit_code, str(error))
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, failed)
        for code, message in filter(None, found):
            if not self.first:
                raise SystemExit(0)
            raise (UsageError if code == UsageError.exit_code else EdgesnnError)(message)
        return done[0]

    def shared(self, work: Callable[[], T]) -> T:
        """Do `work` in rank 0 alone; every process gets its result, or leaves as in `together`."""
        if self.size == 1:
            return work()
        result = self.together(lambda: [work()] if self.first else [])
        box: list[Any] = [result[0] if self.first else None]
        dist.broadcast_object_list(box, src=0)
        out: T = box[0]
        return out

    def slice(self, chosen: Tensor) -> Tensor:
        """This process's part of a batch."""
        return chosen.tensor_split(self.size)[self.rank]

    def mean(self, value: float) -> float:
        """The mean over the processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        if dist.get_backend() == "nccl":
            total = total.cuda()
        dist.all_reduce(total)
        return float(total) / self.size


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that torchrun started, else this one alone; gloo joins CPUs, nccl CUDA devices."""
    size = _environment("WORLD_SIZE", 1)
    if size == 1:
        yield World()
        return
    rank, local = _environment("RANK", 0), _environment("LOCAL_RANK", 0)
    own = not dist.is_initialized()
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise EdgesnnError(
                f"process {local} finds {torch.cuda.device_count()} CUDA devices: start one process each"
            )
        torch.cuda.set_device(local)
    try:
        if own:
            dist.init_process_group("nccl" if device == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise EdgesnnError(
            f"the processes cannot be joined ({reason}); start them with torchrun"
        ) from None
    try:
        yield World(rank, size)
    finally:
        if own:
            dist.destroy_process_group()


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise UsageError(
            f"{name}={text} is not a number; start the processes with torchrun"
        ) from None


class _Sum(torch.autograd.Function):
    """The sum over the processes; each one's gradient is the sum of all theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        out = grad.clone()
        dist.all_reduce(out)
        return out


def total_of(x: Tensor) -> Tensor:
    """The differentiable sum over the processes, over gloo as over nccl."""
    out: Tensor = _Sum.apply(x)
    return out


class GlobalNorm(_BatchNorm):
    """Batch norm with the statistics of the whole batch of all processes, on CPU as on CUDA.

    torch's SyncBatchNorm needs CUDA. Mean and variance are differentiable sums over the processes;
    parameters, buffers and their names are those of the norm it replaces.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.load_state_dict(norm.state_dict())

    def _check_input_dim(self, input: Tensor) -> None:
        return None  # whatever the replaced norm takes

    def forward(self, input: Tensor) -> Tensor:
        """float[M, C, ...] to the same."""
        assert self.running_mean is not None and self.running_var is not None
        if not self.training:
            return super().forward(input)
        x = input.float()
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = total_of(torch.cat([x.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        var = total_of(centred.square().sum(axes)) / total
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (total / (total - 1.0).clamp(min=1.0)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def share_norms(net: nn.Module) -> None:
    """Every batch norm in `net` takes the statistics of all processes."""
    for name, child in net.named_children():
        if isinstance(child, _BatchNorm):
            setattr(net, name, GlobalNorm(child))
        else:
            share_norms(child)
