"""Decisions apply to every equal response, count as decided, and their record is read back or refused with a reason."""

import csv
import random
from dataclasses import astuple, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.metrics.answers.decisions import (
    COLUMNS,
    NONE,
    WITHDRAWN,
    Answer,
    Decision,
    as_decision,
    decided,
    exported,
    in_effect,
    merged,
    number,
    queue,
    read_decisions,
    write_decisions,
    written,
)
from potstill.metrics.answers.extract import extract, verdict

UNREAD = "It ends at 3:30."
WORDS = "I do not know."


def answer(response=UNREAD, model="base/seed-0", question="When?", reference="So it is.\n#### 18", identity="test:1"):
    return Answer(model, identity, question, reference, response)


def decision(said, about=None, who="ann", second=0):
    return Decision.about(about or answer(), said, who, f"2026-01-31T12:00:{second:02d}+00:00")


def test_the_queue_is_what_no_rule_settles():
    given_answers = [answer(), answer(WORDS), answer("18"), answer("\\boxed{1/2}"), answer("  \n")]
    assert {each.response for each in queue(given_answers).values()} == {UNREAD, WORDS}


def test_the_same_response_to_the_same_question_is_asked_once_whoever_wrote_it():
    same = [answer(), answer(model="base/seed-1"), answer(model="fine-tuning", identity="other:9")]
    assert len(queue(same)) == 1
    assert len(queue([*same, answer(question="How many?"), answer(UNREAD + " ")])) == 3


def test_the_order_of_the_queue_says_nothing_of_models_files_or_ids():
    answers = [answer(f"{WORDS} {'x' * place}", f"model-{place % 3}", identity=f"test:{place}") for place in range(30)]
    order = list(queue(answers))
    shuffled = random.Random(0).sample(answers, len(answers))
    assert list(queue(shuffled)) == order
    renamed = [replace(each, model="m", id="i") for each in shuffled]
    assert list(queue(renamed)) == order
    models = [each.model for each in queue(answers).values()]
    assert models != sorted(models)


def test_ends_of_lines_that_an_editor_changes_are_no_other_response():
    assert answer("a\r\nb\rc").key == answer("a\nb\nc").key
    assert answer("a\n\nb").key != answer("a\nb").key


def test_a_decision_counts_for_every_model_that_wrote_the_same_and_for_no_other_response():
    answers = [answer(), answer(model="fine-tuning/seed-3"), answer(WORDS)]
    found = decided(answers, [decision("1/2")])
    assert [(each.rule, each.value, each.text) for each in found] == [
        ("person", Fraction(1, 2), "1/2"),
        ("person", Fraction(1, 2), "1/2"),
        ("review", None, ""),
    ]


def test_where_a_rule_settles_it_nobody_is_asked():
    settled = answer("The answer is 18.")
    assert decided([settled], [decision("7", settled)]) == [extract(settled.response)]


@pytest.mark.parametrize(
    ("said", "counts"),
    [("18", "correct"), ("$18.00", "correct"), ("18.5", "wrong"), ("-18", "wrong"), (NONE, "no answer")],
)
def test_what_a_decision_counts(said, counts):
    (found,) = decided([answer()], [decision(said)])
    assert verdict(found, Fraction(18)) == counts


def test_undecided_still_needs_review():
    (found,) = decided([answer()], [decision("18"), decision(WITHDRAWN, second=1)])
    assert verdict(found, Fraction(18)) == "needs review"


def test_the_last_decision_holds_until_it_is_withdrawn():
    other = answer(WORDS)
    log = [decision("5"), decision("3", other), decision("7", who="bob"), decision(WITHDRAWN, other)]
    assert [(each.decision, each.who) for each in in_effect(log).values()] == [("7", "bob")]
    again = [*log, decision("4", other)]
    assert [each.decision for each in in_effect(again).values()] == ["7", "4"], "the latest is last"


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("18", 18),
        (" -3 ", -3),
        ("−3", -3),
        ("1,000", 1000),
        ("$1,000.50", Fraction(2001, 2)),
        ("1/2", Fraction(1, 2)),
        ("2 1/2", Fraction(5, 2)),
        ("½", Fraction(1, 2)),
        ("50%", 50),
        ("5.", 5),
        (".5", Fraction(1, 2)),
        ("1.5e3", 1500),
    ],
)
def test_numbers_as_persons_write_them(typed, value):
    assert as_decision(typed) == typed.strip()
    assert number(as_decision(typed)) == value


def test_none_in_any_letters():
    assert [as_decision(typed) for typed in ("none", "None", " NONE ")] == [NONE] * 3
    assert number(NONE) is None


@pytest.mark.parametrize(
    "typed", ["", "five", "3:30", "1.5 million", "5 apples", "5 6", "5-3", "--5", "3,5", "1/0", "31.1.2026", WITHDRAWN]
)
def test_what_is_no_number_is_said(typed):
    with pytest.raises(UserError, match="is no number; write one like 18"):
        as_decision(typed)


@given(st.fractions(max_denominator=10**6))
def test_a_number_is_written_so_that_it_reads_back(value):
    assert number(as_decision(written(value))) == value


