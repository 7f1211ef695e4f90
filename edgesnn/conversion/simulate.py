"""Many samples through a converted program at once, with the interpreter's answers bit for bit.

Nothing feeds back, so nodes run one after the other, each over all steps of its window: one convolution takes
the spikes of all steps, and only the membranes go step by step. Sums of arriving weights are floating point
of a width that holds them exactly (bounds.py), membranes are int32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, fan_out, prove, weight_sums
from edgesnn.compiler.exits import lead_needed, narrowing, pair_reach
from edgesnn.conversion.batches import LinearMap, plain_convolutions, to_maps, window_maxima
from edgesnn.conversion.percentile import TopShare
from edgesnn.targets.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

VALUES_PER_BATCH = 1 << 22  # of the widest map, over all steps
_LOWEST = -(2**31)
_EXACT = 1 << 24  # whole numbers below it are exact in float32


@dataclass(frozen=True)
class Simulation:
    """What a program does with N samples; steps are counted from 1 on.

    labels, steps, exited: the answer, the stopping step and whether the readout's criterion was met, [N].
    membranes: int64[N, classes] at the stop. history: int64[N, P, classes], U in every step of the output's
    window, the stop disregarded; output_steps: the step of the window in which it stopped. events, sops:
    int64[N, nodes] up to the stop. residuals: of a Tsa, the 99.9th percentile of |o| / v after the last firing.
    """

    labels: np.ndarray
    steps: np.ndarray
    output_steps: np.ndarray
    exited: np.ndarray
    membranes: np.ndarray
    history: np.ndarray
    events: np.ndarray
    sops: np.ndarray
    residuals: dict[str, float] = field(default_factory=dict)


def simulate(program: ir.Program, x: np.ndarray, *, residual: float = 0.999) -> Simulation:
    """Run raw samples x [N, H, W, C] of the input's dtype. residual: the share that `residuals` refers to."""
    return Simulator(program).run(x, residual=residual)


