"""What a recipe may ask of a teacher that tells only the distributions of what it writes."""

import json

import pytest

import toy_conversations
import toy_questions
from potstill.errors import UserError


def given(folder, toy, *more, **of_teacher):
    toy.recipe(folder)
    place = str(folder / "teacher")
    teacher = {"server": "http://127.0.0.1:8080", "model": "m", "api": "llama_cpp", "tokenizer": place} | of_teacher
    overrides = {
        "teachers": {"t": teacher},
        "student": {"start": "checkpoint", "model": place},
        "generate": {"by": "t"},
        "capture": {"k": 10},
    }
    return toy.recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in overrides.items()), *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("talks")


@pytest.mark.parametrize("api", ["llama_cpp", "ollama", "openai"])
def test_it_writes_and_is_captured(folder, api):
    recipe = given(folder, toy_conversations, api=api)
    assert recipe.teachers["t"].api == api
    assert recipe.teachers["t"].top_k == 20


def test_it_writes_answers_to_questions(tmp_path):
    assert given(tmp_path, toy_questions, "answers.teachers=false").asks
    with pytest.raises(UserError, match=r"answers.teachers"):
        given(tmp_path, toy_questions)


LOCAL = 'teachers.other={"model": "x"}'
REFUSED = {
    "it writes nothing": ["generate=null"],
    "it is not kept": ["capture=null"],
    "another teacher": [LOCAL],
    "what the student writes": ["capture=null", "distil.on_policy={}"],
    "layers": ['distil.losses=[{"kind": "hidden_match", "weight": 1}, {"kind": "forward_kl"}]'],
    "another temperature": ["distil.losses.0.temperature=2"],
    "more than it is asked for": ["capture.k=21"],
    "hidden states": ['capture={"keep": "hidden"}'],
    "samples": ['capture={"keep": "sample"}'],
    "weights for the student": ['student={"start": "prune_layers", "from": "t", "layers": 2}'],
    "an engine": ["generate.engine=transformers"],
    "a choice of snapshots": ["distil.snapshots=2", "select={}"],
}


@pytest.mark.parametrize("more", REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_do_is_refused_in_one_sentence(folder, more):
    with pytest.raises(UserError) as refused:
        given(folder, toy_conversations, *more)
    said = str(refused.value)
    assert "teachers.t" in said or "student.from: t" in said or "`select`" in said
    assert "\n" not in said


@pytest.mark.parametrize("api", ["ollama", "openai"])
def test_more_likeliest_tokens_than_it_gives_are_refused(folder, api):
    with pytest.raises(UserError, match=r"teachers.t.top_k.*at most 20"):
        given(folder, toy_conversations, api=api, top_k=21)
    assert given(folder, toy_conversations, api="llama_cpp", top_k=300).teachers["t"].top_k == 300


def test_a_setting_that_a_chat_does_not_have_is_refused(folder):
    drawn = 'generate={"by": "t", "temperature": 0.7, "top_k": 5}'
    assert given(folder, toy_conversations, drawn, api="ollama")
    with pytest.raises(UserError, match=r"generate.top_k"):
        given(folder, toy_conversations, drawn, api="openai")
