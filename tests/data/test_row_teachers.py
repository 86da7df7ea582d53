"""The teachers of a row, what the rows have that a rule does not match, and the parts of items by teachers."""

import pytest

from potstill.data.row_teachers import RowTeachers, label_of, numbers_of_teachers, parts_of
from potstill.errors import UserError
from potstill.recipe.corpus import PathSource
from potstill.recipe.teacher_rows import When

A, B = PathSource(path="a.jsonl"), PathSource(path="b.jsonl")


def test_a_row_has_every_teacher_whose_rule_it_matches_and_those_without_one():
    taught = RowTeachers({"maths": When(source="a.jsonl"), "all": None, "chat": When(column="kind", equals="chat")})
    assert taught.of(A, {"kind": "chat"}) == ("maths", "all", "chat")
    assert taught.of(B, {"kind": "chat"}) == ("all", "chat")
    assert taught.of(A, {}) == ("maths", "all")
    assert taught.columns == ("kind",)
    assert [taught.why_none(name) for name in taught.rules] == [None, None, None]


def test_a_row_may_have_no_teacher():
    assert RowTeachers({"maths": When(source="a.jsonl")}).of(B, {}) == ()


@pytest.mark.parametrize(
    ("when", "rows", "why"),
    [
        (When(source="b.jsonl"), [{}] * 3, "matches none of the 3 rows"),
        (When(column="kind", equals="x"), [{}], "asks for the column 'kind', and the columns of the 1 row are none"),
        (When(column="kind", equals="x"), [{"text": "t"}], "the columns of the 1 row are 'text'"),
        (
            When(column="kind", equals=1),
            [{"kind": "1"}] * 2,
            "matches none of the 2 rows; the values of 'kind' are '1' (2)",
        ),
        (When(column="n", equals=-1), [{"n": n} for n in range(8)], "are 0 (1), 1 (1), 2 (1), 3 (1), 4 (1) and 3 more"),
        (When(column="n", equals=1), [{"n": [1]}], "the values of 'n' are [1] (1)"),
    ],
)
def test_why_a_rule_matches_nothing(when, rows, why):
    taught = RowTeachers({"t": when})
    for row in rows:
        assert taught.of(A, row) == ()
    assert why in taught.why_none("t")


def test_the_numbers_of_a_sample_s_teachers_are_in_the_order_of_the_teachers():
    assert numbers_of_teachers({"teachers": ["b", "a", "b"]}, ["a", "b", "c"]) == (0, 1)
    assert numbers_of_teachers({"teachers": "c"}, ["a", "b", "c"]) == (2,)
    assert numbers_of_teachers({"teachers": []}, ["a"]) == ()
    for wrong in (["d"], "d", [1], 1, [None]):
        with pytest.raises(UserError, match="which is no teacher; they are a, b"):
            numbers_of_teachers({"teachers": wrong}, ["a", "b"])


def test_the_parts_of_items_are_teachers_sets_of_several_and_no_teacher():
    sets = [("a",), ("a", "b"), (), ("b",), ("a", "b")]
    assert dict(parts_of(sets, ["a", "b"])) == {
        "a": [True, True, False, False, True],
        "b": [False, True, False, True, True],
        "a + b": [False, True, False, False, True],
        "no teacher": [False, False, True, False, False],
    }
    assert label_of(()) == "no teacher"
