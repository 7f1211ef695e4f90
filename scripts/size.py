"""`make size [BUNDLE=folder]`: where flash, RAM and stack go, in a firmware and function by function.

Without BUNDLE the golden program is compiled for the emulated board.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from edgesnn.compiler.build import compile_program
from edgesnn.compiler.text import from_text
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets.errors import EdgesnnError

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "samples.program"
BOARD = "mps2-an386"


def symbols(elf: Path) -> list[tuple[str, str, int]]:
    """(section, symbol, bytes) of every function and object in an ELF file, largest first."""
    from elftools.elf.elffile import ELFFile

    rows = []
    with elf.open("rb") as f:
        file = ELFFile(f)
        table: Any = file.get_section_by_name(".symtab")
        for symbol in table.iter_symbols() if table is not None else ():
            index = symbol["st_shndx"]
            kind = symbol["st_info"]["type"]
            if kind in ("STT_FUNC", "STT_OBJECT") and symbol["st_size"] and isinstance(index, int):
                rows.append((file.get_section(index).name, symbol.name, int(symbol["st_size"])))
    return sorted(rows, key=lambda row: (row[0], -row[2], row[1]))


def report(bundle: Bundle) -> None:
    memory = bundle.manifest["memory"]
    print(f"{bundle.name} for {bundle.board or bundle.target}, {bundle.manifest['codegen']} code")
    for name in ("flash_bytes", "ram_bytes", "arena_bytes", "stack_bytes"):
        print(f"  {name:14}{'unknown' if memory[name] is None else format(memory[name], ','):>10}")
    for name, size in sorted(memory["sections"].items()):
        print(f"  {name:14}{size:10,}")
    if memory.get("stack_path"):
        print("\nstack, the deepest calls")
        for name, size in memory["stack_path"]:
            print(f"  {size:8,}  {name}")
    if bundle.firmware is not None:
        last = ""
        for section, name, size in symbols(bundle.firmware):
            if section != last:
                print(f"\n{section}")
                last = section
            print(f"  {size:8,}  {name}")


def main() -> int:
    if len(sys.argv) > 1:
        report(Bundle.open(Path(sys.argv[1])))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        program = from_text(GOLDEN.read_text(encoding="utf-8"))
        report(compile_program(program, None, board=BOARD, out=Path(folder) / "golden"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
