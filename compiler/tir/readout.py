"""Readout: out[0] = class + 1 when the criterion is met, -(class + 1) otherwise; class = argmax U, ties low."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler import ir
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, table


def leading(classes: int) -> Any:
    """Inline best[0] = argmax u, ties to the lowest index."""

    @T.inline
    def leader(best: Any, u: Any):
        best[0] = 0
        for k in range(1, classes):
            if u[k] > u[best[0]]:
                best[0] = k

    return leader


def readout(symbol: str, *, classes: int, width: str, rule: ir.Readout) -> Kernel:
    """First spike: max U >= value. Margin: the two largest differ by >= value. Rate: never."""
    value = rule.value if isinstance(rule, ir.FirstSpike | ir.Margin) else 0
    rate = isinstance(rule, ir.Rate)
    lowest, lead = -(2**31), leading(classes)

    @T.prim_func
    def leader(u_p: T.handle(width), out_p: T.handle("int32")):
        u = T.decl_buffer((classes,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        best = T.alloc_buffer((1,), "int32")
        lead(best, u)
        if T.And(T.bool(not rate), T.Cast("int32", u[best[0]]) >= value):
            out[0] = best[0] + 1
        else:
            out[0] = -1 - best[0]

    @T.prim_func
    def margin(u_p: T.handle(width), out_p: T.handle("int32")):
        u = T.decl_buffer((classes,), width, data=u_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        best = T.alloc_buffer((1,), "int32")
        top = T.alloc_buffer((1,), "int32")
        second = T.alloc_buffer((1,), "int32")
        best[0] = 0
        top[0] = T.Cast("int32", u[0])
        second[0] = lowest
        for k in range(1, classes):
            v: T.let = T.Cast("int32", u[k])
            if v > top[0]:
                second[0] = top[0]
                top[0] = v
                best[0] = k
            elif v > second[0]:
                second[0] = v
        # The difference of two int32 can exceed int32: compare in 64 bits.
        if T.Cast("int64", top[0]) - T.Cast("int64", second[0]) >= T.int64(value):
            out[0] = best[0] + 1
        else:
            out[0] = -1 - best[0]

    function = margin if isinstance(rule, ir.Margin) else leader
    return make_kernel(symbol, (table("u_p", width), pointer("out_p", "int32")), function)
