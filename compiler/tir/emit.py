"""From a program to C: the tables, one function per node that calls its kernels, and the model descriptor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, fan_tables
from edgesnn.compiler.choose import Choice, takes
from edgesnn.compiler.exits import lead_needed, narrowing, pair_reach
from edgesnn.compiler.front_end import bands, points
from edgesnn.compiler.inspect import node_kind
from edgesnn.compiler.layout import (
    ScatterConv,
    SpikeMap,
    gather_layout,
    padded,
    row_taps,
    scatter_conv,
    strip_layout,
)
from edgesnn.compiler.plan import Plan, spike_map
from edgesnn.compiler.stream import window_shape
from edgesnn.compiler.stream_plan import stream_memory
from edgesnn.compiler.styles import DSP, MVE, PLAIN, Style, small
from edgesnn.compiler.tir.begin import add_current, begin_first, begin_first_narrow, begin_next
from edgesnn.compiler.tir.css import (
    amplify,
    clear_words,
    css_encode,
    css_lead,
    css_narrowed,
    integrate,
    negate,
    tsa_fire,
)
from edgesnn.compiler.tir.deliver import conv_map, conv_queue, dense_map, dense_queue
from edgesnn.compiler.tir.encode import (
    blank_table,
    encode_gather,
    encode_strip,
    gather_shift,
    limits_table,
)
from edgesnn.compiler.tir.fire import amos_fire, fire
from edgesnn.compiler.tir.kernel import C_TYPES, Kernel
from edgesnn.compiler.tir.merge import merge_map, merge_queue
from edgesnn.compiler.tir.pool import or_pool, sum_pool_map, sum_pool_queue
from edgesnn.compiler.tir.readout import readout
from edgesnn.compiler.tir.sample_conv import copy_row, sample_conv
from edgesnn.compiler.tir.spike_planes import clear_planes, spike_planes


def table_text(name: str, values: np.ndarray, dtype: str) -> str:
    """C text of a constant table."""
    flat = values.astype(np.int64).ravel().tolist()
    suffix = "u" if dtype == "uint32" else ""
    texts = [f"{value}{suffix}" for value in flat]
    rows = [", ".join(texts[i : i + 20]) for i in range(0, len(flat), 20)]
    body = ",\n  ".join(rows)
    # Micro-kernels read any table by words.
    return f"ESNN_ALIGNED static const {C_TYPES[dtype]} {name}[{len(flat)}] = {{\n  {body}\n}};\n"


@dataclass
class Emission:
    """Kernels, C text of tables and node functions, in the making."""

    program: ir.Program
    bounds: Bounds
    plan: Plan
    choice: Choice
    kernels: list[Kernel] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)

    def table(self, name: str, values: np.ndarray, dtype: str) -> str:
        """Emit a constant table and return the expression that names it."""
        self.tables.append(table_text(name, values, dtype))
        return name

    def spikes(self, source: str, step: str = "t") -> tuple[SpikeMap, str]:
        """A source's spike map and the expression for its words in a step."""
        found = self.map_of(source)
        assert found is not None
        at = f"{self.plan.offset(f'{source}.spikes')}u"
        if source in self.plan.planes:
            at += f" + (uint32_t)({step} - 1) * {found.plane}u"
        return found, f"(const {C_TYPES[found.dtype]} *)(const void *)(arena + {at})"

    def half(self, name: str, *, delay: int = 0, negative: bool = False) -> tuple[SpikeMap, str]:
        """The map of one sign of a node's signed spikes `delay` steps ago, and where its words lie."""
        one = SpikeMap(self.bounds.nodes[name].shape)
        both = self.map_of(name)
        assert both is not None
        at = f"{self.plan.offset(f'{name}.spikes')}u"
        if name in self.plan.planes:
            slot = f"(uint32_t)(t - {delay + 1}) % {self.plan.planes[name]}u"
            at += f" + {slot} * {both.plane}u"
        if negative:
            at += f" + {one.positions * one.words * one.bits // 8}u"
        return one, f"({C_TYPES[one.dtype]} *)(void *)(arena + {at})"

    def map_of(self, source: str) -> SpikeMap | None:
        return spike_map(self.bounds, source)

    def band(self, node: ir.Node, dtype: str) -> str:
        """The expression for where a node's spikes of a step go: its map, or the band of it from `row` on."""
        spikes = self.map_of(node.name)
        assert spikes is not None
        at = f"{self.plan.offset(f'{node.name}.spikes')}u"
        if node.name in self.plan.planes:
            at += f" + (uint32_t)({self.step(node)} - 1) * {spikes.plane}u"
        if node.name in self.plan.bands:
            at += f" + (uint32_t)row * {spikes.shape[1] * spikes.words * spikes.bits // 8}u"
        return f"({C_TYPES[dtype]} *)(void *)(arena + {at})"

    def step(self, node: ir.Node) -> str:
        """The variable with the step that a node works on: t, or what it repeats on the way to t."""
        return "step" if node.name in self.plan.bands else "t"

    def rows(self, node: ir.Node) -> int:
        """Rows of a node's map that are worked on together: all, or those of a band."""
        return self.plan.bands.get(node.name, self.bounds.nodes[node.name].shape[0])

    def at(self, buffer: str, dtype: str, *, const: bool = False) -> str:
        """The expression for a buffer of the arena."""
        c = ("const " if const else "") + C_TYPES[dtype]
        return f"({c} *)(void *)(arena + {self.plan.offset(buffer)}u)"

    def count(self, source: str) -> str:
        """The expression for the number of events in a source's queue in this step."""
        index = [n.name for n in self.program.nodes].index(source)
        base = self.plan.offset("counts") + 4 * index
        return f"(int32_t)*(const uint32_t *)(void *)(arena + {base}u)"

    def call(self, kernel: Kernel, *arguments: str) -> str:
        """Register a kernel and return the statement that calls it."""
        if all(k.symbol != kernel.symbol for k in self.kernels):
            self.kernels.append(kernel)
        return f"{kernel.symbol}({', '.join(arguments)});"


