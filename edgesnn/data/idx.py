"""MNIST and Fashion-MNIST from an .npz or the original idx files, checksums compared."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import struct
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesnn.data.dataset import Dataset, checked
from edgesnn.data.folders import check_writable
from edgesnn.data.npz import read_arrays
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError

FILES = {
    ("train", "x"): "train-images-idx3-ubyte",
    ("train", "y"): "train-labels-idx1-ubyte",
    ("test", "x"): "t10k-images-idx3-ubyte",
    ("test", "y"): "t10k-labels-idx1-ubyte",
}
SOURCE_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class IdxSet:
    """A published data set in idx files. md5: of the unpacked idx file of each split and array."""

    name: str
    npz: tuple[str, ...]
    folders: tuple[str, ...]
    url: str
    class_names: tuple[str, ...]
    md5: dict[tuple[str, str], str]


MNIST = IdxSet(
    name="mnist",
    npz=("mnist.npz",),
    folders=("mnist", "MNIST/raw"),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    class_names=tuple(str(n) for n in range(10)),
    md5={
        ("train", "x"): "6bbc9ace898e44ae57da46a324031adb",
        ("train", "y"): "a25bea736e30d166cdddb491f175f624",
        ("test", "x"): "2646ac647ad5339dbf082846283269ea",
        ("test", "y"): "27ae3e4e09519cfbb04c329615203637",
    },
)
FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    npz=("fashion-mnist.npz", "fashion_mnist.npz"),
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    md5={
        ("train", "x"): "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        ("train", "y"): "9018921c3c673c538a1fc5bad174d6f9",
        ("test", "x"): "8181f5470baa50b63fa0f6fddb340f0a",
        ("test", "y"): "15d484375f8d13e6eb1aabb0c3f46965",
    },
)  # fmt: skip


def idx_bytes(array: np.ndarray) -> bytes:
    """The idx file of a uint8 array: 0, 0, type 8, axes, big-endian sizes, samples."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + np.ascontiguousarray(array, dtype=np.uint8).tobytes()


def parse_idx(raw: bytes, path: Path) -> np.ndarray:
    """The uint8 array (a copy) of an idx file's bytes; EdgesnnError naming `path` if it is none."""
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 4:
        raise EdgesnnError(f"{path} is not an idx file of unsigned bytes")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise EdgesnnError(f"{path} is truncated")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise EdgesnnError(
            f"{path} holds {len(raw) - start} samples, its header says {math.prod(shape)}"
        )
    if 0 in shape:
        raise EdgesnnError(f"{path} holds no samples")
    # frombuffer is read-only, and torch warns about every read-only array it is given.
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of an idx file, unpacked first if it ends in .gz."""
    try:
        raw = path.read_bytes()
        return parse_idx(gzip.decompress(raw) if path.suffix == ".gz" else raw, path)
    except (OSError, EOFError, zlib.error) as error:
        raise EdgesnnError(f"{path} cannot be read: {error}") from None


def load_idx_set(which: IdxSet, split: str, folder: Path, download: bool) -> Dataset:
    """The split from `folder`: <name>.npz, or idx files there or in a sub-folder, plain or .gz.

    Missing or damaged files are downloaded into <folder>/<name>/ only when `download` is true.
    Files whose checksum is not the published one are refused.
    """
    arrays: dict[str, np.ndarray] = {}
    archive = next((folder / n for n in which.npz if (folder / n).is_file()), None)
    if archive is not None:
        read = read_arrays(archive, (f"x_{split}", f"y_{split}"))
        for kind in ("x", "y"):
            arrays[kind] = read[f"{kind}_{split}"]
            _check(which, split, kind, arrays[kind], archive)
    else:
        places = [folder / f for f in which.folders] + [folder]
        for kind in ("x", "y"):
            arrays[kind] = _find_idx(which, split, kind, places, folder, download)
    return checked(which.name, split, arrays["x"], arrays["y"], which.class_names, 1.0 / 255.0)


def _find_idx(
    which: IdxSet, split: str, kind: str, places: list[Path], folder: Path, download: bool
) -> np.ndarray:
    name = FILES[split, kind]
    wrong: EdgesnnError | None = None
    for place in places:
        for path in (place / name, place / f"{name}.gz"):
            if not path.is_file():
                continue
            try:
                array = read_idx(path)
                # MNIST and Fashion-MNIST use the same file names: one of the other set is not ours.
                _check(which, split, kind, array, path)
            except EdgesnnError as error:
                wrong = error
                continue
            return array
    if download:
        return _download(which, split, kind, folder / which.name)
    if wrong is not None:
        raise wrong
    raise EdgesnnError(
        f"{which.name}: neither {which.npz[0]} nor {name}[.gz] is in {folder}; put it there, "
        "name its folder with --data-dir or EDGESNN_DATA, or have "
        f"`edgesnn train --net mcu-mlp --data {which.name} --download` fetch it"
    )


def _check(which: IdxSet, split: str, kind: str, array: np.ndarray, path: Path) -> None:
    expected = which.md5[split, kind]
    found = (
        hashlib.md5(idx_bytes(array), usedforsecurity=False).hexdigest()
        if array.dtype == np.uint8
        else ""
    )
    if found != expected:
        raise EdgesnnError(
            f"{path}: {kind}_{split} is not the published {which.name} (its checksum differs)"
        )


def _download(which: IdxSet, split: str, kind: str, folder: Path) -> np.ndarray:
    name = f"{FILES[split, kind]}.gz"
    url = which.url + name
    check_writable(folder / name)
    try:
        with urllib.request.urlopen(url, timeout=SOURCE_TIMEOUT) as reply:
            packed = reply.read()
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = (str(error).split("\n", 1)[0].strip() or type(error).__name__)[:200]
        raise EdgesnnError(
            f"{url} cannot be fetched ({reason}); put {name} into {folder}"
        ) from None
    try:
        array = parse_idx(gzip.decompress(packed), Path(name))
    except (OSError, EOFError, zlib.error):
        raise EdgesnnError(f"{url} did not send a gzip file; put {name} into {folder}") from None
    _check(which, split, kind, array, Path(url))
    write_atomic(folder / name, packed)
    return array
