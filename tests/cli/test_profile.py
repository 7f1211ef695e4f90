"""`edgesnn profile`: what it reports, its folder, and the page that stands on its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn import profiling
from edgesnn.compiler import ir
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.text import from_text
from edgesnn.data import recordings
from edgesnn.data.recording import Recording
from edgesnn.profiling.least_squares import nonnegative
from edgesnn.profiling.shares import add_up
from edgesnn.profiling.unstopped import fit, raster, run_unstopped, sweep
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.session import Session

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm"
)
ABOUT = {
    "command": "edgesnn profile a",
    "date": "one day",
    "machine": "this",
    "versions": {"a": "1"},
}


class _Page(HTMLParser):
    """Tags, ids and text of a page, and whatever in it points to somewhere else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                self.targets.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _check(text: str) -> _Page:
    """A page that needs nothing else."""
    page = _Page(text)
    assert page.open == []
    assert "://" not in text and "url(" not in text.replace("url(#", "")
    assert "@import" not in text and not {"script", "link", "iframe", "img"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids)), "an id stands twice"
    assert all(t.startswith("#") and t[1:] in page.ids for t in page.targets)
    return page


@pytest.fixture(scope="module")
def report(host_bundle: Bundle, frames: Any) -> dict[str, Any]:
    """A profile of the golden samples, labelled by the reference's answers, with another label at the end."""
    x, y, _ = frames
    with Session(host_bundle) as session:
        wrong = np.append(y[:-1], (y[-1] + 1) % 5)
        return profiling.profile(session, x, "golden", y=wrong)


def test_what_is_reported(report: dict[str, Any], host_bundle: Bundle, frames: Any) -> None:
    x, _, rows = frames
    assert report["accuracy"] == pytest.approx(1 - 1 / len(x))
    steps = [row["step"] for row in rows]
    each = report["inferences"]
    assert each["timesteps"] == steps and len(each["microseconds"]) == len(x)
    assert sum(row["samples"] for row in report["by_step"]) == len(x)
    histogram = report["histogram"]
    assert sum(histogram["counts"]) + histogram["beyond"] == len(x)
    assert np.sum(list(histogram["by_step"].values()), axis=0).tolist() == histogram["counts"]
    assert report["distribution"]["timesteps"]["max"] == max(steps)
    assert report["distribution"]["sops"]["mean"] == pytest.approx(report["sops_mean"])
    assert report["parts"] is None and report["link"] is None
    energy = report["energy"]
    assert energy["encoder_macs"] >= host_bundle.encoder_macs > 0
    mean = 4.6 * energy["encoder_macs"] + 0.9 * report["sops_mean"]
    assert energy["snn_pj"] == pytest.approx(mean) and energy["macs"] > energy["encoder_macs"]
    assert 0 < energy["normalised"]["TrueNorth"] <= 1 and energy["board"] is None
    json.dumps(report)


def test_the_sweep_is_what_the_program_does(report: dict[str, Any]) -> None:
    """At its own threshold: the accuracy and the steps of the device."""
    points = report["sweep"]["points"]
    own = [p for p in points if p["own"]]
    assert len(own) == 1 and own[0]["value"] == report["readout"]["value"]
    assert own[0]["accuracy"] == pytest.approx(report["accuracy"])
    assert own[0]["mean_timesteps"] == pytest.approx(report["timesteps"]["mean_timesteps"])
    steps = [p["mean_timesteps"] for p in sorted(points, key=lambda p: p["value"])]
    assert steps == sorted(steps)
    assert sum(d["accuracy"] for d in report["difficulty"]) == pytest.approx(
        report["accuracy"] * len(report["difficulty"]), rel=0.2
    )


def test_without_an_exit_or_labels(golden: Path, frames: Any) -> None:
    program = from_text((golden / "samples.program").read_text(encoding="utf-8"))
    x = frames[0][..., None]
    seen = run_unstopped(program, x, iter)
    assert len(seen.membranes) == program.timesteps
    assert seen.steps.tolist() == [row["step"] for row in frames[2]]
    found = sweep(program, seen, None, "cycles", None)
    assert found is not None and found["points"][0]["accuracy"] is None
    assert sweep(_rate(program), seen, None, "cycles", None) is None
    picture = raster(program, x[0])
    for layer in picture["layers"]:
        assert layer["shown"] <= min(24, layer["active"]) <= layer["neurons"]
        assert all(row < layer["shown"] for row, _, _ in layer["spikes"])
    assert len(picture["membranes"]) == picture["timesteps"] == program.timesteps


def _rate(program: ir.Program) -> ir.Program:
    from dataclasses import replace

    return replace(program, readout=ir.Rate())


