"""`compile --package`: the C of every package is built, run and compared; where a package may be written."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgesnn import api, cli
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.esnn_file import save_program
from edgesnn.compiler.package.names import package_names
from edgesnn.compiler.package.write import KINDS, MARKER, write_package
from edgesnn.compiler.random_program import random_program
from edgesnn.compiler.random_stream import random_stream_program
from edgesnn.compiler.text import from_text
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets.board import BSP_DIR, load_board
from edgesnn.targets.emulator import Emulator
from edgesnn.targets.errors import UsageError
from edgesnn.targets.target import find_target

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-g++") is None, reason="needs arm-none-eabi-g++"
)
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")

# What the sketch sees of Arduino, over the C library or over board support.
ARDUINO_H = """\
#pragma once
#include <stddef.h>
#include <stdint.h>
struct Port {
  void begin(unsigned long) {}
  void print(const char *text);
  void print(long number);
  void println(const char *text);
  operator bool() const { return true; }
};
extern Port Serial;
unsigned long millis(void);
void delay(unsigned long);
"""
ARDUINO_CPP = """\
#include <Arduino.h>
extern "C" void out(char c);
extern void setup();
extern void loop();
Port Serial;
void Port::print(const char *text) { while (*text != 0) out(*text++); }
void Port::print(long number) {
  if (number < 0) { out('-'); number = -number; }
  if (number >= 10) print(number / 10);
  out(static_cast<char>('0' + number % 10));
}
void Port::println(const char *text) { print(text); out('\\n'); }
unsigned long millis(void) { return 0; }
void delay(unsigned long) {}
extern "C" int main(void) {
  setup();
  loop();
  loop();
  Serial.println("end");
  return 0;
}
"""


@pytest.fixture(scope="module")
def bundles(
    host_bundle: Bundle,
    event_bundle: Bundle,
    golden: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Bundle]:
    """By name a bundle for this machine, one of every kind of input, and "m4"."""
    where, made = (
        tmp_path_factory.mktemp("bundles"),
        {"samples": host_bundle, "events": event_bundle},
    )
    for seed, kind in ((3, "log-mel"), (4, "rows"), (5, "continuous")):
        program = random_stream_program(seed, kind)
        made[kind] = compile_program(program, "cpu", out=where / kind)
    if shutil.which("arm-none-eabi-gcc"):
        program = from_text((golden / "samples.program").read_text())
        made["m4"] = compile_program(program, "cortex-m4", out=where / "m4")
    return made


def _package(bundle: Bundle, kind: str, out: Path, name: str = "net") -> Path:
    program = api.load_program(bundle.path)
    return write_package(bundle, program, kind, name, out).path


def _sources(package: Path) -> list[str]:
    return [str(p) for p in sorted((package / "src").rglob("*.c"))]


def _run(*command: object, cwd: Path | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, " ".join(words) + "\n" + done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("model", ["samples", "events", "log-mel", "rows", "continuous"])
def test_examples_of_every_input_give_the_references_answers(
    model: str, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    """The C example, the sketch as C++, and the lines of the README that show how to call it."""
    package = _package(bundles[model], "cmake", tmp_path / "cmake")
    example = package / "examples" / "net"
    _run("cc", "-std=c99", *STRICT, "-O1", "-I", package / "src", example / "main.c", *_sources(package),
         "-o", tmp_path / "main")  # fmt: skip
    told = _run(tmp_path / "main").splitlines()
    assert told and all(line.endswith(": equal to the reference") for line in told)
    # One changed number of the answer is noticed.
    header = example / "sample.h"
    text = header.read_text()
    wrong = re.sub(r"(answer_membranes\[\d+\] = \{\n  )(-?\d+)", r"\g<1>123456", text)
    wrong = re.sub(r"(answers\[\d+\] = \{\n  \{)UINT64_C\(\d+\)", r"\g<1>7", wrong)
    assert wrong != text
    header.write_text(wrong)
    _run("cc", "-std=c99", "-O1", "-I", package / "src", example / "main.c", *_sources(package),
         "-o", tmp_path / "wrong")  # fmt: skip
    done = subprocess.run([tmp_path / "wrong"], capture_output=True, text=True)
    assert done.returncode == 1 and "DIFFERS" in done.stdout

    usage = re.search(r"```c\n(.*?)```", (package / "README.md").read_text(), re.DOTALL)
    assert usage is not None
    (tmp_path / "usage.c").write_text(usage[1])
    for compiler in (["cc", "-std=c99"], ["c++", "-xc++"]):
        if shutil.which(compiler[0]):
            _run(*compiler, *STRICT, "-Wno-unused-function", "-fsyntax-only", "-I", package / "src",
                 tmp_path / "usage.c")  # fmt: skip
    if shutil.which("c++"):
        sketch = _package(bundles[model], "arduino", tmp_path / "arduino")
        told = _sketch_on_the_host(sketch, tmp_path)
        assert len(told) > 2 and all(
            line.endswith(": equal to the reference") for line in told[:-1]
        )


def _sketch_on_the_host(package: Path, folder: Path) -> list[str]:
    """The library's C and the sketch as C++, as the Arduino builder compiles them; two rounds of loop()."""
    (folder / "Arduino.h").write_text(ARDUINO_H)
    (folder / "core.cpp").write_text(ARDUINO_CPP)
    (folder / "out.c").write_text(
        "#include <stdio.h>\nvoid out(char c);\nvoid out(char c) { putchar(c); }\n"
    )
    objects = []
    for file in [*_sources(package), str(folder / "out.c")]:
        objects.append(folder / f"{Path(file).stem}.o")
        _run("cc", "-std=gnu11", "-Os", "-I", package / "src", "-c", file, "-o", objects[-1])
    (ino,) = (package / "examples").rglob("*.ino")
    for file in (ino, folder / "core.cpp"):
        objects.append(folder / f"{file.stem}.cpp.o")
        _run("c++", "-std=gnu++11", *STRICT, "-include", folder / "Arduino.h", "-I", folder, "-I",
             package / "src", "-xc++", "-c", file, "-o", objects[-1])  # fmt: skip
    _run("c++", *objects, "-o", folder / "sketch")
    return _run(folder / "sketch").splitlines()


