"""CIFAR-10 and CIFAR-100 as published: the binary or the Python version, packed or unpacked."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.data.dataset import Dataset, checked
from edgesnn.targets.errors import EdgesnnError

SIDE = 32
PIXELS = 3 * SIDE * SIDE  # the red plane, the green, the blue
SCALE = 1.0 / 255.0


@dataclass(frozen=True)
class CifarSet:
    """A published set. rows: images in each file; label_bytes: labels before an image, ours last.

    binary, python: folder, archive and the archive's md5 (as the data set's page lists them).
    files: the files of a split in the Python version; the binary version adds ".bin".
    """

    name: str
    class_names: tuple[str, ...]
    binary: tuple[str, str, str]
    python: tuple[str, str, str]
    files: dict[str, tuple[str, ...]]
    rows: dict[str, int]
    label_bytes: int
    label_key: str


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_FINE_LABELS = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
CIFAR100_CLASSES = tuple(_FINE_LABELS.split())
CIFAR10 = CifarSet(
    name="cifar10",
    class_names=CIFAR10_CLASSES,
    binary=(
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    python=(
        "cifar-10-batches-py", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a",
    ),
    files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    rows={"train": 10_000, "test": 10_000},
    label_bytes=1,
    label_key="labels",
)  # fmt: skip
CIFAR100 = CifarSet(
    name="cifar100",
    class_names=CIFAR100_CLASSES,
    binary=("cifar-100-binary", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    python=("cifar-100-python", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    files={"train": ("train",), "test": ("test",)},
    rows={"train": 50_000, "test": 10_000},
    label_bytes=2,  # the coarse label, then the fine one
    label_key="fine_labels",
)


def load_cifar(which: CifarSet, split: str, folder: Path) -> Dataset:
    """The split from `folder`: the binary version if it is there, else the Python version.

    Either unpacked or the published .tar.gz, whose md5 is compared. Unpacked files are checked by
    their sizes and labels. EdgesnnError for missing or damaged files.
    """
    for (sub, archive, md5), suffix in ((which.binary, ".bin"), (which.python, "")):
        names = [f + suffix for f in which.files[split]]
        if (folder / sub).is_dir():
            raw = _from_folder(folder / sub, names)
        elif (folder / archive).is_file():
            raw = _from_archive(folder / archive, sub, names, md5)
        else:
            continue
        read = _binary if suffix else _python
        parts = [read(which, split, name, data) for name, data in raw.items()]
        planes = np.concatenate([x for x, _ in parts]).reshape(-1, 3, SIDE, SIDE)
        labels = np.concatenate([y for _, y in parts])
        return checked(
            which.name, split, planes.transpose(0, 2, 3, 1), labels, which.class_names, SCALE
        )
    raise EdgesnnError(
        f"{which.name}: none of {which.binary[0]}/, {which.binary[1]}, {which.python[0]}/ and "
        f"{which.python[1]} is in {folder}; put one there, or name its folder with --data-dir or "
        "EDGESNN_DATA"
    )


def _from_folder(folder: Path, names: list[str]) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise EdgesnnError(f"{error.filename} cannot be read: {error.strerror}") from None


def _from_archive(path: Path, sub: str, names: list[str], md5: str) -> dict[str, bytes]:
    try:
        packed = path.read_bytes()
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5:
            raise EdgesnnError(f"{path} is not the published archive (its checksum differs)")
        found: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            # In the archive's own order: going back would unpack it again from its start.
            for member in archive:
                name = member.name.removeprefix("./").removeprefix(f"{sub}/")
                if name in names and (file := archive.extractfile(member)) is not None:
                    found[name] = file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise EdgesnnError(f"{path} cannot be read: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise EdgesnnError(f"{path} does not hold {sub}/{missing[0]}")
    return {name: found[name] for name in names}


def _binary(which: CifarSet, split: str, name: str, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    rows, width = which.rows[split], which.label_bytes + PIXELS
    if len(raw) != rows * width:
        raise EdgesnnError(f"{which.name}: {name} has {len(raw)} bytes, not {rows * width}")
    table = np.frombuffer(raw, np.uint8).reshape(rows, width)
    return table[:, which.label_bytes :], table[:, which.label_bytes - 1]


def _python(which: CifarSet, split: str, name: str, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = _Batch(io.BytesIO(raw), encoding="bytes").load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in table.items()}
        x, y = named["data"], np.asarray(named[which.label_key])
        if type(x) is not np.ndarray or x.dtype != np.uint8:
            raise ValueError("its data is no array of bytes")
        if x.shape != (which.rows[split], PIXELS) or y.shape != x.shape[:1]:
            raise ValueError(f"it holds {x.shape} bytes and {y.shape} labels")
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise EdgesnnError(f"{which.name}: {name} is no batch of images: {reason}") from None
    return x, y


class _Batch(pickle.Unpickler):
    """Reads dicts, lists, text, numbers and plain arrays; refuses whatever else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct = np.empty(0).__reduce__()[0]
        assert callable(reconstruct)
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the old pickle formats."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding[:20]!r}")
    return text.encode("latin1")
