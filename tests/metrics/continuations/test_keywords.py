"""A keyword is found as a whole word, and not inside another word."""

import pytest

from potstill.metrics.continuations.keywords import alternatives, contains


@pytest.mark.parametrize(
    ("response", "keyword", "found"),
    [
        ("The capital of France is Paris.", "Paris", True),
        ("the capital is paris", "Paris", True),
        ("Paris’s streets and Paris-based firms", "Paris", True),
        ("a Parisian street", "Paris", False),
        ("comparison", "Paris", False),
        ("it is 4.", "4", True),
        ("(4)", "4", True),
        ("in 1942", "4", False),
        ("4.5 of them", "4", False),
        ("1,400 or 4,000", "4", False),
        ("ran into Sri\nLanka", "Sri Lanka", True),
        ("a temperature of −5 °C", "−5 °C", True),
        ("cafe\u0301", "café", True),
        ("", "Paris", False),
    ],
)
def test_as_a_word(response, keyword, found):
    assert contains(response, [keyword]) is found


def test_anywhere_is_the_published_metric():
    assert contains("a Parisian street", ["Paris"], match="anywhere")
    assert not contains("a parisian street", ["Paris"], match="anywhere", case=True)


def test_capitals_count_where_they_are_asked_to():
    assert contains("a Turkey in the oven", ["turkey"])
    assert not contains("a turkey in the oven", ["Turkey"], case=True)


def test_any_of_several_will_do():
    assert alternatives("twenty-five | 25|") == ["twenty-five", "25"]
    assert contains("which is 25", alternatives("twenty-five|25"))
    assert not contains("which is 26", alternatives("twenty-five|25"))
