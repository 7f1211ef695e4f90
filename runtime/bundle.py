"""A bundle: the folder that `edgesnn compile` writes. docs/FORMAT.md specifies every file and field.

Opening one needs numpy alone; it checks the manifest and the SHA-256 of every file before anything is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.runtime.files import sha256
from edgesnn.targets.errors import EdgesnnError, UsageError

BUNDLE_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class NodeInfo:
    """One node: kind is "input", "encoder", "spiking", "operator" or "output"; capacity in events per step."""

    name: str
    kind: str
    shape: tuple[int, int, int]
    neurons: int
    queue_capacity: int


@dataclass(frozen=True)
class Bundle:
    """A compiled model on disk. `manifest` holds everything, the properties what is needed often."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open and check a bundle. EdgesnnError says what is missing or altered."""
        folder = Path(path)
        if not folder.exists():
            raise EdgesnnError(f"there is no bundle at {folder}; make one with `edgesnn compile`")
        file = folder / MANIFEST
        if not file.is_file():
            raise EdgesnnError(
                f"{folder} is not a bundle: it holds no {MANIFEST}; run `edgesnn compile`"
            )
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise EdgesnnError(f"{file} is not readable ({e}); compile the model again") from None
        bundle = cls(folder, manifest if isinstance(manifest, dict) else {})
        bundle._check()
        return bundle

    def _check(self) -> None:
        m = self.manifest
        if m.get("format") != "edgesnn-bundle":
            raise EdgesnnError(
                f"{self.path / MANIFEST} is not the manifest of an edgesnn bundle; compile again"
            )
        if m.get("version") != BUNDLE_VERSION:
            raise EdgesnnError(
                f"{self.path}: bundle version {m.get('version')!r}, this edgesnn reads {BUNDLE_VERSION}; "
                "compile the model again"
            )
        try:
            files = dict(m["files"])
            _ = (self.name, self.target, self.board, self.timesteps, self.classes, self.class_names)
            _ = (self.input_kind, self.input_shape, self.input_dtype, self.nodes, self.model_id)
            _ = (self.event_bytes, self.output_bytes, self.encoder_macs, m["memory"], m["bounds"])
        except (KeyError, TypeError, ValueError) as e:
            raise EdgesnnError(
                f"{self.path / MANIFEST} is damaged ({e!r}); compile again"
            ) from None
        for name, digest in files.items():
            file = self.path / name
            if not file.is_file():
                raise EdgesnnError(f"{self.path} is incomplete: {name} is missing; compile again")
            if sha256(file) != digest:
                raise EdgesnnError(f"{file} was altered after compilation; compile again")

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def target(self) -> str:
        return str(self.manifest["target"])

    @property
    def board(self) -> str | None:
        board = self.manifest["board"]
        return None if board is None else str(board)

    @property
    def timesteps(self) -> int:
        return int(self.manifest["timesteps"])

    @property
    def classes(self) -> int:
        return int(self.manifest["classes"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.manifest["class_names"])

    @property
    def input_kind(self) -> str:
        """ "samples" or "events"."""
        return str(self.manifest["input"]["kind"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        h, w, c = self.manifest["input"]["shape"]
        return int(h), int(w), int(c)

    @property
    def input_dtype(self) -> str:
        return str(self.manifest["input"]["dtype"])

    @property
    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(
            NodeInfo(n["name"], n["kind"], tuple(n["shape"]), n["neurons"], n["queue_capacity"])
            for n in self.manifest["nodes"]
        )

    @property
    def encoder_macs(self) -> int:
        return int(self.manifest["bounds"]["encoder_macs"])

    @property
    def model_id(self) -> bytes:
        """First 16 bytes of the program's SHA-256, as in the firmware's banner."""
        return bytes.fromhex(self.manifest["program_sha256"])[:16]

    @property
    def event_bytes(self) -> int:
        return int(self.manifest["event_bytes"])

    @property
    def output_bytes(self) -> int:
        return int(self.manifest["output_bytes"])

    @property
    def program_path(self) -> Path:
        return self.path / "model.esnn"

    @property
    def firmware(self) -> Path | None:
        return self._listed("firmware.elf")

    @property
    def library(self) -> Path | None:
        """The shared library of a host bundle."""
        return self._listed("lib/libmodel.so")

    def _listed(self, name: str) -> Path | None:
        return self.path / name if name in self.manifest["files"] else None

    def check_sample(self, sample: np.ndarray) -> np.ndarray:
        """One sample in the input's shape (H, W, C) and dtype, contiguous; [T, H, W, C] for events.

        A missing channel axis of one is added; whole numbers of another dtype are taken if they fit.
        """
        want: tuple[int, ...] = self.input_shape
        dtype = np.dtype(self.input_dtype)
        if self.input_kind == "events":
            want = (self.timesteps, *want)
        array = np.asarray(sample)
        if array.shape == want[:-1] and want[-1] == 1:
            array = array[..., None]
        if array.shape != want:
            raise UsageError(f"{self.name} takes samples of shape {want}, got {np.shape(sample)}")
        if array.dtype != dtype:
            if array.dtype.kind not in "iub":
                raise UsageError(
                    f"{self.name} takes {dtype} samples, got {array.dtype}; pass the raw integers"
                )
            limits = np.iinfo(dtype)
            if array.size and (array.min() < limits.min or array.max() > limits.max):
                raise UsageError(
                    f"{self.name} takes {dtype} samples, got {array.dtype} values "
                    f"{array.min()} ... {array.max()}"
                )
            array = array.astype(dtype)
        return np.ascontiguousarray(array)
