"""Carry over a vocabulary: give a trained model embeddings and head for the tokens of another tokenizer."""

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
"""Many tokenizers have one token for both the end of a text and the beginning of the next."""


@dataclass(frozen=True)
class CarriedTokens:
    """How many tokens of the new vocabulary got their rows in each way."""

    carried: int
    """Tokens whose string, or whose role as a special token, the old vocabulary also has."""
    composed: int
    """Tokens with the mean row of the old tokens that spell their string."""
    unknown: int
    """Tokens with the mean row of all old tokens, because the old tokenizer cannot spell them."""


def keep_first_tokens(model: PreTrainedModel, tokens: int) -> None:
    """Cut embeddings and head to their first rows, and adapt the configuration."""
    model.resize_token_embeddings(tokens)


@torch.no_grad()
def carry_over(model: PreTrainedModel, theirs: Any, ours: Any, key: str) -> CarriedTokens:
    """Give a model the vocabulary of another tokenizer, in place.

    A token that both tokenizers have keeps its row. Any other token starts with the mean row of the tokens into which
    the old tokenizer splits its string (Fast Vocabulary Transfer, arXiv:2402.09977, section 3). Head rows and biases
    are treated like embeddings, and a tied head stays tied. Strings are compared as bytes, so that tokenizers with
    different spellings can share tokens.

    Args:
        model: changed in place: rows [V, H] become [V', H], with V' ids of the new tokenizer.
        theirs: the tokenizer that the model was trained with.
        ours: the new tokenizer.
        key: the recipe's key, for messages.

    Raises:
        UserError: one of the two tokenizers spells its tokens in an unknown way.
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
    """For each source, the mean of its rows, [V', H]; for an empty source, the mean of all tokens' rows."""
    flat = torch.tensor([number for each in sources for number in each])
    ends = torch.tensor([len(each) for each in sources]).cumsum(0)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
    found = F.embedding_bag(flat, rows, starts, mode="mean")
    found[ends == starts] = rows[:tokens].mean(0)
    return found


def _sources(old: "_Spelling", new: "_Spelling") -> tuple[list[list[int]], CarriedTokens]:
    """For each new id, the old ids whose rows it averages."""
    # If two old tokens have the same bytes (a byte token and a character, a merge and an added token), text becomes the
    # token with the higher id, which the dictionary keeps.
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
    """New and old id of each special token of the new tokenizer; if it has several roles, the last one counts."""
    for role in reversed(ROLES):
        number = getattr(ours, f"{role}_id")
        others = [getattr(theirs, f"{name}_id") for name in (role, STANDS_IN.get(role, role))]
        other = next((each for each in others if each is not None), None)
        if number is not None and other is not None:
            yield number, other


@dataclass(frozen=True)
class _Spelling:
    """The way in which a tokenizer writes the bytes of its tokens."""

    tokenizer: Any
    of_bytes: bool
    """True: one character per byte, as in GPT-2. False: as in sentencepiece, ▁ for a space and <0x41> for a byte."""

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
            f"{getattr(tokenizer, 'name_or_path', '') or 'one of the two'} is neither; use another `student.start`"
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
        """The ids into which the tokenizer's own model splits the bytes; empty if it cannot spell them."""
        model, unknown = self.tokenizer.backend_tokenizer.model, self.tokenizer.unk_token_id
        if self.of_bytes:
            piece = "".join(CHARACTERS[byte] for byte in text)
        else:
            try:
                piece = text.decode().replace(" ", "▁")
            except UnicodeDecodeError:
                # These bytes are a part of a character.
                found = (model.token_to_id(f"<0x{byte:02X}>") for byte in text)
                return [number for number in found if number is not None]
        return [token.id for token in model.tokenize(piece) if token.id != unknown]

    def _read(self, token: str) -> bytes:
        if self.of_bytes:
            # A token that does not spell bytes stands for its own characters.
            return bytes(BYTES[one] for one in token) if BYTES.keys() >= set(token) else token.encode()
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()


def _characters() -> list[str]:
    """The character for each byte as in GPT-2: itself if it is printable, or else a character from 256 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


CHARACTERS = _characters()
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}
