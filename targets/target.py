"""What a machine is to the code generator: a frozen, validated description per core."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

from edgesnn.targets.errors import UsageError


@dataclass(frozen=True)
class Target:
    """One core.

    kind: "host" (a shared library that this machine loads) or "mcu" (an archive, and firmware for a board).
    llvm: options of TVM's LLVM target. gcc, zig: flags that select the core for arm-none-eabi-gcc (or the
    host's cc) and for `zig cc`. kernel_flags: how generated kernels are optimised, for GCC.
    """

    name: str
    title: str
    kind: str
    llvm: dict[str, str | int]
    gcc: tuple[str, ...]
    zig: tuple[str, ...]
    kernel_flags: tuple[str, ...] = ("-O3", "-funroll-loops")
    aliases: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.kind not in ("host", "mcu"):
            raise ValueError(f"target {self.name}: kind is host or mcu, not {self.kind!r}")


_HOST_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def _host_triple() -> str:
    machine = platform.machine()
    return _HOST_TRIPLES.get(machine, f"{machine}-linux-gnu")


TARGETS: tuple[Target, ...] = (
    Target(
        name="cpu",
        title="this machine's processor, one thread",
        kind="host",
        llvm={"kind": "llvm", "mtriple": _host_triple()},
        gcc=(),
        # Named, or zig would link what it finds of the system's C library: other bytes elsewhere.
        zig=("-target", _host_triple()),
        kernel_flags=("-O3",),
        aliases=("host",),
    ),
    Target(
        name="cortex-m4",
        title="Arm Cortex-M4 (Armv7E-M, DSP), soft float ABI",
        kind="mcu",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv7em-none-eabi",
            "mcpu": "cortex-m4",
            "vector-width": 32,  # no vector registers; unset, TVM warns at every kernel
        },
        gcc=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"),
        aliases=("cortex-m",),
    ),
)


def find_target(name: str) -> Target:
    """The target of this name or alias. UsageError names the choices."""
    for target in TARGETS:
        if name == target.name or name in target.aliases:
            return target
    choices = ", ".join(sorted(t.name for t in TARGETS))
    raise UsageError(f"unknown target {name!r}; choose one of: {choices}")
