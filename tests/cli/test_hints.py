"""What somebody new meets: names cut short, misspelt, files of another kind, options that are not there."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from edgesnn import cli
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets.board import list_boards
from edgesnn.zoo.card import cards

TABLES = {
    ("boards",): [board.name for board in list_boards()],
    ("zoo",): [f"zoo:{name}" for name in cards()],
    ("targets",): ["cortex-m0plus", "riscv32imc"],
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *words: object) -> str:
    """What a command prints on a terminal of so many columns, without its colours."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli.main([str(word) for word in words]) == 0
    assert isinstance(sys.stdout, Terminal)
    return sys.stdout.getvalue()


@pytest.mark.parametrize("columns", [50, 80, 200])
@pytest.mark.parametrize("words", TABLES)
def test_names_to_type_are_never_cut(
    words: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _on_terminal(monkeypatch, columns, *words)
    assert max(map(len, text.splitlines())) <= columns and "…" not in text
    assert set(TABLES[words]) <= {line.split()[0] for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize("columns", [60, 80])
def test_a_profile_fits_its_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, host_bundle: Bundle, tmp_path: Path
) -> None:
    words = ("profile", host_bundle.path, host_bundle.path, "--samples", 3, "--sweep", 0)
    text = _on_terminal(monkeypatch, columns, *words, "--out", tmp_path / "report")
    text, _, _ = text.partition("report: ")
    assert max(map(len, text.splitlines())) <= columns and "…" not in text
    assert "side by side" in text and "synaptic" in text
    # The report's text is as wide as ever.
    assert "─" * 100 in (tmp_path / "report" / "report.txt").read_text(encoding="utf-8")


def test_numbers_stay_whole_where_a_table_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    heads = ("name", "first", "second one", "third")
    cli._grid(heads, [("mps2-an386", "1,234,567", "two words", "89,012,345")], file)
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert ["mps2-an386", "1,234,567", "two", "words"] in lines
    assert ["mps2-an386", "89,012,345"] in lines


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("compile", "zoo:digits", "--board", "micro-bit"), "did you mean microbit?"),
        (("boards", "picoo"), "did you mean pico?"),
        (("compile", "zoo:digit", "--target", "cpu"), "did you mean zoo:digits?"),
        (("zoo", "digit"), "did you mean zoo:digits?"),
        (("evaluate", "zoo:digits", "--data", "digit"), "did you mean digits?"),
        (("zoo", "zzz"), "one of zoo:digits"),
        (("evaluate", "zoo:digits", "--data", "zzz"), "one of digits, mnist"),
    ],
)
def test_misspelt_names(words: tuple[str, ...], meant: str, run: Any) -> None:
    assert meant in run(*words).error(2)


def test_data_of_another_kind(run: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    table = tmp_path / "samples.csv"
    table.write_text("1,2\n")
    assert f"{table} is a file, but no .npz" in run("run", host_bundle.path, "--data", table).error(
        2
    )


def test_a_missing_data_set_names_a_command_that_fetches_it(
    run: Any, host_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESNN_DATA", str(tmp_path))
    told = run("run", host_bundle.path, "--data", "mnist").error(1)
    assert "`edgesnn train --net mcu-mlp --data mnist --download`" in told
    assert cli.parse("train", ["--net", "mcu-mlp", "--data", "mnist", "--download"])


def test_a_package_is_no_bundle(run: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    program, library = tmp_path / "net.esnn", tmp_path / "library"
    shutil.copy(host_bundle.program_path, program)
    words = ("compile", program, "--target", "cpu", "--package", "cmake", "--out", library)
    assert run(*words).code == 0
    for command in (("run", library, "--data", "digits"), ("flash", library), ("inspect", library)):
        told = run(*command).error(1)
        assert "is a library for cmake" in told and "without --package" in told
    (library / "extras" / "edgesnn" / "package.json").write_text(json.dumps([]))
    assert "is a library for another build system" in run("inspect", library).error(1)


def test_watchdogs_are_told_of(run: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    assert "up to 8,000 ms" in run("boards", "pico").out
    assert "none" in next(
        line for line in run("boards", "pico2").out.splitlines() if "watchdog" in line
    )
    words = ("compile", host_bundle.path, "--board", "pico2", "--watchdog", 500)
    told = run(*words, "--out", tmp_path / "b").error(2)
    assert "no watchdog for board pico2" in told and "mps2-an386" in told and "pico," in told
