"""CIFAR-10 as a pack of JPEG files: lossy, a tenth of the size. Decoded once, then cached."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from edgesnn.data.cache import cached
from edgesnn.data.cifar import CIFAR10_CLASSES, SCALE, SIDE
from edgesnn.data.dataset import Dataset, checked
from edgesnn.data.npz import pieces, read_arrays
from edgesnn.runtime.files import sha256
from edgesnn.targets.errors import EdgesnnError

NAME = "cifar10-jpeg"
TITLE = "CIFAR-10 (JPEG q75)"  # what reports say: accuracies are not those of the lossless images
PACK = "cifar10_jpeg.npz"


def load_jpeg_pack(split: str, folder: Path) -> Dataset:
    """The split of <folder>/cifar10_jpeg.npz: jpeg_<split>, off_<split>, y_<split>.

    Image i is the JPEG file jpeg[off[i]:off[i+1]]. EdgesnnError for a missing or damaged pack.
    """
    path = folder / PACK
    if not path.is_file():
        raise EdgesnnError(
            f"{NAME}: {PACK} is not in {folder}; put it there, or name its folder with --data-dir "
            "or EDGESNN_DATA"
        )
    arrays = read_arrays(path, (f"jpeg_{split}", f"off_{split}", f"y_{split}"))
    packed, y = arrays[f"jpeg_{split}"], arrays[f"y_{split}"]
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise EdgesnnError(f"{path}: jpeg_{split} is {packed.dtype}{packed.shape}, not bytes")
    offsets = pieces(path, f"off_{split}", arrays[f"off_{split}"], len(packed))
    x = cached(f"{NAME}-{split}", sha256(path)[:32], lambda: _decode(path, packed, offsets))
    return checked(NAME, split, x, y, CIFAR10_CLASSES, SCALE)


def _decode(path: Path, packed: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """uint8[N, 32, 32, 3] of the JPEG files in `packed`."""
    try:
        from PIL import Image
    except ImportError:
        raise EdgesnnError(
            f"{NAME}: Pillow is missing; pip install 'edgesnn[train]' brings it"
        ) from None
    out = np.empty((len(offsets) - 1, SIDE, SIDE, 3), np.uint8)
    raw = packed.tobytes()
    for i in range(len(out)):
        try:
            with Image.open(
                io.BytesIO(raw[offsets[i] : offsets[i + 1]]), formats=("JPEG",)
            ) as file:
                if (file.mode, file.size) != ("RGB", (SIDE, SIDE)):
                    raise ValueError(f"it is {file.mode} {file.size}")
                out[i] = np.asarray(file)
        except Exception as error:  # Pillow raises many kinds for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise EdgesnnError(
                f"{path}: image {i} is no {SIDE}x{SIDE} RGB JPEG: {reason}"
            ) from None
    return out
