"""Minimal pairs: whether a model gives the grammatical one of two sentences the higher probability (BLiMP and others).

A model wins a pair if the summed log-probability of the acceptable sentence is greater (Warstadt et al., *BLiMP: The
Benchmark of Linguistic Minimal Pairs for English*, TACL 2020, section 4.1). ``accuracy.py`` makes accuracies of the
scores.

Shapes: P pairs of a subtask.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from transformers import PreTrainedModel

from potstill.console import Advance
from potstill.errors import UserError
from potstill.losses.token_scores import score_tokens
from potstill.metrics.intervals import Array
from potstill.metrics.minimal_pairs.read import Subtask
from potstill.models.forward import forward
from potstill.models.head import Head
from potstill.models.head_extraction import head_of

Start = Literal["bos", "eos", "none"]


@dataclass(frozen=True)
class Reading:
    """What a model reads before each sentence.

    Attributes:
        start: the token that predicts the sentence's first token; it is never scored. None: nothing predicts the first
            token, and the sum leaves it out.
        prefix_space: whether a space precedes the sentence; many tokenizers make it part of the first word.
    """

    start: int | None
    prefix_space: bool

    @classmethod
    def of(cls, tokenizer: Any, start: Start = "bos", prefix_space: bool = True) -> Self:
        """How to read with a tokenizer. The defaults are lm-eval's, so that figures are comparable with published ones.

        ``bos`` takes the tokenizer's BOS; without one its EOS; without both, no token. ``eos`` is what BabyLM's public
        pipeline of 2023 takes. A model that was trained without these tokens never learned their meaning, and predicts
        noise after them: use ``none`` there, or show that it makes no difference.

        Raises:
            UserError: ``start`` is ``eos``, and the tokenizer has none.
        """
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if start == "eos" and eos is None:
            raise UserError("minimal pairs: the tokenizer has no EOS token to start from; use `bos` or `none`")
        return cls({"bos": eos if bos is None else bos, "eos": eos, "none": None}[start], prefix_space)

    def encode(self, tokenizer: Any, sentences: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each sentence, with its start and no other special token."""
        texts = [" " * self.prefix_space + sentence for sentence in sentences]
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        # As in lm-eval: a sentence that already begins with the start token does not get a second one.
        front = () if self.start is None else (self.start,)
        return [tuple(row) if tuple(row[:1]) == front else (*front, *row) for row in rows]


@dataclass(frozen=True, eq=False)
class PairScores:
    """The scores of one model on every pair. They are enough to compare models again without running them.

    Attributes:
        good, bad: summed log-probability (nats) of the acceptable and of the other sentence, [P] for each subtask.
        pairs: the SHA-256 of all sentences. Only scores of the same pairs are compared.
        reading: how the sentences were read.
    """

    good: dict[str, Array]
    bad: dict[str, Array]
    pairs: str
    reading: Reading

    def to_dict(self) -> dict[str, Any]:
        """For JSON, losslessly."""
        lists = {side: {name: each.tolist() for name, each in getattr(self, side).items()} for side in ("good", "bad")}
        return lists | {"pairs": self.pairs, "reading": dict(vars(self.reading))}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        good, bad = ({name: np.asarray(each) for name, each in data[side].items()} for side in ("good", "bad"))
        return cls(good, bad, data["pairs"], Reading(**data["reading"]))


@torch.no_grad()
def score_pairs(
    model: PreTrainedModel,
    tokenizer: Any,
    subtasks: Sequence[Subtask],
    reading: Reading,
    advance: Advance,
    *,
    batch_size: int = 64,
) -> PairScores:
    """Sum the log-probabilities of every sentence under a causal language model.

    Each batch holds sentences of one length, so that there is no padding: this works for any architecture and any
    padding side. A sequence of tokens that occurs several times runs once, so that sentences with the same tokens tie
    exactly. Log-probabilities are float32 or finer, for a model in any number format; their sums are float64.

    Args:
        model: in eval mode.
        tokenizer: the model's own.
        subtasks: the pairs.
        reading: what precedes each sentence.
        advance: called with the number of sentences that are done, two for each pair.
        batch_size: the maximum number of sentences in a batch; it changes only time and memory.

    Raises:
        UserError: a sentence has more tokens than the model has positions, or no token that can be predicted.
    """
    sentences = [text for subtask in subtasks for text in (*subtask.good, *subtask.bad)]
    numbers: dict[tuple[int, ...], int] = {}
    number = np.array([numbers.setdefault(row, len(numbers)) for row in reading.encode(tokenizer, sentences)])
    rows, times = list(numbers), np.bincount(number, minlength=len(numbers))
    _check_lengths(model, {len(rows[row]): text for row, text in zip(number, sentences, strict=True)})
    sums = np.empty(len(rows))
    head = head_of(model)
    for chosen in _batches(rows, batch_size):
        sums[chosen] = _log_probabilities(model, head, [rows[row] for row in chosen])
        advance(int(times[chosen].sum()))
    sizes = [len(subtask.good) for subtask in subtasks for _ in ("good", "bad")]
    parts = np.split(sums[number], np.cumsum(sizes)[:-1])
    names = [subtask.name for subtask in subtasks]
    good, bad = (dict(zip(names, parts[side::2], strict=True)) for side in (0, 1))
    return PairScores(good, bad, fingerprint(subtasks), reading)


def fingerprint(subtasks: Sequence[Subtask]) -> str:
    """The SHA-256 of all sentences, with their subtasks and their order."""
    return hashlib.sha256(repr([(each.name, each.good, each.bad) for each in subtasks]).encode()).hexdigest()


def _check_lengths(model: PreTrainedModel, example: dict[int, str]) -> None:
    """``example``: a sentence of each length in tokens."""
    if min(example, default=2) < 2:
        raise UserError(
            f"minimal pairs: no token of {example[min(example)]!r} can be predicted; read with a start token, or leave "
            "the pair out"
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and max(example, default=0) > positions:
        raise UserError(
            f"minimal pairs: {example[max(example)]!r} is {max(example)} tokens, but the model has only {positions} "
            "positions; leave the pair out"
        )


def _batches(rows: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[list[int]]:
    """The row numbers of each batch, all of one length; the longest first, so that lack of memory shows at once."""
    of_length: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        of_length.setdefault(len(row), []).append(number)
    for length in sorted(of_length, reverse=True):
        same = of_length[length]
        yield from (same[at : at + batch_size] for at in range(0, len(same), batch_size))


def _log_probabilities(model: PreTrainedModel, head: Head | None, rows: list[tuple[int, ...]]) -> Array:
    """The summed log-probability of each row, without its first token."""
    ids = torch.tensor(rows, device=model.device)
    states, following = forward(model, head, {"input_ids": ids, "labels": ids})
    nll = score_tokens(states, head, following)["nll"]
    return -nll.view(len(rows), -1).double().sum(1).cpu().numpy()
