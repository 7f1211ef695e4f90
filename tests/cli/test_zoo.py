"""The networks that come with the package: their cards say what they do, and they work as models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgesnn import api
from edgesnn.checkpoint import load_checkpoint
from edgesnn.cli import main
from edgesnn.compiler.interpret import Interpreter
from edgesnn.data import load
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.zoo import cards, model_path

NAMES = ["digits", "fashion", "mnist", "mnist-lenet"]


def test_every_card_belongs_to_its_checkpoint() -> None:
    known = cards()
    assert list(known) == NAMES
    for name, card in known.items():
        checkpoint = load_checkpoint(model_path(name))  # compares the checksum
        assert card.name == name and card.net == checkpoint.network.name
        assert (card.exit, card.threshold) == (checkpoint.readout.kind, checkpoint.readout.value)
        assert card.float_accuracy == checkpoint.report["accuracy"]
        assert card.data == checkpoint.data and f"--data {card.data}" in card.command
        assert card.command.startswith("edgesnn train ") and f"--seed {card.seed}" in card.command


def test_the_digits_card_holds() -> None:
    """Digits come with scikit-learn, so their figures can be had anywhere; the interpreter defines them."""
    card, test = cards()["digits"], load("digits", "test")
    reference = Interpreter(api.load_program("zoo:digits"))
    found = [reference.infer(x) for x in test.x]
    right = sum(d.label == int(y) for d, y in zip(found, test.y, strict=True))
    assert right / len(test) == card.accuracy
    assert sum(d.step for d in found) / len(test) == pytest.approx(card.steps)


def test_a_zoo_model_compiles_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "b"
    assert main(["compile", "zoo:digits", "--target", "cpu", "--out", str(folder)]) == 0
    assert (folder / "manifest.json").is_file()
    assert main(["inspect", "zoo:digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == "mcu-lenet-s"


def test_listing_and_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--json"]) == 0
    assert [c["name"] for c in json.loads(capsys.readouterr().out)["zoo"]] == NAMES
    for name in NAMES:
        assert main(["zoo", name]) == 0
        assert cards()[name].data_licence.split()[0] in capsys.readouterr().out
    assert main(["zoo", "nothing"]) == 2
    assert "one of zoo:digits" in capsys.readouterr().err


def test_unknown_and_damaged_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="zoo:digits, zoo:fashion"):
        api.load_program("zoo:nothing")
    source = model_path("digits")
    for path in source.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "digits.pt").write_bytes(source.read_bytes()[:-1])
    import edgesnn.zoo.card as module

    monkeypatch.setattr(module, "MODELS", tmp_path)
    with pytest.raises(EdgesnnError, match="damaged: install edgesnn again"):
        api.load_program("zoo:digits")
    (tmp_path / "mnist.json").write_text("{")
    with pytest.raises(EdgesnnError, match=r"mnist\.json is damaged"):
        cards()
