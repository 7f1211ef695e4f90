"""What the layers compute, as functions: `SpikingNetwork` and the modules of `edgesnn.layers` share them.

Spikes and currents are float[T, N, ...]: maps [T, N, C, H, W], channel-last in memory, or units [T, N, n].
Time is folded into the batch wherever a layer has no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgesnn.coding.direct import direct_encode
from edgesnn.networks.spec import NeuronSpec, Pair

Linear = nn.Conv2d | nn.Linear


def batch_norm(linear: Linear, start: NeuronSpec | float) -> nn.BatchNorm2d | nn.BatchNorm1d:
    """The batch norm after a linear map. start: the neurons it feeds, or an encoder's initial bias.

    Currents start at about half a threshold: neither silent nor saturated.
    """
    norm: nn.BatchNorm2d | nn.BatchNorm1d
    if isinstance(linear, nn.Conv2d):
        norm = nn.BatchNorm2d(linear.out_channels)
    else:
        norm = nn.BatchNorm1d(linear.out_features)
    if isinstance(start, NeuronSpec):
        nn.init.constant_(norm.weight, 0.5 * start.v_threshold)
    else:
        nn.init.constant_(norm.bias, start)
    return norm


class RmsNorm(nn.Module):
    """y = weight * x / sqrt(mean(x^2) + eps) per channel: a batch norm that leaves silence silent.

    For nets of events: where nothing arrives no current flows, so a membrane at rest is 0 and costs nothing.
    It has a batch norm's state, and folds like one; running_mean and bias are constants, 0 unless loaded.
    """

    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))
        self.eps, self.momentum = 1e-5, 0.1
        for name, value in (("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C] or float[N, C, H, W] to the same."""
        channel = (1, -1) if x.dim() == 2 else (1, -1, 1, 1)
        var = self.running_var
        if self.training:
            others = [d for d in range(x.dim()) if d != 1]
            var = (x - self.running_mean.view(channel)).square().mean(others)
            with torch.no_grad():
                self.running_var.lerp_(var, self.momentum)
                self.num_batches_tracked += 1
        factor = self.weight * torch.rsqrt(var + self.eps)
        offset = self.bias - self.running_mean * factor
        return torch.addcmul(offset.view(channel), x, factor.view(channel))


def event_steps(samples: Tensor, timesteps: int) -> Tensor:
    """float[T, N, C, H, W] of 0 and 1: events of samples [N, T C, H, W], channel t C + c; non-zero is one."""
    steps = samples.ne(0).to(samples.dtype).unflatten(1, (timesteps, -1)).transpose(0, 1)
    maps = steps.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return maps.unflatten(0, (timesteps, -1))


def channel_last(samples: Tensor) -> Tensor:
    """float[N, C, H, W], channel-last in memory."""
    return samples.contiguous(memory_format=torch.channels_last)


def potential(linear: nn.Module, norm: nn.Module | None, x: Tensor) -> Tensor:
    """The linear map and its batch norm (None: none) of float[N, C, H, W] or float[N, n]."""
    x = _maps(x) if isinstance(linear, nn.Conv2d) else flat(x)
    out: Tensor = linear(x)
    return out if norm is None else norm(out)


def currents(linear: nn.Module, norm: nn.Module | None, spikes: Tensor) -> Tensor:
    """`potential` of every step: float[T, N, ...] to float[T, N, ...]."""
    return potential(linear, norm, spikes.flatten(0, 1)).unflatten(0, (len(spikes), -1))


def direct_spikes(neuron: nn.Module, current: Tensor, timesteps: int) -> Tensor:
    """Spikes of neurons with the same current float[N, ...] in every step."""
    spikes: Tensor = neuron(direct_encode(current, timesteps))
    return spikes


def max_pooled(phi: Tensor, window: Pair) -> Tensor:
    """An encoder's max-pool; a window of 1 is none."""
    return phi if window == (1, 1) else functional.max_pool2d(phi, window)


def pooled(kind: str, spikes: Tensor, kernel: Pair, stride: Pair) -> Tensor:
    """Or-pool ("or-pool") or mean ("avg-pool") over windows, in every step."""
    pool = functional.max_pool2d if kind == "or-pool" else functional.avg_pool2d
    folded = _maps(spikes.flatten(0, 1))
    return pool(folded, kernel, stride).unflatten(0, (len(spikes), -1))


def merged(spikes: Sequence[Tensor]) -> Tensor:
    """SEW addition, s = s_1 + s_2 + ...; one source passes as it is."""
    if len(spikes) == 1:
        return spikes[0]
    if len({s.dim() for s in spikes}) > 1:  # units and maps of 1 x 1
        spikes = [s.flatten(2) for s in spikes]
    return torch.stack(list(spikes)).sum(0)


def leaky_membranes(currents: Tensor, leak: Tensor | float) -> Tensor:
    """U[t] = leak U[t-1] + O[t], U[0] = 0; currents float[T, N, classes], leak one or float[classes]."""
    steps = currents.unbind(0)
    membranes = [steps[0]]
    for current in steps[1:]:
        if isinstance(leak, Tensor):
            membranes.append(torch.addcmul(current, membranes[-1], leak))
        else:
            membranes.append(torch.add(current, membranes[-1], alpha=leak))
    return torch.stack(membranes)


def flat(x: Tensor) -> Tensor:
    """Channel-last flattened order; a view for channel-last maps."""
    return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x


def _maps(x: Tensor) -> Tensor:
    """Units as maps of 1 x 1."""
    return x[:, :, None, None] if x.dim() == 2 else x
