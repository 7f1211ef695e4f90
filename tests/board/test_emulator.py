"""The emulator starts, stops, and never outlives who started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError

HOLD = """
import sys, time
from edgesnn.targets.board import load_board
from edgesnn.targets.emulator import Emulator
with Emulator(load_board(sys.argv[1]), sys.argv[2]) as emulator:
    print(emulator._process.pid, flush=True)
    time.sleep(60)
"""


ORPHAN = """
import os, time
from edgesnn.targets.emulator import _guarded
command, parent = _guarded(["/bin/echo", "survived"]), os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    os.execv(command[0], command)
"""

# What other threads hold when a process forks, Python's handlers take and release.
NO_FORK = """
import os, sys
from edgesnn.targets.board import load_board
from edgesnn.targets.emulator import Emulator
os.register_at_fork(before=lambda: print("forks"), after_in_parent=lambda: print("forked"))
with Emulator(load_board(sys.argv[1]), sys.argv[2]):
    pass
"""

# Answers nothing, ends the link and only a while later itself.
LINGERS = """#!{python}
import re, socket, sys, time
server = socket.socket(fileno=int(re.search("fd=([0-9]+)", " ".join(sys.argv)).group(1)))
server.accept()[0].close()
server.close()
time.sleep(0.6)
sys.exit("qemu: out of luck")
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_no_emulator_program(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgesnnError, match="apt-get install -y qemu-system-arm"):
        Emulator(board, tmp_path / "firmware.elf").start()


def test_board_without_emulator(board: Board) -> None:
    with pytest.raises(UsageError, match="has no emulator"):
        Emulator(replace(board, emulator=None), "firmware.elf")


@pytest.mark.usefixtures("emulator_program")
def test_no_image(board: Board, tmp_path: Path) -> None:
    with pytest.raises(EdgesnnError, match="cannot read firmware"):
        Emulator(board, tmp_path / "none.elf").start()
    (tmp_path / "text.elf").write_text("hello")
    with pytest.raises(EdgesnnError, match="is not an ELF file"):
        Emulator(board, tmp_path / "text.elf").start()


@pytest.mark.usefixtures("emulator_program")
def test_what_qemu_says_when_it_gives_up(
    board: Board, firmware: Callable[..., Path], hand_model: Any
) -> None:
    assert board.emulator is not None
    strange = replace(board, emulator=replace(board.emulator, args=("-M", "no-such-machine")))
    with Emulator(strange, firmware()) as emulator:
        with pytest.raises(EdgesnnError) as e:
            LinkEngine(hand_model(), emulator.url, timeout=5, watch=emulator.check)
        assert "the emulator of mps2-an386 has stopped: " in str(e.value)
        assert "unsupported machine type" in str(e.value) and "\n" not in str(e.value)


def test_of_a_dump_the_line_that_says_why(
    board: Board, firmware: Callable[..., Path], tmp_path: Path
) -> None:
    program = tmp_path / "locked"
    why = "qemu: fatal: Lockup: can't escalate 3 to HardFault (current priority -1)"
    program.write_text(
        f"#!/bin/sh\necho \"{why}\" >&2\necho >&2\necho 'FPSCR: 00000000' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    assert board.emulator is not None
    strange = replace(board, emulator=replace(board.emulator, program=str(program)))
    with Emulator(strange, firmware()) as emulator, pytest.raises(EdgesnnError) as e:
        emulator.check()
    assert str(e.value).endswith(f"has stopped: {why}")


def test_an_end_that_follows_the_links_is_waited_for(
    board: Board, firmware: Callable[..., Path], tmp_path: Path
) -> None:
    program = tmp_path / "lingers"
    program.write_text(LINGERS.format(python=sys.executable))
    program.chmod(0o755)
    assert board.emulator is not None
    strange = replace(board, emulator=replace(board.emulator, program=str(program)))
    with Emulator(strange, firmware()) as emulator:
        host, port = emulator.url.removeprefix("socket://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            assert wire.recv(1) == b""
        with pytest.raises(EdgesnnError, match="has stopped: qemu: out of luck"):
            emulator.check()


@pytest.mark.usefixtures("emulator_program")
def test_started_once_at_a_time(board: Board, firmware: Callable[..., Path]) -> None:
    emulator = Emulator(board, firmware())
    for _ in range(2):
        with emulator:
            assert emulator._process is not None
            pid = emulator._process.pid
            with pytest.raises(EdgesnnError, match="runs already; close it first"):
                emulator.start()
            assert emulator._process.pid == pid and alive(pid)
        assert not alive(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_start_that_fails_leaves_no_file_open(
    board: Board, firmware: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    assert board.emulator is not None
    strange = replace(board, emulator=replace(board.emulator, program=str(program)))
    before = set(os.listdir("/proc/self/fd"))
    emulators = [Emulator(strange, firmware()) for _ in range(3)]
    for emulator in emulators:
        with emulator, pytest.raises(EdgesnnError, match=r"has stopped: cannot run .*broken: No"):
            emulator.check()
    monkeypatch.setattr(sys, "executable", str(program))
    for emulator in emulators:
        with pytest.raises(EdgesnnError, match=r"^cannot run .*broken: No"):
            emulator.start()
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.usefixtures("emulator_program")
def test_a_start_calls_no_handler_of_forks(board: Board, firmware: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", NO_FORK, board.name, str(firmware())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_parent_that_ended_already_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("emulator_program")
def test_closed_at_the_end_and_twice(board: Board, firmware: Callable[..., Path]) -> None:
    with Emulator(board, firmware()) as emulator:
        assert emulator._process is not None
        pid = emulator._process.pid
        assert alive(pid)
        emulator.check()
    assert not alive(pid)
    emulator.close()
    with pytest.raises(EdgesnnError, match="is not running"):
        emulator.check()


@pytest.mark.usefixtures("emulator_program")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and prctl are Linux's")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_dies_with_its_parent(
    board: Board, firmware: Callable[..., Path], how: signal.Signals
) -> None:
    command = [sys.executable, "-c", HOLD, board.name, str(firmware())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, how)
        parent.wait(30)
    assert gone(pid)
