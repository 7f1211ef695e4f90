"""The cards of the zoo: what each network was trained on, how, and what it does (no torch here)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgesnn.runtime.files import sha256
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.suggest import did_you_mean

MODELS = Path(__file__).parent / "models"
PREFIX = "zoo:"


@dataclass(frozen=True)
class Card:
    """One network, <name>.pt beside <name>.json; every figure is of the full test split.

    weights: trainable numbers; flash_bytes, ram_bytes: of a Cortex-M4 firmware built by `compiler`;
    steps: mean timesteps up to the exit; spikes_per_neuron: of the hidden layers, sops: synaptic
    operations, both per inference up to the exit, of the integers; sha256: of the checkpoint.
    """

    name: str
    title: str
    net: str
    data: str
    data_licence: str
    command: str
    seed: int
    exit: str
    threshold: float
    timesteps: int
    samples: int
    weights: int
    float_accuracy: float
    float_steps: float
    accuracy: float
    steps: float
    spikes_per_neuron: float
    sops: float
    flash_bytes: int
    ram_bytes: int
    compiler: str
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cards() -> dict[str, Card]:
    """Every card by name; EdgesnnError if the package's own files are damaged."""
    paths = sorted(MODELS.glob("*.json"), key=lambda path: path.stem)
    found = {path.stem: _read(path) for path in paths}
    if not found:
        raise EdgesnnError(f"{MODELS} holds no networks: install edgesnn again")
    return found


def find_card(name: str) -> Card:
    """The card of "zoo:<name>" (or <name>); UsageError naming the choices."""
    plain = name.removeprefix(PREFIX)
    known = cards()
    if plain not in known:
        hint = did_you_mean(plain, known, PREFIX)
        choices = ": one of " + ", ".join(PREFIX + n for n in known)
        raise UsageError(f"there is no {PREFIX}{plain} in the zoo{hint or choices}")
    return known[plain]


def model_path(name: str) -> Path:
    """The checkpoint of "zoo:<name>" (or <name>); errors as `find_card`, and of a damaged file."""
    card = find_card(name)
    path = MODELS / f"{card.name}.pt"
    if not path.is_file() or sha256(path) != card.sha256:
        raise EdgesnnError(f"{path} is missing or damaged: install edgesnn again")
    return path


def _read(path: Path) -> Card:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return Card(**{f.name: table[f.name] for f in fields(Card)})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EdgesnnError(f"{path} is damaged ({error}): install edgesnn again") from None
