"""Same tokens: proves that a server's ids stand for the same tokens as the run's, before anything is asked of it."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from potstill.errors import UserError
from potstill.servers.api import KnowsTokens
from potstill.servers.client import Client

IDS_AT_ONCE = 512
"""The number of ids in one question. A row of them fits into any server's length, as text too."""
CHARACTERS_AT_ONCE = 128


class LocalTokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def get_vocab(self) -> dict[str, int]:
        """The id of each token, with added tokens."""

    def decode(self, ids: Sequence[int], **how: Any) -> str:
        """The text of tokens."""

    def encode(self, text: str, **how: Any) -> list[int]:
        """The tokens of a text."""


def check_same_tokens(client: Client, api: KnowsTokens, tokenizer: LocalTokenizer) -> None:
    """Compare the server's tokens with the tokenizer's, over the whole vocabulary.

    The server turns every id of the tokenizer into text. Then it turns texts into ids: the text of every token, and the
    characters of many scripts. The second part tells apart tokens that are parts of a character, which have no text of
    their own.

    Args:
        client: sends the requests.
        api: asks the server.
        tokenizer: the run's own.

    Raises:
        UserError: names the first id, or a text, that differs.
    """
    ids = sorted(tokenizer.get_vocab().values())
    blocks = [ids[at : at + IDS_AT_ONCE] for at in range(0, len(ids), IDS_AT_ONCE)]
    for block, theirs in zip(blocks, client.in_order(api.detokenize, blocks), strict=True):
        if theirs not in _texts(tokenizer, block):
            raise UserError(_differing_id(client, api, tokenizer, block))
    texts = [*dict.fromkeys([*(tokenizer.decode(block, skip_special_tokens=True) for block in blocks), *_scripts()])]
    for text, found in zip(texts, client.in_order(api.tokenize, texts), strict=True):
        ours = [*tokenizer.encode(text, add_special_tokens=False)]
        if found != ours:
            raise UserError(_differing_text(client, text, ours, found))


def _texts(tokenizer: LocalTokenizer, ids: Sequence[int]) -> set[str]:
    """The texts that a server may give for ids: with a tokenizer's own removal of spaces, or without it."""
    return {tokenizer.decode(ids), tokenizer.decode(ids, clean_up_tokenization_spaces=False)}


def _scripts() -> Iterator[str]:
    """Characters of all lengths in UTF-8, so that every byte that text can have occurs."""
    blocks = [range(0x20, 0x800), range(0x800, 0xD800, 61), range(0xE000, 0x110000, 4099)]
    characters = [chr(code) for block in blocks for code in block]
    for at in range(0, len(characters), CHARACTERS_AT_ONCE):
        # Letters between them keep characters from being normalised into one.
        yield "a".join(characters[at : at + CHARACTERS_AT_ONCE])


def _differing_id(client: Client, api: KnowsTokens, tokenizer: LocalTokenizer, block: Sequence[int]) -> str:
    """The message about the first half of a half … of a block that differs."""
    while len(block) > 1:
        half = block[: len(block) // 2]
        block = half if api.detokenize(half) not in _texts(tokenizer, half) else block[len(half) :]
    theirs, here = api.detokenize(block), client.connection
    return (
        f"`teachers.{here.name}.tokenizer`: id {block[0]:,} is {tokenizer.decode(block)!r} there and {theirs!r} at "
        f"{here.url}; name the tokenizer of the server's model"
    )


def _differing_text(client: Client, text: str, ours: Sequence[int], theirs: Sequence[int]) -> str:
    here, at = client.connection, next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
    return (
        f"`teachers.{here.name}.tokenizer` and the tokenizer at {here.url} cut {text[:20]!r} into other tokens: "
        f"number {at} is {[*ours][at : at + 1]} in the one and {[*theirs][at : at + 1]} in the other; name the "
        "tokenizer of the server's model"
    )
