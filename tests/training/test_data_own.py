"""A user's .npz: what the axes of x mean, int8 and int16 samples, scale and zero point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesnn.data import load
from edgesnn.data.npz import LAYOUTS, as_maps, guessed_layout
from edgesnn.targets.errors import EdgesnnError
from edgesnn.training.evaluate_float import samples_tensor

DTYPES = ("uint8", "int8", "int16")


def archive(path: Path, shape: tuple[int, ...], dtype: str, **more: Any) -> np.ndarray:
    """Write 6 samples a split of 2 classes to `path`; x_test."""
    limits = np.iinfo(dtype)
    x = np.random.default_rng(1).integers(limits.min, limits.max + 1, (6, *shape)).astype(dtype)
    y = np.arange(6) % 2
    np.savez(path, x_train=x[::-1], y_train=y, x_test=x, y_test=y, **more)
    return x


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "expected"),
    [
        ((9, 7), "uint8", "NHW", (9, 7, 1)),
        ((3, 50), "int16", "NCL", (1, 50, 3)),
        ((3, 50), "int8", "NCL", (1, 50, 3)),
        ((3, 9, 7), "uint8", "NCHW", (9, 7, 3)),
        ((6, 1, 50), "int16", "NCHW", (1, 50, 6)),
        ((9, 7, 3), "uint8", "NHWC", (9, 7, 3)),
        ((9, 7, 1), "int8", "NHWC", (9, 7, 1)),
        ((34, 34, 2), "uint8", "NHWC", (34, 34, 2)),
        ((3, 9, 4), "uint8", "NCHW", (9, 4, 3)),  # both could be channels: they come first
        ((3, 4, 4), "uint8", "NCHW", (4, 4, 3)),
    ],
)
def test_axes_without_a_layout(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, layout: str, expected: tuple[int, ...]
) -> None:
    path = tmp_path / "mine.npz"
    x = archive(path, shape, dtype)
    data = load(str(path), "test")
    assert (data.shape, data.dtype, data.layout) == (expected, dtype, layout)
    assert layout in data.layout_hint
    assert np.array_equal(data.x, as_maps(x, layout))
    assert data.x.flags.c_contiguous


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_file_says_its_layout(tmp_path: Path, layout: str, dtype: str) -> None:
    sizes = {"H": 5, "W": 6, "C": 3, "L": 6}
    x = archive(
        tmp_path / "mine.npz",
        tuple(sizes[axis] for axis in layout[1:]),
        dtype,
        layout=np.array(layout.lower()),
    )
    data = load(str(tmp_path / "mine.npz"), "test")
    assert data.layout == layout
    # The value of every place, told by its letters.
    for n, h, w, c in np.ndindex(*data.x.shape):
        place = {"N": n, "H": h, "W": w, "C": c, "L": w}
        assert data.x[n, h, w, c] == x[tuple(place[axis] for axis in layout)]


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_no_sample_is_lost_whatever_the_axes(shape: list[int], dtype: str, seed: int) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    x = rng.integers(limits.min, limits.max + 1, (3, *shape)).astype(dtype)
    layout = guessed_layout(x)
    assert layout is not None and len(layout) == x.ndim
    maps = as_maps(x, layout)
    assert maps.ndim == 4 and len(maps) == 3
    for one, other in zip(maps, x, strict=True):
        assert np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
    back = maps.transpose(np.argsort([a if a >= 0 else 9 for a in LAYOUTS[layout]]))
    assert np.array_equal(back.reshape(x.shape), x)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("uint8", 1 / 255), ("int8", 1 / 128), ("int16", 1 / 32768)]
)
def test_scale_and_zero_point(tmp_path: Path, dtype: str, scale: float) -> None:
    path = tmp_path / "mine.npz"
    archive(path, (2, 5), dtype)
    data = load(str(path), "train")
    assert (data.scale, data.zero_point) == (scale, 0)
    archive(
        path,
        (2, 5),
        dtype,
        scale=np.float32(0.5),
        zero_point=np.array([-3 if scale != 1 / 255 else 3]),
    )
    data = load(str(path), "train")
    assert (data.scale, abs(data.zero_point)) == (0.5, 3)
    seen = samples_tensor(data.x, data.scale, data.zero_point).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(seen, 0.5 * (data.x.astype(np.float32) - data.zero_point))


def test_samples_of_the_other_byte_order(tmp_path: Path) -> None:
    x = np.arange(-20, 20).astype(">i2").reshape(4, 2, 5)
    y = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x.astype("<i2"), y_test=y)
    data = load(str(tmp_path / "mine.npz"), "train")
    assert data.x.dtype == np.int16 and data.x.dtype.isnative
    assert np.array_equal(data.x[:, 0].transpose(0, 2, 1), x)


def test_a_test_split_alone_is_enough_to_be_tested_on(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "mine.npz", x_test=x, y_test=[2, 2], class_names=[b"a", b"b", b"c"])
    data = load(str(tmp_path / "mine.npz"), "test")
    assert data.class_names == ("a", "b", "c")
    with pytest.raises(EdgesnnError, match="no array x_train, y_train"):
        load(str(tmp_path / "mine.npz"), "train")


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 900])
def test_truncated_files(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "mine.npz"
    archive(path, (8, 8), "uint8")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(EdgesnnError, match="not a readable") as caught:
        load(str(path), "test")
    assert "\n" not in str(caught.value)
