"""The files that a `path:` names."""

import pytest

from potstill.data.text_files import KINDS, check_kinds, path_files
from potstill.errors import UserError


@pytest.fixture
def texts(tmp_path, monkeypatch):
    for name in ("b.txt", "a.jsonl", "deep/c.csv", "deep/er/d.parquet", "README.md", "deep/picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("b.txt", ["b.txt"]),
        ("deep", ["c.csv", "d.parquet"]),
        (".", ["a.jsonl", "b.txt", "c.csv", "d.parquet"]),
        ("*.txt", ["b.txt"]),
        ("deep/*.csv", ["c.csv"]),
        ("**/*.parquet", ["d.parquet"]),
    ],
)
def test_a_file_a_folder_or_a_pattern(texts, path, names):
    assert [file.name for file in path_files(path, "key")] == names
    assert [file.name for file in path_files(str(texts / path), "key")] == names


def test_the_home_folder(texts, monkeypatch):
    monkeypatch.setenv("HOME", str(texts))
    assert path_files("~/b.txt", "key") == path_files("~/b.*", "key") == [texts / "b.txt"]


@pytest.mark.parametrize("path", ["c.txt", "no/such/folder", "*.csv", "deep/*", ""])
def test_nothing_to_read_is_told_with_the_key_and_the_place(texts, path):
    (texts / "deep/c.csv").unlink()
    for left in ("deep/er/d.parquet", "deep/picture.png", "a.jsonl", "b.txt"):
        (texts / left).unlink()
    with pytest.raises(UserError) as told:
        path_files(path, "corpus.sources.0.path")
    sentence = f"`corpus.sources.0.path`: no text at {path!r} (seen from {texts}); name a file, a folder or a pattern"
    assert str(told.value) == sentence


@pytest.mark.parametrize("path", ["README.md", "*"])
def test_a_file_of_another_kind_is_refused_if_it_was_named(texts, path):
    with pytest.raises(
        UserError, match=r"`key`: README\.md is of a kind that cannot be read; the kinds are \.txt, \.train"
    ):
        path_files(path, "key")


def test_kinds_are_checked_one_by_one(texts):
    check_kinds([texts / f"x{kind}" for kind in KINDS], "key")
    with pytest.raises(UserError, match=r"x\.xml is of a kind that cannot be read"):
        check_kinds([texts / "x.txt", texts / "x.xml"], "key")
