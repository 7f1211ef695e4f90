"""One expected output judges the interpreter, the host library and the firmware."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.text import from_text
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import Trace
from edgesnn.runtime.session import Session, frame_shape

NAMES = ("samples", "events")


def _load(folder: Path, name: str) -> list[dict[str, Any]]:
    document = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    program = from_text((folder / f"{name}.program").read_text(encoding="utf-8"))
    assert document["program_sha256"] == program.digest().hex()
    assert len(document["samples"]) >= 5
    return list(document["samples"])


def _check(want: dict[str, Any], got: Trace) -> None:
    d = got.decision
    assert (d.label, d.step, d.exited) == (want["label"], want["step"], want["exited"])
    assert d.membranes.tolist() == want["membranes"]
    assert d.events.tolist() == want["events"]
    assert d.sops.tolist() == want["sops"]
    assert [[node.tolist() for node in step] for step in got.events] == want["spikes"]


def test_every_golden_program_is_listed(golden: Path) -> None:
    assert {p.stem for p in golden.glob("*.program")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_interpreter(golden: Path, name: str) -> None:
    program = from_text((golden / f"{name}.program").read_text(encoding="utf-8"))
    rows = _load(golden, name)
    # The inputs are worth something only when they stop at different steps.
    assert len({row["step"] for row in rows}) >= 3
    shape = program.input.shape if name == "samples" else (program.timesteps, *program.input.shape)
    for row in rows:
        frame = np.array(row["frame"], dtype=np.uint8).reshape(shape)
        _check(row, Interpreter(program).trace(frame))


def _engine(bundle: Bundle, rows: list[dict[str, Any]]) -> None:
    with Session(bundle) as session:
        for row in rows:
            frame = np.array(row["frame"], dtype=np.uint8).reshape(frame_shape(bundle))
            _check(row, session.trace(frame))
            decision = session.classify(frame)
            assert (decision.label, decision.step) == (row["label"], row["step"])
            assert decision.membranes.tolist() == row["membranes"]


@pytest.mark.parametrize("name", NAMES)
def test_host(golden: Path, name: str, request: pytest.FixtureRequest) -> None:
    fixture = {"samples": "host_bundle", "events": "event_bundle"}[name]
    _engine(request.getfixturevalue(fixture), _load(golden, name))


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm")
@pytest.mark.parametrize("name", NAMES)
def test_firmware(golden: Path, name: str, request: pytest.FixtureRequest) -> None:
    fixture = {"samples": "board_bundle", "events": "event_board_bundle"}[name]
    _engine(request.getfixturevalue(fixture), _load(golden, name))
