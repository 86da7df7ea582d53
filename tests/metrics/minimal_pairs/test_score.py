"""Log-probabilities are the model's own with any batches, and a real model prefers grammatical English."""

import json

import numpy as np
import pytest
import torch

import stories
from potstill.errors import UserError
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.minimal_pairs.accuracy import accuracy
from potstill.metrics.minimal_pairs.read import Subtask, pairs_from_files
from potstill.metrics.minimal_pairs.score import PairScores, Reading, score_pairs
from tiny import VOCABULARY, gpt2, llama, tokenizer

FEW = Resampling(resamples=500)
BLIMP = stories.SHARED / "blimp"
SUBTASKS = [
    Subtask(
        "order",
        ("the boats carry salt.", "many small boats sail to the sea", "nobody asks", "the old town", "fish"),
        ("the carry boats salt.", "many small boats sails to the sea", "asks nobody", "the old town", "the fish"),
    ),
    Subtask("number", ("bread costs three coins", "naïve kings ask"), ("bread cost three coins", "naïve kings asks")),
]
READINGS = [Reading(start, space) for start in (0, None) for space in (False, True)]


def scored(model, reading=READINGS[0], subtasks=SUBTASKS, with_tokenizer=None, **how) -> PairScores:
    return score_pairs(model, with_tokenizer or tokenizer(), subtasks, reading, lambda _: None, **how)


def by_hand(model, sentence, reading) -> float:
    """One sentence at a time, one token after the other, in float64."""
    ids = tokenizer()(" " + sentence if reading.prefix_space else sentence)["input_ids"]
    ids = ids if reading.start is None else [reading.start, *ids]
    total = 0.0
    for known in range(1, len(ids)):
        logits = model(torch.tensor([ids[:known]]), use_cache=False).logits[0, -1]
        total += float(logits[ids[known]] - logits.logsumexp(-1))
    return total


@pytest.mark.parametrize("reading", READINGS, ids=str)
@pytest.mark.parametrize("make", [llama, gpt2])
def test_scores_are_the_sums_of_what_the_model_gives_each_token(make, reading):
    # "fish" has more than one token, so that without a start token one can still be predicted.
    model = make(0).double()
    with torch.no_grad():
        found = scored(model, reading)
        for subtask in SUBTASKS:
            for side in ("good", "bad"):
                expected = [by_hand(model, sentence, reading) for sentence in getattr(subtask, side)]
                np.testing.assert_allclose(getattr(found, side)[subtask.name], expected, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_batches_change_nothing(make, batch_size):
    whole, other = scored(make(0)), scored(make(0), batch_size=batch_size)
    for name in whole.good:
        np.testing.assert_allclose(other.good[name], whole.good[name], rtol=1e-5)
        np.testing.assert_allclose(other.bad[name], whole.bad[name], rtol=1e-5)


def test_the_side_on_which_a_tokenizer_pads_changes_nothing():
    left, right = (
        tokenizer(),
        tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, padding_side="left"),
    )
    one, other = (scored(gpt2(0), with_tokenizer=each) for each in (left, right))
    assert all(np.array_equal(one.bad[name], other.bad[name]) for name in one.bad)


def test_no_batch_holds_a_pad_and_every_sentence_is_told_of(monkeypatch):
    model, seen, done = llama(0), [], []
    own = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: seen.append(given) or own(**given))
    score_pairs(model, tokenizer(), SUBTASKS, READINGS[0], done.append, batch_size=2)
    assert all("attention_mask" not in given and given["input_ids"].shape[0] <= 2 for given in seen[1:])
    assert sum(done) == sum(2 * len(subtask.good) for subtask in SUBTASKS)


def test_a_model_whose_head_is_not_taken_apart_is_scored_by_its_own_logits(monkeypatch):
    expected = scored(llama(0))
    monkeypatch.setattr("potstill.metrics.minimal_pairs.score.head_of", lambda model: None)
    found = scored(llama(0))
    for name in expected.good:
        np.testing.assert_allclose(found.good[name], expected.good[name], rtol=1e-5)


