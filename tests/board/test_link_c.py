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

from edgesnn.runtime import frames
from edgesnn.runtime.frames import (
    BANNER,
    RESPONSE,
    UNREADABLE,
    BoardInfo,
    Frame,
    decode_frame,
    encode_frame,
)

Talk = Callable[..., list[Frame]]
SESSION = 77


def ask(op: int, sequence: int, payload: bytes = b"", session: int = SESSION) -> bytes:
    return encode_frame(Frame(op, sequence, payload, session))


GREETING = ask(frames.HELLO, 255)


@pytest.fixture
def talk(link_pipe: Path) -> Talk:
    """Bytes in, frames out (without the banner and the answer to the greeting)."""

    def run(data: bytes, greeting: bytes = GREETING) -> list[Frame]:
        done = subprocess.run([link_pipe], input=greeting + data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.endswith(b"\0")
        replies = [decode_frame(part) for part in done.stdout[:-1].split(b"\0")]
        assert all(replies)
        frames = [r for r in replies if r is not None]
        assert frames[0].op == BANNER and frames[0].sequence == 0 and frames[0].status == 0
        return frames[1 + bool(greeting) :]

    return run


def requests(*ops: tuple[int, bytes], first: int = 1) -> bytes:
    return b"".join(ask(op, (first + i - 1) % 255 + 1, p) for i, (op, p) in enumerate(ops))


def frame_of(sample: np.ndarray) -> list[tuple[int, bytes]]:
    data = sample.tobytes()
    return [
        (frames.DATA, struct.pack("<I", at) + data[at : at + 60]) for at in range(0, len(data), 60)
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
                (frames.INFER, b""),
                (frames.READ_MEMBRANES, struct.pack("<H", 0)),
                (frames.READ_STATS, struct.pack("<H", 0)),
                (frames.RESULT, b""),
            )
        )
        assert [r.status for r in replies] == [0] * 18
        label, decided, exited, step, ticks, events, sops, count = struct.unpack_from(
            "<HBBIIIII", replies[14].payload
        )
        assert (label, bool(exited), step, decided) == (want.label, want.exited, want.step, 1)
        assert ticks == step and count == 1
        assert events == sum(map(len, want.events)) and sops == 12 * events
        head = np.frombuffer(replies[14].payload[24:], "<i4")
        assert head.tolist() == want.membranes[:10].tolist()
        assert np.frombuffer(replies[15].payload, "<i4").tolist() == want.membranes.tolist()
        assert np.frombuffer(replies[16].payload, "<u4").tolist() == [events, 0, 0, sops]
        assert replies[17].payload == replies[14].payload


def test_a_repeated_request_is_answered_but_not_executed(talk: Talk) -> None:
    start = requests(*frame_of(np.full((28, 28, 1), 100, np.uint8)))
    step = ask(frames.STEP_NODE, 15)
    replies = talk(start + 5 * step + ask(frames.STEP_NODE, 16))[14:]
    assert len(replies) == 6 and len(set(replies[:5])) == 1
    nodes = [struct.unpack_from("<HBBIII", r.payload)[0] for r in replies]
    assert nodes == [0, 0, 0, 0, 0, 1]


def test_a_damaged_frame_in_between_does_not_forget_the_answer(talk: Talk) -> None:
    start = requests(*frame_of(np.full((28, 28, 1), 100, np.uint8)))
    step = ask(frames.STEP_NODE, 15)
    replies = talk(start + step + b"\x01\x02\x03\0" + step)[14:]
    assert replies[0] == replies[2] and replies[1].op == UNREADABLE


def test_hello_is_never_answered_from_memory(talk: Talk) -> None:
    start = requests(*frame_of(np.zeros((28, 28, 1), np.uint8)))
    hello, infer = ask(frames.HELLO, 15, session=3), ask(frames.INFER, 15)
    replies = talk(start + infer + hello + ask(frames.INFER, 15, session=3) + hello)[14:]
    assert [r.op for r in replies] == [0x85, 0x81, 0x81, 0x81]  # it begins with any number
    assert [session_before(replies[i]) for i in (1, 2, 3)] == [SESSION, SESSION, 3]


