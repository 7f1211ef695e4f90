"""A user's own signals: an .npz of windows that come one after the other, or one long labelled recording.

docs/DATA.md tells the arrays of both. A recording becomes windows by the rule of windows.py; the numbers that
it takes (window, front end, votes) have defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.front_end import log_energies, log_mel_rows, make_log_mel
from edgesnn.data.dataset import (
    SCALES,
    Dataset,
    check_every_class,
    check_labels,
    checked,
)
from edgesnn.data.npz import array_names, load_npz, read_arrays
from edgesnn.data.recording import Recording
from edgesnn.data.windows import Labelled, place
from edgesnn.targets.errors import EdgesnnError

BACKGROUND_NAME = "_background_"
RULE = ("hop?", "smooth?", "votes?", "refractory?", "background?")
ABOUT = ("rate", "class_names?", "is_test?", "window?", "front_end?", "scale?")
FRONT_ENDS = ("log-mel", "rows")
# The log-mel front end: seconds of a frame and between rows, bands; 27 dB below the mean of each band in the
# train split's intervals are 0, and 53 dB are 255 steps (fsdd.py has the same).
FRAME, HOP, BANDS = 0.032, 0.02, 24
BELOW, GAIN = 2300, 230
SOUND_RATE = 4000  # a single channel of at least so many samples a second is sound
TEST_SHARE = 0.2  # the last intervals of every class, where the file does not say
BLOCKS, LEAST = (
    20,
    3,
)  # the train split is cut into about so many parts, of so many intervals at least
WHOLE, PART, REST = 8, 2, 2  # windows of an interval: all of it, its end missing, rest
MOST = 0.8  # an interval of which no more was seen yet is background
MOST_STARTS = 20_000  # windows of a part that are looked at


@dataclass(frozen=True, eq=False)
class Long:
    """A split of a recording: pieces around its intervals, each from the middle of one rest to the next.

    signal [n, channels]; spans int64[k, 2] in it; labels int64[k]; ends int64[k], where the pieces end.
    """

    signal: np.ndarray
    spans: np.ndarray
    labels: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """How a recording becomes windows; rows of `hop` samples, of which each looks at `frame`."""

    name: str
    names: tuple[str, ...]
    rate: float
    stream: ir.WindowStream
    rows: int
    hop: int
    frame: int
    background: int
    scale: float

    @property
    def window(self) -> int:
        """Samples of a window."""
        return (self.rows - 1) * self.hop + self.frame

    def cut(self, signal: np.ndarray) -> np.ndarray:
        """All rows [n, values] of a signal."""
        if isinstance(self.stream.front, ir.LogMel):
            return log_mel_rows(self.stream.front, signal)
        return signal

    def maps(self, x: np.ndarray) -> np.ndarray:
        """Windows [n, rows, values] as [n, H, W, C]: spectrograms, or signals of height 1."""
        return x[..., None] if isinstance(self.stream.front, ir.LogMel) else x[:, None]


def load_own(path: Path, split: str) -> Dataset:
    """The samples of a user's .npz: whole samples, windows with a `rate`, or a recording (`signal`)."""
    names = array_names(path)
    if "t" in names and "intervals" in names:
        from edgesnn.data.own_events import load_own_events  # which needs this module

        return load_own_events(path, split)
    if "signal" in names:
        plan, train, test = _recording(path)
        return _windows(plan, train if split == "train" else test, split)
    data = load_npz(path, split)
    if "rate" not in names:
        return data
    arrays = read_arrays(path, ("rate", *RULE))
    front = ir.Rows(_rate(path, arrays))
    rows = data.shape[1] if data.shape[0] == 1 else data.shape[0]
    return replace(data, stream=_rule(path, arrays, front, rows, data.classes, ()))


def load_signal(path: Path, split: str) -> Recording:
    """A split of a user's .npz as one long signal: a recording's pieces, or windows in order."""
    names = array_names(path)
    if "t" in names and "intervals" in names:
        from edgesnn.data.own_events import load_own_event_stream

        return load_own_event_stream(path, split)
    if "signal" in names:
        plan, train, test = _recording(path)
        one = train if split == "train" else test
        return Recording(
            plan.name,
            split,
            one.signal,
            len(one.signal),
            one.spans,
            one.labels,
            plan.names,
            plan.rate,
        )
    data = load_own(path, split)
    if not isinstance(data.stream, ir.WindowStream):
        raise EdgesnnError(
            f"{path} is no signal: it has neither `signal` nor `rate` (rows a second); docs/DATA.md"
        )
    height, width, channels = data.shape
    rows, values = (width, channels) if height == 1 else (height, width * channels)
    ends = rows * np.arange(1, len(data) + 1)
    spans = np.stack([ends - rows, ends], axis=1)
    signal = data.x.reshape(-1, values)
    rate = data.stream.front.rate
    return Recording(data.name, split, signal, len(signal), spans, data.y, data.class_names, rate)