def emit(program: ir.Program, bounds: Bounds, plan: Plan, choice: Choice) -> Emission:
    """Parametrise a kernel per piece of work and write the calls."""
    e = Emission(program, bounds, plan, choice)
    for i, node in enumerate(program.nodes):
        if isinstance(node, ir.SampleInput | ir.EventInput):
            continue
        if isinstance(node, ir.LatencyEncoder):
            lines = _latency_encoder(e, i, node)
        elif isinstance(node, ir.CurrentEncoder):
            lines = _current_encoder(e, i, node)
        elif isinstance(node, ir.CssEncoder):
            lines = _css_encoder(e, i, node)
        elif isinstance(node, ir.Integrator):
            lines = _integrator(e, i, node)
        elif isinstance(node, ir.Merge):
            lines = _merge(e, i, node)
        elif isinstance(node, ir.OrPool | ir.SumPool):
            lines = _pool(e, i, node)
        else:
            lines = _population(e, i, node)
        body = "\n".join(f"  {line}" for line in lines)
        e.functions.append(
            f"/* {node.name} */\n"
            f"static int32_t node_{i}(uint8_t *arena, int32_t t, uint32_t *sops) {{\n"
            f"  int32_t out[2] = {{0, 0}};\n{body}\n}}\n"
        )
    return e


def _sample_rows(e: Emission, i: int, node: ir.Encoder, rows: int) -> tuple[str, ScatterConv]:
    """The call that computes `rows` rows from `row * rows` on into the node's strip."""
    source = e.program.input
    assert isinstance(source, ir.SampleInput)
    sums = str(e.bounds.nodes[node.name].sums)
    layout = scatter_conv(node.projection, source.shape)
    kernel = sample_conv(
        f"esnn_sample_conv_{sums}_{i}",
        layout=layout,
        rows=rows,
        sample=source.dtype,
        zero_point=source.zero_point,
        sums=sums,
    )
    call = e.call(
        kernel,
        e.at(f"{source.name}.frame", source.dtype, const=True),
        e.table(f"weights_{i}", layout.weights, "int8"),
        f"row * {rows}",
        e.at(f"{node.name}.strip", sums),
    )
    return call, layout


