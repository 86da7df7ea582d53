"""The chat: who answers, how, and the sentence for what cannot be asked."""

import io
import re
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

import toy_conversations
import toy_questions
from potstill.cli import chat as chatting
from potstill.cli.chat import _Columns, chat, chosen
from potstill.errors import UserError
from potstill.generation import dialogue
from potstill.generation.generate import Response
from potstill.pipeline.manifest import MANIFEST
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.candidates import Candidate
from tiny import toy_recipe

SHORT = ["max_new_tokens=4"]
TEACHER, STUDENT, CONTROL = Candidate("teacher"), Candidate("student", None, 0), Candidate("control", None, 0)


@pytest.fixture(scope="module")
def run(toy_folder, tmp_path_factory):
    """A run of plain text with a teacher, a student and a control."""
    made = Run(tmp_path_factory.mktemp("runs") / "toy")
    recipe = toy_recipe(toy_folder, "distil.training.max_steps=1")
    for until in ("distil", "control"):
        run_recipe(recipe, made, until)
    return made


@pytest.fixture
def talk(run, monkeypatch, capsys) -> Callable[..., tuple[str, str]]:
    """One chat: the person types these lines, then the input ends; returns both outputs."""

    def typed(*lines, model="all", settings=SHORT):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat(run.folder, model, None, settings)
        return capsys.readouterr()

    return typed


def test_a_prompt_gives_the_answer_alone(run, capsys):
    chat(run.folder, "student", "Once upon", SHORT)
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert "student" not in out
    assert "continue what you write" in err
    assert "student was cut after 4 tokens" in err


@pytest.mark.parametrize("said", ["bad \udcff\udcfe bytes", "caf\udce9"])
def test_bytes_that_are_no_text_are_replaced(run, capsys, said):
    chat(run.folder, "student", said, SHORT)
    assert "student was cut after 4 tokens" in capsys.readouterr().err


def test_all_three_answer_below_each_other_where_there_is_no_terminal(run, capsys):
    chat(run.folder, "all", "Once upon", SHORT)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.endswith(":")] == ["teacher:", "student:", "control:"]
    alone = {}
    for model in ("teacher", "student", "control"):
        chat(run.folder, model, "Once upon", SHORT)
        alone[model] = capsys.readouterr().out
    assert said == "\n".join(f"{model}:\n{answer}" for model, answer in alone.items())


def test_a_person_talks_changes_models_and_stops(talk):
    out, err = talk("Once upon", "/model student", "a time", "/reset", "", "/modle x", "/quit", "never asked")
    assert out.count("teacher:") == 1
    assert "teacher and student and control; /model NAME, /reset, /quit" in err
    assert "a new conversation" in err
    assert "there is no command '/modle x'; the commands are /model NAME, /reset, /quit" in err
    assert err.count("student was cut") == 2


def test_an_unknown_model_does_not_end_the_chat(talk):
    out, err = talk("/model judge", "Once upon", model="student")
    assert "there is no model 'judge'; the models of this run are teacher, start, student, control and `all`" in err
    assert out.strip()


def test_models_stay_loaded_only_where_memory_has_room(talk, monkeypatch):
    loads, load = [], chatting.artifacts.own_model

    def counted(work, one):
        loads.append(one.label)
        return load(work, one)

    monkeypatch.setattr(chatting.artifacts, "own_model", counted)
    talk("Once", "upon")
    assert loads == ["teacher", "student", "control"]
    monkeypatch.setattr(chatting, "memory_of_device", lambda: 1)
    talk("Once", "upon")
    assert loads[3:] == ["teacher", "student", "control"] * 2


