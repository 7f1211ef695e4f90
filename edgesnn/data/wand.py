"""Wand gestures from an inertial sensor: accelerometer and gyroscope, about 100 rows a second, one person.

Rows are int16 counts, averaged to 25 a second: a device has to hand over such. Samples are windows of 2.56 s of
streams: gestures and other movement with rest between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.data.dataset import Dataset, checked
from edgesnn.data.npz import pieces
from edgesnn.data.packs import checked_arrays, pack_path
from edgesnn.data.recording import Recording
from edgesnn.data.windows import Labelled, core, place
from edgesnn.targets.errors import EdgesnnError

NAME = "wand"
PACK = "wand_imu.npz"
CLASSES = ("wingardium", "flippendo", "negative")
NEGATIVE = 2
CHANNELS = 6
COUNTS = np.array([512.0] * 3 + [1024.0] * 3)  # of a m/s2, and of a unit of the gyroscope
AVERAGED = 4  # rows of the file to one
RATE = 25.0
ROWS = 64  # of a window
SCALE = 1.0 / 4096.0
STREAM = ir.WindowStream(
    ir.Rows(RATE), hop=4, smooth=3, votes=2, refractory=8, background=(NEGATIVE,)
)

DECKS = 6  # the train split is dealt out to so many streams, each held out as a whole or not at all
PASSES = 6  # over each of them, the first as recorded
REST = (1.0, 2.0)  # seconds between the pieces of a stream
PIECE = 4.0  # seconds of a negative recording that are one piece
TAIL = 0.02  # share of a gesture's motion before and after the gesture
MOST = 0.75  # a gesture of which no more was seen yet is background


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows float64[n, 6] in counts, the class, the part [first, last) in which the movement is."""

    rows: np.ndarray
    label: int
    first: int
    last: int


def load_wand(split: str, folder: Path) -> Dataset:
    """Train: windows of streams. Test: each gesture and each piece of other movement, its middle."""
    gestures, negatives = _recordings(split, folder)
    if split == "test":
        made = [*gestures, *(piece for whole in negatives for piece in _cut(whole))]
        x = np.stack([_centred(piece) for piece in made])
        return _dataset(split, x, np.array([piece.label for piece in made]), None)
    parts, labels, groups = [], [], []
    for deck in range(DECKS):
        held = gestures[deck::DECKS]
        moved = negatives[deck::DECKS]
        for turn in range(PASSES if held or moved else 0):
            random = np.random.Generator(np.random.PCG64((20, deck, turn)))
            cut = [piece for whole in moved for piece in _cut(whole, random)]
            said = _joined([*held, *cut], random, vary=turn > 0)
            starts = np.arange(len(said.signal) - ROWS)
            chosen, y = place(
                starts, ROWS, said, NEGATIVE, random, whole=3, part=1, rest=len(cut), most=MOST
            )
            parts.append(said.signal[chosen[:, None] + np.arange(ROWS)])
            labels.append(y)
            groups.append(np.full(len(y), deck))
    return _dataset(split, np.concatenate(parts), np.concatenate(labels), np.concatenate(groups))


def wand_recording(split: str, folder: Path) -> Recording:
    """Gestures and pieces of other movement as recorded, shuffled, 1 to 2 s of rest between them."""
    gestures, negatives = _recordings(split, folder)
    return recording_of(
        [*gestures, *(piece for whole in negatives for piece in _cut(whole))], split
    )


def recording_of(made: list[Piece], split: str) -> Recording:
    """Pieces as one long signal; what training holds out is streamed through this, too."""
    said = _joined(made, np.random.Generator(np.random.PCG64(21)), vary=False)
    return Recording(
        NAME, split, said.signal, len(said.signal), said.spans, said.labels, CLASSES, RATE
    )


def pieces_of_decks(decks: list[int], folder: Path) -> list[Piece]:
    """The pieces of some groups of the train split."""
    gestures, negatives = _recordings("train", folder)
    return [
        piece
        for deck in decks
        for piece in (
            *gestures[deck::DECKS],
            *(p for whole in negatives[deck::DECKS] for p in _cut(whole)),
        )
    ]


