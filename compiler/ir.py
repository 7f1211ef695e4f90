"""The integer program: what a compiled network means, independent of any machine.

A `Program` is a list of nodes in topological order (the first is the input, the last one the output) and a
readout. Every node holds frozen data and states its equation; `interpret.py` executes these equations and is
the definition, `docs/DESIGN.md` gives the reasons.

Conventions
* Maps are channel-last, shape (H, W, C). A vector of n is (1, 1, n). An event address is (y * W + x) * C + c.
* Within a timestep t = 1...T nodes run in order; a population leaks, integrates every event that arrives in
  this same step plus its bias, compares, emits, resets. The readout looks at the output before any reset.
* Programs of signed spikes (CssEncoder, Tsa, CssOutput) are a pipeline: every node works in a window of steps
  of its own (`starts`), and outside of it emits nothing.
* `>>` is the arithmetic shift, i.e. floor division by a power of two. There is no saturation and no wrap:
  `bounds.py` proves that every value fits its width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass

import numpy as np

Shape = tuple[int, int, int]
Shifts = tuple[tuple[int, int], ...]
Padding = tuple[int, int, int, int]  # top, left, bottom, right
Pair = tuple[int, int]  # (height, width)

SAMPLE_RANGE = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


@dataclass(frozen=True, eq=False)
class SampleInput:
    """Raw samples x of `dtype` ("uint8", "int8", "int16"), shape (H, W, C).

    The network computes on x - zero_point; `scale` (the real value of one unit) is for people only.
    """

    name: str
    shape: Shape
    dtype: str
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True, eq=False)
class EventInput:
    """Address events from a sensor: at most one event per address and step (more count once)."""

    name: str
    shape: Shape


# A field that younger files have; it is written nowhere while it has its default, so that older programs keep
# their text and identity.
YOUNGER: dict[str, bool] = {"younger": True}


@dataclass(frozen=True, eq=False)
class Dense:
    """Projection y[o] = sum_i weight[o, i] s[i]; weight int8 or int16[out, n], n = H * W * C of the source.

    The events arrive `delay` steps after they were emitted (of trains of signed spikes only).
    """

    source: str
    weight: np.ndarray
    delay: int = field(default=0, metadata=YOUNGER)


@dataclass(frozen=True, eq=False)
class Conv:
    """Projection by 2-D cross-correlation with zero padding.

    y[oy, ox, o] = sum weight[o, ky, kx, i] s[oy * sy + ky * dy - top, ox * sx + kx * dx - left, g(o) * I + i]
    with weight int8 or int16[O, kh, kw, I], I = C / groups and g(o) = o // (O / groups). delay: as in Dense.
    """

    source: str
    weight: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    delay: int = field(default=0, metadata=YOUNGER)


Projection = Dense | Conv


@dataclass(frozen=True, eq=False)
class LatencyEncoder:
    """Samples to one spike per unit: a = maxpool(projection(x - zero_point)), once per inference, then

    t_s = min({k in 1...T-1 : a >= thresholds[c, k-1]} + {T}).

    This is t_s = ceil((1 - sigmoid(phi)) T) (LE/TAD paper, eqs. 5-8) with batch norm and sigmoid folded into
    thresholds int32[C, T-1], non-increasing in k; with T = 1 every unit spikes in step 1. `pool` is window
    and stride (height, width) of the max-pool; (1, 1) is none.
    """

    name: str
    projection: Projection
    thresholds: np.ndarray
    pool: Pair = (1, 1)


@dataclass(frozen=True, eq=False)
class CurrentEncoder:
    """Direct coding: the layer's output on the samples is a constant current into spiking neurons,

    i = projection(x - zero_point) + bias, once per inference; then in every step u <- leak(u) + i, spike
    where u >= threshold, reset as in Lif. threshold >= 1 and bias are int32[C].
    """

    name: str
    projection: Projection
    leak: Shifts
    threshold: np.ndarray
    bias: np.ndarray
    reset: str = "soft"


@dataclass(frozen=True, eq=False)
class Lif:
    """Leaky integrate-and-fire (LE/TAD paper, eqs. 2-4, in integers):

    u <- leak(u) + sum of arriving weights + bias;  spike where u >= threshold;  there the reset is "soft",
    u <- u - threshold, or "hard", u <- 0.

    leak(u) = sum of sign * (u >> shift) over `leak` = ((sign, shift), ...), at most three terms, each floored
    by itself; ((1, 0),) is an integrate-and-fire neuron. threshold >= 1 and bias are int32[C].
    """

    name: str
    projections: tuple[Projection, ...]
    leak: Shifts
    threshold: np.ndarray
    bias: np.ndarray
    reset: str = "soft"


@dataclass(frozen=True, eq=False)
class Amos:
    """At-most-one-spike neuron (AMOS paper, eqs. 1-4, in integers): u <- leak(u) + sum of weights + bias;

    the first u >= threshold of an inference is the neuron's only spike; there is no reset. With `forced` a
    neuron that has not fired by T fires at T (eq. 7). The paper's input gain 1 / tau_m is part of the weights.
    """

    name: str
    projections: tuple[Projection, ...]
    leak: Shifts
    threshold: np.ndarray
    bias: np.ndarray
    forced: bool = False


@dataclass(frozen=True, eq=False)
class Accumulator:
    """Output membranes U <- leak(U) + sum of arriving weights + bias; no threshold, no reset.

    `leaks` holds one leak for all classes, or one per class (temporal selector decoder, AMOS paper).
    """

    name: str
    projections: tuple[Projection, ...]
    leaks: tuple[Shifts, ...]
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class CssEncoder:
    """Canonic signed spikes of a sample (CSS paper, Theorem 3): in step t = 1...T a unit of channel c emits

    digits[c, x, t - 1], -1, 0 or +1, for its uint8 sample x; digits int8[C, 256, T], one table for all
    channels if it is int8[1, 256, T]. T is the coding length of the whole program.
    """

    name: str
    source: str
    digits: np.ndarray


@dataclass(frozen=True, eq=False)
class Tsa:
    """Ternary self-amplifying neuron with its ReLU counterpart (CSS paper, A.5 and A.7, in integers).

    In step p = 1...T + silent of its window, amp(u) being sum of sign * (u >> shift) over `amplification`
    (((1, 0), (1, 0)) is beta = 2, ((1, 0), (1, 1)) is 1.5), from h = g = 0:

        h <- amp(h);  for p <= T:  h <- h + sum of +- arriving weights + bias;  for p = T:  h <- h + correction
        g <- amp(g);  for p > silent:  o = max(over the pooling window of h, and 0 if rectified) - g;
        s = +1 where o >= v // 2, -1 where o <= -(v // 2), 0 elsewhere;  g <- g + s v,  v = amplitude[c].

    The window begins in the step in which the source's first spikes arrive; a Tsa emits its own from `silent`
    steps later on, in T steps. Max-pooling looks at the membranes h (decision 0015): `pool` is its kernel,
    `pool_stride`, `pool_padding` as usual; samples of padding never win. signed: False leaves s = -1 out, and
    the threshold is v (the ablation of the paper's Fig. 2). amplitude, bias, correction are int32[C].
    """

    name: str
    projections: tuple[Projection, ...]
    amplification: Shifts
    amplitude: np.ndarray
    bias: np.ndarray
    correction: np.ndarray
    silent: int = 1
    pool: Pair = (1, 1)
    pool_stride: Pair = (1, 1)
    pool_padding: Padding = (0, 0, 0, 0)
    rectified: bool = True
    signed: bool = True


@dataclass(frozen=True, eq=False)
class CssOutput:
    """Output membranes of trains of signed spikes: in step p = 1...T of its window, from U = 0,

    U <- amp(U) + sum of +- arriving weights + bias;  for p = T also + correction.
    """

    name: str
    projections: tuple[Projection, ...]
    amplification: Shifts
    bias: np.ndarray
    correction: np.ndarray


@dataclass(frozen=True, eq=False)
class OrPool:
    """Max-pool of binary spikes: a unit emits one event in a step in which any of its window's units spikes.

    Windows of (height, width) have no padding; windows that would reach over the border do not exist. Source
    multiplicity is 1.
    """

    name: str
    source: str
    kernel: Pair
    stride: Pair


@dataclass(frozen=True, eq=False)
class SumPool:
    """Every event of a window passes under the window's address (average pooling: 1 / (kh kw) in weights)."""

    name: str
    source: str
    kernel: Pair
    stride: Pair


@dataclass(frozen=True, eq=False)
class Merge:
    """Addition of spike trains (SEW): the events of all sources, maps of one shape, in one queue.

    Nothing is added up as a number: an address that two sources emit stands twice.
    """

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FirstSpike:
    """Stop in the first step in which some U >= value; the answer is argmax U, ties to the lowest index.

    That is the first output spike with membrane tie-break (LE/TAD paper, eqs. 10-11). No spike by T: argmax.
    """

    value: int


@dataclass(frozen=True, eq=False)
class Margin:
    """Stop in the first step in which the two largest U differ by >= value; at T: argmax U."""

    value: int


@dataclass(frozen=True, eq=False)
class Rate:
    """Never stop early: after all T steps argmax U, U the sum of the output currents (leak one)."""


@dataclass(frozen=True, eq=False)
class Css:
    """Of a CssOutput, looked at in the T steps of its window only; at the last of them argmax U.

    exit "sound": stop in the first step from which no remaining spike can change the class (`exits.py`);
    "margin": there, or in the first step p < T in which the two largest U differ by >= margins[p - 1], which is
    no proof; "never": the full length.
    """

    exit: str = "sound"
    margins: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Rows:
    """No front end: the sensor gives rows of the input map as they are; `rate` of them a second.

    A row of a map (H, W, C) is its W * C samples; of a signal (1, L, C), C samples.
    """

    rate: float


@dataclass(frozen=True, eq=False)
class LogMel:
    """Sound to rows of log-mel energies, in integers: int16 samples at `rate` Hz, one row every `hop` of them.

    Row r looks at samples r hop ... r hop + len(window) - 1. `front_end.py` defines every bit. With N the least
    power of two >= len(window), x the samples and X the spectrum of x * window / 2^15:

        p[k] = floor(|X[k] / N|^2 2^28 / 2^26), k = 0...N/2;
        E[b] = sum of p[k] rise[k] over band[k] = b  +  sum of p[k] (256 - rise[k]) over band[k] = b + 1;
        row[b] = clamp((256 log2(E[b] + 256) - offset[b]) gain >> 12, 0, 255), b < bands.

    window int16[L] (Q15); quarter int32[N/4 + 1], cos(2 pi i / N) in Q31; band int16[N/2 + 1], -1 where a bin
    is in no filter, and rise int16[N/2 + 1] (0...256) are triangles that meet their neighbours' centres;
    offset int32[bands]; gain at least 1.
    """

    rate: int
    hop: int
    window: np.ndarray
    quarter: np.ndarray
    band: np.ndarray
    rise: np.ndarray
    offset: np.ndarray
    gain: int


FrontEnd = Rows | LogMel


@dataclass(frozen=True, eq=False)
class WindowStream:
    """Window mode: the newest rows that fill the input are one inference, then those `hop` rows later, ...

    Of the last `smooth` labels the most frequent (ties: the lowest) is the smoothed one if it has at least
    `votes` of them, else there is none. A detection is reported where

        the smoothed label is none of `background`, differs from the class in force, and no detection was
        reported in the last `refractory` windows;

    it is then the class in force, until the smoothed label is none or background. Without any background class
    there is no way to say nothing: then every window with a smoothed label is a detection, refractory aside.
    """

    front: FrontEnd
    hop: int
    smooth: int = 1
    votes: int = 1
    refractory: int = 0
    background: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class EventStream:
    """Continuous mode of an EventInput with Lif populations: step k = 1, 2, ... covers the events of

    [(k - 1) step_us, k step_us) microseconds since the stream's start; several of one address count once.
    Membranes are never cleared. There is no T: only the readout's criterion decides. A decision zeroes the
    output membranes; in the next `refractory` steps they stay 0 (the output does no operations), while the
    hidden populations run on.
    """

    step_us: int
    refractory: int = 0


Stream = WindowStream | EventStream

Input = SampleInput | EventInput
Encoder = LatencyEncoder | CurrentEncoder
Population = Lif | Amos | Accumulator
# What computes on trains of signed spikes.
Integrator = Tsa | CssOutput
Output = Accumulator | CssOutput
Operator = OrPool | SumPool | Merge
Node = (
    SampleInput
    | EventInput
    | LatencyEncoder
    | CurrentEncoder
    | Lif
    | Amos
    | Accumulator
    | OrPool
    | SumPool
    | Merge
    | CssEncoder
    | Tsa
    | CssOutput
)
Readout = FirstSpike | Margin | Rate | Css

NODE_KINDS: dict[str, type] = {k.__name__: k for k in Node.__args__}
PROJECTION_KINDS: dict[str, type] = {"Dense": Dense, "Conv": Conv}
READOUT_KINDS: dict[str, type] = {k.__name__: k for k in Readout.__args__}
STREAM_KINDS: dict[str, type] = {k.__name__: k for k in (*Stream.__args__, *FrontEnd.__args__)}


@dataclass(frozen=True, eq=False)
class Program:
    """A network as integers. `timesteps` is T; `class_names` is empty or one name per output.

    rates: what was measured on data, if anything: the mean number of events of a node in an inference, by name;
    of the input, samples that differ from the zero point; of the output, steps until it stops. Nothing that is
    computed depends on them: programs that differ in them alone are the same program. stream: how a signal
    becomes inferences; None where the caller hands over whole samples.
    """

    name: str
    timesteps: int
    nodes: tuple[Node, ...]
    readout: Readout
    class_names: tuple[str, ...] = field(default=())
    rates: Mapping[str, float] = field(default_factory=dict)
    stream: Stream | None = field(default=None, metadata=YOUNGER)

    @property
    def input(self) -> Input:
        node = self.nodes[0]
        assert isinstance(node, SampleInput | EventInput)
        return node

    @property
    def output(self) -> Output:
        node = self.nodes[-1]
        assert isinstance(node, Output)
        return node

    @property
    def classes(self) -> int:
        return len(self.output.bias)

    def node(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)

    def digest(self) -> bytes:
        """SHA-256 over the program's text and array contents; it does not depend on any file format."""
        from edgesnn.compiler.text import to_text

        h = hashlib.sha256(to_text(self, inline=0).encode())
        for path, array in arrays(self):
            h.update(path.encode())
            h.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return h.digest()


def projections(node: Node) -> tuple[Projection, ...]:
    """The projections that deliver into this node, possibly none."""
    if isinstance(node, Encoder):
        return (node.projection,)
    return node.projections if isinstance(node, Population | Integrator) else ()


def sources(node: Node) -> tuple[str, ...]:
    """Names of the nodes whose events (or samples) this node reads."""
    if isinstance(node, OrPool | SumPool | CssEncoder):
        return (node.source,)
    if isinstance(node, Merge):
        return node.sources
    return tuple(p.source for p in projections(node))


def conv_shape(p: Projection, source: Shape) -> Shape:
    """Shape of the map that a projection delivers into, before any pooling."""
    if isinstance(p, Dense):
        return (1, 1, p.weight.shape[0])
    (h, w, _), (top, left, bottom, right) = source, p.padding
    o, kh, kw, _ = p.weight.shape
    oh = (h + top + bottom - p.dilation[0] * (kh - 1) - 1) // p.stride[0] + 1
    ow = (w + left + right - p.dilation[1] * (kw - 1) - 1) // p.stride[1] + 1
    return (oh, ow, o)


def pool_shape(shape: Shape, kernel: Pair, stride: Pair) -> Shape:
    """Shape after pooling without padding; partial windows do not exist."""
    (h, w, c), (kh, kw), (sy, sx) = shape, kernel, stride
    return ((h - kh) // sy + 1, (w - kw) // sx + 1, c)


def node_shape(node: Node, seen: dict[str, Shape]) -> Shape:
    """Map shape (H, W, C) of a node, given those of its sources."""
    if isinstance(node, SampleInput | EventInput):
        return node.shape
    if isinstance(node, OrPool | SumPool):
        return pool_shape(seen[node.source], node.kernel, node.stride)
    if isinstance(node, Merge):
        return seen[node.sources[0]]
    if isinstance(node, CssEncoder):
        return seen[node.source]
    first = projections(node)[0]
    full = conv_shape(first, seen[first.source])
    if isinstance(node, Tsa):
        h, w, c = full
        top, left, bottom, right = node.pool_padding
        return pool_shape((h + top + bottom, w + left + right, c), node.pool, node.pool_stride)
    return pool_shape(full, node.pool, node.pool) if isinstance(node, LatencyEncoder) else full


def shapes(program: Program) -> dict[str, Shape]:
    """Map shape (H, W, C) of every node, by name."""
    out: dict[str, Shape] = {}
    for node in program.nodes:
        out[node.name] = node_shape(node, out)
    return out


def node_multiplicity(node: Node, seen: dict[str, int]) -> int:
    """Events that one unit can emit in a step, given those of its sources; 0 where a node emits none."""
    if isinstance(node, SampleInput | Output):
        return 0
    if isinstance(node, SumPool):
        return seen[node.source] * node.kernel[0] * node.kernel[1]
    if isinstance(node, Merge):
        return sum(seen[source] for source in node.sources)
    return 1


def once_per_inference(node: Node) -> bool:
    """Whether a unit of this node can emit only one event in a whole inference."""
    return isinstance(node, LatencyEncoder | Amos)


def is_signed(node: Node) -> bool:
    """Whether a node emits signed spikes. A negative one of unit a stands as address a + number of units."""
    return isinstance(node, CssEncoder | Tsa)


def coding_steps(program: Program) -> int:
    """T of canonic signed spike coding: the steps of a spike train; 0 of any other program."""
    encoders = [n for n in program.nodes if isinstance(n, CssEncoder)]
    return int(encoders[0].digits.shape[2]) if encoders else 0


def silent_steps(program: Program) -> int:
    """Length of the silent period, which all Tsa of a program share."""
    return next((n.silent for n in program.nodes if isinstance(n, Tsa)), 0)


def period(program: Program) -> int:
    """Steps from one frame to the next in a pipeline of signed spikes; 0 of any other program."""
    return coding_steps(program) + silent_steps(program)


def starts(program: Program) -> dict[str, int]:
    """Of a CSS program, the step (1...) in which each node's window begins.

    Its first spikes come in then or, of the encoder, go out. A window takes T + silent steps.
    """
    out: dict[str, int] = {}
    first: dict[str, int] = {}  # step in which a node emits for the first time
    for node in program.nodes:
        if isinstance(node, Integrator):
            p = node.projections[0]
            out[node.name] = first[p.source] + p.delay
            first[node.name] = out[node.name] + (node.silent if isinstance(node, Tsa) else 0)
        elif isinstance(node, CssEncoder):
            out[node.name] = first[node.name] = 1
    return out


def longest_delays(program: Program) -> dict[str, int]:
    """By source name, the most steps after which its spikes are read; 0 where they are read at once."""
    out = {node.name: 0 for node in program.nodes}
    for node in program.nodes:
        for p in projections(node):
            out[p.source] = max(out[p.source], p.delay)
    return out


def size(shape: Shape) -> int:
    """Number of units in a map."""
    return shape[0] * shape[1] * shape[2]


def arrays(value: object, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array in a program (or node) with its path, e.g. ("conv1.projections.0.weight", ...).

    Those of a stream stand under "stream", e.g. "stream.front.window".
    """
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, Program):
        for node in value.nodes:
            yield from arrays(node, node.name)
        yield from arrays(value.stream, "stream")
    elif is_dataclass(value):
        for f in fields(value):
            yield from arrays(getattr(value, f.name), f"{path}.{f.name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from arrays(item, f"{path}.{i}")


def leak_apply(u: np.ndarray, leak: Shifts) -> np.ndarray:
    """leak(u) = sum of sign * (u >> shift), each term floored by itself; u int64, any shape."""
    out = np.zeros_like(u)
    for sign, shift in leak:
        out += sign * (u >> shift)
    return out
