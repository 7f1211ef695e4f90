"""What a package's templates are filled with."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgesnn.compiler import ir
from edgesnn.compiler.package.example import mode
from edgesnn.compiler.package.names import Names
from edgesnn.compiler.package.sources import CORE_PARTS
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets.target import Target

TEMPLATES = Path(__file__).resolve().parent / "templates"
# No ecosystem looks in here; Arduino's specification even names the outer folder.
EXTRAS = "extras/edgesnn"

_PRINTING = 1024  # bytes of stack that the example's output may take
# A PlatformIO board with each core, of those that the Arduino framework runs on: its platform and its name.
_BOARDS = {
    "cortex-m0": ("nordicnrf51", "bbcmicrobit"),
    "cortex-m0plus": ("raspberrypi", "pico"),
    "cortex-m3": ("ststm32", "nucleo_f103rb"),
    "cortex-m4": ("ststm32", "nucleo_f446re"),
    "cortex-m7": ("ststm32", "nucleo_f767zi"),
    "cortex-m33": ("renesas-ra", "portenta_c33"),
    "riscv32imc": ("espressif32", "esp32-c3-devkitm-1"),
}
_STREAM_FUNCTIONS = ("init", "push", "classify", "event", "advance", "step", "result")


class _Template(string.Template):
    """Placeholders are @{name}: C, CMake and Kconfig have their own uses for the dollar."""

    delimiter = "@"


def fill(template: str, words: Mapping[str, str]) -> str:
    """A template, by its path below templates/, with its placeholders filled in."""
    return _Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)


def package_words(
    bundle: Bundle,
    program: ir.Program,
    kind: str,
    names: Names,
    target: Target,
    sources: Iterable[str],
) -> dict[str, str]:
    """Placeholder -> text. sources: paths in src/, of package_sources."""
    memory, suits = bundle.manifest["memory"], mode(program)
    compiled = [name for name in sources if name.endswith(".c")]
    parts = [Path(name).stem for name in compiled]
    headers = ["model.h", "esnn.h", *(["esnn_stream.h"] if program.stream else [])]
    host = target.kind == "host"
    words = {
        "model": names.model,
        "library": names.library,
        "macro": names.macro,
        "network": _plain(bundle.name),
        "title": f"{names.model} ({_plain(bundle.name)})"
        if names.model != bundle.name
        else names.model,
        "target": target.name,
        "version": version(bundle),
        "sizes": f"{memory['flash_bytes']:,} bytes of code and constants, {memory['ram_bytes']:,} bytes of RAM"
        + (" on a PC" if host else ""),
        "sources": _lines(f"src/{name}" for name in compiled),
        "headers": _lines(f"src/{names.library}/{name}" for name in headers),
        "core_parts": " ".join(p for p in parts if p in CORE_PARTS),
        "model_parts": " ".join(p for p in parts if p not in CORE_PARTS),
        "kernel_flags": " ".join(target.kernel_flags),
        "kernel_options": ";".join(target.kernel_flags),
        "gcc_prefix": target.gcc_prefix,
        "gcc_flags": " ".join(target.gcc),
        "toolchain_option": "" if host else f" -DCMAKE_TOOLCHAIN_FILE=cmake/{target.name}.cmake",
        "main_stack": str(-(-((memory["stack_bytes"] or 0) + _PRINTING) // 512) * 512),
        "yaml_filter": _zephyr_filter(target),
        "arduino_h": "#include <Arduino.h>\n" if kind == "platformio" else "",
        "stream_keywords": _stream_keywords() if program.stream is not None else "",
        "edgesnn": str(bundle.manifest["versions"]["edgesnn"]),
        "compiler": _cell(str(bundle.manifest["versions"]["compiler"])),
        "facts": "\n".join(f"| {what} | {_cell(said)} |" for what, said in _facts(bundle)),
        "instructions": "MVE" if target.mve else "DSP",
        "fastest": "" if host else f"; they are\nfastest on {target.name}",
        "extras": EXTRAS,
    }
    words["core"] = fill(f"shared/core-{'exact' if target.dsp else 'any'}.md", words).rstrip()
    words |= _platformio(target, words)
    words["decided"] = fill("shared/decided.c", words)
    words["example"] = fill(f"example/{suits}.c", words)
    words["usage"] = f"```c\n{fill(f'usage/{suits}.c', words)}```\n"
    words["about"] = fill("shared/about.md", words)
    words["rest"] = fill("shared/rest.md", words)
    return words


def version(bundle: Bundle) -> str:
    """Three numbers: those of the edgesnn that compiled the model."""
    numbers = [p for p in str(bundle.manifest["versions"]["edgesnn"]).split(".") if p.isdigit()]
    return ".".join([*numbers, "0", "0", "0"][:3])


def _plain(text: str) -> str:
    """A name of the user's, harmless in a comment, a quoted text, a value of YAML or a cell of a table."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " ._-+()") else "_" for c in text)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _lines(names: Iterable[str]) -> str:
    return "\n".join(f"  {name}" for name in names)


