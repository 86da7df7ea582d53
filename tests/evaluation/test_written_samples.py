"""Written samples: what students wrote in training is read from the run folder, and decoded for the page."""

import gzip
import json
from types import SimpleNamespace

import pytest

from potstill.errors import UserError
from potstill.evaluation.written_samples import on_policy_trainings
from potstill.files.atomic import write_json
from potstill.pipeline import artifacts
from potstill.pipeline.run_folder import Run
from potstill.pipeline.work import Work
from potstill.recipe.step import Step
from tiny import tokenizer

PROMPT, ANSWER = "the river <b>", " is long"


def sample(step, **fields):
    ids = tokenizer()(ANSWER)["input_ids"]
    written = {"prompt_ids": tokenizer()(PROMPT)["input_ids"], "ids": ids, "stopped": step % 2 == 0}
    return {"step": step, "written_at": step - 1, **written, "reverse_kl": [step / 10] * len(ids), **fields}


def write(work, name, rows):
    folder = work.run.path(Step("distil", 4, name))
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rollouts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    logged = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "on_policy/length": 3.0}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged), encoding="utf-8")
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A run of two students and two seeds."""
    monkeypatch.setattr(artifacts, "tokenizer", lambda work: tokenizer())
    recipe = SimpleNamespace(variants={"half": None, "whole": None}, seeds=[4, 5])
    return Work(recipe, Run(tmp_path / "run"), Step("report"))


def test_a_run_in_which_nobody_wrote_has_nothing(work):
    assert on_policy_trainings(work, str.upper) == ()


def test_each_student_that_wrote_is_read_with_its_name(work):
    write(work, "whole", [sample(step) for step in (20, 3, *range(5, 15))])
    (found,) = on_policy_trainings(work, str.upper)
    assert (found.curve.model, found.curve.seed) == ("STUDENT WHOLE", 4)
    assert found.curve.points == ({"step": 2, "length": 3.0},)
    assert [answer.step for answer in found.early] == [3, 5, 6, 7]
    assert [answer.step for answer in found.late] == [12, 13, 14, 20]
    assert [step for step, _ in found.rollouts] == [3, *range(5, 15), 20]
    assert found.rollouts[0][1] == tuple(sample(3)["reverse_kl"])
    answer = found.early[0]
    assert (answer.written_at, answer.prompt, answer.stopped) == (2, tokenizer().decode(sample(3)["prompt_ids"]), False)
    assert "".join(text for text, _ in answer.tokens) == tokenizer().decode(sample(3)["ids"])
    assert {kl for _, kl in answer.tokens} == {0.3}
    assert found.preflight == ""


def test_students_stand_in_the_order_of_the_recipe(work):
    for name in ("whole", "half"):
        write_json(write(work, name, [sample(1)]) / "preflight.json", {"sentence": f"go, {name}"})
    assert [one.preflight for one in on_policy_trainings(work, str)] == ["go, half", "go, whole"]


@pytest.mark.parametrize(("count", "early", "late"), [(0, 0, 0), (1, 1, 0), (2, 1, 1), (5, 3, 2), (8, 4, 4)])
def test_no_answer_is_shown_twice(work, count, early, late):
    write(work, "half", [sample(step) for step in range(count)])
    (found,) = on_policy_trainings(work, str)
    assert (len(found.early), len(found.late)) == (early, late)
    shown = [answer.step for answer in (*found.early, *found.late)]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("kl", [{}, {"reverse_kl": None}, {"reverse_kl": []}])
def test_a_teacher_of_one_number_a_token_leaves_no_kl(work, kl):
    row = {name: value for name, value in sample(1).items() if name != "reverse_kl"}
    write(work, "half", [row | kl])
    (found,) = on_policy_trainings(work, str)
    assert found.rollouts == ((1, ()),)
    assert {kl for _, kl in found.early[0].tokens} == {None}


def test_damage_is_named(work):
    folder = write(work, "half", [sample(1)])
    (folder / "rollouts.jsonl.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"rollouts\.jsonl\.gz is damaged"):
        on_policy_trainings(work, str)
