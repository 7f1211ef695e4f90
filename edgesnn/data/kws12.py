"""Keyword spotting in 12 classes: ready log-mel rows of one-second clips (Speech Commands, Warden 2018).

The rows were made elsewhere, from sound that is not at hand: a stream hands them over as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.data.dataset import Dataset, checked
from edgesnn.data.packs import checked_arrays, pack_path
from edgesnn.data.recording import Recording
from edgesnn.targets.errors import EdgesnnError

NAME = "kws12"
PACK = "kws12_sc2test_logmel.npz"
ROWS, BANDS = 49, 40
RATE = 50.0  # rows a second
SCALE, ZERO_POINT = 1.0 / 64.0, 80  # about the spread and the mean of the training clips
# A window is a clip, and the next one begins where it ended: a streamed clip gets its own answer.
STREAM = ir.WindowStream(ir.Rows(RATE), hop=ROWS)


def load_kws12(split: str, folder: Path) -> Dataset:
    """The split of the pack; all clips of a speaker are one group."""
    x, y, speaker, names = _clips(split, folder)
    groups = speaker.astype(np.int64)
    return checked(NAME, split, x, y, names, SCALE, ZERO_POINT, stream=STREAM, groups=groups)


def kws12_recording(split: str, folder: Path) -> Recording:
    """All clips, shuffled, one after the other without a gap; a clip is an interval. Unit: rows."""
    x, y, _, names = _clips(split, folder)
    # The pack has them class by class: a beginning of that would be one class.
    order = np.random.Generator(np.random.PCG64(31)).permutation(len(x))
    x, y = x[order], y[order]
    ends = ROWS * np.arange(1, len(x) + 1)
    spans = np.stack([ends - ROWS, ends], axis=1)
    signal = np.ascontiguousarray(x).reshape(-1, BANDS)
    return Recording(NAME, split, signal, len(signal), spans, y.astype(np.int64), names, RATE)


def _clips(split: str, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    path = pack_path(NAME, PACK, folder)
    clips = {f"{part}_{split}": (None,) for part in ("y", "speaker")}
    kinds: dict[str, tuple[str, tuple[int | None, ...]]] = {
        f"x_{split}": ("uint8", (None, ROWS, BANDS))
    }
    kinds |= {name: ("i", shape) for name, shape in clips.items()}
    arrays = checked_arrays(path, kinds | {"class_names": ("U", (None,))})
    x, speakers = arrays[f"x_{split}"], len(arrays[f"speaker_{split}"])
    if speakers != len(x):
        raise EdgesnnError(f"{path}: {len(x)} clips of {split} have {speakers} speakers")
    names = tuple(str(n) for n in arrays["class_names"])
    return x, arrays[f"y_{split}"], arrays[f"speaker_{split}"], names
