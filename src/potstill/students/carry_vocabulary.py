"""Another vocabulary for a model that knows one: embeddings and head with a row for each token of another tokenizer."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from potstill.errors import UserError

ROLES = ("eos_token", "bos_token", "pad_token", "unk_token")
STANDS_IN = {"eos_token": "bos_token", "bos_token": "eos_token"}
"""Many tokenizers have one token for the end of a text and the beginning of the next."""


@dataclass(frozen=True)
class CarriedTokens:
    """Where the rows of a new vocabulary came from, in tokens."""

    carried: int
    """The old vocabulary has the same string, or a special token of the same role."""
    composed: int
    """The mean of the old tokens that their strings are made of."""
    unknown: int
    """The mean of all old tokens: the old tokenizer cannot spell them."""


def keep_first_tokens(model: PreTrainedModel, tokens: int) -> None:
    """Cut embeddings and head to their first rows; the configuration says so too."""
    model.resize_token_embeddings(tokens)


@torch.no_grad()
def carry_over(model: PreTrainedModel, theirs: Any, ours: Any, key: str) -> CarriedTokens:
    """Give a model the vocabulary of another tokenizer, in place.

    A token that both have keeps its row. Any other starts as the mean of the rows of the tokens that the old tokenizer
    makes of its string (Fast Vocabulary Transfer, arXiv:2402.09977, section 3). Head rows and biases are treated as
    embeddings are, and a head that is the embeddings stays that. Strings are compared as bytes, so that tokenizers that
    spell them differently share what they share.

    Args:
        model: it is changed: rows [V, H] become [V', H], V' the new tokenizer's ids.
        theirs: the tokenizer that the model was trained with.
        ours: the new one.
        key: what asks for it in the recipe, for messages.

    Raises:
        UserError: one of the two spells its tokens in a way that is not known here.
    """
    old, new = (_Spelling.of(tokenizer, key) for tokenizer in (theirs, ours))
    sources, carried = _sources(old, new)
    before, head = model.get_input_embeddings().weight.clone(), model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    head_before, bias = head.weight.clone(), getattr(head, "bias", None)
    model.resize_token_embeddings(len(sources), mean_resizing=False)
    model.get_input_embeddings().weight.copy_(_means(before, sources, old.size))
    head = model.get_output_embeddings()
    if not tied:
        head.weight.copy_(_means(head_before, sources, old.size))
    if bias is not None:
        head.bias.copy_(_means(bias[:, None], sources, old.size)[:, 0])
    for config in (model.config.get_text_config(), model.generation_config):
        for role in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, role, getattr(ours, role))
    model.get_input_embeddings().padding_idx = ours.pad_token_id
    return carried


def _means(rows: Tensor, sources: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """The mean of some of the rows for each of the sources, [V', H]; where there are none, that of all tokens."""
    flat = torch.tensor([number for each in sources for number in each])
    ends = torch.tensor([len(each) for each in sources]).cumsum(0)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
    found = F.embedding_bag(flat, rows, starts, mode="mean")
    found[ends == starts] = rows[:tokens].mean(0)
    return found


def _sources(old: "_Spelling", new: "_Spelling") -> tuple[list[list[int]], CarriedTokens]:
    """The old ids of which each new one is the mean."""
    # Of a byte and the character that is that byte, or a merge and a token that was added, text becomes the latter.
    by_bytes = {text: number for number, text in sorted(old.texts())}
    roles = dict(_roles(old.tokenizer, new.tokenizer))
    sources: list[list[int]] = [[] for _ in range(new.size)]
    carried = composed = 0
    for number, text in new.texts():
        same = roles.get(number, by_bytes.get(text))
        sources[number] = old.spelled(text) if same is None else [same]
        carried += same is not None
        composed += same is None and bool(sources[number])
    return sources, CarriedTokens(carried, composed, new.size - carried - composed)


def _roles(theirs: Any, ours: Any) -> Iterator[tuple[int, int]]:
    """New and old id of each special token that the new tokenizer has; of one with several roles, the last counts."""
    for role in reversed(ROLES):
        number = getattr(ours, f"{role}_id")
        others = [getattr(theirs, f"{name}_id") for name in (role, STANDS_IN.get(role, role))]
        other = next((each for each in others if each is not None), None)
        if number is not None and other is not None:
            yield number, other


@dataclass(frozen=True)
class _Spelling:
    """How a tokenizer writes the bytes of its tokens."""

    tokenizer: Any
    of_bytes: bool
    """A character for each byte, as in GPT-2; otherwise as in sentencepiece: ▁ for a space, <0x41> for a byte."""

    @classmethod
    def of(cls, tokenizer: Any, key: str) -> "_Spelling":
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.dumps(json.loads(backend.to_str())["decoder"], ensure_ascii=False) if backend else ""
        if '"ByteLevel"' in decoder:
            return cls(tokenizer, of_bytes=True)
        if "▁" in decoder:
            return cls(tokenizer, of_bytes=False)
        raise UserError(
            f"`{key}` carries tokens over between byte-level and sentencepiece tokenizers, and "
            f"{getattr(tokenizer, 'name_or_path', '') or 'one of the two'} is neither; start otherwise"
        )

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.tokenizer.get_vocab().values()) + 1

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """Every id with the bytes of its token."""
        added = {number: str(token) for number, token in self.tokenizer.added_tokens_decoder.items()}
        for token, number in self.tokenizer.get_vocab().items():
            yield number, added[number].encode() if number in added else self._read(token)

    def spelled(self, text: bytes) -> list[int]:
        """The ids that the tokenizer's own model makes of bytes; none where it has none for them."""
        model, unknown = self.tokenizer.backend_tokenizer.model, self.tokenizer.unk_token_id
        if self.of_bytes:
            piece = "".join(CHARACTERS[byte] for byte in text)
        else:
            try:
                piece = text.decode().replace(" ", "▁")
            except UnicodeDecodeError:
                # A part of a character.
                found = (model.token_to_id(f"<0x{byte:02X}>") for byte in text)
                return [number for number in found if number is not None]
        return [token.id for token in model.tokenize(piece) if token.id != unknown]

    def _read(self, token: str) -> bytes:
        if self.of_bytes:
            # What is no spelling of bytes, is there by its own characters.
            return bytes(BYTES[one] for one in token) if BYTES.keys() >= set(token) else token.encode()
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()


def _characters() -> list[str]:
    """The character that stands for each byte: itself if it can be seen, or else one of those from 256 on (GPT-2)."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


CHARACTERS = _characters()
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}