def test_a_late_copy_of_an_older_request_is_not_executed(talk: Talk) -> None:
    start = requests(*frame_of(np.full((28, 28, 1), 100, np.uint8)))
    node, result = ask(frames.STEP_NODE, 15), ask(frames.RESULT, 16)
    again = ask(frames.RESET, 254) + ask(frames.RESET, 1) + 2 * start + node
    replies = talk(start + node + result + again + result)[14:]
    assert [r.op for r in replies] == [0x87, 0x88, 0x88] and replies[1] == replies[2]
    # Nor does a late greeting of the session itself let older ones in again.
    replies = talk(start + node + result + GREETING + node + result)[14:]
    assert [r.op for r in replies] == [0x87, 0x88, 0x81, 0x88] and replies[1] == replies[3]
    assert session_before(replies[2]) == SESSION
    # Up to 127 behind, round the end of the numbers; what is further is ahead.
    for last in (1, 100, 128, 255):
        newest = ask(frames.STACK, last, session=5)
        ahead = ask(frames.STACK, (last + 126) % 255 + 1, session=5)
        greeting = ask(frames.HELLO, last, session=5)
        late = b"".join(ask(frames.STACK, (last - 1 - k) % 255 + 1, b"", 5) for k in range(1, 128))
        replies = talk(greeting + late + newest + ahead)
        assert [r.op for r in replies] == [0x81, 0x81, 0x8C]


def session_before(reply: Frame) -> int:
    assert reply.op == frames.HELLO | RESPONSE and reply.status == 0
    return BoardInfo.parse(reply.payload).session


def test_a_greeting_begins_a_session(talk: Talk) -> None:
    hello = [ask(frames.HELLO, 255 - i % 2, session=s) for i, s in enumerate((5, 5, 6, 5, 255))]
    replies = talk(b"".join(hello), greeting=b"")
    assert [session_before(r) for r in replies] == [0, 5, 5, 6, 5]
    assert replies[0].payload[39:] == b"test-model"


def test_another_session_is_refused_and_told_of_the_boards(talk: Talk) -> None:
    def refused(op: int, board: int) -> tuple[int, int, bytes]:
        return (op | RESPONSE, 8, bytes([board]))

    def told(replies: list[Frame]) -> list[tuple[int, int, bytes]]:
        return [(r.op, r.status, r.payload) for r in replies]

    # Since boot there was none, and no host may call its own 0.
    cold = ask(frames.STACK, 1) + ask(frames.STACK, 2, session=0) + ask(frames.HELLO, 3, session=0)
    assert told(talk(cold, greeting=b"")) == [
        *(refused(frames.STACK, 0), refused(frames.STACK, 0), refused(frames.HELLO, 0))
    ]
    # What is refused is not executed and forgets nothing: the old host's request is answered from memory.
    start = requests(*frame_of(np.full((28, 28, 1), 100, np.uint8)))
    step = ask(frames.STEP_NODE, 15)
    replies = talk(
        start + step + ask(frames.STEP_NODE, 16, session=78) + ask(frames.RESET, 15, b"", 1) + step
    )
    assert told(replies[15:17]) == [
        refused(frames.STEP_NODE, SESSION),
        refused(frames.RESET, SESSION),
    ]
    assert replies[17] == replies[14] and replies[14].status == 0
    # The answer of one session is not another's.
    replies = talk(start + step + ask(frames.HELLO, 14, session=9) + step)
    assert session_before(replies[15]) == SESSION and told(replies[16:]) == [
        refused(frames.STEP_NODE, 9)
    ]


def test_inferences_are_counted_from_the_greeting(talk: Talk) -> None:
    def counts(replies: list[Frame]) -> list[int]:
        ops = {frames.INFER | RESPONSE, frames.STEP | RESPONSE, frames.RESULT | RESPONSE}
        return [struct.unpack_from("<I", r.payload, 20)[0] for r in replies if r.op in ops]

    start = frame_of(np.zeros((28, 28, 1), np.uint8))  # decides in the fourth step
    whole = [*start, (frames.INFER, b"")]
    nodes = [*start, *8 * [(frames.STEP_NODE, b"")], (frames.RESULT, b"")]
    steps = [*start, *4 * [(frames.STEP, b"")], (frames.RESULT, b"")]
    replies = talk(requests(*whole, *nodes, *steps, *whole))
    assert {r.status for r in replies} == {0} and counts(replies) == [1, 2, 2, 2, 2, 3, 3, 4]
    again = ask(frames.HELLO, 200) + requests(*whole, first=16) + ask(frames.HELLO, 200, session=3)
    data = requests(*whole) + again + ask(frames.RESULT, 201, session=3)
    replies = talk(data)
    assert counts(replies) == [1, 2, 0]  # the same session greets twice, another once


