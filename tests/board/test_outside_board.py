"""A board from outside the package: the files of docs/adding-a-board.md, as they stand there."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgesnn import api
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.compare import decision_difference, trace_difference
from edgesnn.compiler.esnn_file import save_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.link import LinkEngine
from edgesnn.runtime.session import Session
from edgesnn.targets.board import BOARDS_VARIABLE, list_boards, load_board
from edgesnn.targets.errors import EdgesnnError, UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-board.md"
NAME = "emcraft-sf2"
PROGRAM = random_program(7)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with both files of the page."""
    return written(tmp_path / "boards")


def written(folder: Path) -> Path:
    text = PAGE.read_text(encoding="utf-8")
    folder.mkdir()
    for language, name in (("toml", f"{NAME}.toml"), ("c", "uart_mmuart.c")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        (folder / name).write_text(block, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Compiled by the path of a board file that is gone since."""
    for program in ("qemu-system-arm", "arm-none-eabi-gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    folder = tmp_path_factory.mktemp("outside")
    place = written(folder / "boards")
    save_program(PROGRAM, folder / "p.esnn")
    board = os.path.relpath(place / f"{NAME}.toml")
    made = api.compile(folder / "p.esnn", board=board, out=folder / "b")
    shutil.rmtree(place)
    return made


def matches(bundle: Bundle) -> None:
    """It runs as the interpreter says, to the last spike."""
    names = [node.name for node in PROGRAM.nodes]
    reference = Interpreter(PROGRAM)
    with Session(bundle) as session:
        for x in random_samples(PROGRAM, 3, 7):
            want = reference.trace(x)
            assert trace_difference(want, session.trace(x), names) is None
            assert decision_difference(want.decision, session.classify(x)) is None


def test_by_path(place: Path) -> None:
    file = place / f"{NAME}.toml"
    assert NAME not in {board.name for board in list_boards()}
    with pytest.raises(UsageError, match=f"unknown board '{NAME}'"):
        load_board(NAME)
    board = load_board(os.path.relpath(file))
    assert board.name == NAME and board.path == file
    assert place / "uart_mmuart.c" in board.sources and place in board.includes


def test_a_bundle_holds_its_board(bundle: Bundle, place: Path) -> None:
    file = place / f"{NAME}.toml"
    assert (bundle.board, bundle.target) == (NAME, "cortex-m3")
    assert (bundle.path / "board.toml").read_bytes() == file.read_bytes()
    kept, board = Bundle.open(bundle.path).load_board(), load_board(str(file))
    assert kept is not None and replace(kept, sources=board.sources) == board


def test_it_runs_without_the_board_file(bundle: Bundle) -> None:
    """As the interpreter says, to the last spike."""
    matches(bundle)


def test_by_name(
    bundle: Bundle, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(BOARDS_VARIABLE, os.pathsep.join([str(tmp_path / "empty"), str(place)]))
    assert NAME in [board.name for board in list_boards()]
    named = compile_program(PROGRAM, board=NAME, out=tmp_path / "b")
    assert named.manifest == bundle.manifest  # equal input, equal bytes
    with Session(named, board=NAME) as session:
        assert session.board is not None and session.board.name == NAME


def test_a_session_takes_a_path(bundle: Bundle, place: Path) -> None:
    with Session(bundle, board=str(place / f"{NAME}.toml")) as session:
        assert session.board is not None and session.board.name == NAME


@pytest.mark.parametrize(
    ("old", "message"),
    [
        (
            '"cortex_m/systick.c",',
            "no source defines bsp_ticks_start; name the file of its counter.kind",
        ),
        ('"uart_mmuart.c",', "no source defines bsp_uart_init; name a UART file in sources"),
    ],
)
def test_a_file_that_is_missing(
    bundle: Bundle, place: Path, tmp_path: Path, old: str, message: str
) -> None:
    file = place / f"{NAME}.toml"
    text = file.read_text(encoding="utf-8").replace(old, '"own.c",' if "uart" in old else "")
    (place / "own.c").write_text("extern int nothing;\n", encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(EdgesnnError, match=f"board {NAME}: {message}"):
        compile_program(PROGRAM, board=str(file), out=tmp_path / "b")


def test_firmware_that_says_nothing(
    bundle: Bundle, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / f"{NAME}.toml"
    text = file.read_text(encoding="utf-8").replace("base = 0x40000000", "base = 0x20008000")
    file.write_text(text, encoding="utf-8")
    silent = compile_program(PROGRAM, board=str(file), out=tmp_path / "b")
    monkeypatch.setitem(LinkEngine.__init__.__kwdefaults__, "timeout", 1.0)
    with pytest.raises(
        EdgesnnError, match=f"emulated {NAME} says nothing; check uart.base and uart.irq"
    ):
        Session(silent)


def test_two_of_one_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(load_board("microbit").path, place)
    monkeypatch.setenv(BOARDS_VARIABLE, str(place))
    with pytest.raises(UsageError, match=r"two boards are called microbit: .*rename your own"):
        load_board("mps2-an386")


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BOARDS_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"EDGESNN_BOARDS names .*gone, which is not a folder"):
        list_boards()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no board file .*gone\.toml; `edgesnn boards`"):
        load_board(str(tmp_path / "gone.toml"))


def test_a_bundle_whose_board_is_another(bundle: Bundle) -> None:
    manifest = {**bundle.manifest, "board": "microbit"}
    with pytest.raises(EdgesnnError, match=f"describes {NAME}, the manifest names microbit"):
        Bundle(bundle.path, manifest).load_board()


def test_an_older_bundle_names_its_board(tmp_path: Path) -> None:
    manifest = {"board": "microbit", "files": {}}
    assert Bundle(tmp_path, manifest).load_board() == load_board("microbit")
    assert Bundle(tmp_path, {"board": None, "files": {}}).load_board() is None
