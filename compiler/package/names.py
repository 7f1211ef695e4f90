"""One name for everything that a package brings, legal in C and in every ecosystem."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from hashlib import sha256

_LENGTH = 32  # an Arduino folder has at most 63 characters
_DIGITS = 6  # of a hash


@dataclass(frozen=True)
class Names:
    """model: letters a-z, digits and underscores, as in a target `edgesnn::model`.

    library: of the library, its header, its Arduino folder and its Zephyr module, and before every symbol that
    the model brings, so that two models can live in one program. macro: the same before its macros.
    """

    model: str

    @property
    def library(self) -> str:
        return f"edgesnn_{self.model}"

    @property
    def macro(self) -> str:
        return self.library.upper()


def package_names(model: str) -> Names:
    """Names from what the user calls the model.

    Capitals, accents and what is between the words are given up. A name that is too long or in another script
    ends in digits of its hash: two of a kind stay two.

    >>> package_names("mcu-LeNet, 8x8 (v2)").library
    'edgesnn_mcu_lenet_8x8_v2'
    >>> package_names("98").library, package_names("数字").library
    ('edgesnn_98', 'edgesnn_model_c16ec9')
    """
    whole = unicodedata.normalize("NFKD", model)
    plain = "".join(c for c in whole.casefold() if not unicodedata.combining(c))
    name = "_".join(re.findall(r"[a-z0-9]+", plain))
    if name and plain.isascii() and len(name) <= _LENGTH:
        return Names(name)
    digits = sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return Names(f"{name[: _LENGTH - _DIGITS - 1].strip('_') or 'model'}_{digits}")
