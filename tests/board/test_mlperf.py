"""MLPerf Tiny's serial protocol: the C code on a pipe, with sanitizers, and the firmware on emulated boards."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgesnn.runtime
from edgesnn import mlperf_tiny
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.text import from_text
from edgesnn.mlperf_tiny import Device, connect
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.serial_port import SerialPort
from edgesnn.runtime.session import Session
from edgesnn.targets.board import load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain

HERE = Path(__file__).parent
CORE = Path(next(iter(edgesnn.runtime.__path__))) / "c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
BOOT = ["m-timestamp-mode-performance", "m-lap-us-0", "m-init-done", "m-ready"]
BOARDS = ("mps2-an386", "microbit")

Talk = Callable[..., list[str]]


def scores(label: int, membranes: np.ndarray) -> list[str]:
    """What docs/MLPERF-TINY.md says the results are."""
    u = [int(v) for v in membranes]
    low, span, shift = min(u), max(u) - min(u), 0
    while span >> shift > 0xFFFFFFFF // 999:
        shift += 1
    share = [(v - low >> shift) * 999 // (span >> shift) if span else 0 for v in u]
    share[label] = 1000
    return [f"{v / 1000:.3f}" for v in share]


def load_words(frame: bytes) -> str:
    parts = [frame[at : at + 31].hex() for at in range(0, len(frame), 31)]
    return f"db load {len(frame)}%" + "".join(f"db {part}%" for part in parts)


# --- the C code on a pipe ------------------------------------------------------------------------


def build(folder: Path, *flags: str) -> Path:
    cc = shutil.which("gcc") or shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler on PATH")
    sources = [HERE / "mlperf_pipe.c", HERE / "model.c", CORE / "esnn.c", CORE / "esnn_mlperf.c"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    command = [cc, *STRICT, *sanitize, *flags, "-I", CORE, "-I", HERE, *sources]
    subprocess.run([str(c) for c in [*command, "-o", folder / "pipe"]], check=True)
    return folder / "pipe"


def talked(pipe: Path, data: bytes | str, hz: int, per_reading: int, per_line: int) -> list[str]:
    raw = data if isinstance(data, bytes) else data.encode()
    words = [str(pipe), str(hz), str(per_reading), str(per_line)]
    done = subprocess.run(words, input=raw, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert re.fullmatch(rb"([ -~]*\r\n)*", done.stdout)
    lines = done.stdout.decode().split("\r\n")[:-1]
    assert lines[: len(BOOT)] == BOOT or per_reading
    return lines[len(BOOT) :]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("mlperf"))


@pytest.fixture
def talk(pipe: Path) -> Talk:
    """talk(bytes) -> lines of the answers; time stands still unless told otherwise."""

    def run(data: bytes | str, hz: int = 25_000_000, reading: int = 0, line: int = 0) -> list[str]:
        return talked(pipe, data, hz, reading, line)

    return run


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("", []),
        ("  \r\n\t ", []),
        ("name", ["m-name-dut-[a?board]"]),
        ("\r\nname ", ["m-name-dut-[a?board]"]),
        ("timestamp", ["m-lap-us-0"]),
        (
            "profile",
            ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", "m-model-[test-model]"],
        ),
        ("db", ["e-[db load N, db HH[HH]* or db print]"]),
        ("db load 784", ["m-[Expecting 784 bytes]"]),
        ("db load", ["e-[This model takes frames of 784 bytes: db load 784]"]),
        ("db load 0", ["e-[This model takes frames of 784 bytes: db load 784]"]),
        ("db load 783", ["e-[This model takes frames of 784 bytes: db load 784]"]),
        ("db load 785", ["e-[This model takes frames of 784 bytes: db load 784]"]),
        ("db load -784", ["e-[This model takes frames of 784 bytes: db load 784]"]),
        ("db load 4294968080", ["e-[This model takes frames of 784 bytes: db load 784]"]),
        ("db 00", ["e-[No bytes are expected: db load N first]"]),
        ("db 000", ["e-[An odd number of hexadecimal digits]"]),
        ("db 0g", ["e-[No hexadecimal digit: g]"]),
        ("db print", ["e-[Nothing is loaded there]"]),
        ("db print x", ["e-[db print takes two numbers or fewer]"]),
        ("infer", ["e-[0 of 784 bytes are loaded: db load first]"]),
        ("infer 0", ["e-[infer N W takes N from 1 and W from 0, up to 1000000]"]),
        ("infer -1", ["e-[infer N W takes N from 1 and W from 0, up to 1000000]"]),
        ("infer 1 -1", ["e-[infer N W takes N from 1 and W from 0, up to 1000000]"]),
        ("infer 1 1000001", ["e-[infer N W takes N from 1 and W from 0, up to 1000000]"]),
        ("infer 1000001 0", ["e-[infer N W takes N from 1 and W from 0, up to 1000000]"]),
        ("results", ["e-[No results yet: infer first]"]),
        ("bogus", ["e-[Unknown command: bogus]"]),
        ("names", ["e-[Unknown command: names]"]),
        ("NAME", ["e-[Unknown command: NAME]"]),
        ("m-[a]\x7fb", ["e-[Unknown command: m-?a??b]"]),
        ("x" * 80, ["e-[Unknown command: " + "x" * 80 + "]"]),
        ("x" * 81, ["e-[A command has at most 80 characters]"]),
        ("name" + " " * 1000, ["e-[A command has at most 80 characters]"]),
    ],
)
def test_a_command_alone(talk: Talk, command: str, answer: list[str]) -> None:
    assert talk(f"{command}%") == [*answer, "m-ready"]


def test_help_names_every_command(talk: Talk) -> None:
    lines = talk("help%")
    assert lines[-1] == "m-ready"
    for name in (
        "name",
        "timestamp",
        "profile",
        "db load",
        "db HH",
        "db print",
        "infer",
        "results",
    ):
        assert any(line.startswith(name) for line in lines)


def test_inference(talk: Talk, reference: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    exits = set()
    for n in range(20):
        sample = rng.integers(0, 256 - 10 * n, (28, 28, 1)).astype(np.uint8)
        want = reference(sample)
        exits.add((want.step, want.exited))
        results = f"m-results-[{','.join(scores(want.label, want.membranes))}]"
        lines = talk(load_words(sample.tobytes()) + f"infer {n + 1} {n}%results%infer%")
        assert lines[:2] == ["m-[Expecting 784 bytes]", "m-ready"]
        assert lines[2:28] == ["m-ready"] * 25 + ["m-load-done"]
        laps = ["m-lap-us-0", "m-lap-us-0", "m-infer-done", results, "m-ready"]
        assert lines[28:] == [
            "m-ready",
            *(f"m-warmup-start-{n}", "m-warmup-done", f"m-infer-start-{n + 1}", *laps),
            *(results, "m-ready"),
            *("m-warmup-start-10", "m-warmup-done", "m-infer-start-1", *laps),
        ]
        values = [float(v) for v in results[11:-1].split(",")]
        assert int(np.argmax(values)) == want.label and sum(v == 1 for v in values) == 1
    assert len(exits) > 1


@pytest.mark.parametrize(
    "membranes",
    [
        [-(2**31)] + [2**31 - 1] * 11,
        [2**31 - 1, -(2**31), *range(-5, 5)],
        [-7] * 12,
        [4_299_265, 0, 4_299_264, *range(9)],
    ],
)
def test_scores_of_any_membranes(tmp_path: Path, membranes: list[int]) -> None:
    flag = "-DTEST_MEMBRANES=" + ",".join(f"(int32_t){v}LL" for v in membranes)
    pipe = build(tmp_path, flag)
    lines = talked(pipe, load_words(bytes(784)) + "infer 1 0%", 1000, 0, 0)
    label = int(np.argmax(membranes))
    assert f"m-results-[{','.join(scores(label, np.array(membranes)))}]" in lines


def test_time(talk: Talk) -> None:
    """To the microsecond at any rate, over wraps of the counter and beyond 2^32 microseconds."""
    rng = random.Random(3)
    for hz in (25_000_000, 1_000_000_000, 2**31 - 1, 16_000_000, 32_768, 1_000_000, 32_000_000):
        step = rng.randrange(min(2**32, 900 * hz))
        lines = talk("\n" * 10 + "timestamp%\ntimestamp%" + "\n" * 200 + "timestamp%", hz, 0, step)
        assert lines[::2] == [f"m-lap-us-{n * step * 10**6 // hz}" for n in (10, 11, 211)]


def test_what_is_timed(talk: Talk) -> None:
    """The runs between the stamps: with one tick a reading, the readings between nodes and none of sending."""
    frame = load_words(bytes([255]) * 784)
    laps = []
    for runs in (1, 2, 50):
        lines = talk(frame + f"infer {runs} 3%", 1_000_000, 1, 0)
        begin, end = (int(line[9:]) for line in lines if line.startswith("m-lap"))
        laps.append(end - begin)
    assert laps == [8 * n + 1 for n in (1, 2, 50)]  # four steps of two nodes


def test_db(talk: Talk) -> None:
    """Bytes come in whatever pieces; a faulty command adds none; what is too much is left out."""
    frame = bytes(random.Random(4).randrange(256) for _ in range(784))
    good = [frame[:5].hex(), frame[5:43].hex().upper(), frame[43:45].hex()]
    said = "db load 784%" + "".join(f"db {part}%" for part in good)
    assert talk(said + "db 0%db 12zz%db print%")[-11:] == [
        "e-[An odd number of hexadecimal digits]",
        "m-ready",
        "e-[No hexadecimal digit: z]",
        "m-ready",
        *("m-buffer-" + frame[at : min(at + 8, 45)].hex("-") for at in range(0, 45, 8)),
        "m-ready",
    ]
    rest = "".join(f"db {frame[at : at + 38].hex()}%" for at in range(45, 784, 38))
    lines = talk(
        said + "infer%" + rest + "db print 3 782%db print 9%db print 0%db print 1 784%db 00%"
    )
    assert "e-[45 of 784 bytes are loaded: db load first]" in lines
    assert lines[-12:] == [
        *("m-load-done", "m-ready"),
        *("m-buffer-" + frame[782:].hex("-"), "m-ready"),
        *("m-buffer-" + frame[:8].hex("-"), "m-buffer-" + frame[8:9].hex(), "m-ready"),
        "m-ready",
        *("e-[Nothing is loaded there]", "m-ready"),
        *("e-[No bytes are expected: db load N first]", "m-ready"),
    ]
    # A new load forgets the old one; the last results stay.
    lines = talk(load_words(frame) + "infer 1 0%db load 784%infer%results%")
    assert lines[-4] == "e-[0 of 784 bytes are loaded: db load first]"
    assert lines[-2].startswith("m-results-[")


def test_a_large_frame(tmp_path: Path) -> None:
    """Longer than the most iterations of a command."""
    pipe = build(tmp_path, "-DTEST_FRAME_BYTES=1200000u")
    frame = bytes(range(250)) * 4800
    lines = talked(pipe, load_words(frame) + "db print 3 1199997%db load 12000000%", 1000, 0, 0)
    assert lines[0] == "m-[Expecting 1200000 bytes]"
    assert lines[-6:-3] == ["m-load-done", "m-ready", "m-buffer-f7-f8-f9"]
    assert lines[-2] == "e-[This model takes frames of 1200000 bytes: db load 1200000]"


def test_noise_never_hangs_or_breaks_it(talk: Talk, reference: Callable[..., Any]) -> None:
    rng = random.Random(5)
    words = [
        b"name",
        b"db ",
        b"load ",
        b"784",
        b"print ",
        b"infer ",
        b"1 ",
        b"results",
        b"ff",
        b"%",
    ]
    data = bytearray()
    for _ in range(3000):
        data += rng.choice(words) if rng.randrange(3) else rng.randbytes(rng.randrange(12))
        if not rng.randrange(200):
            data += b"z" * rng.randrange(5000)
    sample = np.arange(784, dtype=np.uint8).reshape(28, 28, 1)
    want = reference(sample)
    lines = talk(bytes(data) + b"%" + load_words(sample.tobytes()).encode() + b"infer 1 0%")
    assert lines[-1] == "m-ready"
    assert lines[-2] == f"m-results-[{','.join(scores(want.label, want.membranes))}]"
    assert sum(line == "m-ready" for line in lines) == data.count(b"%") + 29
    assert sum(line.startswith("e-[") for line in lines) > 100


# --- firmware on emulated boards -----------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(golden: Path) -> list[dict[str, Any]]:
    found = json.loads((golden / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert found
    return list(found)


@pytest.fixture(scope="module")
def bundles(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """The golden program of samples with this protocol, for a board."""
    pytest.importorskip("tvm")
    program = from_text((golden / "samples.program").read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("mlperf")
    built: dict[str, Bundle] = {}

    def build(name: str) -> Bundle:
        emulator = load_board(name).emulator
        if emulator is None or shutil.which(emulator.program) is None:
            pytest.skip(f"no emulator of {name} is on PATH")
        if name not in built:
            out = folder / name
            built[name] = compile_program(program, board=name, out=out, protocol="mlperf-tiny")
        return built[name]

    return build


@pytest.fixture(params=BOARDS)
def bundle(request: pytest.FixtureRequest, bundles: Callable[[str], Bundle]) -> Bundle:
    return bundles(request.param)


@pytest.fixture
def device(bundle: Bundle) -> Iterator[Device]:
    with connect(bundle) as (found, _):
        yield found


def as_bytes(bundle: Bundle, sample: dict[str, Any]) -> bytes:
    frame = np.array(sample["frame"]).reshape(bundle.input_shape)
    return bundle.check_sample(frame).tobytes()


def test_every_sample_on_a_board(
    bundle: Bundle, device: Device, samples: list[dict[str, Any]]
) -> None:
    """The interpreter's answers, as the golden file has them."""
    for sample in samples:
        device.load(as_bytes(bundle, sample))
        found = device.infer(3, 1)
        assert found.label == sample["label"]
        want = scores(sample["label"], np.array(sample["membranes"]))
        assert found.scores.tolist() == [float(v) for v in want]
        assert found.latency_us > 0
        assert device.results().tolist() == found.scores.tolist()
    assert len({sample["step"] for sample in samples}) > 1


