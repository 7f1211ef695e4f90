"""Data sets: the bundled digits, idx files and archives in a folder, and bad data in one line."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import urllib.error
import urllib.request
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.data import load, loading
from edgesnn.data.dataset import stratified_split
from edgesnn.data.idx import FASHION_MNIST, FILES, MNIST, IdxSet, idx_bytes
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.evaluate_float import samples_tensor

Arrays = dict[tuple[str, str], np.ndarray]


def md5_of(array: np.ndarray) -> str:
    return hashlib.md5(idx_bytes(array), usedforsecurity=False).hexdigest()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """Small stand-ins for MNIST and Fashion-MNIST whose checksums are the expected ones."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, n in (("train", 30), ("test", 20)):
        arrays[split, "x"] = rng.integers(0, 256, (n, 6, 6), dtype=np.uint8)
        arrays[split, "y"] = rng.integers(0, 10, n, dtype=np.uint8)
    md5 = {
        k: hashlib.md5(idx_bytes(a), usedforsecurity=False).hexdigest() for k, a in arrays.items()
    }
    inverted = {k: idx_bytes(255 - a if k[1] == "x" else a) for k, a in arrays.items()}
    fashion = {k: hashlib.md5(b, usedforsecurity=False).hexdigest() for k, b in inverted.items()}
    sets: dict[str, IdxSet] = {
        "mnist": replace(MNIST, md5=md5),
        "fashion-mnist": replace(FASHION_MNIST, md5=fashion),
    }
    monkeypatch.setattr(loading, "_IDX_SETS", sets)
    monkeypatch.delenv("EDGESNN_DATA", raising=False)
    return arrays


def write_idx(folder: Path, arrays: Arrays, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        raw = idx_bytes(array)
        name = FILES[key] + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(raw) if packed else raw)


def test_digits_is_split_once_and_for_all() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1438, 359)
    assert (train.shape, train.classes, train.scale) == ((8, 8, 1), 10, 1 / 16)
    assert (train.x.dtype, train.y.dtype, int(train.x.max())) == (np.uint8, np.int64, 16)
    assert np.bincount(test.y).min() >= 34
    assert hashlib.sha256(test.x.tobytes()).hexdigest()[:16] == "ee4de68731018275"
    both = np.concatenate([train.x, test.x]).reshape(1797, -1)
    assert len(np.unique(both, axis=0)) == 1797  # nothing is in both


def test_the_idx_header_is_the_published_one() -> None:
    head = idx_bytes(np.zeros((2, 3, 4), np.uint8))[:16]
    assert head == bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("folder", [".", "mnist", "MNIST/raw"])
def test_idx_files(small: Arrays, tmp_path: Path, packed: bool, folder: str) -> None:
    write_idx(tmp_path / folder, small, packed)
    for split in ("train", "test"):
        data = load("mnist", split, tmp_path)
        assert np.array_equal(data.x[..., 0], small[split, "x"])
        assert np.array_equal(data.y, small[split, "y"])
        assert (data.scale, data.shape) == (1 / 255, (6, 6, 1))


