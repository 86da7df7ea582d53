"""Teacher text: the scores of a teacher that reads the held-out text by a tokenizer of its own.

Its nats are per token of its own, so only its bits per byte compare with those of other models.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.console import progress
from potstill.data.collators import Collator, pad_token_id
from potstill.data.positions import supervised_labels
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenization import Encoder, separator_ids
from potstill.device import device
from potstill.evaluation.candidate_models import CandidateModel
from potstill.evaluation.measurement_cost import metered
from potstill.losses.span_scores import numbers_of
from potstill.losses.sparse_scores import scores_of_sparse
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget, TeacherTarget
from potstill.metrics.held_out_text import DocumentScores, document_windows
from potstill.models.size import positions_of
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.teachers.across_tokenizers import shared_tokens


def share_of_counterparts(teacher: str, share: float) -> str:
    """A sentence about the share of a teacher's probability that lies on tokens of the student's vocabulary."""
    return f"{share:.1%} of the probability of the {teacher} lies on tokens that the student has too"


@torch.no_grad()
def teacher_scores(
    work: Work, teacher: CandidateModel, texts: list[str], measurement: str
) -> tuple[DocumentScores, float | None]:
    """The sums of a teacher over each document, read in windows of its own tokens; and the share of its probability, of
    all its predictions, that lies on tokens which are the same bytes as one of the student's. None for a server that
    tells the likeliest tokens only.

    Args:
        work: the step.
        teacher: the teacher, with its tokenizer.
        texts: the documents.
        measurement: the measurement's name among the costs.
    """
    assert teacher.tokenizer is not None
    tokenizer = teacher.tokenizer()
    live = artifacts.teacher(work, artifacts.teacher_of(work, teacher.candidate)).beside()
    known = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
    separator = separator_ids(tokenizer, None) if known else []
    longest = positions_of(live.config.get_text_config()) or work.recipe.corpus.sequence_length
    documents = Encoder(tokenizer, separator).of_documents(texts)
    windows = document_windows(documents, min(longest, work.recipe.corpus.sequence_length))
    collate, counted = Collator(pad_token_id(tokenizer)), _Counterparts(work, tokenizer)
    scores, at_once = DocumentScores.zeros([len(text.encode()) for text in texts]), work.recipe.evaluate.batch_size
    with (
        progress(f"scoring {teacher.candidate}", len(windows), "sequences") as advance,
        metered(work, measurement, teacher) as tally,
    ):
        for first in range(0, len(windows), at_once):
            some = windows[first : first + at_once]
            batch = collate([{"input_ids": window.input_ids} for window in some])
            batch = {name: value.to(device()) for name, value in batch.items()}
            nll = counted.surprises(live.target(batch), supervised_labels(batch)).double().cpu().numpy()
            numbers = np.concatenate([np.full(len(one.input_ids) - 1, one.document) for one in some])
            scores.add(numbers, {"nll": nll})
            tally.read += sum(len(one.input_ids) for one in some)
            advance(len(some))
    return scores, counted.share


class _Counterparts:
    """How much of a teacher's probability lies on tokens that are the same bytes as one of the student's."""

    def __init__(self, work: Work, tokenizer: Any) -> None:
        ours, theirs = TokenBytes(artifacts.tokenizer(work), "the student"), TokenBytes(tokenizer, "the teacher")
        self._shared = [other for _, other in shared_tokens(ours, theirs)]
        self._mass, self._tokens = 0.0, 0

    def surprises(self, target: TeacherTarget, labels: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Minus the log-probability of each label, in nats. What the teacher says of all tokens is counted."""
        if isinstance(target, SparseTarget):
            return scores_of_sparse(target, labels)["nll"]
        assert isinstance(target, HiddenTarget | LogitsTarget)
        size = target.logits.shape[1] if isinstance(target, LogitsTarget) else len(target.head.weight)
        is_shared = torch.zeros(size, dtype=torch.bool)
        is_shared[self._shared] = True
        of_labels, of_shared = numbers_of(target, labels, is_shared.to(labels.device))
        self._mass += float(of_shared.double().exp().sum())
        self._tokens += len(labels)
        return -of_labels

    @property
    def share(self) -> float | None:
        """The share over all predictions; None if the teacher tells some tokens only."""
        return self._mass / self._tokens if self._tokens else None
