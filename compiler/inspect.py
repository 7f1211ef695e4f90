"""What is known about a program before anything runs, as plain values for reports and manifests."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, prove
from edgesnn.compiler.choose import Choice, choose
from edgesnn.compiler.plan import Plan, plan_memory

_KINDS = {
    ir.SampleInput: "input",
    ir.EventInput: "input",
    ir.LatencyEncoder: "encoder",
    ir.CurrentEncoder: "encoder",
    ir.Lif: "spiking",
    ir.Amos: "spiking",
    ir.OrPool: "operator",
    ir.SumPool: "operator",
    ir.Merge: "operator",
    ir.Accumulator: "output",
}

_READOUTS = {ir.FirstSpike: "first-spike", ir.Margin: "margin", ir.Rate: "rate"}


def node_kind(node: ir.Node) -> str:
    """ "input", "encoder", "spiking", "operator" or "output"."""
    return _KINDS[type(node)]


def bounds_report(program: ir.Program, bounds: Bounds) -> dict[str, Any]:
    """Queues (events), widths, membrane ranges, worst-case work."""
    ranges = {
        name: [int(b.lo.min()), int(b.hi.max())]
        for name, b in bounds.nodes.items()
        if b.lo is not None and b.hi is not None
    }
    return {
        "queues": {name: b.capacity for name, b in bounds.nodes.items() if b.capacity},
        "widths": {name: b.width for name, b in bounds.nodes.items() if b.width},
        "ranges": ranges,
        "worst_case_sops_per_step": bounds.sops_per_step,
        "worst_case_sops_per_inference": bounds.sops_per_inference,
        "worst_case_sops_by_node": {
            name: b.sops_per_step for name, b in bounds.nodes.items() if b.sops_per_step
        },
        "encoder_macs": bounds.encoder_macs,
    }


def arena_report(plan: Plan) -> list[dict[str, Any]]:
    """The memory map of the arena, by offset."""
    return [
        {"name": b.name, "dtype": b.dtype, "count": b.count, "offset": b.offset, "bytes": b.bytes}
        for b in plan.buffers.values()
    ]


def describe(
    program: ir.Program, choice: Choice | None = None, *, plan: Plan | None = None
) -> dict[str, Any]:
    """A program's nodes, bounds, arena and table sizes: what holds on every target, or what `plan` says.

    Code size and stack depend on the target and are measured by `edgesnn compile`.
    """
    bounds = prove(program)
    plan = plan or plan_memory(program, bounds, choice or choose(program, bounds, None))
    source = program.input
    samples = isinstance(source, ir.SampleInput)
    weights = sum(a.size for _, a in ir.arrays(program) if a.dtype == np.int8)
    return {
        "name": program.name,
        "program_sha256": program.digest().hex(),
        "timesteps": program.timesteps,
        "classes": program.classes,
        "class_names": list(program.class_names),
        "input": {
            "kind": "samples" if samples else "events",
            "shape": list(source.shape),
            "dtype": source.dtype if isinstance(source, ir.SampleInput) else "uint8",
            "scale": source.scale if isinstance(source, ir.SampleInput) else 1.0,
            "zero_point": source.zero_point if isinstance(source, ir.SampleInput) else 0,
        },
        "nodes": [
            {
                "name": node.name,
                "kind": node_kind(node),
                "type": type(node).__name__,
                "shape": list(bounds.nodes[node.name].shape),
                "neurons": bounds.nodes[node.name].neurons,
                "queue_capacity": bounds.nodes[node.name].capacity,
                "band": plan.bands.get(node.name) if isinstance(node, ir.Population) else None,
            }
            for node in program.nodes
        ],
        "readout": {
            "kind": _READOUTS[type(program.readout)],
            "value": getattr(program.readout, "value", None),
        },
        "bounds": bounds_report(program, bounds),
        "arena_bytes": plan.arena_bytes,
        "arena": arena_report(plan),
        "weight_bytes": weights,
        "event_bytes": 2 if bounds.event_dtype == "uint16" else 4,
        "output_bytes": 2 if bounds.nodes[program.output.name].width == "int16" else 4,
    }
