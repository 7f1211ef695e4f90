"""`compile --budget`: what a model may take at most, and the layer that weighs most where it takes more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgesnn.targets.errors import EdgesnnError, UsageError

_BYTES = {"": 1, "k": 1024, "M": 1024**2}
_COUNT = {"": 1, "k": 1000, "M": 1000**2}
UNITS = {"ram": _BYTES, "flash": _BYTES, "stack": _BYTES, "instructions": _COUNT}
_EXAMPLE = "for example ram=64k,flash=256k,instructions=2M"


@dataclass(frozen=True)
class Budget:
    """Limits by name: ram, flash and stack in bytes, instructions of an inference at worst."""

    limits: Mapping[str, int]


@dataclass(frozen=True)
class Use:
    """What a model takes of one thing: amount, or None and why; by layer, as far as that is known."""

    amount: int | None
    why: str
    layers: Mapping[str, int]


def parse_budget(text: str) -> Budget:
    """Read "ram=64k,flash=256k,stack=2k,instructions=2M".

    k and M are 1,024 and 1,048,576 bytes, but 10^3 and 10^6 instructions. Raises UsageError for anything else.
    """
    limits: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kM]?)", value)
        if name not in UNITS:
            raise UsageError(f"a budget has no {name!r}; it names {', '.join(UNITS)}, {_EXAMPLE}")
        if found is None:
            raise UsageError(
                f"the budget's {name} is a number with k or M, not {value!r}; {_EXAMPLE}"
            )
        if name in limits:
            raise UsageError(f"the budget names {name} twice")
        limits[name] = int(float(found[1]) * UNITS[name][found[2]])
    return Budget(limits)


def check_budget(budget: Budget, uses: Mapping[str, Use]) -> None:
    """EdgesnnError, one line, where a limit is exceeded or cannot be kept for sure."""
    broken = []
    for name, limit in budget.limits.items():
        use = uses[name]
        unit = "instructions" if name == "instructions" else f"bytes of {name}"
        if use.amount is None:
            broken.append(f"{unit} are not known: {use.why}")
        elif use.amount > limit:
            most = max(use.layers, key=lambda layer: use.layers[layer], default=None)
            weighs = f", most of them in {most} ({use.layers[most]:,})" if most is not None else ""
            at = " at worst" if name in ("instructions", "stack") else ""
            broken.append(
                f"{use.amount:,} {unit}{at}, {use.amount - limit:,} more than {limit:,}{weighs}"
            )
    if broken:
        raise EdgesnnError("over the budget: " + "; ".join(broken))
