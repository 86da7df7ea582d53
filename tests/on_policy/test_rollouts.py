"""Answers of a model in training: what it would write if it were not, by its own random numbers."""

import copy

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import AlignedCollator
from potstill.errors import UserError
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import Rollout, RolloutWriter, as_in_use, chosen_rows
from potstill.recipe.on_policy import OnPolicy
from tiny import gpt2, llama, padded, tokenizer

PROMPTS = [SamplePrompt([5, 6, 7]), SamplePrompt([8, 9]), SamplePrompt([10, 11, 12, 13])]


def asked(prompts=PROMPTS, samples=1):
    return {(str(at), sample): prompt for at, prompt in enumerate(prompts) for sample in range(samples)}


def writer(model, vocabulary=None, seed=0, **given):
    return RolloutWriter(model, tokenizer(), OnPolicy(**{"max_new_tokens": 8, **given}), seed, vocabulary)


def written(model, prompts=PROMPTS, step=0, **given):
    return [one.ids for one in writer(model, **given).write(asked(prompts, given.get("samples", 1)), step).values()]


def test_dropout_is_off_and_every_module_gets_its_mode_back():
    model = gpt2()
    in_use = written(model)
    model.train()
    model.transformer.h[1].eval()
    before = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    assert written(model) == in_use
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


def test_the_mode_comes_back_after_an_error():
    model = gpt2().train()
    with pytest.raises(RuntimeError, match="broken"), as_in_use(model):
        raise RuntimeError("broken")
    assert model.training


@pytest.mark.parametrize("family", [llama, gpt2])
def test_an_answer_depends_neither_on_its_neighbours_nor_on_the_batch(family):
    together = written(family())
    assert written(family(), batch_size=1) == together
    assert written(family(), PROMPTS[:2]) == together[:2]
    assert written(family(), seed=1) != together


def test_a_written_token_is_the_models_own():
    """Nearly greedy, each token is the likeliest after all before it, in a forward of the whole."""
    model = llama()
    for prompt, ids in zip(PROMPTS, written(model, sampling={"temperature": 0.001}), strict=True):
        logits = model(torch.tensor([[*prompt.student, *ids]])).logits[0]
        assert logits[len(prompt.student) - 1 : -1].argmax(-1).tolist() == ids


def test_samples_of_a_prompt_differ_and_none_ends_in_the_middle():
    model = llama()
    found = writer(model, samples=4).write(asked(samples=4), step=3)
    assert len({tuple(one.ids) for key, one in found.items() if key[0] == "0"}) > 1
    assert list(found) == [*asked(samples=4)]
    for one in found.values():
        ends = [token in (0,) for token in one.ids]
        assert not any(ends[:-1])
        assert one.finished == ends[-1]
        assert one.finished or len(one.ids) == 8
        assert one.written_at == 3


def test_ids_without_a_token_and_ids_that_no_teacher_has_are_never_written():
    assert max(token for ids in written(padded(llama(), 400)) for token in ids) < 300
    assert max(token for ids in written(llama(), vocabulary=250) for token in ids) < 250


def test_the_sample_of_an_answer_teaches_all_of_it_and_nothing_else():
    one = Rollout(SamplePrompt([5, 6], [7]), [8, 9, 0], True, 0)
    batch = AlignedCollator(1)([one.sample()])
    assert batch["input_ids"].tolist() == [[5, 6, 8, 9, 0]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 8, 9, 0]]
    assert batch["teacher_labels"].tolist() == [[IGNORE_INDEX, 8, 9, 0]]
    alone = Rollout(SamplePrompt([5, 6]), [8], False, 0)
    assert Collator(1)([alone.sample()])["labels"].tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 8]]
    assert Rollout.from_json(one.as_json()) == one


def test_a_model_without_room_is_refused():
    with pytest.raises(UserError, match=r"`on_policy.max_new_tokens` is 128, and the student has only 128 positions"):
        writer(llama(), max_new_tokens=128)
    assert writer(llama(), max_new_tokens=120).fits(SamplePrompt([5] * 8))
    assert not writer(llama(), max_new_tokens=120).fits(SamplePrompt([5] * 9))


def test_a_tokenizer_without_an_end_is_refused():
    endless = copy.deepcopy(tokenizer())
    endless.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        RolloutWriter(llama(), endless, OnPolicy(max_new_tokens=8), 0, None)


def test_chosen_rows_are_as_many_as_asked_and_any():
    sizes = [4, 4, 2]
    found = [chosen_rows(sizes, 5, seed) for seed in range(200)]
    assert all(sum(map(len, rows)) == 5 for rows in found)
    assert all(row < size for rows in found for own, size in zip(rows, sizes, strict=True) for row in own)
    counts = torch.zeros(10)
    for rows in found:
        for first, own in zip((0, 4, 8), rows, strict=True):
            counts[[first + row for row in own]] += 1
    assert counts.min() > 70
    assert counts.max() < 130
    assert chosen_rows(sizes, 0, 1) == [[], [], []]
