"""Targets: complete, consistent with their boards, and never contradicting themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgesnn.targets.board import load_board
from edgesnn.targets.errors import UsageError
from edgesnn.targets.target import TARGETS, Target, find_target

CORES = [target for target in TARGETS if target.kind == "mcu"]


def test_names() -> None:
    names = {target.name for target in CORES}
    assert names == {
        *(f"cortex-m{core}" for core in ("0", "0plus", "3", "4", "7", "33", "55")),
        "riscv32imc",
    }
    assert find_target("cortex-m").name == "cortex-m4"
    with pytest.raises(UsageError, match="unknown target 'avr'; choose one of: cortex-m0, "):
        find_target("avr")


@pytest.mark.parametrize("target", CORES, ids=lambda target: target.name)
def test_every_core_has_a_board_that_runs_it(target: Target) -> None:
    assert target.board is not None
    board = load_board(target.board)
    assert board.runs(target.name) and board.emulator is not None
    assert find_target(board.target).arch == target.arch  # it has the same instructions


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cortex-m4", {"kind": "fpga"}, "target cortex-m4: kind is host or mcu, not 'fpga'"),
        ("cortex-m4", {"arch": "armv9"}, "arch is one of host, armv6-m, "),
        ("cortex-m4", {"arch": "host"}, "a mcu has no arch 'host'"),
        ("cpu", {"board": "microbit"}, "a host has neither board nor gcc_prefix"),
        ("cortex-m0", {"multiply_cycles": 0}, "multiply_cycles is 1 to 32, not 0"),
        ("cortex-m3", {"dsp": True}, "armv7-m has no dsp"),
        ("cortex-m33", {"mve": True}, "mve needs armv8.1-m.main"),
        ("cortex-m3", {"clz": False}, "armv7-m has clz, unaligned and barrel_shift"),
        ("cortex-m0", {"unaligned": True}, "armv6-m has none of clz, unaligned and barrel_shift"),
    ],
)
def test_what_contradicts_itself_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as e:
        dataclasses.replace(find_target(name), **changes)
    assert message in str(e.value)
