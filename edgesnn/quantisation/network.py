"""A torch network whose forward pass is the integer program, spike for spike, and which can be trained.

The parameters are the folded weights and biases of a float graph. Each forward pass lowers them with the
compiler's own passes, so there is one definition of rounding, scales and thresholds, and runs the program's
equations (compiler/ir.py) for a whole batch and all T steps. Gradients are straight-through: those of the float
network in whose place the integers stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgesnn.coding.latency import latency_encode
from edgesnn.coding.readout import decode
from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, fan_out, prove
from edgesnn.compiler.lower import lower_with_units
from edgesnn.compiler.passes.fold_batch_norm import fold_batch_norm
from edgesnn.compiler.passes.quantise import Units
from edgesnn.compiler.passes.round_leaks import round_leaks
from edgesnn.networks.arithmetic import event_steps
from edgesnn.neurons.surrogate import step
from edgesnn.quantisation.integer import (
    FLOAT32_EXACT,
    Leak,
    exact_arithmetic,
    straight_through,
)

KEPT_VALUES = 1 << 26  # spikes of a batch in an evaluation; as many membranes are kept beside them


@dataclass
class IntegerActivity:
    """What the program did in T steps on N samples; every value is a whole number.

    membranes: [T, N, classes], the output membranes, times `scale` those of the float network. encoder: the
    encoder's spikes [T, N, C, H, W]; hidden: those of the spiking layers by name. trace, where asked for: each
    node's events per unit, and the membranes [T, N, C, H, W] that each population keeps after its reset.
    """

    membranes: Tensor
    scale: float
    encoder: Tensor
    hidden: dict[str, Tensor]
    events: dict[str, Tensor] = field(default_factory=dict)
    states: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """Decisions on N samples, each up to its exit, and what they took; columns are the program's nodes.

    labels, steps: int64[N]; exited: bool[N]; membranes: int64[N, classes] at the exit; events, sops:
    int64[N, nodes].
    """

    labels: np.ndarray
    steps: np.ndarray
    exited: np.ndarray
    membranes: np.ndarray
    events: np.ndarray
    sops: np.ndarray


@dataclass(frozen=True)
class _Lowered:
    program: ir.Program
    units: dict[str, Units]
    bounds: Bounds
    shapes: dict[str, ir.Shape]


def integer_network(graph: g.Graph, weights: str = "int8") -> IntegerNetwork:
    """The trainable integer form of a float graph, in a weight format (compiler/weight_format.py)."""
    return IntegerNetwork(graph, weights)


class IntegerNetwork(nn.Module):
    """Parameters weight.<layer> and bias.<layer>, float64, in the compiler's layout.

    An encoder of raw samples has fixed weights; a network of events without biases gets none. surrogate,
    width: of the spikes, in units of the float network's membranes.
    """

    def __init__(
        self, graph: g.Graph, weights: str = "int8", surrogate: str = "triangle", width: float = 1.0
    ) -> None:
        super().__init__()
        self.graph = round_leaks(fold_batch_norm(graph))
        self.weights, self.surrogate, self.width = weights, surrogate, width
        self.weight, self.bias = nn.ParameterDict(), nn.ParameterDict()
        for layer in self.graph.layers:
            if isinstance(layer, g.Linear):
                assert layer.linear.bias is not None
                fixed = isinstance(layer, g.LatencyEncode) and layer.activation == "identity"
                silent = isinstance(graph.input, g.EventInput) and not layer.linear.bias.any()
                for group, value, kept in (
                    (self.weight, layer.linear.weight, fixed),
                    (self.bias, layer.linear.bias, fixed or silent),
                ):
                    tensor = torch.tensor(value, dtype=torch.float64)
                    group[layer.name] = nn.Parameter(tensor, requires_grad=not kept)
        self._lowered: tuple[list[Tensor], _Lowered] | None = None
        self._lower()

    def to_graph(self) -> g.Graph:
        """The float graph of the parameters as they are, folded."""
        layers: list[g.Layer] = []
        for layer in self.graph.layers:
            if isinstance(layer, g.Linear):
                weight = self.weight[layer.name].detach().cpu().numpy().copy()
                bias = self.bias[layer.name].detach().cpu().numpy().copy()
                linear = replace(layer.linear, weight=weight, bias=bias)
                layer = replace(layer, linear=linear)  # type: ignore[arg-type]
            layers.append(layer)
        return replace(self.graph, layers=tuple(layers))

    def program(self) -> ir.Program:
        """The integer program that `forward` computes: lower(self.to_graph(), weights=self.weights)."""
        return self._lower().program

    def _lower(self) -> _Lowered:
        """Lowered once for each state of the parameters."""
        state = list(self.parameters())
        if self._lowered is not None and all(map(torch.equal, state, self._lowered[0])):
            return self._lowered[1]
        program, units = lower_with_units(self.to_graph(), weights=self.weights)
        low = _Lowered(program, units, prove(program), ir.shapes(program))
        self._lowered = ([p.detach().clone() for p in state], low)
        return low

    def forward(self, samples: np.ndarray | Tensor, *, trace: bool = False) -> IntegerActivity:
        """Run raw samples [N, H, W, C] of the input's type through all T steps; of events [N, H, W, T C]."""
        with exact_arithmetic():
            return self._run(samples, trace)

    def _run(self, samples: np.ndarray | Tensor, trace: bool) -> IntegerActivity:
        low = self._lower()
        program, layers = low.program, {layer.name: layer for layer in self.graph.layers}
        source = program.input
        device = next(iter(self.weight.values())).device
        x = torch.as_tensor(samples, device=device).permute(0, 3, 1, 2).to(torch.float64)
        events: dict[str, Tensor] = {}
        if isinstance(source, ir.EventInput):
            events[source.name] = x = event_steps(x, program.timesteps)
        else:
            x = x - source.zero_point
        states: dict[str, Tensor] = {}
        hidden: dict[str, Tensor] = {}
        membranes = encoder = x
        for node in program.nodes[1:]:
            layer = layers[node.name]
            assert not isinstance(node, ir.Input | ir.CssEncoder | ir.Integrator)
            if isinstance(node, ir.LatencyEncoder):
                assert isinstance(layer, g.LatencyEncode)
                events[node.name] = encoder = self._latency(low, node, layer, x)
            elif isinstance(node, ir.CurrentEncoder):
                current = self._linear(low, node.projection, node.name, x)
                currents = current.expand(program.timesteps, *current.shape)
                encoder, states[node.name] = self._fire(low, node, currents)
                events[node.name] = encoder
            elif isinstance(node, ir.Merge):
                events[node.name] = torch.stack([events[s] for s in node.sources]).sum(0)
            elif isinstance(node, ir.OrPool | ir.SumPool):
                events[node.name] = _pool(node, events[node.source])
            else:
                currents = self._integrated(low, node, events)
                if isinstance(node, ir.Accumulator):
                    membranes = self._accumulate(low, node, currents)
                    states[node.name] = membranes
                else:
                    spikes, states[node.name] = self._fire(low, node, currents)
                    events[node.name] = hidden[node.name] = spikes
        scale = float(low.units[program.output.name].sum[0])
        activity = IntegerActivity(membranes.flatten(2), scale, encoder, hidden)
        if trace:
            activity.events, activity.states = events, states
        return activity

    def _linear(self, low: _Lowered, p: ir.Projection, name: str, x: Tensor) -> Tensor:
        """The projection on x [N, C, H, W] with the program's weights; float64 where float32 cannot hold it."""
        b, units = low.bounds.nodes[name], low.units[name]
        assert b.lo is not None and b.hi is not None
        node = low.program.node(name)
        leaks = node.leaks if isinstance(node, ir.Accumulator) else (getattr(node, "leak", ()),)
        reach = max(int(b.hi.max()), -int(b.lo.min())) * max(1, *(len(leak) for leak in leaks))
        bias = getattr(node, "bias", np.zeros(1))
        dtype = torch.float32 if reach + np.abs(bias).max() < FLOAT32_EXACT else torch.float64
        weight = self.weight[name]
        q = torch.as_tensor(p.weight, device=x.device).to(dtype)
        scale = torch.as_tensor(units.weight, device=x.device).view(-1, *([1] * (weight.dim() - 1)))
        # No gradient is cut off: the scale follows the weights, so one beyond the largest integer is not lost.
        q = straight_through(q, (weight / scale).to(dtype))
        x = x.to(dtype)
        if isinstance(p, ir.Dense):
            flat = x.permute(0, 2, 3, 1).flatten(1)
            return functional.linear(flat, q)[:, :, None, None]
        top, left, bottom, right = p.padding
        if any(p.padding):
            x = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(x, q.permute(0, 3, 1, 2), None, p.stride, 0, p.dilation, p.groups)

    def _bias(self, low: _Lowered, node: ir.CurrentEncoder | ir.Population, like: Tensor) -> Tensor:
        unit = torch.as_tensor(low.units[node.name].sum, device=like.device)
        exact = torch.as_tensor(node.bias, device=like.device).to(like.dtype)
        smooth = (self.bias[node.name] / unit).to(like.dtype)
        return straight_through(exact, smooth).view(1, -1, 1, 1)

    def _latency(
        self, low: _Lowered, node: ir.LatencyEncoder, layer: g.LatencyEncode, x: Tensor
    ) -> Tensor:
        a = self._linear(low, node.projection, node.name, x)
        if node.pool != (1, 1):
            a = functional.max_pool2d(a, node.pool)
        steps = low.program.timesteps
        limits = torch.as_tensor(node.thresholds, device=a.device).to(torch.float64)
        before = torch.zeros_like(a, dtype=torch.bool)
        exact = a.new_empty((steps, *a.shape))
        for k in range(steps - 1):
            reached = a.detach() >= limits[:, k].view(1, -1, 1, 1)
            exact[k] = reached & ~before
            before = reached
        exact[-1] = ~before
        if steps == 1:
            return exact  # every unit spikes in the only step, whatever the weights
        unit = torch.as_tensor(low.units[node.name].sum, device=a.device).to(a.dtype)
        bias = self.bias[node.name].to(a.dtype)
        phi = a * unit.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
        feature = torch.sigmoid(phi) if layer.activation == "sigmoid" else phi
        return straight_through(exact, latency_encode(feature, steps))

    def _integrated(self, low: _Lowered, node: ir.Population, events: dict[str, Tensor]) -> Tensor:
        (p,) = node.projections
        spikes = events[p.source]
        return self._linear(low, p, node.name, spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])

    def _accumulate(self, low: _Lowered, node: ir.Accumulator, currents: Tensor) -> Tensor:
        """U <- leak(U) + current + bias."""
        leak, bias = Leak(node.leaks, currents), self._bias(low, node, currents)
        u = torch.zeros_like(currents[0])
        out = []
        for current in currents.unbind(0):
            u = leak(u) + bias + current
            out.append(u)
        return torch.stack(out)

    def _fire(
        self, low: _Lowered, node: ir.CurrentEncoder | ir.Lif | ir.Amos, currents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """u <- leak(u) + current + bias, spike where u >= threshold, reset: (spikes, membranes kept)."""
        leak, bias = Leak((node.leak,), currents), self._bias(low, node, currents)
        unit = torch.as_tensor(low.units[node.name].sum, device=currents.device)
        unit = unit.to(currents.dtype).view(1, -1, 1, 1)
        theta = torch.as_tensor(node.threshold, device=currents.device)
        theta = theta.to(currents.dtype).view(1, -1, 1, 1)
        u = fired = torch.zeros_like(currents[0])
        spikes, kept = [], []
        for t, current in enumerate(currents.unbind(0), start=1):
            u = leak(u) + bias + current
            # The surrogate's width is in units of the float network's membranes.
            smooth = step((u - theta) * unit, self.surrogate, self.width)
            spike = straight_through((u.detach() >= theta).to(u.dtype), smooth)
            if isinstance(node, ir.Amos):
                if node.forced and t == low.program.timesteps:
                    spike = torch.ones_like(spike)
                spike = (1.0 - fired) * spike
                fired = fired + spike
            elif node.reset == "hard":
                u = u * (1.0 - spike)
            else:
                u = u - spike * theta
            spikes.append(spike)
            kept.append(u)
        return torch.stack(spikes), torch.stack(kept)

    def membranes(self, x: np.ndarray, batch: int = 250) -> np.ndarray:
        """Output membranes int64[T, N, classes] of raw samples [N, H, W, C], at most `batch` at a time."""
        out = [a.membranes for a in self._batches(x, batch)]
        return torch.cat(out, dim=1).to(torch.int64).cpu().numpy()

    def evaluate_counts(self, x: np.ndarray, batch: int = 250) -> Counts:
        """Decide raw samples [N, H, W, C] as the compiled program does, and count its events and operations."""
        parts = [self._counted(a) for a in self._batches(x, batch)]
        names = ("labels", "steps", "exited", "membranes", "events", "sops")
        return Counts(*(np.concatenate([getattr(part, n) for part in parts]) for n in names))

    def _batches(self, x: np.ndarray, batch: int) -> Iterator[IntegerActivity]:
        low = self._lower()
        per_sample = low.program.timesteps * sum(map(ir.size, low.shapes.values()))
        batch = max(1, min(batch, KEPT_VALUES // per_sample))
        with torch.no_grad():
            for start in range(0, len(x), batch):
                yield self(x[start : start + batch], trace=True)

    def _counted(self, activity: IntegerActivity) -> Counts:
        low = self._lower()
        program, rule = low.program, low.program.readout
        membranes = activity.membranes.to(torch.int64).cpu().numpy()
        count, last = membranes.shape[1], np.arange(membranes.shape[1])
        if isinstance(rule, ir.Rate | ir.Css):
            labels = membranes[-1].argmax(axis=-1)
            steps, exited = np.full(count, program.timesteps), np.zeros(count, dtype=bool)
        else:
            kind = "margin" if isinstance(rule, ir.Margin) else "first-spike"
            decided = decode(membranes, kind, rule.value)
            labels, steps, exited = decided.labels, decided.steps, decided.exited
        alive = np.arange(program.timesteps)[:, None] < steps[None, :]  # [T, N]
        events = np.zeros((count, len(program.nodes)), dtype=np.int64)
        sops = np.zeros_like(events)

        def until_exit(per_step: Tensor) -> np.ndarray:
            summed = per_step.to(torch.float64).sum(dim=(2, 3, 4)).cpu().numpy()
            return np.rint((summed * alive).sum(axis=0)).astype(np.int64)

        for i, node in enumerate(program.nodes):
            if node.name in activity.events:
                events[:, i] = until_exit(activity.events[node.name])
            if isinstance(node, ir.Population):
                for p in node.projections:
                    fan = torch.as_tensor(fan_out(p, low.shapes[p.source]))
                    spikes = activity.events[p.source].to(torch.float64)
                    sops[:, i] += until_exit(spikes * fan.to(spikes.device))
        return Counts(labels, steps, exited, membranes[steps - 1, last], events, sops)


def _pool(node: ir.OrPool | ir.SumPool, spikes: Tensor) -> Tensor:
    flat = spikes.flatten(0, 1)
    if isinstance(node, ir.OrPool):
        pooled = functional.max_pool2d(flat, node.kernel, node.stride)
    else:  # a divisor of one: sums
        pooled = functional.avg_pool2d(flat, node.kernel, node.stride, divisor_override=1)
    return pooled.unflatten(0, spikes.shape[:2])
