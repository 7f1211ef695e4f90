"""Compilers and linkers: found on this machine, run in one folder with relative names, so that equal input
gives equal bytes. GCC is preferred; the PyPI package `ziglang` does the same job on a pip-only machine.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import Target

_PACKAGES = {"": "gcc"}  # of GCC by its prefix, where it is not gcc-PREFIX
PREFERENCES = ("gcc", "zig")
_REPRODUCIBLE = ("-g0", "-fno-ident", "-frandom-seed=edgesnn")


@dataclass(frozen=True)
class Toolchain:
    """A C compiler. kind is "gcc", "clang" or "zig"; `cc` and `ar` are command prefixes."""

    kind: str
    cc: tuple[str, ...]
    ar: tuple[str, ...]
    version: str

    @property
    def support(self) -> tuple[str, ...]:
        """What firmware links last: the library of what the core has no instruction for, such as division."""
        return ("-lgcc",) if self.kind == "gcc" else ("-lcompiler_rt",)

    def compile(
        self, source: str, obj: str, flags: Sequence[str], cwd: Path, *, graph: bool = False
    ) -> None:
        """Compile one C file (names relative to cwd). `graph` asks for what `worst_case_stack` reads."""
        extra = list(_REPRODUCIBLE) if self.kind == "gcc" else ["-g0"]
        if graph:
            extra.append("-fcallgraph-info=su" if self.kind == "gcc" else "-fstack-size-section")
        self._run([*self.cc, *flags, *extra, "-c", source, "-o", obj], cwd)

    def link(self, objects: Sequence[str], out: str, flags: Sequence[str], cwd: Path) -> None:
        """Link objects into an executable or shared library."""
        self._run([*self.cc, *flags, *objects, "-o", out], cwd)

    def archive(self, objects: Sequence[str], out: str, cwd: Path) -> None:
        """Make a static library; D keeps dates and owners out of it."""
        self._run([*self.ar, "rcsD", out, *objects], cwd)

    def _run(self, command: Sequence[str], cwd: Path) -> None:
        env = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
        try:
            done = subprocess.run(
                command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
        except OSError as e:
            raise EdgesnnError(f"cannot run {command[0]}: {e.strerror or e}") from None
        if done.returncode != 0:
            raise EdgesnnError(f"{' '.join(self.cc)} failed: {_first_error(done.stderr)}")


def _first_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in lines:
        if re.search(r"error|undefined|overflowed|will not fit", line):
            return line
    return lines[-1] if lines else "it printed nothing"


def find_toolchain(target: Target, prefer: str | None = None) -> Toolchain:
    """The compiler for a target: GCC when on PATH, else zig. `prefer` = "gcc" or "zig" forces one.

    The environment variable EDGESNN_TOOLCHAIN does the same. EdgesnnError says what to install.
    """
    if prefer not in (None, *PREFERENCES):
        raise UsageError(f"unknown toolchain {prefer!r}; choose one of: {', '.join(PREFERENCES)}")
    prefer = prefer or os.environ.get("EDGESNN_TOOLCHAIN") or None
    if prefer not in (None, *PREFERENCES):
        raise UsageError(f"EDGESNN_TOOLCHAIN is {prefer!r}; set it to gcc or zig, or not at all")
    mcu, prefix = target.kind == "mcu", target.gcc_prefix
    command = [f"{prefix}gcc"] if mcu else shlex.split(os.environ.get("CC", "cc"))
    gcc = shutil.which(command[0]) if command else None
    if not mcu and "CC" in os.environ and gcc is None and prefer != "zig":
        raise EdgesnnError(f"CC is {os.environ['CC']!r}, which is not on PATH; unset or correct it")
    ar = shutil.which(f"{prefix}ar")
    if gcc and ar and prefer != "zig":
        version = _version([gcc, "--version"])
        kind = "clang" if "clang" in version else "gcc"
        return Toolchain(kind, (gcc, *command[1:], *target.gcc), (ar,), version)
    if importlib.util.find_spec("ziglang") is not None and prefer != "gcc":
        zig = (sys.executable, "-m", "ziglang")
        cc = (*zig, "cc", *target.zig)
        return Toolchain("zig", cc, (*zig, "ar"), "zig " + _version([*zig, "version"]))
    what = command[0] if mcu else "a C compiler (cc)"
    package = _PACKAGES.get(prefix, f"gcc-{prefix.removesuffix('-')}")
    raise EdgesnnError(
        f"{what} is not on PATH; run `apt-get install -y {package}` or `pip install ziglang`"
    )


def _version(command: Sequence[str]) -> str:
    try:
        out = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return "unknown"
    return (out.stdout.splitlines() or ["unknown"])[0]
