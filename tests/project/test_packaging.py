"""What is built is what is on disk: setuptools leaves an unlisted package out without a word."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import edgesnn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _setuptools(repo: Path) -> dict[str, Any]:
    text = (repo / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["tool"]["setuptools"])


def _folders(repo: Path, config: dict[str, Any]) -> dict[str, Path]:
    """Package name -> folder, from the disk: every folder below a mapped root that holds Python."""
    found = {}
    roots = config["package-dir"]
    for name, folder in roots.items():
        for file in sorted((repo / folder).rglob("*.py")):
            inner = file.parent.relative_to(repo / folder)
            found[".".join([name, *inner.parts])] = file.parent
    return found


def test_every_package_is_listed_and_nothing_else(repo: Path) -> None:
    config = _setuptools(repo)
    on_disk = _folders(repo, config)
    assert len(on_disk) > 8
    assert sorted(config["packages"]) == sorted(on_disk)
    for name, folder in on_disk.items():
        assert (folder / "__init__.py").is_file(), f"{name} has no __init__.py"


def test_every_other_file_of_a_package_is_package_data(repo: Path) -> None:
    config = _setuptools(repo)
    packages = _folders(repo, config)
    others = 0
    for name, folder in config["package-dir"].items():
        for file in sorted((repo / folder).rglob("*")):
            if not file.is_file() or file.suffix in (".py", ".pyc"):
                continue
            others += 1
            owner = max((p for p in packages if file.is_relative_to(packages[p])), key=len)
            relative = file.relative_to(packages[owner]).as_posix()
            patterns = config["package-data"].get(owner, [])
            # `**/` also stands for no folder at all.
            wide = [*patterns, *(p.replace("**/", "") for p in patterns)]
            assert any(fnmatch(relative, p) for p in wide), f"{relative} of {owner} is left out"
        assert name in packages
    assert others > 5


def test_installed_data_files_are_there() -> None:
    runtime = Path(import_module("edgesnn.runtime").__path__[0])
    targets = Path(import_module("edgesnn.targets").__path__[0])
    assert (runtime / "c" / "esnn.h").is_file()
    assert list((targets / "boards").glob("*.toml"))
    assert list((targets / "bsp").rglob("*.c"))


def test_one_version() -> None:
    assert version("edgesnn") == edgesnn.__version__
