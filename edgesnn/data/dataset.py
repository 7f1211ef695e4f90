"""A labelled set of samples, and the checks that every source of one goes through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.targets.errors import EdgesnnError, UsageError

SPLITS = ("train", "test")
MAX_CLASSES = 65536  # more is a label that is none, such as -1 stored as unsigned


@dataclass(frozen=True)
class Dataset:
    """x: uint8[N, H, W, C] raw samples; y: int64[N], 0...classes-1; a net sees scale * x."""

    name: str
    split: str
    x: np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a sample."""
        height, width, channels = self.x.shape[1:]
        return (int(height), int(width), int(channels))

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.x)


def check_split(split: str) -> None:
    """UsageError unless `split` is train or test."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")


def checked(
    name: str, split: str, x: np.ndarray, y: np.ndarray, class_names: tuple[str, ...], scale: float
) -> Dataset:
    """A Dataset from raw arrays; (N, H, W) gets a channel axis. EdgesnnError for bad data."""
    if x.dtype != np.uint8:
        raise EdgesnnError(f"{name}: {split} samples are {x.dtype}, not uint8")
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape:
        raise EdgesnnError(
            f"{name}: {split} samples have shape {x.shape}, not (N, H, W) or (N, H, W, C)"
        )
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise EdgesnnError(
            f"{name}: {split} labels are {y.dtype}{y.shape}, not {len(x)} whole numbers"
        )
    if len(class_names) > MAX_CLASSES or not all(label.isprintable() for label in class_names):
        raise EdgesnnError(
            f"{name}: class names have to be printable, and at most {MAX_CLASSES} of them"
        )
    # Compared before the conversion: labels of 2^63 and more would come out negative.
    if y.min() < 0 or y.max() >= len(class_names):
        raise EdgesnnError(
            f"{name}: {split} labels run from {y.min()} to {y.max()}, "
            f"but there are {len(class_names)} classes"
        )
    return Dataset(name, split, np.ascontiguousarray(x), y.astype(np.int64), class_names, scale)


def stratified_split(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), both sorted: about `fraction` of every class is held out.

    At least one sample of every class of two or more is: what is held out knows every class.
    The same y, fraction and seed give the same split on every machine.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    held = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        least = 1 if len(members) > 1 else 0
        held.append(rng.permutation(members)[: max(round(fraction * len(members)), least)])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(y)), out), out
