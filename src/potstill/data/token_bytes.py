"""Token bytes: the bytes of a text that each token of a tokenizer stands for, and where the tokens of a text end.

Two tokenizers share no ids and no strings, but they read the same bytes. Offsets of characters are not enough: a token
may end within a character. So a token's bytes are those of its tokenizer's own decoder: the table of byte-level BPE
(GPT-2), or the `▁` and the byte tokens `<0xE2>` of sentencepiece. Joined, they are the text. Where they are not, as
with unknown tokens or a normaliser that changes the text, the offsets say which bytes are lost.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from transformers.convert_slow_tokenizer import bytes_to_unicode

from potstill.errors import UserError

SPACE = b" "
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_META = "▁"
_PROBE = "a"
_CONTINUES = 0x80, 0xC0
"""A byte continues a character if its bits under the second number are the first."""


@dataclass(frozen=True)
class TokenEnds:
    """The tokens of a text, and where they end."""

    ids: Int[np.ndarray, "n"]
    ends: Int[np.ndarray, "n"]
    """The number of bytes of the text, in UTF-8, up to each token's end. A token without bytes ends where the one
    before it ends."""
    lost: Bool[np.ndarray, "n"]
    """Whether the token belongs to bytes that the tokens do not give back."""
    lost_bytes: int = 0


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of each token of a tokenizer.

    Args:
        tokenizer: a fast tokenizer of transformers.

    Raises:
        UserError: the tokenizer is of a kind whose tokens have no bytes of their own.
    """

    tokenizer: Any
    name: str
    """Its name in messages."""

    def __post_init__(self) -> None:
        assert self.each, "every vocabulary has a token"

    @cached_property
    def each(self) -> list[bytes]:
        """The bytes of each id. A special token has none."""
        read = bytes_reader(self.tokenizer)
        if read is None:
            kinds = ", ".join(sorted(_decoders(self.tokenizer))) or "no fast tokenizer"
            raise UserError(
                f"{self.name} has a tokenizer whose tokens do not say which bytes they are ({kinds}), so it cannot be "
                "aligned with another; use a model with byte-level BPE or sentencepiece"
            )
        vocabulary = self.tokenizer.get_vocab()
        found = [b""] * (max(vocabulary.values()) + 1)
        for token, number in vocabulary.items():
            found[number] = read(token)
        for number, token in self.tokenizer.added_tokens_decoder.items():
            found[number] = b"" if token.special else token.content.encode()
        for number in self.tokenizer.all_special_ids:
            found[number] = b""
        return found

    @cached_property
    def lengths(self) -> Int[np.ndarray, "V"]:
        """The number of bytes of each id."""
        return np.fromiter(map(len, self.each), np.int64, len(self.each))

    @cached_property
    def begins_word(self) -> Bool[np.ndarray, "V"]:
        """Whether the first byte of an id is a space."""
        return np.fromiter((one[:1] == SPACE for one in self.each), bool, len(self.each))

    @cached_property
    def adds_space(self) -> bool:
        """Whether the tokenizer puts a space before a text that has none."""
        return self.joined(self._encoded([_PROBE])[0]) == SPACE + _PROBE.encode()

    def joined(self, ids: Iterable[int]) -> bytes:
        """The bytes of tokens, one after the other."""
        # Numbers of Python are found three times as fast as those of an array.
        numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return b"".join(map(self.each.__getitem__, numbers))

    def read(self, texts: Sequence[str]) -> list[TokenEnds]:
        """The tokens of each text, without special tokens that are not in it."""
        return [
            self.ends(text, np.asarray(ids, np.int64)) for text, ids in zip(texts, self._encoded(texts), strict=True)
        ]

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def ends(self, text: str, ids: Int[np.ndarray, "n"]) -> TokenEnds:
        """Where the tokens of a text end, which this tokenizer has made of it without special tokens."""
        content, given = text.encode(), self.joined(ids)
        ends = self.lengths[ids].cumsum()
        if not len(ids):
            return TokenEnds(ids, ends, np.zeros(0, bool), len(content))
        if given == content:
            return TokenEnds(ids, ends, np.zeros(len(ids), bool))
        if given == SPACE + content:
            # The space before the first word is the tokenizer's own, and no byte of the text.
            return TokenEnds(ids, np.maximum(ends - 1, 0), np.zeros(len(ids), bool))
        return self._by_offsets(text, ids)

    def _by_offsets(self, text: str, ids: Int[np.ndarray, "n"]) -> TokenEnds:
        """As :meth:`ends`, of tokens that do not give the text back.

        The tokenizer's offsets count characters of the given text. They are whole where a character's last token ends.
        Bytes between two such places are lost if the tokens between them have others.
        """
        encoding = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        assert encoding.ids == ids.tolist()
        content = text.encode()
        of_character = np.fromiter((len(one.encode()) for one in text), np.int64, len(text))
        at = np.concatenate([[0], of_character.cumsum()])
        begins, stops = np.asarray(encoding.offsets, np.int64).reshape(-1, 2).T
        # A character that spans several tokens has all of its offsets in each of them.
        whole = np.append(stops[:-1] <= begins[1:], True) & np.append(stops[:-1] <= stops[1:], True)
        ends, lost, lost_bytes = np.zeros(len(ids), np.int64), np.zeros(len(ids), bool), 0
        first = done = 0
        for last in np.flatnonzero(whole):
            end = int(at[-1] if last == len(ids) - 1 else at[stops[last]])
            part, own = slice(first, last + 1), self.lengths[ids[first : last + 1]].cumsum()
            given, meant = self.joined(ids[part]), content[done:end]
            if given == meant:
                ends[part] = done + own
            elif done == 0 and given == SPACE + meant:
                ends[part] = np.maximum(own - 1, 0)
            else:
                ends[part], lost[part] = end, True
                lost_bytes += end - done
            first, done = int(last) + 1, end
        return TokenEnds(ids, ends, lost, lost_bytes)


def bytes_reader(tokenizer: Any) -> Callable[[str], bytes] | None:
    """What gives the bytes of a token of the vocabulary, by the tokenizer's decoder; None where that is not known."""
    kinds = _decoders(tokenizer)
    if "ByteLevel" in kinds:
        return _of_byte_level
    return _of_sentencepiece if kinds & {"Metaspace", "Replace"} else None


def _decoders(tokenizer: Any) -> set[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {} if backend is None else json.loads(backend.to_str())
    return {one["type"] for one in _parts(content.get("decoder"))}


def readable(content: bytes) -> tuple[int, str]:
    """The text in some bytes that may begin or end within a character, and the number of bytes before it.

    Bytes from the first that is no UTF-8 on are left out.
    """
    before = 0
    pattern, mask = _CONTINUES
    while before < len(content) and content[before] & mask == pattern:
        before += 1
    try:
        return before, content[before:].decode()
    except UnicodeDecodeError as error:
        return before, content[before : before + error.start].decode()


def _parts(decoder: Any) -> Iterator[dict[str, Any]]:
    """The decoders that follow one another, without those that replace nothing of sentencepiece's."""
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for one in decoder["decoders"]:
            yield from _parts(one)
    elif decoder["type"] != "Replace" or decoder["pattern"] == {"String": _META}:
        yield decoder


_BYTES = {character: number for number, character in bytes_to_unicode().items()}


def _of_byte_level(token: str) -> bytes:
    # A token with other characters was added by hand, and stands for itself.
    own = [_BYTES.get(character) for character in token]
    return token.encode() if None in own else bytes(own)  # type: ignore[arg-type]


def _of_sentencepiece(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_META, " ").encode()
