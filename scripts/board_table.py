"""`python scripts/board_table.py [--boards a,b] [--traced N] [--check]`: the tables of docs/BOARDS.md.

zoo:digits is compiled for every board. On each emulated one its firmware answers the whole test set (`run`,
`profile`) and is compared with the reference spike for spike (`verify --trace`); of a real board the size of
the image is stated. `--boards` measures these alone and leaves the other rows as they are. `--check` measures
nothing: it says whether the tables have every board, as its file describes it, and no mismatch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesnn.targets.board import BOARDS_DIR, Board, Region, load_board, read_board
from edgesnn.targets.errors import EdgesnnError

MODEL, DATA = "zoo:digits", "digits"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "BOARDS.md"

# Of a table: its columns, first those that the board's file alone tells.
EMULATED = (
    ("board", "core", "flash + RAM"),
    (
        "flash used",
        "RAM used",
        "stack at worst",
        "accuracy",
        "mean instructions",
        "most seen",
        "worst case",
        "mismatches",
    ),
)
REAL = (
    (
        "board",
        "core",
        "flash + RAM",
        "clock",
        "serial line",
        "flashed by",
        "its support was run on",
    ),
    ("flash used", "RAM used", "stack at worst"),
)
COLUMNS = {"emulated": EMULATED, "real": REAL}
METHODS = {"pyocd": "pyOCD", "uf2": "UF2", "volume": "its drive"}

Row = tuple[str, ...]


def boards_of(kind: str) -> list[Board]:
    """This package's boards, by name: those with an emulator or the others."""
    found = [read_board(path) for path in sorted(BOARDS_DIR.glob("*.toml"))]
    return [board for board in found if (board.emulator is not None) == (kind == "emulated")]


def described(board: Board) -> Row:
    """The columns that the board's file alone tells."""
    core = f"`{board.target}`"
    memory = f"{_size(board.flash)} + {_size(board.ram)}"
    if board.emulator is not None:
        return (f"`{board.name}`", core, memory)
    methods = board.flashing.methods if board.flashing is not None else ()
    return (
        f"`{board.name}`",
        core,
        memory,
        f"{board.clock_hz / 1e6:g} MHz",
        (board.usb.serial if board.usb is not None else None) or "",
        ", ".join(METHODS.get(method, method) for method in methods) or "a tool of its own",
        board.run_on or "nothing: it builds and links",
    )


def _size(region: Region) -> str:
    return f"{region.length // 1024:,} KB"


def sizes(manifest: dict[str, Any]) -> Row:
    """Bytes of flash, RAM and stack of an image."""
    memory = manifest["memory"]
    names = ("flash_bytes", "ram_bytes", "stack_bytes")
    return tuple("" if memory[name] is None else f"{memory[name]:,}" for name in names)


def measure(board: Board, program: Any, folder: Path, traced: int | None) -> Row:
    """The other columns: of a real board the sizes, of an emulated one what it did as well."""
    from edgesnn import evaluate, profiling
    from edgesnn.compiler.build import compile_program
    from edgesnn.runtime.pool import Pool

    bundle = compile_program(program, board=board.name, out=folder / board.name)
    if board.emulator is None:
        return sizes(bundle.manifest)
    # Two at once: as fast as this machine allows with two processors, and the same answers.
    with Pool(bundle, (), [board.name, board.name], say=_say) as pool:
        x, y, what = evaluate.load_samples(pool, DATA)
        assert y is not None
        report = profiling.profile(pool, x, what, y=y, sweep_samples=0)
        ran = evaluate.run(pool, x, y)
        checked = evaluate.verify(pool, x[:traced], trace=True)
    amount, most, stack = report["instructions"], report["worst_case"], report["memory"]
    for name, wrong in {
        "run and profile differ in accuracy": ran["accuracy"] != report["accuracy"],
        "an inference took more than the worst case": most is not None and amount["max"] > most,
        "more stack was used than stated": stack["stack_high_water"] > stack["stack_bytes"],
    }.items():
        if wrong:
            raise EdgesnnError(f"{board.name}: {name}")
    return (
        *sizes(bundle.manifest),
        f"{100 * ran['accuracy']:.2f} %",
        f"{amount['mean']:,.0f}",
        f"{amount['max']:,.0f}",
        "" if most is None else f"{most:,}",
        f"{checked['mismatches']} of {checked['samples']}",
    )


def table(kind: str, rows: list[Row]) -> str:
    """Rows under their heads, in Markdown."""
    heads = (*COLUMNS[kind][0], *COLUMNS[kind][1])
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read_table(text: str, kind: str) -> dict[str, Row]:
    """The rows between a table's markers, by the name of the board."""
    begin, end = _markers(kind)
    if begin not in text or end not in text:
        raise EdgesnnError(f"{PAGE} has no markers for the table of {kind} boards")
    inside = text.partition(begin)[2].partition(end)[0]
    lines = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in inside.splitlines()]
    return {row[0].strip("`"): row for row in lines[2:]}


def _markers(kind: str) -> tuple[str, str]:
    """The lines around a table."""
    return f"<!-- {kind} boards: begin -->\n", f"<!-- {kind} boards: end -->\n"


def check(text: str) -> list[str]:
    """What is wrong with the tables of a page, one line each."""
    problems = []
    for kind in COLUMNS:
        rows = read_table(text, kind)
        boards = {board.name: board for board in boards_of(kind)}
        problems += [f"{name}: no {kind} board" for name in rows if name not in boards]
        for name, board in boards.items():
            known, row = described(board), rows.get(name, ())
            if not row:
                problems.append(f"{name}: no row")
            elif row[: len(known)] != known:
                problems.append(f"{name}: {row[: len(known)]} instead of {known}")
            elif kind == "emulated" and not row[-1].startswith("0 of "):
                problems.append(f"{name}: {row[-1]} mismatches")
    return problems


def write(
    text: str, names: list[str] | None, traced: int | None, say: Callable[[str], None]
) -> str:
    """The page with its tables as they are now: measured anew where `names` has the board, or is None."""
    from edgesnn import api

    program = api.load_program(MODEL)
    for kind in COLUMNS:
        old, rows = read_table(text, kind), []
        with tempfile.TemporaryDirectory() as folder:
            for board in boards_of(kind):
                known = described(board)
                kept = old.get(board.name)
                if names is not None and board.name not in names and kept is not None:
                    rows.append((*known, *kept[len(known) :]))
                    continue
                rows.append((*known, *measure(board, program, Path(folder), traced)))
                say("  ".join(rows[-1]))
        begin, end = _markers(kind)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table(kind, rows)}{end}{rest.partition(end)[2]}"
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--boards", help="measure these alone, separated by commas")
    parser.add_argument("--traced", type=int, help="samples of verify --trace; default all")
    parser.add_argument("--check", action="store_true", help="measure nothing, check the tables")
    given = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    try:
        if given.check:
            problems = check(text)
            for problem in problems:
                _say(problem)
            return 1 if problems else 0
        names = given.boards.split(",") if given.boards else None
        for name in names or ():
            load_board(name)  # or the error that lists them
        PAGE.write_text(write(text, names, given.traced, _say), encoding="utf-8")
    except EdgesnnError as e:
        _say(f"board_table: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