def _latency_encoder(e: Emission, i: int, node: ir.LatencyEncoder) -> list[str]:
    b, spikes = e.bounds.nodes[node.name], e.map_of(node.name)
    assert spikes is not None
    sums, steps = str(b.sums), e.program.timesteps
    thresholds = node.thresholds if node.thresholds.size else np.zeros(b.shape[2], dtype=np.int32)
    counts = e.at(f"{node.name}.steps", "int32")
    clear = e.call(
        clear_planes(f"esnn_clear_planes_{i}", words=spikes.plane * steps // 4, steps=steps),
        e.at(f"{node.name}.spikes", "uint32"),
        counts,
    )
    found = e.at(f"{node.name}.steps", "int32", const=True)
    last = ["(void)sops;", "(void)out;", f"return ({found})[t - 1];"]
    if e.choice[node.name].micro:
        if node.name in e.plan.bands:
            strip = _encode_strip(e, i, node, spikes, counts, ("0", f"{steps}"))
            return [*_first_step(b.shape[0], (clear,), strip), *last]
        # Most inputs end in the first step: the later ones are looked at when they come.
        strip = _encode_strip(e, i, node, spikes, counts, ("t - 1", f"t == 1 ? 1 : {steps}"))
        loop = f"  for (row = 0; row < {b.shape[0]}; ++row) {{"
        head = ["int32_t row;", "if (t == 1) {", f"  {clear}", "}", "if (t <= 2) {"]
        return [*head, loop, f"    {strip}", "  }", "}", *last]
    rows, layout = _sample_rows(e, i, node, node.pool[0])
    planes = e.call(
        spike_planes(
            f"esnn_spike_planes_{sums}_{i}",
            layout=layout,
            pool=node.pool,
            spikes=spikes,
            steps=steps,
            sums=sums,
        ),
        e.at(f"{node.name}.strip", sums, const=True),
        e.table(f"thresholds_{i}", thresholds, "int32"),
        "row",
        e.at(f"{node.name}.spikes", spikes.dtype),
        counts,
    )
    return [*_first_step(b.shape[0], (clear,), rows, planes), *last]


def _encode_strip(
    e: Emission,
    i: int,
    node: ir.LatencyEncoder,
    spikes: SpikeMap,
    counts: str,
    span: tuple[str, str],
) -> str:
    """The call that encodes pooled row `row` by micro-kernels, the steps after span[0] up to span[1]."""
    b, source, steps = e.bounds.nodes[node.name], e.program.input, e.program.timesteps
    assert isinstance(source, ir.SampleInput) and b.lo is not None and b.hi is not None
    style, dtype, zero = e.choice[node.name], source.dtype, source.zero_point
    common: dict[str, Any] = {
        "sample": dtype,
        "zero_point": zero,
        "pool": node.pool,
        "spikes": spikes,
    }
    symbol, shift = f"esnn_encode_{i}", np.zeros(b.shape[2], dtype=np.int64)
    if style is MVE:
        gather = gather_layout(node.projection, source.shape)
        stored = gather.conv.target[2]
        shift = gather_shift(gather.weights, dtype, zero)[: b.shape[2]]
        kernel = encode_gather(symbol, gather=gather, steps=steps, **common)
        weights, scratch = e.table(f"weights_{i}", gather.weights, "int8"), "uint8"
    else:
        strip = strip_layout(node.projection, source.shape, pairs=style is DSP and dtype != "int16")
        stored = strip.conv.target[2]
        kernel = encode_strip(symbol, strip=strip, steps=steps, **common)
        weights, scratch = e.table(f"weights_{i}", strip.words, "uint32"), "int32"
    if steps == 1:
        limits = np.ones((1, stored), dtype=np.int64)  # never read
    else:
        limits = limits_table(node.thresholds, b.lo, b.hi, shift, stored)
    return e.call(
        kernel,
        e.at(f"{source.name}.frame", dtype, const=True),
        weights,
        e.table(f"limits_{i}", limits, "int32"),
        e.table(f"blank_{i}", blank_table(node.thresholds, spikes, steps), "uint32"),
        "row",
        *span,
        e.at(f"{node.name}.strip", scratch),
        e.at(f"{node.name}.spikes", spikes.dtype),
        counts,
    )


def _first_step(rows: int, before: tuple[str, ...], *statements: str) -> list[str]:
    """Statements in the first step only: `before`, then the others for each row of an encoder's map."""
    inner = [f"    {statement}" for statement in statements]
    loop = f"  for (row = 0; row < {rows}; ++row) {{"
    head = [f"  {statement}" for statement in before]
    return ["int32_t row;", "if (t == 1) {", *head, loop, *inner, "  }", "}"]


def _current_encoder(e: Emission, i: int, node: ir.CurrentEncoder) -> list[str]:
    b = e.bounds.nodes[node.name]
    sums, width = str(b.sums), str(b.width)
    rows, layout = _sample_rows(e, i, node, 1)
    copied = e.call(
        copy_row(f"esnn_copy_row_{sums}_{i}", layout=layout, sums=sums),
        e.at(f"{node.name}.strip", sums, const=True),
        "row",
        e.at(f"{node.name}.current", sums),
    )
    current = e.call(
        add_current(f"esnn_add_current_{width}_{i}", units=b.neurons, sums=sums, width=width),
        e.at(f"{node.name}.current", sums, const=True),
        e.at(f"{node.name}.u", width),
    )
    begin = _begin(e, i, node, (node.leak,), PLAIN)
    tail = ["(void)sops;", "return out[0];"]
    first = _first_step(b.shape[0], (), rows, copied)
    return [*first, *begin, current, _fire(e, i, node, PLAIN), *tail]


def _merge(e: Emission, i: int, node: ir.Merge) -> list[str]:
    event, room = e.bounds.event_dtype, e.bounds.nodes[node.name].capacity
    queue = e.at(f"{node.name}.queue", event)
    calls = []
    for k, source in enumerate(node.sources):
        symbol = f"esnn_merge_{event}_{i}_{k}"
        if e.map_of(source) is not None:
            spikes, words = e.spikes(source)
            kernel = merge_map(symbol, spikes=spikes, capacity_out=room, event=event)
            calls.append(e.call(kernel, words, queue, "out"))
        else:
            capacity = e.bounds.nodes[source].capacity
            kernel = merge_queue(symbol, capacity=capacity, capacity_out=room, event=event)
            incoming = e.at(f"{source}.queue", event, const=True)
            calls.append(e.call(kernel, incoming, e.count(source), queue, "out"))
    return [*calls, "(void)t;", "(void)sops;", "return out[0];"]


def _pool(e: Emission, i: int, node: ir.OrPool | ir.SumPool) -> list[str]:
    event = e.bounds.event_dtype
    source, capacity = e.bounds.nodes[node.source], e.bounds.nodes[node.name].capacity
    if e.map_of(node.name) is not None:  # a sum of one event at most is an OR
        spikes, words = e.spikes(node.source)
        kernel = or_pool(f"esnn_or_pool_{i}", spikes=spikes, kernel=node.kernel, stride=node.stride)
        call = e.call(kernel, words, e.band(node, spikes.dtype), "out")
    elif e.map_of(node.source) is not None:
        spikes, words = e.spikes(node.source)
        kernel = sum_pool_map(
            f"esnn_sum_pool_{event}_{i}",
            spikes=spikes,
            kernel=node.kernel,
            stride=node.stride,
            capacity_out=capacity,
            event=event,
        )
        call = e.call(kernel, words, e.at(f"{node.name}.queue", event), "out")
    else:
        kernel = sum_pool_queue(
            f"esnn_sum_pool_{event}_{i}",
            source=source.shape,
            kernel=node.kernel,
            stride=node.stride,
            capacity=source.capacity,
            capacity_out=capacity,
            event=event,
        )
        incoming = e.at(f"{node.source}.queue", event, const=True)
        queue = e.at(f"{node.name}.queue", event)
        call = e.call(kernel, incoming, e.count(node.source), queue, "out")
    return [call, "(void)t;", "(void)sops;", "return out[0];"]


def _begin(
    e: Emission,
    i: int,
    node: ir.CurrentEncoder | ir.Population,
    leaks: tuple[ir.Shifts, ...],
    style: Style,
) -> list[str]:
    """u <- bias in the first step, u <- leak(u) + bias in every later one."""
    b = e.bounds.nodes[node.name]
    width, positions = str(b.width), e.rows(node) * b.shape[1]
    stored = padded(b.shape[2], style.lanes)
    values = np.pad(node.bias.astype(np.int64), (0, stored - b.shape[2]))
    bias = values
    if style.biased:
        bias = values.copy()
        bias[0::2] ^= -(2**15)
    size = np.dtype(width).itemsize
    if stored * size % 4 == 0:
        words = np.ascontiguousarray(bias.astype(width)).view(np.uint32)
        kernel = begin_first(f"esnn_begin_first_{i}", positions=positions, words=words.size)
        table = e.table(f"first_{i}", words, "uint32")
        first = e.call(kernel, table, e.at(f"{node.name}.u", "uint32"))
    else:
        kernel = begin_first_narrow(
            f"esnn_begin_first_{i}", positions=positions, channels=stored, width=width
        )
        table = e.table(f"first_{i}", bias, width)
        first = e.call(kernel, table, e.at(f"{node.name}.u", width))
    lines = [f"if ({e.step(node)} == 1) {{", f"  {first}"]
    if leaks != (((1, 0),),) or node.bias.any():
        kernel = begin_next(
            f"esnn_begin_next_{width}_{i}",
            positions=positions,
            channels=stored,
            width=width,
            leaks=leaks,
            style=style,
        )
        later = e.call(kernel, e.table(f"bias_{i}", values, width), e.at(f"{node.name}.u", width))
        lines += ["} else {", f"  {later}"]
    return [*lines, "}"]


def _fire(e: Emission, i: int, node: ir.CurrentEncoder | ir.Lif | ir.Amos, style: Style) -> str:
    b = e.bounds.nodes[node.name]
    spikes = SpikeMap((e.rows(node), *b.shape[1:]))
    width, stored = str(b.width), padded(b.shape[2], style.lanes)
    narrow = "int16" if int(node.threshold.max()) < 2**15 else "int32"
    limits = np.pad(
        node.threshold.astype(np.int64), (0, stored - b.shape[2]), constant_values=2**15 - 1
    )
    theta = e.table(f"theta_{i}", limits, narrow)
    words = e.band(node, spikes.dtype)
    if isinstance(node, ir.Amos):
        kernel = amos_fire(
            f"esnn_amos_fire_{width}_{i}",
            spikes=spikes,
            stored=stored,
            width=width,
            theta=narrow,
            style=style,
            forced_at=e.program.timesteps if node.forced else 0,
        )
        u = e.at(f"{node.name}.u", width)
        fired = e.at(f"{node.name}.fired", spikes.dtype)
        return e.call(kernel, theta, u, e.step(node), fired, words, "out")
    kernel = fire(
        f"esnn_fire_{width}_{i}",
        spikes=spikes,
        stored=stored,
        width=width,
        theta=narrow,
        style=style,
        hard=node.reset == "hard",
    )
    return e.call(kernel, theta, e.at(f"{node.name}.u", width), words, "out")


def _population(e: Emission, i: int, node: ir.Population) -> list[str]:
    b, style = e.bounds.nodes[node.name], e.choice[node.name]
    width = str(b.width)
    leaks = node.leaks if isinstance(node, ir.Accumulator) else (node.leak,)
    lines = _begin(e, i, node, leaks, style)
    lines += [_integrate(e, f"{i}_{k}", node, p, style) for k, p in enumerate(node.projections)]
    if isinstance(node, ir.Accumulator):
        kernel = readout(
            f"esnn_readout_{width}_{i}", classes=b.shape[2], width=width, rule=e.program.readout
        )
        lines.append(e.call(kernel, e.at(f"{node.name}.u", width, const=True), "out"))
    else:
        lines.append(_fire(e, i, node, style))
    if node.name in e.plan.bands:
        return _replay(e, node, lines)
    return [*lines, "*sops = (uint32_t)out[1];", "return out[0];"]


def _replay(e: Emission, node: ir.Population, lines: list[str]) -> list[str]:
    """A layered population in step t: `lines` in the steps 1...t of every band, the last of which counts."""
    return [
        "int32_t row, step, events = 0;",
        f"for (row = 0; row < {e.bounds.nodes[node.name].shape[0]}; row += {e.rows(node)}) {{",
        "  for (step = 1; step <= t; ++step) {",
        *(f"    {line}" for line in ["out[1] = 0;", *lines]),
        "  }",
        "  events += out[0];",
        "  *sops += (uint32_t)out[1];",
        "}",
        "return events;",
    ]


def _css_encoder(e: Emission, i: int, node: ir.CssEncoder) -> list[str]:
    spikes, words = e.half(node.name)
    tables, _, steps = node.digits.shape
    bit = 1 << np.arange(steps, dtype=np.int64)
    codes = ((node.digits == 1) * bit).sum(axis=2) | ((node.digits == -1) * bit).sum(axis=2) << 16
    kernel = css_encode(f"esnn_css_encode_{i}", spikes=spikes, tables=tables)
    call = e.call(
        kernel,
        e.at(f"{node.source}.frame", "uint8", const=True),
        e.table(f"digits_{i}", codes, "uint32"),
        "p - 1",
        words,
        "out",
    )
    return [*_window(e, node), f"if (p <= {steps}) {{", f"  {call}", "}", *_NO_SOPS]


_NO_SOPS = ["(void)sops;", "return out[0];"]


def _window(e: Emission, node: ir.Node) -> list[str]:
    """p = 1, 2, ... of the window that step t lies in."""
    start, period = ir.starts(e.program)[node.name], ir.period(e.program)
    return [f"int32_t p = (t - {start}) % {period} + 1;"]


def _integrator(e: Emission, i: int, node: ir.Integrator) -> list[str]:
    """A Tsa or CssOutput in step p of its window."""
    b, style, steps = e.bounds.nodes[node.name], e.choice[node.name], ir.coding_steps(e.program)
    first = node.projections[0]
    full = ir.conv_shape(first, e.bounds.nodes[first.source].shape)
    positions, channels = full[0] * full[1], full[2]
    stored, width = padded(channels, style.lanes), str(b.sums)
    h, z = e.at(f"{node.name}.u", "int32"), e.at(f"{node.name}.z", width)
    begin = [_clear(e, f"{i}_h", positions * channels, h)]
    if isinstance(node, ir.Tsa):
        begin.append(_clear(e, f"{i}_g", b.neurons, e.at(f"{node.name}.g", "int32")))
    minus = [
        _integrate(e, f"{i}_{k}", node, p, style, negative=True)
        for k, p in enumerate(node.projections)
    ]
    plus = [_integrate(e, f"{i}_{k}", node, p, style) for k, p in enumerate(node.projections)]
    units = positions * stored
    negated = e.call(negate(f"esnn_negate_{width}_{i}", units=units, width=width, style=style), z)
    bias = node.bias.astype(np.int64)
    table = e.table(f"bias_{i}", bias, "int32")
    if node.correction.any():
        final = e.table(f"last_{i}", bias + node.correction, "int32")
        table = f"p == {steps} ? {final} : {table}"
    added = e.call(
        integrate(
            f"esnn_integrate_{width}_{i}",
            positions=positions,
            channels=channels,
            stored=stored,
            width=width,
            amplification=node.amplification,
            style=style,
        ),
        e.at(f"{node.name}.z", width, const=True),
        table,
        h,
    )
    body = [
        *_window(e, node),
        "if (p == 1) {",
        *(f"  {line}" for line in begin),
        "}",
        f"if (p <= {steps}) {{",
        f"  {_zero(e, i, node, positions, stored, width, style)}",
        *(f"  {line}" for line in minus),
        f"  if (out[1] != 0) {{ {negated} }}",
        *(f"  {line}" for line in plus),
        f"  {added}",
    ]
    if isinstance(node, ir.CssOutput):
        asked = [f"  {line}" for line in _css_readout(e, i, node, style)]
        return [*body, *asked, "}", "*sops = (uint32_t)out[1];", "return out[0];"]
    if node.silent:
        amplified = amplify(
            f"esnn_amplify_{i}", units=positions * channels, amplification=node.amplification
        )
        body += ["} else {", f"  {e.call(amplified, h)}"]
    spikes, words = e.half(node.name)
    kernel = tsa_fire(
        f"esnn_tsa_fire_{i}",
        source=full,
        pool=node.pool,
        stride=node.pool_stride,
        padding=node.pool_padding,
        spikes=spikes,
        amplification=node.amplification,
        rectified=node.rectified,
        signed=node.signed,
    )
    fired = e.call(
        kernel,
        e.at(f"{node.name}.u", "int32", const=True),
        e.table(f"amplitude_{i}", node.amplitude, "int32"),
        e.at(f"{node.name}.g", "int32"),
        words,
        "out",
    )
    tail = [f"if (p > {node.silent}) {{", f"  {fired}", "}"]
    return [*body, "}", *tail, "*sops = (uint32_t)out[1];", "return out[0];"]


def _clear(e: Emission, tag: str, words: int, at: str) -> str:
    return e.call(clear_words(f"esnn_clear_{tag}", words=words), at)


def _zero(
    e: Emission,
    i: int,
    node: ir.Integrator,
    positions: int,
    stored: int,
    width: str,
    style: Style,
) -> str:
    """Nothing has arrived yet in this step."""
    values = np.zeros(stored, dtype=np.int64)
    if style.biased:
        values[0::2] ^= -(2**15)
    if stored * np.dtype(width).itemsize % 4:
        kernel = begin_first_narrow(
            f"esnn_begin_first_{i}", positions=positions, channels=stored, width=width
        )
        return e.call(kernel, e.table(f"zero_{i}", values, width), e.at(f"{node.name}.z", width))
    words = np.ascontiguousarray(values.astype(width)).view(np.uint32)
    kernel = begin_first(f"esnn_begin_first_{i}", positions=positions, words=words.size)
    return e.call(kernel, e.table(f"zero_{i}", words, "uint32"), e.at(f"{node.name}.z", "uint32"))


def _css_readout(e: Emission, i: int, node: ir.CssOutput, style: Style) -> list[str]:
    """What is asked in step p of the output's window; in the last one the leader is the answer."""
    rule, classes, steps = e.program.readout, len(node.bias), ir.coding_steps(e.program)
    assert isinstance(rule, ir.Css)
    u = e.at(f"{node.name}.u", "int32", const=True)
    kernel = readout(f"esnn_css_never_{i}", classes=classes, width="int32", rule=ir.Rate())
    never = e.call(kernel, u, "out")
    if rule.exit == "never":
        return [never]
    early = []
    if rule.exit == "margin":
        kernel = css_lead(f"esnn_css_margin_{i}", classes=classes, rows=steps, pairs=False)
        margins = e.table(f"margins_{i}", np.array(rule.margins), "int32")
        early = [f"  if (out[0] <= 0) {{ {e.call(kernel, u, margins, 'p - 1', 'out')} }}"]
    source = narrowing(e.program)
    if source is None:
        needed = np.clip(lead_needed(e.program), 0, 2**31 - 1)
        kernel = css_lead(f"esnn_css_sound_{i}", classes=classes, rows=steps, pairs=True)
        sound = e.call(kernel, u, e.table(f"needed_{i}", needed, "int32"), f"{steps} - p", "out")
    else:
        sound = _narrowed(e, i, node, style, source, u)
    return [f"if (p == {steps}) {{", f"  {never}", "} else {", f"  {sound}", *early, "}"]


def _narrowed(e: Emission, i: int, node: ir.CssOutput, style: Style, source: str, u: str) -> str:
    p, classes = node.projections[0], len(node.bias)
    style = style if takes(p, style) else PLAIN
    lanes = style.lanes
    layout = scatter_conv(p, e.bounds.nodes[source].shape, e.choice[node.name].lanes)
    place = np.arange(classes)
    weights, dtype = f"weights_{i}_0", style.weight if style.micro else p.weight.dtype.name
    if style.order:
        place = place // lanes * lanes + np.argsort(style.order)[place % lanes]
    stored = layout.target[2]
    if style.outputs_per_word != 1:
        dtype, stored = "int8", classes
        weights = e.table(f"plain_{i}", np.ascontiguousarray(p.weight.T), dtype)
    kernel = css_narrowed(
        f"esnn_css_narrowed_{i}",
        classes=classes,
        units=e.bounds.nodes[source].neurons,
        stored=stored,
        weight=dtype,
    )
    return e.call(
        kernel,
        u,
        e.table(f"reach_{i}", pair_reach(e.program), "int32"),
        e.table(f"corrections_{i}", node.correction, "int32"),
        weights,
        e.table(f"place_{i}", place, "int32"),
        e.at(f"{source}.g", "int32", const=True),
        f"{ir.coding_steps(e.program)} - p",
        "out",
    )


def packed_weights(weights: np.ndarray, style: Style) -> np.ndarray:
    """A layout's weights as the words of the style's table, flat."""
    flat = weights.astype(np.int64).reshape(-1)
    flat += style.offset6 if style.offset6 and small(weights) else style.offset
    if style.order:
        flat = flat.reshape(-1, len(style.order))[:, style.order].reshape(-1)
    if style.outputs_per_word == 2:
        flat = (flat[1::2] * 65536 + flat[0::2]) & 0xFFFFFFFF
    return flat


def _integrate(
    e: Emission,
    tag: str,
    node: ir.Population | ir.Integrator,
    p: ir.Projection,
    style: Style,
    *,
    negative: bool = False,
) -> str:
    """The call that delivers a source's events of a step into a population, or a band of it.

    Of signed spikes those of one sign, into what arrives in this step.
    """
    event, b, source = e.bounds.event_dtype, e.bounds.nodes[node.name], e.bounds.nodes[p.source]
    signed = isinstance(node, ir.Integrator)
    width = str(b.sums if signed else b.width)
    u = e.at(f"{node.name}.{'z' if signed else 'u'}", width)
    layout = scatter_conv(p, source.shape, style.lanes)
    if not takes(p, style):
        style = PLAIN
    table = f"weights_{tag}"
    if not negative:  # both signs read one table by one kernel
        packed = packed_weights(layout.weights, style) if style.micro else layout.weights
        dtype = style.weight if style.micro else layout.weights.dtype.name
        e.table(table, packed, dtype)
    common: dict[str, Any] = {"layout": layout, "style": style, "width": width}
    spiked = e.map_of(p.source)
    if signed:
        spiked, words = e.half(p.source, delay=p.delay, negative=negative)
        incoming: tuple[str, ...] = (words,)
    elif spiked is not None:
        incoming = (e.spikes(p.source, e.step(node))[1],)
    else:
        incoming = (e.at(f"{p.source}.queue", event, const=True), e.count(p.source))
    if isinstance(p, ir.Dense):
        symbol, outputs = f"esnn_dense_{width}_{tag}", p.weight.shape[0]
        if spiked is not None:
            kernel = dense_map(symbol, spikes=spiked, outputs=outputs, **common)
        else:
            kernel = dense_queue(
                symbol, capacity=source.capacity, event=event, outputs=outputs, **common
            )
        return e.call(kernel, *incoming, table, u, "out")
    symbol = f"esnn_conv_{width}_{tag}"
    rows, columns = fan_tables(p, source.shape)
    across, down = f"columns_{tag}", f"taps_{tag}"
    if not negative:
        e.table(across, columns, "int32")
    if spiked is not None:
        if not negative:
            e.table(down, row_taps(p), "int32")
        kernel = conv_map(symbol, spikes=spiked, band=_band(e, node, layout), **common)
        row = "row" if node.name in e.plan.bands else "0"
        return e.call(kernel, *incoming, table, down, across, row, u, "out")
    kernel = conv_queue(symbol, capacity=source.capacity, event=event, **common)
    down = e.table(f"rows_{tag}", rows, "int32")
    return e.call(kernel, *incoming, table, down, across, u, "out")


def _band(e: Emission, node: ir.Node, layout: ScatterConv) -> int:
    """Rows of targets that are worked on together; a Tsa's map may be pooled, its targets are not."""
    return layout.target[0] if isinstance(node, ir.Tsa) else e.rows(node)


def model_header(e: Emission) -> str:
    """model.h: what a firmware needs to know at compile time."""
    p = e.program
    streams = p.stream is not None
    sizes, data = stream_header(p, e.bounds) if streams else ("", "")
    header = "esnn_stream.h" if streams else "esnn.h"
    return f"""/* Generated by edgesnn from {_comment(p.name)}. */
#ifndef ESNN_MODEL_H
#define ESNN_MODEL_H

#include "{header}"

#define ESNN_MODEL_ARENA_BYTES {e.plan.arena_bytes}u
#define ESNN_MODEL_INPUT_BYTES {_input_bytes(e)}u
#define ESNN_MODEL_CLASSES {p.classes}u
#define ESNN_MODEL_TIMESTEPS {p.timesteps}u
#define ESNN_MODEL_NODES {len(p.nodes)}u
{sizes}
#ifdef __cplusplus
extern "C" {{
#endif

extern const esnn_model esnn_model_data;
{data}
#ifdef __cplusplus
}}
#endif
#endif
"""


def kernels_header(kernels: Iterable[Kernel]) -> str:
    """kernels.h: prototypes, for model.c and for kernels.c or the LLVM objects."""
    prototypes = "".join(f"{k.prototype()};\n" for k in kernels)
    return f"""/* Generated by edgesnn. */
#ifndef ESNN_KERNELS_H
#define ESNN_KERNELS_H

#include <stdint.h>

{prototypes}
#endif
"""


ALIGNED = """#if defined(__GNUC__)
#define ESNN_ALIGNED __attribute__((aligned(4)))
#else
#define ESNN_ALIGNED
#endif
"""

_MICRO = re.compile(r"\besnn_(?:rows6?|four6?|held|fire_(?:soft|hard|none))_([a-z]+)\(")
_OTHERS = {
    "esnn_bits.h": re.compile(r"\besnn_(?:first_bit|count_bits)\("),
    "esnn_strip.h": re.compile(r"\besnn_strip\("),
    "esnn_gather.h": re.compile(r"\besnn_gather\("),
}


def micro_headers(bodies: Iterable[str]) -> list[str]:
    """Files of compiler/micro/ that kernels call into."""
    text = "\n".join(bodies)
    found = {f"esnn_{style}.h" for style in _MICRO.findall(text)}
    found |= {name for name, calls in _OTHERS.items() if calls.search(text)}
    if "esnn_bytes.h" in found:
        found.add("esnn_pairs.h")
    if found & {"esnn_strip.h", "esnn_gather.h"}:
        found |= {"esnn_bits.h", "esnn_planes.h"}
    return sorted(found)


def kernels_source(bodies: list[str]) -> str:
    """kernels.c: the kernels, behind the micro-kernels that they call."""
    includes = "".join(f'#include "{name}"\n' for name in micro_headers(bodies))
    head = f'/* Generated by edgesnn through Apache TVM. */\n#include "kernels.h"\n{includes}\n'
    return head + "\n".join(bodies)


def model_source(e: Emission) -> str:
    """model.c: tables, node functions, descriptor."""
    p, plan = e.program, e.plan
    output = e.bounds.nodes[p.output.name]
    rows = []
    starts, period = ir.starts(p), ir.period(p)
    cycle = math.lcm(period, *plan.planes.values()) if period else 0
    for i, node in enumerate(p.nodes):
        b = e.bounds.nodes[node.name]
        run = "0" if i == 0 else f"node_{i}"
        kind, spikes = f"ESNN_NODE_{node_kind(node).upper()}", e.map_of(node.name)
        bits, plane, at = 0, 0, 0
        if spikes is not None:
            bits, at = spikes.bits, plan.offset(f"{node.name}.spikes")
            plane = spikes.plane if node.name in plan.planes else 0
        elif b.capacity:
            at = plan.offset(f"{node.name}.queue")
        rows.append(
            f'  {{"{node.name}", {run}, {at}u, {b.capacity}u, {b.neurons}u, {kind}, '
            f"{bits}u, {b.shape[2]}u, {plane}u, {plan.planes.get(node.name, 1)}u, "
            f"{starts.get(node.name, 1)}u}}"
        )
    nodes = ",\n".join(rows)
    held = "frame" if isinstance(p.input, ir.SampleInput) else "spikes"
    identity = ", ".join(str(x) for x in p.digest()[:16])
    event_bytes = 2 if e.bounds.event_dtype == "uint16" else 4
    return f"""/* Generated by edgesnn from {_comment(p.name)}: tables, nodes, descriptor. */
#include "model.h"

#include "kernels.h"

{ALIGNED}
{"".join(e.tables)}
{chr(10).join(e.functions)}
static const esnn_node nodes[{len(p.nodes)}] = {{
{nodes}
}};

const esnn_model esnn_model_data = {{
  .api_version = ESNN_API_VERSION,
  .id = {{{identity}}},
  .name = "{_c_string(p.name)}",
  .nodes = nodes,
  .node_count = {len(p.nodes)}u,
  .timesteps = {p.timesteps}u,
  .period = {period}u,
  .coding = {ir.coding_steps(p)}u,
  .cycle = {cycle}u,
  .classes = {p.classes}u,
  .input_bytes = {_input_bytes(e)}u,
  .input_offset = {plan.offset(f"{p.input.name}.{held}")}u,
  .event_bytes = {event_bytes}u,
  .output_bytes = {2 if output.width == "int16" else 4}u,
  .output_offset = {plan.offset(f"{p.output.name}.u")}u,
  .stats_offset = {plan.offset("stats")}u,
  .counts_offset = {plan.offset("counts")}u,
  .arena_bytes = {plan.arena_bytes}u
}};
"""


def stream_header(program: ir.Program, bounds: Bounds) -> tuple[str, str]:
    """What model.h says of the stream: its macros and its descriptor."""
    memory = stream_memory(program, bounds)
    sizes = f"#define ESNN_MODEL_STREAM\n#define ESNN_MODEL_STREAM_BYTES {memory}u\n"
    return sizes, "extern const esnn_stream_model esnn_stream_data;\n"


def stream_source(program: ir.Program, bounds: Bounds) -> str:
    """model_stream.c: how a signal becomes inferences, and the front end's tables."""
    stream, tables, front, background = program.stream, [], "0", "0"
    if isinstance(stream, ir.EventStream):
        fields = {"step_us": stream.step_us, "refractory": stream.refractory}
    else:
        assert stream is not None
        shape = window_shape(program)
        row = shape.values * np.dtype(shape.dtype).itemsize
        if isinstance(stream.front, ir.LogMel):
            tables, front = _log_mel_tables(stream.front), "&log_mel"
        if stream.background:
            quiet = np.isin(np.arange(program.classes), stream.background)
            tables.append(table_text("background", quiet, "uint8"))
            background = "background"
        fields = {
            "sample_bytes": row,
            "row_bytes": _frame_bytes(program) // shape.rows,
            "rows": shape.rows,
            "hop": shape.hop,
            "smooth": stream.smooth,
            "votes": stream.votes,
            "refractory": stream.refractory,
        }
    fields["memory_bytes"] = stream_memory(program, bounds)
    listed = ",\n".join(f"  .{name} = {value}u" for name, value in fields.items())
    return f"""/* Generated by edgesnn from {_comment(program.name)}: the stream. */
#include "model.h"

{ALIGNED}
{"".join(tables)}
const esnn_stream_model esnn_stream_data = {{
  .log_mel = {front},
  .background = {background},
{listed}
}};
"""


def _log_mel_tables(front: ir.LogMel) -> list[str]:
    arrays = {
        name: getattr(front, name) for name in ("window", "quarter", "band", "rise", "offset")
    }
    tables = [table_text(name, values, values.dtype.name) for name, values in arrays.items()]
    named = "".join(f"  .{name} = {name},\n" for name in arrays)
    return [
        *tables,
        f"""static const esnn_log_mel log_mel = {{
  .row = esnn_log_mel_row,
{named}  .gain = {front.gain},
  .frame = {len(front.window)}u,
  .hop = {front.hop}u,
  .points = {points(front)}u,
  .bands = {bands(front)}u
}};
""",
    ]


def _input_bytes(e: Emission) -> int:
    return _frame_bytes(e.program)


def _frame_bytes(program: ir.Program) -> int:
    source = program.input
    if isinstance(source, ir.EventInput):
        return 0
    return ir.size(source.shape) * np.dtype(source.dtype).itemsize


def _comment(text: str) -> str:
    return text.replace("*/", "* /")


def _c_string(text: str) -> str:
    safe = "".join(c if c.isalnum() or c in " ._-+" else "?" for c in text)
    return safe.encode("ascii", "replace").decode()[:31]
