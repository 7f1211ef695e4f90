"""Random programs with a stream, and signals for them, for parity: every engine agrees with the interpreter.

Sound through log-mel front ends of odd frames, hops and filters; rows of every sample type, of maps and of
signals; events with silences, bursts and repetitions. Any smoothing, votes, refractory time and background.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgesnn.compiler import ir
from edgesnn.compiler.front_end import make_log_mel, quarter_wave
from edgesnn.compiler.random_css import random_css_program
from edgesnn.compiler.random_program import _Draw, first_legal, random_program
from edgesnn.compiler.stream import window_shape

KINDS = ("log-mel", "rows", "continuous")
_CONTRACTING: tuple[ir.Shifts, ...] = (
    ((1, 1),),
    ((1, 0), (-1, 2)),
    ((1, 0), (-1, 3)),
    ((1, 1), (1, 3)),
    ((1, 0), (-1, 2), (-1, 4)),
    ((1, 0), (-1, 6)),
    ((-1, 1),),
    (),
)


def random_stream_program(seed: int, kind: str | None = None) -> ir.Program:
    """A legal, width-proved program with a stream of a kind (default: by seed), the same for the same seed."""
    kind = kind or KINDS[seed % len(KINDS)]
    name = f"{kind}{seed}"

    def drawn(attempt: int) -> ir.Program:
        rng = np.random.default_rng([seed, attempt, 31])
        if kind == "continuous":
            return replace(_Continuous(rng).program(name), stream=_events(rng))
        if kind == "log-mel":
            draw = _Sound(rng)
            program = draw.program(name)
            return replace(program, stream=_windows(rng, program, draw.front))
        program = replace(_samples(rng), name=name)
        rate = float(rng.choice([1.0, 25.0, 99.7]))
        return replace(program, stream=_windows(rng, program, ir.Rows(rate)))

    return first_legal(seed, drawn)


def random_signal(program: ir.Program, seed: int) -> np.ndarray:
    """A signal as `push` takes it: some ten windows, or some sixty steps of events."""
    rng = np.random.default_rng([seed, 78])
    stream, source = program.stream, program.input
    if isinstance(stream, ir.EventStream):
        return _random_events(rng, stream, ir.size(source.shape))
    assert stream is not None and isinstance(source, ir.SampleInput)
    shape = window_shape(program)
    last = shape.rows - 1 + shape.hop * int(rng.integers(4, 12))
    count = shape.row_time(last) + int(rng.integers(0, shape.row_hop * shape.hop))
    if isinstance(stream.front, ir.LogMel):
        return _random_sound(rng, count)
    low, high = ir.SAMPLE_RANGE[source.dtype]
    rows = rng.integers(low, high + 1, (count, shape.values))
    for part in np.array_split(rows, 6):  # views: stretches of silence, noise and extremes
        part[:] = np.where(rng.random(part.shape) < rng.random(), source.zero_point, part)
        if rng.random() < 0.2:
            part[:] = rng.choice([low, high])
    return rows.astype(source.dtype)


def random_chunks(signal: np.ndarray, seed: int) -> list[np.ndarray]:
    """A signal cut at random places; some chunks are empty or a single row."""
    rng = np.random.default_rng([seed, 79])
    cuts = rng.integers(0, len(signal) + 1, int(rng.integers(0, 12)))
    return np.split(signal, np.sort(np.concatenate([cuts, np.minimum(cuts[:3] + 1, len(signal))])))


def _windows(rng: np.random.Generator, program: ir.Program, front: ir.FrontEnd) -> ir.WindowStream:
    height, width, _ = program.input.shape
    rows = width if height == 1 and isinstance(front, ir.Rows) else height
    smooth = int(rng.choice([1, 1, 2, 3, 5, 7]))
    quiet = rng.permutation(program.classes)[: int(rng.integers(0, program.classes))]
    if rng.random() < 0.3:
        quiet = quiet[:0]
    return ir.WindowStream(
        front,
        hop=int(rng.integers(1, rows + 1)),
        smooth=smooth,
        votes=int(rng.integers(1, smooth + 1)),
        refractory=int(rng.choice([0, 0, 1, 2, 5])),
        background=tuple(quiet.tolist()),
    )


def _samples(rng: np.random.Generator) -> ir.Program:
    if rng.random() < 0.15:
        return random_css_program(int(rng.integers(1 << 30)))
    while True:
        program = random_program(int(rng.integers(1 << 30)), stack=rng.random() < 0.2)
        if isinstance(program.input, ir.SampleInput):
            return program


class _Sound(_Draw):
    """On rows of a log-mel front end."""

    front: ir.LogMel

    def _input(self) -> str:
        rng = self.rng
        self.front = _log_mel(rng)
        shape = (int(rng.integers(1, 11)), len(self.front.offset), 1)
        self.spread = 90.0 * 40
        self._add(ir.SampleInput("x", shape, "uint8", 1.0, int(rng.choice([0, 0, 3]))), 1.0)
        return self._encoder("encoder", "x")


def _log_mel(rng: np.random.Generator) -> ir.LogMel:
    """Of a Hann window and triangles in mel, or of any legal tables."""
    n = int(rng.choice([16, 32, 64, 128, 256]))
    frame = int(rng.choice([n, n // 2 + 1, int(rng.integers(n // 2 + 1, n + 1))]))
    if n == 16:
        frame = int(rng.integers(2, 17))
    hop = int(rng.choice([frame, max(frame // 2, 1), 1 + int(rng.integers(2 * frame))]))
    count = int(rng.integers(1, max(n // 16, 2) + 1))
    offset = rng.integers(2048, 4500, count).astype(np.int32)
    gain = int(rng.choice([1, 60, 200, 800]))
    if rng.random() < 0.5:
        return make_log_mel(16000, frame=frame, hop=hop, bands=count, offset=offset, gain=gain)
    band = np.sort(rng.integers(-1, count + 1, n // 2 + 1))
    band[rng.random(len(band)) < 0.1] = -1
    return ir.LogMel(
        8000,
        hop,
        rng.integers(0, 32768, frame).astype(np.int16),
        quarter_wave(n).astype(np.int32),
        band.astype(np.int16),
        rng.integers(0, 257, n // 2 + 1).astype(np.int16),
        rng.integers(-20000, 20000, count).astype(np.int32) if rng.random() < 0.2 else offset,
        gain,
    )


def _random_sound(rng: np.random.Generator, count: int) -> np.ndarray:
    """Tones and noise, loud and quiet, full-scale square waves, silence, one after the other."""
    parts = []
    for part in np.array_split(np.arange(count), int(rng.integers(3, 8))):
        loud = 32767 * 2.0 ** -float(rng.integers(0, 15))
        tone = np.sin(part * rng.uniform(0.01, 3.1) + rng.uniform(0, 6))
        noise = rng.uniform(-1, 1, len(part))
        kind = rng.integers(5)
        x = (
            tone * loud,
            noise * loud,
            np.where(tone < 0, -32768, 32767),
            0 * tone,
            -32768 + 0 * tone,
        )
        parts.append(x[int(kind)])
    return np.concatenate(parts).astype(np.int16)


class _Continuous(_Draw):
    """Events onto Lif populations that leak, and a readout that decides by itself."""

    def _input(self) -> str:
        rng = self.rng
        h, w, c = (int(rng.integers(low, high)) for low, high in ((1, 9), (2, 11), (1, 4)))
        return self._add(ir.EventInput("events", (h, w, c)), 0.3)

    def _leak(self) -> ir.Shifts:
        return _CONTRACTING[int(self.rng.integers(len(_CONTRACTING)))]

    def _spiking(self, depth: int, into: tuple[ir.Projection, ...]) -> str:
        channels = ir.conv_shape(into[0], self.maps[into[0].source])[2]
        spread = sum(40 * np.sqrt(p.weight[0].size * self.rates[p.source]) for p in into)
        theta, bias = self._thresholds(channels, spread), self._bias(channels, 20)
        lif = ir.Lif(f"lif{depth}", into, self._leak(), theta, bias, self._reset())
        return self._add(lif, 0.3)

    def _output(self) -> tuple[ir.Accumulator, ir.Readout]:
        while True:
            output, readout = super()._output()
            if not isinstance(readout, ir.Rate):
                return output, readout


def _events(rng: np.random.Generator) -> ir.EventStream:
    # The last one reaches times beyond 32 bits within a few steps.
    step = int(rng.choice([1, 7, 100, 1000, 5000, 16667, 2_000_000_000]))
    return ir.EventStream(step, int(rng.choice([0, 0, 1, 3, 10])))


def _random_events(rng: np.random.Generator, stream: ir.EventStream, units: int) -> np.ndarray:
    """int64[n, 2]: silences, single events and bursts in which addresses come again."""
    parts, step = [], 0
    while step < 60:
        kind = int(rng.integers(4))
        many = (1, 3, max(units // 4, 1), units)[kind]
        steps = (1, 8, 6, 3)[kind]
        count = int(rng.integers(0, many * steps + 1))
        begin = step * stream.step_us
        times = rng.integers(begin, begin + steps * stream.step_us, count)
        parts.append(np.stack([np.sort(times), rng.integers(0, units, count)], axis=1))
        step += steps + (int(rng.integers(0, 20)) if rng.random() < 0.3 else 0)
    return np.concatenate(parts).astype(np.int64)
