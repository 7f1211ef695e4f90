"""The bound of the stack where two files define one function: the larger frame counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesnn.targets.stack import worst_case_stack

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