def test_npz_in_the_folder_of_the_environment(
    small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverted = {k: 255 - a if k[1] == "x" else a for k, a in small.items()}
    arrays: dict[str, Any] = {f"{kind}_{split}": a for (split, kind), a in inverted.items()}
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    monkeypatch.setenv("EDGESNN_DATA", str(tmp_path))
    data = load("fashion-mnist", "test")
    assert np.array_equal(data.x[..., 0], inverted["test", "x"])
    assert data.class_names[9] == "Ankle boot"


def test_the_two_sets_of_the_same_file_names_are_told_apart(small: Arrays, tmp_path: Path) -> None:
    write_idx(tmp_path, small, packed=False)
    with pytest.raises(EdgesnnError, match="not the published fashion-mnist"):
        load("fashion-mnist", "test", tmp_path)


def test_missing_files_name_folder_file_and_flag(small: Arrays, tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError) as caught:
        load("mnist", "train", tmp_path)
    for word in (str(tmp_path), "mnist.npz", FILES["train", "x"], "--data-dir", "--download"):
        assert word in str(caught.value)


def test_download_only_on_demand_and_checked(
    small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = {FILES[k] + ".gz": gzip.compress(idx_bytes(a)) for k, a in small.items()}
    asked: list[str] = []

    def fetch(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(replies[url.rsplit("/", 1)[1]])

    monkeypatch.setattr(urllib.request, "urlopen", fetch)
    data = load("mnist", "test", tmp_path, download=True)
    assert np.array_equal(data.x[..., 0], small["test", "x"])
    assert len(asked) == 2
    load("mnist", "test", tmp_path)  # now from disk
    assert len(asked) == 2
    replies[FILES["train", "x"] + ".gz"] = gzip.compress(idx_bytes(small["test", "x"]))
    with pytest.raises(EdgesnnError, match="checksum"):
        load("mnist", "train", tmp_path, download=True)
    assert len(list((tmp_path / "mnist").iterdir())) == 2  # what failed was not kept

    def dead(url: str, timeout: float) -> io.BytesIO:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", dead)
    with pytest.raises(EdgesnnError, match="cannot be fetched"):
        load("mnist", "train", tmp_path, download=True)


@pytest.mark.parametrize(
    "raw", [b"", b"\0\0\x09\x01", idx_bytes(np.zeros((3, 4, 4), np.uint8))[:-1]]
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx(small: Arrays, tmp_path: Path, raw: bytes, packed: bool) -> None:
    name = FILES["test", "x"] + (".gz" if packed else "")
    (tmp_path / name).write_bytes(gzip.compress(raw)[:-9] if packed else raw)
    with pytest.raises(EdgesnnError) as caught:
        load("mnist", "test", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [http.client.IncompleteRead(b"a", 9), http.client.BadStatusLine("")]
)
def test_a_broken_reply_is_one_line(
    small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Reply(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise error

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Reply())
    with pytest.raises(EdgesnnError, match="cannot be fetched") as caught:
        load("mnist", "test", tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_before_the_download(
    small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, timeout: float) -> io.BytesIO:
        raise AssertionError("fetched what cannot be kept")

    monkeypatch.setattr(urllib.request, "urlopen", fetch)
    (tmp_path / "file").write_text("x")
    with pytest.raises(EdgesnnError, match="cannot write") as caught:
        load("mnist", "test", tmp_path / "file", download=True)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_downloaded_again(
    small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = {FILES[k] + ".gz": gzip.compress(idx_bytes(a)) for k, a in small.items()}
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, timeout: io.BytesIO(replies[url.rsplit("/", 1)[1]])
    )
    damaged = tmp_path / "mnist" / f"{FILES['test', 'x']}.gz"
    damaged.parent.mkdir()
    damaged.write_bytes(b"\x1f\x8btruncated")
    with pytest.raises(EdgesnnError, match="cannot be read"):
        load("mnist", "test", tmp_path)
    load("mnist", "test", tmp_path, download=True)
    assert np.array_equal(load("mnist", "test", tmp_path).x[..., 0], small["test", "x"])
    umask = os.umask(0)
    os.umask(umask)
    assert damaged.stat().st_mode & 0o777 == 0o666 & ~umask  # others may read what is shared


def test_samples_of_idx_files_can_be_given_to_torch(small: Arrays, tmp_path: Path) -> None:
    write_idx(tmp_path, small, packed=True)
    data = load("mnist", "test", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns about arrays that cannot be written
        assert samples_tensor(data.x[:3], data.scale).shape == (3, 1, 6, 6)


def good() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    out: dict[str, Any] = {}
    for split in ("train", "test"):
        out[f"x_{split}"] = rng.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)
        out[f"y_{split}"] = np.arange(12) % 3
    return out


def test_a_users_archive(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **good(), class_names=np.array(["a", "b", "c"]))
    data = load(str(path), "train")
    assert (data.name, data.shape, data.class_names) == ("mine", (5, 4, 3), ("a", "b", "c"))
    assert np.array_equal(data.x, good()["x_train"])


def with_value(row: int, value: float) -> np.ndarray:
    x = np.zeros((12, 5, 4, 3))
    x[row:, 2] = value
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_test": np.zeros((12, 5, 4, 3))}, "x_test is float64: uint8, int8, int16"),
        ({"x_test": with_value(7, np.nan)}, r"x_test is float64 \(row 7 holds NaN\): uint8"),
        ({"x_test": with_value(3, -np.inf)}, r"\(row 3 holds infinity\)"),
        ({"x_test": np.zeros((12, 5, 4, 3), np.uint16)}, "x_test is uint16: uint8, int8, int16"),
        ({"x_test": np.zeros((12, 5, 4, 3), bool)}, "x_test is bool"),
        ({"x_test": np.zeros((12, 5), np.uint8), "x_train": None}, "shape"),
        ({"x_test": np.zeros((0, 5, 4, 3), np.uint8)}, "of one and more"),
        (
            {"x_test": np.zeros((12, 5, 5, 3), np.uint8)},
            r"x_train are uint8 \(5, 4, 3\), of x_test",
        ),
        ({"x_test": np.zeros((12, 5, 4, 3), np.int16)}, "of x_test int16"),
        ({"y_test": np.zeros(11, np.int64)}, "x_test has 12 rows, y_test has 11"),
        ({"y_test": np.array([0.0, np.nan, 1.0])}, r"float64\(3,\) \(row 1 holds NaN\)"),
        ({"y_test": np.zeros(12)}, "labels"),
        ({"y_test": np.full(12, -1)}, "row 0 of y_test has label -1, outside 0...2"),
        ({"y_train": np.where(np.arange(12) == 5, -2, 0)}, "row 5 of y_train has label -2"),
        ({"y_test": np.full(12, 2), "class_names": np.array(["a", "b"])}, "2 classes"),
        (
            {"class_names": np.array(["a", "b", "c", "cat"])},
            r"class 3 \(cat\) has no sample in y_tr",
        ),
        ({"y_test": np.full(12, 4)}, "class 3 has no sample in y_train"),
        ({"x_test": None}, "no array x_test"),
        ({"y_test": np.array([object()] * 12)}, "not a readable"),
        ({"x_train": np.array([object()] * 12)}, "of x_test uint8"),
        ({"y_train": np.full(12, -1).astype(np.uint32)}, "label 4294967295"),
        ({"y_test": np.full(12, 60_000_000)}, "row 0 of y_test has label 60000000"),
        ({"y_train": np.full(12, 2**64 - 1, np.uint64)}, "label"),
        (
            {"y_test": np.full(12, 2**64 - 1, np.uint64), "class_names": np.array(list("abc"))},
            "3 classes",
        ),
        ({"class_names": np.array(["a\nb", "c", "d"])}, "printable"),
        ({"x_test": np.zeros(12, [("a", "u1")])}, "uint8, int8, int16"),
        ({"layout": np.array("CHWN")}, "'CHWN', not one of NHW, NHWC, NCHW, NCL"),
        ({"layout": np.array(["NHWC", "NCHW"])}, "not one of"),
        ({"layout": np.array("NCL")}, "its layout NCL 3 axes"),
        ({"scale": np.array(0.0)}, "scale is 0.0, not one number above 0"),
        ({"scale": np.array(np.nan)}, "scale is nan"),
        ({"scale": np.array([1.0, 2.0])}, "scale"),
        ({"scale": np.array("big")}, "scale is big"),
        ({"zero_point": np.array(256)}, r"zero_point is 256, not one uint8 \(0...255\)"),
        ({"zero_point": np.array(0.5)}, "zero_point is 0.5"),
    ],
)
def test_bad_archives(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {k: v for k, v in {**good(), **change}.items() if v is not None}
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(EdgesnnError, match=message) as caught:
        load(str(tmp_path / "mine.npz"), "test")
    assert "\n" not in str(caught.value)


def npy(shape: str, descr: str = "'|u1'", data: bytes = b"abc") -> bytes:
    """A .npy file with that header, whatever it says."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


@pytest.mark.parametrize(
    "member",
    [
        b"hello world",
        b"",
        npy("(10000000000000,)"),
        npy("(1000, 1000, 30000)"),
        npy("(1" + 30 * "0" + ",)"),
        npy("(-1,)"),
        npy("(("),
        npy(3000 * "(" + 3000 * ")"),
        npy("(3,)", "'zz'"),
        npy("(3,)", "'|O'"),
        npy("(3,)", "'|V0'"),
        npy("(3,)", data=b"ab"),
    ],
)
def test_damaged_members_are_one_line(tmp_path: Path, member: bytes) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **good())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["x_test.npy"] = member
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    with pytest.raises(EdgesnnError, match="not a readable") as caught:
        load(str(path), "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)])  # encrypted; unknown compression
def test_archives_of_other_kinds_are_one_line(tmp_path: Path, offset: int, value: int) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **good())
    raw = bytearray(path.read_bytes())
    at = -1
    while (at := raw.find(b"PK\x01\x02", at + 1)) >= 0:  # the entries of the central directory
        raw[at + offset] |= value
    path.write_bytes(raw)
    with pytest.raises(EdgesnnError, match="not a readable") as caught:
        load(str(path), "test")
    assert "\n" not in str(caught.value)


def test_archives_however_numpy_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    arrays = {**good(), "y_test": (np.arange(12) % 3).astype(">i4")}
    arrays["x_test"] = np.asfortranarray(arrays["x_test"])
    np.savez_compressed(path, **arrays)
    data = load(str(path), "test")
    assert np.array_equal(data.x, good()["x_test"])
    assert np.array_equal(data.y, arrays["y_test"])
    assert data.x.flags.writeable
    np.save(tmp_path / "one.npy", good()["x_test"])
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(EdgesnnError, match="single array"):
        load(str(tmp_path / "one.npz"), "test")


def test_what_is_not_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="digits, mnist, fashion-mnist"):
        load("elephants", "test")
    with pytest.raises(UsageError, match=r"unknown data set 'minst'; did you mean mnist\?"):
        load("minst", "test")
    with pytest.raises(UsageError, match="train, test"):
        load("digits", "val")
    with pytest.raises(EdgesnnError, match="no such file"):
        load(str(tmp_path / "none.npz"), "test")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(EdgesnnError, match="not a readable"):
        load(str(tmp_path / "text.npz"), "test")


def test_stratified_split_is_fixed_and_keeps_the_classes() -> None:
    y = np.repeat(np.arange(5), 40)
    kept, held = stratified_split(y, 0.25, seed=3)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(200))
    assert np.bincount(y[held]).tolist() == [10] * 5
    assert np.array_equal(held, stratified_split(y, 0.25, seed=3)[1])
    assert not np.array_equal(held, stratified_split(y, 0.25, seed=4)[1])


def test_small_classes_are_held_out_too() -> None:
    y = np.repeat(np.arange(5), [1, 2, 3, 4, 40])
    kept, held = stratified_split(y, 0.15, seed=0)
    assert np.bincount(y[held], minlength=5).tolist() == [0, 1, 1, 1, 6]
    assert np.bincount(y[kept]).min() >= 1
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(50))
