"""Start of a timestep for a population: u <- bias in the first step, u <- leak(u) + bias in every later one."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.ir import Shifts
from edgesnn.compiler.styles import Style
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, table
from edgesnn.compiler.tir.membrane import stored_as


def begin_first(symbol: str, *, positions: int, words: int) -> Kernel:
    """The membranes of every position become the table, in 32-bit words: they start at 0, and leak(0) = 0."""

    @T.prim_func
    def main(bias_p: T.handle("uint32"), u_p: T.handle("uint32")):
        bias = T.decl_buffer((words,), "uint32", data=bias_p)
        u = T.decl_buffer((positions * words,), "uint32", data=u_p)
        for p in range(positions):
            for c in range(words):
                u[p * words + c] = bias[c]

    return make_kernel(symbol, (table("bias_p", "uint32"), pointer("u_p", "uint32")), main)


def begin_first_narrow(symbol: str, *, positions: int, channels: int, width: str) -> Kernel:
    """u[p, c] = bias[c], where a position is no whole number of 32-bit words."""

    @T.prim_func
    def main(bias_p: T.handle(width), u_p: T.handle(width)):
        bias = T.decl_buffer((channels,), width, data=bias_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        for p in range(positions):
            for c in range(channels):
                u[p * channels + c] = bias[c]

    return make_kernel(symbol, (table("bias_p", width), pointer("u_p", width)), main)


def begin_next(
    symbol: str,
    *,
    positions: int,
    channels: int,
    width: str,
    leaks: tuple[Shifts, ...],
    style: Style,
) -> Kernel:
    """u[p, c] = leak_c(u[p, c]) + bias[c], computed in 32 bits; one leak for all channels, or one each.

    `bias` holds values as they are, also where membranes are stored biased.
    """
    biased = style.biased
    lanes = 2 if biased else 1

    def leaked(u: Any, leak: Shifts) -> Any:
        total = T.int32(0)
        for sign, shift in leak:
            term = T.shift_right(u, T.int32(shift)) if shift else u
            total = total + term if sign > 0 else total - term
        return total

    def leaked_channel(u: Any, c: Any) -> Any:
        out = leaked(u, leaks[-1])
        for i in reversed(range(len(leaks) - 1)):
            out = T.if_then_else(c == i, leaked(u, leaks[i]), out)
        return out

    def next_value(old: Any, bias: Any, lane: int) -> Any:
        u = stored_as(lane, T.Cast("int32", old), biased)
        return T.Cast(width, stored_as(lane, leaked(u, leaks[0]) + T.Cast("int32", bias), biased))

    @T.prim_func
    def shared(bias_p: T.handle(width), u_p: T.handle(width)):
        bias = T.decl_buffer((channels,), width, data=bias_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        for p in range(positions):
            for c in range(channels // lanes):
                u[p * channels + c * lanes] = next_value(
                    u[p * channels + c * lanes], bias[c * lanes], 0
                )
                if T.bool(lanes == 2):
                    u[p * channels + c * lanes + lanes - 1] = next_value(
                        u[p * channels + c * lanes + lanes - 1], bias[c * lanes + lanes - 1], 1
                    )

    @T.prim_func
    def each(bias_p: T.handle(width), u_p: T.handle(width)):
        bias = T.decl_buffer((channels,), width, data=bias_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        for p in range(positions):
            for c in T.unroll(channels):  # the choice of leak folds away
                u[p * channels + c] = T.Cast(
                    width,
                    leaked_channel(T.Cast("int32", u[p * channels + c]), c)
                    + T.Cast("int32", bias[c]),
                )

    if len(leaks) > 1 and biased:
        raise ValueError("one leak per channel needs membranes stored as they are")
    params = (table("bias_p", width), pointer("u_p", width))
    return make_kernel(symbol, params, shared if len(leaks) == 1 else each)


def add_current(symbol: str, *, units: int, sums: str, width: str) -> Kernel:
    """u[i] += current[i]: the constant current of direct coding."""

    @T.prim_func
    def main(current_p: T.handle(sums), u_p: T.handle(width)):
        current = T.decl_buffer((units,), sums, data=current_p)
        u = T.decl_buffer((units,), width, data=u_p)
        for i in range(units):
            u[i] = T.Cast(width, T.Cast("int32", u[i]) + T.Cast("int32", current[i]))

    return make_kernel(symbol, (table("current_p", sums), pointer("u_p", width)), main)