@pytest.mark.parametrize(
    ("data", "op", "status"),
    [
        (b"\x01\0", UNREADABLE, 1),  # no bytes at all inside
        (b"\x03\x01\x01\0", UNREADABLE, 1),  # too short
        (b"\x05\x01\0", UNREADABLE, 1),  # COBS points beyond the end
        (b"\xff" * 200 + b"\0", UNREADABLE, 1),  # too long
        (ask(frames.STACK, 1, bytes(65)), UNREADABLE, 1),
        (ask(frames.STACK, 1)[:-2] + b"\x55\0", UNREADABLE, 2),
        (encode_frame(Frame(frames.STACK, 1, version=1)), frames.STACK | RESPONSE, 3),
        (ask(0x0D, 1), 0x8D, 4),
        (ask(0x7D, 1), 0xFD, 4),
        # no response of their own: it would be a banner, a fault, an unreadable frame, INFER's
        (ask(0x00, 1), UNREADABLE, 4),
        (ask(0x7E, 1), UNREADABLE, 4),
        (ask(0x7F, 1), UNREADABLE, 4),
        (ask(0x80, 1), UNREADABLE, 4),
        (ask(0x85, 1), UNREADABLE, 4),
        (encode_frame(Frame(0x7E, 1, version=1)), UNREADABLE, 4),
        (ask(0xFF, 0), UNREADABLE, 4),
        (ask(frames.STACK, 1, b"x"), frames.STACK | RESPONSE, 5),
        (ask(frames.DATA, 1, bytes(4)), frames.DATA | RESPONSE, 5),
        (ask(frames.EVENTS, 1, bytes(5)), frames.EVENTS | RESPONSE, 5),
        (ask(frames.READ_STATS, 1, b"\x02\0"), frames.READ_STATS | RESPONSE, 6),
        (ask(frames.READ_MEMBRANES, 1, b"\x0c\0"), frames.READ_MEMBRANES | RESPONSE, 6),
        (ask(frames.READ_EVENTS, 1, bytes(4)), frames.READ_EVENTS | RESPONSE, 6),
        (ask(frames.STACK, 0), frames.STACK | RESPONSE, 7),
        (ask(frames.STACK, 1, session=1), frames.STACK | RESPONSE, 8),
        (ask(frames.HELLO, 1, session=0), frames.HELLO | RESPONSE, 8),
        (ask(frames.HELLO, 1, b"x", 1), frames.HELLO | RESPONSE, 5),  # and the session stays
        (ask(frames.DATA, 1, b"\x01\0\0\0a"), frames.DATA | RESPONSE, 0x11),
        (ask(frames.DATA, 1, b"\xff\xff\xff\xffa"), frames.DATA | RESPONSE, 0x11),
        (ask(frames.INFER, 1), frames.INFER | RESPONSE, 0x14),
        (ask(frames.EVENTS, 1, bytes(4)), frames.EVENTS | RESPONSE, 0x15),
    ],
)
def test_an_error_is_answered_and_the_next_frame_works(
    talk: Talk, data: bytes, op: int, status: int
) -> None:
    replies = talk(data + ask(frames.STACK, 77))
    assert [(r.op, r.status) for r in replies] == [(op, status), (frames.STACK | RESPONSE, 0)]
    assert replies[0].sequence == 0 or op != UNREADABLE
    assert replies[1].payload == struct.pack("<II", 123, 4096)


def test_noise_never_hangs_or_breaks_it(talk: Talk) -> None:
    rng = random.Random(2)
    data = bytearray()
    for i in range(4000):
        size = rng.choice((0, 0, 2, 4, 8, 64, rng.randrange(66)))
        payload = rng.choice((bytes, rng.randbytes))(size)
        session = rng.choice((SESSION, SESSION, SESSION, 0, 1))
        good = Frame(rng.randrange(16), rng.randrange(256), payload, session)
        piece = bytearray(encode_frame(good) if i % 4 else rng.randbytes(rng.randrange(99)))
        for _ in range(rng.choice((0, 0, 1, 2))):
            if piece:
                piece[rng.randrange(len(piece))] = rng.choice((0, 1, 255, rng.randrange(256)))
        data += piece[: rng.randrange(len(piece) + 1)] if rng.randrange(4) == 0 else piece
    probe = ask(frames.HELLO, 200)
    replies = talk(bytes(data) + b"\0" + probe)
    assert replies[-1].sequence == 200 and replies[-1].op == frames.HELLO | RESPONSE
    assert {r.status for r in replies} >= {0, 1, 2, 4, 5, 6, 7, 8, 0x11, 0x14}
