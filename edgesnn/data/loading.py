"""Find a data set by name or path."""

from __future__ import annotations

import os
from pathlib import Path

from edgesnn.data.dataset import Dataset, check_split
from edgesnn.data.digits import load_digits
from edgesnn.data.idx import FASHION_MNIST, MNIST, load_idx_set
from edgesnn.data.npz import load_npz
from edgesnn.targets.errors import UsageError

_IDX_SETS = {which.name: which for which in (MNIST, FASHION_MNIST)}
NAMES = ("digits", *_IDX_SETS)


def data_folder(data_dir: Path | str | None = None) -> Path:
    """Where data sets lie: `data_dir`, else EDGESNN_DATA, else edgesnn/ in the cache folder."""
    chosen = data_dir or os.environ.get("EDGESNN_DATA")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "edgesnn"


def load(
    name: str, split: str = "test", data_dir: Path | str | None = None, download: bool = False
) -> Dataset:
    """The train or test split of digits, mnist, fashion-mnist, or of the .npz at the path `name`.

    Nothing is downloaded unless `download` is true. Raises UsageError for an unknown name or split,
    EdgesnnError for missing, damaged or ill-shaped data.
    """
    check_split(split)
    if name == "digits":
        return load_digits(split)
    if name in _IDX_SETS:
        return load_idx_set(_IDX_SETS[name], split, data_folder(data_dir), download)
    if name.endswith(".npz"):
        return load_npz(Path(name).expanduser(), split)
    raise UsageError(
        f"unknown data set {name!r}: one of {', '.join(NAMES)}, or the path of an .npz"
    )
