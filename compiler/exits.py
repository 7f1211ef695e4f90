"""When the class of a CSS program can no longer change: the proof behind its sound exit.

Let k lead after step p of the output's window and n = T - p steps be left. With beta the gain of the output's
amplification, every spike still to come is in {-1, 0, 1}, so that over the remaining steps U_k - U_j becomes at
least

    beta^n (U_k - U_j) - (|w_k - w_j|_1 + e - (b_k - b_j)) (beta^n - 1) / (beta - 1) + (c_k - c_j)

where b is the bias of a step, c the correction of the last one and e what the floors of one amplification
can take off the difference of two membranes: 1 - 2^-shift for each shifted term (0 for beta = 2). k stays
ahead of j if that is above 0, or equal to it with k < j.

What has arrived narrows the bound further for beta = 2. The prefix value g of a rectified Tsa is a whole number
of amplitudes and never negative: s = -1 needs g >= v // 2, hence g >= v. A unit whose g is 0 can therefore only
add to what it has said; of |w_k - w_j| it can take off no more than max(w_j - w_k, 0).
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

from edgesnn.compiler import ir

DOUBLING: ir.Shifts = ((1, 0), (1, 0))


def gain(amplification: ir.Shifts) -> Fraction:
    """beta, exactly."""
    return sum((Fraction(s, 1 << k) for s, k in amplification), Fraction(0))


def _differences(output: ir.CssOutput) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64[K, K] each: |w_k - w_j|_1 over all projections, b_k - b_j, c_k - c_j."""
    classes = len(output.bias)
    far = np.zeros((classes, classes), dtype=np.int64)
    for p in output.projections:
        w = p.weight.astype(np.int64)
        for k in range(classes):
            far[k] += np.abs(w[k] - w).sum(axis=1)
    b, c = output.bias.astype(np.int64), output.correction.astype(np.int64)
    return far, b[:, None] - b, c[:, None] - c


@lru_cache(maxsize=8)
def lead_needed(program: ir.Program) -> np.ndarray:
    """int64[T, K, K]: [n, k, j] is the least U_k - U_j with which k stays ahead of j for n more steps."""
    output, steps = program.output, ir.coding_steps(program)
    assert isinstance(output, ir.CssOutput)
    beta = gain(output.amplification)
    lost = sum((1 - Fraction(1, 1 << k) for _, k in output.amplification), Fraction(0))
    far, bias, correction = _differences(output)
    # Whole numbers throughout, as Python's own: beta^T has many digits after the point.
    one = (lost.denominator * beta.denominator**steps) ** 2
    reach = (far - bias).astype(object) * one + int(lost * one)
    ahead = np.arange(len(far))[:, None] > np.arange(len(far))
    needed = np.zeros((steps, *far.shape), dtype=np.int64)
    for n in range(1, steps):
        weight = sum((beta**m for m in range(n)), Fraction(0))
        rest = reach * weight.numerator - correction.astype(object) * (one * weight.denominator)
        scale = beta**n * one * weight.denominator
        rest, whole = rest * scale.denominator, scale.numerator
        needed[n] = np.where(ahead, rest // whole + 1, -(-rest // whole))
    needed[0] = ahead
    needed.flags.writeable = False
    return needed


def narrowing(program: ir.Program) -> str | None:
    """The node whose silent units narrow the bound, None where what has arrived says nothing more."""
    output = program.output
    if not isinstance(output, ir.CssOutput) or output.amplification != DOUBLING:
        return None
    if len(output.projections) != 1 or output.projections[0].delay:
        return None
    source = program.node(output.projections[0].source)
    fits = isinstance(source, ir.Tsa) and source.amplification == DOUBLING
    return source.name if fits and source.rectified and source.signed else None  # type: ignore[union-attr]


def pair_reach(program: ir.Program) -> np.ndarray:
    """int64[K, K] for beta = 2: |w_k - w_j|_1 - (b_k - b_j), what every step left can take off U_k - U_j."""
    output = program.output
    assert isinstance(output, ir.CssOutput) and output.amplification == DOUBLING
    far, bias, _ = _differences(output)
    return np.asarray(far - bias)


def is_settled(program: ir.Program, u: np.ndarray, left: int, silent: np.ndarray | None) -> bool:
    """Whether the leader of u int64[K] stays so with `left` steps to come; ties are led by the lowest index.

    silent: bool[units of the narrowing node], where its prefix value is 0; None without such a node.
    """
    k = int(u.argmax())
    others = np.arange(len(u)) != k
    if silent is None:
        return bool(np.all((u[k] - u >= lead_needed(program)[left, k])[others]))
    output = program.output
    assert isinstance(output, ir.CssOutput)
    w = output.projections[0].weight.astype(np.int64)
    spared = np.maximum(w[k] - w, 0)[:, silent].sum(axis=1)
    reach = pair_reach(program)[k] - spared
    correction = output.correction.astype(np.int64)
    ahead = ((u[k] - u) << left) - ((reach << left) - reach)
    if left:
        ahead = ahead + (correction[k] - correction)
    return bool(np.all((ahead >= (np.arange(len(u)) < k))[others]))
