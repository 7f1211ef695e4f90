"""Compare, emit, reset: where u >= theta, set the channel's bit in the word of its position."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgesnn.compiler.layout import SpikeMap
from edgesnn.compiler.styles import Style
from edgesnn.compiler.tir.kernel import Kernel, make_kernel, pointer, scalar, table
from edgesnn.compiler.tir.rows import count_bits


def compare(style: Style, *, reset: str, width: str) -> Any:
    """Inline word[0] <- bits k of the n <= 32 channels from `at` on whose u >= theta.

    `reset` is soft, hard or none. Thresholds are read from theta[c + k]. A micro-kernel works on whole groups
    of the style's lanes: beyond the channels u is 0 and theta the largest there is, so padding never fires.
    """
    if style.micro:
        name = f"esnn_fire_{reset}_{style.fire}"
        lanes = style.lanes

        @T.inline
        def micro(word: Any, theta: Any, u: Any, at: Any, c: Any, n: int):
            word[0] = T.call_extern(
                "uint32",
                name,
                T.address_of(u[at]),
                T.address_of(theta[c]),
                -(-n // lanes) * lanes,
            )

        return micro

    def rested(value: Any, limit: Any) -> Any:
        return T.int32(0) if reset == "hard" else value - limit

    @T.inline
    def plain(word: Any, theta: Any, u: Any, at: Any, c: Any, n: int):
        word[0] = T.uint32(0)
        for k in range(n):
            if T.Cast("int32", u[at + k]) >= T.Cast("int32", theta[c + k]):
                word[0] = T.bitwise_or(word[0], T.shift_left(T.uint32(1), T.Cast("uint32", k)))
                if T.bool(reset != "none"):
                    u[at + k] = T.Cast(
                        width, rested(T.Cast("int32", u[at + k]), T.Cast("int32", theta[c + k]))
                    )

    return plain


def fire(
    symbol: str,
    *,
    spikes: SpikeMap,
    stored: int,
    width: str,
    theta: str,
    style: Style,
    hard: bool,
) -> Kernel:
    """One pass over membranes u[positions, stored]; u <- u - theta, or 0 if `hard`; out[0] = events."""
    positions, words, bits, word = spikes.positions, spikes.words, spikes.bits, spikes.dtype
    channels = spikes.shape[2]
    last = channels - (words - 1) * bits
    test = compare(style, reset="hard" if hard else "soft", width=width)

    @T.prim_func
    def main(
        theta_p: T.handle(theta),
        u_p: T.handle(width),
        spikes_p: T.handle(word),
        out_p: T.handle("int32"),
    ):
        limit = T.decl_buffer((stored,), theta, data=theta_p)
        u = T.decl_buffer((positions * stored,), width, data=u_p)
        spiked = T.decl_buffer((positions * words,), word, data=spikes_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        fired = T.alloc_buffer((1,), "uint32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        for p in range(positions):
            for k in range(words - 1):
                test(fired, limit, u, p * stored + k * bits, k * bits, bits)
                spiked[p * words + k] = T.Cast(word, fired[0])
                if fired[0] != T.uint32(0):
                    count[0] = count[0] + count_bits(fired[0])
            test(fired, limit, u, p * stored + (words - 1) * bits, (words - 1) * bits, last)
            spiked[p * words + words - 1] = T.Cast(word, fired[0])
            if fired[0] != T.uint32(0):
                count[0] = count[0] + count_bits(fired[0])
        out[0] = count[0]

    params = (
        table("theta_p", theta),
        pointer("u_p", width),
        pointer("spikes_p", word),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)


def amos_fire(
    symbol: str,
    *,
    spikes: SpikeMap,
    stored: int,
    width: str,
    theta: str,
    style: Style,
    forced_at: int,
) -> Kernel:
    """At most one spike an inference: where u >= theta for the first time; the membrane stays.

    The bits of `fired` are the units that have spiked; `t` = 1 forgets them. `forced_at` is T when the silent
    ones fire then, else 0. out[0] = events.
    """
    positions, words, bits, word = spikes.positions, spikes.words, spikes.bits, spikes.dtype
    channels = spikes.shape[2]
    last = channels - (words - 1) * bits
    test = compare(style, reset="none", width=width)

    def mask(n: int) -> Any:
        # 2^32 - 1 as a literal is more than TVM's C output can write.
        return T.shift_right(T.bitwise_not(T.uint32(0)), T.uint32(32 - n))

    @T.inline
    def settle(now: Any, fired: Any, spiked: Any, count: Any, t: Any, at: Any, n: int):
        if t == forced_at:
            now[0] = mask(n)
        now[0] = T.bitwise_and(now[0], T.bitwise_not(T.Cast("uint32", fired[at])))
        fired[at] = T.Cast(word, T.bitwise_or(T.Cast("uint32", fired[at]), now[0]))
        spiked[at] = T.Cast(word, now[0])
        if now[0] != T.uint32(0):
            count[0] = count[0] + count_bits(now[0])

    @T.prim_func
    def main(
        theta_p: T.handle(theta),
        u_p: T.handle(width),
        t: T.int32,
        fired_p: T.handle(word),
        spikes_p: T.handle(word),
        out_p: T.handle("int32"),
    ):
        limit = T.decl_buffer((stored,), theta, data=theta_p)
        u = T.decl_buffer((positions * stored,), width, data=u_p)
        fired = T.decl_buffer((positions * words,), word, data=fired_p)
        spiked = T.decl_buffer((positions * words,), word, data=spikes_p)
        out = T.decl_buffer((2,), "int32", data=out_p)
        now = T.alloc_buffer((1,), "uint32")
        count = T.alloc_buffer((1,), "int32")
        count[0] = 0
        if t == 1:
            for i in range(positions * words):
                fired[i] = T.Cast(word, 0)
        for p in range(positions):
            for k in range(words - 1):
                test(now, limit, u, p * stored + k * bits, k * bits, bits)
                settle(now, fired, spiked, count, t, p * words + k, bits)
            test(now, limit, u, p * stored + (words - 1) * bits, (words - 1) * bits, last)
            settle(now, fired, spiked, count, t, p * words + words - 1, last)
        out[0] = count[0]

    params = (
        table("theta_p", theta),
        pointer("u_p", width),
        scalar("t"),
        pointer("fired_p", word),
        pointer("spikes_p", word),
        pointer("out_p", "int32"),
    )
    return make_kernel(symbol, params, main)
