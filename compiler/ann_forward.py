"""Forward pass of an Ann in float64, straight from its definition: slow and plain, the judge of importers."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgesnn.compiler.ann import INPUT, Ann, Window
from edgesnn.compiler.graph import Conv, Dense


def forward(ann: Ann, x: np.ndarray) -> dict[str, np.ndarray]:
    """Values of all units, and of the input as "input", for maps x [N, H, W, C] as layers see them.

    The input's own scale and offset are done already. Values are float64 [N, H, W, C], after activation.
    """
    values = {INPUT: np.asarray(x, np.float64)}
    for unit in ann.units:
        y = sum((_linear(t.linear, values[t.source]) for t in unit.terms), np.zeros(())) + unit.bias
        if unit.pool is not None:
            y = _pooled(y, unit.pool)
        if unit.rectified:
            y = np.maximum(y, 0)
        if unit.ceiling is not None:
            y = np.minimum(y, unit.ceiling)
        if unit.step is not None:
            y = np.floor(y / unit.step + 0.5) * unit.step
        values[unit.name] = y
    return values


def _linear(linear: Dense | Conv, x: np.ndarray) -> np.ndarray:
    """linear(x) without a bias; x [N, H, W, C]."""
    if isinstance(linear, Dense):
        return (x.reshape(len(x), -1) @ np.asarray(linear.weight, np.float64).T)[:, None, None, :]
    weight = np.asarray(linear.weight, np.float64)
    out, kh, kw, inputs = weight.shape
    (dy, dx), groups = linear.dilation, linear.groups
    windows = _windows(
        x, linear.padding, 0.0, (dy * (kh - 1) + 1, dx * (kw - 1) + 1), linear.stride
    )
    windows = windows[..., ::dy, ::dx]
    n, oh, ow = windows.shape[:3]
    split = windows.reshape(n, oh, ow, groups, inputs, kh, kw)
    kernel = weight.reshape(groups, out // groups, kh, kw, inputs)
    return np.einsum("nyxgikl,gokli->nyxgo", split, kernel, optimize=True).reshape(n, oh, ow, out)


def _pooled(x: np.ndarray, pool: Window) -> np.ndarray:
    """Maximum of each window; x [N, H, W, C]."""
    windows = _windows(x, pool.padding, -np.inf, pool.kernel, pool.stride)
    return np.asarray(windows.max((-2, -1)))


def _windows(
    x: np.ndarray,
    padding: tuple[int, int, int, int],
    value: float,
    kernel: tuple[int, int],
    stride: tuple[int, int],
) -> np.ndarray:
    """Windows [N, oh, ow, C, kh, kw] of a padded map."""
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)
    return sliding_window_view(padded, kernel, (1, 2))[:, :: stride[0], :: stride[1]]
