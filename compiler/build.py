"""`edgesnn compile`: from a program to a bundle on disk. Equal input and tools give equal bytes."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgesnn.compiler import ir
from edgesnn.compiler.boot import finish_boot
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.budget import Budget, Use, check_budget
from edgesnn.compiler.check import check_program
from edgesnn.compiler.choose import choose, options, table_bytes
from edgesnn.compiler.esnn_file import program_bytes
from edgesnn.compiler.fit import SMALLEST_STACK, Need, Saving, check_fit, measure, roomy
from edgesnn.compiler.inspect import (
    describe,
    instructions,
    instructions_report,
    kernels_report,
)
from edgesnn.compiler.plan import PREFERENCES, plan_memory
from edgesnn.compiler.stream_plan import stream_memory
from edgesnn.compiler.styles import PLAIN, Style
from edgesnn.runtime.bundle import BOARD_FILE, BUNDLE_FORMAT, BUNDLE_VERSION, MANIFEST, Bundle
from edgesnn.runtime.files import check_replaceable, replace_folder, sha256
from edgesnn.targets.board import BSP_DIR, Board, load_board
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.stack import Stack, worst_case_stack
from edgesnn.targets.target import Target, find_target
from edgesnn.targets.toolchain import Toolchain, find_toolchain
from edgesnn.targets.uf2 import write_uf2

C_CORE = Path(__file__).resolve().parent.parent / "runtime" / "c"
MICRO = Path(__file__).resolve().parent / "micro"
_CODEGENS = ("c", "llvm")
PROTOCOLS = ("edgesnn", "mlperf-tiny")
_STREAM = "model_stream.c"
_SHORTEST_WATCHDOG = 10  # milliseconds
# Whose file brings what a board's sources may lack.
_SUPPORT = {
    "bsp_uart_": "a UART file",
    "bsp_ticks": "the file of its counter.kind",
    "bsp_wa": "cortex_m/wait.c or riscv/wait.c",
    "bsp_st": "start.c",
}
_NODE_FUNCTIONS = r"(^|:)node_\d+$"
_ENTRIES = ("esnn_run", "esnn_push_frame", "esnn_init", "esnn_step")
_STREAM_ENTRIES = (
    "esnn_stream_init",
    "esnn_stream_push",
    "esnn_stream_classify",
    "esnn_stream_event",
    "esnn_stream_advance",
    "esnn_stream_step",
)
_STREAM_FUNCTIONS = r"(^|:)(node_\d+|esnn_log_mel_row)$"

Progress = Callable[[str], None]


def find_machine(target: str | None, board: str | None) -> tuple[Target, Board | None]:
    """The target, a board's own where only that is named, and the board.

    UsageError where neither is named, where one is unknown, or where the board has another core.
    """
    on = load_board(board) if board is not None else None
    name = target or (on.target if on is not None else None)
    if name is None:
        raise UsageError("name a --target or a --board; `edgesnn targets` and `boards` list them")
    machine = find_target(name)
    if on is not None and not on.runs(machine.name):
        raise UsageError(
            f"board {on.name} has a {on.target}, not a {machine.name}; leave out --target"
        )
    return machine, on


def compile_program(
    program: ir.Program,
    target: str | None = None,
    *,
    board: str | None = None,
    out: Path | str,
    codegen: str = "c",
    toolchain: str | None = None,
    prefer: str = "speed",
    progress: Progress | None = None,
    styles: Mapping[str, Style] | None = None,
    budget: Budget | None = None,
    protocol: str = "edgesnn",
    watchdog: int | None = None,
) -> Bundle:
    """Compile a program into the bundle folder `out` and open it.

    target: name or alias; a board implies it. codegen "c": kernels as C, built by the C compiler; "llvm":
    kernels as LLVM objects straight from TVM. toolchain: "gcc" or "zig", by default what is there. prefer:
    "speed", or "ram": layer by layer where that saves memory (plan.py). An `out` that is an older bundle is
    replaced in one rename; anything else that is in the way is refused. styles: of some nodes, whatever
    they cost (choose.py). budget: EdgesnnError where the model takes more; an older bundle then stays.
    protocol: what the firmware speaks, "edgesnn" (docs/FORMAT.md) or "mlperf-tiny" (docs/MLPERF-TINY.md).
    watchdog: milliseconds without a sign of life after which the board resets itself.
    """
    say = progress or (lambda _: None)
    if codegen not in _CODEGENS:
        raise UsageError(
            f"unknown code generator {codegen!r}; choose one of: {', '.join(_CODEGENS)}"
        )
    if prefer not in PREFERENCES:
        raise UsageError(f"cannot prefer {prefer!r}; choose one of: {', '.join(PREFERENCES)}")
    machine, on = find_machine(target, board)
    folder = Path(out).resolve()
    check_replaceable(folder, MANIFEST, BUNDLE_FORMAT, "bundle")
    check_program(program)
    _check_protocol(protocol, program, on)
    _check_watchdog(watchdog, on)
    tools = find_toolchain(machine, toolchain)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".edgesnn-", dir=folder.parent) as temporary:
            place = Path(temporary) / "bundle"
            build = _Build(
                *(program, machine, on, tools, codegen, prefer, styles, budget, place, protocol),
                watchdog,
            )
            build.run(say)
            replace_folder(build.root, folder)
    except OSError as e:
        raise EdgesnnError(f"cannot write {out}: {e.strerror or e}") from None
    return Bundle.open(Path(out))


def _check_protocol(protocol: str, program: ir.Program, board: Board | None) -> None:
    """UsageError where there is no such protocol, nothing to speak it, or no way to say the input in it."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}; choose one of: {', '.join(PROTOCOLS)}")
    if protocol == "edgesnn":
        return
    if board is None:
        raise UsageError(
            f"--protocol {protocol} is spoken by firmware; name a --board (`edgesnn boards` lists them)"
        )
    if isinstance(program.input, ir.EventInput):
        raise UsageError(
            f"{program.name} takes events, and --protocol {protocol} loads frames of samples only; leave it out"
        )


