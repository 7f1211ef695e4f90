"""What a machine is to the code generator: a frozen, validated description per core."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

from edgesnn.targets.errors import UsageError

ARCHITECTURES = (
    "host",
    "armv6-m",
    "armv7-m",
    "armv7e-m",
    "armv8-m.main",
    "armv8.1-m.main",
    "riscv32imc",
)


@dataclass(frozen=True)
class Target:
    """One core.

    kind: "host" (a shared library that this machine loads) or "mcu" (an archive, and firmware for a board).
    arch: the instruction set, one of ARCHITECTURES.
    llvm: options of TVM's LLVM target. gcc, zig: flags that select the core for GCC and for `zig cc`, which
    agree on one calling convention. gcc_prefix: of GCC's name, empty for the host's own compiler.
    kernel_flags: how generated kernels are optimised, for GCC.

    What kernels may use:
    dsp: 16-bit SIMD in general registers (SXTAB16, SMLAD, ...). mve: 128-bit vectors of integers (Helium).
    clz: counts leading zeros in one instruction. unaligned: loads words from any address.
    barrel_shift: shifts an operand for free in the instruction that uses it.
    multiply_cycles: what a 32-bit product takes: 1 or, with the small multiplier of some cores, 32.

    board: the board that stands in for the core where it is emulated; None where nothing does.
    Raises ValueError for what contradicts itself.
    """

    name: str
    title: str
    kind: str
    arch: str
    llvm: dict[str, str | int | list[str]]
    gcc: tuple[str, ...]
    zig: tuple[str, ...]
    gcc_prefix: str = "arm-none-eabi-"
    kernel_flags: tuple[str, ...] = ("-O3", "-funroll-loops")
    aliases: tuple[str, ...] = field(default=())
    dsp: bool = False
    mve: bool = False
    clz: bool = False
    unaligned: bool = False
    barrel_shift: bool = False
    multiply_cycles: int = 1
    board: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("host", "mcu"):
            raise self._wrong(f"kind is host or mcu, not {self.kind!r}")
        if self.arch not in ARCHITECTURES:
            raise self._wrong(f"arch is one of {', '.join(ARCHITECTURES)}, not {self.arch!r}")
        if (self.kind == "host") != (self.arch == "host"):
            raise self._wrong(f"a {self.kind} has no arch {self.arch!r}")
        if self.kind == "host" and (self.board is not None or self.gcc_prefix):
            raise self._wrong("a host has neither board nor gcc_prefix")
        if not 1 <= self.multiply_cycles <= 32:
            raise self._wrong(f"multiply_cycles is 1 to 32, not {self.multiply_cycles}")
        if self.dsp and self.arch not in ("armv7e-m", "armv8-m.main", "armv8.1-m.main"):
            raise self._wrong(f"{self.arch} has no dsp")
        if self.mve and (self.arch != "armv8.1-m.main" or not self.dsp):
            raise self._wrong("mve needs armv8.1-m.main with dsp")
        mainline = self.arch in ("armv7-m", "armv7e-m", "armv8-m.main", "armv8.1-m.main")
        if mainline and not (self.clz and self.unaligned and self.barrel_shift):
            raise self._wrong(f"{self.arch} has clz, unaligned and barrel_shift")
        if self.arch == "armv6-m" and (self.clz or self.unaligned or self.barrel_shift):
            raise self._wrong("armv6-m has none of clz, unaligned and barrel_shift")

    def _wrong(self, why: str) -> ValueError:
        return ValueError(f"target {self.name}: {why}")


_HOST_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def _host_triple() -> str:
    machine = platform.machine()
    return _HOST_TRIPLES.get(machine, f"{machine}-linux-gnu")


# Bits of a general register, as LLVM's vector-width; unset, TVM warns at every kernel.
_NO_VECTORS = 32

TARGETS: tuple[Target, ...] = (
    Target(
        name="cpu",
        title="this machine's processor, one thread",
        kind="host",
        arch="host",
        llvm={"kind": "llvm", "mtriple": _host_triple()},
        gcc=(),
        # Named, or zig would link what it finds of the system's C library: other bytes elsewhere.
        zig=("-target", _host_triple()),
        gcc_prefix="",
        kernel_flags=("-O3",),
        aliases=("host",),
        clz=True,
        unaligned=True,
    ),
    Target(
        name="cortex-m0",
        title="Arm Cortex-M0 (Armv6-M), small multiplier",
        kind="mcu",
        arch="armv6-m",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv6m-none-eabi",
            "mcpu": "cortex-m0",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-mcpu=cortex-m0", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"),
        multiply_cycles=32,
        board="microbit",
    ),
    Target(
        name="cortex-m0plus",
        title="Arm Cortex-M0+ (Armv6-M), single-cycle multiplier",
        kind="mcu",
        arch="armv6-m",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv6m-none-eabi",
            "mcpu": "cortex-m0plus",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-mcpu=cortex-m0plus", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"),
        board="microbit",  # the same instructions; nothing emulates the core itself
    ),
    Target(
        name="cortex-m3",
        title="Arm Cortex-M3 (Armv7-M)",
        kind="mcu",
        arch="armv7-m",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv7m-none-eabi",
            "mcpu": "cortex-m3",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3"),
        clz=True,
        unaligned=True,
        barrel_shift=True,
        board="mps2-an385",
    ),
    Target(
        name="cortex-m4",
        title="Arm Cortex-M4 (Armv7E-M, DSP), soft float ABI",
        kind="mcu",
        arch="armv7e-m",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv7em-none-eabi",
            "mcpu": "cortex-m4",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"),
        aliases=("cortex-m",),
        dsp=True,
        clz=True,
        unaligned=True,
        barrel_shift=True,
        board="mps2-an386",
    ),
    Target(
        name="cortex-m7",
        title="Arm Cortex-M7 (Armv7E-M, DSP), soft float ABI",
        kind="mcu",
        arch="armv7e-m",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv7em-none-eabi",
            "mcpu": "cortex-m7",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m7"),
        dsp=True,
        clz=True,
        unaligned=True,
        barrel_shift=True,
        board="mps2-an500",
    ),
    Target(
        name="cortex-m33",
        title="Arm Cortex-M33 (Armv8-M Mainline, DSP), soft float ABI",
        kind="mcu",
        arch="armv8-m.main",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv8m.main-none-eabi",
            "mcpu": "cortex-m33",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=soft"),
        zig=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m33"),
        dsp=True,
        clz=True,
        unaligned=True,
        barrel_shift=True,
        board="mps2-an505",
    ),
    Target(
        name="cortex-m55",
        title="Arm Cortex-M55 (Armv8.1-M Mainline, DSP, MVE), hard float ABI",
        kind="mcu",
        arch="armv8.1-m.main",
        llvm={
            "kind": "llvm",
            "mtriple": "thumbv8.1m.main-none-eabi",
            "mcpu": "cortex-m55",
            "mfloat-abi": "hard",
            "vector-width": 128,
        },
        # Vectors live in the floating-point registers: only the hard-float convention has them.
        gcc=("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
        zig=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve"),
        dsp=True,
        mve=True,
        clz=True,
        unaligned=True,
        barrel_shift=True,
        board="mps3-an547",
    ),
    Target(
        name="riscv32imc",
        title="RISC-V RV32IMC, integer ABI",
        kind="mcu",
        arch="riscv32imc",
        llvm={
            "kind": "llvm",
            "mtriple": "riscv32-unknown-none-elf",
            "mcpu": "generic-rv32",
            "mattr": ["+m", "+c"],
            "mabi": "ilp32",
            "vector-width": _NO_VECTORS,
        },
        gcc=("-march=rv32imc", "-mabi=ilp32"),
        zig=("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c"),
        gcc_prefix="riscv64-unknown-elf-",
        board="riscv-virt",
    ),
)


def find_target(name: str) -> Target:
    """The target of this name or alias. UsageError names the choices."""
    for target in TARGETS:
        if name == target.name or name in target.aliases:
            return target
    choices = ", ".join(sorted(t.name for t in TARGETS))
    raise UsageError(f"unknown target {name!r}; choose one of: {choices}")
