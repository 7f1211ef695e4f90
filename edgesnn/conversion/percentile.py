"""A high percentile of very many values, exactly, while only the largest are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class TopShare:
    """The value that a share 1 - q of `total` values exceed, from batches of them."""

    def __init__(self, q: float, total: int) -> None:
        self.total = total
        self.keep = max(1, round((1.0 - q) * total) + 1)
        self._best: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Values of any shape."""
        import torch

        flat = values.reshape(-1)
        if self._best is not None:
            if len(self._best) == self.keep:
                flat = flat[flat > self._best[-1]]
            flat = torch.cat([self._best, flat])
        self._best = torch.topk(flat, min(self.keep, len(flat))).values

    @property
    def value(self) -> float:
        assert self._best is not None
        return float(self._best[-1])

    def at(self, q: float) -> float:
        """The value of another share, at least as high as the first."""
        assert self._best is not None
        return float(self._best[min(round((1.0 - q) * self.total), len(self._best) - 1)])
