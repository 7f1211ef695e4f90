"""A bundle's C for a package: the same code under the model's own names, for no other core than its own."""

from __future__ import annotations

import re
from pathlib import Path

from edgesnn.compiler.package.names import Names
from edgesnn.targets.target import Target

# Of the C core, the same for every model: what the others of a program's models share.
CORE_PARTS = ("esnn", "esnn_stream", "esnn_log_mel")
_HOST_ONLY = ("esnn_host.c", "esnn_host_stream.c")
_KERNEL = re.compile(r"^\w+ (esnn_(\w+))\(", re.MULTILINE)

_CHECK = """\
/* {model} was compiled for {target}. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "{library} is for little-endian processors"
#endif
#if !defined(__SIZEOF_INT__) || __SIZEOF_INT__ < 4
#error "{library} needs GCC or Clang for a processor of 32 bits or more"
#endif
"""
_CORE_CHECK = """\
#if !defined({feature}) && !defined(EDGESNN_ANY_CORE)
#error "{library} was compiled for {target} and its {what}; compile the model for this core \
(edgesnn compile --target), or define EDGESNN_ANY_CORE to get the same answers slowly"
#endif
"""

# Arduino compiles everything for size, and a library has no say: 17 % more instructions on a Cortex-M4.
_OPTIMISE = """\
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "unroll-loops")
#endif
"""


def package_sources(
    source: Path, names: Names, target: Target, *, optimise: bool
) -> dict[str, str]:
    """Path in src/ -> text: `<library>.h`, all that a user includes, and the rest in the folder `<library>`.

    source: src/ of a bundle. Every symbol that the model brings gets the library's name, so that several models
    link into one program; the C core keeps its own, and one copy of it serves them all. optimise: the kernels
    ask for it themselves.
    """
    texts = {
        p.name: p.read_text(encoding="utf-8")
        for p in sorted(source.iterdir())
        if p.name not in _HOST_ONLY
    }
    own = {
        "esnn_model_data": f"{names.library}_model",
        "esnn_stream_data": f"{names.library}_stream",
    }
    own |= {whole: f"{names.library}_{rest}" for whole, rest in _KERNEL.findall(texts["kernels.h"])}
    symbol = re.compile(rf"\b(?:{'|'.join(own)})\b")
    for name in ("kernels.c", "kernels.h", "model.c", "model.h", "model_stream.c"):
        if name in texts:
            text = symbol.sub(lambda m: own[m[0]], texts[name])
            text = re.sub(r"\bESNN_MODEL_", f"{names.macro}_", text)
            texts[name] = text.replace("ESNN_KERNELS_H", f"{names.macro}_KERNELS_H")
    head, body = texts["kernels.c"].split("\n", 1)
    asked = _OPTIMISE if optimise else ""
    texts["kernels.c"] = f"{head}\n{core_check(names, target)}{asked}{body}"
    public = f'/* {names.library}: include this. */\n#include "{names.library}/model.h"\n'
    return {f"{names.library}.h": public, **{f"{names.library}/{n}": t for n, t in texts.items()}}


def core_check(names: Names, target: Target) -> str:
    """C text that ends the compilation for a core that the kernels are not for."""
    words = {"model": names.model, "library": names.library, "target": target.name}
    text = _CHECK.format(**words)
    if target.mve:
        text += _CORE_CHECK.format(feature="__ARM_FEATURE_MVE", what="MVE instructions", **words)
    elif target.dsp:
        text += _CORE_CHECK.format(feature="__ARM_FEATURE_DSP", what="DSP instructions", **words)
    return text
