"""A live teacher of another tokenizer: what it says of spans, and which teachers and losses cannot be across."""

from types import SimpleNamespace

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.prompts.collator import teacher_batch
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
from potstill.teachers.across_tokenizers import TeacherAcross, across_tokenizers, shared_tokens
from potstill.teachers.live import LiveTeacher
from tiny import documents, llama, tokenizer
from tokenizer_zoo import stories, trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")


def teacher():
    return LiveTeacher(llama(seed=3, vocab_size=400, max_position_embeddings=256))


def batch_of(across, count=4):
    rows = [{"input_ids": [0, *found.ids.tolist()]} for found in OURS.read(documents(count, seed=9))]
    return across.collator(Collator(1))(rows)


def by_hand(model, ids, first, end, opens):
    """A span's log-likelihood, from the logits of its row alone."""
    log_p = model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    words = torch.zeros(400, dtype=torch.bool)
    words[: len(THEIRS.each)] = torch.from_numpy(THEIRS.begins_word)
    mass = log_p[:, words].logsumexp(-1)
    own = sum(log_p[at, ids[at + 1]] for at in range(first, end))
    return own + mass[end] - (0 if opens else mass[first])


def test_a_target_has_the_likelihoods_of_the_teachers_own_rows():
    live = teacher()
    across = TeacherAcross(live, OURS, THEIRS, ["alm"])
    batch = teacher_batch(batch_of(across, count=2))
    found = across.target(batch)
    assert len(found) == len(batch["same_byte"])
    assert found.pairs is None
    counts = (batch["attention_mask"].sum(1) - 1).tolist()
    expected = torch.zeros(len(found.group), dtype=torch.float64)
    for span, group in zip(batch["spans"].tolist(), found.group.tolist(), strict=True):
        row, begin = (0, 0) if span[2] < counts[0] else (1, counts[0])
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        with torch.no_grad():
            expected[group] += by_hand(live.model, ids, span[2] - begin, span[3] - begin, span[4])
    torch.testing.assert_close(found.log_q.double(), expected, rtol=1e-4, atol=1e-4)
    assert 0 < found.used.sum() < len(found.used) + 1


def test_pairs_are_the_teachers_rows_at_the_same_byte():
    across = TeacherAcross(teacher(), OURS, THEIRS, ["uld"])
    batch = teacher_batch(batch_of(across))
    found, whole = across.target(batch), across.teacher.target(batch)
    assert isinstance(whole, HiddenTarget)
    assert found.pairs is not None
    same = batch["same_byte"]
    assert torch.equal(found.pairs.is_paired, same >= 0)
    assert torch.equal(found.pairs.whole.hidden, whole.hidden[same[same >= 0]])
    assert not len(found.spans)  # no loss reads them, so no likelihood of the teacher's is computed


def test_shared_tokens_are_the_same_bytes():
    found = shared_tokens(OURS, THEIRS)
    assert len(found) > 256
    assert all(OURS.each[one] == THEIRS.each[other] != b"" for one, other in found)
    # Of sentencepiece's byte token and the letter, a tokenizer takes the letter.
    letters = dict(shared_tokens(OURS, TokenBytes(stories(), "stories")))
    assert stories().convert_ids_to_tokens(letters[tokenizer().convert_tokens_to_ids("e")]) == "e"


def test_a_teacher_without_logits_of_its_own_head_is_the_same(monkeypatch):
    live = teacher()
    across = TeacherAcross(live, OURS, THEIRS, ["uld", "alm"])
    batch = teacher_batch(batch_of(across))
    found = across.target(batch)
    whole = live.target(batch)
    assert isinstance(whole, HiddenTarget)
    logits = LogitsTarget(whole.hidden @ whole.head.weight.T)
    monkeypatch.setattr(live, "target", lambda batch, temperature=1.0: logits)
    torch.testing.assert_close(across.target(batch).log_q, found.log_q)


def across(losses, teachers=None, names=None, ours=None, theirs=None, **more):
    tokenizers = ours or tokenizer(), theirs or trained()
    return across_tokenizers([teacher()] if teachers is None else teachers, names, losses, *tokenizers, **more)


def test_without_such_a_loss_teachers_stay_what_they_are():
    given = [teacher()]
    assert across_tokenizers(given, None, [Loss("forward_kl")], None, None) is given
    assert across_tokenizers([], None, [Loss("alm")], None, None) == []
    assert isinstance(across([Loss("alm"), Loss("cross_entropy")])[0], TeacherAcross)


REFUSED = {
    "a divergence": ({"losses": [Loss("alm"), Loss("jsd")]}, "alm is for .* and jsd compares token by token.*use alm"),
    "layers": ({"losses": [Loss("uld"), HiddenLoss()]}, "uld is for .* and hidden_match compares token by token"),
    "logits": (
        {"losses": [Loss("alm")], "teachers": [SimpleNamespace(), SimpleNamespace()], "mix": "logits"},
        "alm averages the losses of teachers, whose tokens differ; leave `mix` out",
    ),
    "fewer tokenizers": (
        {"losses": [Loss("alm")], "teachers": [SimpleNamespace(), SimpleNamespace()], "theirs": [trained()]},
        "`teacher_tokenizer` has 1 tokenizers for 2 teachers",
    ),
    "all the same": (
        {
            "losses": [Loss("alm")],
            "teachers": [SimpleNamespace(), SimpleNamespace()],
            "theirs": [tokenizer(), tokenizer()],
        },
        "the teacher 0 and the teacher 1 have the student's own; use forward_kl",
    ),
    "the same": (
        {"losses": [Loss("alm")], "theirs": tokenizer()},
        "alm is for a teacher of another tokenizer, but the teacher has the student's own; use forward_kl",
    ),
    "a server": (
        {"losses": [Loss("alm")], "teachers": [SimpleNamespace(gives_whole_distributions=False)]},
        "alm needs a teacher that tells its whole distributions",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_across_is_refused_by_name(name):
    given, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        across(**given)


def test_each_of_several_teachers_is_across_by_itself():
    found = across([Loss("alm")], [teacher(), teacher()], ("maths", "chat"), theirs=[trained(), tokenizer()])
    assert [one.theirs.name for one in found] == ["the teacher maths", "the teacher chat"]
    assert [one.theirs.tokenizer for one in found] == [trained(), tokenizer()]


@pytest.mark.parametrize(("ours", "theirs"), [(tokenizer(), None), (None, trained())])
def test_a_missing_tokenizer_is_named(ours, theirs):
    missing = "teacher_tokenizer" if theirs is None else "processing_class"
    with pytest.raises(UserError, match=f"alm reads the text of both models; give `{missing}`"):
        across_tokenizers([teacher()], None, [Loss("alm")], ours, theirs)


def test_shared_tokens_needs_tokens_that_are_the_students_alone():
    from potstill.data.tokenizers import cut_tokenizer

    cut = cut_tokenizer(trained(), 300, "trained")
    with pytest.raises(UserError, match=r"shared_tokens: all 297 tokens of the student are tokens of the teacher.*alm"):
        across([Loss("shared_tokens")], ours=cut)
    assert across([Loss("uld")], ours=cut)
