"""The last layer: membranes that a readout looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgesnn.layers.base import Layer
from edgesnn.networks.arithmetic import currents, leaky_membranes
from edgesnn.neurons.leak import leak_logit, rounded_leak, shift_representable


class Output(Layer):
    """U[t] = leak U[t-1] + W s[t] + b: float[T, N, ...] to float[T, N, classes], without threshold or reset.

    learn_leak: one learned leak per class, for the temporal selector readout (AMOS paper).
    """

    kind = "output"

    def __init__(
        self, in_features: int, classes: int, *, leak: float = 0.5, learn_leak: bool = False
    ) -> None:
        super().__init__()
        self.linear = self._matrix(in_features, classes, norm=False)
        self.leak, self.learn_leak = leak, learn_leak
        self._fixed = shift_representable(leak)
        if learn_leak:
            self.output_leak_logit = nn.Parameter(torch.full((classes,), leak_logit(leak)))

    def forward(self, spikes: Tensor) -> Tensor:
        leak = rounded_leak(self.output_leak_logit) if self.learn_leak else self._fixed
        return leaky_membranes(currents(self.linear, None, spikes), leak)
