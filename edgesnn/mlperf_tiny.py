"""MLPerf Tiny's exchange with a board, as the benchmark's runner drives it: top-1 accuracy and latency.

Of each sample: `db load`, its bytes, `infer N W`. The latency of a sample is the time between the two
`m-lap-us`, divided by N. A spiking net may stop early, so it depends on the sample, and the distribution is
reported, not the median alone. docs/MLPERF-TINY.md has the protocol and says what the figures are.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.data import load
from edgesnn.exits import guarded
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.files import check_replaceable, replace_folder, sha256, write_atomic
from edgesnn.runtime.ports import choose_port
from edgesnn.runtime.serial_port import SerialPort
from edgesnn.targets.board import Board, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError

COMMAND_BYTES = 31  # of a frame in one `db`: as many as the runner sends
MOST_RUNS = 1_000_000  # that the firmware does at one command
_READY = "m-ready"
_ANSWER = 5.0  # seconds of silence after which a board counts as dead
_COMPUTE = 600.0  # the same of an `infer`
_QUIET = 0.2
_GREETINGS = 4
_LABELS = "y_labels.csv"
_SCRIPTS = {"accuracy": "tests_accuracy.yaml", "performance": "tests_performance.yaml"}
_MARKER = "edgesnn-export.json"  # in an export: its files
_FORMAT = "edgesnn-mlperf-tiny-export"
_MEDIAN_OF = 5  # inputs of a performance script, where the data has as many


@dataclass(frozen=True)
class Inference:
    """Scores of the classes, float64[classes], and the microseconds of one inference of those measured."""

    scores: np.ndarray
    latency_us: float

    @property
    def label(self) -> int:
        return int(self.scores.argmax())


class Device:
    """A board that speaks the protocol, behind an open port.

    classes: how many results are due, where that is known. said: everything that went over the port, in lines;
    "> " stands before what was sent. Errors: EdgesnnError where the board is silent, refuses a command or
    answers something else.
    """

    def __init__(self, port: SerialPort, classes: int | None = None) -> None:
        self._port, self._classes = port, classes
        self.said: list[str] = []

    def greet(self) -> tuple[str, str]:
        """The names of device and model. Ends the command that another program may have left half said."""
        for _ in range(_GREETINGS):
            self._send("")
            talking = time.monotonic() + 1.0
            while self._line(_QUIET) is not None and time.monotonic() < talking:
                pass  # what it says at boot, too
            self._send("name")
            name = None
            while (line := self._line(1.0)) is not None:
                named = re.fullmatch(r"m-name-dut-\[(.*)\]", line)
                name = named[1] if named else name
                if line == _READY and name is not None:  # an earlier one may have come late
                    return name, _values("m-model-[", ".*", "]", self.command("profile"))[0]
        raise EdgesnnError(
            "nobody speaks MLPerf Tiny's protocol on the port; flash the bundle's firmware, check the baud rate"
        )

    def command(self, words: str, patience: float = _ANSWER) -> list[str]:
        """Say `words`; the lines of the answer, without m-ready."""
        self._send(words)
        lines: list[str] = []
        while (line := self._line(patience)) != _READY:
            if line is None:
                raise EdgesnnError(
                    f"the board has not answered `{words[:40]}%` for {patience:g} s; reset it"
                )
            lines.append(line)
        for line in lines:
            if line.startswith("e-["):
                raise EdgesnnError(f"the board refused `{words[:40]}%`: {line}")
        return lines

    def load(self, frame: bytes) -> None:
        """Fill the board's input."""
        heard = self.command(f"db load {len(frame)}")
        for at in range(0, len(frame), COMMAND_BYTES):
            heard = self.command(f"db {frame[at : at + COMMAND_BYTES].hex()}")
        if "m-load-done" not in heard:
            raise EdgesnnError("the board has not received the whole frame; check the cable")

    def infer(self, runs: int, warm_up: int) -> Inference:
        """Time `runs` inferences of what is loaded after `warm_up` others."""
        lines = self.command(f"infer {runs} {warm_up}", _COMPUTE)
        begin, end = (int(us) for us in _values("m-lap-us-", r"\d{1,18}", "", lines, 2))
        if end < begin:
            raise EdgesnnError(f"the board's clock ran from {begin} us back to {end}")
        return Inference(self._scores(lines), (end - begin) / runs)

    def results(self) -> np.ndarray:
        """The last scores again, float64[classes]."""
        return self._scores(self.command("results"))

    def _scores(self, lines: Iterable[str]) -> np.ndarray:
        number = r"\d\.\d{1,9}"
        words = _values("m-results-[", f"{number}(?:,{number})*", "]", lines)[0].split(",")
        if self._classes not in (None, len(words)):
            raise EdgesnnError(
                f"the board tells results of {len(words)} classes, the bundle has {self._classes}; flash its "
                "firmware"
            )
        return np.array([float(word) for word in words])

    def _send(self, words: str) -> None:
        self.said.append(f"> {words}%")
        self._port.write(f"{words}%".encode())

    def _line(self, patience: float) -> str | None:
        """The next line that is not empty; None when nothing comes for so many seconds."""
        while True:
            data = self._port.read_frame(time.monotonic() + patience, ord("\n"))
            if data is None:
                return None
            line = data.decode("ascii", errors="replace").strip("\r\0")
            if line:
                self.said.append(line)
                return line


