"""Teacher text: the scores of a teacher that reads the held-out text by a tokenizer of its own.

Its nats are per token of its own, so only its bits per byte compare with those of other models.
"""

import numpy as np
import torch

from potstill.console import progress
from potstill.data.collators import Collator, pad_token_id
from potstill.data.tokenization import Encoder, separator_ids
from potstill.device import device
from potstill.evaluation.candidate_models import CandidateModel
from potstill.evaluation.measurement_cost import metered
from potstill.losses.token_scores import score_tokens
from potstill.metrics.held_out_text import DocumentScores, document_windows
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.models.size import positions_of
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
    tokenizer, model = teacher.tokenizer(), teacher.load()
    known = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
    separator = separator_ids(tokenizer, None) if known else []
    longest = positions_of(model.config.get_text_config()) or work.recipe.corpus.sequence_length
    documents = Encoder(tokenizer, separator).of_documents(texts)
    windows = document_windows(documents, min(longest, work.recipe.corpus.sequence_length))
    collate, head = Collator(pad_token_id(tokenizer)), head_of(model)
    scores, at_once = DocumentScores.zeros([len(text.encode()) for text in texts]), work.recipe.evaluate.batch_size
    with (
        progress(f"scoring {teacher.candidate}", len(windows), "sequences") as advance,
        metered(work, measurement, teacher) as tally,
    ):
        for first in range(0, len(windows), at_once):
            some = windows[first : first + at_once]
            batch = collate([{"input_ids": window.input_ids} for window in some])
            states, labels = forward(model, head, {name: value.to(device()) for name, value in batch.items()})
            nll = score_tokens(states, head, labels)["nll"].double().cpu().numpy()
            numbers = np.concatenate([np.full(len(one.input_ids) - 1, one.document) for one in some])
            scores.add(numbers, {"nll": nll})
            tally.read += sum(len(one.input_ids) for one in some)
            advance(len(some))
    return scores
