"""`edgesnn convert` from end to end on a small trained network, and every mistake in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

SHADES = 15  # digits have 0...16: nearly all of 0...255


@dataclass(frozen=True)
class Network:
    """A trained network and its data, in one folder that tests do not alter."""

    folder: Path
    module: Any
    x: np.ndarray
    y: np.ndarray

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Handwritten digits: net.onnx, calibration.npz (raw) and data.npz (train and test)."""
    from torch import nn

    from edgesnn.conversion.onnx_export import export_onnx

    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = (digits.images * SHADES).astype(np.uint8), digits.target.astype(np.int64)
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, 10)),
    )
    fed, labels = torch.from_numpy(x[:, None] / np.float32(255)), torch.from_numpy(y)
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(200):
        some = torch.randint(0, 1200, (64,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(fed[some]), labels[some]).backward()
        optimiser.step()
    module.eval()
    folder = tmp_path_factory.mktemp("network")
    (folder / "net.onnx").write_bytes(export_onnx(module, (1, 8, 8)))
    np.savez(folder / "calibration.npz", x=x[:300], y=y[:300])
    split = {"x_train": x[:1200], "y_train": y[:1200], "x_test": x[1200:], "y_test": y[1200:]}
    np.savez(folder / "data.npz", **split)
    return Network(folder, module, x, y)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def nothing_written(here: Path) -> Iterator[None]:
    yield
    assert list(here.iterdir()) == []


@pytest.fixture(scope="module")
def converted(network: Network) -> Path:
    """net.onnx converted with everything left at its default. Do not alter it."""
    from edgesnn import cli

    out = network / "converted.pt"
    words = ["--calibration", network / "calibration.npz", "--out", out]
    assert cli.main(["convert", str(network / "net.onnx"), *map(str, words)]) == 0
    return out


# --- what it does -------------------------------------------------------------------------------


def test_text(network: Network, run: Any, here: Path) -> None:
    done = run("convert", network / "net.onnx", "--calibration", network / "calibration.npz")
    assert done.code == 0, done.err
    assert [p.name for p in here.iterdir()] == ["net.pt"]
    text = " ".join(done.out.split())
    assert "canonic signed spikes, T 8, beta 2 (u + u), int8" in text
    assert "240, and 60 held out" in text
    assert "sound (the class is proved to stay)" in text and "0 answers changed" in text
    assert "of 10" in text  # latency: T + layers that fire
    assert "written net.pt" in text
    for node in ("encoder 8x8x1", "4x4x6", "1x1x20", "1x1x10"):
        assert node in text
    # Converted again in place.
    again = run("convert", network / "net.onnx", "--calibration", network / "calibration.npz")
    assert again.code == 0, again.err


def test_json(network: Network, run: Any, here: Path) -> None:
    report = run(
        *("convert", network / "net.onnx", "--calibration", network / "calibration.npz"),
        *("--timesteps", 6, "--beta", 1.5, "--weights", "int16", "--out", "n.pt", "--json"),
    ).json()
    assert report["out"] == "n.pt" and (here / "n.pt").is_file()
    assert (report["beta"], report["amplification"]) == (1.5, "u + (u >> 1)")
    assert (report["timesteps"], report["period"], report["latency"]) == (6, 7, 8)
    assert report["samples"] == {"calibration": 240, "held_out": 60, "seed": 0}
    held = report["held_out"]
    assert held["changed"] == 0 and held["agreement"] >= 0.95
    assert held["loss_points"] == pytest.approx(100 * (held["ann_accuracy"] - held["accuracy"]))
    assert held["mean_output_steps"] <= 6 and held["mean_steps"] <= 8
    rows = report["layers"]
    assert [row["kind"] for row in rows] == ["CssEncoder", "Tsa", "Tsa", "CssOutput"]
    assert all(row["weights"] == ["int16"] for row in rows[1:])
    assert all(row["amplitude"] > 0 for row in rows[:-1])
    assert report["sops"] == pytest.approx(sum(row["sops"] for row in rows))
    assert report["spikes"] == pytest.approx(sum(row["spikes"] or 0 for row in rows))
    assert report["energy"]["snn_pj"] == pytest.approx(0.9 * report["sops"])
    assert report["energy"]["ann_pj"] == pytest.approx(4.6 * report["macs"])


def test_compiled_and_verified(network: Network, converted: Path, run: Any, here: Path) -> None:
    assert run("compile", converted, "--target", "cpu", "--out", "b").code == 0
    data = ("--data", network / "data.npz")
    verified = run("verify", "b", *data, "--samples", 40, "--trace", "--json").json()
    assert verified["mismatches"] == 0 and verified["samples"] == 40
    ran = run("run", "b", *data, "--samples", 200, "--json").json()
    # The device's answers are the network's.
    with torch.no_grad():
        fed = torch.from_numpy(network.x[1200:1400, None] / np.float32(255))
        right = float((network.module(fed).argmax(1).numpy() == network.y[1200:1400]).mean())
    assert abs(ran["accuracy"] - right) <= 0.02
    assert ran["mean_timesteps"] < 10
    assert run("profile", "b", *data, "--samples", 20, "--json").code == 0


def test_other_commands_on_it(network: Network, converted: Path, run: Any, here: Path) -> None:
    data = ("--data", network / "data.npz")
    found = run("evaluate", converted, *data, "--samples", 40, "--report", "r", "--json").json()
    form = found["forms"][0]
    assert form["accuracy"] > 0.8 and form["mean_timesteps"] < 10
    assert form["sops_mean"] > 0 and form["encoder_macs"] == 0
    assert (here / "r" / "report.json").is_file()
    about = run("inspect", converted, "--json").json()
    assert about["timesteps"] == 10 and about["encoder_macs"] == 0
    assert "CssEncoder(" in run("inspect", converted, "--text").out
    said = run("calibrate", converted, *data).error(2)
    assert "convert --confidence" in said
    chosen = run("compile", converted, "--target", "cpu", "--weights", "int4").error(2)
    assert "convert --weights" in chosen
    run("evaluate", converted, *data, "--form", "float").error(2)


def test_program_without_torch(network: Network, converted: Path, run: Any, here: Path) -> None:
    """A bundle's .esnn goes where torch is not."""
    from edgesnn.api import load_program
    from edgesnn.compiler.esnn_file import save_program

    save_program(load_program(converted), here / "n.esnn")
    found = run("evaluate", "n.esnn", "--data", network / "data.npz", "--samples", 20, "--json")
    assert found.json()["timesteps"] == 10
    said = run("calibrate", "n.esnn", "--data", network / "data.npz").error(2)
    assert "convert --confidence" in said


def test_rates(network: Network, run: Any, here: Path) -> None:
    words = ("convert", network / "net.onnx", "--calibration", network / "calibration.npz")
    report = run(*words, "--coding", "rate", "--timesteps", 40, "--json").json()
    assert report["coding"] == "rate" and report["latency"] == 40
    assert report["held_out"]["mean_steps"] == 40 and report["held_out"]["agreement"] > 0.7
    text = run(*words, "--coding", "rate")
    assert text.code == 0 and "rates over 32 steps" in text.out
    assert run("compile", "net.pt", "--target", "cpu", "--out", "b").code == 0
    data = ("--data", network / "data.npz")
    assert run("verify", "b", *data, "--samples", 10, "--trace").code == 0


def test_confidence(network: Network, converted: Path, run: Any, here: Path) -> None:
    words = ("convert", network / "net.onnx", "--calibration", network / "calibration.npz")
    report = run(*words, "--confidence", 0.9, "--json").json()
    assert report["exit"] == "margin"
    confidence = report["confidence"]
    assert confidence["wanted"] == 0.9 and len(confidence["margins"]) == 8
    held = report["held_out"]
    assert confidence["disagreement"] == held["changed"] / 60
    text = run(*words, "--confidence", 0.9).out
    assert "confidence 0.9, no proof" in " ".join(text.split())
    # It never stops later than the proof would.
    from edgesnn.api import load_program
    from edgesnn.conversion import simulate

    x = network.x[1200:1300, :, :, None]
    sound = simulate(load_program(converted), x).steps
    early = simulate(load_program("net.pt"), x).steps
    assert np.all(early <= sound) and early.mean() < sound.mean()


def test_class_names(network: Network, run: Any, here: Path) -> None:
    from edgesnn.api import load_program

    names = "zero,one,two,three,four,five,six,seven,eight,nine"
    words = ("convert", network / "net.onnx", "--calibration", network / "calibration.npz")
    assert run(*words, "--class-names", names).code == 0
    assert load_program("net.pt").class_names == tuple(names.split(","))


def test_what_the_network_is_fed(network: Network, run: Any, here: Path) -> None:
    """Raw samples with mean and std, and floating ones, come to the same."""
    x = network.x[:300]
    fed = (x[:, None] / 255.0 - 0.25) / 0.5
    fed[0, 0, 0, :2] = (-0.5, 1.5)  # so that raw 0 and 255 are there
    np.savez("float.npz", x=fed.astype(np.float32))
    words = ("convert", network / "net.onnx", "--json", "--out", "n.pt", "--calibration")
    a = run(*words, network / "calibration.npz", "--mean", "0.25", "--std=0.5").json()
    b = run(*words, "float.npz").json()
    assert a["input"]["fed"] == pytest.approx([-0.5, 1.5])
    assert b["input"]["fed"] == pytest.approx([-0.5, 1.5])
    assert (b["input"]["low"], b["input"]["high"]) == pytest.approx((-0.5, 1.5))
    assert b["held_out"]["accuracy"] is None and b["held_out"]["agreement"] > 0.8
    negative = run(*words, network / "calibration.npz", "--mean=-0.1").json()
    assert negative["input"]["mean"] == [-0.1]


def test_options_of_the_ablations(network: Network, run: Any, here: Path) -> None:
    words = ("convert", network / "net.onnx", "--calibration", network / "calibration.npz")
    off = run(*words, "--unsigned", "--silent", 0, "--literal", "--beta", 1.3, "--json").json()
    assert (off["signed"], off["silent"], off["latency"], off["adjustment"]) == (False, 0, 8, [])
    assert off["beta"] != 1.3 and abs(off["beta"] - 1.3) < 0.05  # as shifts


def test_ablation_command(
    network: Network, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from edgesnn.conversion import ablation

    monkeypatch.setattr(ablation, "BETAS", (1.7, 1.8, 2.0))
    np.savez("test.npz", x=network.x[1200:1300], y=network.y[1200:1300])
    words = [network / "net.onnx", "--calibration", network / "calibration.npz", "--test"]
    more = ["test.npz", "--samples", 80, "--timesteps", 5, "--out", "rows.json", "--mean", "0"]
    assert ablation.main([str(w) for w in (*words, *more)]) == 0
    rows = json.loads(Path("rows.json").read_text())["rows"]
    names = [row["row"] for row in rows]
    assert names[:5] == [
        *("the network", "as is", "without negative spikes", "without silent period"),
        "without adjustment",
    ]
    assert names[5:] == [
        *("neither silence nor adjustment", "none of the three"),
        *("beta 1.7", "beta 1.8"),
    ]
    assert rows[7]["beta"] == rows[8]["beta"] == 1.75
    assert rows[1]["agreement"] > 0.9
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 1 + len(rows)
    assert ablation.main([str(w) for w in (*words, network / "data.npz")]) == 1
    assert "no array x, y" in capsys.readouterr().err
    assert ablation.main([str(w) for w in (*words, "test.npz", "--samples", 101)]) == 2


# --- mistakes -----------------------------------------------------------------------------------


def _arrays(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


ZEROS = np.zeros((60, 8, 8), dtype=np.uint8)
NAN = np.full((60, 1, 8, 8), np.nan, dtype=np.float32)
TRUE = np.zeros(60, dtype=np.int64)

CALIBRATIONS: dict[str, tuple[Callable[[Path], Any], int, str]] = {
    "missing": (lambda path: None, 2, "no such file"),
    "folder": (lambda path: path.mkdir(), 2, "no such file"),
    "no-zip": (lambda path: path.write_bytes(b"PK not an archive"), 1, "not a readable .npz"),
    "no-x": (_arrays(images=ZEROS), 1, "no array x"),
    "shape": (_arrays(x=np.zeros((60, 9, 9), np.uint8)), 2, "(1, 8, 8)"),
    "number": (_arrays(x=np.uint8(1)), 2, "(1, 8, 8)"),
    "few": (_arrays(x=ZEROS[:10]), 2, "at least 50"),
    "none": (_arrays(x=ZEROS[:0]), 2, "at least 50"),
    "integers": (_arrays(x=ZEROS.astype(np.int32)), 2, "uint8"),
    "nan": (_arrays(x=NAN), 1, "not finite"),
    "constant": (_arrays(x=ZEROS.astype(np.float32)), 1, "every value"),
    "labels": (_arrays(x=ZEROS, y=TRUE + 10), 1, "10 classes"),
    "few-labels": (_arrays(x=ZEROS, y=TRUE[:5]), 1, "60 whole numbers"),
    "objects": (_arrays(x=np.array([None, "a"], dtype=object)), 1, "x.npy"),
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("what", list(CALIBRATIONS))
def test_bad_calibration(what: str, network: Network, run: Any, tmp_path: Path) -> None:
    write, code, said = CALIBRATIONS[what]
    path = tmp_path / "bad.npz"
    write(path)
    line = run("convert", network / "net.onnx", "--calibration", path).error(code)
    assert said in line and str(path) in line


def _halved(good: bytes) -> bytes:
    return good[: len(good) // 2]


MODELS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (_halved, "cut short"),
    "text": (lambda good: b"no network\n", "no ONNX file"),
    "empty": (lambda good: b"", "no ONNX file"),
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("what", list(MODELS))
def test_bad_network(what: str, network: Network, run: Any, tmp_path: Path) -> None:
    damage, said = MODELS[what]
    path = tmp_path / "bad.onnx"
    path.write_bytes(damage((network / "net.onnx").read_bytes()))
    calibration = ("--calibration", network / "calibration.npz")
    assert said in run("convert", path, *calibration).error(1)


@pytest.mark.usefixtures("nothing_written")
def test_no_network(network: Network, converted: Path, run: Any, tmp_path: Path) -> None:
    calibration = ("--calibration", network / "calibration.npz")
    missing = run("convert", tmp_path / "no.onnx", *calibration).error(2)
    assert "no.onnx" in missing
    run("convert", tmp_path, *calibration).error(2)
    for other in (converted, network / "calibration.npz"):
        assert "no ONNX file" in run("convert", other, *calibration).error(1)
    assert "--calibration" in run("convert", network / "net.onnx").error(2)
    for command in (("inspect",), ("compile", "--target", "cpu")):
        assert "edgesnn convert" in run(command[0], network / "net.onnx", *command[1:]).error(2)


OPTIONS: list[tuple[str, str]] = [
    ("--beta 3", "at most 2"),
    ("--beta 1", "above 1"),
    ("--beta x", "a number"),
    ("--timesteps 99", "1...16"),
    ("--timesteps 1.5", "a whole number"),
    ("--timesteps -1", "1...16"),
    ("--coding morse", "css, rate"),
    ("--weights int4", "int8, int16"),
    ("--silent 9", "0...3"),
    ("--confidence 1", "between 0 and 1"),
    ("--confidence 0", "between 0 and 1"),
    ("--confidence 0.9999", "10,000 calibration samples"),
    ("--held-out 0", "(0, 0.5]"),
    ("--held-out 0.9", "(0, 0.5]"),
    ("--seed -1", "whole number"),
    ("--mean a", "one per channel"),
    ("--mean 0.1,0.2", "one per channel"),
    ("--mean 0.1,", "one per channel"),
    ("--std nan", "one per channel"),
    ("--std 0", "above 0"),
    ("--class-names cat,dog", "10 classes"),
    ("--out model.esnn", ".pt"),
    ("--out model", ".pt"),
    ("--coding rate --beta 1.5", "beta"),
    ("--coding rate --weights int16", "weights"),
    ("--coding rate --confidence 0.9", "confidence"),
    ("--coding rate --silent 0", "silent"),
    ("--coding rate --unsigned", "signed"),
    ("--coding rate --timesteps 128", "1...127"),
    ("--targets cpu", "no option"),
]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(("options", "said"), OPTIONS, ids=lambda text: text.replace(" ", "_"))
def test_bad_option(options: str, said: str, network: Network, run: Any) -> None:
    calibration = ("--calibration", network / "calibration.npz")
    line = run("convert", network / "net.onnx", *calibration, *options.split()).error(2)
    assert said in line


@pytest.mark.usefixtures("nothing_written")
def test_mean_is_for_raw_samples(network: Network, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "float.npz"
    np.savez(path, x=network.x[:60] / np.float32(255))
    for flag in ("--mean", "--std"):
        line = run("convert", network / "net.onnx", "--calibration", path, flag, 0.5).error(2)
        assert "uint8" in line and "float32" in line


@pytest.mark.usefixtures("nothing_written")
def test_outputs_that_are_not_ours_are_kept(network: Network, run: Any, tmp_path: Path) -> None:
    """The weights that an ONNX file was made of often lie beside it under the same name."""
    words = ("convert", network / "net.onnx", "--calibration", network / "calibration.npz", "--out")
    mine = tmp_path / "mine.pt"
    torch.save(network.module.state_dict(), mine)
    kept = mine.read_bytes()
    assert "not a converted network" in run(*words, mine).error(1)
    assert mine.read_bytes() == kept
    folder = tmp_path / "folder.pt"
    folder.mkdir()
    assert "is a folder" in run(*words, folder).error(2)
    assert "cannot write" in run(*words, mine / "model.pt").error(1)
    assert {p.name for p in tmp_path.iterdir()} == {"mine.pt", "folder.pt", "here"}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "how", ["cut", "altered", "fields", "program", "arrays", "rates", "younger"]
)
def test_damaged_converted_network(how: str, converted: Path, run: Any, tmp_path: Path) -> None:
    path = Path(shutil.copy(converted, tmp_path / "bad.pt"))
    if how in ("cut", "altered"):
        data = bytearray(path.read_bytes())
        for i in range(len(data) // 3, len(data) // 3 + 40):
            data[i] ^= 0x55
        path.write_bytes(_halved(path.read_bytes()) if how == "cut" else bytes(data))
    else:
        table = torch.load(path, weights_only=True)
        if how == "fields":
            del table["report"]
        elif how == "program":
            table["program"] = table["program"].replace("timesteps=10", "timesteps=9")
        elif how == "arrays":
            table["arrays"].pop(next(iter(table["arrays"])))
        elif how == "rates":
            table["rates"] = {"nobody": 1.0}
        else:
            table["version"] = 99
        torch.save(table, path)
    for words in (("inspect", path), ("compile", path, "--target", "cpu")):
        line = run(*words).error(1)
        assert str(path) in line