def _values(head: str, pattern: str, tail: str, lines: Iterable[str], count: int = 1) -> list[str]:
    """What stands between head and tail in the `count` lines where it matches the pattern."""
    whole = f"{re.escape(head)}({pattern}){re.escape(tail)}"
    found = [match[1] for match in (re.fullmatch(whole, line) for line in lines) if match]
    if len(found) != count:
        raise EdgesnnError(
            f"the board has answered {len(found)} sound lines {head}…{tail} instead of {count}; flash the "
            "bundle's firmware, check the cable"
        )
    return found


@contextmanager
def connect(bundle: Bundle, port: str | None = None) -> Iterator[tuple[Device, Board | None]]:
    """The board that runs the bundle's firmware, and its description where it is emulated.

    It is at `port`, else emulated, else looked for among the USB ports. UsageError where the bundle's firmware
    speaks another protocol, EdgesnnError where the board is silent or runs another model.
    """
    if bundle.manifest.get("protocol") != "mlperf-tiny" or bundle.board is None:
        raise UsageError(
            f"{bundle.path} does not speak MLPerf Tiny's protocol; compile it with --board NAME "
            "--protocol mlperf-tiny"
        )
    board = bundle.load_board() or load_board(bundle.board)
    with ExitStack() as stack:
        emulator = None
        if port is None and board.emulator is not None and bundle.firmware is not None:
            emulator = stack.enter_context(Emulator(board, bundle.firmware))
        url = emulator.url if emulator is not None else choose_port(board) if port is None else port
        wire = SerialPort(url, board.uart.baud)
        stack.callback(wire.close)
        device = Device(wire, bundle.classes)
        try:
            _, model = device.greet()
            if model != _shown(bundle.name):
                raise EdgesnnError(
                    f"the board runs {model}, not {bundle.name}; flash the bundle's firmware"
                )
            yield device, board if emulator is not None else None
        except EdgesnnError:
            if emulator is not None:
                emulator.check()  # it may know better
            raise


def _shown(name: str) -> str:
    """A name as the firmware shows it."""
    return re.sub(rb"[^!-~]|[\[\]]", b"?", name.encode()).decode()


def measure(
    device: Device, frames: Iterable[bytes], runs: int = 10, warm_up: int = 1
) -> Iterator[Inference]:
    """Load and infer each frame (samples as esnn_push_frame takes them)."""
    for frame in frames:
        device.load(frame)
        yield device.infer(runs, warm_up)


