"""Spoken digits from raw sound (Free Spoken Digit Dataset): 8 kHz int16, the device's own log-mel rows.

Samples are windows of a second of streams: words with pauses between them, cut where a device would cut them.
Class 10 is everything that is no whole word: pauses, noise, words of which a part is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.front_end import log_mel_rows, make_log_mel
from edgesnn.data.cache import cached
from edgesnn.data.dataset import Dataset, checked
from edgesnn.data.npz import pieces
from edgesnn.data.packs import checked_arrays, pack_path
from edgesnn.data.recording import Recording
from edgesnn.data.windows import Labelled, core, place
from edgesnn.runtime.files import sha256
from edgesnn.targets.errors import EdgesnnError

NAME = "fsdd"
PACK = "fsdd.npz"
CLASSES = (*(str(n) for n in range(10)), "_background_")
BACKGROUND = 10
RATE = 8000
ROWS = 50  # of a window
FRAME, HOP, BANDS = 256, 160, 24
WINDOW = (ROWS - 1) * HOP + FRAME  # samples of a window: 1.012 s
SCALE = 1.0 / 64.0  # about the spread of the training windows
# Of the train split's words: the mean of each band less 27 dB, and a gain that puts the mean in the middle.
OFFSET = (
    3700,
    3650,
    4000,
    4000,
    4000,
    3900,
    3300,
    3050,
    2850,
    2650,
    2550,
    2500,
    2500,
    2600,
    2650,
    2700,
    2750,
    2750,
    2500,
    2450,
    2700,
    2800,
    2900,
    2850,
)
GAIN = 230
FRONT = make_log_mel(
    RATE,
    frame=FRAME,
    hop=HOP,
    bands=BANDS,
    low=100,
    high=3800,
    offset=np.array(OFFSET),
    gain=GAIN,
)
STREAM = ir.WindowStream(FRONT, hop=4, smooth=4, votes=3, refractory=5, background=(BACKGROUND,))

RECIPE = 1  # counts changes of the training windows: earlier ones in the cache are not found
PASSES = 4  # streams made of every train recording, the first without other voices and levels
GAP = (0.6, 1.2)  # seconds of rest between the words of a recording
FLOOR = 8.0  # root mean square of the noise in it
TAIL = 0.003  # share of a recording's energy before and after the word
MOST = 0.8  # a word of which no more was heard yet is background


@dataclass(frozen=True, eq=False)
class Word:
    """A recording: its samples int16[n], the digit, the part [first, last) that is the word itself."""

    samples: np.ndarray
    label: int
    first: int
    last: int


def load_fsdd(split: str, folder: Path) -> Dataset:
    """Train: windows of streams, those of one recording's number a group. Test: every recording, centred."""
    words, numbers, path = _words(split, folder)
    if split == "test":
        x = np.stack([_centred(word, i) for i, word in enumerate(words)])
        y = np.array([word.label for word in words])
        return checked(NAME, split, x, y, CLASSES, SCALE, stream=STREAM)
    made = cached(f"{NAME}-{split}", _key(path), lambda: _train_windows(words, numbers))
    # One array is cached: a row is a window, its label and its group.
    x = made[:, :-2].reshape(-1, ROWS, BANDS)
    y, groups = made[:, -2], made[:, -1].astype(np.int64)
    return checked(NAME, split, x, y, CLASSES, SCALE, stream=STREAM, groups=groups)


def fsdd_recording(split: str, folder: Path) -> Recording:
    """The split's recordings as they are, in a shuffled order, 0.6 to 1.2 s of quiet noise between them."""
    words, _, _ = _words(split, folder)
    return recording_of(words, split)


def recording_of(words: list[Word], split: str) -> Recording:
    """Words as one long signal; what training holds out is streamed through this, too."""
    said = _said(words, np.random.Generator(np.random.PCG64(11)), vary=False)
    signal = said.signal[:, None]
    return Recording(
        NAME, split, signal, len(signal), said.spans, said.labels, CLASSES, float(RATE)
    )


def words_of_groups(groups: Iterable[int], folder: Path) -> list[Word]:
    """The train recordings of some groups of the train split."""
    words, numbers, _ = _words("train", folder)
    return [words[i] for i in np.flatnonzero(np.isin(numbers, list(groups)))]


def _words(split: str, folder: Path) -> tuple[list[Word], np.ndarray, Path]:
    """The split's recordings, and the number of each among those of its speaker and digit."""
    path = pack_path(NAME, PACK, folder)
    kinds: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "samples": ("int16", (None,)),
        "offsets": ("i", (None,)),
        "labels": ("i", (None,)),
        "index": ("i", (None,)),
        "is_test": ("b", (None,)),
        "sample_rate": ("i", ()),
    }
    a = checked_arrays(path, kinds)
    offsets = pieces(path, "offsets", a["offsets"], len(a["samples"]))
    count = len(offsets) - 1
    for name in ("labels", "index", "is_test"):
        if len(a[name]) != count:
            raise EdgesnnError(f"{path}: {count} recordings have {len(a[name])} entries in {name}")
    if int(a["sample_rate"]) != RATE:
        raise EdgesnnError(f"{path}: sample_rate is {a['sample_rate']}, not {RATE}")
    wrong = np.flatnonzero((a["labels"] > 9) | (a["labels"] < 0) | (np.diff(offsets) < FRAME))
    if len(wrong):
        raise EdgesnnError(
            f"{path}: recording {wrong[0]} is no digit: label {a['labels'][wrong[0]]}, "
            f"{np.diff(offsets)[wrong[0]]} samples"
        )
    chosen = np.flatnonzero(a["is_test"] == (split == "test"))
    if not len(chosen):
        raise EdgesnnError(f"{path}: no recording is of the {split} split")
    words = [_word(a["samples"][offsets[i] : offsets[i + 1]], int(a["labels"][i])) for i in chosen]
    return words, a["index"][chosen].astype(np.int64), path


