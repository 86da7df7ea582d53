"""Pairs are read from files and from data sets; a row that is no pair is refused with its place."""

import json

import pytest

from potstill.errors import UserError
from potstill.metrics.minimal_pairs.read import Subtask, pairs_from_dataset, pairs_from_files


def pair(good, bad, **more):
    return {"sentence_good": good, "sentence_bad": bad, **more}


def write(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_blimp_s_files_and_its_supplement_s_make_a_subtask_each(tmp_path):
    write(tmp_path / "b.jsonl", pair("I go.", "I goes.", UID="verbs", field="syntax", pairID="0"))
    # The supplement's rows do not name their subtask, and their texts have several lines.
    write(tmp_path / "a.jsonl", pair("A: Who?\nB: Ann.", "A: Who?\nB: Paris."), pair("x", "y"))
    (tmp_path / "README.md").write_text("no pairs")
    assert pairs_from_files(str(tmp_path), "evaluate.blimp") == [
        Subtask("a", ("A: Who?\nB: Ann.", "x"), ("A: Who?\nB: Paris.", "y")),
        Subtask("verbs", ("I go.",), ("I goes.",)),
    ]


def test_one_file_may_hold_several_subtasks(tmp_path):
    file = write(
        tmp_path / "all.jsonl", pair("a", "b", UID="one"), pair("c", "d", UID="two"), pair("e", "f", UID="one")
    )
    assert pairs_from_files(str(file), "k") == [Subtask("one", ("a", "e"), ("b", "f")), Subtask("two", ("c",), ("d",))]


def test_a_line_is_what_ends_with_a_newline(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"sentence_good": "a\u2028b", "sentence_bad": "c"}\r\n\r\n'.encode())
    assert pairs_from_files(str(file), "k") == [Subtask("a", ("a\u2028b",), ("c",))]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            b'{"sentence_good": "a", "sentence_bad": "b"}\n{"sentence_good": "a"}',
            "line 2 has no text in `sentence_bad`",
        ),
        (b'{"sentence_good": "", "sentence_bad": "b"}', "line 1 has no text in `sentence_good`"),
        (b'{"sentence_good": ["a"], "sentence_bad": "b"}', "line 1 has no text in `sentence_good`"),
        (b'"a"', "line 1 has no text in `sentence_good`"),
        (b'\n{"sentence_good"', "line 2 is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"\n", "holds no pairs"),
    ],
)
def test_what_is_no_pair_is_refused_by_file_and_line(tmp_path, content, complaint):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=complaint) as told:
        pairs_from_files(str(tmp_path), "evaluate.blimp")
    assert "`evaluate.blimp`" in str(told.value)
    assert str(tmp_path) in str(told.value)


def test_no_pairs_at_all_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no \.jsonl at"):
            pairs_from_files(str(path), "k")


def test_a_copy_in_the_same_folder_is_refused(tmp_path):
    for name in ("verbs", "verbs copy"):
        write(tmp_path / f"{name}.jsonl", pair("a", "b", UID="verbs"))
    with pytest.raises(UserError, match="'verbs copy' has already"):
        pairs_from_files(str(tmp_path), "k")


def data_set(folder):
    """A data set with two configurations, with the layout of the hub."""
    write(folder / "verbs" / "train.jsonl", pair("I go.", "I goes.", UID="verbs"))
    write(folder / "hypernym" / "train.jsonl", pair("a", "b"), pair("c", "d"))
    names = ("verbs", "hypernym")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in names)
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


def test_a_data_set_has_a_subtask_for_each_configuration(tmp_path):
    found = pairs_from_dataset(str(data_set(tmp_path)), "evaluate.blimp")
    assert sorted(found, key=lambda each: each.name) == [
        Subtask("hypernym", ("a", "c"), ("b", "d")),
        Subtask("verbs", ("I go.",), ("I goes.",)),
    ]


def test_a_data_set_that_is_not_there_or_lacks_a_split_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`evaluate\.blimp`: data set .* cannot be loaded"):
        pairs_from_dataset(str(tmp_path / "nowhere"), "evaluate.blimp")
    with pytest.raises(UserError, match=r"`evaluate\.blimp`: data set .* cannot be loaded"):
        pairs_from_dataset(str(data_set(tmp_path)), "evaluate.blimp", split="validation")


def test_a_row_of_a_data_set_that_is_no_pair_is_refused_where_it_stands(tmp_path):
    data_set(tmp_path)
    write(tmp_path / "hypernym" / "train.jsonl", pair("a", "b"), pair("c", None))
    with pytest.raises(UserError, match="hypernym, row 1 has no text in `sentence_bad`"):
        pairs_from_dataset(str(tmp_path), "evaluate.blimp")


@pytest.mark.parametrize("name", ["a[1]", "a*b", "q?", "[ab]", "two words", "~x"])
def test_a_folder_or_file_is_found_by_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for other in ("a1", "aXb", "qq", "a"):
        data_set(tmp_path / other)
        write(tmp_path / other / "hypernym" / "train.jsonl", pair("wrong", "wrong"))
    data_set(tmp_path / name)
    write(tmp_path / name / f"{name}.jsonl", pair("right", "wrong"))
    assert pairs_from_files(name, "k") == pairs_from_files(f"{name}/{name}.jsonl", "k")
    found = {one.name: one for one in pairs_from_dataset(name, "k")}
    assert found["hypernym"] == Subtask("hypernym", ("a", "c"), ("b", "d"))
