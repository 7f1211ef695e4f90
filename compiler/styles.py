"""Styles: the ways in which a population keeps its membranes and adds weights to them.

What a style needs of the core, how it packs weights in flash and membranes in memory. All give the same
integers; which one a layer gets is chosen in choose.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Style:
    """lanes: channels are padded to a multiple of it. weight: dtype of a table's word, which holds the weights
    of `outputs_per_word` outputs. order: of the weights within `lanes` outputs. biased: every even membrane is
    stored with its top bit flipped. micro: compiler/micro/esnn_<name>.h has its kernels; else a loop in TIR.
    offset: what is added to a weight in the table; offset6 where all weights lie in -32...31. four: there are
    kernels for four events at once, four6: also for such small weights. held: events that a dense kernel
    takes at once, membranes in registers. fire: whose comparison it uses.
    """

    name: str
    micro: bool = False
    lanes: int = 1
    weight: str = "int8"
    outputs_per_word: int = 1
    order: tuple[int, ...] = ()
    biased: bool = False
    offset: int = 0
    offset6: int = 0
    four: bool = False
    four6: bool = False
    held: int = 0
    fire: str = ""


PLAIN = Style("plain")
# SXTAB16 adds bytes 0 and 2 of a word to two halfwords, with a rotation by 8 bytes 1 and 3.
DSP = Style("dsp", micro=True, lanes=4, order=(0, 2, 1, 3), four=True, four6=True, fire="dsp")
# Two membranes in a word as hi * 65536 + (lo + 32768), the weights as hi * 65536 + lo: one addition adds both.
PAIRS = Style(
    "pairs", micro=True, lanes=4, weight="uint32", outputs_per_word=2, biased=True, fire="pairs"
)
# Such membranes, and weights in bytes that masks widen.
BYTES = Style(
    "bytes",
    micro=True,
    lanes=4,
    weight="uint8",
    order=(0, 2, 1, 3),
    biased=True,
    offset=128,
    offset6=32,
    four=True,
    four6=True,
    fire="pairs",
)
MVE = Style("mve", micro=True, lanes=8, four=True, held=32, fire="mve")

STYLES = {style.name: style for style in (PLAIN, DSP, PAIRS, BYTES, MVE)}


def small(weights: np.ndarray) -> bool:
    """Whether four weights of a table add up in a byte: all lie in -32...31."""
    return bool(weights.size) and int(weights.min()) >= -32 and int(weights.max()) <= 31
