"""Numbers are read exactly, in every form that people and models write; a number with an unclear value has none."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.metrics.answers.numbers import LONGEST, numbers

WHOLE = st.integers(0, 10**12)
MINUS = st.sampled_from(["-", "−", "–", "negative ", "-$", "$-", "-\\$", "−£"])
SEPARATOR = st.sampled_from([",", "{,}", "\\,", ",\\!", "\u2009", "\u202f", "\u00a0", "\\ "])
AROUND = st.sampled_from(
    ["{}", "{}.", "{},", "{}!", "It is {} apples.", "({})", "**{}**", "= {}", "{}%", "{}\\%", "{} kg\n"]
)


def values(text):
    return [number.value for number in numbers(text)]


@given(WHOLE, SEPARATOR, st.text("0123456789", max_size=4), AROUND)
def test_separators_decimals_and_what_stands_around_do_not_change_a_number(whole, separator, decimals, around):
    value = Fraction(f"{whole}.{decimals}0")
    for written in (f"{whole}", f"{whole:,}".replace(",", separator), f"${whole:,}"):
        assert values(around.format(written + f".{decimals}" * bool(decimals))) == [value]


@given(WHOLE, MINUS, AROUND)
def test_a_minus_is_kept(whole, minus, around):
    assert values(around.format(f"{minus}{whole}")) == [-whole]


@given(
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(["{}/{}", "{}⁄{}", "\\frac{{{}}}{{{}}}", "\\dfrac{{{}}}{{{}}}"]),
)
def test_fractions_are_exact(top, bottom, form):
    assert values(form.format(top, bottom)) == [Fraction(top, bottom)]
    assert values("-" + form.format(top, bottom)) == [-Fraction(top, bottom)]


@given(
    st.integers(0, 1000),
    st.integers(1, 98),
    st.sampled_from(["{} {}/99", "{} \\frac{{{}}}{{99}}", "{}\\tfrac{{{}}}{{99}}"]),
)
def test_mixed_numbers(whole, top, form):
    assert values(form.format(whole, top)) == [whole + Fraction(top, 99)]


@given(
    st.decimals(min_value=0, max_value=1000, places=3),
    st.integers(-30, 30),
    st.sampled_from(["{}e{}", "{}E{}", "{} × 10^{}", "{}*10**{}", "{} \\times 10^{{{}}}"]),
)
def test_scientific_notation(mantissa, exponent, form):
    assert values(form.format(mantissa, exponent)) == [Fraction(mantissa) * Fraction(10) ** exponent]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".5", "1/2"),
        ("$.50", "1/2"),
        ("½", "1/2"),
        ("2½", "5/2"),
        ("-2 1/2", "-5/2"),
        ("\\frac12", "1/2"),
        ("3rd", "3"),
        ("90^\\circ", "90"),
        ("5 m^2", "5"),
        ("108 \\text{in}^3", "108"),
        ("0.333...", "333/1000"),
        ("007", "7"),
        ("€5", "5"),
        ("5€", "5"),
    ],
)
def test_forms(text, value):
    assert values(text) == [Fraction(value)]


@pytest.mark.parametrize(
    "text", ["5-3", "5 - 3", "5 -3", "$5-$3", "x^5-3", "5%-3", "(5)-3", "5 to year-3", "5 --3", "5 (3)"]
)
def test_an_operator_a_hyphen_and_a_dash_are_no_sign(text):
    assert values(text)[-1] == 3


@pytest.mark.parametrize("text", ["5\n-3", "5 = -3", "5 (-3", "5, -3", "5 is -3", "5 * -3", "so $-3"])
def test_a_sign_is_one_where_nothing_can_be_taken_from(text):
    assert values(text)[-1] == -3


@pytest.mark.parametrize("text", ["2 17/2", "Step 2 17/2"])
def test_a_part_that_is_more_than_one_makes_no_mixed_number(text):
    assert values(text) == [2, Fraction(17, 2)]


@pytest.mark.parametrize(
    "text",
    [
        *("3:30", "1.2.3", "5.000.000", "3,5", "1,2,3", "1,0000", "12/25/2020", "1/0", "2.5/12", "3^2", "3**2", "10²"),
        *("1.5 million", "2 Thousand", "5 \\text{ billion}", "1½ million", "50k"),
        *("1e100", "10 * 10^5000", "9" * (LONGEST + 1)),
    ],
)
def test_what_would_be_a_guess_has_no_value(text):
    (number,) = numbers(text)
    assert number.value is None


def test_a_number_knows_where_it_was_written():
    text = "It costs -$1,000.50, or 2 1/2 times 3:30."
    found = list(numbers(text))
    assert [each.text for each in found] == ["-$1,000.50", "2 1/2", "3:30"]
    assert all(text[each.start :].startswith(each.text) for each in found)


@given(st.text("0123456789.,:/-−$%^*{}\\ ½e²k\n" + "frac", max_size=60))
def test_nothing_makes_it_raise(text):
    for number in numbers(text):
        assert text[number.start :].startswith(number.text)
