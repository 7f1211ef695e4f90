"""The ordinary network on data: activations, their percentiles, its classes, its multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.ann import INPUT, Ann, Unit, term_shape, unit_shapes
from edgesnn.compiler.bounds import total_fan_out
from edgesnn.compiler.graph import Dense
from edgesnn.conversion.batches import LinearMap, plain_convolutions, to_maps, window_maxima
from edgesnn.conversion.percentile import TopShare

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VALUES_PER_BATCH = 1 << 22  # of the widest map


class AnnForward:
    """An Ann in torch. values: float64[C, 256], what its first layer sees for a raw uint8 sample."""

    def __init__(self, ann: Ann, values: np.ndarray, dtype: torch.dtype | None = None) -> None:
        import torch

        self.ann, self.dtype = ann, dtype or torch.float32
        self._values = torch.from_numpy(values.copy()).to(self.dtype)
        self._shapes = unit_shapes(ann)
        self._linear = {
            u.name: [LinearMap(t.linear, self.dtype) for t in u.terms] for u in ann.units
        }
        self._bias = {u.name: torch.from_numpy(u.bias).to(self.dtype) for u in ann.units}
        self._last_reader = {t.source: u.name for u in ann.units for t in u.terms}
        widest = max(int(np.prod(term_shape(u.terms[0], self._shapes))) for u in ann.units)
        self.batch = max(1, min(512, VALUES_PER_BATCH // widest))

    def run(self, x: np.ndarray) -> Iterator[tuple[str, Tensor]]:
        """(name, values [N, C, H, W]) of every unit in turn, for raw maps uint8[N, H, W, C]."""
        import torch

        raw = torch.from_numpy(to_maps(x)).long()
        channels = torch.arange(raw.shape[1])[None, :, None, None]
        maps = {INPUT: self._values[channels, raw]}
        for unit in self.ann.units:
            with torch.no_grad(), plain_convolutions():
                maps[unit.name] = self._unit(unit, maps)
            yield unit.name, maps[unit.name]
            for name in [n for n, reader in self._last_reader.items() if reader == unit.name]:
                del maps[name]

    def _unit(self, unit: Unit, maps: dict[str, Tensor]) -> Tensor:
        import torch

        y = self._bias[unit.name][None, :, None, None]
        for term, linear in zip(unit.terms, self._linear[unit.name], strict=True):
            y = y + linear(maps[term.source])
        if unit.pool is not None:
            y = window_maxima(
                y, unit.pool.kernel, unit.pool.stride, unit.pool.padding, float("-inf")
            )
        if unit.rectified:
            y = y.clamp_min(0)
        if unit.ceiling is not None:
            y = y.clamp_max(unit.ceiling)
        if unit.step is not None:
            y = torch.floor(y / unit.step + 0.5) * unit.step
        return y

    def batches(self, x: np.ndarray) -> Iterator[np.ndarray]:
        for i in range(0, len(x), self.batch):
            yield x[i : i + self.batch]

    def scores(self, x: np.ndarray) -> np.ndarray:
        """float64[N, classes]: the last unit's values."""
        out = []
        for part in self.batches(x):
            for _, y in self.run(part):
                last = y
            out.append(last.reshape(len(part), -1).double().numpy())
        return np.concatenate(out)

    def percentiles(self, x: np.ndarray, q: float) -> dict[str, float]:
        """The q-quantile (q in 0...1) of |activation| of every unit but the last, over all of `x`."""
        return self.ranges(x, (q,))[q]

    def ranges(self, x: np.ndarray, shares: tuple[float, ...]) -> dict[float, dict[str, float]]:
        """`percentiles` for several shares, in one pass."""
        hidden = [u.name for u in self.ann.units[:-1]]
        q = min(shares)
        top = {n: TopShare(q, len(x) * int(np.prod(self._shapes[n]))) for n in hidden}
        for part in self.batches(x):
            for name, y in self.run(part):
                if name in top:
                    top[name].add(y.abs())
        return {share: {n: t.at(share) for n, t in top.items()} for share in shares}


def multiply_accumulates(ann: Ann) -> int:
    """Of one inference, counted inside the maps."""
    shapes, count = unit_shapes(ann), 0
    for unit in ann.units:
        for term in unit.terms:
            p: ir.Projection
            if isinstance(term.linear, Dense):
                p = ir.Dense(term.source, term.linear.weight)
            else:
                c = term.linear
                p = ir.Conv(term.source, c.weight, c.stride, c.padding, c.dilation, c.groups)
            count += total_fan_out(p, shapes[term.source])
    return count
