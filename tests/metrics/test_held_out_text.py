import json

import numpy as np
import pytest
import torch

from potstill.data.collators import Collator
from potstill.metrics.held_out_text import DocumentScores, document_windows, score_documents
from potstill.teachers.live import LiveTeacher
from tiny import SEQUENCE_LENGTH, VOCABULARY, gpt2, llama

DOCUMENTS = [list(range(5, 5 + length)) for length in (40, 3, 1, 100, 32, 33)]


def _scores(model, teacher, size):
    windows = document_windows(DOCUMENTS, SEQUENCE_LENGTH)
    batches = []
    for at in range(0, len(windows), size):
        rows = windows[at : at + size]
        batches.append((rows, Collator(0)([{"input_ids": row.input_ids} for row in rows])))
    done = []
    sizes = [2 * len(document) for document in DOCUMENTS]
    return score_documents(model, batches, sizes, LiveTeacher(teacher).target, done.append), sum(done), len(windows)


@pytest.mark.parametrize("size", [2, 100])
def test_how_windows_are_batched_changes_nothing(size):
    one, done, count = _scores(llama(1), llama(0), 1)
    other, *_ = _scores(llama(1), llama(0), size)
    assert done == count
    for name in ("nll", "kl", "agreement", "tokens", "bytes"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-4, atol=1e-4)


def test_every_token_but_a_document_s_first_is_predicted_once():
    scores, *_ = _scores(llama(1), llama(0), 4)
    assert scores.tokens.tolist() == [len(document) - 1 for document in DOCUMENTS]


def test_a_model_is_at_no_distance_from_itself():
    scores, *_ = _scores(llama(0), llama(0), 4)
    assert np.abs(scores.kl).max() < 1e-3
    assert scores.agreement.tolist() == scores.tokens.tolist()


def test_a_model_that_knows_nothing_needs_the_log_of_the_vocabulary():
    flat = gpt2(0)
    with torch.no_grad():
        flat.lm_head.weight.zero_()
    scores, *_ = _scores(flat, llama(0), 4)
    loss = scores.sums("loss")
    assert loss.numerator.sum() / loss.denominator.sum() == pytest.approx(np.log(VOCABULARY), rel=1e-6)
    bits = scores.sums("bits_per_byte")
    assert bits.numerator.sum() == pytest.approx(scores.tokens.sum() * np.log2(VOCABULARY), rel=1e-6)
    assert bits.denominator.sum() == sum(2 * len(document) for document in DOCUMENTS)


def test_scores_survive_json():
    scores, *_ = _scores(llama(1), llama(0), 4)
    again = DocumentScores.from_dict(json.loads(json.dumps(scores.to_dict())))
    for name in ("nll", "kl", "agreement", "tokens", "bytes"):
        assert np.array_equal(getattr(again, name), getattr(scores, name))
