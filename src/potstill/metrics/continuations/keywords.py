"""Keyword match: whether a response contains the right keyword (EM in DistilLLaMA's table)."""

import re
import unicodedata
from collections.abc import Sequence

SEPARATOR = "|"
"""Separates keywords that are equally right."""


def alternatives(keyword: str) -> list[str]:
    """The keywords in a cell of the keyword column; ``4|four`` has two."""
    return [one.strip() for one in keyword.split(SEPARATOR) if one.strip()]


def contains(response: str, keywords: Sequence[str], *, match: str = "word", case: bool = False) -> bool:
    """Whether any of the keywords is in a response.

    With ``match="word"``, a keyword may not begin or end inside another word or number: "Paris" is in "Paris's" and in
    "Paris-based", not in "Parisian"; "4" is in "4.", not in "4.5", "1,400" or "42". ``anywhere`` looks only for the
    characters, as the published metric does.
    """
    text = _plain(response, case)
    for keyword in (_plain(one, case) for one in keywords):
        if match == "anywhere":
            found = keyword in text
        else:
            found = re.search(rf"(?<!\w)(?<!\d[.,]){re.escape(keyword)}(?!\w)(?![.,]\d)", text) is not None
        if found:
            return True
    return False


def _plain(text: str, case: bool) -> str:
    # Each character in one form, and each run of white space as one space: where lines end means nothing.
    one_way = " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())
    return one_way if case else one_way.casefold()
