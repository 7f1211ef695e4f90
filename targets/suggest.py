"""What somebody may have meant by a name that is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """An insertion "; did you mean NAME?" for a message, empty where no name is close.

    prefix: written before the name, not compared.
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
