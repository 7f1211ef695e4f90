"""A user's samples in a NumPy archive, and the reading of archives that nobody vouches for."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from edgesnn.data.dataset import (
    MAX_CLASSES,
    SCALES,
    Dataset,
    check_every_class,
    check_labels,
    check_samples_dtype,
    checked,
)
from edgesnn.targets.errors import EdgesnnError

_MAGIC = b"\x93NUMPY"
# What the axes of x may be: number of axes, and their order in [N, H, W, C] (-1: an axis of 1).
LAYOUTS = {
    "NHW": (0, 1, 2, -1),
    "NHWC": (0, 1, 2, 3),
    "NCHW": (0, 2, 3, 1),
    "NCL": (0, -1, 2, 1),
}
FEW_CHANNELS = 4  # a last axis of so many, and a second of more: channels come last


@contextmanager
def _members(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An open .npz and its arrays by name; whatever goes wrong inside is one EdgesnnError."""
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                raise EdgesnnError(
                    f"{path} is a single array, not an .npz with x_train, y_train, x_test, y_test"
                )
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about odd headers: what counts is checked
            infos = archive.infolist()
            yield archive, {info.filename.removesuffix(".npy"): info for info in infos}
    except FileNotFoundError:
        raise EdgesnnError(f"{path}: no such file") from None
    except EdgesnnError:
        raise
    except Exception as error:  # zipfile and numpy raise a dozen kinds for damaged members
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise EdgesnnError(f"{path} is not a readable .npz: {reason}") from None


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays (those ending in "?" may be missing) of an .npz; nothing pickled is read."""
    with _members(path) as (archive, members):
        missing = [n for n in names if not n.endswith("?") and n not in members]
        if missing:
            found = ", ".join(map(ascii, members))[:200]
            raise EdgesnnError(f"{path} has no array {', '.join(missing)} (it has: {found})")
        wanted = [n.rstrip("?") for n in names]
        return {n: _read(archive, members[n]) for n in wanted if n in members}


def array_names(path: Path) -> list[str]:
    """The names of the arrays of an .npz."""
    with _members(path) as (_, members):
        return list(members)


def pieces(path: Path, array: str, offsets: np.ndarray, total: int) -> np.ndarray:
    """int64 offsets at which the rows of a concatenated array start, checked.

    Row i is [offsets[i], offsets[i+1]); EdgesnnError unless they go from 0 to `total` in order.
    """
    fine = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    ordered = fine and offsets[0] == 0 and offsets[-1] == total
    if not ordered or (offsets[1:] < offsets[:-1]).any():
        raise EdgesnnError(f"{path}: {array} does not run from 0 to {total} in ascending order")
    return offsets.astype(np.int64)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One member; ValueError, before memory is taken, if its header promises more than it holds."""
    with archive.open(info) as file:
        shape, dtype = _header(file)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"{info.filename} holds {dtype}, not numbers or text")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"the header of {info.filename} says {shape}, more than the member holds")
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:  # 3.0 differs from 2.0 in the encoding of field names, and there are none
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def load_npz(path: Path, split: str) -> Dataset:
    """A user's archive; docs/DATA.md tells what it holds. EdgesnnError for what makes no sense.

    x_train, y_train, x_test, y_test (those of the other split may be missing), and optionally
    class_names, scale, zero_point and layout.
    """
    labels = tuple(f"y_{s}?" for s in ("train", "test") if s != split)
    about = ("class_names?", "scale?", "zero_point?", "layout?")
    arrays = read_arrays(path, (f"x_{split}", f"y_{split}", *labels, *about))
    name, x = path.stem, arrays[f"x_{split}"]
    check_samples_dtype(name, f"x_{split}", x)
    _check_same_samples(path)
    layout = _layout(path, arrays, x)
    names = _class_names(path, arrays)
    for key in ("y_train", "y_test"):
        if key in arrays:
            check_labels(name, key, arrays[key], len(names))
    if "y_train" in arrays:
        check_every_class(name, arrays["y_train"], names)
    scale, zero = _scale(path, arrays, x.dtype.name), _zero_point(path, arrays, x.dtype.name)
    samples = as_maps(x, layout)
    return checked(name, split, samples, arrays[f"y_{split}"], names, scale, zero, layout)


