"""The four published rules apply in order; a number that cannot be read goes to a person, not to a weaker rule."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.metrics.answers.extract import REVIEW, RULES, Extracted, extract, reference, verdict


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("18", 18),
        (" -18 ", -18),
        ("\\$1{,}800.00", 1800),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("\\text{5 apples}", 5),
        ("5 \\text{ m}^2", 5),
        ("50\\%", 50),
        ("x = 5", 5),
        ("2 \\times 3 = 6", 6),
        ("\\mathbf{\\text{7}}", 7),
        ("5\\}", 5),
    ],
)
def test_a_box(content, value):
    found = extract(f"2 eggs, 3 hens\nThe answer is 4. \\boxed{{{content}}} or \\boxed{{99}}, 100")
    assert (found.rule, found.value) == ("boxed", value)


@pytest.mark.parametrize("box", ["\\boxed {8}", "\x08oxed{8}", "boxed{8}"])
def test_a_box_in_other_spellings(box):
    assert extract(f"1 and 2 $ {box} $ 3").rule == "boxed"


@pytest.mark.parametrize("box", ["\\boxed{}", "\\boxed{x}", "\\boxed{3, 5}", "\\boxed{8", "unboxed{8}"])
def test_a_box_without_one_number_is_passed_over(box):
    assert extract(f"1 and 2\n{box} then 9").value == 9
    if box.endswith("}"):
        assert extract(f"1 and 2\n{box} \\boxed{{7}} then 9").rule == "boxed"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("$64.00.", 64),
        ("-3", -3),
        ("1/2", Fraction(1, 2)),
        ("5 apples, that is 5.0 apples", 5),
        ("1,000 = $1000.00", 1000),
    ],
)
def test_a_first_line_whose_numbers_agree(line, value):
    found = extract(f"\n {line}\nThe answer is 8, or 9")
    assert (found.rule, found.value) == ("first_line", value)


@pytest.mark.parametrize("line", ["2 + 3 = 5", "3 or -3", "no number"])
def test_a_first_line_that_does_not_agree(line):
    assert extract(f"{line}\n the answer is 8, or 9").rule == "answer_is"


@pytest.mark.parametrize(
    "phrase", ["the answer is", "The final answer is:", "THE CORRECT ANSWER IS", "the\nanswer is not 7 but"]
)
def test_the_first_number_after_the_answer_is(phrase):
    found = extract(f"2 and 3\nSo {phrase} $-8. The answer is 9. 10")
    assert (found.rule, found.value) == ("answer_is", 7 if "7" in phrase else -8)


def test_the_last_number():
    assert extract("2 and 3\nthen 4 or −1,000.50.\nDone.") == Extracted("last_number", Fraction(-2001, 2), "−1,000.50")


ANSWERS = {"boxed": "\\boxed{11}", "first_line": "22", "answer_is": "the answer is 33", "last_number": "44"}


@given(st.sets(st.sampled_from(list(ANSWERS)), min_size=1))
def test_the_order_of_the_rules(present):
    first = ANSWERS["first_line"] if "first_line" in present else "1 and 2"
    rest = [ANSWERS[name] for name in ("answer_is", "boxed", "last_number") if name in present]
    expected = next(name for name in RULES if name in present)
    found = extract("\n".join([first, *rest]))
    assert (found.rule, found.text) == (expected, str(found.value))
    assert str(found.value) in ANSWERS[expected]
    assert list(RULES) == list(ANSWERS)


@pytest.mark.parametrize(
    "response",
    [
        "2 and 3\n\\boxed{3:30}, 9",
        "3:30\nSo 9",
        "2 and 3\nthe answer is 1.5 million, 9",
        "2 and 3\nso 1.2.3",
        "five",
        "...",
    ],
)
def test_what_no_rule_settles_goes_to_a_person(response):
    found = extract(response)
    assert (found.rule, found.value) == (REVIEW, None)
    assert verdict(found, Fraction(9)) == "needs review"


@given(st.text() | st.text("0123456789.,:/-$^{}\\ \nboxed"))
def test_nothing_in_an_answer_makes_them_raise(response):
    found = extract(response)
    assert (found.value is None) == (found.rule in (REVIEW, "blank"))
    assert found.text in response


@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_verdicts_compare_values(value, other):
    found = extract(f"\\boxed{{{value}}}")
    assert verdict(found, value) == "correct"
    assert verdict(found, other) == ("correct" if value == other else "wrong")


@pytest.mark.parametrize("response", ["", " \n\t"])
def test_a_blank_response_is_no_answer(response):
    assert verdict(extract(response), Fraction(1)) == "no answer"


def test_what_a_person_decided_counts():
    assert verdict(Extracted("person", None, ""), Fraction(1)) == "no answer"
    assert verdict(Extracted("person", Fraction(1), "one"), Fraction(1)) == "correct"


@given(st.integers(-(10**9), 10**9), st.sampled_from(["#### {}", "2+3 #### 7\n####{:,}", "x\n#### ${:,}.00\n"]))
def test_a_reference_is_the_number_after_the_last_mark(value, form):
    assert reference(form.format(value)) == value


@pytest.mark.parametrize("answer", ["", "5", "####", "#### five", "#### 1 or 2", "#### 3:30"])
def test_an_answer_without_a_reference(answer):
    with pytest.raises(UserError, match="must end in '#### N'"):
        reference(answer)
