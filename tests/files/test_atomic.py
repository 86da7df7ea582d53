"""Files are written whole or not at all."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.files.atomic import atomic_folder, digest, read_json, remove, sha256, write_json, write_text


def test_a_file_is_there_whole_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"é": [1, None, 1e-4]})
    assert read_json(file) == {"é": [1, None, 1e-4]}
    assert "é" in file.read_text(encoding="utf-8"), "a person can read it"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, moment):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if moment == "write" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_in_the_place_of_a_file_is_said_and_left_alone(tmp_path):
    file = tmp_path / "one.json"
    (file / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match=r"one\.json is a folder, where a file is to be written"):
        write_json(file, 1)
    assert [one.name for one in tmp_path.rglob("*")] == ["one.json", "inside"]


def test_a_folder_in_the_place_of_an_unfinished_file_is_removed(tmp_path):
    (tmp_path / ".one.json.partial" / "inside").mkdir(parents=True)
    write_json(tmp_path / "one.json", 1)
    assert [one.name for one in tmp_path.rglob("*")] == ["one.json"]


def test_what_json_cannot_hold_is_an_error_and_not_a_string(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": Path("x")})
    with pytest.raises(TypeError):
        digest({1, 2})


def test_what_is_not_there_is_none_and_what_is_damaged_is_named(tmp_path):
    assert read_json(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_text('{"half')
    assert read_json(tmp_path / "a.json" / "manifest.json") is None
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_a_digest_is_of_the_content(tmp_path):
    assert digest({"a": 1, "b": [2]}) == digest(json.loads('{"b": [2], "a": 1}'))
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert digest(["ab"]) != digest(["a", "b"])
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"abc")
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")
    assert sha256(tmp_path / "one") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_removing_takes_files_folders_and_links_but_not_what_links_point_at(tmp_path):
    target = tmp_path / "target"
    (target / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").touch()
    for name in ("link", "file", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == [target]
    remove(target)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    folder = tmp_path / "made"
    for text in ("first", "second"):
        with atomic_folder(folder) as partial:
            assert not partial.exists()
            partial.mkdir()
            (partial / "file").write_text(text)
        assert (folder / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_could_not_be_written_leaves_the_one_before_it(tmp_path):
    folder = tmp_path / "made"
    for text in ("first", "second"):
        with suppress(OSError), atomic_folder(folder) as partial:
            partial.mkdir()
            (partial / "file").write_text(text)
            if text == "second":
                raise OSError(28, "no space left")
    assert (folder / "file").read_text() == "first"
    with atomic_folder(folder) as partial:
        assert not partial.exists(), "the leftovers of the failed attempt are gone"
        partial.mkdir()


def test_a_rank_that_does_not_own_a_folder_neither_clears_nor_renames_it(tmp_path):
    folder = tmp_path / "made"
    with atomic_folder(folder) as partial:
        partial.mkdir()
        with atomic_folder(folder, owner=False) as same:
            assert same == partial
            (same / "part").write_text("of the other rank")
        assert not folder.exists()
    assert (folder / "part").exists()