def test_every_command_on_a_board(
    bundle: Bundle, device: Device, samples: list[dict[str, Any]]
) -> None:
    frame = as_bytes(bundle, samples[-1])
    assert device.command("name") == [f"m-name-dut-[{bundle.board}]"]
    assert device.command("profile")[1] == f"m-model-[{bundle.name}]"
    assert len(device.command("help")) > 5
    with pytest.raises(EdgesnnError, match=r"0 of 64 bytes are loaded"):
        device.command("infer")
    device.load(frame)
    dump = [line.removeprefix("m-buffer-") for line in device.command("db print")]
    assert bytes.fromhex("".join(dump).replace("-", "")) == frame
    assert len(device.command("infer")) == 7
    assert device.command("results")[0].startswith("m-results-[")
    for bad in ("bogus", "db zz", "db load 7", "infer 0", "x" * 200, "db 00"):
        with pytest.raises(EdgesnnError, match=r"refused .* e-\["):
            device.command(bad)
    first, second = (int(device.command("timestamp")[0][9:]) for _ in range(2))
    assert first < second


def test_half_a_command_of_another_program(bundles: Callable[[str], Bundle]) -> None:
    bundle = bundles(BOARDS[0])
    assert bundle.firmware is not None
    with Emulator(load_board(BOARDS[0]), bundle.firmware) as emulator:
        port = SerialPort(emulator.url, 115_200)
        port.write(b"\x00\xff\x81db 0012%" + b"q" * 300)
        assert Device(port).greet() == (BOARDS[0], bundle.name)
        port.close()