def as_maps(x: np.ndarray, layout: str) -> np.ndarray:
    """[N, H, W, C] of an array in one of LAYOUTS, a view; a signal is a map of height 1."""
    order = LAYOUTS[layout]
    view = x.transpose([axis for axis in order if axis >= 0])
    return np.expand_dims(view, order.index(-1)) if -1 in order else view


def guessed_layout(x: np.ndarray) -> str | None:
    """The layout of an array that does not tell its own; None if it has not 3 or 4 axes.

    3 axes: unsigned samples are images (N, H, W), signed ones are signals (N, C, L).
    4 axes: (N, C, H, W), unless the last axis is at most 4 and the second is more: (N, H, W, C).
    """
    if x.ndim == 3:
        return "NHW" if x.dtype.kind == "u" else "NCL"
    if x.ndim == 4:
        return "NHWC" if x.shape[3] <= FEW_CHANNELS < x.shape[1] else "NCHW"
    return None


def _layout(path: Path, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> str:
    if "layout" not in arrays:
        found = guessed_layout(x)
        if found is None:
            raise EdgesnnError(
                f"{path}: x has shape {x.shape}, not (N, H, W), (N, C, H, W) or (N, C, L)"
            )
        return found
    given = arrays["layout"]
    layout = _text(given.ravel()[0]).upper() if given.size == 1 else ""
    if layout not in LAYOUTS:
        raise EdgesnnError(
            f"{path}: layout is {str(given)[:40]!r}, not one of {', '.join(LAYOUTS)}"
        )
    if x.ndim != len(layout):
        raise EdgesnnError(f"{path}: x has shape {x.shape}, its layout {layout} {len(layout)} axes")
    return layout


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _class_names(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    if "class_names" in arrays:
        return tuple(_text(n) for n in arrays["class_names"].ravel()[: MAX_CLASSES + 1])
    last = 0
    for key in ("y_train", "y_test"):
        y = arrays.get(key)
        if y is None or y.dtype.kind not in "iu" or not y.size:
            continue
        last = max(last, int(y.max()))
        if last >= MAX_CLASSES:
            raise EdgesnnError(
                f"{path}: row {int(y.argmax())} of {key} has label {last}; "
                f"labels run from 0 to {MAX_CLASSES - 1}"
            )
    return tuple(str(n) for n in range(last + 1))


def _scale(path: Path, arrays: Mapping[str, np.ndarray], dtype: str) -> float:
    if "scale" not in arrays:
        return SCALES[dtype]
    given = arrays["scale"]
    scale = float(given.ravel()[0]) if given.size == 1 and given.dtype.kind in "fiu" else math.nan
    # A net computes in float32, so does its scale have to be one.
    if not np.finfo(np.float32).tiny <= scale <= np.finfo(np.float32).max:
        raise EdgesnnError(f"{path}: scale is {str(given)[:40]}, not one number above 0")
    return scale


def _zero_point(path: Path, arrays: Mapping[str, np.ndarray], dtype: str) -> int:
    if "zero_point" not in arrays:
        return 0
    given, limits = arrays["zero_point"], np.iinfo(dtype)
    whole = given.size == 1 and given.dtype.kind in "iu"
    if not whole or not limits.min <= int(given.ravel()[0]) <= limits.max:
        raise EdgesnnError(
            f"{path}: zero_point is {str(given)[:40]}, not one {dtype} "
            f"({limits.min}...{limits.max})"
        )
    return int(given.ravel()[0])


def _check_same_samples(path: Path) -> None:
    """EdgesnnError if samples of train and test differ in shape or dtype; reads only headers."""
    heads = []
    with _members(path) as (archive, members):
        for split in ("train", "test"):
            if f"x_{split}" in members:
                with archive.open(members[f"x_{split}"]) as file:
                    heads.append(_header(file))
    if len(heads) == 2:
        (train, train_dtype), (test, test_dtype) = heads
        if train[1:] != test[1:] or train_dtype.name != test_dtype.name:
            raise EdgesnnError(
                f"{path}: samples of x_train are {train_dtype} {train[1:]}, "
                f"of x_test {test_dtype} {test[1:]}"
            )
