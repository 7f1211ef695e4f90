"""A bundle: the folder that `edgesnn compile` writes. docs/FORMAT.md specifies every file and field.

Opening one needs numpy alone; it checks the manifest and the SHA-256 of every file before anything is used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgesnn.runtime.files import sha256
from edgesnn.targets.board import Board, load_board, read_board
from edgesnn.targets.errors import EdgesnnError, UsageError

BUNDLE_FORMAT = "edgesnn-bundle"
BUNDLE_VERSION = 1
MANIFEST = "manifest.json"
BOARD_FILE = "board.toml"  # a copy of the file that describes the board
PACKAGE_FILE = "extras/edgesnn/package.json"  # in what --package made, in a manifest's place

_LIMIT = 2**31 - 1  # of every size and count
_NODE_KINDS = ("input", "encoder", "spiking", "operator", "output")


def _problem(m: dict[str, Any]) -> str | None:
    """The first field that is missing, of the wrong type or out of range; None when all are sound."""

    def whole(value: object, low: int = 0, high: int = _LIMIT) -> bool:
        return type(value) is int and low <= value <= high

    def shape(value: object) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(whole(n, 1) for n in value)

    def node(value: object) -> bool:
        return (
            isinstance(value, dict)
            and isinstance(value.get("name"), str)
            and value.get("kind") in _NODE_KINDS
            and shape(value.get("shape"))
            and whole(value.get("neurons"), 1)
            and whole(value.get("queue_capacity"))
        )

    def inside(name: object) -> bool:
        return (
            isinstance(name, str)
            and bool(name)
            and not Path(name).is_absolute()
            and ".." not in name
        )

    def table(name: str) -> dict[str, Any]:
        value = m.get(name)
        return value if isinstance(value, dict) else {}

    def stream(value: object) -> bool:
        return value is None or (isinstance(value, dict) and _sound_stream(value, m.get("classes")))

    source, memory, bounds, files = (table(n) for n in ("input", "memory", "bounds", "files"))
    names, digest = m.get("class_names"), m.get("program_sha256")
    stack = memory.get("stack_bytes", -1)
    checks = {
        "name": isinstance(m.get("name"), str),
        "target": isinstance(m.get("target"), str),
        "board": m.get("board") is None or isinstance(m["board"], str),
        "timesteps": whole(m.get("timesteps"), 1, 127),
        "classes": whole(m.get("classes"), 1),
        "class_names": isinstance(names, list) and all(isinstance(n, str) for n in names),
        "program_sha256": isinstance(digest, str) and bool(re.fullmatch("[0-9a-f]{64}", digest)),
        "input.kind": source.get("kind") in ("samples", "events"),
        "input.shape": shape(source.get("shape")),
        "input.dtype": source.get("dtype") in ("uint8", "int8", "int16"),
        "nodes": isinstance(m.get("nodes"), list)
        and len(m["nodes"]) > 1
        and all(map(node, m["nodes"])),
        "stream": stream(m.get("stream")),
        "event_bytes": m.get("event_bytes") in (2, 4),
        "output_bytes": m.get("output_bytes") in (2, 4),
        "bounds.encoder_macs": whole(bounds.get("encoder_macs"), 0, 2**62),
        "memory.arena_bytes": whole(memory.get("arena_bytes")),
        "memory.flash_bytes": whole(memory.get("flash_bytes")),
        "memory.ram_bytes": whole(memory.get("ram_bytes")),
        "memory.stack_bytes": stack is None or whole(stack),
        "files": "model.esnn" in files
        and all(inside(n) and isinstance(d, str) for n, d in files.items()),
    }
    return next((name for name, sound in checks.items() if not sound), None)


def _sound_stream(s: dict[str, Any], classes: object) -> bool:
    """Whether the manifest's "stream" has all its fields in range."""

    def whole(name: str, low: int, high: int = _LIMIT) -> bool:
        return type(s.get(name)) is int and low <= s[name] <= high

    quiet, rate = s.get("background"), s.get("rate")
    sound = (
        whole("values", 1)
        and whole("refractory", 0)
        and whole("memory_bytes", 0)
        and isinstance(quiet, list)
        and type(classes) is int
        and all(type(c) is int and 0 <= c < classes for c in quiet)
    )
    windows = ("rows", "hop", "frame", "row_samples", "smooth", "votes")
    if s.get("mode") == "continuous":
        none = all(s.get(name) is None for name in ("dtype", "rate", *windows))
        return sound and none and s.get("source") == "events" and whole("step_us", 1)
    return (
        sound
        and s.get("step_us") is None
        and s.get("mode") == "window"
        and s.get("source") in ("sound", "rows")
        and s.get("dtype") in ("uint8", "int8", "int16")
        and isinstance(rate, int | float)
        and not isinstance(rate, bool)
        and 1e-9 <= rate <= 1e9  # as a program's, compiler/check.py
        and all(whole(name, 1) for name in windows)
    )


