"""The bound of the stack: from GCC's call graph, and from what zig's objects hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from edgesnn.api import load_program
from edgesnn.compiler.build import compile_program
from edgesnn.runtime.session import Session
from edgesnn.targets.call_graph import _riscv_calls, _thumb_calls, _without_data, read_graph
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.stack import LONG_DIVISION_FRAME, Stack, worst_case_stack
from edgesnn.targets.target import find_target
from edgesnn.targets.toolchain import find_toolchain

GRAPH = """\
node: {{ title: "main" label: "main\\nmain.c:1:1\\n16 bytes (static)" }}
node: {{ title: "bsp_clock_init" label: "bsp_clock_init\\nx.c:1:1\\n{size} bytes (static)" }}
edge: {{ sourcename: "main" targetname: "bsp_clock_init" }}
"""


@pytest.mark.parametrize(("first", "second"), [(0, 40), (40, 0)])
def test_a_weak_function_and_its_replacement(tmp_path: Path, first: int, second: int) -> None:
    (tmp_path / "a.ci").write_text(GRAPH.format(size=first))
    (tmp_path / "b.ci").write_text(GRAPH.format(size=second))
    assert worst_case_stack(tmp_path, ["main"], "none$").bytes == 16 + 40


CORES = ["cortex-m0", "cortex-m4", "cortex-m55", "riscv32imc"]
FLAGS = ("-std=c99", "-O2", "-ffreestanding", "-ffunction-sections", "-fdata-sections")


def build(folder: Path, core: str, tools: str, *sources: str) -> Path:
    """Objects of the sources a.c, b.c, ... with what worst_case_stack reads."""
    try:
        toolchain = find_toolchain(find_target(core), tools)
    except EdgesnnError as e:
        pytest.skip(str(e))
    folder.mkdir(exist_ok=True)
    for name, source in zip("abcdef", sources, strict=False):
        (folder / f"{name}.c").write_text(HEAD + source)
        toolchain.compile(f"{name}.c", f"{name}.o", FLAGS, folder, graph=True)
    return folder


HEAD = """
#define KEPT __attribute__((noinline))
int use(volatile int *at); /* elsewhere */
extern int (*pointer)(int);
int middle(int n);
int tail(int n);
int same(int n);
int main(void);
"""
MAIN = """
KEPT static int one(int n) { volatile int a[30]; a[n] = n; return a[n + 1] + middle(n); }
KEPT static int two(int n) { volatile int a[20]; a[n] = n; return a[n + 1]; }
int main(void) { return one(3) + two(4); }
"""
MIDDLE = """
__attribute__((weak)) int same(int n) { return n; }
KEPT static int node_1(int n) { volatile int a[50]; a[n] = n; return a[n + 2]; }
KEPT static int node_2(int n) { volatile int a[10]; a[n] = n; return a[n + 2]; }
int (*pointer)(int) = node_1;
int (*const table[2])(int) = {node_1, node_2};
int middle(int n) { volatile int a[4]; a[n] = same(n); return a[0] + pointer(a[1]) + tail(a[2]); }
"""
STRONG = """
KEPT int same(int n) { volatile int a[70]; a[n] = n; return a[n + 2] / n; }
int tail(int n) { volatile int a[6]; a[n] = n; return same(a[n + 1]); }
"""


def plain(stack: Stack) -> list[str]:
    """The path without files and without what GCC adds to names."""
    return [name.rpartition(":")[2].partition(".")[0] for name, _ in stack.path]


@pytest.mark.parametrize("core", CORES)
def test_the_graph_of_objects_is_that_of_gcc(tmp_path: Path, core: str) -> None:
    """The same deepest path: over local functions, files, what replaces a weak function, a pointer, a jump."""
    found = {}
    for tools in ("gcc", "zig"):
        folder = build(tmp_path / tools, core, tools, MAIN, MIDDLE, STRONG)
        assert bool(list(folder.glob("*.ci"))) == (tools == "gcc")
        found[tools] = worst_case_stack(folder, ["main"], r"(^|:)node_\d+$")
        assert found[tools].bytes == sum(frame for _, frame in found[tools].path)
        assert plain(found[tools])[:5] == ["main", "one", "middle", "tail", "same"]
        # The arrays of this path, of which a compiler may drop some, and registers; no other function's.
        assert 4 * (4 + 6 + 70) < found[tools].bytes < 4 * (30 + 4 + 6 + 70 + 50)


@pytest.mark.parametrize("core", ["cortex-m0", "riscv32imc"])
def test_what_a_pointer_is_to(tmp_path: Path, core: str) -> None:
    graphs = {}
    for tools in ("gcc", "zig"):
        folder = build(tmp_path / tools, core, tools, MAIN, MIDDLE, STRONG.replace("[70]", "[5]"))
        graphs[tools] = plain(worst_case_stack(folder, ["main"], r"(^|:)node_\d+$"))
    assert graphs["zig"] == graphs["gcc"] == ["main", "one", "middle", "node_1"]


RECURSIONS = {
    "of a local function": """
