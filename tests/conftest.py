"""What all tests share: the guard against testing another checkout, and compiled golden programs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import edgesnn
from edgesnn.runtime.bundle import Bundle

REPO = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """An editable install of a second checkout would make these tests run that one's code.

    EDGESNN_TEST_WHEEL=1 says that the package under test is an installed wheel, not this checkout.
    """
    # Started in the background, a shell ignores Ctrl-C and every child inherits that; the tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    package = Path(str(edgesnn.__file__)).resolve()
    inside = package.is_relative_to(REPO) and "site-packages" not in package.parts
    wheel = os.environ.get("EDGESNN_TEST_WHEEL") == "1"
    if inside == wheel:
        wanted = "an installed wheel" if wheel else f"the checkout {REPO}"
        pytest.exit(f"edgesnn is imported from {package}, not from {wanted}", returncode=4)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout that these tests stand in."""
    return REPO


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden programs and traces."""
    return REPO / "tests" / "golden"


@pytest.fixture(scope="session")
def host_bundle(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden program of samples, compiled for this machine. Do not alter its files."""
    return _compile(golden / "samples.program", tmp_path_factory, "cpu", None)


@pytest.fixture(scope="session")
def event_bundle(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden program of events, compiled for this machine. Do not alter its files."""
    return _compile(golden / "events.program", tmp_path_factory, "cpu", None)


@pytest.fixture(scope="session")
def board_bundle(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden program of samples as firmware for mps2-an386. Do not alter its files."""
    return _compile(golden / "samples.program", tmp_path_factory, "cortex-m4", "mps2-an386")


@pytest.fixture(scope="session")
def event_board_bundle(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden program of events as firmware for mps2-an386. Do not alter its files."""
    return _compile(golden / "events.program", tmp_path_factory, "cortex-m4", "mps2-an386")


def _compile(
    program: Path, factory: pytest.TempPathFactory, target: str, board: str | None
) -> Bundle:
    from edgesnn.compiler.build import compile_program
    from edgesnn.compiler.text import from_text

    out = factory.mktemp("bundle") / f"{program.stem}-{target}"
    text = program.read_text(encoding="utf-8")
    return compile_program(from_text(text), target, board=board, out=out)
