"""Run an integer program in the reference interpreter, all T steps, and count what it does (no torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edgesnn.coding.readout import Decisions
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import fan_out
from edgesnn.compiler.interpret import Interpreter
from edgesnn.data.dataset import Dataset
from edgesnn.reports.tables import Batch, Subject, figures

_EXITS = {ir.FirstSpike: "first-spike", ir.Margin: "margin", ir.Rate: "rate", ir.Css: "css"}
NEVER = 2**31 - 1  # a threshold that no membrane reaches

Advance = Callable[[Iterable[Any]], Iterable[Any]]


def measure_program(program: ir.Program, data: Dataset, advance: Advance = iter) -> dict[str, Any]:
    """`figures` of a program on samples that fit it. The exit's value is in the membranes' integers."""
    return figures(subject(program), batches(program, advance(data.x)), data)


def layers(program: ir.Program) -> list[Any]:
    """The nodes that a report has a row for: encoders, populations, the output."""
    kinds = ir.Encoder | ir.Population | ir.CssEncoder | ir.Integrator
    return [x for x in program.nodes if isinstance(x, kinds)]


def subject(program: ir.Program) -> Subject:
    """What `figures` wants to know of a program."""
    shapes, rule, nodes = ir.shapes(program), program.readout, layers(program)
    return Subject(
        "program",
        program.timesteps,
        [(x.name, type(x).__name__, ir.size(shapes[x.name])) for x in nodes],
        {x.name: sum(_macs(p, shapes[p.source]) for p in ir.projections(x)) for x in nodes},
        _EXITS[type(rule)],
        getattr(rule, "value", 0),
        None,
    )


def _macs(p: ir.Projection, source: ir.Shape) -> int:
    """Multiply-accumulates of a projection as a dense network does them, padding included."""
    if isinstance(p, ir.Dense):
        return int(p.weight.size)
    height, width, _ = ir.conv_shape(p, source)
    return height * width * int(p.weight.size)


def _fan(source: ir.Node, p: ir.Projection, shape: ir.Shape) -> np.ndarray:
    """Synaptic operations of an event, by its address; signed ones have two for a unit."""
    each = np.repeat(fan_out(p, shape), shape[2])
    return np.tile(each, 2) if ir.is_signed(source) else each


def without_exit(program: ir.Program) -> ir.Program:
    """The same program with an exit that nothing reaches: it goes on to T."""
    if isinstance(program.readout, ir.Css):
        return replace(program, readout=ir.Css("never"))
    if isinstance(program.readout, ir.Rate):
        return program
    return replace(program, readout=ir.FirstSpike(NEVER))


def batches(program: ir.Program, samples: Iterable[np.ndarray]) -> Iterator[Batch]:
    """All T steps of each sample, one sample a batch; layers as `layers` has them."""
    rule, deciding, nodes = program.readout, Interpreter(program), layers(program)
    program = without_exit(program)
    shapes, output, reference = ir.shapes(program), program.output.name, Interpreter(program)
    at = {node.name: i for i, node in enumerate(program.nodes)}
    fans = [
        [
            (at[p.source], _fan(program.node(p.source), p, shapes[p.source]))
            for p in (() if isinstance(x, ir.Encoder) else ir.projections(x))
        ]
        for x in nodes
    ]
    for sample in samples:
        membranes: list[np.ndarray] = []

        def watch(t: int, state: dict[str, np.ndarray], kept: list[np.ndarray] = membranes) -> None:
            found = state.get(output, np.zeros(program.classes, dtype=np.int64))
            kept.append(found.reshape(1, -1).copy())

        events = reference.trace(sample, watch).events
        spikes = [[[step[at[x.name]].size] for step in events] for x in nodes]
        sops = [[[sum(int(f[step[s]].sum()) for s, f in fan)] for step in events] for fan in fans]
        decided = None
        if isinstance(rule, ir.Css):
            found = deciding.infer(sample)
            decided = Decisions(*(np.array([v]) for v in (found.label, found.step, found.exited)))
        yield Batch(np.stack(membranes), np.array(spikes), np.array(sops), decided)