KEPT static int f(int n, volatile int *p) { return n < 2 ? *p : f(n - 1, p) * f(n - 2, p) + *p; }
int main(void) { volatile int a = 3; return f(9, &a); }
""",
    "of a global function": """
int f(int n, volatile int *p);
int f(int n, volatile int *p) { return n < 2 ? *p : f(n - 1, p) * f(n - 2, p) + *p; }
int main(void) { volatile int a = 3; return f(9, &a); }
""",
    "over two": """
int f(int n, volatile int *p);
KEPT static int g(int n, volatile int *p) { return *p + 3 * f(n - 1, p); }
KEPT int f(int n, volatile int *p) { return n < 2 ? *p : g(n - 2, p) * g(n - 3, p); }
int main(void) { volatile int a = 3; return f(9, &a); }
""",
}


@pytest.mark.parametrize("core", ["cortex-m4", "riscv32imc"])
@pytest.mark.parametrize("kind", RECURSIONS)
def test_recursion_is_refused(tmp_path: Path, kind: str, core: str) -> None:
    folder = build(tmp_path, core, "zig", RECURSIONS[kind])
    with pytest.raises(EdgesnnError, match=r"recursion through .*: the stack has no bound"):
        worst_case_stack(folder, ["main"], "none$")


UNKNOWN = {
    "a frame that grows": "KEPT int f(int n) { int a[n]; use(a); return a[0]; }",
    "two functions in a section": """
__attribute__((section(".text.both"), noinline)) int g(int n) { volatile int a[9]; return a[n]; }
__attribute__((section(".text.both"), noinline)) int f(int n) { volatile int a[9]; return a[n] + g(n); }
""",
    "assembler": '__asm__(".text\\n.global f\\nf:\\nnop\\nnop\\n"); int f(int n);',
    "recursion over a pointer": "int node_1(int n); int node_1(int n) { return pointer(n) + 1; }"
    "int f(int n); int f(int n) { return pointer(n) + 2; }",
}


@pytest.mark.parametrize("core", ["cortex-m4", "riscv32imc"])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_where_something_is_unknown_all_frames_count(tmp_path: Path, kind: str, core: str) -> None:
    source = (
        UNKNOWN[kind] + "\nint f(int n);\nint main(void) { volatile int n = 3; return f(n) + 1; }"
    )
    source = source.replace("KEPT int f(int n) {", "int f(int n);\nKEPT int f(int n) {")
    folder = build(tmp_path, core, "zig", source)
    graph = read_graph([folder / "a.o"])
    assert graph is not None
    assert (graph.unknown == set()) == (kind == "recursion over a pointer")
    found = worst_case_stack(folder, ["main"], "node")
    assert found.path == ()
    arrays = (
        2 * 36 if kind == "two functions in a section" else 0
    )  # not in the graph, yet in the sum
    total = LONG_DIVISION_FRAME + sum(graph.frames.values()) + arrays
    assert total <= found.bytes <= total + arrays


def test_another_name_of_a_function(tmp_path: Path) -> None:
    alias = """