def _recording(path: Path) -> tuple[Plan, Long, Long]:
    """What a file with `signal` says, and its train and test split."""
    a = read_arrays(path, ("signal", "intervals", "labels", *ABOUT, *RULE))
    name, signal = path.stem, a["signal"]
    if signal.ndim == 1:
        signal = signal[:, None]
    if signal.ndim != 2 or signal.dtype.name not in SCALES or 0 in signal.shape:
        raise EdgesnnError(
            f"{path}: signal is {a['signal'].dtype}{a['signal'].shape}, not int16, int8 or uint8 [n] or "
            "[n, channels]"
        )
    signal = np.ascontiguousarray(signal, dtype=signal.dtype.name)
    labels = a["labels"]
    given = tuple(str(n) for n in a["class_names"].ravel()) if "class_names" in a else ()
    count = len(given) or (int(labels.max(initial=0)) + 1 if labels.dtype.kind in "iu" else 1)
    check_labels(name, "labels", labels, count)
    names = given or tuple(str(n) for n in range(count))
    spans = a["intervals"]
    # A recording checks its intervals; what it makes of them is not needed yet.
    Recording(name, "train", signal, len(signal), spans, labels, names)
    order = labels.astype(np.int64)
    is_test = intervals_for_testing(path, a, order)
    check_every_class(name, order[~is_test], names)
    middles = (spans[:-1, 1].astype(np.int64) + spans[1:, 0].astype(np.int64)) // 2
    cuts = np.concatenate([[0], middles, [len(signal)]])
    train, test = (_joined(signal, spans, order, cuts, which) for which in (~is_test, is_test))
    return _plan(path, a, name, names, train), train, test