def _stream_keywords() -> str:
    kinds = ["esnn_stream\tKEYWORD1", "esnn_stream_decision\tKEYWORD1"]
    return "".join(
        f"{line}\n" for line in [*kinds, *(f"esnn_stream_{f}\tKEYWORD2" for f in _STREAM_FUNCTIONS)]
    )


def _zephyr_filter(target: Target) -> str:
    """Which boards the sample is for, in Kconfig's terms."""
    if target.mve:
        return "    filter: CONFIG_ARMV8_1_M_MVEI\n"
    if target.dsp:
        return "    filter: CONFIG_CPU_CORTEX_M4 or CONFIG_CPU_CORTEX_M7 or CONFIG_ARMV8_M_DSP\n"
    return ""


def _platformio(target: Target, words: Mapping[str, str]) -> dict[str, str]:
    """The example's environment."""
    which = "host" if target.kind == "host" else "board" if target.name in _BOARDS else "none"
    platform, board = _BOARDS.get(target.name, ("", ""))
    known = {**words, "pio_platform": platform, "pio_board": board}
    return {
        "pio_lines": fill(f"shared/{which}.ini", known).rstrip(),
        "pio_note": fill(f"shared/pio-{which}.md", known),
        "pio_target": "exec" if which == "host" else "upload",
    }


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    memory, stack = bundle.manifest["memory"], bundle.manifest["memory"]["stack_bytes"]
    worst = (bundle.manifest.get("instructions") or {}).get("worst_per_inference")
    classes = ", ".join(bundle.class_names) or f"0 to {bundle.classes - 1}"
    facts = [
        ("input", _input(bundle)),
        ("classes", classes),
        ("timesteps, at most", str(bundle.timesteps)),
        ("code and constants", f"{memory['flash_bytes']:,} bytes"),
        ("static RAM", f"{memory['ram_bytes']:,} bytes"),
        ("stack, worst case", "not known" if stack is None else f"{stack:,} bytes"),
    ]
    return [*facts, *([("instructions, worst case", f"{worst:,}")] if worst is not None else [])]


def _input(bundle: Bundle) -> str:
    """What the caller hands over."""
    shape, stream = "".join(f"[{n}]" for n in bundle.input_shape), bundle.stream
    if stream is not None and stream.mode == "window":
        return (
            f"{stream.source}, as it comes: {stream.dtype}, {stream.values} to a sample, "
            f"{stream.rate:g} samples a second"
        )
    if bundle.input_kind == "events":
        _, width, channels = bundle.input_shape
        steps = "" if stream is None else f", with their times; a step is {stream.step_us:,} us"
        address = f"address (y * {width} + x) * {channels} + channel"
        return f"events of a map {shape}, {address}{steps}"
    source = bundle.manifest["input"]
    unit = f"a unit is {source['scale']:g}, zero is {source['zero_point']}"
    return f"{bundle.input_dtype}{shape}, channel last; {unit}"
