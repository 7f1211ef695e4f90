"""From a program to C: the tables, one function per node that calls its kernels, and the model descriptor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, fan_tables
from edgesnn.compiler.inspect import node_kind
from edgesnn.compiler.layout import ScatterConv, scatter_conv
from edgesnn.compiler.plan import Plan
from edgesnn.compiler.tir.amos import amos_fire
from edgesnn.compiler.tir.begin import add_current, begin_first, begin_next
from edgesnn.compiler.tir.event_conv import event_conv
from edgesnn.compiler.tir.event_dense import event_dense
from edgesnn.compiler.tir.fire import fire
from edgesnn.compiler.tir.kernel import C_TYPES, Kernel
from edgesnn.compiler.tir.merge import merge
from edgesnn.compiler.tir.pool import or_pool, sum_pool
from edgesnn.compiler.tir.readout import readout
from edgesnn.compiler.tir.sample_conv import copy_row, sample_conv
from edgesnn.compiler.tir.spike_times import emit_times, spike_times


@dataclass
class Emission:
    """Kernels, C text of tables and node functions, in the making."""

    program: ir.Program
    bounds: Bounds
    plan: Plan
    kernels: list[Kernel] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)

    def table(self, name: str, values: np.ndarray, dtype: str) -> str:
        """Emit a constant table and return the expression that names it."""
        flat = values.astype(np.int64).ravel().tolist()
        rows = [", ".join(map(str, flat[i : i + 20])) for i in range(0, len(flat), 20)]
        body = ",\n  ".join(rows)
        self.tables.append(
            f"static const {C_TYPES[dtype]} {name}[{len(flat)}] = {{\n  {body}\n}};\n"
        )
        return name

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
        self.kernels.append(kernel)
        return f"{kernel.symbol}({', '.join(arguments)});"


def emit(program: ir.Program, bounds: Bounds, plan: Plan) -> Emission:
    """Choose and parametrise a kernel per piece of work and write the calls."""
    e = Emission(program, bounds, plan)
    for i, node in enumerate(program.nodes):
        if isinstance(node, ir.SampleInput | ir.EventInput):
            continue
        if isinstance(node, ir.LatencyEncoder):
            lines = _latency_encoder(e, i, node)
        elif isinstance(node, ir.CurrentEncoder):
            lines = _current_encoder(e, i, node)
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
    b, event = e.bounds.nodes[node.name], e.bounds.event_dtype
    sums = str(b.sums)
    rows, layout = _sample_rows(e, i, node, node.pool[0])
    thresholds = node.thresholds if node.thresholds.size else np.zeros(1, dtype=np.int32)
    times = e.call(
        spike_times(
            f"esnn_spike_times_{sums}_{i}",
            layout=layout,
            pool=node.pool,
            steps=e.program.timesteps,
            sums=sums,
        ),
        e.at(f"{node.name}.strip", sums, const=True),
        e.table(f"thresholds_{i}", thresholds, "int32"),
        "row",
        e.at(f"{node.name}.times", "uint8"),
    )
    queue = e.call(
        emit_times(f"esnn_emit_times_{event}_{i}", units=b.neurons, event=event),
        e.at(f"{node.name}.times", "uint32", const=True),
        "t",
        e.at(f"{node.name}.queue", event),
        "out",
    )
    return [*_first_step(b.shape[0], rows, times), queue, "(void)sops;", "return out[0];"]


def _first_step(rows: int, *statements: str) -> list[str]:
    """Statements for each row of an encoder's map, in the first step only."""
    inner = [f"    {statement}" for statement in statements]
    loop = f"  for (row = 0; row < {rows}; ++row) {{"
    return ["int32_t row;", "if (t == 1) {", loop, *inner, "  }", "}"]


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
    begin = _begin(e, i, node, (node.leak,))
    tail = ["(void)sops;", "return out[0];"]
    return [*_first_step(b.shape[0], rows, copied), *begin, current, _fire(e, i, node), *tail]


