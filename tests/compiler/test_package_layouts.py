"""Every package by its ecosystem's own rules: CMake builds it, the others' rules are written down here."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from edgesnn import api
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.package.write import write_package
from edgesnn.compiler.random_program import random_program, random_samples
from edgesnn.runtime.bundle import Bundle

needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("cc") is None, reason="needs cmake and cc"
)
needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc"
)
PROGRAM = random_program(3)  # of samples


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A second model, for this machine."""
    return compile_program(PROGRAM, "cpu", out=tmp_path_factory.mktemp("other") / "b")


@pytest.fixture(scope="module")
def m4(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("needs arm-none-eabi-gcc")
    return compile_program(PROGRAM, "cortex-m4", out=tmp_path_factory.mktemp("m4") / "b")


def _package(bundle: Bundle, kind: str, out: Path, name: str) -> Path:
    return write_package(bundle, api.load_program(bundle.path), kind, name, out).path


def _run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, " ".join(words) + "\n" + done.stdout + done.stderr
    return done.stdout


# CMake: built and run.

# Both models in one program, in C++, one from add_subdirectory, one installed and found.
TWO_CMAKE = """\
cmake_minimum_required(VERSION 3.13)
project(two LANGUAGES C CXX)
add_subdirectory({first} first)
find_package(edgesnn_second 0.1 CONFIG REQUIRED)
add_executable(two main.cpp)
target_link_libraries(two PRIVATE edgesnn::first edgesnn::second)
"""
TWO_CPP = """\
#include <cstdio>
#include <edgesnn_first.h>
#include <edgesnn_second.h>

static uint64_t arena[(EDGESNN_FIRST_ARENA_BYTES + EDGESNN_SECOND_ARENA_BYTES + 14u) / 8u];
static unsigned char frame[EDGESNN_FIRST_INPUT_BYTES + EDGESNN_SECOND_INPUT_BYTES];

static bool tell(const esnn_model &model) {
  esnn_ctx ctx;
  esnn_decision d;
  if (esnn_init(&ctx, &model, arena, sizeof arena) < 0) return false;
  if (esnn_push_frame(&ctx, frame, model.input_bytes) < 0) return false;
  if (esnn_run(&ctx) < 0 || esnn_result(&ctx, &d) < 0) return false;
  std::printf("%u %u\\n", static_cast<unsigned>(d.label), static_cast<unsigned>(d.step));
  return true;
}

int main() { return tell(edgesnn_first_model) && tell(edgesnn_second_model) ? 0 : 1; }
"""


@needs_cmake
def test_cmake_library_is_built_tested_installed_found_and_shares_a_program(
    host_bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    first = _package(host_bundle, "cmake", tmp_path / "first", "first")
    second = _package(other, "cmake", tmp_path / "second", "second")
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    strict = "-DCMAKE_C_FLAGS=-Wall -Wextra -pedantic -Werror"
    _run("cmake", "-S", second, "-B", build, strict, f"-DCMAKE_INSTALL_PREFIX={prefix}")
    _run("cmake", "--build", build)
    assert "100% tests passed, 0 tests failed out of 1" in _run("ctest", cwd=build)
    _run("cmake", "--install", build)
    installed = {p.relative_to(prefix).as_posix() for p in prefix.rglob("*.h")}
    assert installed == {f"include/edgesnn_second{n}.h" for n in ("", "/esnn", "/model")}
    if shutil.which("c++") is None:
        return
    (tmp_path / "CMakeLists.txt").write_text(TWO_CMAKE.format(first=first))
    (tmp_path / "main.cpp").write_text(TWO_CPP)
    two = tmp_path / "two"
    _run("cmake", "-S", tmp_path, "-B", two, f"-DCMAKE_PREFIX_PATH={prefix}")
    _run("cmake", "--build", two)
    told = [tuple(map(int, line.split())) for line in _run(two / "two").splitlines()]
    answers = []
    for program in (api.load_program(host_bundle.path), PROGRAM):
        d = Interpreter(program).infer(random_samples(program, 1, 0)[0] * 0)
        answers.append((d.label, d.step))
    assert told == answers


@needs_cmake
def test_cmake_example_stands_alone_against_the_installed_library(
    host_bundle: Bundle, tmp_path: Path
) -> None:
    package = _package(host_bundle, "cmake", tmp_path / "p", "net")
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    _run(
        "cmake",
        "-S",
        package,
        "-B",
        build,
        "-DEDGESNN_NET_EXAMPLE=OFF",
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
    )
    _run("cmake", "--build", build, "--target", "install")
    _run(
        "cmake",
        "-S",
        package / "examples" / "net",
        "-B",
        tmp_path / "e",
        f"-DCMAKE_PREFIX_PATH={prefix}",
    )
    _run("cmake", "--build", tmp_path / "e")
    assert ": equal to the reference" in _run(tmp_path / "e" / "edgesnn_net_example")


@needs_cmake
@needs_arm
def test_what_the_readme_for_cmake_says_leaves_a_package_that_is_replaced(
    m4: Bundle, tmp_path: Path
) -> None:
    """Its own lines, in its own folder: with the toolchain file, installed."""
    package = _package(m4, "cmake", tmp_path / "p", "net")
    block = re.search(r"```sh\n(cmake .*?)```", (package / "README.md").read_text(), re.DOTALL)
    assert block is not None
    for line in block[1].splitlines():
        words = line.replace("/where/libraries/are", str(tmp_path / "prefix")).split()
        _run(*words, cwd=package)
    assert len(list((tmp_path / "prefix").rglob("libedgesnn_net.a"))) == 1
    _package(m4, "cmake", tmp_path / "p", "net")


@needs_cmake
@needs_arm
def test_cmake_library_is_cross_compiled_for_a_cortex_m4(m4: Bundle, tmp_path: Path) -> None:
    package = _package(m4, "cmake", tmp_path / "p", "net")
    build = tmp_path / "build"
    toolchain = package / "cmake" / "cortex-m4.cmake"
    _run("cmake", "-S", package, "-B", build, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
    _run("cmake", "--build", build)
    _run("arm-none-eabi-ar", "x", build / "libedgesnn_net.a", cwd=build)
    objects = sorted(build.glob("*.obj")) or sorted(build.glob("*.o"))
    assert len(objects) == 3
    for path in objects:
        with path.open("rb") as f:
            assert ELFFile(f)["e_machine"] == "EM_ARM"
    # On this machine the same source is refused, unless asked for.
    host = tmp_path / "host"
    _run("cmake", "-S", package, "-B", host)
    done = subprocess.run(["cmake", "--build", host], capture_output=True, text=True)
    assert done.returncode != 0 and "compiled for cortex-m4" in done.stderr
    _run("cmake", "-S", package, "-B", host, "-DEDGESNN_ANY_CORE=ON")
    _run("cmake", "--build", host)
    assert "100% tests passed" in _run("ctest", cwd=host)


# Arduino: the library specification, 1.5 format (rev. 2.2).

REQUIRED = ("name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url")
REQUIRED += ("architectures",)
OPTIONAL = ("email", "depends", "dot_a_linkage", "includes", "precompiled", "ldflags")
CATEGORIES = (
    "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing",
    "Data Storage", "Data Processing", "Other",
)  # fmt: skip
FOLDER = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
TOKENS = ("KEYWORD1", "KEYWORD2", "KEYWORD3", "LITERAL1", "LITERAL2")


def arduino_problems(library: Path) -> list[str]:
    """What the specification has against a library's folder."""
    wrong = []
    fields: dict[str, str] = {}
    for line in (library / "library.properties").read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if not equals or key in fields:
            wrong.append(f"not a field: {line!r}")
        fields[key] = value
    wrong += [f"{key} is missing" for key in REQUIRED if not fields.get(key, "").strip()]
    wrong += [f"{key} is not known" for key in fields if key not in REQUIRED + OPTIONAL]
    name = fields.get("name", "")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", name) or not re.search("[A-Za-z]", name):
        wrong.append(f"name {name!r} has other characters")
    if name.lower().startswith("arduino") or len(name) > 63:
        wrong.append(f"name {name!r} is reserved or too long")
    if not re.fullmatch(FOLDER, library.name):
        wrong.append(f"folder {library.name!r} has other characters")
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", fields.get("version", "")):
        wrong.append("version is not semantic")
    if fields.get("category") not in CATEGORIES:
        wrong.append("category is not one of the list")
    if not re.match(r"https?://\S+$", fields.get("url", "")):
        wrong.append("url is none")
    if fields.get("dot_a_linkage", "true") not in ("true", "false"):
        wrong.append("dot_a_linkage is true or false")
    headers = {p.name for p in (library / "src").glob("*.h")}
    for header in filter(None, fields.get("includes", "").split(",")):
        if header not in headers:
            wrong.append(f"includes {header}, which src/ has not")
    if list(library.glob("*.[ch]")) or (library / "utility").exists():
        wrong.append("source beside src/")
    sketches = list((library / "examples").rglob("*.ino"))
    if not sketches:
        wrong.append("no example")
    for sketch in sketches:
        if sketch.stem != sketch.parent.name or not re.fullmatch(FOLDER, sketch.stem):
            wrong.append(f"sketch {sketch.name} does not have its folder's name")
    for line in (library / "keywords.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            word, *rest = line.split("\t")
            if not re.fullmatch(r"\w+", word) or len(rest) != 1 or rest[0] not in TOKENS:
                wrong.append(f"keyword line {line!r}")
    return wrong


def test_arduino_library_follows_the_specification(host_bundle: Bundle, tmp_path: Path) -> None:
    library = _package(host_bundle, "arduino", tmp_path / "edgesnn_net", "net")
    assert arduino_problems(library) == []
    # The checker itself sees what is wrong.
    properties = library / "library.properties"
    sound = properties.read_text()
    for good, bad, said in (
        ("category=Data Processing", "category=Neural", "category"),
        ("version=", "version=r", "version"),
        ("url=https", "url=ftp", "url"),
        ("includes=edgesnn_net.h", "includes=net.h", "includes"),
        ("maintainer=edgesnn\n", "", "maintainer is missing"),
        ("name=edgesnn_net", "name=Arduino_net", "reserved"),
    ):
        assert good in sound
        properties.write_text(sound.replace(good, bad))
        assert any(said in problem for problem in arduino_problems(library))


# Zephyr: what its build reads of a module, and of a sample.

TEXT, TRUTH, TEXTS = str, bool, [str]
MODULE = {
    "name": TEXT,
    "build": {
        "cmake": TEXT, "kconfig": TEXT, "cmake-ext": TRUTH, "kconfig-ext": TRUTH,
        "sysbuild-cmake": TEXT, "sysbuild-kconfig": TEXT, "sysbuild-cmake-ext": TRUTH,
        "sysbuild-kconfig-ext": TRUTH, "depends": TEXTS,
        "settings": {
            "board_root": TEXT, "dts_root": TEXT, "soc_root": TEXT, "arch_root": TEXT,
            "module_ext_root": TEXT, "sca_root": TEXT, "snippet_root": TEXT,
        },
    },
    "tests": TEXTS, "samples": TEXTS, "boards": TEXTS,
}  # fmt: skip
SCENARIO = {
    "arch_allow": TEXT, "arch_exclude": TEXT, "build_only": TRUTH, "depends_on": TEXT, "extra_args": TEXT,
    "extra_configs": TEXTS, "filter": TEXT, "harness": TEXT, "integration_platforms": TEXTS,
    "min_flash": int, "min_ram": int, "modules": TEXTS, "platform_allow": TEXT,
    "platform_exclude": TEXT, "skip": TRUTH, "slow": TRUTH, "tags": TEXT, "timeout": int,
    "harness_config": {"type": TEXT, "ordered": TRUTH, "repeat": int, "regex": TEXTS, "fixture": TEXT},
}  # fmt: skip


def _against(schema: Any, value: Any, where: str = "") -> list[str]:
    """What a schema of maps, lists and types has against a value."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where} is no map"]
        unknown = [f"{where}.{key} is not known" for key in value if key not in schema]
        known = [k for k in value if k in schema]
        return unknown + [p for k in known for p in _against(schema[k], value[k], f"{where}.{k}")]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [p for v in value for p in _against(schema[0], v, where)]
    return [] if type(value) is schema else [f"{where} is not {schema.__name__}"]


def test_zephyr_module_and_sample_match_their_schemas(
    host_bundle: Bundle, m4: Bundle, tmp_path: Path
) -> None:
    yaml = pytest.importorskip("yaml")
    for bundle, place in ((host_bundle, "cpu"), (m4, "m4")):
        package = _package(bundle, "zephyr", tmp_path / place, "net")
        module = yaml.safe_load((package / "zephyr" / "module.yml").read_text())
        assert _against(MODULE, module) == []
        assert (package / module["build"]["cmake"] / "CMakeLists.txt").is_file()
        assert (package / module["build"]["kconfig"]).is_file()
        assert all((package / place).is_dir() for place in module["samples"])
        sample = yaml.safe_load((package / "samples" / "net" / "sample.yaml").read_text())
        assert set(sample) <= {"sample", "common", "tests"}
        assert _against({"name": TEXT, "description": TEXT}, sample["sample"]) == []
        for name, scenario in sample["tests"].items():
            assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", name)
            assert _against(SCENARIO, scenario) == []
            assert ("CORTEX_M4" in scenario.get("filter", "")) == (place == "m4")
    assert _against(MODULE, {"name": "x", "build": {"cmake": 1, "make": "x"}}) == [
        ".build.make is not known",
        ".build.cmake is not str",
    ]


def test_zephyr_kconfig_has_the_symbol_that_the_sample_sets(
    host_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kconfiglib = pytest.importorskip("kconfiglib")
    package = _package(host_bundle, "zephyr", tmp_path / "p", "net")
    # The kernel's own symbols that the sample sets, as if they were defined by it.
    (tmp_path / "Kconfig").write_text(
        'config PRINTK\n\tbool\n\nconfig MAIN_STACK_SIZE\n\tint "stack"\n\tdefault 1024\n\n'
        'config PRINTK\n\tbool "printk"\n\nrsource "p/zephyr/Kconfig"\n'
    )
    tree = kconfiglib.Kconfig(str(tmp_path / "Kconfig"), warn_to_stderr=False)
    assert tree.syms["EDGESNN_NET"].str_value == "n"
    tree.load_config(str(package / "samples" / "net" / "prj.conf"))
    assert tree.warnings == []
    assert tree.syms["EDGESNN_NET"].str_value == "y"
    assert int(tree.syms["MAIN_STACK_SIZE"].str_value) >= 1024


# What a module and a sample call of Zephyr's build, on this machine: every library goes in whole.
ZEPHYR_CMAKE = """\
project(zephyr_here C)
file(STRINGS prj.conf settings REGEX "^CONFIG_.*=")
foreach(setting ${settings})
  string(REGEX MATCH "^([^=]*)=(.*)$" _ ${setting})
  set(${CMAKE_MATCH_1} ${CMAKE_MATCH_2})
endforeach()
foreach(setting $ENV{MORE_SETTINGS})
  set(${setting} y)
endforeach()
add_library(zephyr_interface INTERFACE)
target_include_directories(zephyr_interface INTERFACE ${CMAKE_CURRENT_LIST_DIR}/include)
set(libraries)
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC "")
  set_property(GLOBAL APPEND PROPERTY ZEPHYR_LIBS ${name})
  target_link_libraries(${name} PUBLIC zephyr_interface)
endmacro()
macro(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories)
  target_include_directories(zephyr_interface INTERFACE ${ARGN})
endmacro()
foreach(module ${EXTRA_ZEPHYR_MODULES} $ENV{MORE_MODULES})
  get_filename_component(name ${module} REALPATH)
  get_filename_component(name ${name} NAME)
  add_subdirectory(${module}/zephyr modules/${name})
endforeach()
get_property(libraries GLOBAL PROPERTY ZEPHYR_LIBS)
add_executable(app)
target_link_libraries(app PRIVATE zephyr_interface
  -Wl,--whole-archive ${libraries} -Wl,--no-whole-archive)
"""


@needs_cmake
def test_zephyr_sample_runs_as_its_own_cmake_says(
    host_bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    """With the four commands of Zephyr's build that it needs; a second module shares the core.

    The second model's name is as like the core's as a name can be.
    """
    package = _package(host_bundle, "zephyr", tmp_path / "net", "net")
    more = _package(other, "zephyr", tmp_path / "more", "core esnn")
    base = tmp_path / "zephyr"
    (base / "include" / "zephyr" / "sys").mkdir(parents=True)
    (base / "ZephyrConfig.cmake").write_text(ZEPHYR_CMAKE)
    (base / "include" / "zephyr" / "kernel.h").write_text("#include <stdint.h>\n")
    printk = "#include <stdio.h>\n#define printk printf\n"
    (base / "include" / "zephyr" / "sys" / "printk.h").write_text(printk)
    env = {
        **os.environ,
        "ZEPHYR_BASE": str(base),
        "MORE_MODULES": str(more),
        "MORE_SETTINGS": "CONFIG_EDGESNN_CORE_ESNN",
    }
    build = tmp_path / "build"
    _run("cmake", "-S", package / "samples" / "net", "-B", build, "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror",
         env=env)  # fmt: skip
    _run("cmake", "--build", build, env=env)
    told = _run(build / "app").splitlines()
    assert told[0].endswith(": equal to the reference") and told[-1] == "PASSED"
    libraries = {p.name for p in build.rglob("*.a")}
    names = ("edgesnn__core_esnn", "edgesnn_net", "edgesnn_core_esnn")
    assert libraries == {f"lib{n}.a" for n in names}


# PlatformIO: the fields of library.json that it checks, and its project file.


def platformio_problems(library: Path) -> list[str]:
    """What PlatformIO has against a library's folder."""
    m = json.loads((library / "library.json").read_text())
    known = ("name", "version", "description", "keywords", "frameworks", "platforms", "headers", "build",
             "examples", "authors", "license", "homepage", "repository", "dependencies", "export")  # fmt: skip
    wrong = [f"{key} is not known" for key in m if key not in known]
    if not re.fullmatch(r"[^:;/,@<>]{1,100}", m.get("name", "")):
        wrong.append("name")
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", m.get("version", "")):
        wrong.append("version")
    if not 1 <= len(m.get("description", "")) <= 1000:
        wrong.append("description")
    wrong += [f"keyword {k}" for k in m["keywords"] if not re.fullmatch(r"[a-z\d\-_+. ]{1,50}", k)]
    for key in ("frameworks", "platforms"):
        if not re.fullmatch(r"[a-z\d\-_]{1,50}|\*", m.get(key, "")):
            wrong.append(key)
    if not (library / "src" / m["headers"]).is_file():
        wrong.append("headers")
    for example in m["examples"]:
        if not re.fullmatch(r"[a-zA-Z\d\-_/. ]{1,255}", example.get("name", "")):
            wrong.append("name of an example")
        wrong += [f for f in example["files"] if not (library / example["base"] / f).is_file()]
    return wrong


def test_platformio_library_and_example(host_bundle: Bundle, m4: Bundle, tmp_path: Path) -> None:
    for bundle, place in ((host_bundle, "cpu"), (m4, "m4")):
        library = _package(bundle, "platformio", tmp_path / place, "net")
        assert platformio_problems(library) == []
        project = configparser.ConfigParser()
        project.read_string((library / "examples" / "net" / "platformio.ini").read_text())
        (name,) = project.sections()
        section = project[name]
        assert name == "env:net" and section["lib_deps"] == "edgesnn_net=symlink://../.."
        assert section["platform"] == ("native" if place == "cpu" else "ststm32")
        assert section.get("board") == (None if place == "cpu" else "nucleo_f446re")
    # As PlatformIO does: src/ of library and project, each with src/ of the library to search.
    library = tmp_path / "cpu"
    if shutil.which("cc"):
        sources = [
            *sorted((library / "src").rglob("*.c")),
            library / "examples" / "net" / "src" / "main.c",
        ]
        flags = json.loads((library / "library.json").read_text())["build"]["flags"]
        _run("cc", *flags, "-I", library / "src", *sources, "-o", tmp_path / "program")
        assert ": equal to the reference" in _run(tmp_path / "program")
