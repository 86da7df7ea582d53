"""What a server told is found by the tokens of prompt and answer; of anything else, nothing is known."""

import numpy as np
import pytest
import torch

from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.servers.api import ScoredRow, WrittenText
from potstill.servers.model import ServedModel
from potstill.teachers.written import WRITTEN, WrittenLog, WrittenTeacher
from tiny import VOCABULARY, llama

MODEL = ServedModel("m", None, None, VOCABULARY, [], [], {"largest": 0.0, "mean": 0.0})
ENDS = [0, 1]
PROMPT, ANSWER = [5, 6, 7], [40, 41, 42, 0]


def told(ids, shift=0.0):
    """Each token of an answer with two others, and its own log-probability."""
    n = len(ids)
    likeliest = np.tile([200, 201], (n, 1)), np.tile([-1.5 - shift, -2.5], (n, 1))
    return WrittenText(ids, ScoredRow(*likeliest, np.full(n, -0.9)))


@pytest.fixture
def log(tmp_path):
    return WrittenLog(tmp_path / WRITTEN, ENDS)


def batch(*rows):
    """Rows of pairs: a token, and whether it is supervised; all of one length."""
    ids = torch.tensor([[id for id, _ in row] for row in rows])
    labels = torch.tensor([[id if learned else IGNORE_INDEX for id, learned in row] for row in rows])
    return {"input_ids": ids, "labels": labels}


def row(prompt, answer, after=()):
    return [(id, False) for id in prompt] + [(id, True) for id in answer] + [(id, False) for id in after]


def target(log, *rows):
    return WrittenTeacher(log.file, MODEL, ENDS).target(batch(*rows))


def entries(found, at):
    known = found.log_probs[at] > -torch.inf
    return dict(zip(found.ids[at][known].tolist(), found.log_probs[at][known].tolist(), strict=True))


def test_an_answer_has_the_likeliest_tokens_its_own_and_the_mass_of_the_rest(log):
    log.keep(PROMPT, told(ANSWER))
    found = target(log, row(PROMPT, ANSWER, after=[3]))
    for at, own in enumerate(ANSWER):
        assert entries(found, at) == pytest.approx({200: -1.5, 201: -2.5, own: -0.9}, abs=1e-6)
    left = 1 - np.exp([-1.5, -2.5, -0.9]).sum()
    assert found.log_tail.exp().tolist() == pytest.approx([left] * 4, abs=1e-6)


NOT_WRITTEN = {
    "another prompt": row([5, 6, 8], ANSWER),
    "a longer prompt": row([4, *PROMPT], ANSWER),
    "another answer": row(PROMPT, [40, 41, 43, 0]),
    "a longer answer": row(PROMPT, [40, 41, 42, 43]),
}


@pytest.mark.parametrize("given", NOT_WRITTEN.values(), ids=NOT_WRITTEN)
def test_of_other_tokens_nothing_is_known(log, given):
    log.keep(PROMPT, told(ANSWER))
    found = target(log, given)
    assert (found.log_probs == -torch.inf).all()
    assert (found.log_tail == 0).all()
    assert WrittenTeacher(log.file, MODEL, ENDS).told(batch(given)) == 0


def test_a_cut_answer_and_another_end_token_have_what_is_known_of_them(log):
    log.keep(PROMPT, told(ANSWER))
    cut = target(log, row(PROMPT, ANSWER[:2]))
    assert [entries(cut, at)[own] for at, own in enumerate(ANSWER[:2])] == pytest.approx([-0.9, -0.9])
    other = target(log, row(PROMPT, [*ANSWER[:3], 1]))
    assert entries(other, 2)[42] == pytest.approx(-0.9)
    assert entries(other, 3) == pytest.approx({200: -1.5, 201: -2.5})


def test_several_answers_to_one_prompt_and_several_turns_are_told_apart(log):
    second = [50, 0]
    log.keep(PROMPT, told(ANSWER))
    log.keep(PROMPT, told([40, 41, 43, 0], shift=1.0))
    log.keep([*PROMPT, *ANSWER, 9], told(second, shift=2.0))
    found = target(log, [*row(PROMPT, ANSWER), (9, False), *row([], second)])
    assert [entries(found, at)[200] for at in range(6)] == pytest.approx([-1.5] * 4 + [-3.5] * 2)
    assert entries(target(log, row(PROMPT, [40, 41, 43, 0])), 0)[200] == pytest.approx(-2.5)


def test_pads_and_rows_without_a_label_change_nothing(log):
    log.keep(PROMPT, told(ANSWER))
    alone = target(log, row(PROMPT, ANSWER))
    given = batch(row(PROMPT, ANSWER, after=[1, 1]), row([2] * 9, []))
    mask = torch.ones_like(given["input_ids"])
    mask[0, -2:] = 0
    found = WrittenTeacher(log.file, MODEL, ENDS).target(given | {"attention_mask": mask})
    assert torch.equal(found.ids, alone.ids)
    assert torch.equal(found.log_probs, alone.log_probs)


def test_what_cannot_be_learned_is_not_kept(log):
    log.keep(PROMPT, WrittenText([], told(ANSWER).scored, "is strange"))
    log.keep(PROMPT, told(ANSWER[:3]))
    assert not log.file.exists()


def test_a_log_that_goes_on_has_all_answers(log, tmp_path):
    log.keep(PROMPT, told(ANSWER))
    WrittenLog(tmp_path / WRITTEN, ENDS).keep([8], told([9, 0]))
    teacher = WrittenTeacher(log.file, MODEL, ENDS)
    assert teacher.told(batch(row(PROMPT, ANSWER), row([2, 2, 2, 2, 8], [9, 0]))) == 4
    assert teacher.told(batch(row([8], [9, 0]))) == 2


def test_ids_beyond_the_vocabulary_are_among_all_others(log):
    log.keep(PROMPT, told(ANSWER))
    found = WrittenTeacher(log.file, MODEL, ENDS, vocabulary=201).target(batch(row(PROMPT, ANSWER)))
    assert entries(found, 0) == pytest.approx({200: -1.5, 40: -0.9}, abs=1e-6)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "skew_kl", "total_variation", "adaptive_kl"])
def test_a_token_without_a_target_teaches_nothing(log, kind):
    """Its divergence is 0, and so is its gradient."""
    log.keep(PROMPT, told(ANSWER))
    student, unknown = llama(3), batch(row([5, 6, 8], ANSWER))
    head = head_of(student)
    states, labels = forward(student, head, unknown)
    found = target(log, row([5, 6, 8], ANSWER))
    total, _ = distillation_loss(states, head, labels, found, [Loss(kind)], denominator=len(labels))
    total.backward()
    assert abs(total.item()) < 1e-6
    assert student.get_input_embeddings().weight.grad.abs().max() < 1e-6


def test_layers_are_refused(log):
    log.keep(PROMPT, told(ANSWER))
    with pytest.raises(UserError, match="hidden_match"):
        WrittenTeacher(log.file, MODEL, ENDS).read(batch(row(PROMPT, ANSWER)), [1])
