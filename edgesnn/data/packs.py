"""Packs: one .npz that holds a data set, in the data folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesnn.data.npz import read_arrays
from edgesnn.targets.errors import EdgesnnError


def pack_path(name: str, pack: str, folder: Path) -> Path:
    """<folder>/<pack>; EdgesnnError that says where it is looked for."""
    path = folder / pack
    if not path.is_file():
        raise EdgesnnError(
            f"{name}: {pack} is not in {folder}; put it there, or name its folder with --data-dir "
            "or EDGESNN_DATA"
        )
    return path


def checked_arrays(
    path: Path, kinds: dict[str, tuple[str, tuple[int | None, ...]]]
) -> dict[str, np.ndarray]:
    """The arrays of a pack by name; kinds: kind ("i" whole numbers, "b", "f", "U" or a dtype) and shape.

    None in a shape is any length. EdgesnnError with the first array that is another one.
    """
    arrays = read_arrays(path, tuple(kinds))
    for name, (kind, shape) in kinds.items():
        array = arrays[name]
        suits = array.dtype.kind in "iu" if kind == "i" else kind in (array.dtype.kind, array.dtype)
        sizes = len(shape) == array.ndim and all(
            want is None or want == got for want, got in zip(shape, array.shape, strict=True)
        )
        if not suits or not sizes:
            raise EdgesnnError(
                f"{path}: {name} is {array.dtype}{array.shape}, which is not expected"
            )
    return arrays
