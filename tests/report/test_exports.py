from potstill.report.exports import COLUMNS, table

LOSS = {
    "model": "file",
    "metric": "loss",
    "value": 3.0,
    "low": 2.9,
    "high": 3.1,
    "n": 12,
    "seeds": None,
    "over_units": None,
}
CHANGE = {
    **{"a": "file", "b": "student", "metric": "loss", "difference": 0.02, "low": 0.01, "high": 0.03},
    **{"n": 12, "p": 0.01, "seeds": None, "over_units": None, "beyond_chance": True},
}
FILE = {
    "experiment": "student",
    "format": "gguf:Q8_0",
    "refused": None,
    "engine": "llama.cpp",
    "bytes": 88_000_000,
    "notes": ["llama.cpp puts no space before a text; begin texts with one"],
    "tokens_equal": 50,
    "template_equal": None,
    "tokens": 4000,
    "documents": 12,
    "loss": LOSS,
    "loss_difference": CHANGE,
    "kl": LOSS | {"metric": "kl", "value": 0.01, "low": 0.008, "high": 0.012},
    "answers": 20,
    "answers_equal": 17,
    "answers_tied": 2,
    "stop_rate": 0.5,
    "stop_rate_of_student": 0.25,
    "decode_tokens_per_second": 160.0,
    "decode_ratio": {"median": 4.4, "low": 4.0, "high": 5.0},
}
REFUSED = {"experiment": "student", "format": "gguf:F16", "refused": "llama.cpp cannot open it"}


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
