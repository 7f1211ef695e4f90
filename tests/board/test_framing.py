"""Frames on the host's side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesnn.runtime import frames
from edgesnn.runtime.frames import PAYLOAD_BYTES, Frame, decode_frame, encode_frame

byte = st.integers(0, 255)
any_frame = st.builds(Frame, byte, byte, st.binary(max_size=PAYLOAD_BYTES), byte, byte)


@given(any_frame)
def test_round_trip(frame: Frame) -> None:
    data = encode_frame(frame)
    assert data.index(0) == len(data) - 1 <= 73
    assert decode_frame(data[:-1]) == frame


@given(any_frame, st.integers(0, 72), st.integers(1, 255))
def test_one_altered_byte_is_seen(frame: Frame, where: int, change: int) -> None:
    data = bytearray(encode_frame(frame)[:-1])
    data[where % len(data)] ^= change
    # A frame ends at a 0x00, so an altered byte that becomes one cuts the frame short.
    assert all(decode_frame(part) is None for part in bytes(data).split(b"\0"))


@given(st.binary(max_size=100))
def test_noise_is_no_frame(noise: bytes) -> None:
    frame = decode_frame(noise)
    assert frame is None or encode_frame(frame)[:-1] == noise


EXAMPLES = {
    "09 02 01 01 07 42 d9 f0 0d 00": Frame(frames.HELLO, 1, b"", 7),
    "05 02 03 03 07 01 01 01 01 07 ff 10 e4 6b 07 65 00": Frame(
        frames.DATA, 3, bytes([0, 0, 0, 0, 0x00, 0xFF, 0x10]), 7
    ),
    "04 02 03 83 05 46 62 a5 99 00": Frame(frames.DATA | frames.RESPONSE, 3),
    "09 02 02 05 07 1f a2 da 6b 00": Frame(frames.INFER, 2, b"", 7),
    "09 02 02 85 14 8a 7b e7 d4 00": Frame(frames.INFER | frames.RESPONSE, 2, status=0x14),
    "09 02 03 05 08 b9 d5 a7 fa 00": Frame(frames.INFER, 3, b"", 8),
    "0a 02 03 85 08 07 53 cd 14 1f 00": Frame(frames.INFER | frames.RESPONSE, 3, b"\x07", 8),
    "02 02 07 ff 02 c9 8b 67 f6 00": Frame(frames.UNREADABLE, 0, status=2),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_format_document(text: str) -> None:
    assert encode_frame(EXAMPLES[text]).hex(" ") == text
    document = Path(__file__).parents[2] / "docs" / "FORMAT.md"
    if document.is_file():
        assert text in document.read_text()
