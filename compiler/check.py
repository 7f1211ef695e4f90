"""What a legal program is. `check_program` runs before and after every pass and on every file that is read."""

from __future__ import annotations

import keyword
import math
import re

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.exits import gain
from edgesnn.compiler.front_end import MAX_LOG, MAX_POINTS, MIN_POINTS, bands, points, quarter_wave
from edgesnn.targets.errors import EdgesnnError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED = {"program", "readout"}
MAX_TIMESTEPS = 127  # a spike time is stored in seven bits
MAX_CODING_STEPS = 16  # the digits of a sample are bits of a word, one half for each sign
MAX_SILENT = 3

MAX_UNITS = 1 << 24  # of one map; far beyond what any target holds, far below what exhausts a proof
MAX_EXTENT = 1 << 12  # of a kernel, stride, dilation or padding
MAX_VOTES = 127
MAX_COUNT = 2**31 - 1  # of a stream's rows, steps and microseconds
MAX_RATE = 1e9  # of rows a second, and of seconds a row: all times are then finite


class IllegalProgram(EdgesnnError):
    """The program breaks a rule; the message names the node and the rule."""


def check_program(program: ir.Program) -> None:
    """Raise IllegalProgram unless every rule of the integer program holds."""
    _need(type(program.timesteps) is int, "program", "timesteps is a whole number")
    _need(
        1 <= program.timesteps <= MAX_TIMESTEPS, "program", f"timesteps is in 1...{MAX_TIMESTEPS}"
    )
    _need(bool(program.name) and program.name.isprintable(), "program", "the name is printable")
    _need(len(program.nodes) >= 2, "program", "there is an input and an output")
    seen: dict[str, ir.Shape] = {}
    multiplicity: dict[str, int] = {}
    for i, node in enumerate(program.nodes):
        legal = bool(_NAME.match(node.name)) and not keyword.iskeyword(node.name)
        _need(legal and node.name not in _RESERVED, node.name, "names are identifiers")
        _need(node.name not in seen, node.name, "names are unique")
        _need(
            (i == 0) == isinstance(node, ir.SampleInput | ir.EventInput),
            node.name,
            "the input is first",
        )
        last = i == len(program.nodes) - 1
        _need(
            last == isinstance(node, ir.Output),
            node.name,
            "the one Accumulator or CssOutput is the last node",
        )
        for source in ir.sources(node):
            _need(source in seen, node.name, f"source {source!r} stands before its reader")
        _check_node(program, node, seen)
        seen[node.name] = ir.node_shape(node, seen)
        shape = seen[node.name]
        _need(min(shape) >= 1, node.name, f"the map {shape} is not empty")
        _need(ir.size(shape) <= MAX_UNITS, node.name, f"a map has at most {MAX_UNITS:,} units")
        multiplicity[node.name] = ir.node_multiplicity(node, multiplicity)
        if isinstance(node, ir.OrPool):
            _need(
                multiplicity[node.source] == 1, node.name, "OrPool reads events of multiplicity 1"
            )
    read = {s for n in program.nodes for s in ir.sources(n)}
    for node in program.nodes[:-1]:
        _need(node.name in read, node.name, "every node but the last is read by another")
    if any(isinstance(n, ir.CssEncoder | ir.Integrator) for n in program.nodes):
        _check_css(program)
    _check_readout(program)
    names = program.class_names
    _need(
        len(names) in (0, program.classes), "program", "class_names is empty or has one per output"
    )
    if isinstance(program.stream, ir.WindowStream):
        _check_windows(program, program.stream)
    elif program.stream is not None:
        _check_continuous(program, program.stream)


def _need(condition: bool, where: str, rule: str) -> None:
    if not condition:
        raise IllegalProgram(f"{where}: rule broken: {rule}")


