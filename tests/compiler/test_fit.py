"""Advice where a firmware does not fit its board."""

from __future__ import annotations

import pytest

from edgesnn.compiler.fit import Need, Saving, check_fit
from edgesnn.targets.board import load_board
from edgesnn.targets.errors import EdgesnnError

SAVINGS = (Saving("ram", "--prefer ram", 50), Saving("ram", "stack_bytes = 1024", 30))
BOTH = "--prefer ram (50 bytes of ram less), stack_bytes = 1024 (30 bytes of ram less)"


@pytest.mark.parametrize(
    ("flash", "ram", "advice"),
    [
        (0, 80, f"{BOTH} or a smaller network"),
        (0, 81, f"{BOTH} and a smaller network"),
        (1, 80, f"{BOTH} and a smaller network"),  # nothing else makes flash less
        (1, 0, "a smaller network"),
    ],
)
def test_a_saving_that_is_not_enough_is_not_offered_as_if_it_were(
    flash: int, ram: int, advice: str
) -> None:
    needs = [Need("flash", 1000 + flash, 1000), Need("ram", 500 + ram, 500)]
    with pytest.raises(EdgesnnError) as e:
        check_fit("net", load_board("microbit"), needs, SAVINGS)
    assert str(e.value).endswith(f"; try {advice}")
