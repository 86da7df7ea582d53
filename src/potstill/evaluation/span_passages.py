"""Span passages: held-out documents for the report, coloured by spans, where the teacher has a tokenizer of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset

from potstill.data.collators import Collator, pad_token_id
from potstill.data.positions import supervised_labels
from potstill.data.prompts.collator import teacher_batch
from potstill.data.token_bytes import TokenBytes
from potstill.device import device
from potstill.losses.span_scores import numbers_of
from potstill.metrics.held_out_text import DocumentScores, outputs_of
from potstill.metrics.span_passages import span_view
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.candidates import teacher_candidates, trained_candidates
from potstill.teachers.across_tokenizers import TeacherAcross

RANKS = ("typical", "hardest", "second hardest")
"""Which documents are on the report."""


class ShownDocument(NamedTuple):
    """A document on the report."""

    number: int
    title: str


def shown_documents(readable: Sequence[int], student: DocumentScores, teacher: DocumentScores) -> list[ShownDocument]:
    """A typical document and then the hardest ones, each with a title that says so.

    A document is the harder, the more bits per byte the student has than the teacher. The typical one is nearest to the
    median of all documents. The hardest are those of the readable ones, if they are harder than the typical one.

    Args:
        readable: the numbers of the documents that can be shown.
        student: the student's scores.
        teacher: the teacher's, of the same documents by its own tokens.
    """
    if not readable:
        return []
    excess = (student.nll - teacher.nll) / np.log(2) / np.maximum(student.bytes, 1)
    middle = np.median(excess)
    typical = min(readable, key=lambda n: float(abs(excess[n] - middle)))
    harder = sorted((n for n in readable if excess[n] > excess[typical]), key=lambda n: -float(excess[n]))
    shown = zip([typical, *harder], RANKS, strict=False)
    return [ShownDocument(n, _title(n, rank, float(excess[n]))) for n, rank in shown]


def _title(number: int, rank: str, excess: float) -> str:
    return f"Held-out document {number}, {rank}: {'−' if excess < 0 else '+'}{abs(excess):.2f} bits per byte"


def span_passages(
    work: Work, held_out: Dataset, readable: Sequence[int], scores: Mapping[str, Sequence[DocumentScores]]
) -> list[dict[str, Any]]:
    """The passages of the first student and the first teacher; none if that runs behind a server.

    Args:
        work: the step.
        held_out: the documents.
        readable: the numbers of those that can be shown.
        scores: of every model, by its label.
    """
    teacher, first = artifacts.teachers(work)[0], trained_candidates(work.recipe)[0]
    if teacher.served is not None or not readable:
        return []
    tokenizer = artifacts.tokenizer(work)
    ours, theirs = TokenBytes(tokenizer, "the student"), TokenBytes(teacher.tokenizer(), "the teacher")
    across = TeacherAcross(teacher.beside(), ours, theirs, ["alm"])
    across.to(device())
    collate, student = (
        across.collator(Collator(pad_token_id(tokenizer))),
        outputs_of(artifacts.trained_model(work, first)),
    )
    of_teacher = scores[teacher_candidates(work.recipe)[0].label][0]
    begins = torch.from_numpy(ours.begins_word).to(device())
    shown = []
    for n, title in shown_documents(readable, scores[first.of_all_seeds.label][0], of_teacher):
        batch = {name: value.to(device()) for name, value in collate([{"input_ids": held_out[n]["input_ids"]}]).items()}
        labels = supervised_labels(batch)
        with torch.no_grad():
            numbers = numbers_of(student(batch), labels, begins)
        view = span_view(across.target(teacher_batch(batch)), numbers, labels, ours)
        shown.append({"title": title, "tokens": view})
    return shown
