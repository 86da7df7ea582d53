"""A whole run whose teacher has another tokenizer: corpus, training, and a comparison in bits per byte."""

import json
import math

import numpy as np
import pytest
import torch
from datasets import load_from_disk

from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from tiny import _config, documents, llama, save_corpus, save_model, tokenizer, toy_recipe

pytestmark = pytest.mark.slow


def recipe(folder, *more):
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    losses = [{"kind": "alm", "weight": 0.5}, {"kind": "cross_entropy", "weight": 0.5}]
    given = {"capture": None, "tokenizer": {"vocab_size": 400}, "student": student, "distil.losses": losses}
    return toy_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = Run(folder / "run")
    run_recipe(recipe(folder, "distil.training.max_steps=2"), run, until="evaluate")
    return run


def rows(run):
    found = read_json(run.path("evaluate") / "comparison.json")["rows"]
    return {(row["model"], row["metric"]): row["value"] for row in found}


def test_only_bits_per_byte_compare_the_teacher(run):
    found = rows(run)
    assert {metric for model, metric in found if model == "teacher"} == {"bits_per_byte"}
    assert {metric for model, metric in found if model == "student"} == {"loss", "perplexity", "bits_per_byte"}
    assert read_json(run.path("evaluate") / "passages.json") == []


def test_the_teachers_bits_are_those_of_its_own_tokens(run):
    held_out = load_from_disk(run.path("corpus") / "held_out")
    texts = held_out.select(range(8))["text"]
    nats, model, tokens = [], llama(0), tokenizer()
    for text in texts:
        ids = [tokens.eos_token_id, *tokens(text).input_ids]
        windows = [ids[at : at + 32] for at in range(0, len(ids) - 1, 31)]
        with torch.no_grad():
            losses = [model(input_ids=torch.tensor([one])).logits[0].log_softmax(-1) for one in windows]
        of_windows = zip(losses, windows, strict=True)
        nats.append(-sum(float(each[:-1][range(len(one) - 1), one[1:]].sum()) for each, one in of_windows))
    expected = np.sum(nats) / math.log(2) / sum(len(text.encode()) for text in texts)
    assert rows(run)["teacher", "bits_per_byte"] == pytest.approx(expected, rel=1e-4)


def test_the_corpus_says_what_is_compared(run):
    found = run.manifest(Step("corpus"))["summary"]["alignment"]["smollm2"]
    assert 0.9 < found["bytes_in_spans"] / found["bytes"] < 1
    assert found["student_tokens"] < found["teacher_tokens"]
    assert found["lost_by_teacher"] == 0


def test_the_student_learned_from_it_and_the_control_did_not(run):
    logs = [(run.path(step) / "seed-0" / "log.jsonl").read_text() for step in ("distil", "control")]
    assert '"alm"' in logs[0]
    assert '"alm"' not in logs[1]


def test_a_text_that_a_tokenizer_does_not_give_back_is_refused(tmp_path):
    save_corpus(tmp_path / "text.jsonl", [f"{text} ①② ½ ﬁne ™" for text in documents()])
    with pytest.raises(UserError, match=r"`tokenizer` does not give back \d+.\d% \(.* bytes\) of the held-out text"):
        run_recipe(recipe(tmp_path), Run(tmp_path / "run"), until="corpus")


def test_the_teachers_own_tokenizer_is_refused(tmp_path):
    save_model(llama(0), tmp_path / "teacher-smollm2")
    own = {"file": str(tmp_path / "teacher-smollm2" / "tokenizer.json"), "pad_token": "<|pad|>"}
    own |= dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
    with pytest.raises(UserError, match=r"alm is for a teacher of another tokenizer, but `teachers.smollm2` has the"):
        run_recipe(recipe(tmp_path, f"tokenizer={json.dumps(own)}"), Run(tmp_path / "run"), until="tokenizer")


def test_a_trained_student_gets_the_vocabulary_of_the_run_and_an_adapter(tmp_path):
    """The start is a model of the teacher's own tokens, and reads the run's tokens afterwards."""
    model = save_model(llama(7, layers=2), tmp_path / "small")
    start = {"start": "checkpoint", "model": str(model), "vocabulary": "carry_over"}
    start["adapter"] = {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}
    made, steps = Run(tmp_path / "run"), "distil.training.max_steps=2"
    run_recipe(recipe(tmp_path, steps, f"student={json.dumps(start)}", "control=null"), made, until="distil")
    carried = made.manifest(Step("student"))["summary"]["vocabulary"]
    assert carried["carried"] > 250
    assert sum(carried.values()) == 400
    assert '"alm"' in (made.path(Step("distil", seed=0)) / "log.jsonl").read_text()
