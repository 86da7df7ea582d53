"""File fingerprints change only if a file that the recipe names changes."""

import json
import os

import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline import file_fingerprints
from potstill.pipeline.file_fingerprints import (
    data_files_named_in,
    evaluation_files,
    fingerprint,
    source_files,
    start_files,
    teacher_files,
    tokenizer_files,
    training_files,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_content_counts_and_time_and_place_do_not(folder):
    before = source_files(minimal.recipe(folder))
    os.utime(folder / "text.txt", (1, 1))
    assert source_files(minimal.recipe(folder)) == before
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "text.txt").rename(elsewhere / "text.txt")
    assert source_files(minimal.recipe(folder, "corpus.sources.0.path=elsewhere/text.txt")) == before
    (elsewhere / "text.txt").write_text("Another text.....")
    assert source_files(minimal.recipe(folder, "corpus.sources.0.path=elsewhere/text.txt")) != before


def test_files_of_one_name_in_different_folders_all_count(folder):
    for name in ("a", "b"):
        (folder / "texts" / name).mkdir(parents=True)
        (folder / "texts" / name / "text.txt").write_text(f"in {name}")
    recipe = minimal.recipe(folder, "corpus.sources=[{path: texts}, {path: texts/a/text.txt}]")
    found = source_files(recipe)
    assert list(found) == ["corpus.sources.0: a/text.txt", "corpus.sources.0: b/text.txt", "corpus.sources.1: text.txt"]
    (folder / "texts" / "a" / "text.txt").write_text("otherwise")
    changed = source_files(recipe)
    assert [name for name in found if changed[name] != found[name]] == [
        "corpus.sources.0: a/text.txt",
        "corpus.sources.1: text.txt",
    ]


def test_a_new_file_in_a_folder_counts(folder):
    recipe = minimal.recipe(folder, "corpus.sources=[{path: .}]")
    before = source_files(recipe)
    (folder / "more.txt").write_text("more")
    assert source_files(recipe) != before


def test_a_data_set_in_a_folder_counts_and_one_on_the_hub_has_no_files_here(folder):
    (folder / "set").mkdir()
    (folder / "set" / "train.jsonl").write_text("{}")
    recipe = minimal.recipe(folder, "corpus.sources=[{dataset: set}, {dataset: Salesforce/wikitext}]")
    assert list(source_files(recipe)) == ["corpus.sources.0: train.jsonl"]


def test_a_missing_file_is_told_by_its_key(folder):
    with pytest.raises(UserError, match=r"^`corpus\.sources\.0\.path`"):
        source_files(minimal.recipe(folder, "corpus.sources.0.path=nothing.txt"))
    with pytest.raises(UserError, match=r"^`corpus\.sources\.0\.package`"):
        source_files(minimal.recipe(folder, "corpus.sources=[{package: no_such, file: x.txt}]"))
    with pytest.raises(UserError, match=r"^`teachers\.t\.package`"):
        teacher_files(minimal.recipe(folder, "teachers.t={package: no_such, gguf: x.gguf}"))


def test_every_file_of_a_teachers_folder_counts(folder):
    recipe = minimal.recipe(folder)
    before = teacher_files(recipe)
    assert list(before) == ["teachers.t: model.safetensors"]
    (folder / "teacher" / "tokenizer.json").write_text("{}")
    assert list(teacher_files(recipe)) == ["teachers.t: model.safetensors", "teachers.t: tokenizer.json"]


def test_every_file_of_a_start_counts_and_a_start_that_is_made_has_none(folder):
    assert start_files(minimal.recipe(folder)) == {}
    assert start_files(minimal.recipe(folder, "student={start: checkpoint, model: some/hub-name}")) == {}
    start = folder / "earlier"
    start.mkdir()
    (start / "model.safetensors").write_text("weights")
    recipe = minimal.recipe(folder, f"student={{start: checkpoint, model: {start}}}")
    before = start_files(recipe)
    assert list(before) == ["student.model: model.safetensors"]
    (start / "model.safetensors").write_text("other weights")
    assert start_files(recipe) != before


