"""How many tokens a teacher of another tokenizer reads: counted, measured or assumed."""

import json

import pytest

import tokenizer_zoo
from potstill.data.token_bytes import TokenBytes
from potstill.planning.amounts import amounts_of
from potstill.planning.jobs import Situation, live_teachers
from potstill.planning.models import models_of
from potstill.planning.ranges import Range
from potstill.planning.sampling.measure import measured_amounts
from potstill.planning.teacher_tokens import teacher_tokens
from tiny import _config, documents, llama, tokenizer, toy_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A student of 400 tokens and a teacher of 300."""
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    losses = [{"kind": "alm"}, {"kind": "cross_entropy"}]
    given = {"capture": None, "tokenizer": {"vocab_size": 400}, "student": student, "distil.losses": losses}
    folder = tmp_path_factory.mktemp("plan")
    return toy_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()))


def the_teacher(recipe):
    (name,) = recipe.teachers
    return name


def test_teachers_of_one_tokenizer_read_the_students_tokens(tmp_path):
    assert teacher_tokens(toy_recipe(tmp_path), None, {}) == {}


def test_what_the_corpus_counted_is_exact_but_for_the_sample(recipe):
    made = {"alignment": {the_teacher(recipe): {"student_tokens": 200, "teacher_tokens": 300}}}
    found = teacher_tokens(recipe, made, {the_teacher(recipe): Range.exactly(9.0)})[the_teacher(recipe)]
    assert found.expected == pytest.approx(1.5)
    assert found.high < 1.6


def test_what_the_corpus_counted_of_conversations_is_exact(recipe):
    in_spans = {"student_tokens": 5, "teacher_tokens": 5}
    counts = {"learned": 9, "compared": 8, **in_spans, "student_reads": 200, "teacher_reads": 300}
    name = the_teacher(recipe)
    found = teacher_tokens(recipe, {"compared_turns": {name: counts}}, {name: Range.exactly(9.0)})[name]
    assert found == Range.exactly(1.5)


def test_without_any_text_it_is_assumed(recipe):
    found = teacher_tokens(recipe, None, {})[the_teacher(recipe)]
    assert 0.2 < found.expected < 0.5, "a tokenizer of 400 tokens makes many more than one of 50,000"


def test_a_text_on_this_machine_is_read_by_both_tokenizers(recipe):
    found = measured_amounts(recipe, tokenizer_zoo.trained()).teacher_tokens[the_teacher(recipe)]
    ours, theirs = (TokenBytes(one, "one").read(documents()) for one in (tokenizer_zoo.trained(), tokenizer()))
    expected = sum(1 + len(one.ids) for one in theirs) / sum(1 + len(one.ids) for one in ours)
    assert found.expected == pytest.approx(expected, rel=0.02)


def test_a_teacher_beside_a_training_reads_its_own_tokens(recipe):
    name = the_teacher(recipe)
    amounts = amounts_of(recipe, None, None, measured_amounts(recipe, tokenizer_zoo.trained()))
    (job,) = live_teachers(Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts, "fp32"), 4)
    assert job.batch.rows == 4
    assert job.batch.length == round(amounts.length.high * amounts.teacher_tokens[name].high)
