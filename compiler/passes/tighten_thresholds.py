"""Clip thresholds into the reachable range: the same answers, and they fit the narrow types of the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove


def tighten_thresholds(program: ir.Program) -> ir.Program:
    """A threshold above the proved maximum never fires and one below the minimum always does: clip to
    maximum + 1 and minimum. A firing membrane keeps its exact threshold, since u - threshold is observable.
    """
    bounds = prove(program)
    nodes: list[ir.Node] = []
    for node in program.nodes:
        b = bounds.nodes[node.name]
        if isinstance(node, ir.LatencyEncoder) and b.lo is not None and b.hi is not None:
            lo, hi = b.lo[:, None], b.hi[:, None] + 1
            clipped = np.clip(node.thresholds.astype(np.int64), lo, np.minimum(hi, 2**31 - 1))
            node = replace(node, thresholds=clipped.astype(np.int32))
        elif isinstance(node, ir.Lif | ir.Amos | ir.CurrentEncoder) and b.hi is not None:
            never = np.minimum(np.maximum(b.hi + 1, 1), 2**31 - 1)
            node = replace(node, threshold=np.minimum(node.threshold, never).astype(np.int32))
        nodes.append(node)
    return replace(program, nodes=tuple(nodes))
