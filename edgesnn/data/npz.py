"""Samples in a NumPy archive: x_train, y_train, x_test, y_test and optionally class_names."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from edgesnn.data.dataset import Dataset, checked
from edgesnn.targets.errors import EdgesnnError


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays (those ending in "?" may be missing) of an .npz; nothing pickled is read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise EdgesnnError(
                    f"{path} is a single array, not an .npz with x_train, y_train, x_test, y_test"
                )
            wanted = [n.rstrip("?") for n in names]
            missing = [n for n in names if not n.endswith("?") and n not in archive.files]
            if missing:
                raise EdgesnnError(
                    f"{path} has no array {', '.join(missing)} (it has: {', '.join(archive.files)})"
                )
            return {n: archive[n] for n in wanted if n in archive.files}
    except FileNotFoundError:
        raise EdgesnnError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgesnnError(f"{path} is not a readable .npz: {reason}") from None


def load_npz(path: Path, split: str) -> Dataset:
    """A user's archive: samples uint8 (N, H, W) or (N, H, W, C), scale 1/255; whole labels."""
    arrays = read_arrays(path, (f"x_{split}", f"y_{split}", "y_train?", "y_test?", "class_names?"))
    if "class_names" in arrays:
        names = tuple(str(n) for n in arrays["class_names"].ravel())
    else:
        labels = [arrays[k] for k in ("y_train", "y_test") if k in arrays]
        whole = [y for y in labels if y.dtype.kind in "iu" and y.size]
        names = tuple(str(n) for n in range(max((int(y.max()) for y in whole), default=0) + 1))
    return checked(path.stem, split, arrays[f"x_{split}"], arrays[f"y_{split}"], names, 1.0 / 255.0)
