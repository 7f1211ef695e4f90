"""[T, ...] tensors as rows [T, n], one row a step, in the order in which memory has them."""

from __future__ import annotations

import torch
from torch import Tensor


def memory_order(x: Tensor) -> list[int]:
    """Dimensions 1... of x, the slowest first: channel-last maps are then rows without a copy."""
    strides = x.stride()
    return sorted(range(1, x.dim()), key=lambda d: (-strides[d], d))


def rows(x: Tensor, order: list[int]) -> Tensor:
    """[T, ...] as [T, n], dimensions in `order`; a view where the steps of x are dense in that order."""
    return x.permute(0, *order).reshape(len(x), x[0].numel())


def like_rows(flat: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """The inverse of `rows`: [T, n] in the shape of x, always a view."""
    shape = [len(flat), *(x.shape[d] for d in order)]
    back = [0] * x.dim()
    for place, d in enumerate(order, start=1):
        back[d] = place
    return flat.view(shape).permute(back)


def reordered(flat: Tensor, order: list[int], grad: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """(saved rows, incoming gradient as rows, order), in the gradient's own order: it passes on as it came."""
    own = memory_order(grad)
    return rows(like_rows(flat, grad, order), own), rows(grad, own), own


def full_precision(currents: Tensor) -> Tensor:
    """float32 at least: half precision would move membranes across thresholds; spikes are exact anyway."""
    return currents.float() if currents.dtype in (torch.float16, torch.bfloat16) else currents
