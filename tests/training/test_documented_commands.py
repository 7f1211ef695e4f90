"""The commands of docs/TRAINING.md that need days or a GPU, each on a handful of images."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from edgesnn.checkpoint import load_checkpoint
from edgesnn.cli import main


def documented(repo: Path) -> list[list[str]]:
    text = (repo / "docs" / "TRAINING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("edgesnn train")]
    assert len(found) >= 3
    return found


@pytest.fixture
def few_images(tmp_path: Path) -> Path:
    """A pack in the form of cifar10-jpeg with two training images a class."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 20), ("test", 10)):
        packed, offsets = b"", [0]
        for _ in range(count):
            buffer = io.BytesIO()
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            image.fromarray(pixels).save(buffer, "JPEG", quality=75)
            packed += buffer.getvalue()
            offsets.append(len(packed))
        arrays[f"jpeg_{split}"] = np.frombuffer(packed, np.uint8)
        arrays[f"off_{split}"] = np.array(offsets)
        arrays[f"y_{split}"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(tmp_path / "cifar10_jpeg.npz", **arrays)
    return tmp_path


@pytest.mark.parametrize("number", range(3))
def test_the_command_trains(
    repo: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(few_images)
    monkeypatch.setenv("XDG_CACHE_HOME", str(few_images / "cache"))
    pytest.importorskip("kornia")
    words = documented(repo)[number]
    if "--epochs" in words:
        del words[words.index("--epochs") : words.index("--epochs") + 2]
    few = ["--epochs", "3" if "selector" in words else "1", "--batch", "10"]
    few += ["--quantise-aware", "never", "--data-dir", str(few_images)]
    assert main([*words, *few]) == 0
    checkpoint = load_checkpoint(Path(words[words.index("--out") + 1]))
    assert checkpoint.network.name == words[words.index("--net") + 1]