def test_sentences_that_are_the_same_to_the_model_tie_exactly():
    found = scored(llama(0, initializer_range=1.0), batch_size=1)
    assert found.good["order"][3] == found.bad["order"][3]
    assert (found.good["order"] != found.bad["order"]).sum() == 4


def test_a_model_that_knows_nothing_likes_the_shorter_sentence():
    flat = gpt2(0)
    with torch.no_grad():
        flat.lm_head.weight.zero_()
    found = scored(flat)
    lengths = [len(tokenizer()(sentence)["input_ids"]) for sentence in SUBTASKS[0].good]
    np.testing.assert_allclose(found.good["order"], -np.log(VOCABULARY) * np.array(lengths), rtol=1e-6)


def test_a_sentence_gets_its_start_token_once():
    starts = Reading(start=0, prefix_space=False)
    twice, once = starts.encode(tokenizer(), ["<|endoftext|>the sea", "the sea"])
    assert twice == once
    assert once[0] == 0


@pytest.mark.parametrize(
    ("bos", "eos", "start", "expected"),
    [
        ("<|pad|>", "<|endoftext|>", "bos", 1),
        ("<|pad|>", "<|endoftext|>", "eos", 0),
        ("<|pad|>", "<|endoftext|>", "none", None),
        (None, "<|endoftext|>", "bos", 0),
        (None, None, "bos", None),
    ],
)
def test_where_a_sentence_starts(bos, eos, start, expected):
    own = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, bos_token=bos, eos_token=eos)
    assert Reading.of(own, start).start == expected


def test_a_start_that_is_not_there_is_refused():
    own = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer)
    with pytest.raises(UserError, match="no EOS token to start from"):
        Reading.of(own, "eos")


def test_what_cannot_be_scored_is_refused_by_its_text():
    endless = Subtask("long", ("the sea " * 200,), ("the sea",))
    with pytest.raises(UserError, match=r"'the sea .* tokens, but the model has only 128 positions"):
        scored(llama(0), subtasks=[*SUBTASKS, endless])
    with pytest.raises(UserError, match="no token of 'a' can be predicted"):
        scored(llama(0), Reading(None, False), [Subtask("short", ("the sea",), ("a",))])


def test_scores_survive_json():
    found = scored(llama(0))
    again = PairScores.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.reading == found.reading
    assert again.pairs == found.pairs
    for side in ("good", "bad"):
        before, after = getattr(found, side), getattr(again, side)
        assert list(before) == list(after)
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_other_pairs_have_another_fingerprint():
    turned = [Subtask(each.name, each.bad, each.good) for each in SUBTASKS]
    assert len({scored(llama(0), subtasks=each).pairs for each in (SUBTASKS, turned, SUBTASKS[:1])}) == 3


@pytest.mark.skipif(not BLIMP.is_dir(), reason="../shared/data/blimp is not here")
def test_blimp_is_67_subtasks_of_1000_pairs():
    subtasks = pairs_from_files(str(BLIMP), "blimp")
    assert len(subtasks) == 67
    assert {len(subtask.good) for subtask in subtasks} == {1000}


@pytest.mark.skipif(not BLIMP.is_dir() or not stories.FOLDER.is_dir(), reason="../shared/data is not here")
def test_a_small_real_model_knows_that_subjects_and_verbs_agree():
    # 260K parameters, trained on children's stories.
    names = ("determiner_noun_agreement_1", "regular_plural_subject_verb_agreement_1", "anaphor_gender_agreement")
    subtasks = [each.first(200) for each in pairs_from_files(str(BLIMP), "blimp") if each.name in names]
    reading = Reading.of(stories.tokenizer())
    real = scored(stories.model(), reading, subtasks, stories.tokenizer())
    figure = accuracy("stories", "blimp", [real], resampling=FEW)
    assert figure.overall.low > 0.5
    turned = [Subtask(each.name, each.bad, each.good) for each in subtasks]
    other = accuracy(
        "stories",
        "blimp",
        [scored(stories.model(), reading, turned, stories.tokenizer())],
        resampling=FEW,
    )
    assert other.overall.value == pytest.approx(1 - figure.overall.value)
