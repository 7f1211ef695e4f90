"""How the weights of one event are added to the membranes they reach, and how spikes are taken out of a word.

An event's weights are `rows` segments of `n` contiguous outputs. A style is one way of adding them: "plain" is
a loop that the C compiler or LLVM schedules, any other name a micro-kernel of compiler/micro/ (decision 0012).
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.styles import Style


def add_rows(style: Style, width: str, small: bool) -> Any:
    """Inline u[into + r * u_step + k] += weights[at + r * w_step + k], 0 <= r < rows, 0 <= k < n.

    Steps and indices count outputs, whatever the style packs them into. `small`: all weights are in -32...31.
    """
    if not style.micro:

        @T.inline
        def plain(
            u: Any, weights: Any, into: Any, at: Any, n: Any, rows: Any, u_step: Any, w_step: Any
        ):
            for r in range(rows):
                for k in range(n):
                    u[into + r * u_step + k] = u[into + r * u_step + k] + T.Cast(
                        width, weights[at + r * w_step + k]
                    )

        return plain

    name = f"esnn_rows{6 if small and style.offset6 else ''}_{style.name}"
    packed = style.outputs_per_word

    @T.inline
    def micro(
        u: Any, weights: Any, into: Any, at: Any, n: Any, rows: Any, u_step: Any, w_step: Any
    ):
        T.evaluate(
            T.call_extern(
                "int32",
                name,
                T.address_of(u[into]),
                T.address_of(weights[T.truncdiv(at, packed)]),
                n,
                rows,
                u_step,
                w_step,
            )
        )

    return micro


def add_four(style: Style, small: bool) -> Any:
    """Inline the same for four events of one position, whose weights begin at at[0...3]."""
    name = f"esnn_four{6 if small and style.four6 else ''}_{style.name}"

    @T.inline
    def four(u: Any, weights: Any, into: Any, at: Any, n: Any, rows: Any, u_step: Any, w_step: Any):
        T.evaluate(
            T.call_extern(
                "int32",
                name,
                T.address_of(u[into]),
                T.address_of(weights[0]),
                T.address_of(at[0]),
                n,
                rows,
                u_step,
                w_step,
            )
        )

    return four


def add_held(style: Style) -> Any:
    """Inline u[k] += the weights of `count` events of a dense layer, which begin at at[0...count - 1]."""
    name = f"esnn_held_{style.name}"

    @T.inline
    def held(u: Any, weights: Any, at: Any, count: Any, n: Any):
        T.evaluate(
            T.call_extern(
                "int32",
                name,
                T.address_of(u[0]),
                T.address_of(weights[0]),
                T.address_of(at[0]),
                count,
                n,
            )
        )

    return held


def first_bit(word: Any) -> Any:
    """Number of the lowest set bit of a word that is not 0."""
    return T.call_extern("int32", "esnn_first_bit", word)


def count_bits(word: Any) -> Any:
    """Number of set bits."""
    return T.call_extern("int32", "esnn_count_bits", word)
