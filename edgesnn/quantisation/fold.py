"""From a folded graph back to a checkpoint: linear layers with bias, no batch norm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgesnn.checkpoint import Checkpoint
from edgesnn.compiler import graph as g
from edgesnn.compiler.weight_format import WEIGHT_FORMATS
from edgesnn.quantisation.network import IntegerNetwork
from edgesnn.targets.errors import UsageError


def folded_state(graph: g.Graph) -> dict[str, Tensor]:
    """linear.<layer>.weight and .bias of a folded graph, float64, as a checkpoint names and lays them out.

    Convolutions become (O, I, kh, kw); an encoder of raw samples has no weights in a checkpoint.
    """
    state: dict[str, Tensor] = {}
    for layer in graph.layers:
        raw = isinstance(layer, g.LatencyEncode) and layer.activation == "identity"
        if not isinstance(layer, g.Linear) or raw:
            continue
        weight, bias = torch.tensor(layer.linear.weight), torch.tensor(layer.linear.bias)
        if isinstance(layer.linear, g.Conv):
            weight = weight.permute(0, 3, 1, 2).contiguous()
        state[f"linear.{layer.name}.weight"] = weight
        state[f"linear.{layer.name}.bias"] = bias
    return state


def tuned_checkpoint(checkpoint: Checkpoint, network: IntegerNetwork) -> Checkpoint:
    """The checkpoint with the network's parameters and weight format; its batch norms are folded.

    `network` was made from this checkpoint's graph. Learned leaks stay as they are. UsageError for a weight
    format that checkpoints do not name.
    """
    if network.weights not in WEIGHT_FORMATS:
        raise UsageError(
            f"a checkpoint's weights are one of {', '.join(WEIGHT_FORMATS)}, not {network.weights}"
        )
    kept = {k: v for k, v in checkpoint.state.items() if not k.startswith(("linear.", "norm."))}
    return replace(
        checkpoint,
        network=replace(checkpoint.network, norm=False),
        state={**kept, **folded_state(network.to_graph())},
        weights=network.weights,
    )