def report(
    found: Sequence[Inference], labels: np.ndarray, emulated: Board | None
) -> dict[str, Any]:
    """Accuracy (top-1, a fraction), latency in microseconds over the samples, inferences per second.

    emulated: the board whose counter counts instructions; they are told too.
    """
    latency = np.array([each.latency_us for each in found])
    spread = _spread(latency)
    correct = sum(each.label == y for each, y in zip(found, labels, strict=True))
    about: dict[str, Any] = {
        "samples": len(found),
        "accuracy": correct / len(found),
        "latency_us": spread,
        "throughput": 1e6 / spread["median"] if spread["median"] else None,
    }
    if emulated is not None and emulated.counter.unit == "instructions":
        per_us = float(emulated.counter.exact * emulated.counter.hz / 1_000_000)
        about["instructions"] = {name: us * per_us for name, us in spread.items()}
    return about


def _spread(values: np.ndarray) -> dict[str, float]:
    """Of one figure a sample."""
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p90": float(np.percentile(values, 90, method="inverted_cdf")),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def run(
    bundle: Path | str,
    data: str,
    *,
    port: str | None = None,
    samples: int | None = None,
    runs: int = 10,
    warm_up: int = 1,
    out: Path | str | None = None,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """The whole exchange over the first `samples` of a test split; `out`: a file for all that was said.

    port: of the board; without one it is emulated. What is returned: `report`.
    """
    _check_counts(runs, warm_up)
    compiled = Bundle.open(bundle)
    frames, labels = _frames(compiled, data, samples, data_dir)
    with connect(compiled, port) as (device, emulated):
        try:
            found = list(measure(device, frames, runs, warm_up))
        finally:
            if out is not None:
                write_atomic(Path(out), "".join(f"{line}\n" for line in device.said).encode())
    about = {
        "model": compiled.name,
        "board": compiled.board,
        "data": data,
        "emulated": emulated is not None,
    }
    return {**about, "runs": runs, "warm_up": warm_up, **report(found, labels, emulated)}


def export(
    bundle: Path | str,
    data: str,
    folder: Path | str,
    *,
    samples: int | None = None,
    runs: int = 10,
    warm_up: int = 1,
    data_dir: str | None = None,
) -> Path:
    """Write what the benchmark's own runner reads: frames and labels of a test split, a script for each mode.

    An older export is replaced as long as nobody has changed it. UsageError where `folder` holds anything else.
    """
    _check_counts(runs, warm_up)
    compiled, place = Bundle.open(bundle), Path(folder)
    frames, labels = _frames(compiled, data, samples, data_dir)
    check_replaceable(place, _MARKER, _FORMAT, "export", "--export")
    key, model = _shown(compiled.name), re.sub(r"[^\w.-]", "-", compiled.name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".edgesnn-", dir=place.parent) as temporary:
            new = Path(temporary) / "export"
            (new / model).mkdir(parents=True)
            truth = ""
            for i, (frame, label) in enumerate(zip(frames, labels, strict=True)):
                (new / model / f"{i:05}.bin").write_bytes(frame)
                truth += f"{i:05}.bin,{compiled.classes},{label}\n"
            (new / model / _LABELS).write_text(truth, encoding="utf-8")
            few = min(_MEDIAN_OF, len(frames))
            modes = {"accuracy": (len(frames), 1, 0), "performance": (few, runs, warm_up)}
            for mode, (loop, n, w) in modes.items():
                steps = f"    - loop {loop}:\n      - download\n      - infer {n} {w}\n"
                about = f"  name: {model}\n  model: {model}\n  truth_file: {_LABELS}\n  script:\n"
                script = f"{json.dumps(key)}:\n{about}{steps}"
                (new / _SCRIPTS[mode]).write_text(script, encoding="utf-8")
            files = sorted(p for p in new.rglob("*") if p.is_file())
            listed = {p.relative_to(new).as_posix(): sha256(p) for p in files}
            marker = json.dumps({"format": _FORMAT, "files": listed}, indent=1) + "\n"
            (new / _MARKER).write_text(marker, encoding="utf-8")
            replace_folder(new, place)
    except OSError as e:
        raise EdgesnnError(f"cannot write {place}: {e.strerror or e}") from None
    return place


