"""A session: one compiled model on the machine that runs it, whichever that is."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from edgesnn.runtime.bundle import Bundle, StreamInfo
from edgesnn.runtime.engine import Decision, Engine, SignalEngine, TimedDecision, Trace
from edgesnn.runtime.host import HostEngine
from edgesnn.runtime.link import LinkEngine
from edgesnn.targets.board import Board, Counter, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import find_target


class Session:
    """Opens a bundle and the engine that runs it; a context manager.

    bundle: a bundle or its folder. port: anything that pyserial's serial_for_url takes; a board
    that runs the bundle's firmware answers there. board: the board to emulate; it is started and
    stopped here. With neither, a host bundle runs on this machine and a bundle with a board's
    firmware on that board, emulated.

    Raises UsageError when bundle, board and port do not fit together, EdgesnnError when the
    machine fails.
    """

    def __init__(
        self, bundle: Bundle | Path | str, port: str | None = None, board: str | None = None
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
        self.board: Board | None = None
        self.emulated = False
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
        name = board or bundle.board
        if name is not None:
            self.board = load_board(name)
        if bundle.board is not None and board is not None and board != bundle.board:
            raise UsageError(
                f"{bundle.path} holds firmware for board {bundle.board}, not {board}; "
                f"compile it with --board {board}"
            )
        if find_target(bundle.target).kind == "host":
            if port is not None or board is not None:
                raise UsageError(
                    f"{bundle.path} is compiled for this machine ({bundle.target}), not a board; "
                    f"compile it with --board {board or 'NAME'}"
                )
            self.engine_name = "host"
            return self._stack.enter_context(HostEngine(bundle))
        if port is not None:
            baud = self.board.uart.baud if self.board is not None else 115_200
            self.engine_name = f"board on {port}"
            link = LinkEngine(bundle, port, baud=baud, counter=self.counter)
            return self._stack.enter_context(link)
        if self.board is None:
            raise UsageError(
                f"{bundle.path} is compiled for {bundle.target} without a board; compile it with "
                "--board NAME, or give the --port of a board that runs it"
            )
        if bundle.firmware is None:
            raise UsageError(
                f"{bundle.path} holds no firmware; compile it with --board {self.board.name}"
            )
        emulator = self._stack.enter_context(Emulator(self.board, bundle.firmware))
        self.emulated = True
        self.engine_name = f"emulated {self.board.name}"
        link = LinkEngine(
            bundle,
            emulator.url,
            baud=self.board.uart.baud,
            counter=self.board.counter,
            watch=emulator.check,
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
