"""The board's side of the protocol, esnn_link.c, compiled for the host with ASan and UBSan."""

from __future__ import annotations

import random
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.runtime import link
from edgesnn.runtime.link import BANNER, RESPONSE, UNREADABLE, Frame, decode_frame, encode_frame

Talk = Callable[[bytes], list[Frame]]


@pytest.fixture
def talk(link_pipe: Path) -> Talk:
    """Bytes in, frames out (without the banner)."""

    def run(data: bytes) -> list[Frame]:
        done = subprocess.run([link_pipe], input=data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.endswith(b"\0")
        replies = [decode_frame(part) for part in done.stdout[:-1].split(b"\0")]
        assert all(replies)
        frames = [r for r in replies if r is not None]
        assert frames[0].op == BANNER and frames[0].sequence == 0 and frames[0].status == 0
        return frames[1:]

    return run


def requests(*ops: tuple[int, bytes], first: int = 1) -> bytes:
    frames = (Frame(op, (first + i - 1) % 255 + 1, p) for i, (op, p) in enumerate(ops))
    return b"".join(map(encode_frame, frames))


def frame_of(sample: np.ndarray) -> list[tuple[int, bytes]]:
    data = sample.tobytes()
    return [
        (link.DATA, struct.pack("<I", at) + data[at : at + 60]) for at in range(0, len(data), 60)
    ]


def test_crc_equals_zlib(link_pipe: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    for data in (b"", b"\0", b"123456789", rng.randbytes(72), rng.randbytes(4096)):
        file = tmp_path / "bytes"
        file.write_bytes(data)
        done = subprocess.run([link_pipe, file], capture_output=True, text=True, check=True)
        assert int(done.stdout) == zlib.crc32(data)
    assert zlib.crc32(b"123456789") == 0xCBF43926


def test_inference(talk: Talk, reference: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        sample = rng.integers(0, 256, (28, 28, 1), dtype=np.uint8)
        want = reference(sample)
        replies = talk(
            requests(
                *frame_of(sample),
                (link.INFER, b""),
                (link.READ_MEMBRANES, struct.pack("<H", 0)),
                (link.READ_STATS, struct.pack("<H", 0)),
                (link.RESULT, b""),
            )
        )
        assert [r.status for r in replies] == [0] * 18
        label, decided, exited, step, ticks, events, sops = struct.unpack_from(
            "<HBBIIII", replies[14].payload
        )
        assert (label, bool(exited), step, decided) == (want.label, want.exited, want.step, 1)
        assert ticks == step
        assert events == sum(map(len, want.events)) and sops == 12 * events
        head = np.frombuffer(replies[14].payload[20:], "<i4")
        assert head.tolist() == want.membranes[:11].tolist()
        assert np.frombuffer(replies[15].payload, "<i4").tolist() == want.membranes.tolist()
        assert np.frombuffer(replies[16].payload, "<u4").tolist() == [events, 0, 0, sops]
        assert replies[17].payload == replies[14].payload


def test_a_repeated_request_is_answered_but_not_executed(talk: Talk) -> None:
    start = requests(*frame_of(np.full((28, 28, 1), 100, np.uint8)))
    step = encode_frame(Frame(link.STEP_NODE, 15))
    replies = talk(start + 5 * step + encode_frame(Frame(link.STEP_NODE, 16)))[14:]
    assert len(replies) == 6 and len(set(replies[:5])) == 1
    nodes = [struct.unpack_from("<HBBIII", r.payload)[0] for r in replies]
    assert nodes == [0, 0, 0, 0, 0, 1]


def test_a_damaged_frame_in_between_does_not_forget_the_answer(talk: Talk) -> None:
    start = requests(*frame_of(np.full((28, 28, 1), 100, np.uint8)))
    step = encode_frame(Frame(link.STEP_NODE, 15))
    replies = talk(start + step + b"\x01\x02\x03\0" + step)[14:]
    assert replies[0] == replies[2] and replies[1].op == UNREADABLE


def test_hello_is_never_answered_from_memory(talk: Talk) -> None:
    start = requests(*frame_of(np.zeros((28, 28, 1), np.uint8)))
    hello = encode_frame(Frame(link.HELLO, 15))
    infer = encode_frame(Frame(link.INFER, 15))
    replies = talk(start + infer + hello + infer)[14:]
    assert [r.op for r in replies] == [0x85, 0x81, 0x81]  # a new host greets first, then counts on


@pytest.mark.parametrize(
    ("data", "op", "status"),
    [
        (b"\x01\0", UNREADABLE, 1),  # no bytes at all inside
        (b"\x03\x01\x01\0", UNREADABLE, 1),  # too short
        (b"\x05\x01\0", UNREADABLE, 1),  # COBS points beyond the end
        (b"\xff" * 200 + b"\0", UNREADABLE, 1),  # too long
        (encode_frame(Frame(link.STACK, 1, bytes(65))), UNREADABLE, 1),
        (encode_frame(Frame(link.STACK, 1))[:-2] + b"\x55\0", UNREADABLE, 2),
        (encode_frame(Frame(link.STACK, 1, version=2)), link.STACK | RESPONSE, 3),
        (encode_frame(Frame(0x0D, 1)), 0x8D, 4),
        (encode_frame(Frame(0x7D, 1)), 0xFD, 4),
        # no response of their own: it would be a banner, a fault, an unreadable frame, INFER's
        (encode_frame(Frame(0x00, 1)), UNREADABLE, 4),
        (encode_frame(Frame(0x7E, 1)), UNREADABLE, 4),
        (encode_frame(Frame(0x7F, 1)), UNREADABLE, 4),
        (encode_frame(Frame(0x80, 1)), UNREADABLE, 4),
        (encode_frame(Frame(0x85, 1)), UNREADABLE, 4),
        (encode_frame(Frame(0x7E, 1, version=2)), UNREADABLE, 4),
        (encode_frame(Frame(0xFF, 0)), UNREADABLE, 4),
        (encode_frame(Frame(link.STACK, 1, b"x")), link.STACK | RESPONSE, 5),
        (encode_frame(Frame(link.DATA, 1, bytes(4))), link.DATA | RESPONSE, 5),
        (encode_frame(Frame(link.EVENTS, 1, bytes(5))), link.EVENTS | RESPONSE, 5),
        (encode_frame(Frame(link.READ_STATS, 1, b"\x02\0")), link.READ_STATS | RESPONSE, 6),
        (encode_frame(Frame(link.READ_MEMBRANES, 1, b"\x0c\0")), link.READ_MEMBRANES | RESPONSE, 6),
        (encode_frame(Frame(link.READ_EVENTS, 1, bytes(4))), link.READ_EVENTS | RESPONSE, 6),
        (encode_frame(Frame(link.STACK, 0)), link.STACK | RESPONSE, 7),
        (encode_frame(Frame(link.STACK, 1, status=1)), link.STACK | RESPONSE, 8),
        (encode_frame(Frame(link.DATA, 1, b"\x01\0\0\0a")), link.DATA | RESPONSE, 0x11),
        (encode_frame(Frame(link.DATA, 1, b"\xff\xff\xff\xffa")), link.DATA | RESPONSE, 0x11),
        (encode_frame(Frame(link.INFER, 1)), link.INFER | RESPONSE, 0x14),
        (encode_frame(Frame(link.EVENTS, 1, bytes(4))), link.EVENTS | RESPONSE, 0x15),
    ],
)
def test_an_error_is_answered_and_the_next_frame_works(
    talk: Talk, data: bytes, op: int, status: int
) -> None:
    replies = talk(data + encode_frame(Frame(link.STACK, 77)))
    assert [(r.op, r.status) for r in replies] == [(op, status), (link.STACK | RESPONSE, 0)]
    assert replies[0].sequence == 0 or op != UNREADABLE
    assert replies[1].payload == struct.pack("<II", 123, 4096)


def test_noise_never_hangs_or_breaks_it(talk: Talk) -> None:
    rng = random.Random(2)
    data = bytearray()
    for i in range(4000):
        size = rng.choice((0, 0, 2, 4, 8, 64, rng.randrange(66)))
        payload = rng.choice((bytes, rng.randbytes))(size)
        good = Frame(rng.randrange(16), rng.randrange(256), payload)
        piece = bytearray(encode_frame(good) if i % 4 else rng.randbytes(rng.randrange(99)))
        for _ in range(rng.choice((0, 0, 1, 2))):
            if piece:
                piece[rng.randrange(len(piece))] = rng.choice((0, 1, 255, rng.randrange(256)))
        data += piece[: rng.randrange(len(piece) + 1)] if rng.randrange(4) == 0 else piece
    probe = encode_frame(Frame(link.HELLO, 200))
    replies = talk(bytes(data) + b"\0" + probe)
    assert replies[-1].sequence == 200 and replies[-1].op == link.HELLO | RESPONSE
    assert {r.status for r in replies} >= {0, 1, 2, 4, 5, 6, 0x11, 0x14}
