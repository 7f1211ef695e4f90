"""The generated C under the address and undefined-behaviour sanitisers, judged by traces and references."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.random_stream import random_signal, random_stream_program
from edgesnn.compiler.stream import StreamInterpreter
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.engine import TimedDecision

CORE_SOURCES = ("esnn.c", "model.c", "kernels.c")
SANITISED = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the sanitisers come with gcc")
@pytest.mark.parametrize("name", ["samples", "events"])
def test_generated_code_is_clean(
    name: str, golden: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture = {"samples": "host_bundle", "events": "event_bundle"}[name]
    bundle: Bundle = request.getfixturevalue(fixture)
    source, program = bundle.path / "src", tmp_path / "replay"
    files = [golden / "replay.c", *(source / f for f in CORE_SOURCES)]
    words = ["gcc", *SANITISED, "-I", source, *files, "-o", program]
    subprocess.run([str(word) for word in words], check=True)
    rows = json.loads((golden / f"{name}.json").read_text(encoding="utf-8"))["samples"]
    data = b"".join(bytes(row["frame"]) for row in rows)
    size = len(rows[0]["frame"])
    done = subprocess.run([str(program), str(size)], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    got = [[int(word) for word in line.split()] for line in done.stdout.decode().splitlines()]
    assert got == [
        [row["label"], row["step"], int(row["exited"]), *row["membranes"]] for row in rows
    ]


def _line(d: TimedDecision) -> list[int]:
    x, none = d.decision, -1
    counts = [int(n) for pair in zip(x.events, x.sops, strict=True) for n in pair]
    smoothed = none if d.smoothed is None else d.smoothed
    return [
        *(d.time, x.label, smoothed, int(d.detected), x.step, int(x.exited)),
        *x.membranes.tolist(),
        *counts,
    ]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the sanitisers come with gcc")
@pytest.mark.parametrize("seed", range(300, 306))
def test_streams_are_clean(seed: int, golden: Path, tmp_path: Path) -> None:
    """Log-mel, rows and continuous in turn; what the model writes beyond its memory is seen."""
    program = random_stream_program(seed)
    bundle = compile_program(program, "cpu", out=tmp_path / "b")
    files = [p for p in (bundle.path / "src").glob("*.c") if not p.name.startswith("esnn_host")]
    words = ["gcc", *SANITISED, "-I", bundle.path / "src", golden / "replay_stream.c", *files]
    subprocess.run([str(w) for w in [*words, "-o", tmp_path / "replay"]], check=True)
    signal, reference = random_signal(program, seed), StreamInterpreter(program)
    wanted = reference.push(signal)
    if isinstance(program.stream, ir.EventStream):
        assert signal[-1, 0] // program.stream.step_us < 2**32
    done = subprocess.run([str(tmp_path / "replay")], input=signal.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    got = [[int(word) for word in line.split()] for line in done.stdout.decode().splitlines()]
    assert got == [_line(d) for d in wanted]
