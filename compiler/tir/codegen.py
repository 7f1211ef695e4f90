"""From TIR kernels to C source or LLVM objects, by the raw-pointer route: plain C signatures, no runtime.

The passes are the short list that lowers straight loops on pointers; TVM's default pipeline would pack every
argument into a tagged union. TVM's C output is stripped of its includes and given `restrict` and `const`, which
it drops: without them the compiler has to assume that every store may change a loop bound or a weight.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import tvm

from edgesnn.compiler.tir.kernel import C_TYPES, Kernel
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import Target

_DROPPED = (
    "// tvm target:",
    "#define TVM_EXPORTS",
    '#include "tvm/',
    "#include <math.h>",
    "#include <stdbool.h>",
    "void* __tvm_ffi__library_ctx",
)

_BINDING = re.compile(r"\s*u?int\d+_t (\w+)(?: = [^;]*|\[\d+\]);$")


def _lower(kernel: Kernel, target: tvm.target.Target) -> tvm.IRModule:
    passes = tvm.tirx.transform
    pipeline = tvm.transform.Sequential(
        [
            passes.BindTarget(target),
            passes.StmtSimplify(),
            passes.FlattenBuffer(),
            passes.NarrowDataType(32),
            passes.VectorizeLoop(),
            passes.UnrollLoop(),
            passes.StmtSimplify(),
            passes.CommonSubexprElim(),
            passes.LowerIntrin(),
        ]
    )
    return pipeline(kernel.module)


def c_source(kernel: Kernel) -> str:
    """One kernel as a C99 function."""
    target = tvm.target.Target("c")
    module = tvm.get_global_func("target.build.c")(_lower(kernel, target), target)
    text = module.inspect_source().splitlines()
    lines = [x for x in text if not x.startswith(_DROPPED) and "#pragma" not in x]
    text = "\n".join(lines)
    text = text.replace('#ifdef __cplusplus\nextern "C"\n#endif\n', "")
    declared = ", ".join(
        f"{C_TYPES[p.dtype]}{'' if p.scalar else '*'} {p.name}" for p in kernel.params
    )
    pattern = re.compile(rf"TVM_DLL (?:int32_t|void) {kernel.symbol}\({re.escape(declared)}\)")
    text, found = pattern.subn(kernel.prototype(), text)
    if found != 2:  # declaration and definition
        raise EdgesnnError(
            f"TVM {tvm.__version__} wrote an unexpected signature for {kernel.symbol}; "
            "install the version that `pip install edgesnn[compile]` pins"
        )
    body = text[text.index(kernel.prototype() + " {") :]
    head, rest = _without_unused(body.strip()).split("\n", 1)
    words = set(re.findall(r"\w+", rest))
    unused = "".join(f"  (void){p.name};\n" for p in kernel.params if p.name not in words)
    return f"{head}\n{unused}{rest}\n"


def _without_unused(body: str) -> str:
    """Drop bindings that common-subexpression elimination has left without a reader."""
    while True:
        counts = Counter(re.findall(r"\w+", body))
        kept = [
            line
            for line in body.splitlines()
            if not ((m := _BINDING.match(line)) and counts[m.group(1)] == 1)
        ]
        if len(kept) == len(body.splitlines()):
            return body
        body = "\n".join(kept)


def write_object(kernel: Kernel, target: Target, path: Path) -> None:
    """One kernel as an LLVM object file for the target; no C compiler is involved."""
    machine = tvm.target.Target(dict(target.llvm))
    module = tvm.get_global_func("target.build.llvm")(_lower(kernel, machine), machine)
    module.write_to_file(str(path), "o")


def versions() -> dict[str, str]:
    """Versions that the output depends on."""
    return {"apache-tvm": tvm.__version__}