def _dataset(split: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> Dataset:
    signals = x[:, None]  # maps of height 1
    return checked(NAME, split, signals, y, CLASSES, SCALE, stream=STREAM, groups=groups)


def _recordings(split: str, folder: Path) -> tuple[list[Piece], list[np.ndarray]]:
    """The split's gestures, and its recordings of other movement."""
    path = pack_path(NAME, PACK, folder)
    kinds: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "data": ("f", (None, CHANNELS)),
        "offsets": ("i", (None,)),
        "labels": ("i", (None,)),
        "is_test": ("b", (None,)),
    }
    a = checked_arrays(path, kinds)
    offsets = pieces(path, "offsets", a["offsets"], len(a["data"]))
    count = len(offsets) - 1
    for name in ("labels", "is_test"):
        if len(a[name]) != count:
            raise EdgesnnError(f"{path}: {count} recordings have {len(a[name])} entries in {name}")
    if not np.isfinite(a["data"]).all():
        row = int(np.flatnonzero(~np.isfinite(a["data"]).all(axis=1))[0])
        raise EdgesnnError(f"{path}: row {row} of data is not finite")
    short = (np.diff(offsets) < AVERAGED * 16) | (a["labels"] > NEGATIVE) | (a["labels"] < 0)
    if short.any():
        at = int(np.flatnonzero(short)[0])
        raise EdgesnnError(
            f"{path}: recording {at} is no gesture: label {a['labels'][at]}, "
            f"{np.diff(offsets)[at]} rows"
        )
    gestures, negatives = [], []
    for i in np.flatnonzero(a["is_test"] == (split == "test")):
        rows = _counts(a["data"][offsets[i] : offsets[i + 1]])
        label = int(a["labels"][i])
        if label == NEGATIVE:
            negatives.append(rows)
        else:
            gestures.append(Piece(rows, label, *core(_motion(rows), TAIL)))
    if not gestures or not negatives:
        raise EdgesnnError(f"{path}: the {split} split has no gesture, or no other movement")
    return gestures, negatives


def _counts(data: np.ndarray) -> np.ndarray:
    """float64[n, 6] in counts, 25 rows a second."""
    n = len(data) // AVERAGED
    rows = data[: n * AVERAGED].astype(np.float64).reshape(n, AVERAGED, CHANNELS).mean(axis=1)
    return np.asarray(rows * COUNTS)


def _motion(rows: np.ndarray) -> np.ndarray:
    """float64[n]: how fast it turns, squared."""
    return np.asarray((rows[:, 3:] ** 2).sum(axis=1))


def _cut(rows: np.ndarray, random: np.random.Generator | None = None) -> list[Piece]:
    """Pieces of a recording of other movement; of random beginnings if there is chance."""
    n = int(PIECE * RATE)
    first = 0 if random is None else int(random.integers(n))
    return [Piece(rows[at : at + n], NEGATIVE, 0, n) for at in range(first, len(rows) - n + 1, n)]


def _centred(piece: Piece) -> np.ndarray:
    """int16[rows, 6]: the middle of the movement; the ends are held where the recording is shorter."""
    middle = (piece.first + piece.last) // 2
    at = np.arange(middle - ROWS // 2, middle - ROWS // 2 + ROWS)
    return _rounded(piece.rows[at.clip(0, len(piece.rows) - 1)])


def _joined(made: list[Piece], random: np.random.Generator, vary: bool) -> Labelled:
    """The pieces in a random order with rests; `vary`: other speeds, strengths and grips.

    A rest goes from where the last piece ended to where the next one begins, with the sensor's noise.
    """
    parts: list[np.ndarray] = []
    spans, cores, labels = [], [], []
    at = 0
    before = None
    for i in random.permutation(len(made)):
        piece = made[i]
        rows, first, last = piece.rows, piece.first, piece.last
        if vary:
            speed = random.uniform(0.85, 1.18)
            places = np.arange(0, len(rows) - 1, speed)
            low = places.astype(np.int64)
            rows = rows[low] + (rows[low + 1] - rows[low]) * (places - low)[:, None]
            # Turning speed goes with the speed of the movement.
            rows = _gripped(rows * np.repeat([1.0, speed], 3), random)
            first, last = int(first / speed), min(int(last / speed), len(rows))
        rest = int(random.uniform(*REST) * RATE)
        fade = (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, rest + 2)[1:-1]))[:, None]
        start = rows[0] if before is None else before
        gap = start + (rows[0] - start) * fade
        gap[:, 3:] = start[3:] * (1 - fade * 2).clip(0) + rows[0, 3:] * (fade * 2 - 1).clip(0)
        parts += [gap + 8 * random.standard_normal(gap.shape), rows]
        at += rest
        spans.append((at, at + len(rows)))
        cores.append((at + first, at + last))
        labels.append(piece.label)
        at += len(rows)
        before = rows[-1]
    assert before is not None
    held = np.repeat(before[None] * np.repeat([1.0, 0.0], 3), int(REST[1] * RATE), axis=0)
    parts.append(held + 8 * random.standard_normal(held.shape))
    return Labelled(
        _rounded(np.concatenate(parts)),
        np.array(spans, dtype=np.int64),
        np.array(cores, dtype=np.int64),
        np.array(labels, dtype=np.int64),
    )


def _gripped(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Both sensors turned by up to about 10 degrees, and up to a tenth stronger or weaker."""
    x, y, z = random.uniform(-0.17, 0.17, 3)
    # Rodrigues' formula to second order: exact enough for small angles.
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turn = np.eye(3) + k + k @ k / 2
    turned = np.concatenate([rows[:, :3] @ turn.T, rows[:, 3:] @ turn.T], axis=1)
    return np.asarray(turned * random.uniform(0.9, 1.1))


def _rounded(rows: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rows), -32768, 32767).astype(np.int16)
