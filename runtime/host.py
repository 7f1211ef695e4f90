"""The host engine: the same C core and generated model as on a board, in a shared library, through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from ctypes import c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from edgesnn.runtime.bundle import Bundle, StreamInfo, check_time
from edgesnn.runtime.engine import Decision, TimedDecision, Trace
from edgesnn.targets.errors import EdgesnnError, UsageError

OK = 0
DECIDED = 1
DUE = 2
NONE = 0xFFFFFFFF  # no label
# esnn_stream_decision
_TIMED = np.dtype(
    [
        ("time", "u8"),
        *((name, "u4") for name in ("label", "step", "exited", "smoothed", "detected")),
    ],
    align=True,
)
BUSY = -4  # ESNN_ERR_STATE: not now


def _load(library: Path) -> ctypes.CDLL:
    """Load a library under a name of its own: the loader would hand out an older one of the same path."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgesnn-") as folder:
            own = shutil.copy(library, Path(folder) / f"{uuid.uuid4().hex}.so")
            return ctypes.CDLL(str(own))
    except OSError as e:
        raise EdgesnnError(
            f"cannot load {library} ({e}); compile the model again on this machine"
        ) from None


class HostEngine:
    """Runs a host bundle in this process. Not thread-safe; make one engine per thread.

    A SignalEngine too where the bundle has a stream, which has an arena of its own: samples may be classified
    in between.
    """

    name = "host"

    def __init__(self, bundle: Bundle) -> None:
        if bundle.library is None:
            raise EdgesnnError(
                f"{bundle.path} was compiled for {bundle.target}; compile it with --target cpu to run it "
                "here, or name a board or port"
            )
        self.bundle = bundle
        self._lib = _load(bundle.library)
        self._declare()
        shape = self._agreed_shape()
        self._ctx = ctypes.create_string_buffer(self._lib.esnn_host_context_bytes())
        self._arena = np.zeros(shape["arena_bytes"] // 8 + 1, dtype=np.uint64)
        self._decision = np.zeros(3, dtype=np.uint32)
        self._membranes = np.zeros(shape["classes"], dtype=np.int32)
        self._stats = np.zeros((shape["nodes"], 2), dtype=np.uint32)
        self._queue = np.zeros(max(1, shape["queue"]), dtype=np.uint32)
        model = self._lib.esnn_host_model()
        self._call("esnn_init", self._ctx, model, self._arena.ctypes.data, self._arena.nbytes)
        self._info = bundle.stream
        if self._info is not None:
            self._bind_stream(self._info)

    def _bind_stream(self, info: StreamInfo) -> None:
        found = np.zeros(9, dtype=np.uint32)
        self._lib.esnn_host_stream_shape(found.ctypes.data)
        size, *shape = (int(n) for n in found)
        row = 0 if info.dtype is None else np.dtype(info.dtype).itemsize * info.values
        rule = (info.rows, info.hop, info.smooth, info.votes, info.refractory, info.step_us)
        if shape != [info.memory_bytes, row, *(n or 0 for n in rule)]:
            raise EdgesnnError(
                f"{self.bundle.library} does not belong to its manifest (the stream differs); "
                "compile the model again"
            )
        self._memory = np.zeros(info.memory_bytes // 8 + 1, dtype=np.uint64)
        self._stream_ctx = ctypes.create_string_buffer(len(self._ctx))
        self._stream_arena = np.zeros_like(self._arena)
        self._call(
            "esnn_init",
            self._stream_ctx,
            self._lib.esnn_host_model(),
            self._stream_arena.ctypes.data,
            self._stream_arena.nbytes,
        )
        self._used = c_size_t()
        self._timed = np.zeros(1, dtype=_TIMED)
        self._stream = ctypes.create_string_buffer(size)
        self.start_stream()

    def _agreed_shape(self) -> dict[str, int]:
        """The library's own sizes; EdgesnnError where the manifest says otherwise."""
        found = np.zeros(10, dtype=np.uint32)
        self._lib.esnn_host_shape(found.ctypes.data)
        names = ("arena_bytes", "input_bytes", "classes", "nodes", "timesteps", "queue")
        shape = {name: int(value) for name, value in zip(names, found, strict=False)}
        b = self.bundle
        frame = int(np.prod(b.input_shape)) * np.dtype(b.input_dtype).itemsize
        want = {
            "input_bytes": frame if b.input_kind == "samples" else 0,
            "classes": b.classes,
            "nodes": len(b.nodes),
            "timesteps": b.timesteps,
        }
        odd = [name for name, value in want.items() if shape[name] != value]
        if odd or found[6:].astype("<u4").tobytes() != b.model_id:
            what = f"{odd[0]} differs" if odd else "it is another model"
            raise EdgesnnError(
                f"{b.library} does not belong to its manifest ({what}); compile the model again"
            )
        return shape

    def _declare(self) -> None:
        signatures: dict[str, tuple[object, list[object]]] = {
            "esnn_host_context_bytes": (c_size_t, []),
            "esnn_host_model": (c_void_p, []),
            "esnn_host_shape": (None, [c_void_p]),
            "esnn_host_outcome": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p]),
            "esnn_host_queue": (c_int32, [c_void_p, c_void_p, c_uint32]),
            "esnn_init": (c_int32, [c_void_p, c_void_p, c_void_p, c_size_t]),
            "esnn_reset": (c_int32, [c_void_p]),
            "esnn_push_frame": (c_int32, [c_void_p, c_void_p, c_size_t]),
            "esnn_push_next": (c_int32, [c_void_p, c_void_p, c_size_t]),
            "esnn_push_events": (c_int32, [c_void_p, c_void_p, c_size_t]),
            "esnn_step_node": (c_int32, [c_void_p]),
            "esnn_step": (c_int32, [c_void_p]),
            "esnn_run": (c_int32, [c_void_p]),
            "esnn_strerror": (ctypes.c_char_p, [c_int32]),
        }
        if self.bundle.stream is not None:
            signatures |= {
                "esnn_host_stream_shape": (None, [c_void_p]),
                "esnn_host_stream_model": (c_void_p, []),
                "esnn_host_stream_outcome": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p]),
                "esnn_host_events": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p]),
                "esnn_host_advance": (c_int32, [c_void_p, c_uint64]),
                "esnn_stream_init": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_size_t]),
                "esnn_stream_push": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p]),
                "esnn_stream_classify": (c_int32, [c_void_p]),
            }
        try:
            for name, (result, arguments) in signatures.items():
                function = getattr(self._lib, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError as e:
            raise EdgesnnError(f"{self.bundle.library} is not a model library ({e})") from None

    def _call(self, name: str, *arguments: object) -> int:
        status = int(getattr(self._lib, name)(*arguments))
        if status < 0:
            reason = self._lib.esnn_strerror(status).decode()
            raise EdgesnnError(f"{self.bundle.name}: {name}: {reason}")
        return status

    def _push(self, sample: np.ndarray, t: int) -> None:
        """The frame before step 1; for an event input, the events of step t."""
        if self.bundle.input_kind == "samples":
            if t == 1:
                self._call("esnn_push_frame", self._ctx, sample.ctypes.data, sample.nbytes)
            return
        addresses = np.flatnonzero(sample[t - 1]).astype(np.uint32)
        self._call("esnn_push_events", self._ctx, addresses.ctypes.data, len(addresses))

    def infer(self, sample: np.ndarray) -> Decision:
        """Classify one sample; `seconds` is wall-clock time inside the C core and ctypes."""
        x = self.bundle.check_sample(sample)
        start = time.perf_counter()
        if self.bundle.input_kind == "samples":
            self._push(x, 1)
            self._call("esnn_run", self._ctx)
        else:
            self._call("esnn_reset", self._ctx)
            for t in range(1, self.bundle.timesteps + 1):
                self._push(x, t)
                if self._call("esnn_step", self._ctx) == DECIDED:
                    break
        return self._outcome(time.perf_counter() - start)

    def infer_pipelined(self, samples: Iterable[np.ndarray]) -> Iterator[Decision]:
        """Classify samples in order, each pushed as soon as the encoder is done with the one before.

        Of a model of signed spikes: a frame enters every T + silent steps, while deeper layers still work on
        the last one. Any other model takes one after the other. `events` and `sops` are those since the
        decision before, whichever frame they belong to. Nothing else may be asked of the engine before the
        last decision.
        """
        waiting = (self.bundle.check_sample(sample) for sample in samples)
        pending = next(waiting, None)
        total = np.zeros_like(self._stats, dtype=np.int64)
        self._call("esnn_reset", self._ctx)
        flying = 0
        while pending is not None or flying:
            if pending is not None:
                size = pending.nbytes
                if flying == 0:
                    self._call("esnn_push_frame", self._ctx, pending.ctypes.data, size)
                    total[:] = 0
                    pushed = True
                else:
                    status = self._lib.esnn_push_next(self._ctx, pending.ctypes.data, size)
                    pushed = status >= 0
                    if not pushed and status != BUSY:
                        self._call("esnn_push_next", self._ctx, pending.ctypes.data, size)
                if pushed:
                    flying += 1
                    pending = next(waiting, None)
            if self._call("esnn_step", self._ctx) == DECIDED:
                flying -= 1
                found = self._outcome(None)
                now = np.stack([found.events, found.sops], axis=1)
                events, sops = ((now - total) & 0xFFFFFFFF).T  # the core counts in 32 bits
                total = now
                yield replace(found, events=events, sops=sops)

    def trace(self, sample: np.ndarray) -> Trace:
        """Classify one sample and keep every event of every node."""
        x = self.bundle.check_sample(sample)
        self._call("esnn_reset", self._ctx)
        history: list[list[np.ndarray]] = []
        status = 0
        for t in range(1, self.bundle.timesteps + 1):
            self._push(x, t)
            step: list[np.ndarray] = []
            for _ in self.bundle.nodes:
                status = self._call("esnn_step_node", self._ctx)
                n = self._call(
                    "esnn_host_queue", self._ctx, self._queue.ctypes.data, len(self._queue)
                )
                step.append(np.sort(self._queue[:n]))
            history.append(step)
            if status == DECIDED:
                break
        return Trace(self._outcome(None), history)

    def _outcome(self, seconds: float | None) -> Decision:
        self._call(
            "esnn_host_outcome",
            self._ctx,
            self._decision.ctypes.data,
            self._membranes.ctypes.data,
            self._stats.ctypes.data,
        )
        label, step, exited = (int(v) for v in self._decision)
        stats = self._stats.astype(np.int64)
        return Decision(
            label=label,
            step=step,
            exited=bool(exited),
            membranes=self._membranes.astype(np.int64),
            events=stats[:, 0],
            sops=stats[:, 1],
            seconds=seconds,
        )

    def start_stream(self) -> None:
        """Forget everything: time 0. EdgesnnError where the bundle has no stream."""
        self._streamed()
        self._call(
            "esnn_stream_init",
            self._stream,
            self._lib.esnn_host_stream_model(),
            self._stream_ctx,
            self._memory.ctypes.data,
            self._memory.nbytes,
        )
        self._latest = self._until = 0  # microseconds: newest event, end of the last finished step
        self._seconds = 0.0  # in the core since the last decision

    def push(self, chunk: np.ndarray) -> list[TimedDecision]:
        """What falls while `chunk` comes in. UsageError for what is no chunk of this stream.

        A decision's `seconds` is wall-clock time of the network, in continuous mode of all since the last one.
        """
        info = self._streamed()
        if info.mode == "window":
            return self._push_rows(info.check_rows(chunk))
        units = int(np.prod(self.bundle.input_shape))
        events = info.check_events(chunk, units, begin=self._until, latest=self._latest)
        out: list[TimedDecision] = []
        used = ctypes.addressof(self._used)
        while len(events):
            self._latest = int(events[-1, 0])
            at, count = events.ctypes.data, len(events)
            self._timed_call(out, "esnn_host_events", self._stream, at, count, used)
            events = events[self._used.value :]
        self._pass(self._latest)
        return out

    def advance(self, until: int) -> list[TimedDecision]:
        """Continuous mode: run every step that ends at or before `until` microseconds."""
        info = self._streamed()
        if info.mode == "window":
            raise UsageError("only a stream of events goes on by time: push rows")
        out: list[TimedDecision] = []
        end = max(0, check_time(until))
        while self._timed_call(out, "esnn_host_advance", self._stream, end) != OK:
            pass
        self._pass(end)
        return out

    def _streamed(self) -> StreamInfo:
        if self._info is None:
            raise EdgesnnError(f"{self.bundle.name} has no stream: it takes whole samples")
        return self._info

    def _pass(self, time: int) -> None:
        """All steps that end at or before a time are over."""
        step = self._streamed().step_us
        assert step is not None
        self._until = max(self._until, time // step * step)

    def _push_rows(self, rows: np.ndarray) -> list[TimedDecision]:
        out: list[TimedDecision] = []
        at, left, used = rows.ctypes.data, rows.nbytes, ctypes.addressof(self._used)
        while self._call("esnn_stream_push", self._stream, at, left, used) == DUE:
            at, left = at + self._used.value, left - self._used.value
            self._timed_call(out, "esnn_stream_classify", self._stream)
        return out

    def _timed_call(self, out: list[TimedDecision], name: str, *arguments: object) -> int:
        """Call what may end in a decision, which goes to the end of `out`; returns the status."""
        start = time.perf_counter()
        status = self._call(name, *arguments)
        self._seconds += time.perf_counter() - start
        if status != DECIDED:
            return status
        self._call(
            "esnn_host_stream_outcome",
            self._stream,
            self._timed.ctypes.data,
            self._membranes.ctypes.data,
            self._stats.ctypes.data,
        )
        when, label, step, exited, smoothed, detected = (int(n) for n in self._timed[0])
        step_us = self._streamed().step_us
        step = step if step_us is None else when // step_us  # the core counts in 32 bits
        events, sops = self._stats.astype(np.int64).T
        decision = Decision(
            label=label,
            step=step,
            exited=bool(exited),
            membranes=self._membranes.astype(np.int64),
            events=events,
            sops=sops,
            seconds=self._seconds,
        )
        self._seconds = 0.0
        voted = None if smoothed == NONE else smoothed
        out.append(TimedDecision(when, decision, voted, bool(detected)))
        return status

    def close(self) -> None:
        """Nothing to release: the library stays loaded until the process ends."""

    def __enter__(self) -> HostEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
