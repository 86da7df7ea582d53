"""Held-out items of an export: what a student and its files read, write and are compared on.

They are a part of what the run's own measurements use, spread evenly over it, so that a file takes a minute or two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import load_from_disk

from potstill.data.collators import Collator, pad_token_id
from potstill.data.labels import IGNORE_INDEX
from potstill.evaluation.conversations import held_out_turns
from potstill.evaluation.document_scores import HeldOutBatches
from potstill.evaluation.held_out_prompts import held_out_prompts
from potstill.metrics.held_out_text import document_windows
from potstill.pipeline import artifacts
from potstill.pipeline.steps import held_out_questions_step
from potstill.pipeline.work import Work

MOST_TOKENS = 4096
"""Tokens that are read, unless fewer than FEWEST_SAMPLES samples have so many."""
FEWEST_SAMPLES = 16
PROMPTS, NEW_TOKENS, PROMPT_TOKENS = 20, 32, 24
TEXTS, TEXT_LENGTH = 50, 2000
"""The texts whose tokens are compared, and their characters."""


@dataclass(frozen=True)
class HeldOutItems:
    """What every file of a student is measured on."""

    text: HeldOutBatches
    texts: Sequence[str]
    """Texts whose tokens are compared."""
    prompts: Sequence[list[int]]
    """Tokens that are continued."""

    @property
    def context(self) -> int:
        """The most tokens that are read and written at once."""
        longest = max(len(sample["input_ids"]) for sample in self.text.samples)
        return max(longest, *(len(prompt) + NEW_TOKENS for prompt in self.prompts))


def held_out_items(work: Work) -> HeldOutItems:
    """The items of a run.

    Raises:
        UserError: the run has too few held-out items for an interval.
    """
    if work.recipe.chats:
        return _of_conversations(work)
    return _of_questions(work) if work.recipe.asks else _of_text(work)


def _of_text(work: Work) -> HeldOutItems:
    rows = load_from_disk(work.run.path("corpus") / "held_out")
    rows = rows.select(range(min(len(rows), work.recipe.evaluate.documents or len(rows))))
    windows = document_windows(rows["input_ids"], work.recipe.corpus.sequence_length)
    units = [np.full(len(window.input_ids) - 1, window.document) for window in windows]
    samples = [{"input_ids": window.input_ids, "labels": window.input_ids} for window in windows]
    beginnings = [ids[:PROMPT_TOKENS] for ids in rows["input_ids"] if len(ids) > PROMPT_TOKENS // 2]
    return HeldOutItems(_spread(work, samples, units, len(rows)), _texts(rows["text"]), beginnings[:PROMPTS])


def _of_questions(work: Work) -> HeldOutItems:
    rows = load_from_disk(work.run.path(held_out_questions_step(work.recipe)) / "samples").to_list()
    samples = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
    units = [np.full(_supervised(row), number) for number, row in enumerate(rows)]
    questions = [row["question"] for row in artifacts.questions(work, "held_out")]
    prompts = [row["input_ids"][: row["answer_start"]] for row in rows[:PROMPTS]]
    return HeldOutItems(_spread(work, samples, units, len(rows)), _texts(questions), prompts)


def _of_conversations(work: Work) -> HeldOutItems:
    whole = held_out_turns(work)
    samples = [{name: sample[name] for name in ("input_ids", "labels")} for sample in whole.samples]
    asked = held_out_prompts(work)
    texts = [turn.content for one in asked for turn in one.before]
    text = _spread(work, samples, whole.units, len(whole.document_bytes))
    return HeldOutItems(text, _texts(texts), [one.input_ids for one in asked[:PROMPTS]])


def _supervised(sample: Mapping[str, Any]) -> int:
    return int((np.asarray(sample["labels"])[1:] != IGNORE_INDEX).sum())


def _texts(texts: Sequence[str]) -> list[str]:
    return [text[:TEXT_LENGTH] for text in texts[:TEXTS]]


def _spread(work: Work, samples: list[dict[str, Any]], units: list[Any], count: int) -> HeldOutBatches:
    """Every n-th sample, so that about MOST_TOKENS are read."""
    tokens = sum(len(sample["input_ids"]) for sample in samples)
    stride = max(1, min(-(-tokens // MOST_TOKENS), len(samples) // FEWEST_SAMPLES))
    collate = Collator(pad_token_id(artifacts.tokenizer(work)))
    return HeldOutBatches(
        samples[::stride], units[::stride], [0] * count, collate, work.recipe.evaluate.batch_size, None
    )