def test_the_time_is_that_of_the_usual_firmware(
    bundles: Callable[[str], Bundle], board_bundle: Bundle, samples: list[dict[str, Any]]
) -> None:
    """Within what the counter's resolution, copying the frame and reading the counter more often cost."""
    bundle, hz = bundles("mps2-an386"), load_board("mps2-an386").counter.hz
    with Session(board_bundle) as session, connect(bundle) as (device, _):
        for sample in samples[:6]:
            frame = np.array(sample["frame"]).reshape(bundle.input_shape)
            ticks = session.engine.infer(frame).ticks
            device.load(as_bytes(bundle, sample))
            assert ticks is not None
            more = device.infer(100, 1).latency_us * hz / 1e6 - ticks
            assert -1 <= more < 10 + 6 * sample["step"]


def crashing_firmware(folder: Path, watchdog: int | None, crash: str = "-DTEST_CRASH") -> Path:
    """The hand-written model, stopped by a fault in its first step or in esnn_init, behind this protocol."""
    board = load_board("mps2-an386")
    assert board.watchdog is not None
    support = (*board.sources, *([board.watchdog.source] if watchdog else []))
    tools = find_toolchain(find_target(board.target))
    (folder / "link.ld").write_text(board.linker_script())
    own = (HERE / "model.c", *(CORE / f for f in ("esnn.c", "esnn_mlperf.c", "firmware_mlperf.c")))
    flags = ["-O2", *board.cflags, *STRICT, crash, '-DBSP_BOARD="crash"']
    flags += [f"-I{place}" for place in (*board.includes, CORE, HERE)]
    flags += [f"-DBSP_WATCHDOG_MS={watchdog}u"] if watchdog else []
    objects = [f"{i}.o" for i in range(len(own) + len(support))]
    for source, out in zip((*own, *support), objects, strict=True):
        tools.compile(str(source), out, flags, folder)
    link = [*board.ldflags, "-Wl,--wrap=bsp_wait", "-T", "link.ld"]
    tools.link([*objects, *tools.support], "firmware.elf", link, folder)
    return folder / "firmware.elf"


