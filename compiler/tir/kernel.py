"""What a kernel is: a TIR module with one function of plain pointers, and its C prototype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm

C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
}


@dataclass(frozen=True)
class Param:
    """A kernel parameter: a pointer to `dtype` (read-only when `const`), or a scalar."""

    name: str
    dtype: str
    const: bool = False
    scalar: bool = False

    def declaration(self) -> str:
        """C99 declaration; pointers never alias (TVM's noalias, which its C output drops)."""
        c = C_TYPES[self.dtype]
        if self.scalar:
            return f"{c} {self.name}"
        return f"{'const ' if self.const else ''}{c} *restrict {self.name}"


@dataclass(frozen=True)
class Kernel:
    """`module` holds one PrimFunc called `symbol` with `params` in this order; it returns nothing.

    Kernels that count write them into their last parameter, int32 out[2] = (events emitted, SOPs done).
    """

    symbol: str
    params: tuple[Param, ...]
    module: Any

    def prototype(self) -> str:
        return f"void {self.symbol}({', '.join(p.declaration() for p in self.params)})"


def pointer(name: str, dtype: str) -> Param:
    """A pointer the kernel writes through."""
    return Param(name, dtype)


def table(name: str, dtype: str) -> Param:
    """A pointer the kernel only reads: a queue, weights, thresholds."""
    return Param(name, dtype, const=True)


def scalar(name: str) -> Param:
    """An int32 passed by value."""
    return Param(name, "int32", scalar=True)


def make_kernel(symbol: str, params: tuple[Param, ...], function: Any) -> Kernel:
    """Wrap a PrimFunc; its pointers never alias, which is what `restrict` says again in C."""
    named = function.with_attr({"global_symbol": symbol, "tirx.noalias": True})
    return Kernel(symbol, params, tvm.IRModule.from_expr(named))
