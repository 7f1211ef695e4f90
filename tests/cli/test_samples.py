"""What a bundle is run on: a data set that fits it, or random frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesnn.evaluate import load_samples, random_frames
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.session import Session, frame_shape
from edgesnn.targets.errors import UsageError


def archive(path: Path, x: np.ndarray) -> str:
    y = np.zeros(len(x), np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return str(path)


def test_data_has_to_fit_in_shape_and_dtype(host_bundle: Bundle, tmp_path: Path) -> None:
    height, width, channels = host_bundle.input_shape
    good = np.arange(2 * height * width * channels, dtype=np.uint8)
    good = good.reshape(2, channels, height, width)
    with Session(host_bundle) as session:
        x, y, what = load_samples(session, archive(tmp_path / "good.npz", good))
        assert x.shape == (2, height, width, channels) and what.endswith("good.npz test")
        assert np.array_equal(x, good.transpose(0, 2, 3, 1)) and y is not None
        shape = f"{height}x{width}x{channels}"
        for bad, had in (
            (good.astype(np.int16), f"int16 {shape} samples"),
            (good[:, 0].astype(np.int8), f"int8 1x{width}x{height} samples"),
        ):
            with pytest.raises(UsageError) as caught:
                load_samples(session, archive(tmp_path / "bad.npz", bad))
            message = str(caught.value)
            assert had in message and f"takes uint8 {shape}" in message
            assert "an array `layout` in the file" in message and "\n" not in message


def test_random_frames_reach_the_ends(host_bundle: Bundle, event_bundle: Bundle) -> None:
    for bundle, low, high in ((host_bundle, 0, 255), (event_bundle, 0, 1)):
        with Session(bundle) as session:
            frames = random_frames(session, 100)
            assert np.array_equal(frames, random_frames(session, 100))
            assert not np.array_equal(frames, random_frames(session, 100, seed=1))
            assert frames.shape == (100, *frame_shape(bundle)) and frames.dtype == np.uint8
            flat = frames.reshape(100, -1)
            constant = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
            assert set(range(9, 100, 10)) <= set(constant.tolist())
            assert (flat[9::20] == low).all() and (flat[19::20] == high).all()
            filled = (flat != 0).mean(axis=1)[np.arange(100) % 10 != 9]
            assert filled.min() < 0.15 and filled.max() > 0.85 and 0.35 < filled.mean() < 0.65
            session.classify(frames[19])
