"""The reference interpreter: the definition of what a program means. Slow, obvious, whole numbers only.

Every other engine (host library, firmware, integer-mode training) is judged by it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import fan_out
from edgesnn.compiler.check import check_program
from edgesnn.compiler.exits import is_settled, narrowing
from edgesnn.runtime.engine import Decision, Trace
from edgesnn.targets.errors import UsageError

Watch = Callable[[int, dict[str, np.ndarray]], None]


def project(p: ir.Projection, s: np.ndarray) -> np.ndarray:
    """Apply a projection to a map of counts or samples: int64[H, W, C] -> int64[OH, OW, O]."""
    w = p.weight.astype(np.int64)
    if isinstance(p, ir.Dense):
        return (w @ s.reshape(-1)).reshape(1, 1, -1)
    oh, ow, o = ir.conv_shape(p, s.shape)
    top, left, bottom, right = p.padding
    padded = np.pad(s, ((top, bottom), (left, right), (0, 0)))
    _, kh, kw, i = w.shape
    (sy, sx), (dy, dx), per = p.stride, p.dilation, o // p.groups
    out = np.zeros((oh, ow, o), dtype=np.int64)
    for ky in range(kh):
        for kx in range(kw):
            y0, x0 = ky * dy, kx * dx
            tap = padded[y0 : y0 + sy * (oh - 1) + 1 : sy, x0 : x0 + sx * (ow - 1) + 1 : sx]
            for g in range(p.groups):
                source = tap[:, :, g * i : (g + 1) * i]
                out[:, :, g * per : (g + 1) * per] += source @ w[g * per : (g + 1) * per, ky, kx].T
    return out


def windows(x: np.ndarray, kernel: ir.Pair, stride: ir.Pair) -> np.ndarray:
    """All pooling windows of a map (H, W, C): array (OH, OW, C, kernel height, kernel width)."""
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(0, 1))
    return view[:: stride[0], :: stride[1]]


def readout(rule: ir.Readout, u: np.ndarray) -> tuple[int, bool]:
    """(leading class, criterion met) for output membranes u int64[classes]; ties to the lowest index."""
    if isinstance(rule, ir.Rate | ir.Css):
        return int(u.argmax()), False
    if isinstance(rule, ir.FirstSpike):
        return int(u.argmax()), bool(u.max() >= rule.value)
    first, second = np.sort(u)[::-1][:2]
    return int(u.argmax()), bool(first - second >= rule.value)


def window_maxima(node: ir.Tsa, h: np.ndarray) -> np.ndarray:
    """Largest membrane of every pooling window: int64[H, W, C] -> int64[OH, OW, C]; padding never wins."""
    top, left, bottom, right = node.pool_padding
    lowest = np.iinfo(np.int64).min
    padded = np.pad(h, ((top, bottom), (left, right), (0, 0)), constant_values=lowest)
    return np.asarray(windows(padded, node.pool, node.pool_stride).max(axis=(3, 4)))


def ternary_spike(node: ir.Tsa, h: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(spikes -1, 0, +1; g after them) of a Tsa that may fire; g int64[OH, OW, C]."""
    v = node.amplitude.astype(np.int64)
    o = window_maxima(node, h)
    o = (np.maximum(o, 0) if node.rectified else o) - g
    s = (o >= (v // 2 if node.signed else v)).astype(np.int64)
    if node.signed:
        s = s - (o <= -(v // 2))
    return s, g + s * v


def spike(node: ir.Lif | ir.CurrentEncoder, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(spikes, membranes after the reset) of an integrate-and-fire population."""
    emitted = (u >= node.threshold).astype(np.int64)
    if node.reset == "hard":
        return emitted, np.where(emitted == 1, 0, u)
    return emitted, u - emitted * node.threshold.astype(np.int64)


@dataclass
class Progress:
    """What lives on from one step to the next, of an inference or of a stream of events.

    state: by node name its membranes, int64[H, W, C] (of a latency encoder its spike times), and what else it
    remembers; absent means 0. trains: of signed spikes, all steps so far. events, sops: int64[nodes], so far.
    """

    state: dict[str, np.ndarray]
    trains: dict[str, list[np.ndarray]]
    events: np.ndarray
    sops: np.ndarray


class Interpreter:
    """Runs a program one sample at a time, by the equations of `ir.py`. An Engine (runtime/engine.py)."""

    name = "interpreter"

    def __init__(self, program: ir.Program) -> None:
        check_program(program)
        self.program = program
        self._shapes = ir.shapes(program)
        self._starts = ir.starts(program)
        self._fan = {
            node.name: [
                fan_out(p, self._shapes[p.source])[:, :, None] for p in ir.projections(node)
            ]
            for node in program.nodes
        }

    def infer(self, sample: np.ndarray) -> Decision:
        return self.trace(sample).decision

    def trace(self, sample: np.ndarray, watch: Watch | None = None) -> Trace:
        """Run one sample and keep every event.

        `sample` has the input's shape and dtype; for an event input it is [T, H, W, C], non-zero = event.
        `watch` is called at the end of each step with t and the membranes int64[H, W, C] by node name (of a
        latency encoder the spike times).
        """
        program = self.program
        sample = np.asarray(sample)
        self._check_sample(sample)
        run = self.begin()
        history: list[list[np.ndarray]] = []
        for t in range(1, program.timesteps + 1):
            source = sample[t - 1] if isinstance(program.input, ir.EventInput) else sample
            history.append(self.step(run, t, source))
            if watch is not None:
                watch(t, {n.name: run.state[n.name] for n in program.nodes if n.name in run.state})
            if program.output.name not in run.state:
                continue  # its window has not begun
            u = run.state[program.output.name].reshape(-1)
            label, exited = readout(program.readout, u)
            if isinstance(program.readout, ir.Css):
                exited = self._css_exit(program.readout, u, t, run.state)
            if exited or t == program.timesteps:
                return Trace(Decision(label, t, exited, u.copy(), run.events, run.sops), history)
        raise AssertionError("unreachable: a legal program has at least one timestep")

    def begin(self) -> Progress:
        """The state before the first step."""
        nodes = self.program.nodes
        trains: dict[str, list[np.ndarray]] = {n.name: [] for n in nodes if ir.is_signed(n)}
        events, sops = (np.zeros(len(nodes), dtype=np.int64) for _ in range(2))
        return Progress({}, trains, events, sops)

    def step(
        self, run: Progress, t: int, source: np.ndarray, *, output: bool = True
    ) -> list[np.ndarray]:
        """Timestep t of every node, in order: what inferences and continuous streams are made of.

        source: the sample, or the events of this step, [H, W, C], non-zero = event. output: False leaves the
        output node out. Returns the sorted uint32 addresses that each node emitted.
        """
        counts: dict[str, np.ndarray] = {}  # events per unit in this step
        addresses: list[np.ndarray] = []
        for i, node in enumerate(self.program.nodes):
            if isinstance(node, ir.Output) and not output:
                emitted, sops = np.zeros(0, dtype=np.int64), 0
            else:
                emitted, sops = self._run_node(node, run, t, source, counts)
            counts[node.name] = emitted
            flat = emitted.reshape(-1)
            if ir.is_signed(node):
                run.trains[node.name].append(emitted)
                flat = np.concatenate([flat == 1, flat == -1]).astype(np.int64)
            run.events[i] += int(flat.sum())
            run.sops[i] += sops
            addresses.append(np.repeat(np.arange(flat.size), flat).astype(np.uint32))
        return addresses

    def _run_node(
        self,
        node: ir.Node,
        run: Progress,
        t: int,
        source: np.ndarray,
        counts: dict[str, np.ndarray],
    ) -> tuple[np.ndarray, int]:
        """(events per unit, int64[H, W, C]; synaptic operations) of one node in step t."""
        state, nothing = run.state, np.zeros(0, dtype=np.int64)
        if isinstance(node, ir.SampleInput):
            return nothing, 0
        if isinstance(node, ir.EventInput):
            return (source != 0).astype(np.int64), 0
        if isinstance(node, ir.LatencyEncoder):
            if t == 1:
                state[node.name] = self._spike_times(node, source)
            return (state[node.name] == t).astype(np.int64), 0
        if isinstance(node, ir.CurrentEncoder):
            if t == 1:
                state[node.name + ".current"] = self._accumulate(node, source)
            u = self._leaked(node, state) + state[node.name + ".current"]
            emitted, state[node.name] = spike(node, u)
            return emitted, 0
        if isinstance(node, ir.CssEncoder):
            return self._digits(node, source, t), 0
        if isinstance(node, ir.Integrator):
            return self._window(node, t, run.trains, state)
        if isinstance(node, ir.Merge):
            return sum((counts[s] for s in node.sources), np.zeros((), dtype=np.int64)), 0
        if isinstance(node, ir.OrPool):
            return windows(counts[node.source], node.kernel, node.stride).max(axis=(3, 4)), 0
        if isinstance(node, ir.SumPool):
            return windows(counts[node.source], node.kernel, node.stride).sum(axis=(3, 4)), 0
        u, sops = self._leaked(node, state), 0
        for p, fan in zip(node.projections, self._fan[node.name], strict=True):
            u = u + project(p, counts[p.source])
            sops += int((counts[p.source] * fan).sum())
        emitted = nothing
        if isinstance(node, ir.Amos):
            fired = state.get(node.name + ".fired", np.zeros_like(u))
            reached = u >= node.threshold
            if node.forced and t == self.program.timesteps:
                reached = np.ones_like(reached)
            emitted = (reached & (fired == 0)).astype(np.int64)
            state[node.name + ".fired"] = fired + emitted
        elif isinstance(node, ir.Lif):
            emitted, u = spike(node, u)
        state[node.name] = u
        return emitted, sops

    def _check_sample(self, sample: np.ndarray) -> None:
        source = self.program.input
        shape: tuple[int, ...] = source.shape
        if isinstance(source, ir.EventInput):
            shape = (self.program.timesteps, *shape)
            fits = sample.dtype.kind in "uib"
            dtype = "integer"
        else:
            fits, dtype = sample.dtype == source.dtype, source.dtype
        if sample.shape != shape or not fits:
            raise UsageError(
                f"{self.program.name} takes {dtype} samples of shape {shape}, got {sample.dtype} "
                f"{sample.shape}"
            )

    def _accumulate(self, node: ir.Encoder, sample: np.ndarray) -> np.ndarray:
        """The encoder's projection of x - zero_point, before any pooling."""
        source = self.program.input
        assert isinstance(source, ir.SampleInput)
        x = np.asarray(sample).reshape(source.shape).astype(np.int64) - source.zero_point
        return project(node.projection, x)

    def _spike_times(self, node: ir.LatencyEncoder, sample: np.ndarray) -> np.ndarray:
        a = windows(self._accumulate(node, sample), node.pool, node.pool).max(axis=(3, 4))
        reached = a[..., None] >= node.thresholds.astype(np.int64)
        return 1 + (~reached).sum(axis=-1)  # thresholds do not increase: reached stays reached

    def _digits(self, node: ir.CssEncoder, sample: np.ndarray, t: int) -> np.ndarray:
        """Ternary digits of step t; none after the last."""
        source = self.program.input
        x = np.asarray(sample).reshape(source.shape)
        if t > node.digits.shape[2]:
            return np.zeros(source.shape, dtype=np.int64)
        table = np.broadcast_to(node.digits[:, :, t - 1], (source.shape[2], 256))
        return table[np.arange(source.shape[2]), x].astype(np.int64)

    def _window(
        self,
        node: ir.Integrator,
        t: int,
        trains: dict[str, list[np.ndarray]],
        state: dict[str, np.ndarray],
    ) -> tuple[np.ndarray, int]:
        """(signed spikes, synaptic operations) of step t.

        state[name] is the output's U, of a Tsa what is left of o after firing.
        """
        name, steps = node.name, ir.coding_steps(self.program)
        silent = node.silent if isinstance(node, ir.Tsa) else 0
        p = t - self._starts[name] + 1
        shape = self._shapes[name]
        if not 1 <= p <= steps + silent:
            return np.zeros(shape, dtype=np.int64), 0
        first = node.projections[0]
        full = ir.conv_shape(first, self._shapes[first.source])
        h = ir.leak_apply(
            state.get(name + ".h", np.zeros(full, dtype=np.int64)), node.amplification
        )
        sops = 0
        if p <= steps:
            for q, fan in zip(node.projections, self._fan[name], strict=True):
                s = trains[q.source][t - 1 - q.delay]
                h = h + project(q, s)
                sops += int((np.abs(s) * fan).sum())
            h = h + node.bias.astype(np.int64)
            if p == steps:
                h = h + node.correction.astype(np.int64)
        state[name + ".h"] = h
        if isinstance(node, ir.CssOutput):
            state[name] = h
            return np.zeros(0, dtype=np.int64), sops
        g = ir.leak_apply(
            state.get(name + ".g", np.zeros(shape, dtype=np.int64)), node.amplification
        )
        s = np.zeros(shape, dtype=np.int64)
        if p > silent:
            s, g = ternary_spike(node, h, g)
        state[name + ".g"] = g
        peak = window_maxima(node, h)
        state[name] = (np.maximum(peak, 0) if node.rectified else peak) - g
        return s, sops

    def _css_exit(self, rule: ir.Css, u: np.ndarray, t: int, state: dict[str, np.ndarray]) -> bool:
        program = self.program
        p, steps = t - self._starts[program.output.name] + 1, ir.coding_steps(program)
        if rule.exit == "never" or p == steps:
            return False
        if rule.exit == "margin":
            first, second = np.sort(u)[::-1][:2]
            if first - second >= rule.margins[p - 1]:
                return True
        name = narrowing(program)
        silent = None if name is None else state[name + ".g"].reshape(-1) == 0
        return is_settled(program, u, steps - p, silent)

    def _leaked(
        self, node: ir.CurrentEncoder | ir.Population, state: dict[str, np.ndarray]
    ) -> np.ndarray:
        """leak(u) + bias; the membranes start at 0."""
        u = state.get(node.name, np.zeros(self._shapes[node.name], dtype=np.int64))
        leaks = node.leaks if isinstance(node, ir.Accumulator) else (node.leak,)
        if len(leaks) == 1:
            u = ir.leak_apply(u, leaks[0])
        else:
            u = np.stack([ir.leak_apply(u[..., c], leak) for c, leak in enumerate(leaks)], axis=-1)
        return u + node.bias.astype(np.int64)

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