def _merge(e: Emission, i: int, node: ir.Merge) -> list[str]:
    event = e.bounds.event_dtype
    calls = [
        e.call(
            merge(
                f"esnn_merge_{event}_{i}_{k}",
                capacity=e.bounds.nodes[source].capacity,
                capacity_out=e.bounds.nodes[node.name].capacity,
                event=event,
            ),
            e.at(f"{source}.queue", event, const=True),
            e.count(source),
            e.at(f"{node.name}.queue", event),
            "out",
        )
        for k, source in enumerate(node.sources)
    ]
    return [*calls, "(void)t;", "(void)sops;", "return out[0];"]


def _pool(e: Emission, i: int, node: ir.OrPool | ir.SumPool) -> list[str]:
    event = e.bounds.event_dtype
    source = e.bounds.nodes[node.source]
    incoming = e.at(f"{node.source}.queue", event, const=True)
    queue = e.at(f"{node.name}.queue", event)
    if isinstance(node, ir.OrPool):
        kernel = or_pool(
            f"esnn_or_pool_{event}_{i}",
            source=source.shape,
            kernel=node.kernel,
            stride=node.stride,
            capacity=source.capacity,
            event=event,
        )
        seen = e.at(f"{node.name}.seen", "uint8")
        call = e.call(kernel, incoming, e.count(node.source), seen, queue, "out")
    else:
        kernel = sum_pool(
            f"esnn_sum_pool_{event}_{i}",
            source=source.shape,
            kernel=node.kernel,
            stride=node.stride,
            capacity=source.capacity,
            capacity_out=e.bounds.nodes[node.name].capacity,
            event=event,
        )
        call = e.call(kernel, incoming, e.count(node.source), queue, "out")
    return [call, "(void)t;", "(void)sops;", "return out[0];"]


def _begin(
    e: Emission, i: int, node: ir.CurrentEncoder | ir.Population, leaks: tuple[ir.Shifts, ...]
) -> list[str]:
    """u <- bias in the first step, u <- leak(u) + bias in every later one."""
    b = e.bounds.nodes[node.name]
    width, positions, channels = str(b.width), b.shape[0] * b.shape[1], b.shape[2]
    u = e.at(f"{node.name}.u", width)
    bias = e.table(f"bias_{i}", node.bias, width)
    kernel = begin_first(
        f"esnn_begin_first_{width}_{i}", positions=positions, channels=channels, width=width
    )
    lines = ["if (t == 1) {", f"  {e.call(kernel, bias, u)}"]
    if leaks != (((1, 0),),) or node.bias.any():
        kernel = begin_next(
            f"esnn_begin_next_{width}_{i}",
            positions=positions,
            channels=channels,
            width=width,
            leaks=leaks,
        )
        lines += ["} else {", f"  {e.call(kernel, bias, u)}"]
    return [*lines, "}"]


def _fire(e: Emission, i: int, node: ir.CurrentEncoder | ir.Lif | ir.Amos) -> str:
    b, event = e.bounds.nodes[node.name], e.bounds.event_dtype
    width, positions, channels = str(b.width), b.shape[0] * b.shape[1], b.shape[2]
    narrow = "int16" if int(node.threshold.max()) < 2**15 else "int32"
    theta = e.table(f"theta_{i}", node.threshold, narrow)
    queue = e.at(f"{node.name}.queue", event)
    if isinstance(node, ir.Amos):
        kernel = amos_fire(
            f"esnn_amos_fire_{width}_{i}",
            positions=positions,
            channels=channels,
            width=width,
            theta=narrow,
            event=event,
            forced_at=e.program.timesteps if node.forced else 0,
        )
        u = e.at(f"{node.name}.u", width, const=True)
        return e.call(kernel, theta, u, "t", e.at(f"{node.name}.fired", "uint8"), queue, "out")
    kernel = fire(
        f"esnn_fire_{width}_{i}",
        positions=positions,
        channels=channels,
        width=width,
        theta=narrow,
        event=event,
        hard=node.reset == "hard",
    )
    return e.call(kernel, theta, e.at(f"{node.name}.u", width), queue, "out")


