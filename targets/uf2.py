"""UF2, the file format of boards that appear as a drive: 512-byte blocks that each say where they belong.

Specification: https://github.com/microsoft/uf2. A block is eight little-endian words (two magic numbers, flags,
target address, payload bytes, block number, number of blocks, family id), 476 bytes that begin with the
payload, and a last magic number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgesnn.targets.errors import EdgesnnError

BLOCK_BYTES = 512
PAYLOAD_BYTES = 256  # every boot loader takes this size, at addresses that are multiples of it
FAMILY_PRESENT = 0x2000  # flag: the last word of the header is a family id
_NOT_MAIN_FLASH = 0x0001
_MOST_BYTES = 2**26  # from the first block to the last; more is no image of one chip's flash
_MAGIC_1, _MAGIC_2, _MAGIC_END = 0x0A324655, 0x9E5D5157, 0x0AB16F30
_BLOCK = struct.Struct("<8I476sI")


@dataclass(frozen=True)
class Image:
    """What a UF2 file holds: `data` from address `origin` on, for chips of `family` (None: not stated)."""

    origin: int
    data: bytes
    family: int | None


def write_uf2(data: bytes, origin: int, family: int) -> bytes:
    """A UF2 file of `data` at address `origin`; the last block is filled up with 0xFF.

    EdgesnnError where `origin` is no multiple of 256: the block would erase what lies before it.
    """
    if not data or origin % PAYLOAD_BYTES or origin + len(data) > 2**32:
        raise EdgesnnError(
            f"no UF2 file of {len(data)} bytes at 0x{origin:08x}: it takes at least one byte, at a multiple "
            f"of {PAYLOAD_BYTES}, within 32-bit addresses; see [memory.flash] of the board's file"
        )
    count = -(-len(data) // PAYLOAD_BYTES)
    padded = data.ljust(count * PAYLOAD_BYTES, b"\xff")
    blocks = []
    for number in range(count):
        at = number * PAYLOAD_BYTES
        head = (
            _MAGIC_1,
            _MAGIC_2,
            FAMILY_PRESENT,
            origin + at,
            PAYLOAD_BYTES,
            number,
            count,
            family,
        )
        blocks.append(_BLOCK.pack(*head, padded[at : at + PAYLOAD_BYTES], _MAGIC_END))
    return b"".join(blocks)


def read_uf2(file: bytes) -> Image:
    """What a UF2 file writes into flash, gaps as 0xFF. EdgesnnError where a block is not sound."""
    if not file or len(file) % BLOCK_BYTES:
        raise EdgesnnError(
            f"not a UF2 file: {len(file)} bytes are no whole number of 512-byte blocks"
        )
    parts: dict[int, bytes] = {}
    families: set[int | None] = set()
    count = len(file) // BLOCK_BYTES
    for number in range(count):
        first, second, flags, address, size, block, blocks, family, data, last = _BLOCK.unpack_from(
            file, number * BLOCK_BYTES
        )
        if (first, second, last) != (_MAGIC_1, _MAGIC_2, _MAGIC_END):
            raise EdgesnnError(f"not a UF2 file: block {number} lacks its magic numbers")
        if size > len(data) or (block, blocks) != (number, count) or address in parts:
            raise EdgesnnError(f"damaged UF2 file: block {number} does not fit in with the others")
        if not flags & _NOT_MAIN_FLASH:
            parts[address] = data[:size]
            families.add(family if flags & FAMILY_PRESENT else None)
    if len(families) != 1:
        raise EdgesnnError("the UF2 file is not for exactly one family of chips")
    origin = min(parts)
    out = bytearray()
    for address in sorted(parts):
        if address < origin + len(out) or address - origin >= _MOST_BYTES:
            raise EdgesnnError(
                f"damaged UF2 file: block at 0x{address:08x} overlaps or lies far off"
            )
        out += b"\xff" * (address - origin - len(out)) + parts[address]
    return Image(origin, bytes(out), families.pop())
