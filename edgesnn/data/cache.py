"""Arrays that take long to make, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgesnn.runtime.files import write_atomic
from edgesnn.targets.errors import EdgesnnError

_DIGEST = 32  # bytes of the SHA-256 that ends a file


def cache_folder() -> Path:
    """edgesnn/ in XDG_CACHE_HOME, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgesnn"


def cached(name: str, key: str, build: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of <cache>/<name>-<key>.npy; built and written there if it is missing or damaged.

    `key` names all that the array depends on. The file is a .npy with the SHA-256 of it appended.
    A folder that cannot be written costs one line on standard error, nothing else.
    """
    path = cache_folder() / f"{name}-{key}.npy"
    found = _stored(path)
    if found is not None:
        return found
    array = build()
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    raw = file.getvalue()
    try:
        write_atomic(path, raw + hashlib.sha256(raw).digest())
    except EdgesnnError as error:
        print(f"{error}: {name} will be decoded again next time", file=sys.stderr)
    return array


def _stored(path: Path) -> np.ndarray | None:
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    data, digest = memoryview(raw)[:-_DIGEST], raw[-_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        return None
    try:
        return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except ValueError:
        return None
