"""From a bundle to a package: its sources, an example with its answer, and the ecosystem's own files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgesnn.compiler import ir
from edgesnn.compiler.package.example import sample_header
from edgesnn.compiler.package.names import Names, package_names
from edgesnn.compiler.package.sources import package_sources
from edgesnn.compiler.package.words import EXTRAS, TEMPLATES, fill, package_words
from edgesnn.runtime.bundle import Bundle
from edgesnn.runtime.files import check_replaceable, replace_folder, sha256
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import Target, find_target

KINDS = ("cmake", "arduino", "zephyr", "platformio")
MARKER = f"{EXTRAS}/package.json"
_FORMAT = "edgesnn-package"
_VERSION = 1


@dataclass(frozen=True)
class Package:
    """A package that was written: kind, and the names that it has."""

    path: Path
    kind: str
    names: Names

    @property
    def header(self) -> str:
        """What a program includes."""
        return f"{self.names.library}.h"


def check_package(folder: Path, kind: str, model: str) -> None:
    """UsageError for an unknown kind, and where `folder` is neither new nor an older one of kind and model."""
    if kind not in KINDS:
        raise UsageError(f"unknown kind of package {kind!r}; choose one of: {', '.join(KINDS)}")
    check_replaceable(folder, MARKER, _FORMAT, "package")
    if (folder / MARKER).is_file():
        older = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        advice = "choose another --out or move it away"
        if older.get("kind") != kind:
            raise UsageError(
                f"{folder} is a package for {older.get('kind')}, not for {kind}; {advice}"
            )
        if older.get("model") != model:
            raise UsageError(
                f"{folder} is a package of the model {older.get('model')!r}, not of {model!r}; {advice}"
            )


def write_package(
    bundle: Bundle, program: ir.Program, kind: str, model: str, out: Path | str
) -> Package:
    """Write the library `model` into the folder `out`; equal bundles give equal bytes.

    bundle: of `program`, with C kernels; its files are copied. An older package of the same kind and model is
    replaced in one rename, anything else in the way is refused.
    """
    folder = Path(out).resolve()
    check_package(folder, kind, model)
    if bundle.manifest["codegen"] != "c":
        raise UsageError("a package holds C source; leave out --codegen llvm")
    names = package_names(model)
    files = _files(bundle, program, kind, names, find_target(bundle.target))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".edgesnn-", dir=folder.parent) as temporary:
            place = Path(temporary) / "package"
            for name, data in files.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)
            _write_marker(place, bundle, kind, model, names)
            replace_folder(place, folder)
    except OSError as e:
        raise EdgesnnError(f"cannot write {out}: {e.strerror or e}") from None
    return Package(Path(out), kind, names)


def _files(
    bundle: Bundle, program: ir.Program, kind: str, names: Names, target: Target
) -> dict[str, bytes]:
    """All files but the marker, by path."""
    sources = package_sources(bundle.path / "src", names, target, optimise=kind == "arduino")
    words = package_words(bundle, program, kind, names, target, sources)
    texts = {f"src/{name}": text for name, text in sources.items()}
    renamed = (("LIBRARY", names.library), ("MODEL", names.model), ("TARGET", target.name))
    for path in sorted(p for p in (TEMPLATES / kind).rglob("*") if p.is_file()):
        place = path.relative_to(TEMPLATES / kind).as_posix()
        if place == "cmake/TARGET.cmake" and target.kind == "host":
            continue
        template = f"{kind}/{place}"
        for word, value in renamed:
            place = place.replace(word, value)
        texts[place] = fill(template, words)
    folder, main, template = _example(kind, names, target)
    texts[f"{folder}/{main}"] = fill(f"example/{template}", words)
    texts[f"{folder}/sample.h"] = sample_header(program)
    if kind == "platformio":
        texts["library.json"] = _library_json(words, target, main)
    files = {name: text.encode() for name, text in texts.items()}
    return {**files, f"{EXTRAS}/model.esnn": bundle.program_path.read_bytes()}


def _example(kind: str, names: Names, target: Target) -> tuple[str, str, str]:
    """The folder of the example's source, its main file, and the template of that."""
    if kind == "cmake":
        return f"examples/{names.model}", "main.c", "host.c"
    if kind == "arduino":
        return f"examples/{names.model}", f"{names.model}.ino", "arduino.cpp"
    if kind == "zephyr":
        return f"samples/{names.model}/src", "main.c", "zephyr.c"
    if target.kind == "host":
        return f"examples/{names.model}/src", "main.c", "host.c"
    return f"examples/{names.model}/src", "main.cpp", "arduino.cpp"


def _library_json(words: Mapping[str, str], target: Target, main: str) -> str:
    manifest = {
        "name": words["library"],
        "version": words["version"],
        "description": f"{words['title']}: a spiking neural network as integer C for {target.name}",
        "keywords": ["spiking-neural-network", "machine-learning", "classification"],
        "frameworks": "*",
        "platforms": "*",
        "headers": f"{words['library']}.h",
        "build": {"flags": [*target.kernel_flags, "-w"]},
        "examples": [
            {
                "name": words["model"],
                "base": f"examples/{words['model']}",
                "files": ["platformio.ini", f"src/{main}", "src/sample.h"],
            }
        ],
    }
    return json.dumps(manifest, indent=2) + "\n"


def _write_marker(place: Path, bundle: Bundle, kind: str, model: str, names: Names) -> None:
    files = sorted(p for p in place.rglob("*") if p.is_file())
    left_out = ("format", "version", "files", "board")
    marker = {
        **{k: v for k, v in bundle.manifest.items() if k not in left_out},
        "format": _FORMAT,
        "version": _VERSION,
        "kind": kind,
        "model": model,
        "library": names.library,
        "files": {p.relative_to(place).as_posix(): sha256(p) for p in files},
    }
    (place / MARKER).write_bytes((json.dumps(marker, indent=1, sort_keys=True) + "\n").encode())
