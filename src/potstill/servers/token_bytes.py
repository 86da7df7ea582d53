"""Token bytes: the bytes of each token of a tokenizer, by which a token that a server names as text is found."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from potstill.data.prompts.render import token_ids
from potstill.servers.api import AskedPrompt


class TokenBytes:
    """A tokenizer's tokens and their bytes.

    Args:
        tokenizer: of the family of byte-level BPE, or of SentencePiece's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def vocabulary(self) -> int:
        """The number of ids."""
        return int(max(self._tokenizer.get_vocab().values())) + 1

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without any around it."""
        return token_ids(self._tokenizer, text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens without the special ones, as answers are read."""
        return str(self._tokenizer.decode([*ids], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode_whole(self, ids: Sequence[int]) -> str:
        """The text of tokens with the special ones, as a server reads a prompt."""
        return str(self._tokenizer.decode([*ids], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def question(self, text: str) -> AskedPrompt:
        """A text as the prompt of a user, in the chat template if there is one."""
        if self._tokenizer.chat_template is None:
            return AskedPrompt(self.encode(text))
        messages = ({"role": "user", "content": text},)
        rendered = self._tokenizer.apply_chat_template([*messages], tokenize=False, add_generation_prompt=True)
        return AskedPrompt(self.encode(rendered), messages)

    def of(self, id: int) -> bytes | None:
        """The bytes of a token; None if the tokenizer does not say."""
        return self._bytes.get(id)

    def id_of(self, text: bytes) -> int | None:
        """The only token with these bytes; None if there is no such token, or several."""
        return self._ids.get(text)

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        added = {id: str(token) for id, token in self._tokenizer.added_tokens_decoder.items()}
        vocabulary, read = self._tokenizer.get_vocab(), _reader(self._tokenizer)
        own = {id: found for token, id in vocabulary.items() if id not in added and (found := read(token)) is not None}
        return own | {id: text.encode() for id, text in added.items()}

    @cached_property
    def _ids(self) -> dict[bytes, int | None]:
        found: dict[bytes, int | None] = {}
        for id, text in self._bytes.items():
            # No bytes name no token, and bytes of several tokens name none of them.
            found[text] = None if text in found or not text else id
        return found


def _reader(tokenizer: Any) -> Any:
    """Gives the bytes of a token of the vocabulary, by the kind of decoder; None where they are not known."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
    kinds = json.dumps(decoder)
    if '"ByteLevel"' in kinds:
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        return lambda token: _joined([byte_of.get(character) for character in token])
    if '"ByteFallback"' in kinds or '"Metaspace"' in kinds:
        return _of_sentence_piece
    return lambda token: None


def _joined(bytes_: Sequence[int | None]) -> bytes | None:
    return None if None in bytes_ else bytes(byte for byte in bytes_ if byte is not None)


def _of_sentence_piece(token: str) -> bytes:
    if len(token) == len("<0x00>") and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()
