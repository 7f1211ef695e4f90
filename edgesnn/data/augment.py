"""Samples changed at random while training, so that a net sees each one only once."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from edgesnn.targets.errors import EdgesnnError, UsageError

# Samples moved by a few pixels; half of them mirrored, too; then changed by a policy of image
# operations, of which there are two; or what befalls a voice (`spectrogram` below); or turned, stretched,
# slanted and moved, every pixel taking the value of one (`affine`: spikes stay spikes).
AUGMENTATIONS = ("none", "shift", "flip", "randaugment", "autoaugment", "spectrogram", "affine")
POLICIES = ("randaugment", "autoaugment")
SHIFT_SHARE = 14  # samples move by up to 1/14 of their side: 2 pixels of 28, none of 8
# kornia draws the operations of a policy once a call: so many samples share theirs.
GROUP = 8
RAND_OPERATIONS, RAND_MAGNITUDE = 2, 9  # Cubuk et al. 2020: N and M, M of 30
# Of affine maps: radians, shares of both sides, share of the width per height, share of the sides.
TURN, SCALE, SLANT, AWAY = 0.2, 0.12, 0.15, 0.09
# Of spectrograms (time down, bands across): how far time and bands are stretched and moved, as shares of
# themselves; the range of the change in level and of its slope over the bands, in raw levels; the share of
# samples with noise; the largest masks, as a share of a side.
STRETCH, MOVE, WARP, BEND = 0.15, 0.1, 0.1, 0.02
LEVEL, SLOPE, NOISY, MASK = 20.0, 16.0, 0.4, 0.15


def shift_reach(shape: tuple[int, int, int]) -> int:
    """How far samples (H, W, C) are moved: 1/14 of the shorter side, of the length of a signal."""
    height, width, _ = shape
    return (width if height == 1 else min(height, width)) // SHIFT_SHARE


def check_augmentation(kind: str, dtype: str, shape: tuple[int, int, int]) -> None:
    """UsageError unless `kind` is one of AUGMENTATIONS and suits samples (H, W, C) of that dtype."""
    if kind not in AUGMENTATIONS:
        raise UsageError(f"unknown augment {kind!r}: one of {', '.join(AUGMENTATIONS)}")
    height, _, channels = shape
    if kind == "spectrogram" and (dtype != "uint8" or channels != 1 or height == 1):
        size = "x".join(map(str, shape))
        raise UsageError(
            f"augment spectrogram takes uint8 maps of 1 channel, time down, not {dtype} {size}; "
            "choose shift or none"
        )
    if kind == "affine" and height == 1:
        raise UsageError(
            "augment affine is for maps: a signal cannot be turned; choose shift or none"
        )
    if kind == "flip" and height == 1:
        raise UsageError("augment flip is for images: a mirrored signal is another signal")
    if kind in POLICIES and (dtype != "uint8" or channels not in (1, 3) or height == 1):
        size = "x".join(map(str, shape))
        raise UsageError(
            f"augment {kind} takes uint8 images of 1 or 3 channels, not {dtype} {size}; "
            "choose shift or none"
        )


def augmented(x: Tensor, kind: str, reach: int, random: torch.Generator, fill: int = 0) -> Tensor:
    """Raw [N, C, H, W] changed as `kind` of AUGMENTATIONS says; `fill` (the zero point) moves in."""
    n, channels, height, width = x.shape
    check_augmentation(kind, str(x.dtype).removeprefix("torch."), (height, width, channels))
    if kind == "none":
        return x
    if kind == "spectrogram":
        return spectrogram(x, random)
    if kind == "affine":
        return affine(x, random, fill)
    x = shifted(x, reach, random, fill)
    if kind != "shift":
        mirrored = torch.rand(n, generator=random) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return _by_policy(x, kind, random) if kind in POLICIES else x


def shifted(x: Tensor, reach: int, random: torch.Generator, fill: int = 0) -> Tensor:
    """Every sample of [N, C, H, W] moved by up to `reach` samples each way, `fill` moving in.

    Samples of height 1 (signals) are moved along the width only.
    """
    n, _, height, width = x.shape
    down = 0 if height == 1 else reach
    padded = torch.nn.functional.pad(x, (reach, reach, down, down), value=fill)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2r+1, 2r+1, H, W], a view
    by = torch.randint(0, 2 * reach + 1, (2, n), generator=random)
    return windows[torch.arange(n), :, by[0].clamp(max=2 * down), by[1]]


def affine(x: Tensor, random: torch.Generator, fill: int = 0) -> Tensor:
    """Every sample of [N, C, H, W] turned, stretched, slanted and moved as a whole; `fill` moves in.

    Nearest neighbour: all channels of a pixel come from one pixel, and no new values arise.
    """
    n = len(x)

    def draw(*shape: int) -> Tensor:
        """Evenly from -1...1."""
        return 2 * torch.rand(n, *shape, generator=random) - 1

    turn, scale, slant = TURN * draw(), 1 + SCALE * draw(2), SLANT * draw()
    cos, sin = torch.cos(turn), torch.sin(turn)
    columns = torch.stack([cos, sin, slant - sin, cos], 1).view(n, 2, 2) * scale[:, :, None]
    matrix = torch.cat([columns.transpose(1, 2), 2 * AWAY * draw(2)[:, :, None]], dim=2)
    grid = torch.nn.functional.affine_grid(matrix, list(x.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(
        x.to(torch.float32) - fill, grid, mode="nearest", align_corners=False
    )
    return (moved + fill).to(x.dtype)


def spectrogram(x: Tensor, random: torch.Generator) -> Tensor:
    """Logarithmic spectrograms uint8[N, 1, time, bands] of other voices, levels, moments and rooms.

    Bilinear stretch and shift of time and bands, the edges repeated (a faster speaker, a shorter vocal
    tract); level and slope added; noise, the same over time but for its flutter, where it is the louder;
    one mask of time and one of bands, filled with the sample's mean (SpecAugment, Park et al. 2019).
    """
    n, _, height, width = x.shape

    def draw(*shape: int) -> Tensor:
        """Evenly from -1...1."""
        return 2 * torch.rand(n, *shape, generator=random) - 1

    time = torch.linspace(-1, 1, height)[None, :, None]
    band = torch.linspace(-1, 1, width)[None, None, :]
    down = time * (1 + STRETCH * draw(1, 1)) + 2 * MOVE * draw(1, 1)
    across = (band + 1) * (1 + WARP * draw(1, 1)) - 1 + 2 * BEND * draw(1, 1)
    grid = torch.stack([across.expand(n, height, -1), down.expand(n, -1, width)], dim=3)
    y = torch.nn.functional.grid_sample(
        x.to(torch.float32), grid, padding_mode="border", align_corners=True
    )[:, 0]
    mean = y.mean(dim=(1, 2), keepdim=True)
    y = y + LEVEL * draw(1, 1) + SLOPE * draw(1, 1) * band
    # Noise from far below the mean to near it, smooth over the bands.
    loud = mean - 40 + 40 * draw(1, 1) + 2 * SLOPE * draw(1, 1) * band
    flutter = 6 * torch.randn(n, height, width, generator=random)
    noisy = torch.rand(n, 1, 1, generator=random) < NOISY
    y = torch.where(noisy, torch.maximum(y, loud + flutter), y)
    masked = _mask(height, random, n)[:, :, None] | _mask(width, random, n)[:, None, :]
    y = torch.where(masked, mean, y)
    return y.clamp_(0, 255).round_().to(torch.uint8)[:, None]


def _mask(length: int, random: torch.Generator, n: int) -> Tensor:
    """bool[n, length]: a run of 0 to MASK of the length."""
    size = (MASK * length * torch.rand(n, 1, generator=random)).floor()
    start = ((length - size + 1) * torch.rand(n, 1, generator=random)).floor()
    at = torch.arange(length)
    return (at >= start) & (at < start + size)


def _by_policy(x: Tensor, kind: str, random: torch.Generator) -> Tensor:
    """RandAugment (Cubuk et al. 2020) or AutoAugment's policy for CIFAR-10 (2019), by kornia.

    kornia draws from torch's global generator: it is seeded from `random` here and put back after.
    """
    policy = _policy(kind)
    seed = int(torch.randint(2**62, (), generator=random))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        images = x.to(torch.float32).div_(255.0).expand(-1, 3, -1, -1)  # saturation wants colours
        changed = torch.cat([policy(part) for part in images.split(GROUP)])
        return changed[:, : x.shape[1]].clamp(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)


@functools.cache
def _policy(kind: str) -> Any:
    try:
        from kornia.augmentation.auto import AutoAugment, RandAugment
    except ImportError:
        raise EdgesnnError(
            f"augment {kind}: kornia is missing; pip install 'edgesnn[train]' brings it"
        ) from None
    if kind == "autoaugment":
        return AutoAugment("cifar10", transformation_matrix_mode="skip")
    return RandAugment(RAND_OPERATIONS, RAND_MAGNITUDE, transformation_matrix_mode="skip")
