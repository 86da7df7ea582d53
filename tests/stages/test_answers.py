"""answers: every model answers every held-out question; a stop does not change the answers."""

import json

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM

import toy_questions
from potstill.errors import UserError
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.stages import answers as stage
from tiny import tokenizer

MODELS = ["teacher", "start", "control/seed-0", "control/seed-1"] + [
    f"student/{name}/seed-{seed}" for name in ("base", "ground-truth", "placebo") for seed in (0, 1)
]


def samples(run):
    return {row["id"]: row for row in load_from_disk(run.path("strategies") / "base/held_out" / "samples").to_list()}


def test_every_model_answers_every_question(questions_run):
    root = questions_run.path("answers")
    found = [str(file.parent.relative_to(root)) for file in root.rglob("answers.jsonl")]
    assert sorted(found) == sorted(MODELS)
    held_out = {row["id"]: row for row in load_from_disk(questions_run.path("corpus") / "held_out").to_list()}
    for model in MODELS:
        rows = read_jsonl(questions_run.path("answers") / model / "answers.jsonl")
        assert {row["id"] for row in rows} == held_out.keys()
        assert len(rows) == len(held_out)
        for row in rows:
            assert row["reference"] == held_out[row["id"]]["reference"]
            assert row["tokens"] <= 12
            assert row["hit_limit"] == (row["tokens"] == 12)


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("start", "student/start"),
        ("control/seed-1", "control/seed-1/student"),
        ("student/placebo/seed-0", "distil/placebo/seed-0/student"),
    ],
)
def test_an_answer_is_what_the_model_goes_on_with(questions_run, model, folder):
    loaded = AutoModelForCausalLM.from_pretrained(questions_run.folder / folder, dtype=torch.float32)
    for row in read_jsonl(questions_run.path("answers") / model / "answers.jsonl")[:4]:
        prompt = samples(questions_run)[row["id"]]
        ids = prompt["input_ids"][: prompt["answer_start"]]
        for _ in range(row["tokens"]):
            with torch.no_grad():
                ids = [*ids, int(loaded(torch.tensor([ids])).logits[0, -1].argmax())]
        assert tokenizer().decode(ids[prompt["answer_start"] :], skip_special_tokens=True) == row["response"]


def test_the_loss_is_over_the_tokens_of_the_reference_alone(questions_run):
    loaded = AutoModelForCausalLM.from_pretrained(questions_run.path("student") / "start", dtype=torch.float32)
    scores = json.loads((questions_run.path("answers") / "start" / "scores.json").read_text())
    for name, nll, tokens in zip(*scores.values(), strict=True):
        row = samples(questions_run)[name]
        start, ids = row["answer_start"], torch.tensor([row["input_ids"]])
        with torch.no_grad():
            log_probs = loaded(ids).logits[0, start - 1 : -1].log_softmax(-1)
        expected = -log_probs.gather(1, ids[0, start:, None]).sum()
        np.testing.assert_allclose(nll, expected, rtol=1e-4)
        assert tokens == len(row["input_ids"]) - start


def test_stopped_after_a_batch_it_goes_on_to_the_same_answers(questions_run, questions_recipe, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run_recipe(questions_recipe, run, until="student")
    asked = stage.responses

    def stopped(*args, **how):
        yield next(asked(*args, **how))
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "responses", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(questions_recipe, run, until="answers")
    file = run.path("answers") / "teacher" / "answers.jsonl"
    assert len(read_jsonl(file)) == 5
    monkeypatch.setattr(stage, "responses", asked)
    run_recipe(questions_recipe, run, until="answers")
    assert read_jsonl(file) == read_jsonl(questions_run.path("answers") / "teacher" / "answers.jsonl")


def test_what_does_not_fit_is_refused_before_anything_is_asked(tmp_path):
    recipe = toy_questions.recipe(tmp_path, "answers.max_new_tokens=250", "experiments={}", "seeds=[0]")
    with pytest.raises(UserError, match=r"`answers.max_new_tokens` is 250, and teacher has only 256 positions"):
        run_recipe(recipe, Run(tmp_path / "run"), until="answers")


def test_teachers_need_not_answer(tmp_path):
    run = Run(tmp_path / "run")
    recipe = toy_questions.recipe(tmp_path, "answers.teachers=false", "experiments={}", "control=null", "seeds=[0]")
    run_recipe(recipe, run, until="evaluate")
    assert sorted(path.name for path in run.path("answers").iterdir()) == ["start", "student"]