@pytest.mark.parametrize("section", ["distil", "control"])
def test_a_file_of_deepspeed_s_settings_counts_and_settings_in_the_recipe_have_none(folder, section):
    (folder / "ds.json").write_text("{}")
    named = minimal.recipe(folder, f"{section}.training.deepspeed=ds.json")
    before = training_files(named)
    assert list(before) == [f"{section}.training.deepspeed: ds.json"]
    (folder / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    assert training_files(named) != before
    assert training_files(minimal.recipe(folder, f"{section}.training.deepspeed={{train_batch_size: 4}}")) == {}


def test_of_a_folder_of_ggufs_only_the_named_one_counts(folder):
    (folder / "teacher" / "q4.gguf").write_text("weights")
    assert list(teacher_files(minimal.recipe(folder, "teachers.t.gguf=q4.gguf"))) == ["teachers.t: q4.gguf"]


def test_a_teacher_in_the_home_folder_counts(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert teacher_files(minimal.recipe(folder, "teachers.t.model=~/teacher"))


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("corpus.sources=[{path: ~no-such-user/x}]", source_files),
        ("corpus.sources=[{dataset: ~no-such-user/x}]", source_files),
        ("tokenizer={file: ~no-such-user/x}", tokenizer_files),
        ("teachers.t={model: ~no-such-user/x}", teacher_files),
        ("teachers.t={llama2c: ~no-such-user/x, tokenizer: ~no-such-user/y}", teacher_files),
        ("evaluate.minimal_pairs={p: {path: ~no-such-user/x}}", evaluation_files),
        ("evaluate.continuations={c: {path: ~no-such-user/x}}", evaluation_files),
    ],
)
def test_a_path_in_the_home_folder_of_no_user_names_no_file(folder, override, read):
    recipe = minimal.recipe(folder, override)
    try:
        found = read(recipe)
    except UserError as error:
        found = {}
        assert "~no-such-user/x" in str(error)  # noqa: PT017 (some of them refuse it, some leave it to their stage)
    assert found == {}


def test_a_teacher_on_the_hub_has_no_files_here(folder):
    assert teacher_files(minimal.recipe(folder, "teachers.t.model=HuggingFaceTB/SmolLM2-135M")) == {}


def test_a_large_file_is_told_by_its_size_and_time(folder, monkeypatch):
    monkeypatch.setattr(file_fingerprints, "HASHED_UP_TO", 3)
    file = folder / "text.txt"
    before = fingerprint(file)
    os.utime(file, ns=(1, 1))
    after = fingerprint(file)
    assert after != before
    assert after == f"{file.stat().st_size} bytes, 1"


@pytest.mark.parametrize(
    "name", ["part[1].jsonl", "two words.jsonl", "{x}.jsonl", "a,b.jsonl", "%20.jsonl", "it's.jsonl"]
)
def test_a_task_s_data_counts_under_any_name(folder, name):
    (folder / name).write_text("{}")
    task = folder / "task.yaml"
    data = {"data_files": {"test": name}, "description": "long. " * 1000}
    task.write_text(f"{json.dumps(data)[:-1]}, 'doc_to_text': !function a.b}}")
    assert data_files_named_in([task]) == {folder / name}
    task.write_text("[not: valid: YAML, text.txt")
    assert data_files_named_in([task]) == {folder / "text.txt"}


def test_a_data_set_counts_under_any_name(folder):
    for name in ("a[1]", "a1", "~x"):
        (folder / name).mkdir()
        (folder / name / f"{name}.jsonl").write_text("{}")
    recipe = minimal.recipe(folder, "corpus.sources=[{dataset: 'a[1]'}, {dataset: ~x}]")
    assert list(source_files(recipe)) == ["corpus.sources.0: a[1].jsonl", "corpus.sources.1: ~x.jsonl"]


def test_a_chat_template_in_a_file_counts(folder):
    chats = folder / "chats.jsonl"
    chats.write_text("")
    template = folder / "own.jinja"
    template.write_text("{{ messages }}")
    corpus = f"corpus={{conversations: [{{path: {chats}}}], sequence_length: 32, template: {template}}}"
    before = source_files(minimal.recipe(folder, corpus))
    assert set(before) == {"corpus.conversations.0: chats.jsonl", "corpus.template: own.jinja"}
    template.write_text("{{ messages[0] }}")
    assert source_files(minimal.recipe(folder, corpus)) != before
    shipped = source_files(minimal.recipe(folder, corpus.replace(str(template), "chatml")))
    assert set(shipped) == {"corpus.conversations.0: chats.jsonl"}
