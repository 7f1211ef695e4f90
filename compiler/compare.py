"""Bit-exact comparison of two engines' answers: what differs first, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesnn.runtime.engine import Decision, TimedDecision, Trace


def decision_difference(want: Decision, got: Decision) -> str | None:
    """The first thing in which two decisions differ, in words; None when they are equal."""
    for name, a, b in (
        ("class", want.label, got.label),
        ("step", want.step, got.step),
        ("exited", want.exited, got.exited),
    ):
        if a != b:
            return f"{name} is {b}, not {a}"
    for name, left, right in (
        ("membrane of class", want.membranes, got.membranes),
        ("events of node", want.events, got.events),
        ("synaptic operations of node", want.sops, got.sops),
    ):
        if left.shape != right.shape:
            return f"{name}: {right.size} values, not {left.size}"
        where = np.flatnonzero(left != right)
        if where.size:
            i = int(where[0])
            return f"{name} {i} is {right[i]}, not {left[i]}"
    return None


def trace_difference(want: Trace, got: Trace, names: Sequence[str]) -> str | None:
    """The first event or value in which two traces differ, in words; None when they are equal."""
    for t, (left, right) in enumerate(zip(want.events, got.events, strict=False), start=1):
        for name, a, b in zip(names, left, right, strict=True):
            if not np.array_equal(a, b):
                odd = np.setxor1d(a, b)
                which = f", first at address {odd[0]}" if odd.size else ""
                return f"step {t}, node {name}: {b.size} events, not {a.size}{which}"
    if len(want.events) != len(got.events):
        return f"{len(got.events)} steps, not {len(want.events)}"
    return decision_difference(want.decision, got.decision)


def timed_difference(want: TimedDecision, got: TimedDecision) -> str | None:
    """The first thing in which two decisions of a stream differ, in words; None when they are equal."""
    for name, a, b in (
        ("time", want.time, got.time),
        ("smoothed class", want.smoothed, got.smoothed),
        ("detected", want.detected, got.detected),
    ):
        if a != b:
            return f"{name} is {b}, not {a}"
    return decision_difference(want.decision, got.decision)


def streams_difference(want: Sequence[TimedDecision], got: Sequence[TimedDecision]) -> str | None:
    """The first decision of a stream that differs, in words; None when all are equal."""
    for i, (left, right) in enumerate(zip(want, got, strict=False)):
        odd = timed_difference(left, right)
        if odd is not None:
            return f"decision {i} at {left.time}: {odd}"
    if len(want) != len(got):
        return f"{len(got)} decisions, not {len(want)}"
    return None