def _population(e: Emission, i: int, node: ir.Population) -> list[str]:
    b = e.bounds.nodes[node.name]
    width = str(b.width)
    leaks = node.leaks if isinstance(node, ir.Accumulator) else (node.leak,)
    lines = _begin(e, i, node, leaks)
    for k, p in enumerate(node.projections):
        lines.append(_integrate(e, f"{i}_{k}", p, width, e.at(f"{node.name}.u", width)))
    lines.append("*sops = (uint32_t)out[1];")
    if isinstance(node, ir.Accumulator):
        kernel = readout(
            f"esnn_readout_{width}_{i}", classes=b.shape[2], width=width, rule=e.program.readout
        )
        lines.append(e.call(kernel, e.at(f"{node.name}.u", width, const=True), "out"))
    else:
        lines.append(_fire(e, i, node))
    return [*lines, "return out[0];"]


def _integrate(e: Emission, tag: str, p: ir.Projection, width: str, u: str) -> str:
    event = e.bounds.event_dtype
    source = e.bounds.nodes[p.source]
    layout = scatter_conv(p, source.shape)
    weights = e.table(f"weights_{tag}", layout.weights, "int8")
    incoming = e.at(f"{p.source}.queue", event, const=True)
    if isinstance(p, ir.Dense):
        kernel = event_dense(
            f"esnn_event_dense_{width}_{tag}",
            inputs=p.weight.shape[1],
            outputs=p.weight.shape[0],
            capacity=source.capacity,
            width=width,
            event=event,
        )
        return e.call(kernel, incoming, e.count(p.source), weights, u, "out")
    kernel = event_conv(
        f"esnn_event_conv_{width}_{tag}",
        layout=layout,
        capacity=source.capacity,
        width=width,
        event=event,
    )
    rows, columns = fan_tables(p, source.shape)
    return e.call(
        kernel,
        incoming,
        e.count(p.source),
        weights,
        e.table(f"rows_{tag}", rows, "int32"),
        e.table(f"columns_{tag}", columns, "int32"),
        u,
        "out",
    )


def model_header(e: Emission) -> str:
    """model.h: what a firmware needs to know at compile time."""
    p = e.program
    return f"""/* Generated by edgesnn from {_comment(p.name)}. */
#ifndef ESNN_MODEL_H
#define ESNN_MODEL_H

#include "esnn.h"

#define ESNN_MODEL_ARENA_BYTES {e.plan.arena_bytes}u
#define ESNN_MODEL_INPUT_BYTES {_input_bytes(e)}u
#define ESNN_MODEL_CLASSES {p.classes}u
#define ESNN_MODEL_TIMESTEPS {p.timesteps}u
#define ESNN_MODEL_NODES {len(p.nodes)}u

extern const esnn_model esnn_model_data;

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


def model_source(e: Emission) -> str:
    """model.c: tables, node functions, descriptor."""
    p, plan = e.program, e.plan
    output = e.bounds.nodes[p.output.name]
    rows = []
    for i, node in enumerate(p.nodes):
        b = e.bounds.nodes[node.name]
        run = "0" if i == 0 else f"node_{i}"
        queue = plan.offset(f"{node.name}.queue") if b.capacity else 0
        kind = f"ESNN_NODE_{node_kind(node).upper()}"
        rows.append(f'  {{"{node.name}", {run}, {queue}u, {b.capacity}u, {b.neurons}u, {kind}}}')
    nodes = ",\n".join(rows)
    held = "frame" if isinstance(p.input, ir.SampleInput) else "bitmap"
    identity = ", ".join(str(x) for x in p.digest()[:16])
    event_bytes = 2 if e.bounds.event_dtype == "uint16" else 4
    return f"""/* Generated by edgesnn from {_comment(p.name)}: tables, nodes, descriptor. */
#include "model.h"

#include "kernels.h"

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


def _input_bytes(e: Emission) -> int:
    source = e.program.input
    if isinstance(source, ir.EventInput):
        return 0
    return ir.size(source.shape) * np.dtype(source.dtype).itemsize


def _comment(text: str) -> str:
    return text.replace("*/", "* /")


def _c_string(text: str) -> str:
    safe = "".join(c if c.isalnum() or c in " ._-+" else "?" for c in text)
    return safe.encode("ascii", "replace").decode()[:31]
