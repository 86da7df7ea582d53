"""generate, for conversations: the teacher's turns are what students and control learn, each with its provenance."""

import json

import pytest
from datasets import load_from_disk

import toy_conversations
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe.step import Step
from potstill.stages import generate as stage
from toy_chat import chat_tokenizer

EACH = "generate={by: t, turns: each, max_new_tokens: 16, samples: 2, temperature: 1.0, batch_size: 4}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    run, recipe = Run(folder / "run"), toy_conversations.recipe(folder, EACH)
    for until in ("student", "generate"):
        run_recipe(recipe, run, until)
    return recipe, run


def rows(run):
    return read_jsonl(run.path("generate") / "answers.jsonl")


def test_each_conversation_says_who_wrote_which_of_its_turns(made):
    recipe, run = made
    assert rows(run)
    fingerprint = artifacts.teacher(Work(recipe, run, Step("generate")), "t").fingerprint
    for row in rows(run):
        came = row["provenance"]
        assert (came["teacher"], came["revision"], came["seed"], came["temperature"]) == ("t", fingerprint, 0, 1.0)
        assert (came["max_new_tokens"], len(came["template"])) == (16, 64)
        for turn in came["turns"]:
            assert row["messages"][turn["message"]]["role"] == "assistant"
            assert turn["tokens"] < 16
        assert row["id"].partition("#")[0] in {
            one["id"] for one in load_from_disk(run.path("corpus") / "conversations")
        }


def test_students_learn_the_turns_and_a_trained_teacher_would_not(made):
    recipe, run = made
    work = Work(recipe, run, Step("distil", 0))
    learned = [
        chat_tokenizer().decode([token for token in sample["labels"] if token != IGNORE_INDEX])
        for sample in training_data.for_student(work, None, 0).train
    ]
    written = [row["messages"][turn["message"]]["content"] for row in rows(run) for turn in row["provenance"]["turns"]]
    for text in written:
        assert any(text.strip() in one for one in learned), text
    assert len(training_data.for_teacher(work, 0).train) == len(load_from_disk(run.path("corpus") / "train"))
    assert (run.path("generate") / "audit.html").is_file()
    summary = run.manifest("generate")["summary"]
    assert summary["kept"] == len(rows(run))
    assert summary["train_samples"] == len(learned)


def test_the_start_stops_at_the_end_of_a_turn(made):
    _, run = made
    settings = json.loads((run.path("student") / "start" / "generation_config.json").read_text())
    assert chat_tokenizer().convert_tokens_to_ids("<|im_end|>") in settings["eos_token_id"]


def test_the_answers_are_a_corpus_for_another_recipe(made, tmp_path):
    _, run = made
    path = run.path("generate") / "answers.jsonl"
    again = toy_conversations.recipe(tmp_path, f"corpus.conversations=[{{path: {path}}}]", "corpus.validation=null")
    run_recipe(again, Run(tmp_path / "run"), until="corpus")


def test_stopped_midway_it_goes_on_to_the_same_conversations(made, tmp_path, monkeypatch):
    recipe, whole = made
    run, asked, seen = Run(tmp_path / "run"), stage.responses, []

    def stopped(*args, **how):
        for batch in asked(*args, **how):
            yield batch
            seen.append(batch)
            if sum(map(len, seen)) > 45:
                raise KeyboardInterrupt

    monkeypatch.setattr(stage, "responses", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, run, until="generate")
    before = read_jsonl(run.path("generate") / "responses.jsonl")
    assert {row["id"].count("#") for row in before} == {0, 1}, "it is stopped in the second round"
    monkeypatch.setattr(stage, "responses", asked)
    run_recipe(recipe, run, until="generate")
    assert rows(run) == rows(whole)
    kept = [
        [json.dumps(row, sort_keys=True) for row in load_from_disk(one.path("generate") / "train")]
        for one in (run, whole)
    ]
    assert kept[0] == kept[1]


def test_a_teacher_with_a_system_prompt_of_its_own_is_asked_with_it(tmp_path, monkeypatch):
    prompts = []

    def noted(asked, requests, *args, **how):
        prompts.extend(chat_tokenizer().decode(request.prompt_ids) for request in requests)
        return responses(asked, requests, *args, **how)

    responses = stage.responses
    monkeypatch.setattr(stage, "responses", noted)
    last = "generate={by: t, max_new_tokens: 16}"
    recipe = toy_conversations.recipe(tmp_path, last, "corpus.teacher={system: Be brief.}")
    run_recipe(recipe, Run(tmp_path / "run"), until="generate")
    assert prompts
    assert all(prompt.startswith("<|im_start|>system\nBe brief.") for prompt in prompts)
    assert "teacher_input_ids" in load_from_disk(tmp_path / "run" / "generate" / "train").column_names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 1}, "no turn of teacher 't' may be learned .*; raise `max_new_tokens`"),
        ({"matching": "nowhere", "max_new_tokens": 30}, "no turn of teacher 't' may be learned .*does not match"),
        ({"max_new_tokens": 256}, "`generate.max_new_tokens` is 256, and teacher 't' has only 256 positions; lower it"),
    ],
)
def test_where_nothing_can_be_learned_it_is_said_why(tmp_path, given, message):
    recipe = toy_conversations.recipe(tmp_path, f"generate={json.dumps({'by': 't', **given})}")
    with pytest.raises(UserError, match=message):
        run_recipe(recipe, Run(tmp_path / "run"), until="generate")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{by: t, keep: correct}", "`generate.keep: correct` needs questions whose references have a number"),
        ("{by: u}", "`generate.by`: 'u' is not one of the teachers: t"),
    ],
)
def test_what_only_questions_have_is_refused(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        toy_conversations.recipe(tmp_path, f"generate={given}")
