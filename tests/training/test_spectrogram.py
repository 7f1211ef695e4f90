"""The net for spectrograms, and what training does to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgesnn.data.augment import augmented, check_augmentation, spectrogram
from edgesnn.networks.zoo import network_spec
from edgesnn.targets.errors import UsageError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tones(n: int) -> Tensor:
    """A rising line of 200 on 40."""
    x = torch.full((n, 1, 50, 24), 40, dtype=torch.uint8)
    for row in range(10, 40):
        x[:, 0, row, row // 2] = 200
    return x


def test_every_sample_is_changed_in_its_own_way() -> None:
    x = tones(64)
    changed = spectrogram(x, seeded())
    assert changed.shape == x.shape
    assert changed.dtype == torch.uint8
    assert len({row.numpy().tobytes() for row in changed}) == 64
    assert torch.equal(changed, spectrogram(x, seeded()))
    assert not torch.equal(changed, spectrogram(x, seeded(1)))
    assert torch.equal(changed, augmented(x, "spectrogram", 3, seeded()))


def test_the_line_is_still_there() -> None:
    x = tones(200)
    loudest = spectrogram(x, seeded())[:, 0].amax(dim=2)  # [N, time]
    # Rows of the middle are the line's in most samples: moved, bent, a mask over some.
    assert float((loudest[:, 20:30] > 110).float().mean()) > 0.8
    bands = spectrogram(x, seeded())[:, 0, 24:26].to(torch.int64).sum(dim=1).argmax(dim=1)
    assert float((bands - 12).abs().float().median()) <= 3


def test_level_and_noise() -> None:
    means = spectrogram(torch.full((400, 1, 30, 20), 100, dtype=torch.uint8), seeded())
    level = means.to(torch.float32).mean(dim=(1, 2, 3))
    assert 75 < float(level.min()) < 90
    assert 110 < float(level.max()) < 150
    edge = torch.full((50, 1, 30, 20), 255, dtype=torch.uint8)
    assert int(spectrogram(edge, seeded()).max()) == 255  # clipped, no wrap


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int16", (50, 24, 1)), ("uint8", (1, 64, 1)), ("uint8", (50, 24, 3))]
)
def test_it_is_for_spectrograms(dtype: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="spectrogram takes uint8 maps of 1 channel"):
        check_augmentation("spectrogram", dtype, shape)


def test_the_net_pools_what_there_is() -> None:
    shapes = network_spec("mcu-sound", (50, 24, 1), 11, 4).shapes()
    assert shapes["encoder"] == (25, 12, 16)
    assert shapes["pool1"] == (12, 6, 32)
    assert shapes["pool2"] == (6, 3, 48)
    small = network_spec("mcu-sound", (4, 5, 1), 3, 4).shapes()
    assert small["pool1"] == (1, 1, 32)
    assert "pool2" not in small
