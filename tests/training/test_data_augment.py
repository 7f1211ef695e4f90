"""Augmentation: the same random numbers as ever, signals along their length, kornia's policies."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from edgesnn.data import augment
from edgesnn.data.augment import augmented, check_augmentation, shift_reach, shifted
from edgesnn.targets.errors import EdgesnnError, UsageError

DTYPES = (torch.uint8, torch.int8, torch.int16)


def images(n: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    info = torch.iinfo(dtype)
    random = torch.Generator().manual_seed(1)
    shape = (n, channels, height, width)
    return torch.randint(info.min, info.max + 1, shape, generator=random).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_signals_move_along_their_length_only(dtype: torch.dtype) -> None:
    x = torch.zeros(100, 3, 1, 20, dtype=dtype)
    x[:, :, 0, 10] = torch.tensor([1, 2, 3], dtype=dtype)
    moved = augmented(x, "shift", 2, torch.Generator().manual_seed(0), fill=0)
    assert moved.shape == x.shape and moved.dtype == dtype
    places = {tuple(p) for p in moved[:, 1].nonzero()[:, 1:].tolist()}
    assert places == {(0, 10 + d) for d in range(-2, 3)}
    assert torch.equal(moved.sum(dim=(2, 3)), x.sum(dim=(2, 3)))


def test_what_moves_in_is_the_zero_point() -> None:
    x = torch.full((50, 1, 1, 9), 5, dtype=torch.int8)
    moved = shifted(x, 3, torch.Generator().manual_seed(0), fill=-7)
    assert set(moved.unique().tolist()) == {-7, 5}


def test_reach() -> None:
    assert [shift_reach(s) for s in ((28, 28, 1), (8, 8, 1), (28, 14, 1), (1, 140, 6))] == [
        2, 0, 1, 10,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "shift", "flip"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_and_shift(kind: str, dtype: torch.dtype) -> None:
    x = images(40, 2, 5, 6, dtype)
    random = torch.Generator().manual_seed(4)
    changed = augmented(x, kind, 1, random)
    assert changed.dtype == dtype
    random = torch.Generator().manual_seed(4)
    expected = x
    if kind != "none":
        by = torch.randint(0, 3, (2, 40), generator=random)
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        rows = zip(padded, by[0].tolist(), by[1].tolist(), strict=True)
        expected = torch.stack([p[:, i : i + 5, j : j + 6] for p, i, j in rows])
    if kind == "flip":
        mirrored = torch.rand(40, generator=random) < 0.5
        pairs = zip(expected, mirrored.tolist(), strict=True)
        expected = torch.stack([p.flip(2) if m else p for p, m in pairs])
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("kind", augment.POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_are_decided_by_the_generator_alone(kind: str, channels: int) -> None:
    pytest.importorskip("kornia")
    x = images(20, channels, 16, 16, torch.uint8)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = augmented(x, kind, 1, torch.Generator().manual_seed(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(augmented(x, kind, 1, torch.Generator().manual_seed(3)), first)
    assert not torch.equal(augmented(x, kind, 1, torch.Generator().manual_seed(5)), first)
    assert (first.shape, first.dtype) == (x.shape, torch.uint8)
    flipped = augmented(x, "flip", 1, torch.Generator().manual_seed(3))
    assert not torch.equal(first, flipped)


@pytest.mark.parametrize(
    ("kind", "dtype", "shape", "message"),
    [
        ("flip", "int16", (1, 50, 3), "a mirrored signal is another signal"),
        ("randaugment", "uint8", (1, 50, 3), "takes uint8 images of 1 or 3 channels"),
        ("randaugment", "int8", (9, 9, 3), "not int8 9x9x3"),
        ("autoaugment", "uint8", (34, 34, 2), "not uint8 34x34x2"),
        ("mirror", "uint8", (9, 9, 1), "one of none, shift, flip, randaugment, autoaugment"),
    ],
)
def test_what_does_not_suit_the_data(
    kind: str, dtype: str, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_augmentation(kind, dtype, shape)
    assert "\n" not in str(caught.value)
    x = torch.zeros(2, shape[2], *shape[:2], dtype=getattr(torch, dtype))
    with pytest.raises(UsageError, match=message):
        augmented(x, kind, 0, torch.Generator())


def test_without_kornia(monkeypatch: pytest.MonkeyPatch) -> None:
    augment._policy.cache_clear()
    monkeypatch.setitem(sys.modules, "kornia.augmentation.auto", None)
    with pytest.raises(EdgesnnError, match=r"kornia is missing; pip install 'edgesnn\[train\]'"):
        augmented(
            images(2, 1, 8, 8, torch.uint8), "randaugment", 0, torch.Generator().manual_seed(0)
        )
