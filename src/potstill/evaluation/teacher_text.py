"""Teacher text: the scores of a teacher that reads the held-out text by a tokenizer of its own.

Its nats are per token of its own, so only its bits per byte compare with those of other models.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.console import progress
from potstill.data.collators import Collator, pad_token_id
from potstill.data.positions import supervised_labels
from potstill.data.tokenization import Encoder, separator_ids
from potstill.device import device
from potstill.evaluation.candidate_models import CandidateModel
from potstill.evaluation.measurement_cost import metered
from potstill.losses.sparse_scores import scores_of_sparse
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget, TeacherTarget
from potstill.losses.token_scores import score_tokens
from potstill.metrics.held_out_text import DocumentScores, document_windows
from potstill.models.size import positions_of
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work


@torch.no_grad()
def teacher_scores(work: Work, teacher: CandidateModel, texts: list[str], measurement: str) -> DocumentScores:
    """The sums of a teacher over each document, read in windows of its own tokens.

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
    collate = Collator(pad_token_id(tokenizer))
    scores, at_once = DocumentScores.zeros([len(text.encode()) for text in texts]), work.recipe.evaluate.batch_size
    with (
        progress(f"scoring {teacher.candidate}", len(windows), "sequences") as advance,
        metered(work, measurement, teacher) as tally,
    ):
        for first in range(0, len(windows), at_once):
            some = windows[first : first + at_once]
            batch = collate([{"input_ids": window.input_ids} for window in some])
            batch = {name: value.to(device()) for name, value in batch.items()}
            nll = _surprises(live.target(batch), supervised_labels(batch)).double().cpu().numpy()
            numbers = np.concatenate([np.full(len(one.input_ids) - 1, one.document) for one in some])
            scores.add(numbers, {"nll": nll})
            tally.read += sum(len(one.input_ids) for one in some)
            advance(len(some))
    return scores


def _surprises(target: TeacherTarget, labels: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Minus the log-probability of each label, in nats."""
    if isinstance(target, SparseTarget):
        return scores_of_sparse(target, labels)["nll"]
    assert isinstance(target, HiddenTarget | LogitsTarget)
    states, head = (target.hidden, target.head) if isinstance(target, HiddenTarget) else (target.logits, None)
    return score_tokens(states, head, labels)["nll"]
