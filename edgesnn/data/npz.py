"""Samples in a NumPy archive: x_train, y_train, x_test, y_test and optionally class_names."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from edgesnn.data.dataset import MAX_CLASSES, Dataset, checked
from edgesnn.targets.errors import EdgesnnError

_MAGIC = b"\x93NUMPY"


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays (those ending in "?" may be missing) of an .npz; nothing pickled is read."""
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                raise EdgesnnError(
                    f"{path} is a single array, not an .npz with x_train, y_train, x_test, y_test"
                )
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about odd headers: what counts is checked
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [n for n in names if not n.endswith("?") and n not in members]
            if missing:
                found = ", ".join(map(ascii, members))[:200]
                raise EdgesnnError(f"{path} has no array {', '.join(missing)} (it has: {found})")
            wanted = [n.rstrip("?") for n in names]
            return {n: _read(archive, members[n]) for n in wanted if n in members}
    except FileNotFoundError:
        raise EdgesnnError(f"{path}: no such file") from None
    except EdgesnnError:
        raise
    except Exception as error:  # zipfile and numpy raise a dozen kinds for damaged members
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise EdgesnnError(f"{path} is not a readable .npz: {reason}") from None


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
    """A user's archive: samples uint8 (N, H, W) or (N, H, W, C), scale 1/255; whole labels."""
    arrays = read_arrays(path, (f"x_{split}", f"y_{split}", "y_train?", "y_test?", "class_names?"))
    if "class_names" in arrays:
        names = tuple(str(n) for n in arrays["class_names"].ravel()[: MAX_CLASSES + 1])
    else:
        labels = [arrays[k] for k in ("y_train", "y_test") if k in arrays]
        whole = [y for y in labels if y.dtype.kind in "iu" and y.size]
        last = max((int(y.max()) for y in whole), default=0)
        if last >= MAX_CLASSES:
            raise EdgesnnError(f"{path} has a label {last}; labels run from 0 to {MAX_CLASSES - 1}")
        names = tuple(str(n) for n in range(last + 1))
    return checked(path.stem, split, arrays[f"x_{split}"], arrays[f"y_{split}"], names, 1.0 / 255.0)
