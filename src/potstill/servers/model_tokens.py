"""Model tokens: the tokens of a server's model, by their ids, texts and bytes, as servers name them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from potstill.data.prompts.render import token_ids
from potstill.data.token_bytes import bytes_reader
from potstill.servers.api import AskedPrompt


class ModelTokens:
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
        read = bytes_reader(self._tokenizer)
        own = {} if read is None else {id: read(token) for token, id in self._tokenizer.get_vocab().items()}
        return own | {id: text.encode() for id, text in added.items()}

    @cached_property
    def _ids(self) -> dict[bytes, int | None]:
        found: dict[bytes, int | None] = {}
        for id, text in self._bytes.items():
            # No bytes name no token, and bytes of several tokens name none of them.
            found[text] = None if text in found or not text else id
        return found
