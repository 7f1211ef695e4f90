"""From a trained float graph to the integer program: one list of passes, checked before and after each."""

from __future__ import annotations

from collections.abc import Callable

from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.check import check_program
from edgesnn.compiler.check_graph import check_graph
from edgesnn.compiler.graph import Graph
from edgesnn.compiler.passes.fold_batch_norm import fold_batch_norm
from edgesnn.compiler.passes.quantise import Units, quantise
from edgesnn.compiler.passes.round_leaks import round_leaks
from edgesnn.compiler.passes.tighten_thresholds import tighten_thresholds
from edgesnn.compiler.weight_format import weight_format

# Order: batch norm moves into weights and biases first, because scales are chosen on what is really
# multiplied; leaks are rounded before quantisation, because the int16 fit depends on them.
GRAPH_PASSES: tuple[Callable[[Graph], Graph], ...] = (fold_batch_norm, round_leaks)
# Thresholds are tightened last: the reachable range is known only from the final integers.
PROGRAM_PASSES: tuple[Callable[[ir.Program], ir.Program], ...] = (tighten_thresholds,)


def lower(graph: Graph, *, weights: str = "int8") -> ir.Program:
    """Lower a float graph to a checked, width-proved program with weights of a format (weight_format.py).

    Raises EdgesnnError naming the layer when the graph is malformed or a value cannot be proved to fit.
    """
    return lower_with_units(graph, weights=weights)[0]


def lower_with_units(graph: Graph, *, weights: str = "int8") -> tuple[ir.Program, dict[str, Units]]:
    """`lower`, and what the integers of each layer stand for (training needs it)."""
    weight_format(weights)
    check_graph(graph)
    for graph_pass in GRAPH_PASSES:
        graph = graph_pass(graph)
        check_graph(graph)
    program, units = quantise(graph, weights=weights)
    check_program(program)
    for program_pass in PROGRAM_PASSES:
        program = program_pass(program)
        check_program(program)
    prove(program)
    return program, units
