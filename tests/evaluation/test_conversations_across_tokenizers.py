"""A whole run of conversations whose teacher has another tokenizer and another chat template."""

import json

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy_conversations
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from tiny import _config, llama
from toy_chat import chat_tokenizer

pytestmark = pytest.mark.slow


def recipe(folder, *more):
    student = {"start": "scratch", "config": _config(llama(layers=2, max_position_embeddings=512))}
    losses = [{"kind": "alm", "weight": 0.5}, {"kind": "shared_tokens", "weight": 0.2}, {"kind": "cross_entropy"}]
    given = {"tokenizer": {"vocab_size": 400}, "student": student, "distil.losses": losses, "corpus.template": "plain"}
    return toy_conversations.recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    made = Run(folder / "run")
    run_recipe(recipe(folder), made, until="report")
    return made


def test_the_corpus_says_what_is_compared(run):
    found = run.manifest(Step("corpus"))["summary"]["compared_turns"]["t"]
    assert 0.9 < found["compared"] / found["learned"] <= 1
    assert 0 < found["spans"] < found["student_tokens"] < found["student_reads"]
    assert found["lost_by_student"] == found["lost_by_teacher"] == 0


def test_learned_words_that_the_tokenizer_does_not_give_back_are_refused(tmp_path):
    given = recipe(tmp_path)
    said = toy_conversations.talks()
    for talk in said:
        talk["messages"][-1]["content"] += " \u2460\u2461"
    toy_conversations.save_talks(tmp_path, said)
    told = r"the tokens of `tokenizer` do not give back \d+.\d% of the learned text \(.* bytes\), and at most 1% can"
    with pytest.raises(UserError, match=told):
        run_recipe(given, Run(tmp_path / "run"), until="corpus")


def test_samples_hold_what_the_teacher_reads(run):
    rows = load_from_disk(run.path(Step("corpus")) / "train")
    theirs = TokenBytes(chat_tokenizer(), "the teacher")
    row = rows[0]
    ((read,), (labels,), (pieces,)) = row["other_input_ids"], row["other_labels"], row["pieces"]
    text = chat_tokenizer().decode(read)
    assert text.startswith("<|im_start|>")
    assert pieces
    learned = [number for number, label in zip(read, labels, strict=True) if label >= 0]
    assert theirs.joined(learned)


def test_the_student_learns_from_the_teacher_and_the_control_does_not(run):
    logs = [(run.path(step) / "seed-0" / "log.jsonl").read_text() for step in (Step("distil"), Step("control"))]
    assert '"alm"' in logs[0]
    assert '"shared_tokens"' in logs[0]
    assert '"alm"' not in logs[1]


def test_the_teacher_is_compared_by_its_answers_alone(run):
    found = read_json(run.path(Step("evaluate")) / "comparison.json")["rows"]
    metrics = {(row["model"], row["metric"]) for row in found}
    assert ("student", "loss") in metrics
    assert ("control", "loss") in metrics
    assert not [metric for model, metric in metrics if model == "teacher" and metric in ("loss", "kl", "agreement")]
    assert [metric for model, metric in metrics if model == "teacher"], "its answers are judged"


def test_the_teacher_answers_by_its_own_template_and_tokens(run):
    (file,) = [one for one in run.path("answers").rglob("answers.jsonl") if "teacher" in str(one)]
    answers = {row["id"]: row for row in read_jsonl(file)}
    folder = run.folder.parent / "teacher"
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = [row for row in load_from_disk(run.path(Step("corpus")) / "held_out") if row["id"] in answers]
    assert len(asked) > 1
    for row in asked:
        messages = json.loads(row["messages"])
        last = max(place for place, one in enumerate(messages) if one["role"] == "assistant")
        options = {"add_generation_prompt": True, "return_dict": False}
        given = tokens.apply_chat_template(messages[:last], json.loads(row["tools"]) or None, **options)
        end = tokens.convert_tokens_to_ids("<|im_end|>")
        ids = model.generate(
            torch.tensor([given]), max_new_tokens=12, do_sample=False, eos_token_id=[end, tokens.eos_token_id]
        )
        assert answers[row["id"]]["response"] == tokens.decode(ids[0, len(given) :], skip_special_tokens=True)


def test_the_lengths_of_answers_are_in_the_tokens_of_the_run(run):
    tokens = AutoTokenizer.from_pretrained(run.path(Step("tokenizer")) / "tokenizer")
    of = {}
    for role in ("teacher", "start"):
        (file,) = [one for one in run.path("answers").rglob("answers.jsonl") if role in str(one)]
        of[role] = read_jsonl(file)
    found = read_json(run.path(Step("evaluate")) / "comparison.json")["rows"]
    ratios = {row["model"]: row["value"] for row in found if row["metric"] == "length_ratio"}
    references = sum(row["tokens"] for row in of["start"]) / ratios["start"]
    written = sum(len(tokens(row["response"], add_special_tokens=False).input_ids) for row in of["teacher"])
    assert ratios["teacher"] == pytest.approx(written / references)
    assert written != sum(row["tokens"] for row in of["teacher"])


def test_the_report_says_what_was_compared(run):
    page = (run.path(Step("report")) / "index.html").read_text()
    assert "of the learned text is compared with the teacher, in " in page