def _check_watchdog(watchdog: int | None, board: Board | None) -> None:
    """UsageError where nothing has such a watchdog."""
    if watchdog is None:
        return
    if board is None:
        raise UsageError("--watchdog is firmware's; name a --board (`edgesnn boards` lists them)")
    if board.watchdog is None:
        raise UsageError(f"there is no watchdog for board {board.name}; leave out --watchdog")
    most = board.watchdog.most_ms
    if not _SHORTEST_WATCHDOG <= watchdog <= most:
        raise UsageError(
            f"--watchdog {watchdog} is not in {_SHORTEST_WATCHDOG}...{most}, the milliseconds that board "
            f"{board.name} can be given"
        )


class _Build:
    """One compilation in a fresh folder; every tool runs inside it with relative names."""

    def __init__(
        self,
        program: ir.Program,
        target: Target,
        board: Board | None,
        tools: Toolchain,
        codegen: str,
        prefer: str,
        styles: Mapping[str, Style] | None,
        budget: Budget | None,
        root: Path,
        protocol: str,
        watchdog: int | None,
    ) -> None:
        self.protocol, self.watchdog = protocol, watchdog
        self.program, self.target, self.board = program, target, board
        self.tools, self.codegen, self.root = tools, codegen, root
        self.bounds = prove(program)
        self.choice = choose(program, self.bounds, target, micro=codegen == "c", wanted=styles)
        self.plan = plan_memory(program, self.bounds, self.choice, prefer)
        self.mcu = target.kind == "mcu"
        self.budget = budget
        self.instructions, self.unknown = instructions(
            program,
            self.bounds,
            self.choice,
            target,
            codegen=codegen,
            compiler=tools.version,
            layered=bool(self.plan.bands),
        )

    def run(self, say: Progress) -> None:
        if self.board is not None:
            self._check_least(self.board)
            if self.watchdog is not None:
                self._check_kicks(self.board, self.watchdog)
        for name in ("src", "lib", "obj"):
            (self.root / name).mkdir(parents=True)
        say("generating kernels")
        kernel_objects, tvm_version = self._generate()
        say(f"compiling with {self.tools.version}")
        core = ["esnn.c", "model.c", *self._stream_sources()]
        objects = [f"obj/{Path(name).stem}.o" for name in core]
        for name in core:
            self._compile(f"src/{name}", ["-O2"])
        if self.codegen == "c":
            self._compile("src/kernels.c", self._kernel_flags())
            kernel_objects = ["obj/kernels.o"]
        self.tools.archive([*objects, *kernel_objects], "lib/libmodel.a", self.root)
        if not self.mcu:
            shared = ["-shared", "-Wl,--build-id=none", "-s"]
            every = [*objects, *kernel_objects]
            for name in ["esnn_host", *(["esnn_host_stream"] if self.program.stream else [])]:
                shutil.copy(C_CORE / f"{name}.c", self.root / "src" / f"{name}.c")
                self._compile(f"src/{name}.c", ["-O2"])
                every.append(f"obj/{name}.o")
            self.tools.link(every, "lib/libmodel.so", shared, self.root)
        if self.board is not None:
            say(f"linking firmware for {self.board.name}")
            self._firmware(self.board, [*objects, *kernel_objects])
        memory = self._memory([*objects, *kernel_objects])
        if self.budget is not None:
            check_budget(self.budget, self._uses(memory))
        for scratch in ("obj", "bsp"):
            shutil.rmtree(self.root / scratch, ignore_errors=True)
        (self.root / "model.esnn").write_bytes(program_bytes(self.program))
        self._write_manifest(memory, tvm_version)

    def _generate(self) -> tuple[list[str], dict[str, str]]:
        """Write src/; with LLVM also the kernels' objects, whose names are returned."""
        try:
            from edgesnn.compiler.tir import codegen as tir
            from edgesnn.compiler.tir import emit
        except ImportError as e:
            raise EdgesnnError(
                f"compiling needs Apache TVM ({e}); run `pip install 'edgesnn[compile]'`"
            ) from None
        emission = emit.emit(self.program, self.bounds, self.plan, self.choice)
        source = self.root / "src"
        for name in ("esnn.h", "esnn.c"):
            shutil.copy(C_CORE / name, source / name)
        if self.program.stream is not None:
            for name in ("esnn_stream.h", *self._stream_sources()[:-1]):
                shutil.copy(C_CORE / name, source / name)
            _write(source / _STREAM, emit.stream_source(self.program, self.bounds))
        _write(source / "model.h", emit.model_header(emission))
        _write(source / "model.c", emit.model_source(emission))
        _write(source / "kernels.h", emit.kernels_header(emission.kernels))
        bodies = [tir.c_source(kernel) for kernel in emission.kernels]
        for name in emit.micro_headers(bodies):
            shutil.copy(MICRO / name, source / name)
        _write(source / "kernels.c", emit.kernels_source(bodies))
        objects: list[str] = []
        if self.codegen == "llvm":
            _write(source / "bits.c", '#define ESNN_BITS_LINKAGE\n#include "esnn_bits.h"\n')
            self._compile("src/bits.c", ["-O2"])
            objects.append("obj/bits.o")
            for kernel in emission.kernels:
                objects.append(f"obj/{kernel.symbol}.o")
                tir.write_object(kernel, self.target, self.root / objects[-1])
        return objects, tir.versions()

    def _stream_sources(self) -> list[str]:
        """Files of src/ that only programs with a stream have: of the C core, then the generated one."""
        stream = self.program.stream
        if stream is None:
            return []
        sound = isinstance(stream, ir.WindowStream) and isinstance(stream.front, ir.LogMel)
        return ["esnn_stream.c", *(["esnn_log_mel.c"] if sound else []), _STREAM]

    def _base_flags(self) -> list[str]:
        if not self.mcu:
            return ["-std=c99", "-fPIC", "-fvisibility=default"]
        flags = ["-std=c99", "-ffreestanding", "-ffunction-sections", "-fdata-sections"]
        return [*flags, "-I", str(BSP_DIR / "include")]

    def _kernel_flags(self) -> list[str]:
        return list(self.target.kernel_flags)

    def _compile(self, source: str, flags: Sequence[str]) -> None:
        obj = f"obj/{Path(source).stem}.o"
        self.tools.compile(source, obj, [*self._base_flags(), *flags], self.root, graph=True)

    def _firmware(self, board: Board, objects: Sequence[str]) -> None:
        """Board support, protocol and main, linked with the model: firmware.elf, .bin, .hex."""
        support = self.root / "bsp"
        support.mkdir()
        header, own, own_flags = self._protocol_sources(board)
        sources = [*board.sources, *(C_CORE / name for name in own)]
        if self.watchdog is not None and board.watchdog is not None:
            sources.append(board.watchdog.source)
            own_flags.append(f"-DBSP_WATCHDOG_MS={self.watchdog}u")
        for file in [*sources, C_CORE / header]:
            shutil.copy(file, support / file.name)
        includes = [f for folder in board.includes for f in ("-I", str(folder))]
        flags = ["-O2", *board.cflags, "-I", "src", "-I", "bsp", *includes]
        flags += own_flags
        every = list(objects)
        for file in sources:
            obj = f"obj/fw_{file.stem}.o"
            self.tools.compile(f"bsp/{file.name}", obj, flags, self.root, graph=True)
            every.append(obj)
        self._check_fit(board, every)
        shutil.copyfile(board.path, self.root / BOARD_FILE)
        self._link(board, every, "firmware.elf")
        finish_boot(self.root / "firmware.elf", board)
        family = board.flashing.uf2_family if board.flashing is not None else None
        _write_images(self.root / "firmware.elf", self.root, family)

    def _protocol_sources(self, board: Board) -> tuple[str, list[str], list[str]]:
        """Of the firmware's own: the header, the C files and the flags of its protocol."""
        if self.protocol == "mlperf-tiny":
            # A C string: a name has nothing to escape.
            flags = [f'-DBSP_BOARD="{board.name}"']
            return "esnn_mlperf.h", ["esnn_mlperf.c", "firmware_mlperf.c"], flags
        if self.program.stream is None:
            return "esnn_link.h", ["esnn_link.c", "firmware.c"], []
        link = ["esnn_link.c", "esnn_link_stream.c", "firmware.c"]
        return "esnn_link.h", link, ["-DESNN_LINK_STREAM"]

    def _link(self, board: Board, objects: Sequence[str], out: str) -> None:
        _write(self.root / "bsp" / "link.ld", board.linker_script())
        flags = [*board.ldflags, "-T", "bsp/link.ld"]
        if self.protocol == "mlperf-tiny":
            flags.append("-Wl,--wrap=bsp_wait")  # it counts time while it waits for a byte
        try:
            self.tools.link([*objects, *self.tools.support], out, flags, self.root)
        except EdgesnnError as e:
            found = re.search(r"undefined (?:reference to|symbol:) ?[`']?(bsp_\w+)", str(e))
            if found is None:
                raise
            what = next(
                (w for name, w in _SUPPORT.items() if found[1].startswith(name)),
                "the file that has it",
            )
            raise EdgesnnError(
                f"board {board.name}: no source defines {found[1]}; name {what} in sources"
            ) from None

    def _check_kicks(self, board: Board, watchdog: int) -> None:
        """UsageError where the watchdog bites within what is known to run at worst between two kicks.

        The firmware kicks after every timestep, that of MLPerf Tiny after every node. An instruction takes a
        cycle at least; what an emulator takes for each is in the board's counter.
        """
        if self.instructions is None or board.watchdog is None:
            return
        steps = self.instructions.step.values()
        worst = self.instructions.worst_step if self.protocol == "edgesnn" else max(steps)
        counter = board.counter
        emulated = board.emulator is not None and counter.unit == "instructions"
        rate = float(counter.exact * counter.hz) if emulated else board.clock_hz
        time_ms = math.ceil(1000 * worst / rate)
        if watchdog >= time_ms:
            return
        most, what = board.watchdog.most_ms, "step" if self.protocol == "edgesnn" else "layer"
        text = f"a {what} can take {time_ms:,} ms and more"
        if most < time_ms:
            raise UsageError(
                f"{text}, board {board.name}'s watchdog waits {most:,} ms at most: the model is too slow for "
                "it; leave out --watchdog"
            )
        digit = 10 ** (len(str(2 * time_ms)) - 1)
        enough = min(-(-2 * time_ms // digit) * digit, most)
        raise UsageError(f"{text}; --watchdog {enough} or longer")

    def _check_least(self, board: Board) -> None:
        """EdgesnnError where the tables or the arena alone are too much: known before code is generated."""
        ram = self.plan.arena_bytes + stream_memory(self.program, self.bounds)
        ram += min(SMALLEST_STACK, board.stack_bytes)
        flash = sum(self._table_bytes().values())
        needs = [
            Need("flash", flash, board.flash.length, least=True),
            Need("ram", ram, board.ram.length, least=True),
        ]
        check_fit(self.program.name, board, needs, self._savings(board, None))

    def _table_bytes(self) -> dict[str, int]:
        """By node what its tables take of flash."""
        return {
            n.name: table_bytes(self.program, self.bounds, n, self.choice.get(n.name, PLAIN))
            for n in self.program.nodes
        }

    def _check_fit(self, board: Board, objects: Sequence[str]) -> None:
        """EdgesnnError where a region of the board overflows; by a trial link that has room for everything."""
        trial = roomy(board)
        self._link(trial, objects, "obj/trial.elf")
        needs = measure(self.root / "obj" / "trial.elf", trial, board)
        (self.root / "obj" / "trial.elf").unlink()
        check_fit(self.program.name, board, needs, self._savings(board, self._stack()))

    def _savings(self, board: Board, stack: Stack | None) -> list[Saving]:
        """What makes the firmware smaller. stack: what it can use, where that is known."""
        layered = plan_memory(self.program, self.bounds, self.choice, "ram")
        found = [Saving("ram", "--prefer ram", self.plan.arena_bytes - layered.arena_bytes)]
        if stack is not None:
            enough = max(-(-stack.bytes // 8) * 8, SMALLEST_STACK)
            how = f"stack_bytes = {enough} in the board's file"
            found.append(Saving("ram", how, board.stack_bytes - enough))
        return found

    def _stack(self) -> Stack | None:
        """The most that the firmware, or any function of the library, can use; None where nobody tells."""
        if self.codegen == "llvm":
            return None  # TVM's LLVM objects do not say what their frames take
        if self.board is not None:
            entries: Sequence[str] = ("bsp_reset", "bsp_start", "main")
        else:
            entries = (*_ENTRIES, *_STREAM_ENTRIES)
        called = _NODE_FUNCTIONS if self.program.stream is None else _STREAM_FUNCTIONS
        return worst_case_stack(self.root / "obj", entries, called)

    def _memory(self, objects: Sequence[str]) -> dict[str, Any]:
        """Sizes as measured in what was built; RAM is static data with the arena, without the stack."""
        memory: dict[str, Any] = {"arena_bytes": self.plan.arena_bytes}
        if self.board is not None:
            sections = _sections(self.root / "firmware.elf")
            memory["sections"] = {name: size for name, size, *_ in sections}
            memory["flash_bytes"] = sum(size for _, size, loaded, _ in sections if loaded)
            memory["ram_bytes"] = sum(
                s for n, s, _, writable in sections if writable and n != ".stack"
            )
            memory["stack_reserved_bytes"] = self.board.stack_bytes
            memory["flash_region_bytes"] = self.board.flash.length
            memory["ram_region_bytes"] = self.board.ram.length
        else:
            built = (
                [self.root / "lib/libmodel.so"]
                if not self.mcu
                else [self.root / o for o in objects]
            )
            found = [s for file in built for s in _sections(file)]
            totals: dict[str, int] = {}
            for name, size, *_ in found:
                family = "." + name.split(".")[1] if "." in name else name
                totals[family] = totals.get(family, 0) + size
            memory["sections"] = totals
            memory["flash_bytes"] = sum(size for _, size, loaded, _ in found if loaded)
            own = self.plan.arena_bytes + stream_memory(self.program, self.bounds)
            memory["ram_bytes"] = own + sum(s for _, s, _, w in found if w)
        stack = self._stack()
        memory["stack_bytes"] = None if stack is None else stack.bytes
        if stack is None:
            return memory
        memory["stack_path"] = [list(call) for call in stack.path]
        reserved = memory.get("stack_reserved_bytes")
        if reserved is not None and stack.bytes > reserved:
            raise EdgesnnError(
                f"the firmware can use {stack.bytes} bytes of stack, board {self.board.name} reserves "  # type: ignore[union-attr]
                f"{reserved}; raise stack_bytes in its board file"
            )
        return memory

    def _uses(self, memory: dict[str, Any]) -> dict[str, Use]:
        """What the model takes, in all and by layer."""
        nodes, flash = self.program.nodes, self._table_bytes()
        ram = {
            n.name: sum(b.bytes for k, b in self.plan.buffers.items() if k.startswith(f"{n.name}."))
            for n in nodes
        }
        found = [
            re.fullmatch(r"(?:.*:)?node_(\d+)", call[0]) for call in memory.get("stack_path", [])
        ]
        deepest = {nodes[int(m[1])].name: int(memory["stack_bytes"]) for m in found if m}
        stack = memory["stack_bytes"]
        worst = self.instructions
        return {
            "flash": Use(memory["flash_bytes"], "", flash),
            "ram": Use(memory["ram_bytes"], "", ram),
            "stack": Use(
                stack, "LLVM objects tell no frame sizes" if stack is None else "", deepest
            ),
            "instructions": Use(
                None if worst is None else worst.worst_inference,
                self.unknown,
                {} if worst is None else worst.inference,
            ),
        }

    def _write_manifest(self, memory: dict[str, Any], versions: dict[str, str]) -> None:
        files = sorted(p for p in self.root.rglob("*") if p.is_file())
        about = describe(self.program, plan=self.plan)
        arena = about.pop("arena")
        about.pop("arena_bytes")
        manifest = {
            "format": BUNDLE_FORMAT,
            "version": BUNDLE_VERSION,
            **about,
            "target": self.target.name,
            "board": self.board.name if self.board else None,
            "protocol": self.protocol,
            "watchdog_ms": self.watchdog,
            "codegen": self.codegen,
            "versions": {"edgesnn": version("edgesnn"), "compiler": self.tools.version, **versions},
            "memory": {**memory, "arena": arena},
            "instructions": instructions_report(
                self.program, self.instructions, self.unknown, self.tools.version
            ),
            "kernels": kernels_report(
                self.choice,
                options(self.program, self.bounds, self.target if self.codegen == "c" else None),
            ),
            "files": {p.relative_to(self.root).as_posix(): sha256(p) for p in files},
        }
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        _write(self.root / MANIFEST, text)


def _write(path: Path, text: str) -> None:
    """The same bytes in every locale."""
    path.write_bytes(text.encode())


def _sections(path: Path) -> list[tuple[str, int, bool, bool]]:
    """(name, bytes, occupies flash, is writable) of every section that is there at run time."""
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    out = []
    with path.open("rb") as f:
        for s in ELFFile(f).iter_sections():
            flags, size = s["sh_flags"], s["sh_size"]
            if flags & SH_FLAGS.SHF_ALLOC and size and not s.name.startswith(".ARM.ex"):
                loaded = s["sh_type"] != "SHT_NOBITS"
                out.append((s.name, int(size), loaded, bool(flags & SH_FLAGS.SHF_WRITE)))
    return out


def _write_images(elf: Path, folder: Path, family: int | None) -> None:
    """firmware.bin (from the lowest load address, gaps 0xFF), firmware.hex (Intel HEX).

    Of a board that takes UF2 files of a `family` of chips, firmware.uf2 too.
    """
    from elftools.elf.elffile import ELFFile
    from intelhex import IntelHex

    image = IntelHex()
    image.padding = 0xFF
    with elf.open("rb") as f:
        for segment in ELFFile(f).iter_segments("PT_LOAD"):
            if segment["p_filesz"]:
                image.puts(segment["p_paddr"], segment.data())
    image.write_hex_file(str(folder / "firmware.hex"))
    data = image.tobinstr()
    (folder / "firmware.bin").write_bytes(data)
    if family is not None:
        (folder / "firmware.uf2").write_bytes(write_uf2(data, image.minaddr(), family))
