"""One name for everything that a package brings, legal in C and in every ecosystem."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LENGTH = 32  # an Arduino folder has at most 63 characters


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

    >>> package_names("mcu-LeNet, 8x8 (v2)").library
    'edgesnn_mcu_lenet_8x8_v2'
    >>> package_names("98").library, package_names("...").library
    ('edgesnn_98', 'edgesnn_model')
    """
    words = re.findall(r"[a-z0-9]+", model.lower())
    return Names("_".join(words)[:_LENGTH].strip("_") or "model")
