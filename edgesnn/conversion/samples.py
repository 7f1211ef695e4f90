"""Calibration data: what a person has, brought to raw uint8 maps and what the network takes for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.compiler.ann import Ann
from edgesnn.targets.errors import EdgesnnError, UsageError

LEAST = 50  # samples; fewer say too little about a 99.99th percentile
Numbers = float | tuple[float, ...] | list[float] | None


@dataclass(frozen=True)
class Samples:
    """x: raw uint8[N, H, W, C]. y: int64[N] or None.

    values: float64[C, 256], what the first layer sees for a raw sample. about: plain values that say how raw
    samples are fed (`raw_samples` reads them).
    """

    x: np.ndarray
    y: np.ndarray | None
    values: np.ndarray
    about: dict[str, Any]

    def part(self, chosen: np.ndarray) -> Samples:
        y = None if self.y is None else self.y[chosen]
        return Samples(self.x[chosen], y, self.values, self.about)


def read_samples(
    ann: Ann, calibration: str | Path | np.ndarray, mean: Numbers = None, std: Numbers = None
) -> Samples:
    """Calibration data for `ann`: the path of an .npz with `x` (and labels `y`), or an array.

    uint8 x is raw: the network is fed (x / 255 - mean) / std, mean 0 and std 1 if they are not given (a network
    that takes 0...255 itself: std 1/255). Floating x is what the network takes; raw 0...255 then stands for its
    smallest to its largest value. Raises UsageError or EdgesnnError, one line.
    """
    x, y, where = _arrays(calibration)
    x = _shaped(ann, x, where)
    if len(x) < LEAST:
        raise UsageError(f"{where} has {len(x)} samples; conversion needs at least {LEAST}")
    channels = ann.input.shape[2]
    raw = np.arange(256, dtype=np.float64)
    about: dict[str, Any] = {"shape": list(ann.input.fed_shape)}
    if x.dtype == np.uint8:
        m, s = _per_channel(mean, 0.0, channels, "mean"), _per_channel(std, 1.0, channels, "std")
        if not bool(np.all(s > 0)):
            raise UsageError("std has a value that is not above 0")
        fed = (raw[None] / 255.0 - m[:, None]) / s[:, None]
        about |= {"dtype": "uint8", "mean": m.tolist(), "std": s.tolist()}
    elif x.dtype.kind == "f":
        if mean is not None or std is not None:
            raise UsageError(
                f"mean and std are for uint8 samples; {where} is {x.dtype}: what the network takes"
            )
        about |= {"dtype": "float", **_range(x, where)}
        x = raw_samples(x, about)
        low, high = about["low"], about["high"]
        fed = np.broadcast_to(low + raw * (high - low) / 255.0, (channels, 256))
    else:
        raise UsageError(
            f"{where}: x is {x.dtype}; give uint8 (raw) or float (what the network takes)"
        )
    values = fed * ann.input.scale[:, None] + ann.input.offset[:, None]
    about["fed"] = [float(fed.min()), float(fed.max())]
    return Samples(ann.input.to_map(x), _labels(y, len(x), ann, where), values, about)


def raw_samples(x: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """The uint8 samples of what a network takes, by the `input` of a conversion's report; uint8 is raw already.

    Values beyond the calibration's range are clipped to it.
    """
    if x.dtype == np.uint8 or about["dtype"] == "uint8":
        return np.asarray(x, dtype=np.uint8)
    low, high = about["low"], about["high"]
    scaled = (x.astype(np.float64) - low) / (high - low) * 255.0
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def sample_shape(calibration: str | Path | np.ndarray) -> tuple[int, ...]:
    """Shape of one sample, without the batch axis."""
    x, _, where = _arrays(calibration)
    if x.ndim < 2:
        raise UsageError(f"{where}: x has shape {x.shape}, not one row per sample")
    return tuple(x.shape[1:])


def split(samples: Samples, held_out: float, seed: int) -> tuple[Samples, Samples]:
    """(for calibration, held out), shuffled: data sorted by class would spoil the percentiles of a part."""
    if not 0.0 < held_out <= 0.5:
        raise UsageError(f"held_out {held_out!r} is not in (0, 0.5]")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(samples.x))
    held = max(1, int(len(order) * held_out))
    return samples.part(order[held:]), samples.part(order[:held])


def _arrays(calibration: str | Path | np.ndarray) -> tuple[np.ndarray, np.ndarray | None, str]:
    if isinstance(calibration, str | Path):
        from edgesnn.data.npz import read_arrays

        path = Path(calibration).expanduser()
        if not path.is_file():
            raise UsageError(f"{path}: no such file; give an .npz with an array x")
        arrays = read_arrays(path, ("x", "y?"))
        return arrays["x"], arrays.get("y"), str(path)
    return np.asarray(calibration), None, "calibration"


def _shaped(ann: Ann, x: np.ndarray, where: str) -> np.ndarray:
    """[N, *fed_shape], a missing channel axis of one added."""
    fed, axis = ann.input.fed_shape, ann.input.axes[2]
    if x.ndim == len(fed) and axis >= 0 and ann.input.shape[2] == 1:
        x = np.expand_dims(x, axis + 1)
    if x.ndim == 0 or x.shape[1:] != fed:
        raise UsageError(
            f"{where}: x has samples of shape {x.shape[1:]}, {ann.name} takes {fed}; give x the "
            "network's own axis order"
        )
    return x


def _range(x: np.ndarray, where: str) -> dict[str, float]:
    low, high = float(x.min()), float(x.max())
    if not np.isfinite([low, high]).all():
        raise EdgesnnError(f"{where}: x has values that are not finite")
    if low == high:
        raise EdgesnnError(f"{where}: every value of x is {low:g}")
    return {"low": low, "high": high}


def _per_channel(value: Numbers, default: float, channels: int, name: str) -> np.ndarray:
    try:
        given = np.atleast_1d(np.asarray(default if value is None else value, dtype=np.float64))
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {value!r}, not a number or one per channel") from None
    if given.ndim != 1 or len(given) not in (1, channels) or not np.isfinite(given).all():
        raise UsageError(
            f"{name} is {value!r}, not a number or {channels} of them, one per channel"
        )
    return np.broadcast_to(given, channels).copy()


def _labels(y: np.ndarray | None, count: int, ann: Ann, where: str) -> np.ndarray | None:
    if y is None:
        return None
    classes = len(ann.units[-1].bias)
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise EdgesnnError(f"{where}: y is {y.dtype} of shape {y.shape}, not {count} whole numbers")
    if y.min() < 0 or y.max() >= classes:
        raise EdgesnnError(
            f"{where}: y runs from {y.min()} to {y.max()}, {ann.name} tells {classes} classes apart"
        )
    return y.astype(np.int64)
