"""A pool: several boards that run one bundle share the samples among them."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.serial_port import LinkLost
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError

LOOK_AHEAD = 32  # samples per board that may be at work or done before the next result in order
_LAST_MOMENT = 2.0  # seconds that closing waits for a board in the middle of a request
_LEFT = 60.0  # seconds that `sessions` waits for samples of a map that nobody waits for any more

Say = Callable[[str], None]
Place = tuple[str | None, str | None]  # port, board
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Share:
    """What one board did: samples of the last `map`, and what its link went through since it was opened.

    resent: frames sent again. damaged: frames that came or arrived there unreadable. restarts: samples begun
    again, as the board was reset. reconnects: times its port was gone and came back.
    """

    name: str
    samples: int
    resent: int = 0
    damaged: int = 0
    restarts: int = 0
    reconnects: int = 0


@dataclass
class _Member:
    """One board of a pool. lost: it answers no more.

    thread: with several boards, the one that opens the session, asks it while busy, and closes it.
    """

    name: str
    place: Place
    session: Session | None = None
    thread: threading.Thread | None = None
    samples: int = 0
    busy: bool = False
    lost: bool = False

    def opened(self) -> Session:
        assert self.session is not None
        return self.session


@dataclass
class _Round(Generic[S]):
    """One `map`: what is still to be done."""

    function: Callable[[Session, S], Any]
    tasks: deque[tuple[int, S]] = field(default_factory=deque)


@dataclass
class _Answer:
    """What a board made of a sample, or why it did not; of no round: its session is open, the pool closed."""

    member: _Member
    round: _Round[Any] | None = None
    index: int = 0
    result: Any = None
    error: BaseException | None = None


class Pool:
    """Opens a bundle on several boards at once, a Session and a thread each; a context manager.

    ports, boards: as `places` matches them. With at most one of them it is a Session and nothing else: no
    thread. say is told in one line each what a session tells, and which board was lost.

    Raises what Session raises, with the name of the board where there are several.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        ports: Sequence[str] = (),
        boards: Sequence[str] = (),
        *,
        say: Say | None = None,
    ) -> None:
        found = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
        members = [
            _Member(port or board or "", (port, board)) for port, board in places(ports, boards)
        ]
        self._prepare(found, members, say)
        try:
            if len(members) == 1:
                port, board = members[0].place
                members[0].session = Session(found, port, board, say=say)
            else:
                self._open_all()
        except BaseException:
            self.close()
            raise
        self._name()

    @classmethod
    def of(cls, session: Session) -> Pool:
        """The pool of a session that is open already."""
        pool = cls.__new__(cls)
        pool._prepare(session.bundle, [_Member("", (None, None), session)], None)
        pool._name()
        return pool

    def _prepare(self, bundle: Bundle, members: list[_Member], say: Say | None) -> None:
        self.bundle = bundle
        self.engine_name = ""  # what runs the samples: "emulated microbit", "2 x emulated microbit"
        self._members, self._say = members, say
        self._talk = threading.Lock()
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        # Guards what follows, and busy, lost of the members. It wakes all: boards' threads wait for samples,
        # `sessions` for the boards.
        self._changed = threading.Condition()
        self._round: _Round[Any] | None = None
        self._closed = False
        self._stop = threading.Event()

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Of every board that is not lost. Ask them nothing while a `map` is under way.

        After a `map` that was left or failed: once each is done with the sample that it was at.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._round is not None or not self._at_work(), _LEFT)
            late = self._at_work() if self._round is None else []
            if late:
                raise EdgesnnError(
                    f"{late[0].name} is still at a sample of a map that was left; wait, or open another pool"
                )
            return tuple(member.opened() for member in self._members if not member.lost)

    @property
    def link_seconds(self) -> float | None:
        """Seconds spent so far on moving data, of all links; None without a link."""
        found = [member.opened().link_seconds for member in self._members]
        seconds = [one for one in found if one is not None]
        return sum(seconds) if seconds else None

    def shares(self) -> list[Share]:
        """What each board did."""
        return [_share(member) for member in self._members]

    def map(
        self, function: Callable[[Session, S], R], samples: Iterable[S]
    ) -> Generator[R, None, None]:
        """function(session, sample) of every sample, in their order, each exactly once.

        Whichever board is free takes the next sample; at most LOOK_AHEAD per board are drawn ahead. A board
        that is lost hands its sample back to the others; LinkLost is raised when the last of them is. Any
        other error of one board ends it, and so does `close`. One map at a time: EdgesnnError while the
        results of another are not all taken.
        """
        if len(self._members) > 1:
            yield from self._share_out(function, samples)
            return
        only = self._members[0]
        only.samples = 0
        for sample in samples:
            result = function(only.opened(), sample)
            only.samples += 1
            yield result

    def close(self) -> None:
        """Close every session; may be called twice. Nothing can be asked afterwards."""
        self._stop.set()
        with self._changed:
            self._closed, self._round = True, None
            self._changed.notify_all()
        self._answers.put(_Answer(self._members[0]))  # wakes a map that waits for one
        end = time.monotonic() + _LAST_MOMENT
        for member in self._members:
            if member.thread is not None:  # which closes its session itself
                member.thread.join(max(0.0, end - time.monotonic()))
            elif member.session is not None:
                member.session.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _name(self) -> None:
        """Name every board as its session does, equal ones with a number; and all of them together."""
        names = [member.opened().engine_name for member in self._members]
        for i, member in enumerate(self._members):
            same = names.count(names[i]) > 1
            member.name = f"{names[i]} ({names[: i + 1].count(names[i])})" if same else names[i]
        alike = len(names) > 1 and len(set(names)) == 1
        self.engine_name = f"{len(names)} x {names[0]}" if alike else ", ".join(names)

    # --- several boards -------------------------------------------------------------------------

    def _open_all(self) -> None:
        """Start every session, each in its own thread: an emulator ends with the thread that started it."""
        for i, member in enumerate(self._members):
            # A daemon: a board that does not answer keeps nobody from leaving.
            member.thread = threading.Thread(
                target=self._serve, args=(member,), name=f"board {i + 1}", daemon=True
            )
            member.thread.start()
        for _ in self._members:
            answer = self._answers.get()
            if answer.error is not None:
                raise _named(answer.member, answer.error)

    def _serve(self, member: _Member) -> None:
        """The thread of one board, from before its session to after it."""
        port, board = member.place
        try:
            member.session = Session(
                self.bundle, port, board, say=lambda text: self._tell(member, text), stop=self._stop
            )
        except BaseException as e:
            self._answers.put(_Answer(member, error=e))
            return
        with member.session as session:
            self._answers.put(_Answer(member))
            while not member.lost and (task := self._next_task(member)) is not None:
                round, index, sample = task
                answer = _Answer(member, round, index)
                try:
                    answer.result = round.function(session, sample)
                except BaseException as e:
                    answer.error = e
                with self._changed:
                    member.busy = False
                    if isinstance(answer.error, LinkLost):  # the others do its sample
                        member.lost = True
                        round.tasks.appendleft((index, sample))
                    self._changed.notify_all()
                self._answers.put(answer)

    def _next_task(self, member: _Member) -> tuple[_Round[Any], int, Any] | None:
        """Wait for a sample; None when the pool closes."""
        with self._changed:
            while not self._closed:
                if self._round is not None and self._round.tasks:
                    member.busy = True
                    return self._round, *self._round.tasks.popleft()
                self._changed.wait()
        return None

    def _at_work(self) -> list[_Member]:
        return [member for member in self._members if member.busy]

    def _check_open(self) -> None:
        if self._closed:
            raise EdgesnnError(f"the pool of {self.bundle.name} is closed; open another")

    def _share_out(
        self, function: Callable[[Session, S], R], samples: Iterable[S]
    ) -> Generator[R, None, None]:
        round = _Round(function)
        with self._changed:
            self._check_open()
            if self._round is not None:
                raise EdgesnnError(
                    f"the pool of {self.bundle.name} does one map at a time; take all results of the other "
                    "first, or close() it"
                )
            self._round = round
        for member in self._members:
            member.samples = 0
        room = LOOK_AHEAD * len(self._members)
        feed = enumerate(samples)
        done: dict[int, R] = {}
        drawn = given = 0
        try:
            self._check_alive(None)
            while True:
                while drawn - given < room and (task := next(feed, None)) is not None:
                    drawn += 1
                    with self._changed:
                        round.tasks.append(task)
                        self._changed.notify_all()
                if given == drawn:
                    return
                if given in done:
                    yield done.pop(given)
                    given += 1
                    continue
                answer = self._answers.get()
                with self._changed:
                    self._check_open()
                if isinstance(answer.error, LinkLost):  # whichever round it was at
                    self._check_alive(answer)
                elif answer.round is not round:
                    continue
                elif answer.error is None:
                    answer.member.samples += 1
                    done[answer.index] = answer.result
                else:
                    raise _named(answer.member, answer.error)
        finally:
            with self._changed:
                if self._round is round:
                    self._round = None  # what is at work ends for nobody

    def _check_alive(self, loss: _Answer | None) -> None:
        """Say which board was lost; raise where none is left."""
        left = sum(not member.lost for member in self._members)
        if left == 0:
            if loss is None or loss.error is None:
                raise LinkLost("every board was lost; open another pool")
            raise _named(loss.member, loss.error)
        if loss is not None:
            others = "the other goes on" if left == 1 else f"the other {left} go on"
            self._tell(loss.member, f"lost, {others}: {loss.error}")

    def _tell(self, member: _Member, text: str) -> None:
        if self._say is not None:
            with self._talk:
                self._say(f"{member.name}: {text}")


