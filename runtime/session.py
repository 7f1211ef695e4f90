"""A session: one compiled model on the machine that runs it, whichever that is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from edgesnn.runtime.bundle import Bundle, StreamInfo
from edgesnn.runtime.engine import Decision, Engine, SignalEngine, TimedDecision, Trace
from edgesnn.runtime.host import HostEngine
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.ports import find_port
from edgesnn.runtime.serial_port import LinkLost
from edgesnn.targets.board import Board, Counter, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import find_target


class Session:
    """Opens a bundle and the engine that runs it; a context manager.

    bundle: a bundle or its folder. port: anything that pyserial's serial_for_url takes; a board
    that runs the bundle's firmware answers there. board: the board, by default the bundle's: it is
    emulated, started and stopped here, where no port is named; one that no emulator knows is looked
    for among the USB ports. A host bundle runs on this machine.

    say: told in one line each what happens to the link, and which port was found. stop: once it is
    set, by whichever thread, no request waits for the board any longer: LinkLost.

    Raises UsageError when bundle, board and port do not fit together, EdgesnnError when the
    machine fails.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        port: str | None = None,
        board: str | None = None,
        *,
        say: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
        self.board: Board | None = None
        self.emulated = False
        self._say, self._stop = say, stop
        self._stack = ExitStack()
        self._closed = False
        self.streams = 0  # begun so far; the engine has one at a time
        try:
            self.engine: Engine = self._start(port, board)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, port: str | None, board: str | None) -> Engine:
        bundle = self.bundle
        if bundle.manifest.get("protocol", "edgesnn") == "mlperf-tiny":
            raise UsageError(
                f"{bundle.path} holds firmware that speaks MLPerf Tiny's protocol; use `python -m "
                "edgesnn.mlperf_tiny`, or compile it without --protocol"
            )
        self.board = self._find_board(board)
        if find_target(bundle.target).kind == "host":
            if port is not None or board is not None:
                raise UsageError(
                    f"{bundle.path} is compiled for this machine ({bundle.target}), not a board; "
                    f"compile it with --board {board or 'NAME'}"
                )
            self.engine_name = "host"
            return self._stack.enter_context(HostEngine(bundle))
        if port is None:
            if self.board is None:
                raise UsageError(
                    f"{bundle.path} is compiled for {bundle.target} without a board; compile it with "
                    "--board NAME, or give the --port of a board that runs it"
                )
            if self.board.emulator is not None:
                return self._emulate(self.board)
            port = self._find_port(self.board)
        baud = self.board.uart.baud if self.board is not None else 115_200
        self.engine_name = f"board on {port}"
        link = LinkEngine(
            bundle, port, baud=baud, counter=self.counter, say=self._say, stop=self._stop
        )
        return self._stack.enter_context(link)

    def _find_board(self, name: str | None) -> Board | None:
        """The board of this name (or file), the bundle's own without one; None where neither says."""
        own = self.bundle.load_board()
        if name is None or (own is not None and name == own.name):
            return own
        named = load_board(name)
        if own is not None and named.name != own.name:
            raise UsageError(
                f"{self.bundle.path} holds firmware for board {own.name}, not {named.name}; "
                f"compile it with --board {name}"
            )
        return own or named

    def _find_port(self, board: Board) -> str:
        """The port of a board that only exists as a real one."""
        port = find_port(board)
        if port is None:
            raise UsageError(
                f"board {board.name} has no emulator, and none is found on a USB port; plug it in, or "
                "name its --port"
            )
        if self._say is not None:
            self._say(f"{board.name} is taken to be on {port}")
        return port

    def _emulate(self, board: Board) -> Engine:
        """Start an emulator with the bundle's firmware."""
        bundle = self.bundle
        if bundle.firmware is None:
            raise UsageError(
                f"{bundle.path} holds no firmware; compile it with --board {board.name}"
            )
        emulator = self._stack.enter_context(Emulator(board, bundle.firmware))
        self.emulated = True
        self.engine_name = f"emulated {board.name}"

        def watch() -> None:
            try:
                if self._stop is None or not self._stop.is_set():
                    emulator.check()
            except EdgesnnError as e:  # as lost as a board whose cable was pulled
                raise LinkLost(str(e)) from None

        link = LinkEngine(
            bundle,
            emulator.url,
            baud=board.uart.baud,
            reconnect=0.0,  # it does not come back
            counter=board.counter,
            watch=watch,
            silence=emulator.silence,
            say=self._say,
            stop=self._stop,
        )
        return self._stack.enter_context(link)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def counter(self) -> Counter | None:
        """What a tick of Decision.ticks is worth; None where only the wall clock measures."""
        return self.board.counter if self.board is not None else None

    @property
    def link_seconds(self) -> float | None:
        """Wall-clock seconds spent so far on moving data over the link; None without a link."""
        return self.engine.link_seconds if isinstance(self.engine, LinkEngine) else None

    def classify(self, sample: np.ndarray) -> Decision:
        """Run one sample of the input's shape and dtype; a missing channel axis is added."""
        return self._open_engine().infer(self.bundle.check_sample(sample))

    def trace(self, sample: np.ndarray) -> Trace:
        """Run one sample and keep every event of every node and step."""
        return self._open_engine().trace(self.bundle.check_sample(sample))

    def profile(self, sample: np.ndarray) -> Decision:
        """Run one sample node by node; `node_ticks` is None where nodes cannot be timed."""
        engine, sample = self._open_engine(), self.bundle.check_sample(sample)
        return engine.profile(sample) if isinstance(engine, LinkEngine) else engine.infer(sample)

    @property
    def stream(self) -> StreamInfo:
        """How a signal becomes inferences; UsageError where the model takes whole samples only."""
        if self.bundle.stream is None:
            raise UsageError(
                f"{self.bundle.name} takes whole samples, no signal; train it on a data set that is one "
                "(docs/STREAMING.md)"
            )
        return self.bundle.stream

    def start_stream(self) -> None:
        """Forget everything that was pushed: time 0."""
        self._signal_engine().start_stream()
        self.streams += 1

    def push(self, chunk: np.ndarray) -> list[TimedDecision]:
        """What falls while a chunk of the signal comes in; the shapes are those of `SignalEngine.push`."""
        return self._signal_engine().push(chunk)

    def advance(self, until: int) -> list[TimedDecision]:
        """Continuous mode: run every step that ends at or before `until` microseconds."""
        return self._signal_engine().advance(until)

    def stack_high_water(self) -> int | None:
        """Most bytes of stack in use at once since the board's reset; None on the host."""
        if isinstance(self.engine, LinkEngine):
            return self.engine.stack_high_water()
        return None

    def class_name(self, label: int) -> str:
        """The name of a class, its number where the bundle has no names."""
        names = self.bundle.class_names
        return names[label] if label < len(names) else str(label)

    def close(self) -> None:
        """Close the link and stop the emulator; may be called twice. Nothing can be asked afterwards."""
        self._closed = True
        self._stack.close()

    def _signal_engine(self) -> SignalEngine:
        engine, _ = self._open_engine(), self.stream
        return cast(SignalEngine, engine)

    def _open_engine(self) -> Engine:
        if self._closed:
            raise EdgesnnError(f"the session of {self.bundle.name} is closed; open another")
        return self.engine


def input_text(bundle: Bundle) -> str:
    """The input in words, for messages: "uint8 8x8x1"."""
    shape = "x".join(map(str, bundle.input_shape))
    if bundle.input_kind == "events":
        return f"events of {shape}, {bundle.timesteps} steps"
    return f"{bundle.input_dtype} {shape}"


def frame_shape(bundle: Bundle) -> tuple[int, ...]:
    """Shape of what one inference takes: (H, W, C), with T in front for an event input."""
    if bundle.input_kind == "events":
        return (bundle.timesteps, *bundle.input_shape)
    return tuple(bundle.input_shape)


def frame_dtype(bundle: Bundle) -> np.dtype:
    """Little-endian dtype of that array."""
    name = "uint8" if bundle.input_kind == "events" else bundle.input_dtype
    try:
        return np.dtype(name).newbyteorder("<")
    except TypeError:
        raise EdgesnnError(f"{bundle.path}: unknown input dtype {name!r}") from None
