"""`datasets` reads the file or folder of that name, not one that its name would match as a pattern."""

from contextlib import suppress

import pytest

from potstill.data.literal_data_files import local_name, names_that_exist_are_names
from potstill.data.sources import documents
from potstill.errors import UserError
from potstill.recipe.corpus import HubSource

NAMES = ["a[1]", "a*b", "q?", "{x}", "[ab]", "two words", "%20", "#", "-x", "äö", "~x", "**"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "sets").mkdir()
    monkeypatch.chdir(tmp_path / "sets")
    return tmp_path / "sets"


def save(folder, text):
    folder.mkdir()
    (folder / "train.jsonl").write_text(f'{{"text": "{text}"}}\n')


def texts(dataset, **how):
    return [document.text for document in documents(HubSource(dataset=dataset, **how), "k")]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_found_by_its_name(folder, monkeypatch, name):
    for other in ("a1", "aXb", "qq", "x", "a", "b"):
        save(folder / other, "wrong")
    save(folder / name, "right")
    assert texts(name) == texts(name, stream=True) == texts(str(folder / name)) == ["right"]
    monkeypatch.chdir(folder / name)
    assert texts(".") == texts(".", stream=True) == ["right"]


@pytest.mark.parametrize("name", ["a::b", "$HOME"])
def test_a_name_that_cannot_be_escaped_is_refused(folder, name):
    save(folder / "b", "wrong")
    save(folder / name, "right")
    for stream in (False, True):
        with pytest.raises(UserError, match="give a path without `::` and `\\$`"):
            texts(name, stream=stream)


def test_a_file_is_found_by_its_name_and_a_pattern_stays_one(folder):
    from datasets import load_dataset

    for name in ("part1", "part[1]"):
        (folder / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    with names_that_exist_are_names():
        for name in ("part[1].jsonl", str(folder / "part[1].jsonl")):
            assert load_dataset("json", data_files=name, split="train")["text"][:] == ["part[1]"]
        assert sorted(load_dataset("json", data_files="part*.jsonl", split="train")["text"]) == ["part1", "part[1]"]


def test_the_library_is_as_before_afterwards():
    from datasets import data_files

    before = data_files.resolve_pattern
    with suppress(ZeroDivisionError), names_that_exist_are_names():
        assert data_files.resolve_pattern is not before
        raise ZeroDivisionError
    assert data_files.resolve_pattern is before


def test_a_name_of_the_hub_stays_as_it_is(folder):
    assert local_name("Salesforce/wikitext") == "Salesforce/wikitext"
    save(folder / "set", "text")
    assert local_name("set") == str(folder / "set")