def places(ports: Sequence[str], boards: Sequence[str]) -> list[Place]:
    """(port, board) of each session, in order; with neither, one that the bundle chooses.

    A board is what is on the port in its place; a single one is on every port. Boards beyond the ports are
    emulated. UsageError where a port is named twice, or it is unclear which board is on it.
    """
    for names in (ports, boards):
        if isinstance(names, str):
            raise UsageError(f"ports and boards are lists of names: [{names!r}], not {names!r}")
    twice = next((port for i, port in enumerate(ports) if port in ports[:i]), None)
    if twice is not None:
        raise UsageError(f"--port {twice} is named twice; a port has one board")
    if len(boards) == 1 and ports:
        return [(port, boards[0]) for port in ports]
    if 1 < len(boards) < len(ports):
        raise UsageError(
            f"{len(ports)} ports and {len(boards)} boards: name one --board for all ports, or one for each"
        )
    count = max(len(ports), len(boards), 1)
    return [
        (ports[i] if i < len(ports) else None, boards[i] if i < len(boards) else None)
        for i in range(count)
    ]


def as_pool(boards: Session | Pool) -> Pool:
    """A pool as it is, a session as a pool of one."""
    return boards if isinstance(boards, Pool) else Pool.of(boards)


def _share(member: _Member) -> Share:
    engine = member.opened().engine
    if not isinstance(engine, LinkEngine):
        return Share(member.name, member.samples)
    counts = (engine.resent, engine.damaged, engine.restarts, engine.reconnects)
    return Share(member.name, member.samples, *counts)


def _named(member: _Member, error: BaseException) -> BaseException:
    """The error with the board's name, where it is of the board and does not say it."""
    text, (port, _) = str(error), member.place
    own = isinstance(error, EdgesnnError) and not isinstance(error, UsageError)
    if not own or member.name in text or (port and port in text):
        return error
    return type(error)(f"{member.name}: {text}") if member.name else error
