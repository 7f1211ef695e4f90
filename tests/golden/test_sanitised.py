"""The generated C under the address and undefined-behaviour sanitisers, judged by the golden traces."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edgesnn.runtime.bundle import Bundle

CORE_SOURCES = ("esnn.c", "model.c", "kernels.c")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the sanitisers come with gcc")
@pytest.mark.parametrize("name", ["samples", "events"])
def test_generated_code_is_clean(
    name: str, golden: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture = {"samples": "host_bundle", "events": "event_bundle"}[name]
    bundle: Bundle = request.getfixturevalue(fixture)
    source, program = bundle.path / "src", tmp_path / "replay"
    files = [golden / "replay.c", *(source / f for f in CORE_SOURCES)]
    flags = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    words = ["gcc", *flags, "-I", source, *files, "-o", program]
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
