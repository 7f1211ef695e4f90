"""What the documents say is run: doc examples, README commands, its C snippet."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import edgesnn
from edgesnn import cli

NEEDS = re.compile(r"No module named '(torch|tvm|sklearn|serial|cobs|onnx)")


def _blocks(repo: Path, language: str) -> list[str]:
    text = (repo / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(repo: Path) -> list[list[str]]:
    """Every command line in the README's shell blocks, continuation lines joined."""
    lines = "\n".join(_blocks(repo, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [w for w in words if w]


def test_doc_examples() -> None:
    tried = 0
    for info in pkgutil.walk_packages(edgesnn.__path__, "edgesnn."):
        if info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as e:
            if NEEDS.search(str(e)):
                continue
            raise
        result = doctest.testmod(module)
        assert result.failed == 0, info.name
        tried += result.attempted
    result = doctest.testmod(edgesnn)
    assert result.failed == 0
    assert tried + result.attempted > 0


def test_readme_commands_are_ones_that_exist(repo: Path) -> None:
    ours = [w for w in _commands(repo) if w[0] == "edgesnn"]
    assert len(ours) > 5
    for words in ours:
        for end in ("|", ">", "<"):
            words = words[: words.index(end)] if end in words else words
        command, rest = words[1], words[2:]
        assert command in cli.COMMANDS, words
        cli.parse(command, rest)
    assert {w[1] for w in ours} == set(cli.COMMANDS)


def test_readme_make_targets_exist(repo: Path) -> None:
    makefile = (repo / "Makefile").read_text(encoding="utf-8")
    used = [w[1] for w in _commands(repo) if w[0] == "make"]
    assert "demo" in used and "test" in used
    for name in used:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_make_help_lists_every_target(repo: Path) -> None:
    makefile = (repo / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    done = subprocess.run(
        ["make", "-s", "help"], cwd=repo, capture_output=True, text=True, check=True
    )
    for name in phony.group(1).split():
        assert re.search(rf"^ *make {name}\b", done.stdout, re.MULTILINE), name


@pytest.mark.skipif(shutil.which("cc") is None, reason="no cc")
def test_readme_c_snippet_compiles(repo: Path, tmp_path: Path) -> None:
    snippets = _blocks(repo, "c")
    assert snippets
    core = Path(importlib.import_module("edgesnn.runtime").__path__[0]) / "c"
    for i, snippet in enumerate(snippets):
        # The bundle's own header, reduced to what it promises.
        (tmp_path / "model.h").write_text(
            '#include "esnn.h"\n#define ESNN_MODEL_ARENA_BYTES 1024\n#define ESNN_MODEL_INPUT_BYTES 64\n'
            "extern const esnn_model esnn_model_data;\n"
        )
        source = tmp_path / f"snippet{i}.c"
        source.write_text(snippet)
        flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
        subprocess.run(["cc", *flags, "-I", core, "-I", tmp_path, source], check=True)
