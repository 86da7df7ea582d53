"""Teacher text: the scores of a teacher that reads the held-out text by a tokenizer of its own.

Its nats are per token of its own, so only its bits per byte compare with those of other models.
"""

import numpy as np
import torch

from potstill.console import progress
from potstill.data.collators import Collator, pad_token_id
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenization import Encoder, separator_ids
from potstill.device import device
from potstill.evaluation.candidate_models import CandidateModel
from potstill.evaluation.measurement_cost import metered
from potstill.losses.span_scores import numbers_of
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
from potstill.metrics.held_out_text import DocumentScores, document_windows
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
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
) -> tuple[DocumentScores, float]:
    """The sums of a teacher over each document, read in windows of its own tokens; and the share of its probability, of
    all its predictions, that lies on tokens which are the same bytes as one of the student's.

    Args:
        work: the step.
        teacher: the teacher, with its tokenizer.
        texts: the documents.
        measurement: the measurement's name among the costs.
    """
    assert teacher.tokenizer is not None
    tokenizer, model = teacher.tokenizer(), teacher.load()
    known = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
    separator = separator_ids(tokenizer, None) if known else []
    longest = positions_of(model.config.get_text_config()) or work.recipe.corpus.sequence_length
    documents = Encoder(tokenizer, separator).of_documents(texts)
    windows = document_windows(documents, min(longest, work.recipe.corpus.sequence_length))
    collate, head = Collator(pad_token_id(tokenizer)), head_of(model)
    ours, theirs = TokenBytes(artifacts.tokenizer(work), "the student"), TokenBytes(tokenizer, "the teacher")
    shared, mass = [other for _, other in shared_tokens(ours, theirs)], 0.0
    scores, at_once = DocumentScores.zeros([len(text.encode()) for text in texts]), work.recipe.evaluate.batch_size
    with (
        progress(f"scoring {teacher.candidate}", len(windows), "sequences") as advance,
        metered(work, measurement, teacher) as tally,
    ):
        for first in range(0, len(windows), at_once):
            some = windows[first : first + at_once]
            batch = collate([{"input_ids": window.input_ids} for window in some])
            states, labels = forward(model, head, {name: value.to(device()) for name, value in batch.items()})
            outputs = LogitsTarget(states) if head is None else HiddenTarget(states, head)
            is_shared = torch.zeros(states.shape[1] if head is None else len(head.weight), dtype=torch.bool)
            is_shared[shared] = True
            of_labels, of_shared = numbers_of(outputs, labels, is_shared.to(device()))
            nll, mass = (-of_labels).double().cpu().numpy(), mass + float(of_shared.double().exp().sum())
            numbers = np.concatenate([np.full(len(one.input_ids) - 1, one.document) for one in some])
            scores.add(numbers, {"nll": nll})
            tally.read += sum(len(one.input_ids) for one in some)
            advance(len(some))
    return scores, mass / max(float(scores.tokens.sum()), 1.0)
