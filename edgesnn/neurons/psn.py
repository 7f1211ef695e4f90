"""Parallel spiking neurons (PSN, Fang et al. 2023): a baseline of the AMOS paper. Trains, never deploys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgesnn.neurons.layout import full_precision, like_rows, memory_order, rows
from edgesnn.neurons.surrogate import step, surrogate
from edgesnn.targets.errors import UsageError


class Psn(nn.Module):
    """S = H(W X + B) with learned weights W [T, T] and thresholds -B [T, 1]; no membrane, no reset.

    Every step's spike mixes the currents of all steps, later ones included, so it cannot run step by step
    on a device: it is there to train and to be measured against. Fewer steps than T use the leading block
    of W and B. Initial values: W Kaiming-uniform with a = sqrt(5), B = -v_threshold.
    """

    def __init__(
        self,
        timesteps: int,
        v_threshold: float = 1.0,
        width: float = 1.0,
        *,
        surrogate_name: str = "triangle",
    ) -> None:
        super().__init__()
        if timesteps < 1:
            raise UsageError(f"timesteps {timesteps} is not at least 1")
        surrogate(surrogate_name)
        self.weight = nn.Parameter(torch.empty(timesteps, timesteps))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        self.bias = nn.Parameter(torch.full((timesteps, 1), -v_threshold))
        self.v_threshold, self.width, self.surrogate_name = v_threshold, width, surrogate_name

    def forward(self, currents: Tensor) -> Tensor:
        """float[T, ...] currents to float[T, ...] spikes; UsageError for more steps than it was made for."""
        count, most = len(currents), len(self.weight)
        if count > most:
            raise UsageError(f"{count} steps into parallel spiking neurons made for {most}")
        currents = full_precision(currents)
        order = memory_order(currents)
        with torch.autocast(currents.device.type, enabled=False):
            weight, bias = self.weight[:count, :count], self.bias[:count]
            membranes = torch.addmm(bias, weight, rows(currents, order))
        spikes = step(membranes, self.surrogate_name, self.width)
        return like_rows(spikes, currents, order)