@dataclass(frozen=True)
class NodeInfo:
    """One node: kind is "input", "encoder", "spiking", "operator" or "output"; capacity in events per step."""

    name: str
    kind: str
    shape: tuple[int, int, int]
    neurons: int
    queue_capacity: int


@dataclass(frozen=True)
class StreamInfo:
    """How a signal becomes decisions; the manifest's "stream".

    mode: "window" or "continuous". source: "sound", "rows" or "events". dtype, values: of an element and how
    many make a row of the source (sound: 1). rate: samples or rows a second. rows, hop: of a window, in rows of
    the model's input. frame, row_samples: samples of sound that a row looks at, and from one row to the next
    (of other rows 1, 1). smooth, votes, refractory, background: as in ir.WindowStream. step_us, refractory: as
    in ir.EventStream. memory_bytes: what the core is handed besides the arena. None: does not apply.
    """

    mode: str
    source: str
    dtype: str | None
    values: int
    rate: float | None
    rows: int | None
    hop: int | None
    frame: int | None
    row_samples: int | None
    smooth: int | None
    votes: int | None
    refractory: int
    background: tuple[int, ...]
    step_us: int | None
    memory_bytes: int

    def seconds(self, time: int) -> float:
        """A time of the stream (samples, rows or microseconds since its start) in seconds."""
        return time / 1e6 if self.rate is None else time / self.rate

    def check_rows(self, chunk: np.ndarray) -> np.ndarray:
        """A chunk of window mode as [n, values], contiguous; UsageError for anything else.

        Whole numbers of another dtype are taken if they fit.
        """
        array = np.asarray(chunk)
        if self.dtype is None:
            raise UsageError("the stream takes events, not rows")
        fits = array.ndim == 2 and array.shape[1] == self.values
        if not fits and not (array.ndim == 1 and self.values == 1):
            rows = "[n] or [n, 1]" if self.values == 1 else f"[n, {self.values}]"
            raise UsageError(f"the stream takes {self.dtype}{rows}, got {list(array.shape)}")
        limits = np.iinfo(self.dtype)
        if array.dtype.kind not in "iub" or (
            array.dtype != self.dtype
            and array.size
            and (array.min() < limits.min or array.max() > limits.max)
        ):
            raise UsageError(
                f"the stream takes {self.dtype}, got {array.dtype}; pass the raw integers"
            )
        return np.ascontiguousarray(array.astype(self.dtype, copy=False)).reshape(-1, self.values)

    def check_events(self, chunk: np.ndarray, units: int, *, begin: int, latest: int) -> np.ndarray:
        """A chunk of continuous mode, int64[n, 2] of microseconds and address, contiguous.

        begin: time at which the step under way began; latest: of the last event so far. UsageError for late
        or descending times, or an address not below `units`; nothing of the chunk is then to be taken.
        """
        array = np.asarray(chunk)
        if self.dtype is not None:
            raise UsageError("the stream takes rows, not events")
        if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2:
            raise UsageError(
                "the stream takes events int64[n, 2], microseconds and address, got "
                f"{array.dtype}{list(array.shape)}"
            )
        array = np.ascontiguousarray(array.astype(np.int64, copy=False))
        check_order(array, units, begin, latest)
        return array


