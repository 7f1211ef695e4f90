"""A pool: samples shared among boards, each answered once and in order, whatever becomes of a board."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import pytest

from edgesnn import evaluate, profiling
from edgesnn.compiler.compare import decision_difference
from edgesnn.compiler.esnn_file import load_bundle_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.runtime import pool as pools
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.pool import LOOK_AHEAD, Pool, places
from edgesnn.runtime.serial_port import LinkLost
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm"
)
BOARD = "mps2-an386"


class Fake:
    """A session whose board squares numbers. `at` says what happens to a board (its port) at a sample."""

    at: Callable[[str, int], None]
    open: list[Fake]

    def __init__(self, bundle: Bundle, port: str, board: str | None, **options: Any) -> None:
        self.bundle, self.port, self.options = bundle, port, options
        self.engine_name, self.engine, self.link_seconds = f"board on {port}", None, None
        self.done = 0
        type(self).at(port, -1)
        type(self).open.append(self)

    def square(self, number: int) -> int:
        type(self).at(self.port, self.done)
        time.sleep(0.001)  # so that each board comes to its turn
        self.done += 1
        return number * number

    def close(self) -> None:
        type(self).open.remove(self)

    def __enter__(self) -> Fake:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def square(session: Any, number: int) -> int:
    return int(session.square(number))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    before = threading.active_count()
    monkeypatch.setattr(pools, "Session", Fake)
    monkeypatch.setattr(Fake, "open", [], raising=False)
    monkeypatch.setattr(Fake, "at", lambda port, done: None, raising=False)
    yield Fake
    assert Fake.open == []
    assert threading.active_count() == before


def fails(errors: Mapping[tuple[str, int], EdgesnnError]) -> Any:
    """For Fake.at: what a board raises at its so manieth sample (-1: when it is opened)."""

    def at(port: str, done: int) -> None:
        if (port, done) in errors:
            raise errors[port, done]

    return at


def test_places() -> None:
    assert places([], []) == [(None, None)]
    assert places(["a"], ["x"]) == [("a", "x")]
    assert places(["a", "b"], []) == [("a", None), ("b", None)]
    assert places(["a", "b"], ["x"]) == [("a", "x"), ("b", "x")]
    assert places(["a", "b"], ["x", "y"]) == [("a", "x"), ("b", "y")]
    assert places([], ["x", "x"]) == [(None, "x"), (None, "x")]
    assert places(["a"], ["x", "x"]) == [("a", "x"), (None, "x")]
    with pytest.raises(UsageError, match="--port a is named twice"):
        places(["a", "b", "a"], [])
    with pytest.raises(UsageError, match="3 ports and 2 boards: name one --board for all"):
        places(["a", "b", "c"], ["x", "y"])
    for names in (("COM3", ["x"]), (["COM3"], "x")):
        with pytest.raises(UsageError, match=r"are lists of names: \['(COM3|x)'\], not"):
            places(*names)


def test_each_once_in_order_and_the_faster_does_more(
    fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"a": 0.0, "b": 0.003, "c": 0.03}
    monkeypatch.setattr(fake, "at", lambda port, done: time.sleep(slow[port]))
    drawn = 0

    def samples() -> Iterator[int]:
        nonlocal drawn
        while drawn < 500:
            drawn += 1
            yield drawn

    with Pool(host_bundle, ["a", "b", "c"]) as pool:
        given = []
        for result in pool.map(square, samples()):
            given.append(result)
            assert drawn - len(given) < 3 * LOOK_AHEAD
        shares = [share.samples for share in pool.shares()]
    assert given == [n * n for n in range(1, 501)]
    assert sum(shares) == 500 and shares[0] > shares[1] > shares[2] > 0
    assert [share.name for share in pool.shares()] == [f"board on {name}" for name in "abc"]
    assert pool.engine_name == "board on a, board on b, board on c"


def test_a_lost_board_hands_its_sample_back(
    fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {("a", 3): LinkLost("gone"), ("c", 7): LinkLost("gone, too")}
    monkeypatch.setattr(fake, "at", fails(lost))
    said: list[str] = []
    with Pool(host_bundle, ["a", "b", "c"], say=said.append) as pool:
        assert list(pool.map(square, range(300))) == [n * n for n in range(300)]
        assert [share.samples for share in pool.shares()] == [3, 290, 7]
        assert len(pool.sessions) == 1
        # What is left goes on.
        assert list(pool.map(square, range(10))) == [n * n for n in range(10)]
    assert len(said) == 2
    assert "board on a: lost, the other" in said[0] + said[1] and ": gone, too" in said[0] + said[1]
    assert said[1].partition(": ")[2].startswith("lost, the other goes on: gone")


def test_all_lost(fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {("a", 3): LinkLost("gone"), ("b", 4): LinkLost("gone")}
    monkeypatch.setattr(fake, "at", fails(lost))
    given = []
    with Pool(host_bundle, ["a", "b"]) as pool:
        with pytest.raises(LinkLost, match=r"^board on [ab]: gone$"):
            given += list(pool.map(square, range(300)))
        with pytest.raises(LinkLost, match="every board was lost"):
            next(pool.map(square, range(300)))


@pytest.mark.parametrize("text", ["the firmware has crashed", "the board on b crashed"])
def test_any_other_error_ends_it_by_name(
    fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(fake, "at", fails({("b", 4): EdgesnnError(text)}))
    with Pool(host_bundle, ["a", "b"]) as pool, pytest.raises(EdgesnnError) as e:
        list(pool.map(square, range(1000)))
    assert str(e.value) == (text if "on b" in text else f"board on b: {text}")


def test_an_error_of_the_function_is_left_as_it_is(fake: type[Fake], host_bundle: Bundle) -> None:
    def divide(session: Session, number: int) -> int:
        return 1 // number

    with Pool(host_bundle, ["a", "b"]) as pool, pytest.raises(ZeroDivisionError):
        list(pool.map(divide, [1, 2, 0, 3]))


@pytest.mark.parametrize("kind", [UsageError, EdgesnnError, LinkLost])
def test_all_must_open(
    fake: type[Fake],
    host_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[EdgesnnError],
) -> None:
    monkeypatch.setattr(fake, "at", fails({("b", -1): kind("no power")}))
    with pytest.raises(kind) as e:
        Pool(host_bundle, ["a", "b", "c"])
    assert str(e.value) == ("no power" if kind is UsageError else "b: no power")


def test_a_map_that_is_left_leaves_nothing_to_the_next(
    fake: type[Fake], host_bundle: Bundle
) -> None:
    with Pool(host_bundle, ["a", "b"]) as pool:
        first = pool.map(square, range(1000))
        assert [next(first), next(first)] == [0, 1]
        first.close()
        assert list(pool.map(square, range(100, 200))) == [n * n for n in range(100, 200)]
        assert sum(share.samples for share in pool.shares()) == 100
        assert list(pool.map(square, [])) == []
    pool.close()
    with pytest.raises(EdgesnnError, match="is closed; open another"):
        next(pool.map(square, [1]))


def test_a_loss_after_its_map_was_left_is_not_forgotten(
    fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def at(port: str, done: int) -> None:
        if done >= 1:
            go.wait(10)
            raise LinkLost("gone")

    monkeypatch.setattr(fake, "at", at)
    with Pool(host_bundle, ["a", "b"]) as pool:
        first = pool.map(square, range(100))
        next(first)
        first.close()
        second = pool.map(square, range(100))  # both are still at the first
        threading.Timer(0.1, go.set).start()
        with pytest.raises(LinkLost, match="gone"):
            list(second)


def within(seconds: float, do: Callable[[], object]) -> object:
    """What `do` gives in a thread of its own, or the error that ends it; no answer: it hangs."""
    made: list[object] = []

    def run() -> None:
        try:
            made.append(do())
        except Exception as e:
            made.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert made, "it hangs"
    return made[0]


def test_a_map_ends_with_its_pool(fake: type[Fake], host_bundle: Bundle) -> None:
    with Pool(host_bundle, ["a", "b"]) as pool:
        results = pool.map(square, range(1000))
        assert next(results) == 0
    error = within(5, lambda: list(results))
    assert isinstance(error, EdgesnnError) and "is closed; open another" in str(error)


def test_a_map_that_waits_is_woken_when_its_pool_closes(
    fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, asked = threading.Event(), threading.Semaphore(0)

    def at(port: str, done: int) -> None:
        if done >= 0:
            asked.release()
            go.wait(10)

    monkeypatch.setattr(fake, "at", at)
    monkeypatch.setattr(pools, "_LAST_MOMENT", 0.1)
    pool = Pool(host_bundle, ["a", "b"])

    def close() -> None:
        asked.acquire(timeout=5)
        asked.acquire(timeout=5)
        pool.close()

    closer = threading.Thread(target=close)
    closer.start()
    try:
        error = within(5, lambda: list(pool.map(square, range(10))))
    finally:
        closer.join()
        go.set()
        for member in pool._members:
            assert member.thread is not None
            member.thread.join(5)
    assert isinstance(error, EdgesnnError) and "is closed; open another" in str(error)


def test_one_map_at_a_time(fake: type[Fake], host_bundle: Bundle) -> None:
    with Pool(host_bundle, ["a", "b"]) as pool:
        first = pool.map(square, range(200))
        assert next(first) == 0
        with pytest.raises(EdgesnnError, match=r"one map at a time; .* or close\(\) it"):
            next(pool.map(square, range(5)))
        assert within(5, lambda: list(first)) == [n * n for n in range(1, 200)]
        assert sum(share.samples for share in pool.shares()) == 200
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("how", ["left", "failed"])
def test_sessions_are_given_out_when_their_boards_are_done(
    fake: type[Fake], host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    go, at_work = threading.Event(), threading.Event()

    def at(port: str, done: int) -> None:
        if done == 1 and port == "b":
            at_work.set()
            go.wait(10)
        elif done == 1 and how == "failed":
            at_work.wait(5)
            raise EdgesnnError("it is broken")

    monkeypatch.setattr(fake, "at", at)
    with Pool(host_bundle, ["a", "b"]) as pool:
        results = pool.map(square, range(100))
        if how == "left":
            assert next(results) == 0
            assert at_work.wait(5)
            results.close()
        else:
            with pytest.raises(EdgesnnError, match="it is broken"):
                list(results)
        with monkeypatch.context() as short:
            short.setattr(pools, "_LEFT", 0.1)
            with pytest.raises(EdgesnnError, match="board on b is still at a sample"):
                pool.sessions  # noqa: B018
        threading.Timer(0.1, go.set).start()
        assert len(pool.sessions) == 2
        assert go.is_set() and not any(member.busy for member in pool._members)


def test_one_board_has_no_thread(fake: type[Fake], host_bundle: Bundle) -> None:
    def where(session: Session, number: int) -> threading.Thread:
        return threading.current_thread()

    with Pool(host_bundle, ["a"]) as pool:
        assert set(pool.map(where, [1, 2])) == {threading.main_thread()}
        assert pool.shares()[0].samples == 2


def test_what_a_session_says_bears_its_name(fake: type[Fake], host_bundle: Bundle) -> None:
    said: list[str] = []

    def tell(session: Any, number: int) -> None:
        session.options["say"]("reset; the sample is done again")

    with Pool(host_bundle, ["a", "b"], say=said.append) as pool:
        list(pool.map(tell, [1]))
    assert said[0].startswith("board on ") and said[0].endswith(": reset; the sample is done again")


def test_only_boards_of_one_kind_are_profiled_together() -> None:
    def session(name: str, unit: str) -> SimpleNamespace:
        return SimpleNamespace(board=SimpleNamespace(name=name), counter=SimpleNamespace(unit=unit))

    def pool(*sessions: SimpleNamespace) -> Any:
        return SimpleNamespace(sessions=sessions)

    check = profiling.profile.__globals__["_check_alike"]
    check(pool(session("x", "cycles"), session("x", "cycles")))
    with pytest.raises(UsageError, match="x and y are two: profile one after the other"):
        check(pool(session("x", "cycles"), session("y", "cycles")))
    with pytest.raises(UsageError, match="the one in cycles, the other in instructions"):
        check(pool(session("x", "cycles"), session("y", "instructions")))


def test_a_pool_closes_at_once_though_its_boards_are_silent(board_bundle: Bundle) -> None:
    pytest.importorskip("serial")
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ports = [f"socket://127.0.0.1:{server.getsockname()[1]}" for server in (a, b)]

        main = threading.get_ident()

        def interrupt() -> None:
            time.sleep(0.5)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Pool(board_bundle, ports)
    assert time.monotonic() - began < 2
    assert threading.active_count() == before


# --- emulated boards ----------------------------------------------------------------------------


def emulators() -> set[int]:
    """Processes of QEMU that this one has started."""
    mine = set()
    for task in Path("/proc/self/task").iterdir():
        mine |= {int(pid) for pid in (task / "children").read_text().split()}
    names = {pid: Path(f"/proc/{pid}/comm") for pid in mine}
    return {pid for pid, name in names.items() if name.read_text().startswith("qemu")}


@needs_qemu
def test_two_emulated_boards(board_bundle: Bundle) -> None:
    reference = Interpreter(load_bundle_program(board_bundle))
    with Pool(board_bundle, (), [BOARD, BOARD]) as pool:
        assert len(emulators()) == 2
        assert pool.engine_name == f"2 x emulated {BOARD}"
        x = evaluate.random_frames(pool, 40)
        for sample, found in zip(x, pool.map(Session.classify, x), strict=True):
            assert decision_difference(reference.infer(sample), found) is None
        assert [share.name for share in pool.shares()] == [
            f"emulated {BOARD} ({i})" for i in (1, 2)
        ]
        report = evaluate.verify(pool, x, trace=True)
        assert report["mismatches"] == 0
        assert sum(board["samples"] for board in report["boards"]) == 40
        merged = profiling.profile(pool, x, "random", sweep_samples=0)
    assert emulators() == set()
    with Session(board_bundle) as session:
        alone = profiling.profile(session, x, "random", sweep_samples=0)
    for name in ("instructions", "by_step", "per_layer", "sops_mean", "unit", "memory"):
        assert merged[name] == alone[name], name
    assert [board["samples"] for board in alone["boards"]] == [40]


@needs_qemu
def test_an_emulator_that_dies_is_a_lost_board(board_bundle: Bundle) -> None:
    said: list[str] = []
    with Pool(board_bundle, (), [BOARD, BOARD], say=said.append) as pool:
        x = evaluate.random_frames(pool, 60)
        with Session(board_bundle) as session:
            expected = [session.classify(sample).membranes.tolist() for sample in x]
        found = []
        for i, decision in enumerate(pool.map(Session.classify, x)):
            found.append(decision.membranes.tolist())
            if i == 2:
                os.kill(min(emulators()), signal.SIGKILL)
    assert found == expected
    assert len(said) == 1 and "lost, the other goes on: the emulator of" in said[0]


@needs_qemu
def test_ctrl_c_leaves_no_emulator(board_bundle: Bundle, tmp_path: Path) -> None:
    x = np.zeros((20_000, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=x[:, 0, 0], x_test=x, y_test=x[:, 0, 0])
    words = ["run", str(board_bundle.path), "--data", str(tmp_path / "x.npz")]
    words += ["--board", f"{BOARD},{BOARD}"]
    with subprocess.Popen(
        [sys.executable, "-c", "from edgesnn.cli import main; raise SystemExit(main())", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        end = time.monotonic() + 60
        started: list[int] = []
        while len(started) < 2 and time.monotonic() < end:
            time.sleep(0.05)
            started = [
                int(pid)
                for task in Path(f"/proc/{process.pid}/task").iterdir()
                for pid in (task / "children").read_text().split()
                if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")
            ]
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "" and "Traceback" not in err, err
    assert time.monotonic() - began < 5
    assert len(started) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


def test_the_tables_of_boards_are_up_to_date(repo: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(repo / "scripts" / "board_table.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_check_of_the_tables_finds_what_is_wrong(repo: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "board_table", repo / "scripts" / "board_table.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.check(text) == []
    row = next(line for line in text.splitlines() if line.startswith("| `microbit` "))
    assert script.check(text.replace(f"{row}\n", "")) == ["microbit: no row"]
    assert "instead of" in script.check(text.replace(row, row.replace("16 KB", "17 KB")))[0]
    assert "mismatches" in script.check(text.replace(row, row.replace("| 0 of", "| 1 of")))[0]
    assert json.dumps(script.check(text.replace(row, row.replace("microbit", "my"))))
