"""Samples, tokens and steps before a run, and where they are from."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import minimal
from potstill.planning.amounts import amounts_of, schedule
from potstill.planning.ranges import Range
from potstill.recipe import load_recipe

MADE = {"train_samples": 10, "train_tokens": 320, "supervised_tokens": 310, "held_out_documents": 4}
MADE |= {"held_out_tokens": 100, "validation_samples": 0}


def test_a_corpus_that_is_made_is_counted(tmp_path):
    found = amounts_of(minimal.recipe(tmp_path), MADE, None)
    assert found.samples == Range.exactly(10)
    assert found.tokens == Range.exactly(320)
    assert found.supervised == Range.exactly(310)
    assert "counted" in found.origin


def test_a_limit_tells_the_samples(tmp_path):
    quickstart = amounts_of(load_recipe("quickstart"), None, None)
    assert quickstart.samples == Range.exactly(200)
    assert quickstart.tokens == Range.exactly(25_600)
    padded = amounts_of(load_recipe("distilllama"), None, None)
    assert padded.samples.low == 540_000_000 // 127
    assert padded.samples.high == pytest.approx(540_000_000 // 63)


def test_facts_tell_a_published_text_and_an_interval_says_that_it_is_not_counted():
    found = amounts_of(load_recipe("babyllama", ["corpus.sources=[{path: no/such}]"]), None, None)
    assert found.tokens.expected == 13_000_000
    assert not found.tokens.is_exact
    assert "facts" in found.origin


def test_files_on_this_machine_are_estimated_by_their_size(tmp_path):
    (tmp_path / "text.txt").write_text("word " * 1000)
    recipe = minimal.recipe(tmp_path, f"corpus.sources=[{{path: {tmp_path / 'text.txt'}}}]", "corpus.train_tokens=null")
    found = amounts_of(recipe, None, None)
    assert found.tokens.low < 1000 < found.tokens.high * 1.3
    assert "estimated" in found.origin


def test_a_text_that_nobody_has_is_a_note(tmp_path):
    found = amounts_of(
        minimal.recipe(tmp_path, "corpus.sources=[{path: no/such}]", "corpus.train_tokens=null"), None, None
    )
    assert found.samples is None
    assert "`corpus.train_tokens`" in found.notes[0]


def test_questions_are_assumed_until_their_prompts_are_made():
    recipe = load_recipe("gsm8k", ["facts={}"])
    assumed = amounts_of(recipe, None, None)
    assert "`facts.text.prompt_tokens`" in assumed.notes[0]
    assert assumed.samples == Range.exactly(2638)
    made = {"train_questions": 2000, "held_out_questions": 1319}
    known = amounts_of(recipe, made, {"samples": 10, "tokens": 1500, "answer_tokens": 400})
    assert known.samples == Range.exactly(2000)
    assert known.answer == Range.exactly(40)
    assert known.length == Range.exactly(150)
    assert known.notes == ()


def test_generated_questions_are_as_many_as_the_recipe_says():
    found = amounts_of(load_recipe("arithmetic", ["facts={}"]), None, None)
    assert found.held_out_samples == Range.exactly(500)
    assert found.samples == Range.exactly(10_000 - 500 - 200)


@pytest.mark.parametrize("samples", [1, 7, 64, 65, 1000])
@pytest.mark.parametrize("fields", [{}, {"gradient_accumulation_steps": 3, "num_train_epochs": 1.5}, {"max_steps": 9}])
def test_steps_are_those_of_transformers(samples, fields):
    given = {"per_device_train_batch_size": 4, **fields}
    found = schedule(given, Range.exactly(samples))
    arguments = SimpleNamespace(max_steps=-1, num_train_epochs=3.0, gradient_accumulation_steps=1, **{})
    vars(arguments).update(given)
    batches = math.ceil(samples / 4)
    each = max(
        batches // arguments.gradient_accumulation_steps + (batches % arguments.gradient_accumulation_steps > 0), 1
    )
    expected = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * each)
    assert found.steps == Range.exactly(expected)


def test_a_batch_has_the_length_of_its_longest_sample(tmp_path):
    lengths = [float(one) for one in np.random.default_rng(0).integers(2, 60, 40)]
    found = replace(
        amounts_of(minimal.recipe(tmp_path), None, None), lengths=tuple(lengths), length=Range(2.0, 30.0, max(lengths))
    )
    drawn = np.random.default_rng(1).choice(lengths, size=(20_000, 8)).max(axis=1)
    assert found.in_batch(8).expected == pytest.approx(drawn.mean(), rel=0.01)
    assert found.in_batch(1).expected == pytest.approx(np.mean(lengths))
    assert found.in_batch(10_000).high <= max(lengths)
    assert replace(found, lengths=()).in_batch(8) == found.length


def test_ranks_share_the_samples():
    fields = {"per_device_train_batch_size": 4, "num_train_epochs": 1}
    assert schedule(fields, Range.exactly(64), ranks=4).steps == Range.exactly(4)
    assert schedule({"num_train_epochs": 1}, None) is None
