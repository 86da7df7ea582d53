"""Tokens are coloured by their KL, and what nobody can see gets a sign."""

import pytest

from potstill.report.token_colours import coloured, full_colour


@pytest.mark.parametrize(
    ("text", "shown", "blank"),
    [(" the", " the", False), ("\n", "↵\n", True), ("a\tb\r", "a⇥\tb␍", False), ("   ", "␣␣␣", True), (" ", " ", True)],
)
def test_what_nobody_can_see_gets_a_sign(text, shown, blank):
    assert coloured(text, 0.5, 1.0) == {"shown": shown, "blank": blank, "heat": 50}


@pytest.mark.parametrize(("kl", "heat"), [(None, None), (0.0, 0), (-1e-9, 0), (2.0, 100), (50.0, 100), (0.02, 1)])
def test_the_colour_has_an_end_at_both_sides(kl, heat):
    assert coloured("a", kl, 2.0)["heat"] == heat


def test_one_extreme_token_does_not_make_the_others_pale():
    assert full_colour([1.0] * 99 + [500.0]) == 1.0
    assert full_colour([0.0, None, 0.001]) == 0.1
    assert full_colour([None]) == full_colour([]) == 1.0
