"""The table of exported files."""

from potstill.report.exports import COLUMNS, table
from report.exported import FILE, REFUSED


def test_without_exports_there_is_no_table():
    assert table([]) is None


def test_a_line_has_every_figure_with_its_interval():
    (line,) = table([FILE])["lines"]
    assert len(line["cells"]) == len(COLUMNS)
    assert line["cells"][1:4] == [("3.00", "[2.90, 3.10]"), ("+0.02", "[+0.01, +0.03]"), ("0.010", "[0.008, 0.012]")]
    assert line["cells"][4:] == [("17 of 20", "2 part at a tie"), ("50%", "student 25%"), ("160", "4.4 × the student")]


def test_what_a_reader_must_know_is_said_once():
    notes = table([FILE, FILE | {"format": "gguf:F16"}])["notes"]
    assert notes == [
        "llama.cpp read 4,000 tokens of 12 held-out items; the tokens of 50 texts are the student’s own.",
        "llama.cpp puts no space before a text; begin texts with one.",
    ]


def test_a_refused_file_has_its_reason():
    (line,) = table([REFUSED])["lines"]
    assert (line["name"], line["refused"], line["cells"]) == ("gguf:F16", "llama.cpp cannot open it", [])


def test_of_several_students_each_is_named():
    both = table([FILE | {"experiment": "student one"}, FILE | {"experiment": "student two"}])
    assert [line["name"] for line in both["lines"]] == ["Student one, gguf:Q8_0", "Student two, gguf:Q8_0"]
