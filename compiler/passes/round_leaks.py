"""Round every leak to the nearest sum of at most three signed powers of two, which a device can shift."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import combinations_with_replacement

from edgesnn.compiler.graph import CurrentEncode, Graph, Layer, Output, Spiking
from edgesnn.compiler.ir import Shifts

MAX_SHIFT = 8


@lru_cache(maxsize=256)
def shift_terms(leak: float) -> Shifts:
    """The nearest ((sign, shift), ...) to `leak` in [0, 1]; fewest terms win ties; () is 0, ((1, 0),) is 1."""
    terms = [(sign, shift) for shift in range(MAX_SHIFT + 1) for sign in (1, -1)]
    best: Shifts = ()
    error = abs(leak)
    for count in (1, 2, 3):
        for choice in combinations_with_replacement(terms, count):
            miss = abs(leak - shift_value(choice))
            if miss < error - 1e-12:
                best, error = choice, miss
    return best


def shift_value(terms: Shifts) -> float:
    """The real factor that the terms stand for."""
    return float(sum(sign * 2.0**-shift for sign, shift in terms))


def round_leaks(graph: Graph) -> Graph:
    """Replace each leak by the value its shift terms stand for."""
    return replace(graph, layers=tuple(_round(layer) for layer in graph.layers))


def _round(layer: Layer) -> Layer:
    if isinstance(layer, Output) and isinstance(layer.leak, tuple):
        return replace(layer, leak=tuple(shift_value(shift_terms(v)) for v in layer.leak))
    if isinstance(layer, CurrentEncode | Spiking | Output) and isinstance(layer.leak, float | int):
        return replace(layer, leak=shift_value(shift_terms(float(layer.leak))))
    return layer