def _word(samples: np.ndarray, label: int) -> Word:
    first, last = core(samples.astype(np.float64) ** 2, TAIL)
    return Word(samples, label, first, last)


def _key(path: Path) -> str:
    return f"{sha256(path)[:16]}-{RECIPE}"


def _centred(word: Word, number: int) -> np.ndarray:
    """uint8[rows, bands]: the word in the middle of a window of quiet noise."""
    random = np.random.Generator(np.random.PCG64((12, number)))
    margin = _noise(WINDOW, FLOOR, random)
    signal = np.concatenate([margin, word.samples, margin])
    middle = WINDOW + (word.first + word.last) // 2
    return log_mel_rows(FRONT, _rounded(signal[middle - WINDOW // 2 :][:WINDOW]))


def _train_windows(words: list[Word], numbers: np.ndarray) -> np.ndarray:
    """uint8[windows, rows * bands + 2]: windows, labels and groups of all passes over all groups."""
    out = []
    for group in np.unique(numbers):
        members = [words[i] for i in np.flatnonzero(numbers == group)]
        for turn in range(PASSES):
            random = np.random.Generator(np.random.PCG64((10, int(group), turn)))
            said = _said(members, random, vary=turn > 0)
            rows = log_mel_rows(FRONT, said.signal)
            starts = HOP * np.arange(len(rows) - ROWS)
            rest = len(members) // 2
            chosen, labels = place(
                starts, WINDOW, said, BACKGROUND, random, whole=2, part=1, rest=rest, most=MOST
            )
            x = rows[chosen[:, None] + np.arange(ROWS)].reshape(len(chosen), -1)
            about = np.stack([labels, np.full(len(labels), group)], axis=1).astype(np.uint8)
            out.append(np.concatenate([x, about], axis=1))
    return np.concatenate(out)


def _said(words: list[Word], random: np.random.Generator, vary: bool) -> Labelled:
    """The words in a random order with rests; `vary`: other speeds and levels, noise of many kinds."""
    parts: list[np.ndarray] = []
    spans, cores, labels = [], [], []
    at = 0
    for i in random.permutation(len(words)):
        word = words[i]
        rest = random.uniform(*GAP) if not vary else random.uniform(0.25, 1.2)
        samples, first, last = word.samples.astype(np.float64), word.first, word.last
        floor = FLOOR
        if vary:
            speed = random.uniform(0.87, 1.15)
            places = np.arange(0, len(samples) - 1, speed)
            samples = np.interp(places, np.arange(len(samples)), samples)
            samples *= 10 ** (random.uniform(-10, 8) / 20)
            first, last = int(first / speed), min(int(last / speed), len(samples))
            floor = np.exp(random.uniform(np.log(0.5), np.log(60)))
        gap = _noise(int(rest * RATE), floor, random)
        if vary:
            # A noisy room: the rest and the word, at a level that leaves the word audible.
            loud = np.sqrt((samples**2).mean()) * 10 ** (-random.uniform(12, 40) / 20)
            room = _noise(len(gap) + len(samples), loud, random, int(random.integers(3)))
            if random.random() < 0.5:
                gap, samples = gap + room[: len(gap)], samples + room[len(gap) :]
        at += len(gap)
        spans.append((at, at + len(samples)))
        cores.append((at + first, at + last))
        labels.append(word.label)
        parts += [gap, samples]
        at += len(samples)
    parts.append(_noise(int(GAP[1] * RATE), FLOOR, random))
    return Labelled(
        _rounded(np.concatenate(parts)),
        np.array(spans, dtype=np.int64),
        np.array(cores, dtype=np.int64),
        np.array(labels, dtype=np.int64),
    )


def _noise(n: int, rms: float, random: np.random.Generator, kind: int = 0) -> np.ndarray:
    """float64[n] of a level: white, 1 brown (most of it low), 2 a hum of harmonics with a little white."""
    white = random.standard_normal(n)
    if kind == 1:
        spectrum = np.fft.rfft(white) / np.sqrt(1 + np.arange(n // 2 + 1) * (RATE / n) / 100)
        white = np.fft.irfft(spectrum, n)
    elif kind == 2:
        tone = random.uniform(45, 400) * 2 * np.pi / RATE * np.arange(n)
        white = 0.2 * white + sum(np.sin(h * tone) / h for h in (1, 2, 3, 5))
    return np.asarray(white * (rms / max(float(np.sqrt((white**2).mean())), 1e-9)))


def _rounded(signal: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(signal), -32768, 32767).astype(np.int16)
