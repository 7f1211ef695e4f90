"""Arguments are checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgesnn.api  # the test replaces its functions
from edgesnn import cli


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compil"], "unknown command 'compil'; did you mean compile?"),
        (["burn", "b"], "unknown command 'burn'"),
        (["run", "b", "--dat", "digits"], "run has no option --dat; did you mean --data?"),
        (["run", "b", "-d", "digits"], "run has no option -d"),
        (["run", "b", "--nojson", "--data", "digits"], "run has no option --nojson"),
        (["run", "b", "--data", "digits", "--", "--trace"], "run has no option --"),
        (["run", "b", "--data"], "--data needs a value"),
        (["run", "b", "--data", "--json"], "--data needs a value"),
        (["run", "b"], "run needs --data"),
        (["run", "--data", "digits"], "run needs BUNDLE"),
        (["run", "b", "c", "--data", "digits"], "run takes no further argument 'c'"),
        (["run", "b", "--data", "a", "--data", "b"], "--data is given twice"),
        (["run", "b", "--data", "a", "--samples", "ten"], "--samples is a whole number, not 'ten'"),
        (["run", "b", "--data", "a", "--samples", "1.5"], "--samples is a whole number"),
        (["run", "b", "--data", "a", "--port", "x,,y"], "--port has an empty name in 'x,,y'"),
        (["verify", "b", "--board", "x", "--board", ""], "--board has an empty name"),
        (
            ["verify", "b", "--data", "a", "--stream", "--port", "x,y"],
            "is one signal, into one board",
        ),
        (["profile", "b", "c", "--port", "x"], "a board runs one bundle: name one bundle"),
        (["stream", "b", "--source", "-", "--port", "x", "--port", "y"], "--port is given twice"),
        (["run", "b", "--data", "a", "--json=3"], "--json is a switch and takes no value"),
        (["train", "--net", "a", "--data", "b", "--lr", "x"], "--lr is a number, not 'x'"),
        (["targets", "x"], "targets takes no further argument 'x'"),
    ],
)
def test_refused_before_anything_runs(
    words: list[str], said: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    for name in ("train", "compile", "inspect"):
        monkeypatch.setattr(edgesnn.api, name, lambda *a, **k: ran.append("api"))
    monkeypatch.setattr("edgesnn.runtime.session.Session", lambda *a, **k: ran.append("session"))
    monkeypatch.setattr("edgesnn.runtime.pool.Pool", lambda *a, **k: ran.append("pool"))
    assert said in run(*words).error(2)
    assert ran == []


def test_texts_stay_texts(run: Any) -> None:
    assert cli.parse("inspect", ["10"]) == {"model": "10"}
    assert "no model at 10;" in run("inspect", "10").error(1)
    assert "no model at [1];" in run("inspect", "[1]").error(1)
    assert "no bundle at None" in run("verify", "None").error(1)
    assert "no bundle at a=b c" in run("verify", "--bundle=a=b c").error(1)


def test_order_and_spelling_do_not_matter() -> None:
    want = {"bundle": "b", "data": "digits", "data_dir": "d", "json": "True"}
    assert cli.parse("run", ["b", "--data", "digits", "--data-dir", "d", "--json"]) == want
    assert cli.parse("run", ["--json", "b", "--data=digits", "--data_dir=d"]) == want
    assert cli.parse("run", ["--json", "--data-dir", "d", "--data", "digits", "b"]) == want
    ports = cli.parse("run", ["--port", "x", "b", "--data=d", "--port=y,z"])["port"]
    assert ports == '["x", "y,z"]'
    assert cli.parse("stream", ["b", "--source", "-"]) == {"bundle": "b", "source": "-"}
    assert cli.parse("train", ["--net", "a", "--data", "b", "--encoder-bias", "-1"])[
        "encoder_bias"
    ] == ("-1")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_anywhere_runs_nothing(
    command: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = [
        run(command, "--help"),
        run(command, "x", "--nonsense", "--help"),
        run(command, "--json", "-h"),
        run("help", command),
    ]
    for outcome in shown:
        assert outcome.code == 0 and outcome.err == ""
        assert outcome.out.startswith(f"usage: edgesnn {command}")
    assert len({outcome.out for outcome in shown}) == 1
    assert list(tmp_path.iterdir()) == []


def test_overview_and_version(run: Any) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        out = run(*words).out
        assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    assert run("--version").out == f"edgesnn {edgesnn.__version__}\n"


def test_a_list_takes_all_free_words() -> None:
    found = cli.parse("profile", ["a b", "--samples", "3", "c"])
    assert found == {"bundle": '["a b", "c"]', "samples": "3"}