@needs_arm
@pytest.mark.parametrize(("model", "name"), [("m4", "mps2-an386"), ("samples", "microbit")])
def test_a_sketch_runs_on_an_emulated_board(
    model: str, name: str, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    """Built for size, as Arduino does: DSP kernels on a Cortex-M4, what is made for a PC on a Cortex-M0."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("needs qemu-system-arm")
    package = _package(bundles[model], "arduino", tmp_path / "arduino")
    board = load_board(name)
    target = find_target(board.target)
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    (tmp_path / "core.cpp").write_text(ARDUINO_CPP)
    (tmp_path / "out.c").write_text(
        '#include "bsp.h"\nvoid out(char c);\nvoid out(char c) { bsp_uart_put((uint8_t)c); }\n'
        "void bsp_on_fault(const uint32_t *w, uint32_t n) { (void)w; (void)n; for (;;) {} }\n"
    )
    core = [*target.gcc, "-Os", "-ffreestanding", "-ffunction-sections"]
    places = [w for p in (*board.includes, tmp_path, package / "src") for w in ("-I", str(p))]
    objects = []
    for file in [*_sources(package), *map(str, board.sources), str(tmp_path / "out.c")]:
        objects.append(tmp_path / f"{Path(file).stem}.o")
        _run("arm-none-eabi-gcc", *core, *board.cflags, *places, "-c", file, "-o", objects[-1])
    (ino,) = (package / "examples").rglob("*.ino")
    cpp = [
        "-std=gnu++11",
        "-fno-exceptions",
        "-fno-rtti",
        *STRICT,
        "-include",
        tmp_path / "Arduino.h",
    ]
    for file in (ino, tmp_path / "core.cpp"):
        objects.append(tmp_path / f"{file.stem}.cpp.o")
        _run("arm-none-eabi-g++", *core, *cpp, *places, "-xc++", "-c", file, "-o", objects[-1])
    (tmp_path / "link.ld").write_text(board.linker_script())
    elf = tmp_path / "sketch.elf"
    _run("arm-none-eabi-gcc", *target.gcc, *board.ldflags, "-T", tmp_path / "link.ld", *objects,
         "-lgcc", "-o", elf)  # fmt: skip
    disassembly = _run("arm-none-eabi-objdump", "-d", tmp_path / "kernels.o")
    assert ("sxtab16" in disassembly) == (model == "m4")
    with Emulator(board, elf) as emulator:
        where, data = urlsplit(emulator.url), b""
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as link:
            while not data.endswith(b"end\n"):
                data += link.recv(4096)
    told = data.decode().splitlines()
    assert len(told) == 3 and told[0] == told[1]
    assert told[0].endswith(": equal to the reference")


@needs_arm
def test_another_core_is_refused_by_the_compiler(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    package = _package(bundles["m4"], "cmake", tmp_path / "m4")
    kernels = package / "src" / "edgesnn_net" / "kernels.c"

    def errors(*flags: str, file: Path = kernels) -> str:
        command = [*flags, "-std=c99", "-ffreestanding", "-fsyntax-only", str(file)]
        return subprocess.run(command, capture_output=True, text=True).stderr

    arm = ("arm-none-eabi-gcc", "-mthumb")
    assert errors(*arm, "-mcpu=cortex-m4") == ""
    for other in (("cc",), (*arm, "-mcpu=cortex-m0"), (*arm, "-mcpu=cortex-m3")):
        assert "edgesnn_net was compiled for cortex-m4 and its DSP instructions" in errors(*other)
        assert "#error" not in errors(*other, "-DEDGESNN_ANY_CORE")
    assert "for little-endian processors" in errors(*arm, "-mcpu=cortex-m4", "-mbig-endian")
    # What is for this machine's processor is plain C.
    plain = (
        _package(bundles["samples"], "cmake", tmp_path / "cpu")
        / "src"
        / "edgesnn_net"
        / "kernels.c"
    )
    for core in ("cortex-m0", "cortex-m4", "cortex-m55"):
        assert errors(*arm, f"-mcpu={core}", file=plain) == ""


def test_equal_input_gives_equal_bytes_and_only_an_older_one_of_the_kind_is_replaced(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    bundle = bundles["samples"]
    for kind in KINDS:
        one, two = (_package(bundle, kind, tmp_path / place / kind) for place in ("a", "b"))
        assert _files(one) == _files(two)
        listed = json.loads((one / MARKER).read_text())["files"]
        assert set(listed) == set(_files(one)) - {MARKER}
    # The same again replaces; another kind or model, an edited file, or a stranger's does not.
    out = tmp_path / "a" / "cmake"
    _package(bundle, "cmake", out)
    for another in ("other", "Net"):
        with pytest.raises(
            UsageError, match=f"is a package of the model 'net', not of '{another}'"
        ):
            _package(bundle, "cmake", out, another)
    with pytest.raises(UsageError, match="is a package for cmake, not for arduino"):
        _package(bundle, "arduino", out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes.txt is not part of the package"):
        _package(bundle, "cmake", out)
    (out / "notes.txt").unlink()
    (out / "CMakeLists.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"CMakeLists.txt was edited"):
        _package(bundle, "cmake", out)
    with pytest.raises(UsageError, match="other files"):
        _package(bundle, "cmake", bundle.path)
    with pytest.raises(UsageError, match="choose one of: cmake, arduino, zephyr, platformio"):
        _package(bundle, "make", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_names_are_legal_everywhere() -> None:
    for given in ("digits", "mcu-LeNet", "98", "größe 3", "../x", "int", "", "a" * 99, "_ESNN"):
        names = package_names(given)
        assert re.fullmatch(r"edgesnn_[a-z0-9]+(_[a-z0-9]+)*", names.library), given
        assert len(names.library) < 48 and names.macro == names.library.upper()


def test_names_that_were_cut_or_lost_letters_stay_apart() -> None:
    long = "mnist_lenet_latency_lif_int8_epoch_"
    alike = (
        (long + "10", long + "20"),
        ("数字", "音声", "...", "model"),
        ("net-数", "net-音", "net"),
    )
    for given in alike:
        assert len({package_names(name).library for name in given}) == len(given)
    # Nothing is lost: accents, and a file name as macOS writes it.
    for name in ("Größe é", "Gro\u0308ße e\u0301", "grosse_e"):
        assert package_names(name).library == "edgesnn_grosse_e"
    assert package_names("net\udcff").library != "edgesnn_net"  # a file name that is no UTF-8


def test_every_symbol_but_the_cores_has_the_models_name(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    if shutil.which("nm") is None:
        pytest.skip("needs nm")
    package = _package(bundles["log-mel"], "cmake", tmp_path / "p", "Wake-Word")
    for file in _sources(package):
        _run("cc", "-std=c99", "-O1", "-c", file, "-o", tmp_path / "one.o")
        found = {
            line.split()[-1]
            for line in _run("nm", "-g", "--defined-only", tmp_path / "one.o").splitlines()
        }
        if Path(file).stem in ("esnn", "esnn_stream", "esnn_log_mel"):
            assert all(name.startswith("esnn_") for name in found)
        else:
            assert found and all(name.startswith("edgesnn_wake_word_") for name in found)


@needs_arm
def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(tmp_path / "My Net.esnn")
    save_program(random_program(3), Path(model))
    assert cli.main(["compile", model, "--target", "cortex-m4", "--package", "arduino"]) == 0
    assert "#include <edgesnn_my_net.h>" in capsys.readouterr().out
    assert (tmp_path / "edgesnn_my_net" / "library.properties").is_file()
    # A board stands for its core.
    words = ["compile", model, "--board", "mps2-an386", "--package", "arduino", "--json"]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["package"] == "edgesnn_my_net" and told["kind"] == "arduino"
    assert told["header"] == "edgesnn_my_net.h" and told["target"] == "cortex-m4"
    for kind, more, said in (
        ("cmake", ["--codegen", "llvm"], "C source"),
        ("cmake", ["--board", "pico", "--protocol", "mlperf-tiny"], "leave out --protocol mlperf-"),
        (
            "cmake",
            ["--board", "pico", "--watchdog", "500"],
            "no firmware; leave out --watchdog 500",
        ),
        ("cmake", [], "is a package for arduino"),
        ("cmake", ["--board", "nope"], "nope"),
        ("cmake", ["--board", "microbit"], "has a cortex-m0, not a cpu; leave out --target"),
        ("conan", ["--out", "new"], "choose one of: cmake"),
        ("cmake", ["--out", str(tmp_path / "edgesnn_my_net" / "src")], "other files"),
    ):
        assert cli.main(["compile", model, "--target", "cpu", "--package", kind, *more]) != 0
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert said in error and error.startswith("edgesnn: error: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["My Net.esnn", "edgesnn_my_net"]


@needs_arm
@pytest.mark.parametrize("core", ["cortex-m55", "riscv32imc"])
def test_packages_for_other_cores_compile(core: str, golden: Path, tmp_path: Path) -> None:
    """Kernels of other styles under the names of a package; C and C++ see the header."""
    target = find_target(core)
    if shutil.which(f"{target.gcc_prefix}g++") is None:
        pytest.skip(f"needs {target.gcc_prefix}g++")
    program = from_text((golden / "samples.program").read_text())
    bundle = compile_program(program, core, out=tmp_path / "b")
    package = _package(bundle, "platformio", tmp_path / "p")
    kernels = package / "src" / "edgesnn_net" / "kernels.c"
    flags = [*target.gcc, "-ffreestanding", "-fsyntax-only"]
    strings = ["-I", BSP_DIR / "include"]
    for file in _sources(package):
        _run(f"{target.gcc_prefix}gcc", "-std=c99", *flags, *strings, file)
    header = package / "src" / "edgesnn_net.h"
    _run(f"{target.gcc_prefix}g++", *STRICT, *flags, "-xc++", header)
    if target.mve:
        command = ["arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m4", "-fsyntax-only", kernels]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "compiled for cortex-m55 and its MVE instructions" in done.stderr
