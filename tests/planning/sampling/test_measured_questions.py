"""Questions that are measured before a run have the prompts that the stage `strategies` makes of them."""

import json

import pytest

import minimal
from potstill.data.questions import split_questions
from potstill.errors import UserError
from potstill.planning.ranges import Range
from potstill.planning.sampling import measured_questions as module
from potstill.planning.sampling.measured_questions import measured_questions
from tiny import tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    rows = [
        {"question": f"What is {number} + 1?", "answer": "So " * (number % 9) + f"#### {number + 1}"}
        for number in range(90)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe_of(folder, *overrides):
    source = f"corpus.questions=[{{path: {folder / 'questions.jsonl'}}}]"
    return minimal.questions(folder, source, "corpus.sequence_length=512", "generate=null", *overrides)


@pytest.mark.parametrize("part", [1000, 30])
def test_lengths_are_counted_or_lie_in_the_interval_of_a_part(folder, part, monkeypatch):
    recipe = recipe_of(folder)
    train = split_questions(recipe.corpus).train
    by_set = module._samples(recipe, recipe.corpus, tokenizer(), train)
    every = [one for several in by_set.values() for one in several]
    monkeypatch.setattr(module, "QUESTIONS", part)
    found = measured_questions(recipe, recipe.corpus, tokenizer())
    assert found.samples == Range.exactly(len(train))
    length = sum(len(one["input_ids"]) for one in every) / len(every)
    assert found.length.low - 1e-9 <= length <= found.length.high
    if part > len(train):
        assert found.length.expected == pytest.approx(length)
    assert sum(len(one["teacher_input_ids"]) for one in every) / len(every) <= found.teacher_length.high
    for name, several in by_set.items():
        read = sum(len(one["teacher_input_ids"]) for one in several) / len(several)
        assert found.teacher_lengths[name].low - 1e-9 <= read <= found.teacher_lengths[name].high
    assert {len(several) for several in by_set.values()} == {len(train)}
    assert len(found.lengths) == min(part, len(train))
    answer = sum(len(one["input_ids"]) - one["answer_start"] for one in every) / len(every)
    assert found.answer.low - 1e-9 <= answer <= found.answer.high
    assert found.lost["answers that lose their end"].high == 0


def test_answers_without_room_are_told(folder):
    every = measured_questions(recipe_of(folder), recipe_of(folder).corpus, tokenizer()).length
    recipe = recipe_of(folder, f"corpus.sequence_length={round(every.high) - 3}", "corpus.teacher_length=2048")
    found = measured_questions(recipe, recipe.corpus, tokenizer())
    assert found.lost["answers that lose their end"].expected > 0


def test_the_length_of_answers_that_a_teacher_writes_is_assumed(folder):
    recipe = recipe_of(folder, "generate={by: t, max_new_tokens: 64}")
    found = measured_questions(recipe, recipe.corpus, tokenizer())
    assert "assumed" in found.origin
    assert found.answer.high == 64
    assert found.lengths == ()


def test_each_sample_set_has_the_length_of_its_own_prompts(folder):
    recipe = recipe_of(folder)
    read = measured_questions(recipe, recipe.corpus, tokenizer()).teacher_lengths
    assert set(read) == {"base/own", "confidence/own", "base/another_question"}
    assert read["confidence/own"].expected > read["base/own"].expected == read["base/another_question"].expected


def test_a_prompt_that_leaves_no_room_is_a_sentence(folder):
    recipe = recipe_of(folder, "corpus.sequence_length=8")
    with pytest.raises(UserError, match="leaves no room"):
        measured_questions(recipe, recipe.corpus, tokenizer())
