"""A labelled set of samples, and the checks that every source of one goes through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesnn.compiler import ir
from edgesnn.targets.errors import EdgesnnError, UsageError

SPLITS = ("train", "test")
MAX_CLASSES = 65536  # more is a label that is none, such as -1 stored as unsigned
# The dtypes that samples may have, and what one level of each is worth unless the data says.
SCALES = {"uint8": 1.0 / 255.0, "int8": 1.0 / 128.0, "int16": 1.0 / 32768.0}


@dataclass(frozen=True)
class Dataset:
    """x: raw samples [N, H, W, C], uint8, int8 or int16; y: int64[N], 0...classes-1.

    A net sees scale * (x - zero_point). A signal is a map of height 1: [N, 1, length, channels].
    layout: how the axes of a user's file were read ("NHW", "NCHW", "NHWC", "NCL"), "" elsewhere.
    stream: how a device makes such samples of a signal as it comes, None where it does not.
    groups: int64[N] or None; samples of one group (cut from one recording, said by one speaker) are held
    out for validation together or not at all.
    """

    name: str
    split: str
    x: np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]
    scale: float
    zero_point: int = 0
    layout: str = ""
    stream: ir.Stream | None = None
    groups: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a sample."""
        height, width, channels = self.x.shape[1:]
        return (int(height), int(width), int(channels))

    @property
    def dtype(self) -> str:
        """uint8, int8 or int16."""
        return str(self.x.dtype.name)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def layout_hint(self) -> str:
        """What to add to a message about a sample shape that does not fit; may be empty."""
        if not self.layout:
            return ""
        return f" (x was read as {self.layout}; an array `layout` in the file says otherwise)"

    def __len__(self) -> int:
        return len(self.x)


def check_split(split: str) -> None:
    """UsageError unless `split` is train or test."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")


def checked(
    name: str,
    split: str,
    x: np.ndarray,
    y: np.ndarray,
    class_names: tuple[str, ...],
    scale: float,
    zero_point: int = 0,
    layout: str = "",
    *,
    stream: ir.Stream | None = None,
    groups: np.ndarray | None = None,
) -> Dataset:
    """A Dataset from raw arrays; (N, H, W) gets a channel axis. EdgesnnError for bad data."""
    check_samples_dtype(name, f"x_{split}", x)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape:
        raise EdgesnnError(
            f"{name}: x_{split} has shape {x.shape}, not (N, H, W) or (N, H, W, C) of one and more"
        )
    check_labels(name, f"y_{split}", y, len(class_names))
    if len(y) != len(x):
        raise EdgesnnError(f"{name}: x_{split} has {len(x)} rows, y_{split} has {len(y)}")
    if len(class_names) > MAX_CLASSES or not all(label.isprintable() for label in class_names):
        raise EdgesnnError(
            f"{name}: class names have to be printable, and at most {MAX_CLASSES} of them"
        )
    samples = np.ascontiguousarray(x, dtype=x.dtype.name)  # in this machine's byte order
    return Dataset(
        name,
        split,
        samples,
        y.astype(np.int64),
        class_names,
        scale,
        zero_point,
        layout,
        stream,
        groups,
    )


def check_samples_dtype(name: str, array: str, x: np.ndarray) -> None:
    """EdgesnnError unless x is uint8, int8 or int16; names the first row that is not finite."""
    if x.dtype.name not in SCALES:
        raise EdgesnnError(
            f"{name}: {array} is {x.dtype}{_not_finite(x)}: {', '.join(SCALES)} samples are taken, "
            "others have to be rounded to one of them first"
        )


def check_labels(name: str, array: str, y: np.ndarray, classes: int) -> None:
    """EdgesnnError unless y is one whole number in 0...classes-1 a row; names the first bad row."""
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise EdgesnnError(
            f"{name}: {array} (labels) is {y.dtype}{y.shape}{_not_finite(y)}, "
            "not one whole number a row"
        )
    # Compared before any conversion: labels of 2^63 and more would come out negative.
    bad = np.flatnonzero((y < 0) | (y >= classes))
    if len(bad):
        raise EdgesnnError(
            f"{name}: row {bad[0]} of {array} has label {y[bad[0]]}, "
            f"outside 0...{classes - 1} ({classes} classes)"
        )


def check_every_class(name: str, y_train: np.ndarray, class_names: tuple[str, ...]) -> None:
    """EdgesnnError for a class that no label of y_train is: a net cannot learn it."""
    missing = np.setdiff1d(np.arange(len(class_names)), y_train)
    if len(missing):
        label = class_names[missing[0]]
        also = f" ({label})" if label != str(missing[0]) else ""
        raise EdgesnnError(f"{name}: class {missing[0]}{also} has no sample in y_train")


def _not_finite(array: np.ndarray) -> str:
    """Which row of a float array is the first with NaN or infinity, as an insertion; else empty."""
    if array.dtype.kind not in "fc" or array.ndim == 0 or not array.size:
        return ""
    rows = array.reshape(len(array), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not len(bad):
        return ""
    what = "NaN" if np.isnan(rows[bad[0]]).any() else "infinity"
    return f" (row {bad[0]} holds {what})"


def stratified_split(
    y: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), both sorted: about `fraction` of every class is held out.

    At least one sample of every class of two or more is: what is held out knows every class. With `groups`
    [N] whole groups are, and of a class that is one group nothing needs to be; the last group of a class
    is kept. The same arguments give the same split on every machine.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    if groups is not None:
        return _grouped_split(y, fraction, rng, groups)
    held = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        least = 1 if len(members) > 1 else 0
        held.append(rng.permutation(members)[: max(round(fraction * len(members)), least)])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(y)), out), out


def _grouped_split(
    y: np.ndarray, fraction: float, rng: np.random.Generator, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    names, group = np.unique(groups, return_inverse=True)
    labels, label = np.unique(y, return_inverse=True)
    count = np.zeros((len(names), len(labels)), dtype=np.int64)  # samples of a group and class
    np.add.at(count, (group, label), 1)
    held = np.zeros(len(names), dtype=bool)
    # Rare classes first: common ones come with them, and the other way round would hold out too much.
    for k in np.argsort((count > 0).sum(axis=0), kind="stable"):
        wanted = fraction * count[:, k].sum()
        for g in rng.permutation(np.flatnonzero(count[:, k])):
            kept = ((count > 0) & ~held[:, None]).sum(axis=0)
            if kept[count[g] > 0].min() < 2 or held[g]:
                continue  # nothing of a class would be left to learn from
            if count[held, k].sum() + count[g, k] / 2 > wanted and count[held, k].any():
                break
            held[g] = True
    return np.flatnonzero(~held[group]), np.flatnonzero(held[group])