class Simulator:
    """Holds a program's weights as tensors; runs any number of samples."""

    def __init__(self, program: ir.Program) -> None:
        import torch

        if not isinstance(program.input, ir.SampleInput):
            raise UsageError(f"{program.name}: only programs that take samples are simulated")
        self.program = program
        self.bounds: Bounds = prove(program)
        self.css = ir.coding_steps(program) > 0
        self.length = ir.coding_steps(program) if self.css else program.timesteps
        self._shapes = ir.shapes(program)
        # First step in which a node's spikes go out, and in which spikes come in.
        self._start = ir.starts(program) if self.css else {n.name: 1 for n in program.nodes}
        self._maps: dict[str, list[tuple[LinearMap, Tensor]]] = {}
        for node in program.nodes:
            self._maps[node.name] = [
                (
                    LinearMap(p, torch.float32 if self._reach(node, p) < _EXACT else torch.float64),
                    torch.from_numpy(fan_out(p, self._shapes[p.source])).double(),
                )
                for p in ir.projections(node)
            ]
        self._readers = {s: n.name for n in program.nodes for s in ir.sources(n)}
        widest = max(
            int(np.prod(ir.conv_shape(p, self._shapes[p.source])))
            for n in program.nodes
            for p in ir.projections(n)
        )
        widest = max(widest, ir.size(program.input.shape))
        self.batch = max(1, min(1024, VALUES_PER_BATCH // (widest * self.length)))

    def _reach(self, node: ir.Node, p: ir.Projection) -> int:
        """Bound of the sums that a projection delivers in one step."""
        negative, positive = weight_sums(p)
        source = self.program.node(p.source)
        if isinstance(source, ir.SampleInput):
            lo, hi = ir.SAMPLE_RANGE[source.dtype]
            return int((positive - negative).max()) * (hi - lo)
        return int((positive - negative).max()) * self.bounds.nodes[p.source].multiplicity

    def run(self, x: np.ndarray, *, residual: float = 0.999) -> Simulation:
        source = self.program.input
        assert isinstance(source, ir.SampleInput)
        if x.shape[1:] != source.shape or x.dtype != source.dtype or not len(x):
            raise UsageError(
                f"{self.program.name} takes {source.dtype} samples of shape {source.shape}, got {x.dtype} "
                f"{x.shape[1:]} of {len(x)} samples"
            )
        top = {
            n.name: TopShare(residual, len(x) * self.bounds.nodes[n.name].neurons)
            for n in self.program.nodes
            if isinstance(n, ir.Tsa)
        }
        parts = [self._chunk(x[i : i + self.batch], top) for i in range(0, len(x), self.batch)]
        joined = {
            name: np.concatenate([part[name] for part in parts])
            for name in ("labels", "steps", "output_steps", "exited", "membranes", "history")
        }
        work = {name: np.concatenate([p[name] for p in parts]) for name in ("events", "sops")}
        left = {n: t.value for n, t in top.items()}
        return Simulation(**joined, **work, residuals=left)

    def _chunk(self, x: np.ndarray, top: dict[str, TopShare]) -> dict[str, np.ndarray]:
        import torch

        n, nodes, total = len(x), self.program.nodes, self.program.timesteps
        events = np.zeros((n, len(nodes), total), dtype=np.int64)
        sops = np.zeros_like(events)
        trains: dict[str, Tensor] = {}
        quiet: Tensor | None = None
        narrowed = narrowing(self.program) if self.css else None
        raw = torch.from_numpy(to_maps(x))
        with torch.no_grad(), plain_convolutions():
            for i, node in enumerate(nodes[1:], 1):
                start = self._start[node.name] - 1
                arriving, work = self._arriving(node, trains, raw)
                if work is not None:
                    sops[:, i, start : start + self.length] = work
                first = start
                if isinstance(node, ir.CssEncoder):
                    train = self._digits(node, raw)
                elif isinstance(node, ir.Tsa):
                    assert arriving is not None
                    first += node.silent
                    train, left, silent = self._tsa(node, arriving, node.name == narrowed)
                    top[node.name].add(left)
                    quiet = silent if node.name == narrowed else quiet
                elif isinstance(node, ir.Output):
                    assert arriving is not None
                    history = self._integrate(node, arriving)
                    continue
                else:
                    train = self._rate_node(node, arriving, trains)
                trains[node.name] = train
                counts = train.abs().flatten(2).sum(2, dtype=torch.int64).T.numpy()
                events[:, i, first : first + self.length] = counts
                for name in [s for s, reader in self._readers.items() if reader == node.name]:
                    trains.pop(name, None)
            late = self._start[nodes[-1].name] - 1
            label, stop, exited = self._stop(history, quiet)
        u = history.permute(1, 0, 2).long().numpy()
        at = stop.numpy()
        steps = late + at
        before = np.arange(1, total + 1) <= steps[:, None]
        return {
            "labels": label.numpy(),
            "steps": steps,
            "output_steps": at,
            "exited": exited.numpy(),
            "membranes": u[np.arange(n), at - 1],
            "history": u,
            "events": (events * before[:, None]).sum(axis=2),
            "sops": (sops * before[:, None]).sum(axis=2),
        }

    def _arriving(
        self, node: ir.Node, trains: dict[str, Tensor], raw: Tensor
    ) -> tuple[Tensor | None, np.ndarray | None]:
        """(sums of arriving weights int32[P, N, C, H, W], synaptic operations [N, P]); of an encoder its

        one sum int32[1, N, C, H, W].
        """
        import torch

        into = self._maps[node.name]
        if not into:
            return None, None
        if isinstance(node, ir.Encoder):
            source = self.program.input
            assert isinstance(source, ir.SampleInput)
            linear, _ = into[0]
            return linear(raw.to(linear.weight.dtype) - source.zero_point).to(torch.int32)[
                None
            ], None
        total: Tensor | None = None
        work = torch.zeros((), dtype=torch.float64)
        for p, (linear, fan) in zip(ir.projections(node), into, strict=True):
            train = trains[p.source]
            steps, n = train.shape[:2]
            sums = linear(train.flatten(0, 1).to(linear.weight.dtype)).to(torch.int32)
            sums = sums.reshape(steps, n, *sums.shape[1:])
            total = sums if total is None else total + sums
            work = work + (train.abs().sum(2, dtype=torch.float64) * fan).sum((2, 3))
        return total, work.T.to(torch.int64).numpy()

    def _digits(self, node: ir.CssEncoder, raw: Tensor) -> Tensor:
        import torch

        channels = raw.shape[1]
        table = torch.from_numpy(np.broadcast_to(node.digits, (channels, 256, self.length)).copy())
        which = torch.arange(channels)[None, :, None, None]
        return table[which, raw.long()].permute(4, 0, 1, 2, 3).contiguous()

    def _tsa(
        self, node: ir.Tsa, arriving: Tensor, watched: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(spikes int8[T, N, C, H, W], |o| / v after the last, where g is 0 [T, N, units] if watched)."""
        import torch

        steps, n = arriving.shape[:2]
        bias, last, v = (_channels(a) for a in (node.bias, node.correction, node.amplitude))
        threshold = v // 2 if node.signed else v
        h = torch.zeros(arriving.shape[1:], dtype=torch.int32)
        height, width, channels = self._shapes[node.name]
        g = torch.zeros((n, channels, height, width), dtype=torch.int32)
        train = torch.empty((steps, *g.shape), dtype=torch.int8)
        quiet = torch.empty((steps, n, g[0].numel()), dtype=torch.bool) if watched else None
        o = g
        for p in range(steps + node.silent):
            h = _shifted(h, node.amplification)
            if p < steps:
                h = h + arriving[p] + bias
                if p == steps - 1:
                    h = h + last
            if p < node.silent:
                continue
            g = _shifted(g, node.amplification)
            o = window_maxima(h, node.pool, node.pool_stride, node.pool_padding, _LOWEST)
            if node.rectified:
                o = o.clamp_min(0)
            o = o - g
            s = (o >= threshold).to(torch.int32)
            if node.signed:
                s = s - (o <= -threshold).to(torch.int32)
            g = g + s * v
            o = o - s * v
            train[p - node.silent] = s
            if quiet is not None:
                quiet[p - node.silent] = (g == 0).permute(0, 2, 3, 1).reshape(n, -1)
        return train, o.abs().double() / v, quiet

    def _integrate(self, node: ir.Output, arriving: Tensor) -> Tensor:
        """int32[P, N, classes]: the output membranes in every step."""
        import torch

        sums = arriving.flatten(2)
        bias = torch.from_numpy(node.bias)
        u, out = torch.zeros_like(sums[0]), torch.empty_like(sums)
        for p in range(len(sums)):
            if isinstance(node, ir.CssOutput):
                u = _shifted(u, node.amplification) + sums[p] + bias
                if p == len(sums) - 1:
                    u = u + torch.from_numpy(node.correction)
            else:
                leaks = node.leaks * len(bias) if len(node.leaks) == 1 else node.leaks
                kept = [_shifted(u[:, c], leak) for c, leak in enumerate(leaks)]
                u = torch.stack(kept, dim=1) + sums[p] + bias
            out[p] = u
        return out

    def _rate_node(
        self, node: ir.Node, arriving: Tensor | None, trains: dict[str, Tensor]
    ) -> Tensor:
        """Spikes int16[T, N, C, H, W] of a node without signed spikes."""
        import torch

        if isinstance(node, ir.Merge):
            return torch.stack([trains[s] for s in node.sources]).sum(0, dtype=torch.int16)
        if isinstance(node, ir.OrPool | ir.SumPool):
            source = trains[node.source]
            flat = source.flatten(0, 1)
            if isinstance(node, ir.OrPool):
                pooled = window_maxima(flat, node.kernel, node.stride, (0, 0, 0, 0), 0)
            else:
                ones = np.ones((flat.shape[1], *node.kernel, 1), dtype=np.int8)
                conv = ir.Conv("", ones, stride=node.stride, groups=flat.shape[1])
                pooled = LinearMap(conv, torch.float32)(flat.float()).to(torch.int16)
            return pooled.reshape(*source.shape[:2], *pooled.shape[1:])
        if not isinstance(node, ir.Lif | ir.CurrentEncoder):
            raise UsageError(f"{node.name}: {type(node).__name__} nodes are not simulated")
        assert arriving is not None
        bias, threshold = _channels(node.bias), _channels(node.threshold)
        u = torch.zeros_like(arriving[0])
        train = torch.empty((self.length, *u.shape), dtype=torch.int16)
        for p in range(self.length):
            u = _shifted(u, node.leak) + arriving[p if len(arriving) > 1 else 0] + bias
            s = u >= threshold
            u = torch.where(s, torch.zeros_like(u) if node.reset == "hard" else u - threshold, u)
            train[p] = s
        return train

    def _stop(self, history: Tensor, quiet: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(label, step of the output's window, criterion met) of every sample, int64, int64, bool."""
        import torch

        rule, (steps, n) = self.program.readout, history.shape[:2]
        met = torch.zeros((steps, n), dtype=torch.bool)
        u = history.long()
        if isinstance(rule, ir.Margin) or (isinstance(rule, ir.Css) and rule.exit == "margin"):
            two = u.topk(2, dim=2).values
            margins = [rule.value] * steps if isinstance(rule, ir.Margin) else list(rule.margins)
            met = two[..., 0] - two[..., 1] >= torch.tensor(margins)[:, None]
        if isinstance(rule, ir.Css):
            met[-1] = False
            for p in range(steps - 1 if rule.exit != "never" else 0):
                met[p] |= self._settled(u[p], steps - 1 - p, None if quiet is None else quiet[p])
        elif isinstance(rule, ir.FirstSpike):
            met = u.max(dim=2).values >= rule.value
        exited = met.any(dim=0)
        stop = torch.where(exited, met.to(torch.int8).argmax(dim=0) + 1, torch.tensor(steps))
        at = u[stop - 1, torch.arange(n)]
        return _first_largest(at), stop, exited

    def _settled(self, u: Tensor, left: int, quiet: Tensor | None) -> Tensor:
        """exits.is_settled of many samples: u int64[N, classes], quiet bool[N, units] or None."""
        import torch

        leader = _first_largest(u)
        lead = u.gather(1, leader[:, None]) - u
        others = torch.arange(u.shape[1]) != leader[:, None]
        if quiet is None:
            needed = torch.from_numpy(lead_needed(self.program)[left].copy())[leader]
            return ((lead >= needed) | ~others).all(dim=1)
        output = self.program.output
        assert isinstance(output, ir.CssOutput)
        reach = torch.from_numpy(pair_reach(self.program))[leader]
        w = torch.from_numpy(output.projections[0].weight.astype(np.float64))
        for k in leader.unique():
            mine = leader == k
            spared = quiet[mine].double() @ (w[k] - w).clamp_min(0).T
            reach[mine] -= spared.long()
        c = torch.from_numpy(output.correction).long()
        ahead = (lead << left) - ((reach << left) - reach) + (c[leader][:, None] - c)
        needed = (torch.arange(u.shape[1]) < leader[:, None]).long()
        return ((ahead >= needed) | ~others).all(dim=1)


def _channels(a: np.ndarray) -> Tensor:
    """int32[C] for maps [N, C, H, W]."""
    import torch

    return torch.from_numpy(a)[None, :, None, None]


def _shifted(u: Tensor, terms: ir.Shifts) -> Tensor:
    """ir.leak_apply for a tensor."""
    import torch

    out = torch.zeros_like(u)
    for sign, shift in terms:
        part = u if shift == 0 else u >> shift
        out = out + part if sign > 0 else out - part
    return out


def _first_largest(u: Tensor) -> Tensor:
    """argmax over the last axis, ties to the lowest index."""
    import torch

    best = u == u.max(dim=-1, keepdim=True).values
    return torch.where(best, torch.arange(u.shape[-1]), u.shape[-1]).min(dim=-1).values