@pytest.mark.usefixtures("emulator_program")
@pytest.mark.parametrize("watchdog", [None, 20])
def test_a_fault_is_told(tmp_path: Path, watchdog: int | None) -> None:
    """After every command; with a watchdog once, before the board is reset. Waiting does not set it off."""
    with Emulator(load_board("mps2-an386"), crashing_firmware(tmp_path, watchdog)) as emulator:
        port = SerialPort(emulator.url, 115_200)
        device = Device(port)
        assert device.greet() == ("crash", "test-model")
        device.load(bytes(784))
        while watchdog and int(device.command("timestamp")[0][9:]) < 3000 * watchdog:
            pass
        assert device.said.count("m-init-done") == 1
        port.write(b"infer 1 0%" if watchdog else b"infer 1 0%name%")
        told: list[str] = []
        while told.count("m-init-done") + sum(line.startswith("e-[") for line in told) < 2:
            data = port.read_frame(time.monotonic() + 20, ord("\n"))
            assert data is not None
            told.append(data.decode().strip("\r"))
        port.close()
    faults = [line for line in told if line.startswith("e-[")]
    assert len(set(faults)) == 1 and len(faults) == (1 if watchdog else 2)
    words = r"( (pc|lr|exception|fault|sp) 0x[0-9a-f]{8}){5}"
    assert re.fullmatch(rf"e-\[The processor has stopped:{words}\]", faults[0])


