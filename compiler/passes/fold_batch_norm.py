"""Fold batch norm into the linear layer before it: w' = w f, b' = (b - mean) f + beta, where
f = gamma / sqrt(var + eps).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgesnn.compiler.graph import Graph, Layer, Linear


def fold_batch_norm(graph: Graph) -> Graph:
    """Every linear layer gets a float64 bias and loses its norm.

    A max-pool between norm and sigmoid stays correct: the folded weights carry gamma's sign, and the pool
    takes the maximum of the folded sum, which is the normalised value itself.
    """
    return replace(graph, layers=tuple(_fold(layer) for layer in graph.layers))


def _fold(layer: Layer) -> Layer:
    if not isinstance(layer, Linear):
        return layer
    weight = layer.linear.weight.astype(np.float64)
    bias = (
        np.zeros(len(weight)) if layer.linear.bias is None else layer.linear.bias.astype(np.float64)
    )
    if layer.norm is not None:
        n = layer.norm
        factor = n.gamma.astype(np.float64) / np.sqrt(n.var.astype(np.float64) + n.eps)
        weight = weight * factor.reshape(-1, *([1] * (weight.ndim - 1)))
        bias = (bias - n.mean) * factor + n.beta
    linear: Any = replace(layer.linear, weight=weight, bias=bias)
    return replace(layer, linear=linear, norm=None)
