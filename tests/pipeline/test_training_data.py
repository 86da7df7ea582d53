"""Training data of students, controls, captures and teachers, from text and from questions."""

import pytest
from datasets import load_from_disk

import toy_questions
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.render import prompt_ids
from potstill.data.random_offsets import RandomOffsets
from potstill.pipeline import training_data
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe.step import Step
from potstill.recipe.strategies import SHIPPED
from tiny import tokenizer, toy_recipe


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample_sets")
    recipe, run = toy_questions.recipe(folder), Run(folder / "run")
    run_recipe(recipe, run, until="strategies")
    return recipe, run


def test_a_student_and_a_capture_learn_the_same_sample_set(asked):
    recipe, run = asked
    for name, sample_set in (("base", "base/own"), ("placebo", "base/another_question")):
        student = training_data.for_student(Work(recipe, run, Step("distil", 0, name)), name, 0)
        captured = training_data.for_sample_set(Work(recipe, run, Step("capture", name=sample_set)), sample_set)
        assert student.train.to_list() == captured.train.to_list()
        assert student.collate == captured.collate
        assert student.collate.same_answer is (name == "base")
        assert len(student.validation) == 6


def test_a_teacher_is_taught_each_strategy_that_will_ask_it(asked):
    recipe, run = asked
    learned = training_data.for_teacher(Work(recipe, run, Step("pretrain", name="p")), 0)
    rows = {row["id"]: row for row in load_from_disk(run.path("corpus") / "train").to_list()}
    expected = []
    for row in rows.values():
        for strategy in ("base", "ground-truth"):
            prompt = prompt_ids(tokenizer(), SHIPPED[strategy].teacher, row, "", "")
            answer = [*tokenizer()(row["reference"])["input_ids"], tokenizer().eos_token_id]
            expected.append({"input_ids": prompt + answer, "labels": [IGNORE_INDEX] * len(prompt) + answer})
    assert [{name: values.tolist() for name, values in row.items()} for row in learned.train] == expected
    assert len(learned.validation) == 12


@pytest.mark.parametrize("offsets", [True, False])
def test_text_is_learned_as_it_lies_or_from_random_offsets(toy_folder, tmp_path, offsets):
    override = f"corpus.random_offset={str(offsets).lower()}"
    recipe, run = toy_recipe(toy_folder, override, "capture=null"), Run(tmp_path / "run")
    run_recipe(recipe, run, until="corpus")
    work = Work(recipe, run, Step("distil", 0))
    assert isinstance(training_data.for_student(work, None, 0).train, RandomOffsets) is offsets
    assert isinstance(training_data.for_teacher(work, 0).train, RandomOffsets) is offsets
    assert not isinstance(training_data.for_sample_set(work, None).train, RandomOffsets)
    assert training_data.for_student(work, None, 0).validation is None
