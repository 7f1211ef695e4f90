"""Compilation: reproducible, honest about memory, careful with what lies in its way."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

import edgesnn.compiler.build as build_module
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.compare import decision_difference
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.compiler.text import from_text
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.files import replace_folder
from edgesnn.runtime.host import HostEngine
from edgesnn.runtime.session import Session
from edgesnn.targets.board import Board, Region, load_board
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.stack import worst_case_stack

PROGRAM = random_program(3)
has_arm = shutil.which("arm-none-eabi-gcc") is not None
needs_arm = pytest.mark.skipif(not has_arm, reason="needs arm-none-eabi-gcc")


def _files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("codegen", ["c", "llvm"])
def test_two_host_compiles_are_byte_identical(codegen: str, tmp_path: Path) -> None:
    compile_program(PROGRAM, "cpu", out=tmp_path / "a", codegen=codegen)
    (tmp_path / "elsewhere").mkdir()
    compile_program(PROGRAM, "cpu", out=tmp_path / "elsewhere" / "b", codegen=codegen)
    a, b = _files(tmp_path / "a"), _files(tmp_path / "elsewhere" / "b")
    assert len(a) > 8
    assert a == b


@needs_arm
def test_two_firmware_compiles_are_byte_identical_and_sizes_agree(tmp_path: Path) -> None:
    first = compile_program(PROGRAM, board="mps2-an386", out=tmp_path / "a")
    compile_program(PROGRAM, "cortex-m", board="mps2-an386", out=tmp_path / "b")
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    # binutils' own account of the linked image: text = flash, data + bss = RAM with the stack's reserve.
    out = subprocess.run(
        ["arm-none-eabi-size", str(first.firmware)], capture_output=True, text=True, check=True
    ).stdout
    text, data, bss = (int(v) for v in out.splitlines()[1].split()[:3])
    memory = first.manifest["memory"]
    assert memory["flash_bytes"] == text + data
    assert memory["ram_bytes"] + memory["stack_reserved_bytes"] == data + bss
    assert memory["ram_bytes"] >= memory["arena_bytes"]
    assert 0 < memory["stack_bytes"] < memory["stack_reserved_bytes"]
    binary = (tmp_path / "a" / "firmware.bin").read_bytes()
    assert len(binary) == memory["flash_bytes"]


def _cut(board: Board, *, flash: int = 0, ram: int = 0) -> Board:
    """The board with so much less of its memory."""
    return replace(
        board,
        flash=Region(board.flash.origin, board.flash.length - flash),
        ram=Region(board.ram.origin, board.ram.length - ram),
    )


@needs_arm
@pytest.mark.parametrize(
    ("name", "toolchain"), [("mps2-an386", "gcc"), ("mps2-an386", "zig"), ("riscv-virt", "gcc")]
)
def test_firmware_that_does_not_fit_is_refused_with_region_and_excess(
    name: str, toolchain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if toolchain == "zig":
        pytest.importorskip("ziglang")
    if name == "riscv-virt" and shutil.which("riscv64-unknown-elf-gcc") is None:
        pytest.skip("needs riscv64-unknown-elf-gcc")
    board = load_board(name)
    out = tmp_path / "b"

    def build(on: Board) -> Bundle:
        monkeypatch.setattr(build_module, "load_board", lambda _: on)
        return compile_program(PROGRAM, board=name, out=out, toolchain=toolchain)

    whole = build(board)
    images = _files(out)
    assert not any("trial" in file for file in images)
    with whole.firmware.open("rb") as f:  # type: ignore[union-attr]
        elf = ELFFile(f)
        loads = [s for s in elf.iter_segments("PT_LOAD") if s["p_filesz"]]
        flash = max(s["p_paddr"] + s["p_filesz"] for s in loads) - board.flash.origin
        ram = max(s["sh_addr"] + s["sh_size"] for s in elf.iter_sections()) - board.ram.origin
    spare = {"flash": board.flash.length - flash, "ram": board.ram.length - ram}
    # Full to the last byte the linker has no objection, and the firmware is the same.
    exact = build(_cut(board, **spare))
    assert (exact.path / "firmware.bin").read_bytes() == images["firmware.bin"]
    with pytest.raises(EdgesnnError) as e:
        build(_cut(board, flash=spare["flash"], ram=spare["ram"] + 8))
    told = f"does not fit board {name}: ram needs {ram:,} bytes, 8 more than its {ram - 8:,}; try"
    assert told in str(e.value)
    with pytest.raises(EdgesnnError) as e:
        build(_cut(board, flash=spare["flash"] + 1000, ram=spare["ram"] + 8))
    line = str(e.value)
    assert "\n" not in line
    assert f"flash needs {flash:,} bytes, 1,000 more" in line
    assert f"ram needs {ram:,} bytes, 8 more" in line
    assert "stack_bytes = 1024" in line
    assert _files(out) == _files(exact.path) and len(list(tmp_path.iterdir())) == 1


def test_an_arena_beyond_ram_is_refused_before_code_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = _cut(load_board("mps2-an386"), ram=0x400000 - 1040)
    monkeypatch.setattr(build_module, "load_board", lambda _: replace(tiny, stack_bytes=1024))
    monkeypatch.setattr(build_module._Build, "_generate", lambda _: pytest.fail("generated"))
    with pytest.raises(
        EdgesnnError, match=r"ram needs at least [\d,]+ bytes, [\d,]+ more than its 1,040"
    ):
        compile_program(PROGRAM, board="mps2-an386", out=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@needs_arm
def test_library_without_a_board(tmp_path: Path) -> None:
    bundle = compile_program(PROGRAM, "cortex-m4", out=tmp_path / "lib")
    assert (bundle.path / "lib" / "libmodel.a").is_file()
    assert bundle.firmware is None and bundle.board is None
    with pytest.raises(EdgesnnError, match="--target cpu"):
        HostEngine(bundle)


def test_plain_c_route_in_the_readme_builds_and_runs(
    repo: Path, golden: Path, host_bundle: Bundle, tmp_path: Path
) -> None:
    """Its main.c and its two commands, word for word: the answer is the interpreter's, and an M4's links."""
    section = (repo / "README.md").read_text(encoding="utf-8")
    section = section[section.index("## In your own firmware") :]
    (main,) = re.findall(r"^```c\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert 20 < len(main.splitlines()) < 35
    (tmp_path / "main.c").write_text(main)
    host, arm = (
        shlex.split(line)
        for line in re.findall(r"^(?:cc|arm-none-eabi-gcc) .*", section, re.MULTILINE)
    )
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    (tmp_path / "digits-host").symlink_to(host_bundle.path)
    subprocess.run([*host, *strict], cwd=tmp_path, check=True)
    done = subprocess.run(["./classify"], cwd=tmp_path)
    program = from_text((golden / "samples.program").read_text())
    size = int(np.prod(host_bundle.input_shape))
    frame = (np.arange(size) % 17).astype(host_bundle.input_dtype)
    assert (
        done.returncode == Interpreter(program).infer(frame.reshape(host_bundle.input_shape)).label
    )
    # The same from source, as in a project that takes src/ in.
    sources = [str(host_bundle.path / "src" / n) for n in ("esnn.c", "model.c", "kernels.c")]
    flags = [word for word in host if word.startswith("-I")]
    subprocess.run(
        ["cc", *strict, *flags, "main.c", *sources, "-o", "own"], cwd=tmp_path, check=True
    )
    assert subprocess.run(["./own"], cwd=tmp_path).returncode == done.returncode
    if not has_arm:
        pytest.skip("needs arm-none-eabi-gcc")
    compile_program(program, "cortex-m4", out=tmp_path / "digits-m4")
    subprocess.run([*arm, *strict], cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    with (tmp_path / "classify.elf").open("rb") as f:
        assert ELFFile(f)["e_machine"] == "EM_ARM"


def test_an_older_bundle_is_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    compile_program(PROGRAM, "cpu", out=tmp_path / "b")
    compile_program(random_program(4), "cpu", out=tmp_path / "b")
    assert Bundle.open(tmp_path / "b").name == "random4"
    bundle = tmp_path / "b"
    (bundle / "lib" / "calibration.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"calibration.csv is not part"):
        compile_program(PROGRAM, "cpu", out=bundle)
    (bundle / "lib" / "calibration.csv").unlink()
    kept = (bundle / "src" / "model.c").read_bytes()
    (bundle / "src" / "model.c").write_bytes(kept + b"/* mine */")
    with pytest.raises(UsageError, match=r"model.c was edited"):
        compile_program(PROGRAM, "cpu", out=bundle)
    (bundle / "src" / "model.c").write_bytes(kept)
    compile_program(PROGRAM, "cpu", out=bundle)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="other files"):
        compile_program(PROGRAM, "cpu", out=mine)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        compile_program(PROGRAM, "cpu", out=tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "file", "mine"]


def test_a_recompiled_bundle_runs_the_new_model(tmp_path: Path) -> None:
    """The dynamic loader would hand out the first library again: same path, same process."""
    for seed in (3, 4, 5):
        program = random_program(seed)
        bundle = compile_program(program, "cpu", out=tmp_path / "b")
        with HostEngine(bundle) as engine:
            for x in random_samples(program, 3, 1):
                want = Interpreter(program).infer(x)
                assert decision_difference(want, engine.infer(x)) is None


def test_an_interrupt_between_the_renames_keeps_the_older_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    rename, calls = os.rename, []

    def interrupted(a: Path, b: Path) -> None:
        calls.append(b)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(tmp_path / "new", tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out" / "which").read_text() == "out"
    replace_folder(tmp_path / "new", tmp_path / "out")
    assert (tmp_path / "out" / "which").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_unwritable_places_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "b", tmp_path / ("n" * 300), Path(".")):
        with pytest.raises(EdgesnnError) as e:
            compile_program(PROGRAM, "cpu", out=out)
        assert "\n" not in str(e.value)


@needs_arm
@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
def test_the_proved_stack_covers_what_is_used(toolchain: str, tmp_path: Path) -> None:
    if toolchain == "zig":
        pytest.importorskip("ziglang")
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("needs qemu-system-arm")
    bundle = compile_program(PROGRAM, board="mps2-an386", out=tmp_path / "b", toolchain=toolchain)
    with Session(bundle) as session:
        for x in random_samples(PROGRAM, 6, 2):
            session.trace(x)
            session.classify(x)
        used = session.stack_high_water()
    assert used is not None
    assert 64 < used <= bundle.manifest["memory"]["stack_bytes"]


@pytest.mark.parametrize("seed", range(40, 56))
def test_generated_c_has_no_warnings(seed: int, tmp_path: Path) -> None:
    bundle = compile_program(random_program(seed), "cpu", out=tmp_path / "b")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I."]
    for name in ("kernels.c", "model.c"):
        subprocess.run(["cc", *flags, name], cwd=bundle.path / "src", check=True)


def test_a_failed_compile_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESNN_TOOLCHAIN", "tcc")
    with pytest.raises(UsageError, match="EDGESNN_TOOLCHAIN"):
        compile_program(PROGRAM, "cpu", out=tmp_path / "b")
    monkeypatch.delenv("EDGESNN_TOOLCHAIN")
    for arguments, word in (
        ({"target": "cortex-m99"}, "cortex-m4"),
        ({"target": "cpu", "board": "mps2-an386"}, "leave out --target"),
        ({"target": "cpu", "codegen": "rust"}, "code generator"),
        ({}, "name a --target"),
    ):
        with pytest.raises(UsageError, match=word) as e:
            compile_program(PROGRAM, out=tmp_path / "b", **arguments)  # type: ignore[arg-type]
        assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_altered_bundles_are_refused(tmp_path: Path) -> None:
    bundle = compile_program(PROGRAM, "cpu", out=tmp_path / "b")
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert set(manifest["files"]) == set(_files(bundle.path)) - {"manifest.json"}
    source = bundle.path / "src" / "model.c"
    kept = source.read_bytes()
    source.write_bytes(kept + b" ")
    with pytest.raises(EdgesnnError, match="altered"):
        Bundle.open(bundle.path)
    source.unlink()
    with pytest.raises(EdgesnnError, match="missing"):
        Bundle.open(bundle.path)
    source.write_bytes(kept)
    Bundle.open(bundle.path)
    text = (bundle.path / "manifest.json").read_text()
    for bad in (
        "",
        "{",
        "[]",
        text[: len(text) // 2],
        text.replace('"version": 1', '"version": 7'),
    ):
        (bundle.path / "manifest.json").write_text(bad)
        with pytest.raises(EdgesnnError) as e:
            Bundle.open(bundle.path)
        assert "\n" not in str(e.value)


def test_samples_are_checked(tmp_path: Path) -> None:
    bundle = compile_program(PROGRAM, "cpu", out=tmp_path / "b")
    good = np.zeros(bundle.input_shape, bundle.input_dtype)
    with HostEngine(bundle) as engine:
        engine.infer(good)
        for bad in (
            good[:1],
            np.zeros((2, 2)),
            good.astype(np.float32),
            good.astype(np.int64) + 10**6,
        ):
            with pytest.raises(UsageError, match="takes") as e:
                engine.infer(bad)
            assert "\n" not in str(e.value)


CI = """graph: {{ title: "a.c"
node: {{ title: "main" label: "main\\na.c:1\\n16 bytes (static)\\n0 dynamic objects" }}
node: {{ title: "a.c:node_1" label: "node_1\\na.c:2\\n{size} bytes ({kind})\\n0 dynamic objects" }}
node: {{ title: "leaf" label: "leaf\\na.c:3\\n8 bytes (static)\\n0 dynamic objects" }}
node: {{ title: "__indirect_call" label: "Indirect Call Placeholder" shape : ellipse }}
edge: {{ sourcename: "main" targetname: "__indirect_call" label: "a.c:1" }}
edge: {{ sourcename: "main" targetname: "leaf" label: "a.c:1" }}
edge: {{ sourcename: "a.c:node_1" targetname: "{callee}" label: "a.c:2" }}
}}
"""


def test_stack_depth_follows_pointers_and_refuses_recursion(tmp_path: Path) -> None:
    def depth(**values: object) -> int:
        fields = {"size": 40, "kind": "static", "callee": "leaf", **values}
        (tmp_path / "a.ci").write_text(CI.format(**fields))
        stack = worst_case_stack(tmp_path, ["main"], r"node_\d+$")
        assert stack.bytes == sum(frame for _, frame in stack.path)
        return stack.bytes

    assert depth() == 16 + 40 + 8
    assert depth(callee="library") == 16 + 40 + 64
    with pytest.raises(EdgesnnError, match="recursion"):
        depth(callee="main")
    with pytest.raises(EdgesnnError, match="unbounded"):
        depth(kind="dynamic")
