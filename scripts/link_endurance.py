"""A long run over a bad link: samples are compared with the interpreter, and counted.

An emulated board runs zoo:digits behind a port that alters, drops and doubles bytes both ways; now and then
QEMU is killed and started again, every other time with the port closed meanwhile. Exit code 1 unless every
sample was answered once and rightly. The options are 10,000 samples, 1 % of bytes altered and 20 kills.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import numpy as np

from edgesnn.compiler.compare import decision_difference
from edgesnn.runtime.engine import Decision
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator


class Wire:
    """Alters, drops or doubles each byte with these probabilities; `harm` counts the bytes."""

    def __init__(
        self, corrupt: float = 0.0, drop: float = 0.0, double: float = 0.0, seed: int = 0
    ) -> None:
        self.bytes = self.harm = 0
        self._limits = corrupt, corrupt + drop, corrupt + drop + double
        self._random = random.Random(seed)

    def __call__(self, data: bytes) -> bytes:
        altered, dropped, doubled = self._limits
        self.bytes += len(data)
        out = bytearray()
        for byte in data:
            dice = self._random.random()
            self.harm += dice < doubled
            if dice < altered:
                out.append(byte ^ self._random.randrange(1, 256))
            elif dice >= dropped:
                out += bytes([byte, byte] if dice < doubled else [byte])
        return bytes(out)


@contextlib.contextmanager
def emulated(board: Board, elf: Path) -> Iterator[tuple[socket.socket, int]]:
    """The end of an emulated board's line, and the process that is the board."""
    with Emulator(board, elf) as emulator:
        assert emulator._process is not None
        where = urlsplit(emulator.url)
        with socket.create_connection((where.hostname or "", where.port or 0)) as line:
            yield line, emulator._process.pid


class Relay:
    """A port that stays, at `url`, with a board behind it that is killed and starts again.

    start: the board's line and process, as `emulated` gives them. wire: what becomes of the bytes, both ways.
    """

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[tuple[socket.socket, int]]],
        wire: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._start, self._wire = start, wire
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self.kills = 0
        self._pid = 0
        self._host: socket.socket | None = None
        self._stop = self._unplug = False
        self._up, self._killing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop = True
        self._thread.join()
        self._server.close()

    def kill(self, unplug: bool = False) -> None:
        """End the board at once, as if it lost its power; unplug: the port closes too."""
        with self._killing:
            self._up.wait()
            self._up.clear()
            self._unplug = unplug
            os.kill(self._pid, signal.SIGKILL)
            self.kills += 1

    def _run(self) -> None:
        while not self._stop:
            with self._start() as (board, self._pid):
                self._up.set()
                self._carry(board)
            if self._unplug:
                self._leave()
            self._unplug = False
        self._leave()

    def _leave(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None

    def _carry(self, board: socket.socket) -> None:
        """Carry bytes until the board has gone."""
        while not self._stop:
            ends = [self._server, board, *([self._host] if self._host is not None else [])]
            ready, _, _ = select.select(ends, [], [], 0.2)
            if self._server in ready:
                self._leave()
                self._host = self._server.accept()[0]
                self._host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            elif self._host in ready:
                data = self._heard(self._host)
                if not data:
                    self._leave()
                with contextlib.suppress(ConnectionError):
                    board.sendall(self._wire(data))
            if board in ready:
                data = self._heard(board)
                if not data:
                    return
                if self._host is not None:
                    with contextlib.suppress(ConnectionError):
                        self._host.sendall(self._wire(data))

    @staticmethod
    def _heard(end: socket.socket) -> bytes:
        """What has come, nothing from who has gone."""
        try:
            return end.recv(4096)
        except ConnectionError:
            return b""


def run(
    engine: LinkEngine,
    relay: Relay,
    samples: np.ndarray,
    kills: int,
    seed: int = 0,
    count: Callable[[int], None] | None = None,
) -> list[Decision]:
    """The answer to each sample; in so many of them the board is killed at a random moment."""
    dice = random.Random(seed)
    moments = sorted(dice.sample(range(len(samples)), kills))
    out: list[Decision] = []
    killers: list[threading.Timer] = []
    for i, sample in enumerate(samples):
        if moments and moments[0] == i:
            moments.pop(0)
            timer = threading.Timer(0.02 * dice.random(), relay.kill, [len(moments) % 2 == 0])
            timer.start()
            killers.append(timer)
        out.append(engine.infer(sample))
        if count is not None:
            count(i + 1)
    for timer in killers:
        timer.join()
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--corrupt", type=float, default=0.01, help="share of bytes altered")
    parser.add_argument("--drop", type=float, default=0.0, help="share of bytes dropped")
    parser.add_argument("--double", type=float, default=0.0, help="share of bytes doubled")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--board", default="mps2-an386")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 0 <= options.kills <= options.samples:
        parser.error("--kills are in different samples: from 0 to as many as --samples")

    from edgesnn import api
    from edgesnn.compiler.build import compile_program
    from edgesnn.compiler.interpret import Interpreter
    from edgesnn.data import load

    program = api.load_program("zoo:digits")
    x = np.concatenate([load("digits", split, None).x for split in ("test", "train")])
    reference = Interpreter(program)
    want = [reference.infer(sample) for sample in x[: options.samples]]
    order = np.arange(options.samples) % len(x)
    board = load_board(options.board)
    wire = Wire(options.corrupt, options.drop, options.double, options.seed)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_program(program, board=board.name, out=Path(folder) / "bundle")
        assert bundle.firmware is not None
        with (
            Relay(partial(emulated, board, bundle.firmware), wire) as relay,
            LinkEngine(bundle, relay.url, baud=board.uart.baud, say=lines.append) as engine,
        ):
            start = time.monotonic()

            def count(done: int) -> None:
                if done % 500 == 0:
                    print(f"{done} {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

            got = run(engine, relay, x[order], options.kills, options.seed, count)
            seconds = time.monotonic() - start
    wrong = sum(
        decision_difference(want[k], d) is not None for k, d in zip(order, got, strict=True)
    )
    print(f"samples      {len(got)}, {wrong} wrong, {seconds:.0f} s")
    print(f"bytes        {wire.bytes}, {wire.harm} harmed ({wire.harm / wire.bytes:.2%})")
    print(f"board        {relay.kills} kills, {engine.restarts} samples again")
    print(f"port         {engine.reconnects} times gone and back")
    print(f"frames       {engine.damaged} unreadable, {engine.resent} sent again")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
