"""Frames of the serial protocol (docs/FORMAT.md) and what a board says of itself in them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

from edgesnn.targets.errors import EdgesnnError

PROTOCOL_VERSION = 2
API_VERSION = 3  # ESNN_API_VERSION of esnn.h
PAYLOAD_BYTES = 64
SIGNAL_BYTES = 240  # of STREAM_PUSH and STREAM_EVENTS

HELLO, RESET, DATA, EVENTS, INFER, STEP, STEP_NODE, RESULT = range(0x01, 0x09)
READ_EVENTS, READ_STATS, READ_MEMBRANES, STACK = range(0x09, 0x0D)
STREAM_RESET, STREAM_PUSH, STREAM_EVENTS = range(0x0D, 0x10)
RESPONSE, BANNER, FAULT, UNREADABLE = 0x80, 0x80, 0xFE, 0xFF

_STATUS = {
    1: "frame too short, too long or not COBS",
    2: "checksum differs",
    3: "other protocol version",
    4: "unknown operation",
    5: "payload too short or too long",
    6: "no such node, class or event",
    7: "sequence number 0",
    8: "another session",
    0x11: "bad argument",
    0x12: "arena too small",
    0x13: "model generated for another version of the C core",
    0x14: "not possible in this state",
    0x15: "wrong kind of input for this model",
}

_HEADER = struct.Struct("<4B")
_HELLO = struct.Struct("<HBB16sIIIHHHB")
_STREAMS = 0x80  # in HELLO, with the bytes of an output membrane


def status_text(status: int) -> str:
    """A response's status in words."""
    return _STATUS.get(status, f"status {status}")


def unfit(what: str) -> EdgesnnError:
    return EdgesnnError(
        f"the board's answer does not fit the bundle ({what}); "
        "compile the bundle again and flash its firmware"
    )


def unpack(layout: struct.Struct, payload: bytes) -> tuple[Any, ...]:
    """The fields at the front of a payload; EdgesnnError where it is too short for them."""
    if len(payload) < layout.size:
        raise unfit(f"{len(payload)} bytes where {layout.size} are due")
    return layout.unpack_from(payload)


@dataclass(frozen=True)
class Frame:
    """One frame: op has bit 7 set in what a board sends; in requests `status` is the session, 1...255."""

    op: int
    sequence: int
    payload: bytes = b""
    status: int = 0
    version: int = PROTOCOL_VERSION


def encode_frame(frame: Frame) -> bytes:
    """Header, payload and CRC-32 in COBS, with the 0x00 at the end."""
    from cobs import cobs

    body = _HEADER.pack(frame.version, frame.sequence, frame.op, frame.status) + frame.payload
    return bytes(cobs.encode(body + struct.pack("<I", zlib.crc32(body)))) + b"\0"


def decode_frame(data: bytes) -> Frame | None:
    """The frame in what stood between two 0x00; None when it is damaged."""
    from cobs import cobs

    try:
        body = bytes(cobs.decode(data))
    except cobs.DecodeError:
        return None
    if len(body) < _HEADER.size + 4 or zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
        return None
    version, sequence, op, status = _HEADER.unpack_from(body)
    return Frame(op, sequence, body[_HEADER.size : -4], status, version)


@dataclass(frozen=True)
class BoardInfo:
    """What a board says of itself: bytes, Hz, counts."""

    api_version: int
    event_bytes: int
    output_bytes: int
    model_id: bytes
    input_bytes: int
    counter_hz: int
    stack_bytes: int
    nodes: int
    timesteps: int
    classes: int
    session: int  # before this greeting, 0: none since the board's reset
    name: str
    streams: bool = False  # it takes a signal

    @staticmethod
    def parse(payload: bytes) -> BoardInfo:
        api, event, output, *rest = unpack(_HELLO, payload)
        name = payload[_HELLO.size :].decode("utf-8", errors="replace")
        streams = bool(output & _STREAMS)
        return BoardInfo(*(api, event, output & ~_STREAMS, *rest, name, streams))
