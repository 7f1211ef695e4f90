"""Find a labelled recording by name or path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgesnn.data import fsdd, kws12, nmnist, wand
from edgesnn.data.dataset import check_split
from edgesnn.data.loading import data_folder, unknown_data
from edgesnn.data.recording import Recording
from edgesnn.data.signals import load_signal
from edgesnn.targets.errors import UsageError
from edgesnn.targets.suggest import did_you_mean

# The data sets that are (or make) one long signal, and who makes it: (split, folder) -> Recording.
RECORDINGS: dict[str, Callable[[str, Path], Recording]] = {
    nmnist.EVENTS: nmnist.load_event_stream,
    fsdd.NAME: fsdd.fsdd_recording,
    kws12.NAME: kws12.kws12_recording,
    wand.NAME: wand.wand_recording,
}


def load_recording(name: str, split: str = "test", data_dir: Path | str | None = None) -> Recording:
    """A split of a data set, or of a user's own .npz, as one long labelled signal.

    Raises UsageError for an unknown name or split, EdgesnnError for missing or damaged data.
    """
    check_split(split)
    if name in RECORDINGS:
        return RECORDINGS[name](split, data_folder(data_dir))
    if name.endswith(".npz"):
        return load_signal(Path(name).expanduser(), split)
    if Path(name).expanduser().is_file():
        raise unknown_data(name, [*RECORDINGS])
    hint = did_you_mean(name, RECORDINGS) or ": " + ", ".join(
        [*RECORDINGS, "or the path of an .npz (docs/STREAMING.md)"]
    )
    raise UsageError(f"{name!r} is no recording to stream{hint}")