def _check_node(program: ir.Program, node: ir.Node, seen: dict[str, ir.Shape]) -> None:
    if isinstance(node, ir.SampleInput | ir.EventInput):
        ok = len(node.shape) == 3 and all(
            type(n) is int and 1 <= n <= MAX_UNITS for n in node.shape
        )
        _need(ok, node.name, f"shape is three whole numbers in 1...{MAX_UNITS:,}")
        if isinstance(node, ir.SampleInput):
            _need(node.dtype in ir.SAMPLE_RANGE, node.name, "dtype is uint8, int8 or int16")
            lo, hi = ir.SAMPLE_RANGE[node.dtype]
            ok = type(node.zero_point) is int and lo <= node.zero_point <= hi
            _need(ok, node.name, "zero_point is a sample value")
            ok = type(node.scale) is float and math.isfinite(node.scale) and node.scale > 0
            _need(ok, node.name, "scale is a positive number")
        return
    samples = isinstance(program.input, ir.SampleInput)
    for p in ir.projections(node):
        reads_samples = samples and p.source == program.input.name
        _need(
            reads_samples == isinstance(node, ir.Encoder),
            node.name,
            "only encoders read samples",
        )
        _check_projection(node.name, p, seen[p.source], isinstance(node, ir.Integrator))
    if isinstance(node, ir.LatencyEncoder):
        channels = ir.conv_shape(node.projection, seen[node.projection.source])[2]
        want = (channels, program.timesteps - 1)
        _array(node.name, "thresholds", node.thresholds, "int32", want)
        ordered = bool(np.all(np.diff(node.thresholds.astype(np.int64), axis=1) <= 0))
        _need(ordered, node.name, "thresholds do not increase with the timestep")
        _pair(node.name, "pool", node.pool)
    elif isinstance(node, ir.Integrator):
        _check_integrator(node, seen)
    elif isinstance(node, ir.CssEncoder):
        _check_css_encoder(program, node)
    elif isinstance(node, ir.CurrentEncoder | ir.Population):
        into = ir.projections(node)
        _need(len(into) >= 1, node.name, "at least one projection delivers")
        targets = {ir.conv_shape(p, seen[p.source]) for p in into}
        _need(len(targets) == 1, node.name, "all projections deliver into the same map")
        channels = targets.pop()[2]
        _array(node.name, "bias", node.bias, "int32", (channels,))
        if isinstance(node, ir.Accumulator):
            ok = len(node.leaks) in (1, channels)
            _need(ok, node.name, "leaks holds one leak, or one per class")
            for terms in node.leaks:
                _check_leak(node.name, terms)
        else:
            _check_leak(node.name, node.leak)
            _array(node.name, "threshold", node.threshold, "int32", (channels,))
            _need(bool(np.all(node.threshold >= 1)), node.name, "every threshold is at least 1")
        if isinstance(node, ir.Lif | ir.CurrentEncoder):
            _need(node.reset in ("soft", "hard"), node.name, "reset is soft or hard")
    else:
        if isinstance(node, ir.Merge):
            _need(len(node.sources) >= 2, node.name, "a merge has at least two sources")
            same = len({seen[s] for s in node.sources}) == 1
            _need(same, node.name, "a merge's sources are maps of one shape")
        else:
            _pair(node.name, "kernel", node.kernel)
            _pair(node.name, "stride", node.stride)
        reads_samples = samples and program.input.name in ir.sources(node)
        _need(not reads_samples, node.name, "operators read events")


def _pair(where: str, name: str, value: ir.Pair) -> None:
    ok = isinstance(value, tuple) and len(value) == 2
    ok = ok and all(type(n) is int and 1 <= n <= MAX_EXTENT for n in value)
    _need(ok, where, f"{name} is (height, width), whole numbers in 1...{MAX_EXTENT}")


def _check_leak(where: str, terms: ir.Shifts) -> None:
    ok = len(terms) <= 3 and all(
        type(s) is int and s in (-1, 1) and type(k) is int and 0 <= k <= 31 for s, k in terms
    )
    _need(ok, where, "leak is at most three (sign, shift) terms, shift 0...31")