def test_events_that_reach_no_exit_are_not_right() -> None:
    """A sample has a last step, at which the largest membrane answers; a stream of events has none."""
    nodes = (
        ir.EventInput("input", (1, 2, 1)),
        ir.Accumulator(
            "output",
            (ir.Dense("input", np.array([[5, 0], [0, 5]], np.int8)),),
            (((1, 1),),),
            np.zeros(2, np.int32),
        ),
    )
    program = ir.Program("events", 3, nodes, ir.FirstSpike(8), ("left", "right"))
    samples = np.zeros((2, 3, 1, 2, 1), np.uint8)
    samples[0, :, 0, 0] = 1  # reaches 15
    samples[1, 1, 0, 1] = 1  # stays at 5
    seen = run_unstopped(program, samples, lambda items: items)
    for stream, accuracy in ((None, 1.0), (ir.EventStream(1000), 0.5)):
        found = sweep(replace(program, stream=stream), seen, np.array([0, 1]), "cycles", None)
        assert found is not None
        assert [p["accuracy"] for p in found["points"] if p["own"]] == [accuracy]


def test_estimates() -> None:
    rng = np.random.default_rng(0)
    steps, sops = rng.integers(1, 5, 50), rng.integers(100, 900, 50)
    found = fit(500.0 + 40 * steps + 3 * sops, steps, sops)
    assert found is not None and found.error < 1e-9
    assert [found.constant, found.each_step, found.each_sop] == pytest.approx([500, 40, 3])
    assert fit(np.ones(50), np.full(50, 2), sops) is None
    terms = np.stack([steps, sops], axis=1)
    assert nonnegative(terms, 7.0 * sops - 0.1 * steps)[0] == 0.0
    whole = add_up([{"encoder": 5.0}, None, {"events": 2.0, "updates": 1.0}], [5, 4, 3], 14)
    assert whole["unsplit"] == 4 and whole["other"] == 2 and sum(whole.values()) == 14


def test_the_page_stands_on_its_own(report: dict[str, Any]) -> None:
    from edgesnn.profiling.page import render

    text = render({**report, "about": ABOUT})
    page = _check(text)
    for words in (
        "Latency",
        "Where the time goes",
        "When it stops",
        "One inference",
        "Energy",
        "Memory",
        "What was run",
        "edgesnn profile a",
        "one day",
        "microseconds per inference",
        "accuracy (%)",
    ):
        assert words in page.text, words
    # Text stays text; the same values give the same page.
    assert page.tags.count("svg") >= 7 and "<text" in text
    assert text == render({**report, "about": ABOUT})
    assert "UTC" not in text


def test_names_are_escaped(report: dict[str, Any]) -> None:
    from edgesnn.profiling.page import render

    evil = "$\\x$ <b>a & b</b>"
    layers = [{**row, "name": evil} for row in report["per_layer"]]
    picture = {**report["raster"], "answer": evil, "label": evil, "classes": [evil] * 5}
    odd = {**report, "model": evil, "data": evil, "per_layer": layers, "raster": picture}
    text = render({**odd, "about": {**ABOUT, "command": evil}})
    page = _check(text)
    assert "<b>a" not in text and evil in page.text


def test_several_side_by_side(report: dict[str, Any]) -> None:
    from edgesnn.profiling.page import render

    other = {**report, "bundle": "elsewhere", "readout": {"kind": "rate", "value": None}}
    other |= {
        "sweep": None,
        "difficulty": None,
        "accuracy": None,
        "sweep_missing": "a rate readout",
    }
    both = profiling.together([report, other], ABOUT)
    assert [row["bundle"] for row in both["comparison"]] == [report["bundle"], "elsewhere"]
    page = _check(render(both))
    assert "2 models side by side" in page.text and "(elsewhere)" in page.text
    assert "No sweep of the threshold: a rate readout" in page.text
    assert profiling.together([report], ABOUT)["model"] == report["model"]


def test_the_command(run: Any, host_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(host_bundle.path, tmp_path / "copy"))
    out = tmp_path / "report"
    words = ("profile", host_bundle.path, copy, "--data", data, "--sweep", 4, "--out", out)
    said = run(*words)
    assert said.code == 0 and "side by side" in said.out and "threshold" in said.out
    assert "4 samples without an exit" in said.err
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert len(stored["runs"]) == len(stored["comparison"]) == 2
    assert f"--data {data}" in stored["about"]["command"]
    assert str(copy) in stored["about"]["command"]
    assert "side by side" in (out / "report.txt").read_text(encoding="utf-8")
    _check((out / "report.html").read_text(encoding="utf-8"))
    alone = run("profile", copy, "--samples", 3, "--sweep", 0, "--json").json()
    assert (
        alone["sweep"] is None
        and alone["accuracy"] is None
        and "not asked" in alone["sweep_missing"]
    )
    assert alone["energy"]["normalised"] is None


