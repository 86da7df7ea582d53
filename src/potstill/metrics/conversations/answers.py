"""Answers: what models wrote to the same prompts, judged by a reference that need not hold a number.

Shapes: U prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from potstill.metrics.bootstrap import Sums
from potstill.metrics.continuations.similarity import (
    RANDOM,
    SentenceEncoder,
    cosine,
    derangements,
    rouge_l,
    with_random_pairs,
)
from potstill.metrics.conversations.tool_calls import Tool, valid_calls
from potstill.metrics.intervals import Array

RANDOM_PAIRS = 200
"""The number of random pairs at least, or one for each prompt if there are more prompts."""

NGRAM = 4

FEWEST_CALLS = 2
"""The fewest tool calls that give an interval."""


@dataclass(frozen=True)
class ReferenceAnswer:
    """The answer that the data has for a prompt."""

    text: str
    tokens: int
    """Its number of tokens, without the one that ends it."""
    tools: Sequence[Tool] = ()
    """The tools that it may call."""


@dataclass(frozen=True)
class WrittenAnswer:
    """The answer that a model wrote to a prompt."""

    text: str
    """Up to the token that ends it, without special tokens."""
    ids: Sequence[int]
    """The tokens of the text."""
    tokens: int
    """The number of tokens that the model wrote before the one that ends it."""
    stopped: bool
    """Whether it ended by itself within the limit."""


class AnswerScorer:
    """Scores answers to U prompts.

    Args:
        references: the reference of each prompt; at least two.
        encode: embeds texts for `sentence_cosine`. None: the metric is left out.
    """

    def __init__(self, references: Sequence[ReferenceAnswer], encode: SentenceEncoder | None) -> None:
        self._references, self._encode = references, encode
        self._texts = [without_reasoning(one.text) for one in references]
        self._others = derangements(len(references), math.ceil(RANDOM_PAIRS / len(references)))
        self._embedded = None if encode is None else encode(self._texts)
        # A reference whose own call cannot be read or is not valid says nothing about the calls of models.
        pairs = enumerate(zip(self._texts, references, strict=True))
        self._calls = [at for at, (text, reference) in pairs if valid_calls(text, reference.tools)]

    @property
    def calls(self) -> int:
        """The number of references that call a tool."""
        return len(self._calls)

    def __call__(self, answers: Sequence[WrittenAnswer]) -> dict[str, Sums]:
        """The sums of each metric of one model, whose answers are in the order of the references: [U] each.

        Tool calls have sums of those answers alone whose reference calls a tool; if these are few, they have none.
        """
        one = np.ones(len(answers))
        lengths = np.array([reference.tokens for reference in self._references], float)
        found = {"stopped": Sums([answer.stopped for answer in answers], one)}
        found["length_ratio"] = Sums([answer.tokens for answer in answers], lengths, can_exceed_one=True)
        found |= {name: Sums(values, one) for name, values in self._similarity(answers).items()}
        found["repetition"] = Sums([repeated_share(answer.ids) for answer in answers], one)
        if self.calls >= FEWEST_CALLS:
            valid = [valid_calls(without_reasoning(answers[at].text), self._references[at].tools) for at in self._calls]
            found["valid_tool_calls"] = Sums(valid, np.ones(len(valid)))
        return found

    def _similarity(self, answers: Sequence[WrittenAnswer]) -> Mapping[str, Array]:
        """ROUGE-L and the cosine of sentence embeddings, each also on random pairs. Reasoning is not compared."""
        texts = [without_reasoning(answer.text) for answer in answers]
        scores = {"rouge_l": rouge_l(texts, self._texts)["f"]}
        if self._encode is not None and self._embedded is not None:
            scores["sentence_cosine"] = cosine(self._encode(texts), self._embedded)
        found: dict[str, Array] = {}
        for name, score in scores.items():
            found[name], found[f"{name}_{RANDOM}"] = with_random_pairs(score, self._others)
        return found


def repeated_share(ids: Sequence[int], n: int = NGRAM) -> float:
    """The share of a text's n-grams of tokens that stood in it before; 0 for a text without any.

    Welleck et al., *Neural Text Generation with Unlikelihood Training*, 2020 (seq-rep-n).
    """
    ngrams = [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def without_reasoning(text: str) -> str:
    """What a text says after its reasoning; nothing if the reasoning has no end."""
    return text.rpartition("</think>")[2].partition("<think>")[0].strip()
