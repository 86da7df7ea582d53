"""A captured teacher of another tokenizer says what the live one says of the same text."""

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.prompts.collator import teacher_batch
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.losses.loss import Loss
from potstill.teachers.across_tokenizers import TeacherAcross, across_tokenizers
from potstill.teachers.captured_spans import CapturedSpans
from potstill.teachers.live import LiveTeacher
from tiny import documents, llama, tokenizer
from tokenizer_zoo import trained
from toy_training import captured, captured_spans, rows_of_texts, samples, teacher_of_other_tokens

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")
TEXTS = documents(8, seed=9)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return captured_spans(tmp_path_factory.mktemp("store"), TEXTS)


def test_its_targets_are_those_of_the_live_teacher(store):
    live = TeacherAcross(LiveTeacher(teacher_of_other_tokens()), OURS, THEIRS, ["alm"])
    own = CapturedSpans(store, OURS)
    batches = [teacher_batch(one.collator(Collator(1))(rows_of_texts(TEXTS))) for one in (live, own)]
    expected, found = live.target(batches[0]), own.target(batches[1])
    for name in ("spans", "opens", "group", "used", "begins_word"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert len(found) == len(expected)
    assert len(found.group) > 200
    torch.testing.assert_close(found.log_q, expected.log_q, rtol=5e-5, atol=2e-4)


def across(losses, given, ours=None):
    return across_tokenizers([given], None, losses, ours or tokenizer(), None)


def test_a_store_of_spans_is_a_teacher_of_another_tokenizer(store):
    (found,) = across([Loss("alm"), Loss("cross_entropy")], store)
    assert isinstance(found, CapturedSpans)
    assert list(found.targets([])) == []


@pytest.mark.parametrize("kind", ["uld", "shared_tokens"])
def test_a_loss_of_whole_distributions_is_refused(store, kind):
    with pytest.raises(UserError, match=rf"{kind} needs whole distributions, and .* which serve alm alone"):
        across([Loss("alm"), Loss(kind)], store)


def test_the_students_own_tokenizer_is_refused(store):
    with pytest.raises(UserError, match=r"alm is for a teacher of another tokenizer.*use forward_kl"):
        across([Loss("alm")], store, ours=trained())


def test_a_missing_tokenizer_is_named(store):
    with pytest.raises(UserError, match="alm reads the text of both models; give `processing_class`"):
        across_tokenizers([store], None, [Loss("alm")], None, None)


def test_a_store_of_one_tokenizers_tokens_is_refused(tmp_path):
    other = captured(tmp_path / "store", llama(), samples(4))
    with pytest.raises(UserError, match=r"alm is for .* one tokenizer's tokens \(`keep: top_k`\); capture with"):
        across([Loss("alm")], other)
