"""Styles: the ways in which a population keeps its membranes and adds weights to them.

What a style needs of the core, how it packs weights in flash and membranes in memory. All give the same
integers; which one a layer gets is chosen in choose.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """lanes: channels are padded to a multiple of it. weight: dtype of a table's word, which holds the weights
    of `outputs_per_word` outputs. order: of the weights within `lanes` outputs. biased: every even membrane is
    stored with its top bit flipped. micro: compiler/micro/esnn_<name>.h has its kernels; else a loop in TIR.
    """

    name: str
    micro: bool = False
    lanes: int = 1
    weight: str = "int8"
    outputs_per_word: int = 1
    order: tuple[int, ...] = ()
    biased: bool = False


PLAIN = Style("plain")
# SXTAB16 adds bytes 0 and 2 of a word to two halfwords, with a rotation by 8 bytes 1 and 3.
DSP = Style("dsp", micro=True, lanes=4, order=(0, 2, 1, 3))
# Two membranes in a word as hi * 65536 + (lo + 32768), the weights as hi * 65536 + lo: one addition adds both.
PAIRS = Style("pairs", micro=True, lanes=4, weight="uint32", outputs_per_word=2, biased=True)
MVE = Style("mve", micro=True, lanes=8)

STYLES = {style.name: style for style in (PLAIN, DSP, PAIRS, MVE)}
