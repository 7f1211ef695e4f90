"""`edgesnn flash`: from a bundle to a board that answers with the bundle's model."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.ports import find_port
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.flash import ANY, Choice, Flashed, check_flashable, check_size, flash
from edgesnn.targets.target import find_target

Say = Callable[[str], None]
_COMES_BACK = 8.0  # seconds after which a debugger's serial port is there again


def flash_bundle(
    path: Path | str,
    board: str | None = None,
    choice: Choice = ANY,
    *,
    port: str | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Write a bundle's firmware to the board it was compiled for, then ask the board which model it runs.

    board: the board, where its file has changed since (another drive, another way to flash). port: the serial
    port to ask on, else the one with the board's USB ids. The report's "answers" is None where there was none
    to ask on, and "next" says what to do. EdgesnnError and UsageError are one line; so it is where the board
    was asked and did not answer, or with another model.
    """
    bundle = Bundle.open(Path(path))
    on = _board(bundle, board)
    check_flashable(on, bundle.path, choice)
    image, memory = bundle.path / "firmware.bin", bundle.manifest["memory"]
    if not image.is_file():
        raise UsageError(f"{bundle.path} holds no firmware; compile it with --board {on.name}")
    ram = memory["ram_bytes"] + memory.get("stack_reserved_bytes", 0)
    check_size(on, image.stat().st_size, ram)
    with _meter(say) as progress:
        done = flash(on, bundle.path, choice, say=say, progress=progress)
    found, answers, after = _ask(bundle, on, done, port, say)
    return {
        "bundle": str(bundle.path),
        "model": bundle.name,
        "board": on.name,
        "method": done.method,
        "where": done.where,
        "file": done.file.name,
        "bytes": image.stat().st_size,
        "verified": done.verified,
        "port": found,
        "answers": answers,
        "next": after,
    }


def _board(bundle: Bundle, name: str | None) -> Board:
    """The board to flash; UsageError where the bundle is not for it, or for none."""
    if bundle.board is None:
        what = (
            "is compiled for this machine"
            if find_target(bundle.target).kind == "host"
            else "holds no firmware"
        )
        raise UsageError(f"{bundle.path} {what}; compile it with --board {name or 'NAME'}")
    if name is None:
        board = bundle.load_board()
        assert board is not None
        return board
    board = load_board(name)
    if board.name != bundle.board:
        raise UsageError(
            f"{bundle.path} holds firmware for board {bundle.board}, not {board.name}; compile it with "
            f"--board {name}"
        )
    return board


def _ask(
    bundle: Bundle, board: Board, done: Flashed, port: str | None, say: Say
) -> tuple[str | None, bool | None, str]:
    """(port, True where the board answers there with the bundle's model, what to do next)."""
    run = f"`edgesnn run {bundle.path} --data ... --port {port or 'PORT'}`"
    protocol = bundle.manifest.get("protocol", "edgesnn")
    if protocol != "edgesnn":
        return port, None, f"it speaks {protocol}; `edgesnn monitor` shows what it says"
    try:
        port = port or _port(board, done.serial)
    except EdgesnnError as e:
        return None, None, f"{e}; then {run}"
    if port is None:
        wire = board.usb.serial if board.usb is not None else None
        where = f"connect its serial port ({wire})" if wire else "connect its serial port"
        return None, None, f"{where}, then {run}"
    _wait_for(port)
    say(f"asking the board on {port}")
    try:
        with LinkEngine(bundle, port, baud=board.uart.baud, counter=board.counter):
            pass
    except EdgesnnError as e:
        raise EdgesnnError(f"the firmware is written, but {e}") from None
    return port, True, f"`edgesnn run {bundle.path} --data ... --port {port}`"


def _port(board: Board, serial: str | None) -> str | None:
    """The board's port; its debugger may have left and be on its way back."""
    end = time.monotonic() + _COMES_BACK
    while (port := find_port(board, serial)) is None and board.usb is not None and board.usb.ids:
        if time.monotonic() >= end:
            break
        time.sleep(0.2)
    return port


def _wait_for(port: str) -> None:
    """Until a device of this name is there, for the same reason."""
    end = time.monotonic() + _COMES_BACK
    while port.startswith("/") and not Path(port).exists() and time.monotonic() < end:
        time.sleep(0.2)


@contextmanager
def _meter(say: Say) -> Iterator[Callable[[float], None]]:
    """Show how far the writing is: a bar on a terminal, a line for every quarter elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("writing", total=1.0)
            yield lambda part: bar.update(task, completed=part)
        return
    last = 0

    def lines(part: float) -> None:
        nonlocal last
        quarter = int(4 * part)
        if quarter != last and quarter:
            say(f"{25 * quarter} % written")
        last = quarter

    yield lines
