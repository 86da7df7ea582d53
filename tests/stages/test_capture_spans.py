"""A whole run whose teacher's spans are captured: its documents are read once, for students of every tokenizer."""

import json

import pytest
from datasets import load_from_disk

from potstill.errors import UserError
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.targets import TargetStore
from tiny import _config, llama, toy_recipe

LOSSES = [{"kind": "alm", "weight": 0.5}, {"kind": "cross_entropy", "weight": 0.5}]


def recipe(folder, *more, vocabulary=400):
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    given = {"tokenizer": {"vocab_size": vocabulary}, "student": student, "distil.losses": LOSSES}
    overrides = ["capture={keep: spans}", "distil.training.max_steps=2", "corpus.layout=padded"]
    overrides += ["corpus.sequence_length=56", *(f"{key}={json.dumps(value)}" for key, value in given.items())]
    return toy_recipe(folder, *overrides, *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spans")


@pytest.fixture(scope="module")
def run(folder):
    run = Run(folder / "run")
    run_recipe(recipe(folder), run, until="distil")
    return run


def files(run):
    folder = run.path("capture") / "smollm2"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".lock"}


def test_the_store_has_eight_bytes_for_each_of_the_teachers_tokens(run):
    summary = run.manifest("capture")["summary"]["smollm2"]
    counted = run.manifest("corpus")["summary"]["spans"]["smollm2"]
    store = TargetStore(run.path("capture") / "smollm2", expect=None)
    assert list(store.verify())[-1] == len(store) == counted["blocks"]
    assert store.header.tokens == summary["tokens"] == counted["tokens"]
    assert sum(map(len, files(run).values())) - len(files(run)["store.json"]) <= 8 * store.header.tokens


def test_it_teaches_what_the_live_teacher_teaches(run, folder):
    live = Run(folder / "live")
    run_recipe(recipe(folder, "capture=null"), live, until="distil")
    own, other = (read_jsonl(each.path("distil/seed-0") / "log.jsonl") for each in (run, live))
    assert [point["alm"] for point in own] == pytest.approx([point["alm"] for point in other], rel=1e-4)


def other_student(run, *more):
    return recipe(run.folder.parent, "corpus.layout=packed", "corpus.sequence_length=32", *more, vocabulary=300)


def test_a_student_of_another_tokenizer_finds_every_record(run, folder, monkeypatch):
    other = Run(folder / "other")
    monkeypatch.setattr(
        "potstill.pipeline.span_captures.capture_spans", lambda *given: pytest.fail("nothing is read again")
    )
    run_recipe(other_student(run, f"capture.store={run.path('capture')}"), other, until="distil")
    assert files(other) == files(run)
    assert all(point["alm"] > 0 for point in read_jsonl(other.path("distil/seed-0") / "log.jsonl"))
    assert len(load_from_disk(other.path("corpus") / "train")[0]["input_ids"]) == 32


def test_a_student_of_another_tokenizer_would_capture_the_same_store(run, folder):
    other = Run(folder / "again")
    run_recipe(other_student(run), other, until="capture")
    assert files(other) == files(run)


def test_other_documents_are_not_in_the_store(run, folder):
    other = Run(folder / "missing")
    given = f"capture.store={run.path('capture')}"
    with pytest.raises(UserError, match=r"1 of 1 blocks of documents are not among the 99 captured in .*smollm2"):
        run_recipe(other_student(run, given, "corpus.held_out=0.05"), other, until="capture")


def test_a_store_that_is_not_there_is_named(run, folder):
    with pytest.raises(UserError, match=r"`capture.store`: '.*nowhere/smollm2/store.json' is missing"):
        run_recipe(other_student(run, "capture.store=nowhere"), Run(folder / "nowhere"), until="capture")
