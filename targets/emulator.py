"""A board emulated by QEMU, its UART behind a TCP port on this machine."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from edgesnn.targets.board import BOARDS_DIR, Board
from edgesnn.targets.errors import EdgesnnError, UsageError

_LAST_WORDS = 1.0  # seconds
# Its own name, with a path or without, begins what QEMU says; a dump of registers or advice may follow.
_SAID = re.compile(r"^(\S*/)?qemu[\w-]*: |Lockup|fatal|unsupported machine")


# A process that asks to be killed with the thread it is from (PR_SET_PDEATHSIG is 1), then becomes the
# program. A parent that ended before that is not told of it: it ends by itself.
_GUARD = """
import ctypes, os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2]
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
try:
    os.execv(program, sys.argv[2:])
except OSError as e:
    sys.exit(f"cannot run {program}: {e.strerror}")
"""


def _guarded(command: list[str]) -> list[str]:
    """The command as a process that does not outlive the thread that starts it (on Linux).

    Not by Popen's preexec_fn: other threads may be at work here, and none of their locks may be needed
    between fork and exec.
    """
    if not sys.platform.startswith("linux") or not sys.executable:
        return command
    return [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command]


class Emulator:
    """Runs `elf` on `board` from `with` to its end; the serial link is at `url`.

    The port is opened here and handed to QEMU, so that it is never another's, never not yet open.
    QEMU waits for the first connection before the processor starts: the banner is not lost. It is
    killed at the end of `with`, on Ctrl-C, and when this process or the thread that started it
    ends, in whatever way. Errors: EdgesnnError (no emulator installed, no such image, QEMU gave up),
    UsageError (the board has no emulator).
    """

    def __init__(self, board: Board, elf: Path | str) -> None:
        if board.emulator is None:
            raise UsageError(f"board {board.name} has no emulator; connect one and name its --port")
        self.board = board
        self.elf = Path(elf)
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start QEMU; `url` is valid from then on. EdgesnnError where it runs already."""
        spec = self.board.emulator
        assert spec is not None
        if self._process is not None:
            raise EdgesnnError(f"the emulator of {self.board.name} runs already; close it first")
        program = shutil.which(spec.program)
        if program is None:
            raise EdgesnnError(
                f"{spec.program} is not on PATH; run `apt-get install -y {spec.package}`"
            )
        try:
            with self.elf.open("rb") as f:
                magic = f.read(4)
        except OSError as e:
            raise EdgesnnError(f"cannot read firmware {self.elf}: {e.strerror or e}") from None
        if magic != b"\x7fELF":
            raise EdgesnnError(f"firmware {self.elf} is not an ELF file; compile the bundle again")
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = server.fileno()
            # A mux keeps 32 received bytes ready for the UART's one-byte buffer, which halves the
            # time on the link. Its escape character is set to one that no byte can be.
            chardev = f"socket,id=link,fd={fd},server=on,wait=on,nodelay=on,mux=on"
            command = [program, *spec.args, "-display", "none", "-nodefaults", "-monitor", "none"]
            command += ["-chardev", chardev, "-echr", "0x100", "-serial", "chardev:link"]
            command = _guarded([*command, "-kernel", str(self.elf)])
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            try:
                # A session of its own: Ctrl-C reaches this process alone, which ends both in order.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self._stderr,
                    stderr=self._stderr,
                    pass_fds=(fd,),
                    start_new_session=True,
                )
            except BaseException as e:
                self.close()
                if isinstance(e, (OSError, subprocess.SubprocessError)):
                    why = getattr(e, "strerror", None) or e
                    raise EdgesnnError(f"cannot run {command[0]}: {why}") from None
                raise
            self.url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        atexit.register(self.close)

    def check(self) -> None:
        """Raise EdgesnnError with what QEMU said last of itself when it has ended."""
        if self._process is None or self._stderr is None:
            raise EdgesnnError(f"the emulator of {self.board.name} is not running")
        try:
            # A broken link may be noticed a moment before the end of the process.
            code: int | None = self._process.wait(timeout=_LAST_WORDS)
        except subprocess.TimeoutExpired:
            code = None
        if code is not None:
            self._stderr.seek(0)
            said = self._stderr.read().decode(errors="replace").splitlines()
            said = [line for line in said if line and not re.search(r" (warning|info): ", line)]
            told = [line for line in said if _SAID.search(line)]
            last = (told or said or [f"exit status {code}"])[-1]
            raise EdgesnnError(f"the emulator of {self.board.name} has stopped: {last}")

    @property
    def silence(self) -> str:
        """What it means that firmware on it has never answered, and what to do."""
        name = self.board.name
        text = f"the firmware on the emulated {name} says nothing"
        if (BOARDS_DIR / f"{name}.toml").is_file():
            return f"{text}; compile the bundle again"
        return f"{text}; check uart.base and uart.irq in its board file"

    def close(self) -> None:
        """Kill QEMU and wait for its end; may be called twice."""
        atexit.unregister(self.close)
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()
        if process is not None:
            process.wait()
        if self._stderr is not None:
            self._stderr.close()
