"""Frames on the host's side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesnn.runtime import link
from edgesnn.runtime.link import PAYLOAD_BYTES, Frame, decode_frame, encode_frame

byte = st.integers(0, 255)
frames = st.builds(Frame, byte, byte, st.binary(max_size=PAYLOAD_BYTES), byte, byte)


@given(frames)
def test_round_trip(frame: Frame) -> None:
    data = encode_frame(frame)
    assert data.index(0) == len(data) - 1 <= 73
    assert decode_frame(data[:-1]) == frame


@given(frames, st.integers(0, 72), st.integers(1, 255))
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
    "04 01 01 01 05 0f e3 21 81 00": Frame(link.HELLO, 1),
    "04 01 03 03 01 01 01 01 01 07 ff 10 fc 04 20 f6 00": Frame(
        link.DATA, 3, bytes([0, 0, 0, 0, 0x00, 0xFF, 0x10])
    ),
    "04 01 03 83 05 a8 cd 10 8b 00": Frame(link.DATA | link.RESPONSE, 3),
    "04 01 02 05 05 52 98 0b e7 00": Frame(link.INFER, 2),
    "09 01 02 85 14 64 d4 52 c6 00": Frame(link.INFER | link.RESPONSE, 2, status=0x14),
    "02 01 07 ff 02 27 24 d2 e4 00": Frame(link.UNREADABLE, 0, status=2),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_format_document(text: str) -> None:
    assert encode_frame(EXAMPLES[text]).hex(" ") == text
    document = Path(__file__).parents[2] / "docs" / "FORMAT.md"
    if document.is_file():
        assert text in document.read_text()
