"""A whole run of questions whose teacher has another tokenizer and another chat template."""

import json

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy_questions
from potstill.data.prompts.render import prompt_ids
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from potstill.recipe.strategies import Prompt
from tiny import _config, llama, save_model
from toy_prompts import chatty

pytestmark = pytest.mark.slow


def recipe(folder, *more):
    save_model(llama(0, max_position_embeddings=512), folder / "teacher")
    chatty().save_pretrained(folder / "teacher")
    student = {"start": "scratch", "config": _config(llama(layers=2, max_position_embeddings=512))}
    losses = [{"kind": "alm", "weight": 0.5}, {"kind": "shared_tokens", "weight": 0.2}, {"kind": "cross_entropy"}]
    given = {
        "capture": None,
        "tokenizer": {"vocab_size": 300},
        "student": student,
        "distil.losses": losses,
        "experiments": {"base": {}, "ground-truth": {}},
        "seeds": [0],
        "corpus.sequence_length": 300,
        "corpus.teacher_length": None,
        "evaluate.speed": False,
    }
    return toy_questions.recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    made = Run(folder / "run")
    run_recipe(recipe(folder), made, until="report")
    return made


def test_each_strategy_says_how_much_of_its_answers_is_compared(run):
    for name in ("base", "ground-truth"):
        found = run.manifest(Step("strategies", name=f"{name}/own"))["summary"]["compared_turns"]["t"]
        assert 0.9 < found["compared"] / found["learned"] <= 1
        assert 0 < found["spans"] < found["student_tokens"] < found["student_reads"]
        assert found["lost_by_student"] == found["lost_by_teacher"] == 0
    page = (run.path(Step("report")) / "index.html").read_text()
    assert "of the learned text is compared with the teacher, in " in page


def test_answers_that_the_tokenizer_does_not_give_back_are_refused(tmp_path):
    toy_questions.save(tmp_path, [{**row, "answer": f"\u2460\u2461 {row['answer']}"} for row in toy_questions.rows()])
    told = r"the tokens of `tokenizer` do not give back \d+.\d% of the learned text \(.* bytes\), and at most 1% can"
    with pytest.raises(UserError, match=told):
        run_recipe(recipe(tmp_path), Run(tmp_path / "run"), until="strategies")


def test_a_sample_has_the_answer_behind_both_prompts(run):
    folder = run.folder.parent / "teacher"
    theirs = TokenBytes(AutoTokenizer.from_pretrained(folder), "the teacher")
    ours = TokenBytes(AutoTokenizer.from_pretrained(run.path(Step("tokenizer")) / "tokenizer"), "the student")
    rows = load_from_disk(run.path(Step("strategies", name="ground-truth/own")) / "train")
    questions = {row["id"]: row for row in load_from_disk(run.path(Step("corpus")) / "train")}
    for row in rows:
        ((read,), (labels,)) = row["other_input_ids"], row["other_labels"]
        text = theirs.tokenizer.decode(read)
        assert text.startswith("[system]You are an expert")
        question = questions[row["id"]]
        assert question["question"] in text
        said = theirs.joined([number for number in labels if number >= 0]).decode()
        assert said.strip() == question["reference"]
        assert ours.joined(row["input_ids"][row["answer_start"] :]).decode().strip() == question["reference"]
        assert row["pieces"][0]


def test_students_learn_from_the_teacher_and_the_control_does_not(run):
    logs = [run.path(Step("distil", 0, name)) / "log.jsonl" for name in ("base", "ground-truth")]
    for log in logs:
        first = read_jsonl(log)[0]
        assert first["alm"] > 0
        assert first["shared_tokens"] > 0
    assert "alm" not in read_jsonl(run.path(Step("control", 0)) / "log.jsonl")[0]


def test_the_teacher_is_compared_by_its_answers_alone(run):
    found = {(row["model"], row["metric"]) for row in read_json(run.path("evaluate") / "comparison.json")["rows"]}
    assert {metric for model, metric in found if model == "teacher"} == {"accuracy", "hit_limit", "no_number"}
    assert {metric for model, metric in found if model == "control"} == {"accuracy", "loss", "hit_limit", "no_number"}


def test_the_teacher_answers_in_its_own_prompt_and_tokens(run):
    (file,) = run.path("answers").glob("teacher/**/answers.jsonl")
    folder = run.folder.parent / "teacher"
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for row in read_jsonl(file)[:3]:
        asked = prompt_ids(tokens, Prompt(user="{{ question }}"), row, "here", "key")
        ids = model.generate(torch.tensor([asked]), max_new_tokens=12, do_sample=False, eos_token_id=0)
        assert row["response"] == tokens.decode(ids[0, len(asked) :], skip_special_tokens=True)
