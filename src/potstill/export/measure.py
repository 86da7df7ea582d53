"""Measure: an exported file against the student that it was made of, on the same held-out items.

The engine that will run the file reads, renders and writes. A file that reads or renders text in another way, or that
computes another model, is refused with the reason.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor

from potstill.data.labels import IGNORE_INDEX
from potstill.device import device
from potstill.errors import UserError
from potstill.export.held_out import NEW_TOKENS, HeldOutItems
from potstill.export.modelfile import CHATS, Messages
from potstill.losses.token_scores import WholeDistributions
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.held_out_text import DocumentScores, SideBySide, log_probs

STUDENT, FILE = "student", "file"
MOST_KL: Mapping[str, float] = {"F16": 0.05, "BF16": 0.1, "merged": 0.01}
"""Nats by token beyond which a format that keeps the weights is another model, and no rounding."""
MOST_KL_OF_FEW_BITS = 3.0
TIE = 0.01
"""Nats between two tokens of which rounding may make either the likelier one."""
ROUNDS = 3
"""Of speed: student and file take turns."""


class Engine(Protocol):
    """What runs a model."""

    name: str

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, and none besides."""

    def rendered(self, messages: Messages) -> str:
        """A conversation up to the assistant's turn."""

    def outputs(self, batch: Mapping[str, Tensor]) -> WholeDistributions:
        """The outputs at a batch's supervised tokens, row-major."""

    def written(self, prompt: Sequence[int], most: int) -> tuple[list[int], bool]:
        """The likeliest tokens after a prompt without the end token, and whether one stopped them."""

    def write_on(self, prompt: Sequence[int], count: int) -> None:
        """Write so many tokens, and do not stop before."""


@dataclass(frozen=True)
class Compared:
    """A student, a file of it, and how text gets from the one to the other."""

    student: Engine
    file: Engine
    format: str
    has_template: bool
    bos: str = ""
    """The text that begins every text, which engines add by themselves."""
    prepare: Callable[[str], str] = str
    """What a user does to a text before the file's engine reads it."""


def measured(pair: Compared, items: HeldOutItems, resampling: Resampling) -> dict[str, Any]:
    """The figures of a file, as plain JSON types.

    Raises:
        UserError: the file is refused; the message says why.
    """
    reading = {"tokens_equal": _tokens(pair, items.texts), "template_equal": _templates(pair)}
    return {**reading, **_distance(pair, items, resampling), **_answers(pair, items.prompts), **_speed(pair, items)}


def _tokens(pair: Compared, texts: Sequence[str]) -> int:
    """The number of texts; all have equal tokens."""
    for text in texts:
        ours, theirs = pair.student.token_ids(text), pair.file.token_ids(pair.prepare(text))
        if ours != theirs:
            at = next((place for place, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), -1)
            begin = pair.prepare(text)[:40]
            raise UserError(
                f"{pair.file.name} reads other tokens than the student in the text that begins {begin!r}: token "
                f"{at + 1 if at >= 0 else min(len(ours), len(theirs)) + 1} differs"
            )
    return len(texts)


def _templates(pair: Compared) -> int | None:
    """The number of conversations; all are rendered to equal text and equal tokens. None without a template."""
    if not pair.has_template:
        return None
    count = 0
    for chat in CHATS:
        try:
            ours = pair.student.rendered(chat)
        except (TemplateError, ValueError):
            # A template may refuse a role.
            continue
        theirs = pair.file.rendered(chat)
        if ours.removeprefix(pair.bos) != theirs.removeprefix(pair.bos):
            roles = ", ".join(message["role"] for message in chat)
            raise UserError(f"{pair.file.name} renders the chat template otherwise ({roles})")
        _tokens(pair, [ours])
        count += 1
    return count


