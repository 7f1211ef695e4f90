"""Find a data set by name or path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgesnn.data import fsdd, jpeg_pack, kws12, nmnist, wand
from edgesnn.data.cache import cache_folder
from edgesnn.data.cifar import CIFAR10, CIFAR100, load_cifar
from edgesnn.data.dataset import Dataset, check_split
from edgesnn.data.digits import load_digits
from edgesnn.data.idx import FASHION_MNIST, MNIST, load_idx_set
from edgesnn.data.signals import load_own
from edgesnn.targets.errors import UsageError
from edgesnn.targets.suggest import did_you_mean

_IDX_SETS = {which.name: which for which in (MNIST, FASHION_MNIST)}
_CIFAR_SETS = {which.name: which for which in (CIFAR10, CIFAR100)}
_OTHER_SETS = {
    jpeg_pack.NAME: jpeg_pack.load_jpeg_pack,
    nmnist.NAME: nmnist.load_folder,
    nmnist.SMALL: nmnist.load_small,
    nmnist.EVENTS: nmnist.load_events,
    fsdd.NAME: fsdd.load_fsdd,
    kws12.NAME: kws12.load_kws12,
    wand.NAME: wand.load_wand,
}


def names() -> list[str]:
    """The data sets that `load` knows by name."""
    return ["digits", *_IDX_SETS, *_CIFAR_SETS, *_OTHER_SETS]


def data_folder(data_dir: Path | str | None = None) -> Path:
    """Where data sets lie: `data_dir`, else EDGESNN_DATA, else edgesnn/ in the cache folder."""
    chosen = data_dir or os.environ.get("EDGESNN_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder()


def load(
    name: str, split: str = "test", data_dir: Path | str | None = None, download: bool = False
) -> Dataset:
    """The train or test split of a data set of `names()`, or of the .npz at the path `name`.

    docs/DATA.md tells what each is and which files it takes. MNIST and Fashion-MNIST are
    downloaded if they are missing and `download` is true; nothing else ever is.
    Raises UsageError for an unknown name or split, EdgesnnError for missing, damaged or ill-shaped
    data.
    """
    check_split(split)
    if name == "digits":
        return load_digits(split)
    if name in _IDX_SETS:
        return load_idx_set(_IDX_SETS[name], split, data_folder(data_dir), download)
    if name in _CIFAR_SETS:
        return load_cifar(_CIFAR_SETS[name], split, data_folder(data_dir))
    if name in _OTHER_SETS:
        return _OTHER_SETS[name](split, data_folder(data_dir))
    if name.endswith(".npz"):
        return load_own(Path(name).expanduser(), split)
    raise unknown_data(name, names())


def unknown_data(name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that is neither one of `known` nor the path of an .npz."""
    if Path(name).expanduser().is_file():
        return UsageError(f"{name} is a file, but no .npz (docs/DATA.md says what one holds)")
    hint = did_you_mean(name, known)
    choices = f": one of {', '.join(known)}, or the path of an .npz"
    return UsageError(f"unknown data set {name!r}{hint or choices}")