def test_a_load_without_memory_is_tried_again_alone(talk, monkeypatch):
    load, failed = chatting.artifacts.own_model, []

    def full(work, one):
        if one.role == "student" and not failed:
            failed.append(one)
            raise RuntimeError("CUDA out of memory")
        return load(work, one)

    monkeypatch.setattr(chatting.artifacts, "own_model", full)
    out, _ = talk("Once")
    assert failed
    assert "student:\n" in out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["max_new_token=4"], "`max_new_token`: unknown key; did you mean `max_new_tokens`?"),
        (["temperature=-1"], "`temperature`: must be at least 0"),
        (["max_new_tokens=many"], "`max_new_tokens`: must be a whole number"),
        (["system=Be brief."], "`system` has no effect, because there is no chat template"),
        (["4"], "write it as `section.key=value`"),
    ],
)
def test_wrong_settings_are_named(run, settings, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        chat(run.folder, "student", "Once", settings)


@pytest.mark.parametrize("stage", ["teachers", "student", "distil/seed-0", "control/seed-0"])
def test_a_model_that_is_not_made_yet_is_named_with_its_stage(run, stage, tmp_path):
    left = run.folder / stage / MANIFEST
    aside = left.rename(tmp_path / "aside")
    try:
        with pytest.raises(UserError, match=f"has no .* yet, because `{stage}` is not done; run its recipe again, or"):
            chat(run.folder, "all", "Once", SHORT)
    finally:
        aside.rename(left)


def test_what_is_no_run_and_a_blank_prompt_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        chat(tmp_path, "all", "Once", [])
    with pytest.raises(UserError, match="`--prompt` is blank"):
        chat(run.folder, "all", "  ", [])


def test_of_several_students_a_role_is_the_first_and_each_has_its_name(tmp_path):
    recipe = toy_questions.recipe(tmp_path)
    first = Candidate("student", "base", 0)
    assert chosen(recipe, "all") == [TEACHER, first, CONTROL]
    assert chosen(recipe, "student") == [first]
    assert chosen(recipe, "student placebo") == [Candidate("student", "placebo", 0)]
    assert chosen(recipe, "start") == [Candidate("start")]
    without = toy_questions.recipe(tmp_path, "control=null")
    assert chosen(without, "all") == [TEACHER, first]
    with pytest.raises(UserError, match="`control: null` leaves the control out"):
        chosen(without, "control")


def test_in_a_run_of_conversations_each_model_reads_its_own_template_and_system_prompt(tmp_path, monkeypatch, capsys):
    run = Run(tmp_path / "run")
    teacher = 'corpus.teacher={system: Be wise., user: "{{ question }} Think."}'
    recipe = toy_conversations.recipe(tmp_path, teacher, "corpus.template=chatml")
    run_recipe(recipe, run, "student")
    prompts = []

    def noted(asked, request, decoding, show):
        prompts.append(asked.tokenizer.decode(request.prompt_ids))
        return Response(request.id, 0, "So.", 2, hit_limit=False)

    monkeypatch.setattr(dialogue, "streamed_response", noted)
    for model in ("teacher", "start"):
        chat(run.folder, model, "Why?", [])
    chat(run.folder, "teacher", "Why?", ["system=Be quick."])
    asked = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    thinking = asked.replace("Why?", "Why? Think.")
    wise, quick = (f"<|im_start|>system\nBe {word}.<|im_end|>\n{thinking}" for word in ("wise", "quick"))
    assert prompts == [wise, asked, quick]
    assert capsys.readouterr().err == ""


def test_in_a_wide_terminal_answers_stand_side_by_side():
    screen = io.StringIO()
    with _Columns(Console(file=screen, force_terminal=True, width=90), ["teacher", "student"]) as view:
        for name, answer in (("teacher", "Salt [bold]is\x1b[31m salt."), ("student", "Sand.")):
            view.begin(name)
            view.show(answer)
            view.end()
    rows = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()
    assert any(re.search(r"Salt \[bold\]is␛\[31m salt\. +│ Sand\.", row) for row in rows), rows


def test_the_command_line_has_the_verb(call):
    code, out, err = call("chat", "nowhere", "--prompt", "hi")
    assert (code, out) == (2, "")
    assert err == "potstill: nowhere is no run folder; `potstill run RECIPE` makes one under runs/\n"
