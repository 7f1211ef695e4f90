"""Imports run one way between the rooms, and the light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesnn.runtime.bundle import Bundle

ROOMS = {
    "targets": ("edgesnn.targets",),
    "runtime": ("edgesnn.runtime", "edgesnn.targets"),
    # Of the runtime only what says how results look: no engine, no link.
    "compiler": (
        "edgesnn.compiler",
        "edgesnn.runtime.bundle",
        "edgesnn.runtime.engine",
        "edgesnn.runtime.files",
        "edgesnn.targets",
    ),
    "edgesnn": ("edgesnn",),
}
# Where a heavy package may be imported at the top of a file ("") or only inside functions ("lazy").
HEAVY = {
    "torch": {
        "edgesnn/training": "",
        "edgesnn/quantisation": "",
        "edgesnn/layers": "",
        "edgesnn/networks": "",
        "edgesnn/neurons": "",
        "edgesnn/coding": "",
        "edgesnn/conversion": "",
        "edgesnn/losses.py": "",
        "edgesnn/reports/measure.py": "",
        "edgesnn/data/augment.py": "",
        "edgesnn/checkpoint.py": "lazy",
        "edgesnn/stream_table.py": "lazy",
    },
    "sklearn": {"edgesnn/data": "lazy"},
    "kornia": {"edgesnn/data/augment.py": "lazy"},
    "PIL": {"edgesnn/data/jpeg_pack.py": "lazy"},
    "matplotlib": {"edgesnn/reports/plots.py": "", "edgesnn/profiling/plots.py": ""},
    "jinja2": {"edgesnn/profiling/page.py": ""},
    "markupsafe": {"edgesnn/profiling/page.py": ""},
    "tvm": {"compiler/tir": ""},
    "onnx": {"compiler/onnx_import": "lazy"},
    "pyocd": {"targets/flash_probe.py": "lazy"},
    "serial": {
        "runtime/serial_port.py": "lazy",
        "runtime/ports.py": "lazy",
        "runtime/sources.py": "lazy",
    },
    "cobs": {"runtime/frames.py": "lazy", "runtime/sources.py": "lazy"},
}
LIGHT = (
    "torch", "sklearn", "kornia", "PIL", "matplotlib", "jinja2", "tvm", "tvm_ffi", "onnx", "serial", "cobs",
    "pyocd", "scipy",
)  # fmt: skip


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether at the top of the file) of every import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside: set[int] = set()
    typing_only: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside |= {id(child) for child in ast.walk(node)}
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            yield module, id(node) not in inside
            for alias in node.names:
                yield f"{module}.{alias.name}", id(node) not in inside
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inside


def _files(repo: Path, room: str) -> list[Path]:
    files = sorted((repo / room).rglob("*.py"))
    assert len(files) > 2, f"{room} holds no Python: is the path still right?"
    return files


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(repo: Path, room: str) -> None:
    ours = 0
    for path in _files(repo, room):
        for module, _ in _imports(path):
            top = module.split(".")[0]
            assert top not in ("compiler", "runtime", "targets"), f"{path}: bare import {module}"
            if top != "edgesnn" or module == "edgesnn":
                continue
            ours += 1
            allowed = ROOMS[room]
            if room != "edgesnn":
                fine = any(module == a or module.startswith(a + ".") for a in allowed)
                assert fine, f"{path.relative_to(repo)} imports {module}"
    assert ours > 0


@pytest.mark.parametrize("room", ROOMS)
def test_heavy_packages_stay_in_their_rooms(repo: Path, room: str) -> None:
    for path in _files(repo, room):
        name = path.relative_to(repo).as_posix()
        for module, top in _imports(path):
            where = HEAVY.get(module.split(".")[0])
            if where is None:
                continue
            rule = next((r for place, r in where.items() if name.startswith(place)), None)
            assert rule is not None, f"{name} imports {module}"
            assert rule == "" or not top, f"{name} imports {module} at its top"


def test_heavy_table_is_not_stale(repo: Path) -> None:
    for places in HEAVY.values():
        for place in places:
            assert (repo / place).exists(), place


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import edgesnn",
        "from edgesnn import Session, Stream, Bundle",
        "from edgesnn.cli import main; main(['--help'])",
        "from edgesnn.cli import main; main(['compile', '--help'])",
        "from edgesnn.cli import main; main(['boards', '--json'])",
    ],
)
def test_light_imports(code: str) -> None:
    out = _python(f"{code}\nimport sys\nprint('LOADED', *sorted(sys.modules))")
    loaded = {name.split(".")[0] for name in out.split("LOADED", 1)[1].split()}
    assert "edgesnn" in loaded
    assert not loaded & set(LIGHT)


def test_numpy_alone_runs_a_host_bundle(host_bundle: Bundle) -> None:
    """A small computer with numpy and nothing else loads a bundle and runs it."""
    _python(
        f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        # Editable installs bring a finder of their own; Python 3.10 has no tomllib.
        allowed = ("numpy", "edgesnn", "__editable__", "tomli")
        if top not in sys.stdlib_module_names and top not in allowed:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from edgesnn import Session, Stream
with Session({str(host_bundle.path)!r}) as session:
    decision = session.classify(np.zeros((8, 8), np.uint8))
    assert 1 <= decision.step <= 4
    with Stream(session) as stream:
        assert len(list(stream.feed(np.zeros((3, 8, 8), np.uint8)))) == 3
"""
    )
