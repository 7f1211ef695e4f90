"""Profile a model on a signal as it comes: what a second of it costs, and when the answers fall."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgesnn import streaming
from edgesnn.data import Recording
from edgesnn.evaluate import Advance
from edgesnn.profiling.spread import spread
from edgesnn.runtime.session import Session
from edgesnn.scoring import score_recording
from edgesnn.targets.errors import EdgesnnError

SECONDS = 10.0  # of signal; a serial line and an emulator take longer than that for it


def find_signal(
    session: Session,
    data: str | None,
    split: str = "test",
    data_dir: str | None = None,
    seconds: float = SECONDS,
) -> tuple[Recording | None, str | None]:
    """(the first seconds of the data set's recording, None), or None and why there is none.

    Whole labelled intervals, at least one; 0 seconds: none wanted.
    """
    if session.bundle.stream is None or seconds <= 0:
        return None, None
    if data is None:
        return None, "name a recording with --data to see what a second of signal costs"
    try:
        recording = streaming.find_recording(session, data, split, data_dir=data_dir)
    except EdgesnnError as error:  # samples alone can be profiled, too
        return None, str(error)
    ends = session.bundle.stream.seconds(1) * recording.intervals[:, 1]
    return recording.first(max(1, int((ends <= seconds).sum()))), None


def profile_signal(session: Session, recording: Recording, advance: Advance) -> dict[str, Any]:
    """Play a recording; per decision and per second of signal, in the unit of the board's counter.

    Without one (on the host) nothing but this machine's clock is known: `real_time` is how many seconds of
    signal it worked on in one. front_end: log-mel rows (window mode) or taking in events (continuous mode).
    """
    info, counter = session.stream, session.counter
    began = time.perf_counter()
    fell = list(streaming.play(session, recording, advance))
    took = time.perf_counter() - began
    each = info.seconds(1)
    found = [(one.time, one.smoothed) for one in fell if one.detected and one.smoothed is not None]
    scored = score_recording(recording, found, info.background, each)
    signal_seconds = info.seconds(recording.length)
    report: dict[str, Any] = {
        "recording": f"{recording.name} {recording.split}",
        "mode": info.mode,
        "source": info.source,
        "signal_seconds": signal_seconds,
        "decisions": len(fell),
        "detections": len(found),
        "score": scored.to_dict(),
        "real_time": signal_seconds / took,
        "stream_memory_bytes": info.memory_bytes,
        "board": None,
        "timeline": {
            "intervals": [
                [each * int(a), each * int(b), session.class_name(int(label))]
                for (a, b), label in zip(recording.intervals, recording.labels, strict=True)
            ],
            "detections": [[each * at, session.class_name(label)] for at, label in found],
        },
    }
    if counter is None or session.board is None or not fell:
        return report
    heard, unit = info.seconds(fell[-1].time), counter.unit
    network = np.array([counter.units(one.decision.ticks or 0) for one in fell])
    front = np.array([counter.units(one.front_ticks or 0) for one in fell])
    rate = float(network.sum() + front.sum()) / heard
    clock = session.board.clock_hz
    report["board"] = {
        "unit": unit,
        "network": spread(network),
        "front_end": spread(front),
        "front_end_share": float(front.sum() / max(front.sum() + network.sum(), 1)),
        "front_end_per_second": float(front.sum()) / heard,
        "network_per_second": float(network.sum()) / heard,
        "per_second": rate,
        "clock_hz": clock,
        "share_of_clock": rate / clock,
        # Continuous mode: every step is run, whether an answer falls or not.
        "per_step": float(network.sum() + front.sum()) / fell[-1].decision.step
        if info.mode == "continuous"
        else None,
    }
    return report
