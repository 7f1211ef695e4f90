"""The report's folder: report.json, report.txt and, with the extra `report`, report.html."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from edgesnn.runtime.files import replace_folder, writable_folder
from edgesnn.targets.errors import EdgesnnError, UsageError

REPORT, TABLE, PAGE = "report.json", "report.txt", "report.html"
EXTRA = ("matplotlib", "jinja2")


def check_report_folder(out: Path) -> None:
    """UsageError unless `out` is new, empty, or holds an older report and nothing else.

    EdgesnnError where nothing can be written, before anything is measured.
    """
    writable_folder(out, REPORT)
    place = next(p for p in out.resolve().parents if p.exists())
    if not os.access(place, os.W_OK):
        raise EdgesnnError(f"cannot write {out}: {place} is not writable; choose another --out")
    if out.is_dir():
        others = sorted(p.name for p in out.iterdir() if p.name not in (REPORT, TABLE, PAGE))
        if others:
            raise UsageError(f"{out} holds {others[0]}; choose another --out or move it away")
        if (out / REPORT).exists() and not _is_report(out / REPORT):
            raise UsageError(f"{out / REPORT} is not a report of ours; choose another --out")


def _is_report(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == "edgesnn-report"


def write_report(report: dict[str, Any], table: str, out: Path) -> str | None:
    """Write the folder `out`, complete or not at all; why there is no page, or None.

    report: of `profile`, or several of them as "runs"; "about", where it is there, is what was run.
    """
    check_report_folder(out)
    page, missing = _page(report)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            new = Path(temporary) / "report"
            new.mkdir()
            (new / REPORT).write_text(to_json(report), encoding="utf-8")
            (new / TABLE).write_text(table, encoding="utf-8")
            if page is not None:
                (new / PAGE).write_text(page, encoding="utf-8")
            replace_folder(new, out)
    except OSError as e:
        raise EdgesnnError(f"cannot write {out}: {e.strerror or e}") from None
    return missing


def _page(report: dict[str, Any]) -> tuple[str | None, str | None]:
    try:
        from edgesnn.profiling.page import render
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        return None, f"no {PAGE}: {error.name} is missing; pip install 'edgesnn[report]' brings it"
    return render(report), None


def to_json(report: dict[str, Any]) -> str:
    """Indented, with lists of plain numbers on one line.

    >>> print(to_json({"a": [1, 2.5], "b": []}), end="")
    {
     "a": [1, 2.5],
     "b": []
    }
    """
    text = json.dumps(report, indent=1)
    number = r"-?\d[-+.\deE]*"
    rows = rf"\[\n\s*({number}(?:,\n\s*{number})*)\n\s*\]"
    return re.sub(rows, lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"