def _check_css_encoder(program: ir.Program, node: ir.CssEncoder) -> None:
    source = program.input
    ok = isinstance(source, ir.SampleInput) and source.dtype == "uint8" and source.zero_point == 0
    _need(ok and node.source == source.name, node.name, "it reads uint8 samples, zero point 0")
    d = node.digits
    ok = d.dtype == np.int8 and d.ndim == 3 and d.shape[0] in (1, source.shape[2])
    ok = ok and d.shape[1] == 256 and 1 <= d.shape[2] <= MAX_CODING_STEPS
    _need(
        ok,
        node.name,
        f"digits are int8[1 or channels, 256, T], T in 1...{MAX_CODING_STEPS}, "
        f"found {d.dtype.name}{list(d.shape)}",
    )
    _need(bool(np.all((d >= -1) & (d <= 1))), node.name, "digits are -1, 0 or 1")


def _check_integrator(node: ir.Integrator, seen: dict[str, ir.Shape]) -> None:
    _need(len(node.projections) >= 1, node.name, "at least one projection delivers")
    targets = {ir.conv_shape(p, seen[p.source]) for p in node.projections}
    _need(len(targets) == 1, node.name, "all projections deliver into the same map")
    shape = targets.pop()
    _array(node.name, "bias", node.bias, "int32", (shape[2],))
    _array(node.name, "correction", node.correction, "int32", (shape[2],))
    _check_leak(node.name, node.amplification)
    amplifies = 1 < gain(node.amplification) <= 2
    _need(amplifies, node.name, "the amplification is above 1 and at most 2")
    if isinstance(node, ir.CssOutput):
        dense = all(isinstance(p, ir.Dense) for p in node.projections)
        _need(dense, node.name, "the output's projections are Dense")
        return
    _array(node.name, "amplitude", node.amplitude, "int32", (shape[2],))
    _need(bool(np.all(node.amplitude >= 2)), node.name, "every amplitude is at least 2")
    ok = type(node.silent) is int and 0 <= node.silent <= MAX_SILENT
    _need(ok, node.name, f"silent is a whole number in 0...{MAX_SILENT}")
    ok = type(node.rectified) is bool and type(node.signed) is bool
    _need(ok, node.name, "rectified and signed are true or false")
    _pair(node.name, "pool", node.pool)
    _pair(node.name, "pool_stride", node.pool_stride)
    (kh, kw), pads = node.pool, node.pool_padding
    ok = len(pads) == 4 and all(type(n) is int and n >= 0 for n in pads)
    ok = ok and max(pads[0], pads[2]) < kh and max(pads[1], pads[3]) < kw
    _need(ok, node.name, "pool_padding is smaller than the window")
    # A last row or column that no window reaches is as in any pooling; a window of padding alone is not.
    top, left, bottom, right = pads
    ok = min(shape[0] + top + bottom - kh, shape[1] + left + right - kw) >= 0
    _need(ok, node.name, "the pooling window fits into the map")


def _check_css(program: ir.Program) -> None:
    """What holds of a whole program of signed spikes."""
    for node in program.nodes[1:]:
        ok = isinstance(node, ir.CssEncoder | ir.Integrator)
        _need(ok, node.name, "signed spikes go through CssEncoder, Tsa and CssOutput only")
    encoders = [n for n in program.nodes if isinstance(n, ir.CssEncoder)]
    _need(len(encoders) == 1, "program", "there is one CssEncoder")
    integrators = [n for n in program.nodes if isinstance(n, ir.Integrator)]
    same = len({n.amplification for n in integrators}) == 1
    _need(same, "program", "all amplifications are the same")
    same = len({n.silent for n in integrators if isinstance(n, ir.Tsa)}) <= 1
    _need(same, "program", "all silent periods are the same")
    starts = ir.starts(program)
    silent = ir.silent_steps(program)
    for node in integrators:
        for p in node.projections:
            late = silent if isinstance(program.node(p.source), ir.Tsa) else 0
            ok = starts[p.source] + late + p.delay == starts[node.name]
            _need(ok, node.name, "all spike trains arrive at the same time (delays of projections)")
    last = starts[program.output.name] + ir.coding_steps(program) - 1
    _need(program.timesteps == last, "program", f"timesteps is {last}, coding steps and latency")


