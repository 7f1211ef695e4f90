"""`make size [BUNDLE=folder] [ALL=1]`: where flash, RAM and stack go, and what changed since the last commit.

Without BUNDLE the golden program is compiled for every core that has a compiler here: totals per core, and the
Cortex-M4 firmware function by function, each with the difference to tests/golden/sizes.json, which
`make golden` writes again. Functions of equal size are left out unless ALL is set.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgesnn.compiler.build import compile_program
from edgesnn.compiler.text import from_text
from edgesnn.runtime.bundle import Bundle
from edgesnn.targets.board import list_boards
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS, Target
from edgesnn.targets.toolchain import find_toolchain

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
GOLDEN = FOLDER / "samples.program"
SIZES = FOLDER / "sizes.json"
DETAILED = "cortex-m4"
TOTALS = ("flash_bytes", "ram_bytes", "arena_bytes", "stack_bytes")


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
    for name in TOTALS:
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


def measure(target: Target, folder: Path) -> dict[str, Any]:
    """compiler, board, totals in bytes (None: unknown) and, of the Cortex-M4, "section symbol" -> bytes."""
    program = from_text(GOLDEN.read_text(encoding="utf-8"))
    board = target.board if target.board in {b.name for b in list_boards()} else None
    bundle = compile_program(program, target.name, board=board, out=folder / target.name)
    memory = bundle.manifest["memory"]
    functions: dict[str, int] = {}
    if target.name == DETAILED and bundle.firmware is not None:
        for section, symbol, size in symbols(bundle.firmware):
            key = f"{section} {symbol}"
            functions[key] = functions.get(key, 0) + size
    return {
        "compiler": bundle.manifest["versions"]["compiler"],
        "board": board,
        **{name: memory[name] for name in TOTALS},
        "functions": dict(sorted(functions.items())),
    }


def measure_all() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """By target name: its sizes, or why it has none here."""
    found, missing = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            if target.kind != "mcu":
                continue
            try:
                find_toolchain(target)
                found[target.name] = measure(target, Path(folder))
            except EdgesnnError as e:
                missing[target.name] = str(e)
    return found, missing


def write_sizes(path: Path = SIZES) -> list[str]:
    """Write the committed sizes; those of cores that cannot be built here stay. Returns the names of these."""
    found, missing = measure_all()
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = {name: before[name] for name in missing if name in before}
    text = json.dumps({**kept, **found}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
    return sorted(missing)


def difference(now: int | None, before: int | None) -> str:
    """+n, -n, nothing where equal, "new" where nothing is known of before."""
    if now == before:
        return ""
    return "new" if now is None or before is None else f"{now - before:+,}"


def changes(
    now: dict[str, int], before: dict[str, int], everything: bool
) -> list[tuple[str, int | None, str]]:
    """(name, bytes now, difference) by section, largest first; what is equal only if `everything` is asked."""
    names = sorted(
        now.keys() | before.keys(),
        key=lambda k: (k.split()[0], -max(now.get(k, 0), before.get(k, 0)), k),
    )
    rows = [
        (name, now.get(name), difference(now.get(name, 0), before.get(name, 0))) for name in names
    ]
    return rows if everything else [row for row in rows if row[2]]


def compare(everything: bool) -> None:
    """Print the golden firmware's sizes and how they differ from the committed ones."""
    committed = json.loads(SIZES.read_text(encoding="utf-8")) if SIZES.exists() else {}
    found, missing = measure_all()
    print("golden firmware, bytes (difference to tests/golden/sizes.json)")
    print(f"  {'':14}" + "".join(f"{name.removesuffix('_bytes'):>18}" for name in TOTALS))
    for name, sizes in found.items():
        before = committed.get(name, {})
        cells = []
        for total in TOTALS:
            delta = difference(sizes[total], before.get(total))
            value = "unknown" if sizes[total] is None else f"{sizes[total]:,}"
            cells.append(f"{value}{f' ({delta})' if delta else '':>9}".rjust(18))
        other = before.get("compiler") not in (None, sizes["compiler"])
        print(f"  {name:14}{''.join(cells)}{'  committed: another compiler' if other else ''}")
    for name, why in missing.items():
        print(f"  {name:14}skipped: {why}")
    if DETAILED in found:
        old = committed.get(DETAILED, {}).get("functions", {})
        rows = changes(found[DETAILED]["functions"], old, everything)
        print(
            f"\n{DETAILED}, by function" + ("" if rows else ": nothing differs (ALL=1 lists all)")
        )
        for name, size, delta in rows:
            print(f"  {'–' if size is None else format(size, ','):>8}{delta:>9}  {name}")


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--all"]
    if words:
        report(Bundle.open(Path(words[0])))
    else:
        compare(everything="--all" in sys.argv)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
