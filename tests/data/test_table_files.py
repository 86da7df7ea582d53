"""Every row of a table is read as it stands in the file, whatever stands in other rows and columns."""

import csv
import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from potstill.data import table_files
from potstill.data.table_files import table_rows

AS_THEY_STAND = [
    "NA",
    "nan",
    "null",
    "None",
    "n/a",
    "",
    " x ",
    "007",
    "1e5",
    "2020-01-01",
    "True",
    "2020-01-01T00:00:00Z",
]
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries({"text": TEXT | st.none()}, optional={"other": JSON, "more": JSON}), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def read(folder, name, content, column=None):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [columns for _, columns in table_rows(folder / name, column)]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 40))
@example([{"text": value} for value in AS_THEY_STAND], 1)
@example([{"text": None, "other": 1}, {"text": "a", "other": "b"}, {"text": "c", "other": {"d": [10**30]}}], 1)
def test_json_rows_come_back_as_they_were_written(folder, rows, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_files, "CHUNK", chunk)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        for name, content in (
            ("a.jsonl", lines),
            ("b.json", lines),
            ("c.json", json.dumps(rows)),
            ("d.json", "\ufeff\n " + json.dumps(rows, indent=2, ensure_ascii=False) + "\n"),
            ("e.jsonl", json.dumps(rows)),
        ):
            for column in (None, "text"):
                assert read(folder, name, content, column) == rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
@example([("x", value) for value in AS_THEY_STAND])
def test_cells_of_csv_come_back_as_they_were_written(folder, rows):
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *rows])
    assert read(folder, "a.csv", stream.getvalue()) == [{"id": first, "text": second} for first, second in rows]
    assert read(folder, "a.csv", stream.getvalue(), "text") == [{"text": second} for _, second in rows]


def test_csv_without_quotes(folder):
    content = "\ufefftext,id,text,\n" + "".join(f"{value},{value},b,c\n" for value in AS_THEY_STAND) + "\nshort\n"
    rows = [{"text": it, "id": it, "text.1": "b", "Unnamed: 3": "c"} for it in AS_THEY_STAND]
    assert read(folder, "a.csv", content) == [*rows, {"text": "short", "id": "", "text.1": "", "Unnamed: 3": ""}]


def test_a_key_that_comes_late_and_a_column_of_another_type_stop_nothing(folder):
    line = json.dumps({"text": "x" * 1000, "other": 1, "null": None}) + "\n"
    late = json.dumps({"text": "last", "other": {"a": "b"}, "null": "text", "new": 1}) + "\n"
    found = read(folder, "late.jsonl", line * 11_000 + late, "text")
    assert len(found) == 11_001
    assert found[-1]["text"] == "last"


def test_parquet_without_rows_and_with_columns_that_are_not_wanted(folder):
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.table({"text": ["NA", None, "b"], "day": pyarrow.array([1, 2, 3], "timestamp[ns]")})
    write_table(table, folder / "a.parquet")
    assert [columns for _, columns in table_rows(folder / "a.parquet", "text")] == [
        {"text": "NA"},
        {"text": None},
        {"text": "b"},
    ]
    write_table(table.slice(0, 0), folder / "none.parquet")
    assert list(table_rows(folder / "none.parquet", "text")) == []


def test_a_row_says_where_it_stands(folder):
    (folder / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}')
    assert [number for number, _ in table_rows(folder / "a.jsonl")] == [2, 4]
    (folder / "a.csv").write_text("a\n1\n2\n")
    assert [number for number, _ in table_rows(folder / "a.csv")] == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", '{"a": 1}\n5\n', "line 2 is not a JSON object, but int"),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', "line 1 is not one JSON object: more follows it"),
        ("a.jsonl", "\n" + "[" * 9, "row 1 of the array is not JSON"),
        ("a.jsonl", '{"a": ' + "[" * 10**6, "line 1 is nested too deep"),
        ("a.json", '{\n"a": 1}', "line 1 is not JSON"),
        ("a.json", '[{"a": 1}', "the array lacks a comma or its end after row 1"),
        ("a.json", '[{"a": 1} {"a": 2}]', "the array lacks a comma or its end after row 1"),
        ("a.json", '[{"a": 1},]', "row 2 of the array is not JSON"),
        ("a.json", "[1]", "row 1 of the array is not a JSON object, but int"),
        ("a.json", "[] x", "more follows the array, after row 0"),
        ("a.json", b'[{"a": "\xff"}]', "it is not UTF-8"),
        ("a.json", '[{"a": "\\udc00"}]', "half of a character"),
        ("a.csv", 'text\n"open\nand never closed\n', "EOF inside string"),
        ("a.csv", "a,b\n1,2,3\n4,5,6\n", "the first row has more cells than the header"),
    ],
)
def test_damage_is_told_with_its_place(folder, name, content, why):
    with pytest.raises(ValueError, match=why):
        read(folder, name, content)


def test_what_stands_in_other_columns_is_not_checked(folder):
    rows = '{"text": "a", "other": "\\ud800", "long": ' + "9" * 5000 + "}\n"
    assert [row["text"] for row in read(folder, "a.jsonl", rows, "text")] == ["a"]
