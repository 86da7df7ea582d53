"""Span passages: held-out documents for the report, coloured by spans, where the teacher has a tokenizer of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def typical_documents(
    readable: Sequence[int], student: DocumentScores, teacher: DocumentScores, count: int
) -> list[int]:
    """The readable documents whose bytes surprise the student more than the teacher by nearest to the median of all.

    Args:
        readable: the numbers of the documents that can be shown.
        student: the student's scores.
        teacher: the teacher's, of the same documents by its own tokens.
        count: how many to choose.
    """
    excess = (student.nll - teacher.nll) / np.maximum(student.bytes, 1)
    middle = float(np.median(excess))
    return sorted(readable, key=lambda n: abs(float(excess[n]) - middle))[:count]


def span_passages(
    work: Work, held_out: Dataset, readable: Sequence[int], scores: Mapping[str, Sequence[DocumentScores]], count: int
) -> list[dict[str, Any]]:
    """The passages of the first student and the first teacher; none if that runs behind a server.

    Args:
        work: the step.
        held_out: the documents.
        readable: the numbers of those that can be shown.
        scores: of every model, by its label.
        count: the number of passages.
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
    for n in typical_documents(readable, scores[first.of_all_seeds.label][0], of_teacher, count):
        batch = {name: value.to(device()) for name, value in collate([{"input_ids": held_out[n]["input_ids"]}]).items()}
        labels = supervised_labels(batch)
        with torch.no_grad():
            numbers = numbers_of(student(batch), labels, begins)
        view = span_view(across.target(teacher_batch(batch)), numbers, labels, ours)
        shown.append({"title": f"held-out document {n}", "tokens": view})
    return shown
