"""strategies: the samples of each sample set, and the prompts of the held-out questions."""

import json

import pytest
from datasets import load_from_disk

import toy_questions
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.render import prompt_ids
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.strategies import SHIPPED
from tiny import tokenizer


def rows(run, sample_set, part="train"):
    return load_from_disk(run.path("strategies") / sample_set / part).to_list()


def test_a_sample_set_is_every_training_question_with_its_reference_as_the_answer(questions_run):
    known = {row["id"]: row for row in load_from_disk(questions_run.path("corpus") / "train").to_list()}
    for name, strategy in (("base/own", "base"), ("ground-truth/own", "ground-truth")):
        made = rows(questions_run, name)
        assert [one["id"] for one in made] == list(known)
        for one in made:
            row = known[one["id"]]
            start, own = one["answer_start"], one["teacher_answer_start"]
            prompts = SHIPPED[strategy]
            assert one["input_ids"][:start] == prompt_ids(tokenizer(), prompts.student, row, "", "")
            assert one["teacher_input_ids"][:own] == prompt_ids(tokenizer(), prompts.teacher, row, "", "")
            assert one["labels"][:start] == [IGNORE_INDEX] * start
            answer = tokenizer().decode(one["input_ids"][start:])
            assert answer == row["reference"] + "<|endoftext|>"
            assert one["input_ids"][start:] == one["teacher_input_ids"][own:] == one["labels"][start:]


def test_all_sample_sets_teach_the_same_tokens(questions_run):
    base, *others = (rows(questions_run, name) for name in ("base/own", "ground-truth/own", "base/another_question"))
    for sample_set in others:
        for one, other in zip(base, sample_set, strict=True):
            assert (one["input_ids"], one["labels"]) == (other["input_ids"], other["labels"])


def test_what_is_held_out_and_set_aside_is_in_no_sample_set(questions_run):
    parts = [rows(questions_run, "base/own"), rows(questions_run, "base/own", "validation")]
    parts.append(rows(questions_run, "base/held_out", "samples"))
    ids = [one["id"] for part in parts for one in part]
    assert len(set(ids)) == len(ids) == 60
    assert len(parts[1]) == 6


def test_the_same_samples_are_the_same_bytes(questions_run, questions_recipe, tmp_path):
    again = Run(tmp_path / "again")
    run_recipe(questions_recipe, again, until="strategies")
    for sample_set in ("base/own", "base/another_question", "base/held_out"):
        made = [run.manifest(f"strategies/{sample_set}")["outputs"] for run in (questions_run, again)]
        assert made[0] == made[1], "what depends on them would run again for nothing"


@pytest.mark.parametrize(
    ("override", "why"),
    [
        (
            "corpus.sequence_length=20",
            r"questions.jsonl:\d+: `strategies.base.student` makes a prompt of .* student's 20",
        ),
        ("corpus.teacher_length=80", r"questions.jsonl:\d+: `strategies.ground-truth.teacher` makes a prompt of"),
        (
            "strategies={ground-truth: {teacher: {user: '{{ colour }}'}}}",
            r"`strategies.ground-truth.teacher.user` uses the field `colour`, and the fields are",
        ),
    ],
)
def test_a_prompt_that_cannot_be_made_is_named(tmp_path, override, why):
    with pytest.raises(UserError, match=why):
        run_recipe(toy_questions.recipe(tmp_path, override), Run(tmp_path / "run"), until="strategies")


def test_an_answer_that_is_cut_is_counted(tmp_path, capsys):
    run = Run(tmp_path / "run")
    run_recipe(toy_questions.recipe(tmp_path, "corpus.sequence_length=64"), run, until="strategies")
    cut = sum(one["answer_cut"] > 0 for part in ("train", "validation") for one in rows(run, "base/own", part))
    assert run.manifest("strategies/base/own")["summary"]["answers_cut"] == cut > 0
    assert f"{cut} cut at `corpus.sequence_length` or `teacher_length`" in capsys.readouterr().out


def test_an_experiment_more_leaves_the_others_as_they_are(tmp_path, capsys):
    run = Run(tmp_path / "run")
    run_recipe(toy_questions.recipe(tmp_path, "experiments={base: {}}"), run, until="capture")
    before = json.dumps(run.manifest("capture/base/own"))
    capsys.readouterr()
    run_recipe(toy_questions.recipe(tmp_path, "experiments={base: {}, confidence: {}}"), run, until="capture")
    assert json.dumps(run.manifest("capture/base/own")) == before
    assert "capture/confidence/own: begins" in capsys.readouterr().out


def test_a_strategy_may_have_the_name_of_the_questions_that_are_held_out(tmp_path):
    strategy = "{teacher: {user: '{{ question }}'}}"
    names = [f"strategies={{held-out: {strategy}, held_out: {strategy}}}", "experiments={held-out: {}, held_out: {}}"]
    run = Run(tmp_path / "run")
    run_recipe(toy_questions.recipe(tmp_path, *names, "answers.strategy=held_out"), run, until="strategies")
    assert len(rows(run, "held-out/own")) == len(rows(run, "held_out/own")) > 0
    assert rows(run, "held_out/held_out", "samples")