def _check_counts(runs: int, warm_up: int) -> None:
    for name, value, least in (("runs", runs, 1), ("warm-up", warm_up, 0)):
        if not least <= value <= MOST_RUNS:
            raise UsageError(f"--{name} is {value}; choose {least} to {MOST_RUNS}")


def _frames(
    bundle: Bundle, data: str, samples: int | None, data_dir: str | None
) -> tuple[list[bytes], np.ndarray]:
    """The first `samples` of a test split as the board takes them (samples little-endian), int64[n] labels."""
    dataset = load(data, "test", data_dir)
    count = len(dataset) if samples is None else samples
    if not 1 <= count <= len(dataset):
        raise UsageError(f"--samples is {count}; the test split of {data} has {len(dataset)}")
    little = np.dtype(bundle.input_dtype).newbyteorder("<")
    frames = [bundle.check_sample(x).astype(little).tobytes() for x in dataset.x[:count]]
    return frames, dataset.y[:count]


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded(lambda: _main(arguments), "mlperf_tiny")


def _main(arguments: Sequence[str] | None) -> None:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m edgesnn.mlperf_tiny",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help="compiled with --board NAME --protocol mlperf-tiny")
    parser.add_argument("--data", required=True, help="digits, mnist ..., or the path of an .npz")
    parser.add_argument("--port", help="where the board answers; default: it is emulated")
    parser.add_argument("--samples", type=int, help="the first N of the test split; default all")
    parser.add_argument("--runs", type=int, default=10, help="inferences measured per sample (10)")
    parser.add_argument("--warm-up", type=int, default=1, help="inferences before them (1)")
    parser.add_argument("--out", help="write all that was said to this file")
    parser.add_argument(
        "--export",
        metavar="FOLDER",
        help="write what the benchmark's own runner reads, run nothing",
    )
    parser.add_argument("--data-dir", help="where data sets lie; default EDGESNN_DATA")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = vars(parser.parse_args(arguments))
    as_json, folder = args.pop("json"), args.pop("export")
    if folder is not None:
        for name in ("port", "out"):
            args.pop(name)
        print(f"written: {export(args.pop('bundle'), args.pop('data'), folder, **args)}")
        return
    about = run(args.pop("bundle"), args.pop("data"), **args)
    print(json.dumps(about, indent=1) if as_json else _table(about))


def _table(about: dict[str, Any]) -> str:
    emulated = ", emulated" if about["emulated"] else ""
    rows = [
        f"{about['model']} on {about['data']}, {about['board']}{emulated}",
        f"samples              {about['samples']:,}, {about['runs']} inferences each after {about['warm_up']}",
        f"top-1 accuracy       {100 * about['accuracy']:.2f} %",
        f"{'':20} {'mean':>12} {'median':>12} {'90 %':>12} {'least':>12} {'most':>12}",
        _row("latency, us", about["latency_us"], 1),
    ]
    if "instructions" in about:
        rows.append(_row("instructions", about["instructions"], 0))
        rows.append(
            "The emulated board's clock counts instructions: the microseconds are no board's."
        )
    if about["throughput"] is not None:
        rows.append(f"inferences per s     {about['throughput']:,.1f} (of the median)")
    return "\n".join(rows)


def _row(name: str, spread: dict[str, float], digits: int) -> str:
    return f"{name:20} " + " ".join(f"{value:12,.{digits}f}" for value in spread.values())


if __name__ == "__main__":
    sys.exit(main())
