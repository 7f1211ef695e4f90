"""Linear terms and pooling windows on batches of maps [N, C, H, W] in torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgesnn.compiler import graph, ir

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """torch's own convolutions on a processor: matrix products, exact in whole numbers.

    oneDNN's read beside the map for some shapes (torch 2.13: a 4 x 4 kernel, stride (1, 3), a map 6 wide) and
    are no faster here; NNPACK's transform the kernels.
    """
    from torch import backends

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # switching back warns of absent Intel GPUs
        with backends.mkldnn.flags(enabled=False), backends.nnpack.flags(enabled=False):
            yield


Linear = graph.Dense | graph.Conv | ir.Dense | ir.Conv


class LinearMap:
    """weight @ x or its cross-correlation, without a bias; x and the result are [N, C, H, W] of `dtype`."""

    def __init__(self, linear: Linear, dtype: torch.dtype) -> None:
        import torch

        self.linear = linear
        w = linear.weight
        # One input and one output a channel: a product per tap is faster than a convolution of many groups.
        self._taps = not isinstance(linear, graph.Dense | ir.Dense) and (
            linear.groups == w.shape[0] and w.shape[3] == 1
        )
        if not isinstance(linear, graph.Dense | ir.Dense):
            w = w.transpose(0, 3, 1, 2)
        self.weight = torch.from_numpy(np.ascontiguousarray(w)).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        from torch.nn.functional import conv2d, pad

        linear = self.linear
        if isinstance(linear, graph.Dense | ir.Dense):
            flat = x.permute(0, 2, 3, 1).reshape(len(x), -1)  # counted channel-last
            return (flat @ self.weight.T)[:, :, None, None]
        top, left, bottom, right = linear.padding
        if self._taps:
            x = pad(x, (left, right, top, bottom)) if any(linear.padding) else x
            return self._by_taps(x, linear.stride, linear.dilation)
        if (top, left) == (bottom, right):
            around: tuple[int, int] | int = (top, left)
        else:
            around, x = 0, pad(x, (left, right, top, bottom))
        return conv2d(x, self.weight, None, linear.stride, around, linear.dilation, linear.groups)

    def _by_taps(self, x: Tensor, stride: ir.Pair, dilation: ir.Pair) -> Tensor:
        _, _, kh, kw = self.weight.shape
        oh = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
        ow = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
        total: Tensor | None = None
        for ky in range(kh):
            for kx in range(kw):
                y0, x0 = ky * dilation[0], kx * dilation[1]
                tap = x[
                    :,
                    :,
                    y0 : y0 + stride[0] * (oh - 1) + 1 : stride[0],
                    x0 : x0 + stride[1] * (ow - 1) + 1 : stride[1],
                ]
                part = tap * self.weight[:, 0, ky, kx][None, :, None, None]
                total = part if total is None else total + part
        assert total is not None
        return total


def window_maxima(
    x: Tensor, kernel: ir.Pair, stride: ir.Pair, padding: ir.Padding, lowest: float
) -> Tensor:
    """Largest value of every window of x [N, C, H, W], any dtype; padding has the value `lowest`."""
    import torch
    from torch.nn.functional import pad

    if kernel == (1, 1) and stride == (1, 1):
        return x
    top, left, bottom, right = padding
    if any(padding):
        x = pad(x, (left, right, top, bottom), value=lowest)
    height = (x.shape[2] - kernel[0]) // stride[0] + 1
    width = (x.shape[3] - kernel[1]) // stride[1] + 1
    best: Tensor | None = None
    for y in range(kernel[0]):
        for c in range(kernel[1]):
            tap = x[
                :,
                :,
                y : y + stride[0] * (height - 1) + 1 : stride[0],
                c : c + stride[1] * (width - 1) + 1 : stride[1],
            ]
            best = tap.clone() if best is None else torch.maximum(best, tap)
    assert best is not None
    return best


def to_maps(x: np.ndarray) -> np.ndarray:
    """[N, H, W, C] to contiguous [N, C, H, W]."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
