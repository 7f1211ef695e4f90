"""How programs end when standard output is full or closed, and on Ctrl-C; what a file's name may stand for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgesnn import ablation, mlperf_tiny, parity
from edgesnn.conversion import ablation as conversion
from edgesnn.exits import guarded
from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError

SAY = "print('x' * 100_000)"
HELP = "argparse.ArgumentParser().parse_args(['--help'])"
PRINTED = "print('x')"


def python(work: str, output: str, unbuffered: bool = False) -> subprocess.CompletedProcess[str]:
    """The work, guarded, in a process of its own; output: what the shell does with it."""
    code = f"import argparse, sys; from edgesnn.exits import guarded; sys.exit(guarded(lambda: {work}, 'it'))"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    if unbuffered:
        env["PYTHONUNBUFFERED"] = "1"
    script = f'"$1" -c "$2" {output}; exit "${{PIPESTATUS[0]}}"'
    words = ["bash", "-c", script, "bash", sys.executable, code]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("work", [SAY, PRINTED])
def test_output_that_nobody_takes(work: str, unbuffered: bool) -> None:
    if Path("/dev/full").exists():
        full = python(work, "> /dev/full", unbuffered)
        assert full.returncode == 1
        assert full.stderr == "it: error: cannot write standard output: No space left on device\n"
    for nobody in ("| true", ">&-"):
        gone = python(work, nobody, unbuffered)
        assert (gone.returncode, gone.stderr) == (0, "")


def test_help_that_nobody_takes() -> None:
    if Path("/dev/full").exists():
        full = python(HELP, "> /dev/full")
        assert full.returncode == 1 and full.stderr.count("\n") == 1
    gone = python(HELP, "| true")
    assert (gone.returncode, gone.stderr) == (0, "")


def test_ctrl_c_is_one_line() -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(10)

    assert guarded(work, "it") == 130


@pytest.mark.parametrize("module", [ablation, conversion, mlperf_tiny, parity])
def test_every_program_is_guarded(
    module: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_main", broken)
    assert module.main() == 130  # type: ignore[attr-defined]
    assert capsys.readouterr().err.endswith(": interrupted\n")


# --- files that are none ------------------------------------------------------------------------


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(pipe, b"all")
    assert pipe.is_fifo()
    reader.join(10)
    assert found == [b"all"] and [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_of_a_link_what_it_points_to_is_written(tmp_path: Path) -> None:
    link, there = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(there)
    for text in (b"one", b"two"):
        write_atomic(link, text)
        assert there.read_bytes() == text and link.is_symlink()
    with pytest.raises(EdgesnnError, match="Is a directory"):
        write_atomic(there.parent, b"")