def _stream_program() -> ir.Program:
    """Windows of eight rows of an int16 signal, by a small encoder."""
    rng = np.random.default_rng(12)
    thresholds = np.sort(rng.integers(-4000, 4000, (12, 3)))[:, ::-1].astype(np.int32)
    nodes = (
        ir.SampleInput("input", (1, 8, 2), "int16", 1.0, 0),
        ir.LatencyEncoder(
            "encoder",
            ir.Dense("input", rng.integers(-12, 13, (12, 16)).astype(np.int8)),
            np.ascontiguousarray(thresholds),
        ),
        ir.Accumulator(
            "output",
            (ir.Dense("encoder", rng.integers(-12, 13, (3, 12)).astype(np.int8)),),
            (((1, 1),),),
            np.array([1, 0, -1], np.int32),
        ),
    )
    stream = ir.WindowStream(ir.Rows(50.0), hop=3)
    return ir.Program("motions", 4, nodes, ir.FirstSpike(10), ("a", "b", "c"), stream=stream)


@pytest.fixture
def motions(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """The data set "motions": 300 rows, three labelled pieces."""
    signal = np.random.default_rng(1).normal(0, 100, (300, 2)).astype(np.int16)
    spans = np.array([[20, 60], [100, 140], [200, 290]])
    found = Recording("motions", "test", signal, 300, spans, np.arange(3), ("a", "b", "c"), 50.0)
    monkeypatch.setitem(recordings.RECORDINGS, "motions", lambda split, folder: found)
    return found


def test_a_signal_on_the_host(motions: Recording, tmp_path: Path) -> None:
    from edgesnn.profiling.page import render

    bundle = compile_program(_stream_program(), "cpu", out=tmp_path / "bundle")
    with Session(bundle) as session:
        heard, missing = profiling.find_signal(session, "motions", seconds=3.0)
        assert missing is None and heard is not None and len(heard.labels) == 2
        x = np.zeros((4, 1, 8, 2), np.int16)
        found = profiling.profile(session, x, "zeros", signal=heard)
        assert found["signal"]["signal_seconds"] == 4.0  # up to where the third begins
        assert found["signal"]["decisions"] == (200 - 8) // 3 + 1
        assert found["signal"]["board"] is None and found["signal"]["real_time"] > 0
        page = _check(render(found))
        assert "On a signal" in page.text and "seconds of signal in one" in page.text
        assert profiling.find_signal(session, "motions", seconds=0) == (None, None)
        assert "no recording" in str(profiling.find_signal(session, "digits")[1])
        assert "--data" in str(profiling.find_signal(session, None)[1])


@needs_qemu
def test_a_signal_on_a_board(motions: Recording, tmp_path: Path) -> None:
    from edgesnn.profiling.page import render

    bundle = compile_program(_stream_program(), board="mps2-an386", out=tmp_path / "bundle")
    with Session(bundle) as session:
        heard, _ = profiling.find_signal(session, "motions")
        x = np.random.default_rng(0).integers(-300, 300, (12, 1, 8, 2)).astype(np.int16)
        found = profiling.profile(session, x, "noise", signal=heard)
    board, parts = found["signal"]["board"], found["parts"]
    assert board["unit"] == "instructions" and board["network"]["mean"] > 0
    assert board["per_second"] == pytest.approx(
        board["network_per_second"] + board["front_end_per_second"]
    )
    assert board["share_of_clock"] == pytest.approx(board["per_second"] / 25e6)
    assert board["per_step"] is None
    assert parts["shares"]["front end"] == pytest.approx(board["front_end_share"])
    assert sum(parts["shares"].values()) == pytest.approx(1)
    assert parts["method"] == "cost model"
    assert "front end" in _check(render(found)).text


def test_refusals(run: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    a = host_bundle.path
    assert "one bundle" in run("profile", a, a, "--port", "/dev/null").error(2)
    assert "at least 0" in run("profile", a, "--sweep", -1).error(2)
    assert "seconds from 0" in run("profile", a, "--signal", "nan").error(2)
    missing = run("profile", a, tmp_path / "none")
    assert "there is no bundle" in missing.error(1) and "timing" not in missing.err
    assert "profile needs BUNDLE" in run("profile", "--samples", 1).error(2)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "report.json").write_text('{"format": "something else"}')
    assert "not a report of ours" in run("profile", a, "--samples", 1, "--out", foreign).error(2)
    assert (foreign / "report.json").read_text() == '{"format": "something else"}'


def test_nothing_is_half_written(
    run: Any, host_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure while the page is made leaves the older report as it was."""
    out = tmp_path / "report"
    words = ("profile", host_bundle.path, "--samples", 1, "--sweep", 0, "--out", out)
    assert run(*words).code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("edgesnn.profiling.page.render", broken)
    assert run(*words).code == 1
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_the_extra(package: str, fresh: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    """The table and the JSON are written, and one line says what is missing."""
    import os

    blocked = tmp_path / "blocked"
    blocked.mkdir()
    text = f"raise ModuleNotFoundError('no {package}', name='{package}')\n"
    (blocked / f"{package}.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(blocked)}
    out = tmp_path / "report"
    said = fresh("profile", host_bundle.path, "--samples", 1, "--out", out, env=env)
    assert said.code == 0, said.err
    assert f"no report.html: {package} is missing" in said.err and "edgesnn[report]" in said.err
    assert sorted(p.name for p in out.iterdir()) == ["report.json", "report.txt"]