def intervals_for_testing(path: Path, a: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """bool[k]: `is_test`, else the last fifth of every class."""
    if "is_test" in a:
        is_test = a["is_test"]
        if is_test.dtype.kind != "b" or is_test.shape != labels.shape:
            raise EdgesnnError(
                f"{path}: is_test is {is_test.dtype}{is_test.shape}, not one bool for each of "
                f"{len(labels)} intervals"
            )
        if is_test.all() or not is_test.any():
            raise EdgesnnError(
                f"{path}: is_test leaves no interval to train on, or none to test with"
            )
        return is_test
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[members[len(members) - int(TEST_SHARE * len(members)) :]] = True
    if not is_test.any():
        raise EdgesnnError(
            f"{path}: {len(labels)} intervals are too few to set a fifth of a class aside for testing; "
            "is_test says which to test with"
        )
    return is_test


def _joined(
    signal: np.ndarray, spans: np.ndarray, labels: np.ndarray, cuts: np.ndarray, which: np.ndarray
) -> Long:
    """The pieces of some intervals, one after the other."""
    chosen = np.flatnonzero(which)
    parts = [signal[cuts[i] : cuts[i + 1]] for i in chosen]
    ends = np.cumsum([len(part) for part in parts])
    moved = ends - cuts[chosen + 1]
    return Long(
        np.concatenate(parts), spans[chosen].astype(np.int64) + moved[:, None], labels[chosen], ends
    )


def _plan(
    path: Path, a: dict[str, np.ndarray], name: str, names: tuple[str, ...], train: Long
) -> Plan:
    rate, channels = _rate(path, a), train.signal.shape[1]
    sound = channels == 1 and train.signal.dtype == np.int16 and rate >= SOUND_RATE
    kind = str(a["front_end"].ravel()[0]) if "front_end" in a else FRONT_ENDS[0 if sound else 1]
    if kind not in FRONT_ENDS:
        raise EdgesnnError(
            f"{path}: front_end is {kind[:40]!r}, not one of {', '.join(FRONT_ENDS)}"
        )
    front: ir.FrontEnd
    if kind == "log-mel":
        if channels != 1 or train.signal.dtype != np.int16 or rate != int(rate):
            raise EdgesnnError(
                f"{path}: front end log-mel takes one channel of int16 at a whole rate, not "
                f"{train.signal.dtype}[n, {channels}] at {rate:g}"
            )
        front = _log_mel(int(rate), train)
        hop, frame = front.hop, len(front.window)
    else:
        front, hop, frame = ir.Rows(rate), 1, 1
    lengths = (train.spans[:, 1] - train.spans[:, 0]) / rate
    seconds = _number(path, a, "window", 1.25 * float(np.quantile(lengths, 0.95)))
    rows = 1 + round((seconds * rate - frame) / hop)
    if rows < 2:
        raise EdgesnnError(f"{path}: a window of {seconds:g} s is not two rows long")
    if "background" not in a:
        names = (*names, BACKGROUND_NAME)
    last = len(names) - 1
    stream = _rule(path, a, front, rows, len(names), (last,), max(1, rows // 12))
    scale = 1.0 / 64.0 if kind == "log-mel" else SCALES[train.signal.dtype.name]
    scale = _number(path, a, "scale", scale)
    if not stream.background:
        raise EdgesnnError(
            f"{path}: background names no class; without it a class {BACKGROUND_NAME} is made of the rest"
        )
    return Plan(name, names, rate, stream, rows, hop, frame, stream.background[0], scale)


def _log_mel(rate: int, train: Long) -> ir.LogMel:
    """Its offsets are those of the train split's intervals."""
    front = make_log_mel(
        rate,
        frame=round(FRAME * rate),
        hop=round(HOP * rate),
        bands=BANDS,
        low=100,
        high=0.475 * rate,
    )
    energies = [log_energies(front, train.signal[first:last]) for first, last in train.spans]
    found = np.concatenate(energies)
    mean = found.mean(axis=0) if len(found) else np.zeros(BANDS)
    return replace(front, offset=np.rint(mean - BELOW).astype(np.int32), gain=GAIN)


def _rule(
    path: Path,
    a: dict[str, np.ndarray],
    front: ir.FrontEnd,
    rows: int,
    classes: int,
    background: tuple[int, ...],
    hop: int | None = None,
) -> ir.WindowStream:
    """hop, smooth, votes, refractory and background as the file has them; `hop`: None is a whole window."""
    several = hop is not None
    chosen = whole(path, a, "hop", rows if hop is None else hop, 1)
    smooth = whole(path, a, "smooth", 3 if several else 1, 1)
    votes = whole(path, a, "votes", min(smooth, 2 if several else 1), 1)
    refractory = whole(path, a, "refractory", -(-rows // (2 * chosen)) if several else 0, 0)
    if "background" in a:
        given = a["background"].ravel()
        if given.dtype.kind not in "iu" or ((given < 0) | (given >= classes)).any():
            raise EdgesnnError(f"{path}: background is no list of classes 0...{classes - 1}")
        background = tuple(sorted({int(n) for n in given}))
    if votes > smooth:
        raise EdgesnnError(f"{path}: votes {votes} are more than the {smooth} windows that vote")
    return ir.WindowStream(front, chosen, smooth, votes, refractory, background)


def _windows(plan: Plan, one: Long, split: str) -> Dataset:
    """Train: windows of every part of the signal, a part a group. Test: each interval, centred."""
    if split == "test":
        rows = plan.cut(one.signal)
        if len(rows) < plan.rows:
            raise EdgesnnError(f"{plan.name}: the test split is shorter than a window")
        middles = one.spans.mean(axis=1) - plan.window / 2
        first = np.rint(middles / plan.hop).astype(np.int64).clip(0, len(rows) - plan.rows)
        return _dataset(plan, split, rows[first[:, None] + np.arange(plan.rows)], one.labels, None)
    parts, labels, groups = [], [], []
    size = max(LEAST, -(-len(one.labels) // BLOCKS))
    for k in range(0, len(one.labels), size):
        begin = int(one.ends[k - 1]) if k else 0
        end = int(one.ends[min(k + size, len(one.ends)) - 1])
        rows = plan.cut(one.signal[begin:end])
        spans = one.spans[k : k + size] - begin
        said = Labelled(rows, spans, spans, one.labels[k : k + size])
        count = max(len(rows) - plan.rows + 1, 0)
        at = np.arange(0, count, max(1, count // MOST_STARTS))
        random = np.random.Generator(np.random.PCG64((30, k)))
        chosen, y = place(
            at * plan.hop,
            plan.window,
            said,
            plan.background,
            random,
            whole=WHOLE,
            part=PART,
            rest=REST * len(spans),
            most=MOST,
        )
        parts.append(rows[at[chosen][:, None] + np.arange(plan.rows)])
        labels.append(y)
        groups.append(np.full(len(y), k))
    y = np.concatenate(labels)
    missing = np.setdiff1d(np.arange(len(plan.names)), y)
    if len(missing):
        raise EdgesnnError(
            f"{plan.name}: no window of {plan.window / plan.rate:.2f} s shows class "
            f"{plan.names[missing[0]]} alone; give a `window` that suits its intervals and the rest between"
        )
    return _dataset(plan, split, np.concatenate(parts), y, np.concatenate(groups))


def _dataset(
    plan: Plan, split: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None
) -> Dataset:
    return checked(
        plan.name, split, plan.maps(x), y, plan.names, plan.scale, stream=plan.stream, groups=groups
    )


def _rate(path: Path, a: dict[str, np.ndarray]) -> float:
    return _number(path, a, "rate", 0.0)


def _number(path: Path, a: dict[str, np.ndarray], name: str, default: float) -> float:
    given = a.get(name, np.array(default))
    value = float(given.ravel()[0]) if given.size == 1 and given.dtype.kind in "fiu" else 0.0
    if not 0.0 < value < 1e9:
        raise EdgesnnError(f"{path}: {name} is {str(given)[:40]}, not one number above 0")
    return value


def whole(path: Path, a: dict[str, np.ndarray], name: str, default: int, least: int) -> int:
    given = a.get(name, np.array(default))
    value = int(given.ravel()[0]) if given.size == 1 and given.dtype.kind in "iu" else -1
    if not least <= value < 1 << 16:
        raise EdgesnnError(
            f"{path}: {name} is {str(given)[:40]}, not one whole number from {least}"
        )
    return value