def _distance(pair: Compared, items: HeldOutItems, resampling: Resampling) -> dict[str, Any]:
    """Loss of both, their difference, and KL(student ‖ file), each with its interval over the held-out documents."""
    sides = SideBySide({STUDENT: pair.student.outputs}, (1.0,), "probabilities", {FILE: pair.file.outputs})
    scores = {name: DocumentScores.zeros(items.text.document_bytes) for name in (STUDENT, FILE)}
    for units, batch in items.text.batches():
        found = sides.read(batch)
        for name, sums in scores.items():
            sums.add(np.concatenate(units), found.scores[name])
    read = scores[FILE].tokens > 0
    ours, theirs = (_nats(scores[name].nll, scores[name].tokens, read) for name in (STUDENT, FILE))
    kl = bootstrap(
        FILE, "kl", _nats(np.maximum(scores[FILE].kl, 0.0), scores[FILE].tokens, read), resampling=resampling
    )
    limit = MOST_KL.get(pair.format.removeprefix("gguf:"), MOST_KL_OF_FEW_BITS)
    if kl.value > limit:
        raise UserError(
            f"{pair.file.name} computes another model: KL to the student is {kl.value:.3g} nats, and rounding to "
            f"{pair.format} explains at most {limit:g}"
        )
    return {
        "tokens": int(scores[FILE].tokens.sum()),
        "documents": int(read.sum()),
        "loss": bootstrap(FILE, "loss", theirs, resampling=resampling).to_dict(),
        "loss_of_student": bootstrap(STUDENT, "loss", ours, resampling=resampling).to_dict(),
        "loss_difference": paired((FILE, STUDENT), "loss", (theirs, ours), resampling=resampling).to_dict(),
        "kl": kl.to_dict(),
        "agreement": bootstrap(
            FILE, "agreement", Sums(scores[FILE].agreement[read], scores[FILE].tokens[read]), resampling=resampling
        ).to_dict(),
    }


def _nats(numerator: Any, denominator: Any, read: Any) -> Sums:
    return Sums(numerator[read], denominator[read], can_exceed_one=True)


def _answers(pair: Compared, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """How many answers are equal token for token, how many part at a tie, and how many end by themselves."""
    ours, theirs = ([one.written(prompt, NEW_TOKENS) for prompt in prompts] for one in (pair.student, pair.file))
    share = 1 / len(prompts)
    differ = [each for each in zip(prompts, ours, theirs, strict=True) if each[1] != each[2]]
    return {
        "answers": len(prompts),
        "answers_equal": len(prompts) - len(differ),
        "answers_tied": sum(_tied(pair.student, prompt, one, other) for prompt, (one, _), (other, _) in differ),
        "stop_rate": sum(stopped for _, stopped in theirs) * share,
        "stop_rate_of_student": sum(stopped for _, stopped in ours) * share,
    }


def _tied(student: Engine, prompt: list[int], ours: list[int], theirs: list[int]) -> bool:
    """Whether two answers part at two tokens that are equally likely to the student, up to rounding."""
    place = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
    if place is None:
        # One of them stopped there.
        return False
    ids = torch.tensor([[*prompt, *ours[: place + 1]]], device=device())
    labels = ids.clone()
    labels[:, :-1] = IGNORE_INDEX
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    (chances,) = log_probs(student.outputs(batch))
    return float(chances[ours[place]] - chances[theirs[place]]) < TIE


def _speed(pair: Compared, items: HeldOutItems) -> dict[str, Any]:
    """Tokens per second that are written one by one, and the ratio to the student, over rounds in which both write."""
    prompt, rates = items.prompts[0][:1], dict[str, list[float]]()
    for engine in (pair.student, pair.file):
        # The first text also prepares kernels.
        engine.write_on(prompt, 2)
    for _ in range(ROUNDS):
        for name, engine in ((STUDENT, pair.student), (FILE, pair.file)):
            began = time.perf_counter()
            engine.write_on(prompt, NEW_TOKENS)
            rates.setdefault(name, []).append(NEW_TOKENS / (time.perf_counter() - began))
    ratios = [ours / theirs for ours, theirs in zip(rates[FILE], rates[STUDENT], strict=True)]
    return {
        "decode_tokens_per_second": median(rates[FILE]),
        "decode_ratio": {"median": median(ratios), "low": min(ratios), "high": max(ratios)},
    }
