"""strategies, for conversations: the teachers alone read a strategy's words, and all students learn the same tokens."""

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

import toy_conversations
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.evaluation.inspect_targets import inspect
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from toy_chat import chat_tokenizer

STRATEGIES = (
    'strategies={"careful": {"teacher": {"system": "{{ system }} Think."}}, '
    '"told": {"teacher": {"user": "{{ question }} ({{ reference }})"}}}'
)
STUDENTS = 'experiments={"plain": {"strategy": "base"}, "careful": {}, "told": {}}'
GIVEN = (
    *(STRATEGIES, STUDENTS, "corpus.teacher.sequence_length=256", "capture={keep: hidden}", "control=null"),
    *("distil.training.max_steps=1", "corpus.train=12"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    run, recipe = Run(folder / "run"), toy_conversations.recipe(folder, *GIVEN)
    run_recipe(recipe, run, "distil")
    return folder, run


def samples(run, strategy, part="train"):
    return load_from_disk(run.path(Step("strategies", name=f"{strategy}/own")) / part)


def learned(row, side=""):
    return [label for label in row[f"{side}labels"] if label != IGNORE_INDEX]


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_students_read_and_learn_the_same_and_the_teachers_read_the_words(made, part):
    _, run = made
    plain, careful, told = (samples(run, name, part) for name in ("base", "careful", "told"))
    assert len(plain) == len(careful) == len(told) > 0
    for base, thinking, shown in zip(plain, careful, told, strict=True):
        for row in (base, thinking, shown):
            assert (row["input_ids"], row["labels"]) == (base["input_ids"], base["labels"])
            assert learned(row) == learned(row, "teacher_") != []
        assert base["teacher_input_ids"] == base["input_ids"]
        assert "Think." in chat_tokenizer().decode(thinking["teacher_input_ids"])
        answer = chat_tokenizer().decode(learned(base)).partition("<|im_end|>")[0]
        assert f"({answer})" in chat_tokenizer().decode(shown["teacher_input_ids"])
        assert "Think." not in chat_tokenizer().decode(base["input_ids"])


def test_a_capture_is_compared_with_its_teacher_under_the_same_words(made):
    _, run = made
    found = inspect(run.path(Step("capture", name="careful/own")) / "t", samples=3)
    assert found["fidelity"]["kl"] < 1e-4


def test_other_words_make_other_students_and_captured_targets_are_the_teachers_own(made):
    folder, run = made
    captured = students(run)
    run_recipe(toy_conversations.recipe(folder, *GIVEN, "capture=null"), run, "distil")
    for name, weights in students(run).items():
        torch.testing.assert_close(captured[name], weights, atol=2e-4, rtol=0)
    differ = [
        max(float((one - two[key]).abs().max()) for key, one in captured["plain"].items())
        for two in (captured["careful"], captured["told"])
    ]
    assert min(differ) > 2e-3


def students(run):
    folder = run.folder / "distil"
    return {
        name: load_file(folder / name / "seed-0/student/model.safetensors") for name in ("plain", "careful", "told")
    }


def test_the_teachers_words_and_its_turns_go_together(tmp_path):
    recipe = toy_conversations.recipe(
        tmp_path,
        STRATEGIES.replace("told", "base").replace("({{ reference }})", "please"),
        'experiments={"careful": {}}',
        "corpus.teacher.sequence_length=256",
        "generate={by: t, strategy: careful, max_new_tokens: 16, temperature: 1.0}",
    )
    run = Run(tmp_path / "run")
    run_recipe(recipe, run, "strategies")
    written = [
        row["messages"][turn["message"]]["content"].strip()
        for row in read_jsonl(run.path("generate") / "answers.jsonl")
        for turn in row["provenance"]["turns"]
    ]
    said = [chat_tokenizer().decode(learned(row)).partition("<|im_end|>")[0].strip() for row in samples(run, "careful")]
    assert any(len(one) > 2 and one in said for one in written)


def test_strategies_that_leave_nothing_say_why(tmp_path):
    recipe = toy_conversations.recipe(tmp_path, 'experiments={"a": {"strategy": "ground-truth"}}')
    with pytest.raises(UserError, match=r"none of the \d+ conversations .* ground-truth .*too long.*; shorten"):
        run_recipe(recipe, Run(tmp_path / "run"), "strategies")
