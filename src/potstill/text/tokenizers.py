"""Tokenizers: telling one from another, and refusing to compare models whose tokens are not the same."""

import hashlib
import json
from typing import Any

from potstill.words import UserError


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """The SHA-256 of everything that decides how text becomes ids: the whole fast tokenizer, or else its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        # How it last cut and padded is kept in a tokenizer, and is no part of it.
        content |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same_tokens(ours: Any, theirs: Any, our_name: str, their_name: str) -> None:
    """Refuse two tokenizers that do not give every id the same string.

    Raises:
        UserError: naming both, and the first token in which they differ.
    """
    one, other = ours.get_vocab(), theirs.get_vocab()
    if one == other:
        return
    token = min(one.items() ^ other.items(), key=lambda item: item[1])[0]
    raise UserError(
        f"{our_name} and {their_name} have different tokenizers ({len(one):,} and {len(other):,} tokens; {token!r} is "
        f"{one.get(token)} in the one and {other.get(token)} in the other); use models of one tokenizer"
    )
