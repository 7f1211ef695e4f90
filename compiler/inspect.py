"""What is known about a program before anything runs, as plain values for reports and manifests."""

from __future__ import annotations

from typing import Any

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import Bounds, prove
from edgesnn.compiler.choose import Choice, Option, choose, options
from edgesnn.compiler.cost import Estimate, estimate, load_costs
from edgesnn.compiler.plan import Plan, plan_memory
from edgesnn.compiler.stream import window_shape
from edgesnn.compiler.stream_plan import stream_report
from edgesnn.targets.target import Target

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
    ir.CssEncoder: "encoder",
    ir.Tsa: "spiking",
    ir.CssOutput: "output",
}

_READOUTS = {
    ir.FirstSpike: "first-spike",
    ir.Margin: "margin",
    ir.Rate: "rate",
    ir.Css: "css",
}


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


def instructions(
    program: ir.Program,
    bounds: Bounds,
    choice: Choice,
    target: Target,
    *,
    codegen: str = "c",
    compiler: str | None = None,
    layered: bool = False,
) -> tuple[Estimate | None, str]:
    """What the cost model says of a program on a target, or None and why it says nothing.

    compiler: what builds the code, None where it is not built yet. layered: some run layer by layer.
    """
    if target.kind == "host":
        return None, "a host's instructions are not counted"
    if codegen != "c":
        return None, "only kernels in C were measured"
    costs = load_costs(target.name)
    if costs is None:
        return None, f"nothing was measured for {target.name}"
    if compiler is not None and compiler != costs.compiler:
        return None, f"code by {costs.compiler} was measured, this is by {compiler}"
    if ir.coding_steps(program):
        return None, "kernels of signed spikes were not measured"
    if layered:
        return None, "what runs layer by layer was not measured"
    found = estimate(program, bounds, choice, costs)
    return (found, "") if found is not None else (None, "one of its kernels was never measured")


def instructions_report(
    program: ir.Program, found: Estimate | None, why: str, compiler: str | None
) -> dict[str, Any]:
    """`instructions` as plain values; by node: at worst in a step, in an inference, and in a mean inference."""
    if found is None:
        return {"unknown": why}
    return {
        "worst_per_step": found.worst_step,
        "worst_per_inference": found.worst_inference,
        "mean": found.mean_inference,
        "mean_at": "measured rates" if program.rates else "default rates",
        "compiler": compiler,
        "by_node": {
            name: {
                "worst_per_step": found.step[name],
                "worst_per_inference": worst,
                "mean": found.mean[name],
            }
            for name, worst in found.inference.items()
        },
    }


def kernels_report(choice: Choice, considered: dict[str, tuple[Option, ...]]) -> dict[str, Any]:
    """By node: the style that was chosen and all that were considered, with what they cost."""
    return {
        name: {
            "style": choice[name].name,
            "considered": [
                {
                    "style": o.style.name,
                    "worst_instructions": o.worst,
                    "mean_instructions": o.mean,
                    "flash_bytes": o.flash,
                }
                for o in found
            ],
        }
        for name, found in considered.items()
    }


def describe_stream(program: ir.Program, bounds: Bounds) -> dict[str, Any] | None:
    """How a signal becomes decisions, None where the program takes whole samples.

    What a StreamInfo reads, and of window mode row_values (samples of a row of the input; the bands of a
    log-mel front end), window_ms (of signal that a window rests on) and hop_ms (between windows).
    """
    found, stream = stream_report(program, bounds), program.stream
    if found is None or not isinstance(stream, ir.WindowStream):
        return found
    shape, per_ms = window_shape(program), stream.front.rate / 1000
    return {
        **found,
        "row_values": ir.size(program.input.shape) // shape.rows,
        "window_ms": round(shape.row_time(shape.rows - 1) / per_ms, 3),
        "hop_ms": round(shape.hop * shape.row_hop / per_ms, 3),
    }


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
    weights = sum(p.weight.nbytes for node in program.nodes for p in ir.projections(node))
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
            **(
                {"exit": program.readout.exit, "coding_steps": ir.coding_steps(program)}
                if isinstance(program.readout, ir.Css)
                else {}
            ),
        },
        "stream": describe_stream(program, bounds),
        "bounds": bounds_report(program, bounds),
        "arena_bytes": plan.arena_bytes,
        "arena": arena_report(plan),
        "weight_bytes": weights,
        "event_bytes": 2 if bounds.event_dtype == "uint16" else 4,
        "output_bytes": 2 if bounds.nodes[program.output.name].width == "int16" else 4,
    }


def describe_on(program: ir.Program, target: Target) -> dict[str, Any]:
    """What holds on one target: memory map, kernels, instructions, as `edgesnn compile` would have them."""
    bounds = prove(program)
    choice = choose(program, bounds, target)
    plan = plan_memory(program, bounds, choice)
    found, why = instructions(program, bounds, choice, target)
    costs = load_costs(target.name)
    return {
        "arena_bytes": plan.arena_bytes,
        "arena": arena_report(plan),
        "instructions": instructions_report(program, found, why, costs.compiler if costs else None),
        "kernels": kernels_report(choice, options(program, bounds, target)),
    }