def _check_projection(
    where: str, p: ir.Projection, source: ir.Shape, integrates: bool = False
) -> None:
    if integrates:
        _need(p.weight.dtype in (np.int8, np.int16), where, "weights are int8 or int16")
    else:
        _need(p.weight.dtype == np.int8, where, "weights are int8")
    ok = type(p.delay) is int and 0 <= p.delay <= (MAX_TIMESTEPS if integrates else 0)
    _need(ok, where, "only trains of signed spikes are delayed, by a whole number of steps")
    _need(p.weight.size > 0, where, "weights are not empty")
    if isinstance(p, ir.Dense):
        _need(p.weight.ndim == 2, where, "dense weights are (out, in)")
        n = ir.size(source)
        _need(
            p.weight.shape[1] == n,
            where,
            f"dense weights have {n} inputs, found {p.weight.shape[1:]}",
        )
        return
    _need(p.weight.ndim == 4, where, "convolution weights are (out, kh, kw, in / groups)")
    extents = (*p.stride, *p.dilation, p.groups)
    ok = all(type(n) is int and 1 <= n <= MAX_EXTENT for n in extents)
    _need(ok, where, f"stride, dilation and groups are whole numbers in 1...{MAX_EXTENT}")
    ok = all(type(n) is int and 0 <= n <= MAX_EXTENT for n in p.padding)
    _need(ok, where, f"padding is whole numbers in 0...{MAX_EXTENT}")
    _need(max(p.weight.shape[1:3]) <= MAX_EXTENT, where, f"kernels have at most {MAX_EXTENT} rows")
    o, _, _, i = p.weight.shape
    ok = source[2] == i * p.groups and o % p.groups == 0
    _need(ok, where, f"{o} x {i} weights in {p.groups} group(s) fit {source[2]} source channels")


def _array(where: str, name: str, a: np.ndarray, dtype: str, shape: tuple[int, ...]) -> None:
    ok = a.dtype.name == dtype and a.shape == shape
    found = f"{a.dtype.name}{list(a.shape)}"
    _need(ok, where, f"{name} is {dtype}{list(shape)}, found {found}")


def _check_readout(program: ir.Program) -> None:
    css = isinstance(program.output, ir.CssOutput)
    _need(
        css == isinstance(program.readout, ir.Css), "readout", "Css is the readout of a CssOutput"
    )
    if isinstance(program.readout, ir.Css):
        rule = program.readout
        _need(
            rule.exit in ("sound", "margin", "never"), "readout", "exit is sound, margin or never"
        )
        many = ir.coding_steps(program) if rule.exit == "margin" else 0
        ok = len(rule.margins) == many
        ok = ok and all(type(m) is int and 0 <= m < 2**31 for m in rule.margins)
        _need(ok, "readout", f"margins are {many} whole numbers")
        _need(not many or program.classes >= 2, "readout", "a margin needs two classes")
        return
    assert isinstance(program.output, ir.Accumulator)
    if isinstance(program.readout, ir.Rate):
        summed = program.output.leaks == (((1, 0),),)
        _need(summed, "readout", "a rate readout sums its currents: the output's leak is one")
        return
    value = program.readout.value
    ok = type(value) is int and -(2**31) <= value < 2**31
    _need(ok, "readout", "value is an int32")
    if isinstance(program.readout, ir.Margin):
        _need(program.classes >= 2, "readout", "a margin needs two classes")
        _need(value >= 0, "readout", "a margin is not negative")


def _whole(where: str, name: str, value: int, least: int, most: int = MAX_COUNT) -> None:
    ok = type(value) is int and least <= value <= most
    _need(ok, where, f"{name} is a whole number in {least}...{most}")


