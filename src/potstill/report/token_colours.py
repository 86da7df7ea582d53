"""Colours of tokens: how far two models are apart at each token of a text, and signs for what nobody can see."""

from collections.abc import Iterable
from typing import Any


def full_colour(found: Iterable[float | None]) -> float:
    """The KL with the full colour: the 95th percentile, so that one extreme token does not make all others pale."""
    known = sorted(kl for kl in found if kl is not None)
    return max(known[int(0.95 * (len(known) - 1))], 0.1) if known else 1.0


def coloured(text: str, kl: float | None, most: float) -> dict[str, Any]:
    """A token as the page draws it: the text `shown`, whether it is `blank`, and its `heat` in percent.

    Args:
        kl: in nats; None if nothing predicts the token.
        most: the KL with the full colour.
    """
    heat = None if kl is None else round(100 * min(1.0, max(0.0, kl) / most))
    return {"shown": _visible(text), "blank": not text.strip(), "heat": heat}


def _visible(text: str) -> str:
    """The text with visible signs for line ends and tabs, and for a token of nothing but spaces."""
    if text.strip(" "):
        return text.replace("\r", "␍").replace("\n", "↵\n").replace("\t", "⇥\t")
    return text if text == " " else "␣" * len(text)
