"""Whole runs whose teachers' spans of answers are captured: each teacher once, for students of every tokenizer."""

import json

import pytest

import toy_questions
from potstill.errors import UserError
from potstill.evaluation.inspect_targets import inspect
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from potstill.targets import TargetStore
from tiny import _config, llama, save_model
from toy_prompts import chatty

SET = Step("capture", name="base/own")


def recipe(folder, *more, vocabulary=300):
    """Two teachers, of which the second teaches a part of the questions."""
    rows = [{**row, "kind": "both" if number % 3 else "one"} for number, row in enumerate(toy_questions.rows(40))]
    toy_questions.save(folder, rows)
    if not (folder / "other").exists():
        save_model(llama(0, max_position_embeddings=512), folder / "teacher")
        save_model(llama(5, max_position_embeddings=512), folder / "other")
        chatty().save_pretrained(folder / "other")
    student = {"start": "scratch", "config": _config(llama(layers=2, max_position_embeddings=512))}
    given = {
        "teachers.other": {"model": str(folder / "other"), "when": {"column": "kind", "equals": "both"}},
        "tokenizer": {"vocab_size": vocabulary},
        "student": student,
        "distil.losses": [{"kind": "alm", "weight": 0.5}, {"kind": "cross_entropy", "weight": 0.5}],
        "distil.training.max_steps": 2,
        "capture": {"keep": "spans"},
        "experiments": {"base": {}},
        "seeds": [0],
        "corpus.sequence_length": 300,
        "corpus.teacher_length": None,
    }
    return toy_questions.recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("turns")


@pytest.fixture(scope="module")
def run(folder):
    run = Run(folder / "run")
    run_recipe(recipe(folder), run, until="distil")
    return run


def files(run):
    return {
        str(file.relative_to(run.path(SET))): file.read_bytes()
        for name in ("t", "other")
        for file in (run.path(SET) / name).iterdir()
        if file.suffix != ".lock"
    }


def test_each_teacher_has_a_store_of_its_rows_in_its_own_tokens(run):
    summary, samples = run.manifest(SET)["summary"], []
    for name in ("t", "other"):
        store = TargetStore(run.path(SET) / name, expect=None)
        assert store.codec.mode == "turns"
        assert list(store.verify())[-1] == len(store)
        assert store.header.tokens == summary[name]["tokens"]
        samples.append(len(store))
        written = sum(file.stat().st_size for file in store.path.iterdir() if file.suffix in (".records", ".index"))
        assert written <= 6 * store.header.tokens + 24 * len(store)
    assert samples[0] > samples[1] > 0


def log(run):
    return read_jsonl(run.path(Step("distil", 0, "base")) / "log.jsonl")


def test_they_teach_what_the_live_teachers_teach(run, folder):
    live = Run(folder / "live")
    run_recipe(recipe(folder, "capture=null"), live, until="distil")
    for own, other in zip(log(run), log(live), strict=True):
        for name in ("alm", "alm/t", "alm/other", "cross_entropy"):
            assert own[name] == pytest.approx(other[name], rel=1e-4)


def test_a_student_of_another_tokenizer_takes_the_store(run, folder, monkeypatch):
    other = Run(folder / "taken")
    monkeypatch.setattr(
        "potstill.pipeline.span_captures.capture_turns", lambda *given: pytest.fail("nothing is read again")
    )
    store = f"capture.store={run.path('capture')}"
    run_recipe(recipe(folder, store, vocabulary=280), other, until="distil")
    assert files(other) == files(run)
    assert all(point["alm/t"] > 0 for point in log(other))


def test_other_questions_are_not_in_the_store(run, folder):
    store = f"capture.store={run.path('capture')}"
    with pytest.raises(UserError, match=r"samples are not among the .* captured in .*base/own/t"):
        run_recipe(recipe(folder, store, "corpus.held_out=0.05"), Run(folder / "missing"), until="capture")


def test_a_store_is_compared_with_its_teacher(run):
    found = inspect(run.path(SET) / "other", 4)["fidelity"]
    assert found["tokens"] > 0
    assert found["greatest"] < 2e-4


def test_live_teachers_read_the_answers_that_the_student_writes(folder):
    live = Run(folder / "written")
    settings = json.dumps({"share": 1, "max_new_tokens": 12})
    run_recipe(recipe(folder, "capture=null", f"distil.on_policy={settings}"), live, until="distil")
    lost = [point["on_policy/lost_text"] for point in log(live)]
    assert len(lost) == 2
    assert all(0 <= share <= 1 for share in lost)
