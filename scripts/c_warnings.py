"""`make warnings`: the C core, firmware and board support with every warning an error, on every machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgesnn.targets.board import list_boards
from edgesnn.targets.errors import EdgesnnError
from edgesnn.targets.target import TARGETS
from edgesnn.targets.toolchain import find_toolchain

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "runtime" / "c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-O2")
# firmware.c includes the header of a generated model; this one stands for it, with a stream and without.
MODEL = ROOT / "tests" / "board"
STREAM = ["-DTEST_STREAM", "-DESNN_LINK_STREAM"]
WATCHED = ["-DBSP_WATCHDOG_MS=1000u"]
WITH_WATCHDOG = ("wait", "firmware", "firmware_mlperf")  # other with it than without


def main() -> int:
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        obj = str(Path(folder) / "out.o")
        for target in TARGETS:
            tools = find_toolchain(target)
            sources = sorted(CORE.glob("*.c"))
            if target.kind == "host":
                sources = [s for s in sources if not s.name.startswith("firmware")]
                for source in sources:
                    tools.compile(str(source), obj, [*STRICT, "-I", str(CORE)], ROOT)
                    count += 1
                continue
            boards = [board for board in list_boards() if board.runs(target.name)]
            for board in boards:
                folders = [CORE, MODEL, *board.includes]
                include = [word for f in folders for word in ("-I", str(f))]
                flags = [*STRICT, *board.cflags, '-DBSP_BOARD="board"', *include]
                own = [s for s in sources if s.name.startswith("firmware")]
                if board is boards[0]:  # the rest of the core is the same for all boards of a core
                    own = [s for s in sources if not s.name.startswith("esnn_host")]
                every: list[tuple[Path, list[str]]] = [
                    (file, []) for file in (*own, *board.sources)
                ]
                every += [(CORE / name, STREAM) for name in ("esnn_link.c", "firmware.c")]
                if board.watchdog is not None:
                    watched = [f for f in (*own, *board.sources) if f.stem in WITH_WATCHDOG]
                    every += [(file, WATCHED) for file in (board.watchdog.source, *watched)]
                for source, more in every:
                    tools.compile(str(source), obj, [*flags, *more], ROOT)
                    count += 1
    print(f"{count} compilations without a warning")
    return 0 if count else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesnnError as e:
        sys.exit(str(e))
