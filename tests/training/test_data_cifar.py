"""CIFAR-10 and CIFAR-100 in all their formats, and the JPEG pack with its cache."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.data import cache, jpeg_pack, load, loading
from edgesnn.data.cifar import CIFAR10, CIFAR100, CifarSet, _Batch
from edgesnn.targets.errors import EdgesnnError

ROWS = {"train": 4, "test": 3}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 4 and 3 images instead of thousands."""
    sets = {s.name: replace(s, rows=ROWS) for s in (CIFAR10, CIFAR100)}
    monkeypatch.setattr(loading, "_CIFAR_SETS", sets)


def arrays(which: CifarSet, split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8[N, 32, 32, 3] and labels of all files of a split."""
    rng = np.random.default_rng(len(split))
    n = ROWS[split] * len(which.files[split])
    x = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return x, rng.integers(0, len(which.class_names), n)


def files(which: CifarSet, split: str, binary: bool) -> dict[str, bytes]:
    out = {}
    x, y = arrays(which, split)
    planes = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    for i, name in enumerate(which.files[split]):
        rows = slice(i * ROWS[split], (i + 1) * ROWS[split])
        if binary:
            labels = np.zeros((ROWS[split], which.label_bytes), np.uint8)
            labels[:, -1] = y[rows]
            out[f"{name}.bin"] = np.hstack([labels, planes[rows]]).tobytes()
        else:
            table = {
                b"data": planes[rows],
                b"batch_label": b"testing",
                which.label_key.encode(): y[rows].tolist(),
                b"coarse_labels": [0] * ROWS[split],
            }
            out[name] = pickle.dumps(table, protocol=2)
    return out


def write(folder: Path, which: CifarSet, binary: bool, packed: bool) -> CifarSet:
    sub, archive, _ = which.binary if binary else which.python
    content = {**files(which, "test", binary), **files(which, "train", binary)}
    if not packed:
        (folder / sub).mkdir()
        for name, raw in content.items():
            (folder / sub / name).write_bytes(raw)
        return which
    with tarfile.open(folder / archive, "w:gz") as out:
        for name, raw in content.items():
            info = tarfile.TarInfo(f"{sub}/{name}")
            info.size = len(raw)
            out.addfile(info, io.BytesIO(raw))
    md5 = hashlib.md5((folder / archive).read_bytes(), usedforsecurity=False).hexdigest()
    if binary:
        return replace(which, binary=(sub, archive, md5))
    return replace(which, python=(sub, archive, md5))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_every_format_gives_the_same(
    small: None, tmp_path: Path, name: str, binary: bool, packed: bool
) -> None:
    which = loading._CIFAR_SETS[name]
    loading._CIFAR_SETS[name] = write(tmp_path, which, binary, packed)
    for split in ("train", "test"):
        x, y = arrays(which, split)
        data = load(name, split, tmp_path)
        assert np.array_equal(data.x, x) and np.array_equal(data.y, y)
        assert (data.shape, data.dtype, data.classes) == ((32, 32, 3), "uint8", int(name[5:]))


def test_classes_are_the_published_ones() -> None:
    assert CIFAR10.class_names[3] == "cat" and len(set(CIFAR10.class_names)) == 10
    assert list(CIFAR100.class_names) == sorted(set(CIFAR100.class_names))
    assert (len(CIFAR100.class_names), CIFAR100.class_names[42]) == (100, "leopard")


def test_what_is_missing_or_damaged(small: None, tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match=r"cifar-10-binary\.tar\.gz") as caught:
        load("cifar10", "test", tmp_path)
    assert "--data-dir" in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"nothing")
    with pytest.raises(EdgesnnError, match="checksum"):
        load("cifar10", "test", tmp_path)
    write(tmp_path, CIFAR10, binary=True, packed=False)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(EdgesnnError, match="9218 bytes, not 9219"):
        load("cifar10", "test", tmp_path)
    path.write_bytes(b"\x0b" + raw[1:])
    with pytest.raises(EdgesnnError, match="row 0 of y_test has label 11"):
        load("cifar10", "test", tmp_path)
    path.unlink()
    with pytest.raises(EdgesnnError, match=r"test_batch\.bin cannot be read"):
        load("cifar10", "test", tmp_path)


def test_an_archive_that_is_none_or_lacks_a_file(small: None, tmp_path: Path) -> None:
    for raw, message in ((b"no archive", "cannot be read"), (b"", "cannot be read")):
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(raw)
        md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        which = replace(CIFAR10, binary=(*CIFAR10.binary[:2], md5))
        loading._CIFAR_SETS["cifar10"] = which
        with pytest.raises(EdgesnnError, match=message) as caught:
            load("cifar10", "test", tmp_path)
        assert "\n" not in str(caught.value)
    other = write(tmp_path, replace(CIFAR10, files={"train": ("y",), "test": ("x",)}), True, True)
    loading._CIFAR_SETS["cifar10"] = replace(other, files=CIFAR10.files)
    with pytest.raises(EdgesnnError, match="does not hold"):
        load("cifar10", "test", tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Evil(), "asks for posix.mkdir|asks for nt.mkdir"),
        ({"data": Evil(), "labels": [0]}, "asks for"),
        ([1, 2], "items"),
        ({"data": np.zeros((3, 3072)), "labels": [0] * 3}, "no array of bytes"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0] * 3}, r"\(2, 3072\)"),
        ({"data": np.zeros((3, 3072), np.uint8)}, "labels"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [object] * 3}, "asks for builtins"),
    ],
)
def test_batches_that_hold_anything_else(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    raw = pickle.dumps(table, protocol=4)
    for content, expected in ((raw, message), (raw[: len(raw) // 2], "no batch of images")):
        path.write_bytes(content)
        with pytest.raises(EdgesnnError, match=expected) as caught:
            load("cifar10", "test", tmp_path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


def test_batches_as_python_2_and_3_pickle_them() -> None:
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for protocol in (0, 1, 2, 3, 4):
        raw = pickle.dumps({"data": x, "labels": [1, 2], "note": b"\x80"}, protocol=protocol)
        table = _Batch(io.BytesIO(raw), encoding="bytes").load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in table.items()}
        assert np.array_equal(named["data"], x) and named["note"] == b"\x80"


def jpegs(folder: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> list[np.ndarray]:
    """Write a pack of three images a split; what they decode to."""
    image = pytest.importorskip("PIL.Image")
    packed, decoded = [], []
    for i in range(3):
        file = io.BytesIO()
        image.new(mode, size, 60 * i if mode == "L" else (80 * i, 10, 200)).save(file, "JPEG")
        packed.append(np.frombuffer(file.getvalue(), np.uint8))
        decoded.append(np.asarray(image.open(file)))
    table: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        table[f"jpeg_{split}"] = np.concatenate(packed)
        table[f"off_{split}"] = np.cumsum([0, *map(len, packed)])
        table[f"y_{split}"] = np.array([4, 5, 6], np.uint8)
    np.savez(folder / jpeg_pack.PACK, **table)
    return decoded


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgesnn"


def test_jpegs_are_decoded_once(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = np.stack(jpegs(tmp_path))
    first = load("cifar10-jpeg", "test", tmp_path)
    assert np.array_equal(first.x, decoded) and first.y.tolist() == [4, 5, 6]
    (file,) = cache_dir.iterdir()
    good = file.read_bytes()

    def refuse(*_: Any) -> np.ndarray:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(jpeg_pack, "_decode", refuse)
        again = load("cifar10-jpeg", "test", tmp_path)
        assert np.array_equal(again.x, decoded) and again.x.flags.writeable
    for bad in (b"", good[:-1], good[:200] + b"\xff" + good[201:], b"x" * 100):
        file.write_bytes(bad)
        assert np.array_equal(load("cifar10-jpeg", "test", tmp_path).x, decoded)
        assert file.read_bytes() == good  # rebuilt
    jpegs(tmp_path, (32, 32))
    with np.load(tmp_path / jpeg_pack.PACK) as pack:
        table = {**pack, "y_test": np.array([1, 2, 3], np.uint8)}
    np.savez(tmp_path / jpeg_pack.PACK, **table)
    assert load("cifar10-jpeg", "test", tmp_path).y.tolist() == [1, 2, 3]
    assert len(list(cache_dir.iterdir())) == 2  # another pack, another file


def test_no_cache_folder_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    jpegs(tmp_path)
    assert len(load("cifar10-jpeg", "train", tmp_path)) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cannot write" in err and "decoded again" in err


def test_a_cache_that_cannot_be_read_as_an_array_is_rebuilt(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cache.cached("a", "k", lambda: np.arange(3))
    (file,) = cache_dir.iterdir()
    raw = b"not an array"
    file.write_bytes(raw + hashlib.sha256(raw).digest())
    assert np.array_equal(cache.cached("a", "k", lambda: np.arange(3)), built)


def test_bad_packs(tmp_path: Path, cache_dir: Path) -> None:
    with pytest.raises(EdgesnnError, match=r"cifar10_jpeg\.npz is not in"):
        load("cifar10-jpeg", "test", tmp_path)
    jpegs(tmp_path, (16, 32))
    with pytest.raises(EdgesnnError, match=r"image 0 .*RGB \(16, 32\)"):
        load("cifar10-jpeg", "test", tmp_path)
    jpegs(tmp_path, mode="L")
    with pytest.raises(EdgesnnError, match=r"image 0 .*it is L"):
        load("cifar10-jpeg", "test", tmp_path)
    jpegs(tmp_path)
    with np.load(tmp_path / jpeg_pack.PACK) as pack:
        good = dict(pack)
    off = good["off_test"]
    broken = good["jpeg_test"].copy()
    broken[off[1] : off[1] + 20] = 0
    for change, message in (
        ({"jpeg_test": broken}, "image 1 is no 32x32 RGB JPEG"),
        ({"jpeg_test": good["jpeg_test"].astype(np.int16)}, "not bytes"),
        ({"off_test": off[:-1]}, "ascending"),
        ({"off_test": off[[0, 2, 1, 3]]}, "ascending"),
        ({"off_test": off.astype(float)}, "ascending"),
        ({"y_test": np.array([1, 2, 10])}, "row 2 of y_test has label 10"),
        ({"y_test": np.array([1, 2])}, "3 rows, y_test has 2"),
    ):
        np.savez(tmp_path / jpeg_pack.PACK, **{**good, **change})
        with pytest.raises(EdgesnnError, match=message) as caught:
            load("cifar10-jpeg", "test", tmp_path)
        assert "\n" not in str(caught.value)
