"""`edgesnn flash`, `monitor` and `boards` from the command line; the board that answers is an emulated one."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesnn import flashing
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets import flash_volume
from edgesnn.targets.board import BOARDS_DIR, load_board
from edgesnn.targets.emulator import Emulator

FLASHING = """
[flashing]
methods = ["pyocd", "volume"]
chip = "nochip123"
pack = true
uf2_family = 0x12345678
volume = "OWN-BOARD"
volume_file = "hex"
how = "press the button twice"

[usb]
ids = ["ffff:fffe"]
serial = "pins 1, 2"
"""


@pytest.fixture(scope="session")
def own_boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a board that is mps2-an386, but for the emulator: as if it was a real one."""
    text = (BOARDS_DIR / "mps2-an386.toml").read_text(encoding="utf-8")
    text = text.replace('name = "mps2-an386"', 'name = "own-board"')
    text = re.sub(r"\[emulator\].*?(?=\n\[|\Z)", "", text, flags=re.DOTALL)
    text = re.sub(r"^run_on.*\n", "", text, flags=re.MULTILINE)
    folder = tmp_path_factory.mktemp("boards")
    (folder / "own-board.toml").write_text(text + FLASHING, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def own_bundle(own_boards: Path, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden program as firmware for that board. Do not alter its files."""
    out = tmp_path_factory.mktemp("own") / "own-b"
    return _compile(golden / "samples.program", str(own_boards / "own-board.toml"), out)


def _compile(program: Path, board: str, out: Path) -> Bundle:
    from edgesnn.compiler.build import compile_program
    from edgesnn.compiler.text import from_text

    return compile_program(from_text(program.read_text(encoding="utf-8")), board=board, out=out)


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the board's drive, whose debugger has nothing to report."""
    monkeypatch.setitem(flash_volume.write_volume.__kwdefaults__, "reports", 0.1)
    monkeypatch.setattr(flashing, "_COMES_BACK", 0.3)
    place = tmp_path / "drive"
    place.mkdir()
    return place


@pytest.fixture
def answering(own_bundle: Bundle) -> Iterator[str]:
    """A port on which the bundle's firmware answers."""
    assert own_bundle.firmware is not None
    board = load_board("mps2-an386")
    assert board.emulator is not None
    if shutil.which(board.emulator.program) is None:
        pytest.skip(f"{board.emulator.program} is not on PATH")
    with Emulator(board, own_bundle.firmware) as emulator:
        yield emulator.url


def test_flash_and_the_board_answers(
    run: Any, own_bundle: Bundle, drive: Path, answering: str
) -> None:
    done = run("flash", own_bundle.path, "--volume", drive, "--port", answering, "--json")
    report = done.json()
    assert (report["board"], report["method"], report["where"]) == (
        "own-board",
        "volume",
        str(drive),
    )
    assert (report["answers"], report["verified"], report["port"]) == (True, False, answering)
    assert report["bytes"] == (own_bundle.path / "firmware.bin").stat().st_size
    assert "edgesnn run" in report["next"]
    written = drive / "firmware.hex"
    assert written.read_bytes() == (own_bundle.path / "firmware.hex").read_bytes()
    assert "writing firmware.hex" in done.err and "asking the board on" in done.err


def test_flash_without_a_port_says_how_to_go_on(run: Any, own_bundle: Bundle, drive: Path) -> None:
    done = run("flash", own_bundle.path, "--volume", drive)
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "on own-board" in text
    assert "connect its serial port (pins 1, 2), then `edgesnn run" in text


def test_flash_on_a_port_where_nothing_answers(
    run: Any, own_bundle: Bundle, drive: Path, tmp_path: Path
) -> None:
    port = tmp_path / "nothing"
    line = run("flash", own_bundle.path, "--volume", drive, "--port", port).error(1)
    assert line.startswith(f"the firmware is written, but no port {port}")


@pytest.mark.usefixtures("answering")
def test_a_board_that_was_asked_must_answer_with_the_model(
    run: Any,
    own_bundle: Bundle,
    golden: Path,
    drive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a port that was found as on one that was named."""
    firmware = _compile(golden / "events.program", "mps2-an386", tmp_path / "other").firmware
    assert firmware is not None
    with Emulator(load_board("mps2-an386"), firmware) as other:
        for port, wrong in ((tmp_path / "nothing", "no port"), (other.url, "runs model")):
            monkeypatch.setattr(flashing, "find_port", lambda *_, port=port: str(port))
            for named in ([], ["--port", port]):
                line = run("flash", own_bundle.path, "--volume", drive, *named).error(1)
                assert line.startswith("the firmware is written, but ") and wrong in line


def test_flash_refuses_in_one_line(
    run: Any,
    own_bundle: Bundle,
    board_bundle: Bundle,
    host_bundle: Bundle,
    own_boards: Path,
    drive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = own_bundle.path
    assert "is emulated: there is nothing to flash" in run("flash", board_bundle.path).error(2)
    assert "is compiled for this machine" in run("flash", host_bundle.path).error(2)
    assert "there is no bundle at" in run("flash", tmp_path / "nope").error(1)
    assert "holds firmware for board own-board, not pico" in run(
        "flash", own, "--board", "pico"
    ).error(2)
    assert "own-board is flashed by pyocd or volume" in run("flash", own, "--method", "uf2").error(
        2
    )
    assert "no method 'x'" in run("flash", own, "--method", "x").error(2)
    line = run("flash", own).error(1)
    assert (
        "no debug probe found" in line
        and "no drive OWN-BOARD found; press the button twice" in line
    )
    monkeypatch.setenv("EDGESNN_BOARDS", str(own_boards))
    small = (
        (own_boards / "own-board.toml")
        .read_text()
        .replace("length = 0x00400000", "length = 4096", 1)
    )
    (tmp_path / "own-board.toml").write_text(small)
    line = run("flash", own, "--board", tmp_path / "own-board.toml", "--volume", drive).error(1)
    excess = (own / "firmware.bin").stat().st_size - 4096
    assert f"too large by {excess:,} bytes in flash" in line
    assert not list(drive.iterdir())


def test_a_uf2_file_is_written_where_the_board_names_a_family(own_bundle: Bundle) -> None:
    from edgesnn.targets.uf2 import read_uf2

    image = read_uf2((own_bundle.path / "firmware.uf2").read_bytes())
    plain = (own_bundle.path / "firmware.bin").read_bytes()
    assert (image.origin, image.family) == (0, 0x12345678)
    assert image.data[: len(plain)] == plain and len(image.data) - len(plain) < 256
    assert "firmware.uf2" in own_bundle.manifest["files"]


def _stopped(words: list[str], until: str) -> tuple[int, str, str]:
    """Run a command until its standard output has this text, then Ctrl-C; code, output, errors."""
    code = "from edgesnn.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        limit = threading.Timer(30, process.kill)
        limit.start()
        out = ""
        while until not in out and (line := process.stdout.readline()):
            out += line
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
        limit.cancel()
        return process.returncode, out + rest, errors


def test_monitor_hears_what_the_emulated_board_says(own_bundle: Bundle, answering: str) -> None:
    words = ["monitor", answering, "--bundle", str(own_bundle.path), "--ask"]
    code, out, err = _stopped(words, "HELLO 1")
    assert code == 0, err
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  started: model .*; the model of ", out, re.MULTILINE)
    assert "HELLO 1: model" in out
    assert "listening on" in err and "frames, 0 lines of text, 0 damaged" in err
    assert "Traceback" not in err


def test_monitor_of_another_firmware_in_json() -> None:
    master, slave = pty.openpty()
    tty.setraw(master)
    heard = threading.Event()

    def speak() -> None:
        while not heard.wait(0.1):
            os.write(master, b"m-ready\r\n")

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        code, out, err = _stopped(["monitor", os.ttyname(slave), "--json"], "m-ready")
    finally:
        heard.set()
        speaker.join()
        os.close(slave)
        os.close(master)
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert set(rows[0]) == {"time", "kind", "text"}
    assert {(r["kind"], r["text"]) for r in rows} == {("text", "m-ready")}


def test_monitor_refuses_in_one_line(run: Any, tmp_path: Path) -> None:
    assert "no port" in run("monitor", tmp_path / "nope").error(1)
    assert "--baud" in run("monitor", tmp_path / "nope", "--baud", "0").error(2)
    assert "unknown board" in run("monitor", "--board", "nope").error(2)
    assert "there is no bundle" in run("monitor", "--bundle", tmp_path / "nope").error(1)


def test_boards_of_ones_own(run: Any, own_boards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESNN_BOARDS", str(own_boards))
    rows = {b["name"]: b for b in run("boards", "--json").json()["boards"]}
    own = rows["own-board"]
    assert (own["emulator"], own["flashing"]["methods"]) == (None, ["pyocd", "volume"])
    assert own["usb"]["ids"] == ["ffff:fffe"] and own["file"].endswith("own-board.toml")
    assert rows["mps2-an386"]["emulator"] == "qemu-system-arm"
    assert rows["pico"]["flashing"]["uf2_family"] == 0xE48BFF56
    listed = run("boards").out
    real, _, emulated = listed.partition("emulated")
    assert "own-board" in real and "pico" in real and "mps2-an386" in emulated
    one = run("boards", "own-board").out
    for text in ("pyocd pack install nochip123", "press the button twice", "drive OWN-BOARD"):
        assert text in one
    assert "emulated by" in run("boards", "mps2-an386").out
    assert run("boards", "own-board", "--json").json() == own
    assert "unknown board" in run("boards", "nope").error(2)


def _texts(path: Path) -> Iterator[str]:
    """Every text of a Python file, a NUL where something is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_messages_in_the_documentation_are_those_of_the_code(repo: Path) -> None:
    files = [*repo.glob("targets/flash*.py"), repo / "edgesnn" / "flashing.py"]
    files += [repo / "runtime" / name for name in ("link.py", "ports.py", "serial_port.py")]
    files.append(repo / "compiler" / "fit.py")
    code = [text for file in files for text in _texts(file)]
    guide = (repo / "docs" / "FLASHING.md").read_text(encoding="utf-8")
    _, _, rows = guide.partition("## When it does not work")
    messages = [m for row in rows.splitlines() for m in re.findall("`(.*?)`", row.split(" | ")[0])]
    assert len(messages) > 20
    for message in messages:
        parts = re.split(r"…|/dev/|\b(?:A|B|BOARD|BUNDLE|CHIP|LABEL|N|PATH|PORT)\b", message)
        for part in filter(None, map(str.strip, parts)):
            assert any(part in text for text in code) or part == "ram", (message, part)