def _check_windows(program: ir.Program, stream: ir.WindowStream) -> None:
    source = program.input
    _need(isinstance(source, ir.SampleInput), "stream", "a window stream fills an input of samples")
    height, width, channels = source.shape
    if isinstance(stream.front, ir.LogMel):
        _check_log_mel(stream.front)
        ok = isinstance(source, ir.SampleInput) and source.dtype == "uint8"
        ok = ok and (width, channels) == (bands(stream.front), 1)
        rule = f"log-mel rows fill a uint8 input of shape (rows, {bands(stream.front)}, 1)"
        _need(ok, "stream", rule)
        rows = height
    else:
        rate = stream.front.rate
        ok = type(rate) is float and 1 / MAX_RATE <= rate <= MAX_RATE
        rule = f"rate is a positive number of rows a second (a float), 1e-9...1e9, found {rate}"
        _need(ok, "stream", rule)
        rows = width if height == 1 else height
    _whole("stream", "hop", stream.hop, 1, rows)
    _whole("stream", "smooth", stream.smooth, 1, MAX_VOTES)
    _whole("stream", "votes", stream.votes, 1, stream.smooth)
    _whole("stream", "refractory", stream.refractory, 0)
    quiet = stream.background
    ok = isinstance(quiet, tuple) and all(type(c) is int for c in quiet)
    ok = ok and len(set(quiet)) == len(quiet) and all(0 <= c < program.classes for c in quiet)
    _need(ok, "stream", f"background holds distinct classes in 0...{program.classes - 1}")
    _need(len(quiet) < program.classes, "stream", "some class is not background")


def _check_log_mel(front: ir.LogMel) -> None:
    """The ranges that front_end.py claims for its intermediates follow from these rules."""
    where = "stream"
    _whole(where, "rate", front.rate, 1)
    _whole(where, "hop", front.hop, 1)
    w = front.window
    _need(w.ndim == 1 and w.size >= 2, where, "window is a row of at least two numbers")
    n = max(MIN_POINTS, 1 << (len(w) - 1).bit_length())
    _need(n <= MAX_POINTS, where, f"a frame has at most {MAX_POINTS} samples, found {len(w)}")
    _array(where, "window", w, "int16", (len(w),))
    _need(bool(np.all(w >= 0)), where, "window is not negative")
    _array(where, "quarter", front.quarter, "int32", (n // 4 + 1,))
    # One unit of leeway: libraries differ in the last bit of a cosine. The C core knows that the end is 0.
    off = np.abs(front.quarter.astype(np.int64) - quarter_wave(n))
    ok = off.max() <= 1 and off[-1] == 0
    _need(ok, where, f"quarter is cos(2 pi i / {n}) in Q31")
    assert points(front) == n
    count = front.offset.size
    _need(1 <= count <= n // 2, where, f"there are 1...{n // 2} bands, found {count}")
    _array(where, "offset", front.offset, "int32", (count,))
    _array(where, "band", front.band, "int16", (n // 2 + 1,))
    _array(where, "rise", front.rise, "int16", (n // 2 + 1,))
    band = front.band[front.band >= 0]
    ok = bool(np.all(front.band >= -1) and np.all(band <= count) and np.all(np.diff(band) >= 0))
    _need(ok, where, f"band is -1, or ascends in 0...{count}")
    _need(bool(np.all((front.rise >= 0) & (front.rise <= 256))), where, "rise is in 0...256")
    _whole(where, "gain", front.gain, 1)
    offset = front.offset.astype(np.int64)
    most = max(int(np.abs(MAX_LOG - offset).max()), int(np.abs(offset).max()))
    _need(most * front.gain <= MAX_COUNT, where, "(log energy - offset) * gain fits 32 bits")


def _check_continuous(program: ir.Program, stream: ir.EventStream) -> None:
    where = "stream"
    _whole(where, "step_us", stream.step_us, 1)
    _whole(where, "refractory", stream.refractory, 0)
    ok = isinstance(program.input, ir.EventInput)
    _need(ok, where, "continuous mode needs an input of address events")
    kinds = ir.Lif | ir.Accumulator | ir.Operator
    for node in program.nodes[1:]:
        name = type(node).__name__
        _need(isinstance(node, kinds), node.name, f"continuous mode has no {name}, but Lif neurons")
        leaks: tuple[ir.Shifts, ...] = (node.leak,) if isinstance(node, ir.Lif) else ()
        if isinstance(node, ir.Accumulator):
            leaks = node.leaks
        ok = all(abs(gain(leak)) < 1 for leak in leaks)
        _need(ok, node.name, "in continuous mode membranes leak: the factor is below 1")
    ok = isinstance(program.readout, ir.FirstSpike | ir.Margin)
    _need(ok, where, "continuous mode decides by FirstSpike or Margin")
