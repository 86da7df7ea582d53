"""The messages between `potstill serve` and its clients: the facts of a teacher, a request, and an answer.

A request is a safetensors file with the rows one after the other: ``ids`` Int32[tokens], ``lengths`` Int32[rows] and
``supervised`` UInt8[tokens], 1 for each token whose prediction is asked. An answer is one with ``hidden`` [N, H], the
hidden state before each of these N tokens, in their order and in the teacher's own number format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int32
from safetensors import SafetensorError
from safetensors.numpy import load, save
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

FORMAT = 1
"""Of all messages. A server and a client with different numbers do not understand each other."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""The files of a tokenizer that a server gives. A client writes no others."""

_TYPES = {"ids": np.int32, "lengths": np.int32, "supervised": np.uint8}


class RequestError(ValueError):
    """A request that cannot be answered; its message is a sentence for whoever sent it."""


@dataclass(frozen=True)
class HeadFacts:
    """The part of a head that is no matrix."""

    fingerprint: str
    """The digest of the matrices' bytes."""
    scale: float
    softcap: float | None


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher that is served: all that identifies it."""

    model: str
    fingerprint: str
    """Identifies the weights as they run."""
    tokenizer: str
    """The fingerprint of the tokenizer."""
    vocabulary: int
    """The number of ids that the teacher reads and predicts."""
    hidden_size: int
    dtype: str
    """The number format of the hidden states, as torch names it."""
    longest: int | None
    """The most tokens of a row; None: no limit but that of a request."""
    head: HeadFacts


@dataclass(frozen=True)
class HostFacts:
    """What `potstill serve` says of itself and of its teacher."""

    format: int
    version: str
    """Of potstill."""
    most_tokens: int
    """The most tokens of a request, with the pads that make its rows equally long."""
    teacher: TeacherFacts


@dataclass(frozen=True, eq=False)
class HiddenRequest:
    """Rows of tokens, and which of the tokens' predictions are asked."""

    ids: Int32[np.ndarray, "tokens"]
    lengths: Int32[np.ndarray, "rows"]
    supervised: Bool[np.ndarray, "tokens"]

    @classmethod
    def of_rows(
        cls, ids: Sequence[Int32[np.ndarray, "T"]], supervised: Sequence[Bool[np.ndarray, "T"]]
    ) -> "HiddenRequest":
        """A request for rows; ``supervised[row][0]`` is False, because no token precedes it."""
        return cls(np.concatenate(ids), np.array([len(row) for row in ids], np.int32), np.concatenate(supervised))

    @classmethod
    def from_bytes(cls, body: bytes) -> "HiddenRequest":
        """Read a request's body.

        Raises:
            RequestError: it is no safetensors file, has other tensors, or its rows do not fit together.
        """
        try:
            found = load(body)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise RequestError("the body is no safetensors file that can be read; send one") from error
        for name, kind in _TYPES.items():
            if name not in found or found[name].dtype != kind or found[name].ndim != 1:
                raise RequestError(f"`{name}` must be a tensor of one dimension and of {np.dtype(kind).name}")
        if extra := found.keys() - _TYPES:
            raise RequestError(f"`{min(extra)}` is no tensor of a request; leave it out")
        return cls(found["ids"], found["lengths"], _as_mask(found["supervised"]))._checked()

    def to_bytes(self) -> bytes:
        """The request's body."""
        tensors = {"ids": self.ids, "lengths": self.lengths, "supervised": self.supervised.view(np.uint8)}
        return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})

    @cached_property
    def ends(self) -> list[int]:
        """Where each row ends in ``ids``."""
        return [int(end) for end in self.lengths.astype(np.int64).cumsum()]

    @cached_property
    def longest(self) -> int:
        """The tokens of the longest row."""
        return int(self.lengths.max())

    @property
    def padded_tokens(self) -> int:
        """The number of tokens with the pads that make the rows equally long."""
        return len(self.lengths) * self.longest

    @cached_property
    def asked(self) -> int:
        """The number of hidden states that are asked."""
        return int(self.supervised.sum())

    def check(self, facts: HostFacts) -> None:
        """Refuse what this server's teacher cannot read.

        Raises:
            RequestError: a row is too long, the request is too large, or the teacher has no such token.
        """
        teacher = facts.teacher
        if teacher.longest is not None and self.longest > teacher.longest:
            raise RequestError(
                f"a row has {self.longest:,} tokens, and the teacher reads at most {teacher.longest:,}; cut it"
            )
        if self.padded_tokens > facts.most_tokens:
            raise RequestError(
                f"the request has {self.padded_tokens:,} tokens with pads, and this server takes {facts.most_tokens:,} "
                "at once (`potstill serve --batch-tokens`); send fewer rows"
            )
        if self.ids.min() < 0 or self.ids.max() >= teacher.vocabulary:
            wrong = self.ids[(self.ids < 0) | (self.ids >= teacher.vocabulary)][0]
            raise RequestError(f"the teacher has no token {wrong}; its tokens are 0 to {teacher.vocabulary - 1:,}")

    def _checked(self) -> "HiddenRequest":
        if not len(self.lengths) or self.lengths.min() < 1:
            raise RequestError("`lengths` must name at least one row, and each row must have at least one token")
        if not self.ends[-1] == len(self.ids) == len(self.supervised):
            raise RequestError(
                f"`lengths` has {self.ends[-1]:,} tokens in all, `ids` {len(self.ids):,} and `supervised` "
                f"{len(self.supervised):,}; they must agree"
            )
        if self.supervised[[0, *self.ends[:-1]]].any():
            raise RequestError("`supervised` asks for the first token of a row, which no token precedes")
        if not self.asked:
            raise RequestError("`supervised` asks for no token")
        return self


def _as_mask(values: np.ndarray) -> Bool[np.ndarray, "tokens"]:
    if len(values) and values.max() > 1:
        raise RequestError("`supervised` must hold 0 and 1 only")
    return values.astype(bool)


def answer_bytes(hidden: Float[Tensor, "N H"]) -> bytes:
    """The body of an answer."""
    return save_tensors({"hidden": hidden.contiguous()})


def hidden_of_answer(body: bytes) -> Float[Tensor, "N H"]:
    """The hidden states of an answer.

    Raises:
        ValueError: it is no answer.
    """
    try:
        return load_tensors(body)["hidden"]
    except (SafetensorError, KeyError) as error:
        raise ValueError("the answer holds no hidden states") from error