@pytest.mark.usefixtures("emulator_program")
@pytest.mark.parametrize("watchdog", [None, 20])
def test_a_fault_before_all_else_is_told(tmp_path: Path, watchdog: int | None) -> None:
    """With a watchdog again and again: it resets the board."""
    elf = crashing_firmware(tmp_path, watchdog, "-DTEST_CRASH_EARLY")
    with Emulator(load_board("mps2-an386"), elf) as emulator:
        port = SerialPort(emulator.url, 115_200)
        for _ in range(3 if watchdog else 1):
            data = b""
            while not data.startswith(b"e-[The processor has stopped: pc 0x"):
                found = port.read_frame(time.monotonic() + 5, ord("\n"))
                assert found is not None
                data = found
        port.close()


# --- what the tools say --------------------------------------------------------------------------


def test_what_cannot_be_compiled(golden: Path, tmp_path: Path) -> None:
    samples, events = (
        from_text((golden / f"{name}.program").read_text(encoding="utf-8"))
        for name in ("samples", "events")
    )
    for program, options, message in (
        (
            samples,
            {"board": "microbit", "protocol": "mlperf"},
            "choose one of: edgesnn, mlperf-tiny",
        ),
        (samples, {"target": "cpu", "protocol": "mlperf-tiny"}, "name a --board"),
        (samples, {"target": "cortex-m4", "protocol": "mlperf-tiny"}, "name a --board"),
        (events, {"board": "microbit", "protocol": "mlperf-tiny"}, "takes events"),
    ):
        with pytest.raises(UsageError, match=message):
            compile_program(program, out=tmp_path / "b", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "b").exists()


