"""Start of a timestep for a population: u <- bias in the first step, u <- leak(u) + bias in every later one."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.ir import Shifts
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, table


def begin_first(symbol: str, *, positions: int, channels: int, width: str) -> Kernel:
    """u[p, c] = bias[c]; the membranes start at 0, and leak(0) = 0."""

    @T.prim_func
    def main(bias_p: T.handle(width), u_p: T.handle(width)):
        bias = T.decl_buffer((channels,), width, data=bias_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        for p in range(positions):
            for c in range(channels):
                u[p * channels + c] = bias[c]

    return make_kernel(symbol, (table("bias_p", width), pointer("u_p", width)), main)


def begin_next(symbol: str, *, positions: int, channels: int, width: str, leak: Shifts) -> Kernel:
    """u[p, c] = sum of sign * (u[p, c] >> shift) + bias[c], computed in 32 bits."""

    def leaked(u: Any) -> Any:
        total = T.int32(0)
        for sign, shift in leak:
            term = T.shift_right(u, T.int32(shift)) if shift else u
            total = total + term if sign > 0 else total - term
        return total

    @T.prim_func
    def main(bias_p: T.handle(width), u_p: T.handle(width)):
        bias = T.decl_buffer((channels,), width, data=bias_p)
        u = T.decl_buffer((positions * channels,), width, data=u_p)
        for p in range(positions):
            for c in range(channels):
                u[p * channels + c] = T.Cast(
                    width,
                    leaked(T.Cast("int32", u[p * channels + c])) + T.Cast("int32", bias[c]),
                )

    return make_kernel(symbol, (table("bias_p", width), pointer("u_p", width)), main)
