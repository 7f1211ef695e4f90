"""Bad input to every command: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn import cli
from edgesnn.runtime.bundle import Bundle

DEAD_PORT = "socket://127.0.0.1:1"


@pytest.fixture(autouse=True)
def nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, and find it empty afterwards."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    left = sorted(p.name for p in folder.rglob("*"))
    assert left == [], left


COMMANDS_ON_A_BUNDLE: list[tuple[str, ...]] = [
    ("run", "--data", "digits"),
    ("verify", "--data", "digits"),
    ("stream", "--source", "-"),
    ("profile", "--data", "digits"),
    ("inspect",),
    ("compile", "--target", "cpu"),
]


@pytest.mark.parametrize("words", COMMANDS_ON_A_BUNDLE, ids=lambda words: words[0])
def test_missing_file(words: tuple[str, ...], run: Any) -> None:
    assert "there is no" in run(words[0], "nothing", *words[1:]).error(1)


def _drop_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _cut_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def _empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def _poor_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["nodes"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _alter_library(folder: Path) -> None:
    library = folder / "lib" / "libmodel.so"
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(bytes(data))


def _drop_program(folder: Path) -> None:
    (folder / "model.esnn").unlink()


DAMAGES: list[Callable[[Path], None]] = [
    _drop_manifest,
    _cut_manifest,
    _empty_manifest,
    _poor_manifest,
    _alter_library,
    _drop_program,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("words", COMMANDS_ON_A_BUNDLE, ids=lambda words: words[0])
def test_damaged_bundle(
    words: tuple[str, ...], damage: Callable[[Path], None], run: Any, copy: Path
) -> None:
    damage(copy)
    said = run(words[0], copy, *words[1:]).error(1)
    assert str(copy) in said and "compile" in said


@pytest.mark.parametrize("command", [("inspect",), ("compile", "--target", "cpu")])
@pytest.mark.parametrize("kind", ["pt", "esnn"])
@pytest.mark.parametrize("how", ["cut", "altered", "empty", "text", "folder"])
def test_damaged_model(
    how: str,
    kind: str,
    command: tuple[str, ...],
    run: Any,
    checkpoint: Path,
    host_bundle: Bundle,
    tmp_path: Path,
) -> None:
    good = (checkpoint if kind == "pt" else host_bundle.program_path).read_bytes()
    path = tmp_path / f"model.{kind}"
    if how == "folder":
        path.mkdir()
    elif how == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif how == "altered":
        # Inside the first stored array: the archive's checksum must notice.
        middle = bytearray(good)
        for i in range(len(good) // 3, len(good) // 3 + 40):
            middle[i] ^= 0x55
        path.write_bytes(bytes(middle))
    else:
        path.write_bytes(b"" if how == "empty" else b"not a model\n")
    said = run(command[0], path, *command[1:]).error(1)
    assert str(path) in said


def test_a_pickle_is_not_loaded(run: Any, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "trapped"),))

    path = tmp_path / "trap.pt"
    path.write_bytes(pickle.dumps(Trap()))
    run("compile", path, "--target", "cpu").error(1)
    assert not (tmp_path / "trapped").exists()


def test_model_of_no_known_kind(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    assert "neither" in run("inspect", path).error(2)


def _npz(path: Path, x: np.ndarray) -> Path:
    y = np.maximum(np.arange(len(x)) - len(x) + 5, 0)  # the last is of class 4
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return path


@pytest.mark.parametrize("command", ["run", "verify", "profile"])
def test_wrong_shape_and_dtype(command: str, run: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    big = _npz(tmp_path / "big.npz", np.zeros((6, 9, 9), dtype=np.uint8))
    said = run(command, host_bundle.path, "--data", big).error(2)
    assert "9x9x1" in said and "8x8x1" in said
    real = _npz(tmp_path / "real.npz", np.zeros((6, 8, 8), dtype=np.float32))
    assert "float32" in run(command, host_bundle.path, "--data", real).error(1)
    run(command, host_bundle.path, "--data", tmp_path / "no.npz").error(1)
    (tmp_path / "bad.npz").write_bytes(b"PK not an archive")
    run(command, host_bundle.path, "--data", tmp_path / "bad.npz").error(1)
    unknown = run(command, host_bundle.path, "--data", "cats").error(2)
    assert "digits" in unknown and "mnist" in unknown
    assert "train" in run(command, host_bundle.path, "--data", "digits", "--split", "x").error(2)
    run(command, host_bundle.path, "--data", "digits", "--samples", 0).error(2)
    run(command, host_bundle.path, "--data", "digits", "--samples", 10**6).error(2)


def test_stream_wrong_frames(run: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    for array, code in ((np.zeros((3, 9, 9), np.uint8), 2), (np.zeros((3, 8, 8)), 2)):
        np.save(path, array)
        run("stream", host_bundle.path, "--source", path).error(code)
    path.write_bytes(b"\x93NUMPY cut")
    run("stream", host_bundle.path, "--source", path).error(1)
    run("stream", host_bundle.path, "--source", tmp_path / "no.npy").error(1)
    run("stream", host_bundle.path, "--source", tmp_path / "sound.mp3").error(2)
    run("stream", host_bundle.path, "--source", "serial:///dev/no-such-port").error(1)
    run("stream", host_bundle.path, "--source", DEAD_PORT).error(1)
    said = run("stream", host_bundle.path, "--source", "-", "--policy", "hope").error(2)
    assert "drop-oldest" in said
    run("stream", host_bundle.path, "--source", "-", "--capacity", 0).error(2)
    run("stream", host_bundle.path, "--source", "-", "--samples", 0).error(2)


def test_unknown_names(run: Any, checkpoint: Path, host_bundle: Bundle) -> None:
    assert "cortex-m4" in run("compile", checkpoint, "--target", "z80").error(2)
    assert "mps2-an386" in run("compile", checkpoint, "--board", "abacus").error(2)
    assert "mps2-an386" in run("verify", host_bundle.path, "--board", "abacus").error(2)
    assert "--target" in run("compile", checkpoint).error(2)
    wrong = ("--target", "cpu", "--board", "mps2-an386")
    assert "cortex-m4" in run("compile", checkpoint, *wrong).error(2)
    assert "llvm" in run("compile", checkpoint, "--target", "cpu", "--codegen", "x").error(2)
    run("compile", checkpoint, "--target", "cpu", "--weight-bits", 9).error(2)
    assert "mcu-mlp" in run("train", "--net", "gpt", "--data", "digits").error(2)
    assert "latency" in run(
        "train", "--net", "mcu-mlp", "--data", "digits", "--coding", "morse"
    ).error(2)
    assert "digits" in run("train", "--net", "mcu-mlp", "--data", "cats").error(2)


def test_bundle_board_and_port_must_fit(
    run: Any, host_bundle: Bundle, board_bundle: Bundle
) -> None:
    assert "this machine" in run("verify", host_bundle.path, "--board", "mps2-an386").error(2)
    assert "this machine" in run("verify", host_bundle.path, "--port", DEAD_PORT).error(2)


@pytest.mark.parametrize("words", COMMANDS_ON_A_BUNDLE[:4], ids=lambda words: words[0])
def test_dead_port(words: tuple[str, ...], run: Any, board_bundle: Bundle) -> None:
    for port in (DEAD_PORT, "/dev/no-such-port", "nonsense://x"):
        said = run(words[0], board_bundle.path, *words[1:], "--port", port).error(1)
        assert port in said


def test_missing_emulator(fresh: Any, board_bundle: Bundle, tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    said = fresh("verify", board_bundle.path, env=env).error(1)
    assert "qemu-system-arm" in said and "apt-get" in said


def test_missing_compiler(fresh: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path), "EDGESNN_TOOLCHAIN": "gcc"}
    program = host_bundle.program_path
    said = fresh("compile", program, "--board", "mps2-an386", env=env).error(1)
    assert "arm-none-eabi-gcc" in said and "apt-get" in said
    fresh("compile", program, "--target", "cpu", env=env).error(1)


@pytest.mark.parametrize(
    ("package", "extra"), [("tvm", "compile"), ("torch", "train"), ("serial", "boards")]
)
def test_missing_extra(
    package: str,
    extra: str,
    fresh: Any,
    host_bundle: Bundle,
    board_bundle: Bundle,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    """What pip would have brought is named with the command that brings it."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    text = f"raise ModuleNotFoundError('no {package}', name='{package}')\n"
    (blocked / f"{package}.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(blocked)}
    words: tuple[object, ...] = {
        "tvm": ("compile", host_bundle.program_path, "--target", "cpu"),
        "torch": ("inspect", checkpoint),
        "serial": ("verify", board_bundle.path, "--port", DEAD_PORT),
    }[package]
    said = fresh(*words, env=env).error(1)
    assert "pip install" in said and f"edgesnn[{extra}]" in said


def test_outputs_that_are_not_ours_are_kept(
    run: Any, checkpoint: Path, host_bundle: Bundle, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear reader")
    file = tmp_path / "file"
    file.write_text("dear reader")
    for out in (mine, file):
        run("compile", checkpoint, "--target", "cpu", "--out", out).error(2)
        run("profile", host_bundle.path, "--samples", 1, "--out", out).error(2)
    train = ("train", "--net", "mcu-mlp", "--data", "digits", "--epochs", 1, "--out")
    assert run(*train, file).error(1)
    # A folder of ours in which somebody has put a file: that file is not thrown away.
    report = tmp_path / "report"
    assert run("profile", host_bundle.path, "--samples", 1, "--out", report).code == 0
    (report / "notes.txt").write_text("dear reader")
    run("profile", host_bundle.path, "--samples", 1, "--out", report).error(2)
    texts = [mine / "letter.txt", file, report / "notes.txt"]
    assert [t.read_text() for t in texts] == ["dear reader"] * 3
    assert {p.name for p in tmp_path.iterdir()} == {"mine", "file", "report", "here"}


def test_output_that_cannot_be_written(run: Any, checkpoint: Path, host_bundle: Bundle) -> None:
    out = "/proc/edgesnn/out"
    run("compile", checkpoint, "--target", "cpu", "--out", out).error(1)
    run("profile", host_bundle.path, "--samples", 1, "--out", out).error(1)


def test_a_name_that_no_file_can_have(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = "a" * 300 + ".toml"
    assert run("boards", long).error(2).startswith(f"there is no board file {long}")
    monkeypatch.setenv("EDGESNN_BOARDS", long)
    assert f"names {long}, which is not a folder" in run("boards").error(2)
    monkeypatch.setattr(cli, "_dispatch", lambda _: (tmp_path / long).stat())
    assert run("boards").error(1) == f"{tmp_path / long}: File name too long"


@pytest.mark.parametrize("words", [("targets",), ("targets", "--json"), ("--help",)])
def test_nobody_has_opened_standard_output(
    run: Any, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    done = run(*words)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_unexpected_failures_are_one_line_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("1 over\n0")

    monkeypatch.setattr("edgesnn.api.inspect", broken)
    said = run("inspect", "x").error(1)
    assert "ZeroDivisionError: 1 over 0" in said and "EDGESNN_DEBUG=1" in said
    monkeypatch.setenv("EDGESNN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("inspect", "x")


def test_nothing_of_a_failed_compile_stays(
    run: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old bundle survives a compile that fails half-way."""
    from edgesnn.compiler import build

    out = tmp_path / "bundle"
    assert run("compile", checkpoint, "--target", "cpu", "--out", out).code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build._Build, "_write_manifest", broken)
    outcome = run("compile", checkpoint, "--target", "cpu", "--out", out)
    assert outcome.code == 130 and "Traceback" not in outcome.err
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", "here"}