def test_numbers_are_written_as_people_do():
    values = [Fraction(18), Fraction(129, 2), Fraction(-1, 3), Fraction(10**30), Fraction(0), None]
    assert [written(value) for value in values] == ["18", "64.5", "-1/3", "1" + "0" * 30, "0", ""]


def test_an_export_has_every_answer():
    none = answer(WORDS)
    answers = [answer("18"), answer(model="b"), none, answer("3:30 or 4:30"), answer(""), answer("17")]
    rows = exported(answers, [decision("18.0"), decision(NONE, none, "bob", 1)])
    shown = [(row["rule"], row["answer"], row["verdict"], row["decided_by"]) for row in rows]
    assert shown == [
        ("first_line", "18", "correct", ""),
        ("person", "18", "correct", "ann"),
        ("person", "-1", "no answer", "bob"),
        ("review", "", "needs review", ""),
        ("blank", "-1", "no answer", ""),
        ("first_line", "17", "wrong", ""),
    ]
    assert (rows[1]["model"], rows[1]["reference"], rows[2]["decided_when"]) == ("b", "18", "2026-01-31T12:00:01+00:00")


@given(
    st.lists(
        st.builds(
            lambda question, response, said, who: decision(said, answer(response, question=question), who),
            *[st.text(st.characters(exclude_categories=["Cs"]))] * 2,
            st.sampled_from(["18", "1/2", NONE, WITHDRAWN]),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
        )
    )
)
def test_a_record_reads_back_whatever_is_in_a_response(tmp_path_factory, decisions):
    file = tmp_path_factory.mktemp("record") / "decisions.csv"
    write_decisions(file, decisions)
    assert read_decisions(file) == decisions


def test_a_record_is_a_csv_that_others_read(tmp_path):
    write_decisions(tmp_path / "decisions.csv", [decision("1,000", answer('He said "3:30",\nthen 4:30'))])
    with (tmp_path / "decisions.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert tuple(row) == COLUMNS
    assert (row["decision"], row["who"], row["response"]) == ("1,000", "ann", 'He said "3:30",\nthen 4:30')


def test_a_very_long_response_reads_back(tmp_path):
    long = decision("5", answer("no " * 100_000))
    write_decisions(tmp_path / "decisions.csv", [long])
    assert read_decisions(tmp_path / "decisions.csv") == [long]


@pytest.mark.parametrize("content", [None, b"", b"\r\n", ",".join(COLUMNS).encode() + b"\n"])
def test_no_record_yet(tmp_path, content):
    if content is not None:
        (tmp_path / "decisions.csv").write_bytes(content)
    assert read_decisions(tmp_path / "decisions.csv") == []


def test_what_spreadsheets_make_of_a_file_is_read(tmp_path):
    file, rows = tmp_path / "decisions.csv", [decision("5", answer("one\n3:30")), decision(NONE, answer(WORDS))]
    write_decisions(file, rows)
    text = file.read_bytes().decode().replace("\r\n", "\n").replace(",none,", ",None ,")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n")
    assert read_decisions(file) == rows


SECOND = decision("7", answer("first\n3:30"), second=1)


def cell(column, value):
    cells = list(astuple(SECOND))
    cells[COLUMNS.index(column)] = value
    return cells


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        (cell("decision", "five"), "`decision`: 'five' is no number"),
        (cell("decision", "02.Jan"), "`decision`: '02.Jan' is no number"),
        (cell("decision", ""), "`decision`: '' is no number"),
        (cell("who", " "), "`who` is blank"),
        (cell("when", "yesterday"), "`when` is 'yesterday', not a date and time"),
        (cell("response", "another"), "the key does not belong to this question and response"),
        (cell("key", answer(WORDS).key), "the key does not belong to this question and response"),
        (astuple(SECOND)[:-1], "6 columns instead of 7"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(tmp_path, cells, wrong):
    file = tmp_path / "decisions.csv"
    write_decisions(file, [decision("5", answer("two\nlines, 3:30"))])
    with file.open("a", newline="") as stream:
        csv.writer(stream).writerow(cells)
    with pytest.raises(UserError, match=r"decisions\.csv, line 4: ") as said:
        read_decisions(file)
    assert wrong in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (lambda text: text.replace(",", ";"), "line 1: its columns must be key, id, decision, who, when"),
        (lambda text: text.split("\n", 1)[1], "line 1: its columns must be"),
        (lambda text: text.rstrip()[:-1], "line 2: unexpected end of data"),
        (lambda text: text.encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_record_is_said(tmp_path, damage, wrong):
    file = tmp_path / "decisions.csv"
    write_decisions(file, [decision("5", answer("two\nlines, 3:30"))])
    damaged = damage(file.read_bytes().decode())
    file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(UserError, match=wrong):
        read_decisions(file)


def test_merging_adds_what_is_missing_and_leaves_what_was_edited():
    first, second = decision("5"), decision("7", second=1)
    edited = replace(first, decision="6")
    assert merged([edited], [first, second]) == [edited, second]
    assert merged([], [first, second]) == [first, second]
