"""A name that exists is a name, whatever characters it has."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.files.named_files import literal_pattern, matching_files, named_folder, named_path

HOSTILE = [
    "part[1].jsonl",
    "a*b.txt",
    "q?.csv",
    "{x}.jsonl",
    "two words",
    "%20",
    "#",
    "-x",
    "äö",
    "~x",
    "**",
    "[",
    "a\\b",
]
NAMES = st.text(st.sampled_from("ab1[]!*?{}~#% -$:'\"\\é"), min_size=1, max_size=6).filter(lambda it: it.strip("."))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_with_wildcards_is_that_file_only(tmp_path, name):
    for each in ("part1.jsonl", "aXb.txt", "qq.csv", "x.jsonl", name):
        (tmp_path / each).touch()
    assert matching_files(name, tmp_path) == [tmp_path / name]


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), NAMES)
def test_any_name_that_exists_is_found_and_nothing_else(tmp_path_factory, names, folder):
    home = tmp_path_factory.mktemp("home") / folder
    home.mkdir()
    for name in names:
        (home / name).touch()
    for name in names:
        assert matching_files(name, home) == [home / name]
        assert matching_files(f"{folder}/{name}", home.parent) == [home / name]


def test_what_follows_the_name_is_a_pattern(tmp_path):
    for folder in ("[ab]", "a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.txt").touch()
    assert matching_files("[ab]/*.txt", tmp_path) == [tmp_path / "[ab]" / "1.txt"]
    assert matching_files("[a-c]/*.txt", tmp_path) == [tmp_path / "a" / "1.txt"]


@pytest.mark.parametrize("path", ["", "/etc/*", "a**b", "no*", "/etc/hosts", "a\0b"])
def test_no_match_is_no_error(tmp_path, path):
    assert matching_files(path, tmp_path) == []


def test_a_pattern_without_a_name_stays_as_it_is(tmp_path):
    assert literal_pattern("**/[.-_]x//*", tmp_path) == "**/[.-_]x//*"


def test_the_home_folder_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    assert named_path("~/x") == tmp_path / "me" / "x"
    assert str(named_path("~no such user/x")) == "~no such user/x"
    (tmp_path / "~").mkdir()
    assert str(named_path("~")) == "~"


@pytest.mark.parametrize("name", ["~nobody/x", "x" * 300, "a\0b", "no/such/folder"])
def test_a_folder_that_cannot_be_is_none(name):
    assert named_folder(name) is None


def test_a_home_that_is_unknown_is_met_in_one_place():
    source = Path(__file__).parents[2] / "src"
    files = [file for file in source.rglob("*.py") if "expanduser(" in file.read_text(encoding="utf-8")]
    assert [file.name for file in files] == ["named_files.py"]


@pytest.mark.parametrize("name", ["x" * 300, "~" + "x" * 300, "é" * 200, "/".join(["abc"] * 2000)])
def test_a_name_that_is_too_long_for_a_file_is_refused_in_one_sentence(name):
    with pytest.raises(UserError, match="too long for the name of a file; give another"):
        named_path(name)
    # It may be a name on the hub, which refuses it itself.
    assert named_folder(name) is None
    assert matching_files(name.lstrip("~")) == []


def test_a_name_with_a_null_character_is_that_of_no_file():
    assert not named_path("a\0b").exists()