int real(int n);
int real(int n) { volatile int a[40]; return a[n]; }
__attribute__((alias("real"))) int other(int n);
"""
    call = "int other(int n); int main(void) { volatile int n = 3; return other(n) + 1; }"
    folder = build(tmp_path, "cortex-m4", "zig", call, alias)
    assert plain(worst_case_stack(folder, ["main"], "none$"))[-1] == "real"


def test_64_bit_division_is_deeper(tmp_path: Path) -> None:
    source = "int main(void) { volatile unsigned long long n = 9; n = 7 / n; return (int)n; }"
    folder = build(tmp_path, "cortex-m0", "zig", source)
    assert worst_case_stack(folder, ["main"], "none$").path[-1][1] == LONG_DIVISION_FRAME


def halfwords(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


@pytest.mark.parametrize(
    ("code", "targets"),
    [
        (halfwords(0x4770), []),  # bx lr
        (halfwords(0xBF00, 0x4718), [None]),  # bx r3
        (halfwords(0x4798, 0xBD80), [None]),  # blx r3
        (halfwords(0x47F0), [None]),  # blx lr
        (halfwords(0xF7FF, 0xFFFE), [0]),  # bl to itself
        (halfwords(0xBF00, 0xF7FF, 0xFFFD), [0]),
        (halfwords(0xF000, 0xF801), [6]),  # bl forward
        (halfwords(0xF000, 0xB801), []),  # b.w
        (halfwords(0xE7FD), []),  # b.n
        (halfwords(0xF505, 0x4780), []),  # add.w r7, r5, #16384: its second half is no blx
    ],
)
def test_calls_in_thumb_code(code: bytes, targets: list[int | None]) -> None:
    assert list(_thumb_calls(code, set())) == targets
    assert [t for t in _thumb_calls(code, {0, 2}) if t is not None] == []


def test_constants_between_functions_are_no_calls() -> None:
    code = halfwords(0x4770, 0x4780, 0x4780, 0x4798, 0x4780)
    assert _without_data(code, [(6, True), (0, True), (2, False), (8, False)]) == halfwords(
        0x4770, 0, 0, 0x4798, 0
    )
    assert _without_data(code, []) == code


@pytest.mark.parametrize(
    ("code", "targets"),
    [
        (halfwords(0x8082), []),  # ret
        (halfwords(0x8067, 0x0000), []),  # ret of 32 bits
        (halfwords(0x8782), [None]),  # c.jr a5
        (halfwords(0x9782), [None]),  # c.jalr a5
        (halfwords(0x80E7, 0x0007), [None]),  # jalr ra, a5
        (halfwords(0x0097, 0, 0x80E7, 0xFFC0), [-4]),  # auipc ra, 0; jalr ra, -4(ra)
        (halfwords(0x1097, 0, 0x80E7, 0xFFC0), [4092]),  # auipc ra, 1; jalr ra, -4(ra)
        (halfwords(0x0001, 0x3FFD), [0]),  # nop; c.jal -2
        (halfwords(0xF0EF, 0xFFDF), [-4]),  # jal -4
        (halfwords(0xF06F, 0xFFDF), []),  # j -4
        (halfwords(0x9783, 0x8782), []),  # lh a5: its second half is no c.jr
    ],
)
def test_calls_in_riscv_code(code: bytes, targets: list[int | None]) -> None:
    assert list(_riscv_calls(code, set())) == targets
    assert [t for t in _riscv_calls(code, {0, 2}) if t is not None] == []


@pytest.mark.parametrize("name", ["microbit", "stm32vldiscovery", "sifive_e"])
def test_zig_firmware_for_small_boards(name: str, tmp_path: Path) -> None:
    """zoo:digits fits, and uses no more stack than is proved."""
    program = load_program("zoo:digits")
    try:
        bundle = compile_program(program, board=name, out=tmp_path / "b", toolchain="zig")
        memory = bundle.manifest["memory"]
        assert 300 < memory["stack_bytes"] < 700 and memory["stack_path"]
        rng = np.random.default_rng(4)
        with Session(bundle) as session:
            for _ in range(5):
                session.classify(rng.integers(0, 17, bundle.input_shape, dtype=np.uint8))
            assert 300 < session.stack_high_water() <= memory["stack_bytes"]
    except EdgesnnError as e:
        if "install" not in str(e):
            raise
        pytest.skip(str(e))