def check_time(until: float) -> int:
    """A time of continuous mode in whole microseconds, as those of events an int64; else UsageError."""
    if not abs(until) < 2**63:  # neither is nan
        raise UsageError(f"{until} is no time: give microseconds below 2^63")
    return int(until)


def check_order(events: np.ndarray, units: int, begin: int, latest: int) -> None:
    """UsageError for an event of int64[n, 2] that comes before `begin` or the one before it (the first:

    `latest`), or from an address not below `units`.
    """
    if not len(events):
        return
    times, addresses = events[:, 0], events[:, 1]
    if times[0] < begin:
        raise UsageError(f"event at {times[0]} us is late: the step under way began at {begin}")
    before = np.concatenate([[latest], times[:-1]])
    if (times < before).any():
        at = int((times < before).argmax())
        raise UsageError(f"event times descend: {times[at]} us after {before[at]} us")
    outside = (addresses < 0) | (addresses >= units)
    if outside.any():
        raise UsageError(f"event address {addresses[outside.argmax()]} is outside 0...{units - 1}")


def _ecosystem(package: Path) -> str:
    """Whose library `edgesnn compile --package` made here."""
    try:
        kind = json.loads((package / PACKAGE_FILE).read_text(encoding="utf-8"))["kind"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "another build system"
    return str(kind)


@dataclass(frozen=True)
class Bundle:
    """A compiled model on disk. `manifest` holds everything, the properties what is needed often."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open and check a bundle. EdgesnnError says what is missing or altered."""
        folder = Path(path)
        file = folder / MANIFEST
        try:
            if not folder.exists():
                raise EdgesnnError(
                    f"there is no bundle at {folder}; make one with `edgesnn compile`"
                )
            if not file.is_file() and (folder / PACKAGE_FILE).is_file():
                raise EdgesnnError(
                    f"{folder} is a library for {_ecosystem(folder)}, which firmware of one's own calls; "
                    "`edgesnn compile` without --package makes what can be run and flashed"
                )
            if not file.is_file():
                raise EdgesnnError(
                    f"{folder} is not a bundle: it has no {MANIFEST}; run `edgesnn compile`"
                )
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except OSError as e:
            raise EdgesnnError(f"cannot read {file}: {e.strerror or e}") from None
        except (ValueError, RecursionError) as e:
            raise EdgesnnError(f"{file} is not readable ({e}); compile the model again") from None
        bundle = cls(folder, manifest if isinstance(manifest, dict) else {})
        bundle._check()
        return bundle

    def _check(self) -> None:
        m = self.manifest
        if m.get("format") != BUNDLE_FORMAT:
            raise EdgesnnError(
                f"{self.path / MANIFEST} is not the manifest of an edgesnn bundle; compile again"
            )
        if m.get("version") != BUNDLE_VERSION:
            raise EdgesnnError(
                f"{self.path}: bundle version {m.get('version')!r}, this edgesnn reads {BUNDLE_VERSION}; "
                "compile the model again"
            )
        problem = _problem(m)
        if problem is not None:
            raise EdgesnnError(f"{self.path / MANIFEST} is damaged ({problem}); compile again")
        for name, digest in m["files"].items():
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
    def watchdog_ms(self) -> int | None:
        """Of the firmware."""
        time: int | None = self.manifest.get("watchdog_ms")
        return time

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
    def stream(self) -> StreamInfo | None:
        """None where the model takes whole samples only."""
        found = self.manifest.get("stream")
        if found is None:
            return None
        known = {f.name: found.get(f.name) for f in fields(StreamInfo)}
        return StreamInfo(**{**known, "background": tuple(found["background"])})

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

    def load_board(self) -> Board | None:
        """The board that it was compiled for, as it was then; None without one.

        A bundle of before boards were kept in it names one of this package's. EdgesnnError, UsageError:
        as `read_board` and `load_board`.
        """
        file = self._listed(BOARD_FILE)
        if file is None or self.board is None:
            return None if self.board is None else load_board(self.board)
        board = read_board(file, of_bundle=True)
        if board.name != self.board:
            raise EdgesnnError(
                f"{file} describes {board.name}, the manifest names {self.board}; compile again"
            )
        return board

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
