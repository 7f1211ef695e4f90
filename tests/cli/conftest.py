"""What the command-line tests share: small labelled data, a trained checkpoint, a runner."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn import cli
from edgesnn.runtime.bundle import Bundle


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Standard output as exactly one JSON object on one line."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def error(self, code: int) -> str:
        """The one line of an error: right code, nothing on standard output, no traceback."""
        assert self.code == code, (self.code, self.out, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert [i for i, line in enumerate(lines) if line.startswith("edgesnn: error: ")] == [
            len(lines) - 1
        ], self.err
        return lines[-1].removeprefix("edgesnn: error: ")


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: run("inspect", path, "--json")."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def fresh() -> Run:
    """Run a command line in a process of its own; keywords: env, stdin (bytes), cwd."""

    def call(
        *words: object,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-c", "from edgesnn.cli import main; raise SystemExit(main())"]
            + [str(word) for word in words],
            input=stdin,
            capture_output=True,
            env=None if env is None else dict(env),
            cwd=cwd,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture(scope="session")
def frames(golden: Path) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """The golden inputs, the reference's classes as labels, and the golden rows."""
    rows = json.loads((golden / "samples.json").read_text(encoding="utf-8"))["samples"]
    x = np.array([row["frame"] for row in rows], dtype=np.uint8).reshape(-1, 8, 8)
    return x, np.array([row["label"] for row in rows]), rows


@pytest.fixture(scope="session")
def data(
    frames: tuple[np.ndarray, np.ndarray, list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An .npz data set of 8x8 samples whose test split the golden program answers without a fault."""
    x, y, _ = frames
    rng = np.random.default_rng(0)
    y_train = np.arange(120) % 5
    # Five bright bars: easy to learn in a moment.
    x_train = rng.integers(0, 40, (120, 8, 8), dtype=np.uint8)
    x_train[np.arange(120), y_train + 1] += 200
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x, y_test=y)
    return path


@pytest.fixture(scope="session")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint from a moment's training. Do not alter it."""
    from edgesnn import api

    out = tmp_path_factory.mktemp("checkpoint") / "bars.pt"
    api.train("mcu-mlp", str(data), out, epochs=1, batch=20, progress=False)
    return out


@pytest.fixture
def copy(host_bundle: Bundle, tmp_path: Path) -> Path:
    """A host bundle that a test may damage."""
    return Path(shutil.copytree(host_bundle.path, tmp_path / "copy"))