def test_each_tool_refuses_the_others_bundle(
    bundles: Callable[[str], Bundle], board_bundle: Bundle
) -> None:
    with pytest.raises(UsageError, match=r"use `python -m edgesnn.mlperf_tiny`"):
        Session(bundles(BOARDS[0]))
    with pytest.raises(UsageError, match="--protocol mlperf-tiny"), connect(board_bundle):
        pass


def test_the_driver(
    bundles: Callable[[str], Bundle],
    samples: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = bundles(BOARDS[0])
    x = np.array([s["frame"] for s in samples], np.uint8).reshape(-1, *bundle.input_shape)
    y = np.array([s["label"] for s in samples])
    y[0] = (y[0] + 1) % bundle.classes
    every = np.arange(len(x)) % bundle.classes
    np.savez(tmp_path / "data.npz", x_train=x, y_train=every, x_test=x, y_test=y)
    words = [str(bundle.path), "--data", str(tmp_path / "data.npz"), "--runs", "2"]
    assert mlperf_tiny.main([*words, "--out", str(tmp_path / "said.txt"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    n = len(samples)
    assert about["accuracy"] == (n - 1) / n and about["samples"] == n
    spread = about["latency_us"]
    assert 0 < spread["min"] <= spread["median"] <= spread["p90"] <= spread["max"]
    assert about["throughput"] == pytest.approx(1e6 / spread["median"])
    assert about["instructions"]["mean"] == pytest.approx(1000 * spread["mean"])
    said = (tmp_path / "said.txt").read_text().splitlines()
    assert said[0] == "> %" and said.count("> infer 2 1%") == n
    assert mlperf_tiny.main([*words, "--samples", "3"]) == 0
    assert "66.67 %" in capsys.readouterr().out
    for _ in range(2):  # the second time in place of the first
        assert mlperf_tiny.main([*words, "--export", str(tmp_path / "x"), "--samples", "5"]) == 0
        capsys.readouterr()
    folder = tmp_path / "x" / bundle.name
    truth = (folder / "y_labels.csv").read_text().splitlines()
    assert truth == [f"{i:05}.bin,{bundle.classes},{y[i]}" for i in range(5)]
    assert (folder / "00004.bin").read_bytes() == as_bytes(bundle, samples[4])
    script = (tmp_path / "x" / "tests_performance.yaml").read_text()
    assert script.startswith(f'"{bundle.name}":\n') and "      - infer 2 1\n" in script
    # Fewer samples than are asked for: the runner is not to look for a sixth.
    assert mlperf_tiny.main([*words, "--export", str(tmp_path / "few"), "--samples", "2"]) == 0
    assert "loop 2" in (tmp_path / "few" / "tests_performance.yaml").read_text()
    # The runner's own folder has a script of that name.
    runner = tmp_path / "runner"
    runner.mkdir()
    (runner / "tests_accuracy.yaml").write_text("theirs")
    (tmp_path / "x" / "notes.txt").write_text("mine")
    capsys.readouterr()
    for bad, code, message in (
        (["--samples", "0"], 2, "--samples is 0"),
        (["--samples", "999"], 2, f"has {n}"),
        (["--runs", "0"], 2, "choose 1 to 1000000"),
        (["--export", "."], 2, "current folder"),
        (["--export", str(tmp_path)], 2, "holds other files"),
        (["--export", str(runner)], 2, f"{runner} holds other files; choose another --export"),
        (["--export", str(tmp_path / "x")], 2, "notes.txt is not part of the export; choose"),
        (["--port", ""], 2, "the port has no name"),
        (["--port", "/dev/no-such-port"], 1, "no port /dev/no-such-port"),
        (["--data", str(tmp_path / "none.npz")], 1, "none.npz"),
    ):
        assert mlperf_tiny.main([*words, *bad]) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert (runner / "tests_accuracy.yaml").read_text() == "theirs"
    assert (tmp_path / "x" / "notes.txt").read_text() == "mine"


class Said:
    """A port with a board behind it that answers the same whatever it is told."""

    def __init__(self, *lines: str) -> None:
        self._lines, self._left = lines, list[str]()

    def write(self, data: bytes) -> None:
        self._left = [*self._lines, "m-ready"]

    def read_frame(self, deadline: float, end: int) -> bytes | None:
        return self._left.pop(0).encode() if self._left else None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["m-lap-us-7", "m-lap-us-6", "m-results-[1.0,0.5]"], "from 7 us back to 6"),
        (["m-lap-us-1", "m-lap-us-" + "9" * 5000], "1 sound lines m-lap-us-… instead of 2"),
        (["m-lap-us-1"], "1 sound lines m-lap-us-… instead of 2"),
        (["m-lap-us-1", "m-lap-us-2"], "0 sound lines m-results-[…] instead of 1"),
        (["m-lap-us-1", "m-lap-us-2", "m-results-[1.0]"], "results of 1 classes, the bundle has 2"),
        (["m-lap-us-1", "m-lap-us-2", "m-results-[1.0,.]"], "0 sound lines m-results-[…]"),
        (["m-lap-us-1", "m-lap-us-2", "m-results-[1..0,1.0]"], "0 sound lines m-results-[…]"),
        (["e-[No]"], "refused `infer 1 0%`: e-[No]"),
    ],
)
def test_answers_that_make_no_sense(lines: list[str], message: str) -> None:
    device = Device(Said(*lines), 2)  # type: ignore[arg-type]
    with pytest.raises(EdgesnnError, match=re.escape(message)):
        device.infer(1, 0)
    sound = Device(Said("m-lap-us-5", "m-lap-us-9", "m-results-[0.5,1.0]"), 2)  # type: ignore[arg-type]
    assert sound.infer(2, 0).latency_us == 2


def test_a_board_that_says_nothing(
    bundles: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlperf_tiny, "_GREETINGS", 1)
    with pytest.raises(EdgesnnError, match="nobody speaks"), connect(bundles(BOARDS[0]), "loop://"):
        pass
