"""A run's figures, epoch by epoch: a CSV file or a TensorBoard folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgesnn.data.folders import check_writable
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError, UsageError

FORMATS = ("csv", "tensorboard")
Row = dict[str, float]
# loss: mean of the epoch's batches; lr: of its last step; seconds: of the run so far; spikes_per_neuron:
# hidden spikes of a validation sample in all T steps.
COLUMNS = (
    "epoch",
    "loss",
    "val_accuracy",
    "mean_steps",
    "threshold",
    "lr",
    "seconds",
    "spikes_per_neuron",
)


class Log:
    """Writes the rows of COLUMNS under `folder`, as <name>.csv or in a folder <name> of events.

    The run keeps all rows in its state and hands them over again after an interruption, so none is missing
    and none is there twice. EdgesnnError for a place that cannot be written.
    """

    def __init__(self, folder: Path, form: str, name: str) -> None:
        if form not in FORMATS:
            raise UsageError(f"unknown log-format {form!r}: one of {', '.join(FORMATS)}")
        self.path = folder / (f"{name}.csv" if form == "csv" else name)
        self._events: Any = None
        self._written = 0
        if form == "csv":
            self._check_ours()
            check_writable(self.path)
        else:
            self._events = _writer()

    def _check_ours(self) -> None:
        try:
            if not self.path.exists():
                return
            with self.path.open(encoding="utf-8", errors="replace") as f:
                ours = f.readline().strip() == ",".join(COLUMNS)
        except OSError as error:
            raise EdgesnnError(f"cannot write {self.path}: {error.strerror or error}") from None
        if not ours:
            raise EdgesnnError(f"{self.path} exists and is no log of ours; choose another --log")

    def write(self, rows: Sequence[Row]) -> None:
        """Bring the log up to `rows`, all of the run so far."""
        if self.path.suffix == ".csv" and self._events is None:
            text = io.StringIO()
            table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows({k: f"{row[k]:.6g}" for k in COLUMNS} for row in rows)
            write_atomic(self.path, text.getvalue().encode())
            return
        try:
            if isinstance(self._events, type):
                # Events of an earlier part of the run are dropped: all of them come again.
                self._events = self._events(str(self.path), purge_step=0)
            for row in rows[self._written :]:
                for name in COLUMNS[1:]:
                    self._events.add_scalar(name, row[name], int(row["epoch"]))
            self._events.flush()
        except OSError as error:
            raise EdgesnnError(f"cannot write {self.path}: {error.strerror or error}") from None
        self._written = len(rows)

    def close(self) -> None:
        if self._events is not None and not isinstance(self._events, type):
            self._events.close()


def _writer() -> Any:
    """TensorBoard's SummaryWriter, a class."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise EdgesnnError(
            "log-format tensorboard: tensorboard is missing; pip install 'edgesnn[log]' brings it"
        ) from None
    return SummaryWriter
