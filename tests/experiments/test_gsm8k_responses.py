"""The published logs: the restated rule gives the logged answers, and each difference from ours has a cause."""

from fractions import Fraction
from functools import cache

import pytest

from experiments.gsm8k_responses import CAUSES, FOLDER, as_coded, explain, items, page
from potstill.metrics.answers.extract import Extracted, extract

LOGS = ("no-distil", "no-distil-fine-tune")
PUBLIC = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/gsm8k_responses is not here")


@cache
def log(name):
    return list(items(FOLDER / f"{name}.csv"))


@PUBLIC
@pytest.mark.parametrize("name", LOGS)
def test_the_restated_rule_gives_the_logged_answers(name):
    automatic = [each for each in log(name) if each.coded is not None]
    assert len(automatic) > 1000
    assert [float(each.coded) for each in automatic] == [each.logged for each in automatic]


@PUBLIC
@pytest.mark.parametrize("name", LOGS)
def test_no_difference_is_left_unexplained(name):
    assert [each.response for each in log(name) if each.differs and not each.causes] == []
    assert sum(each.differs for each in log(name)) < len(log(name)) / 5


@PUBLIC
@pytest.mark.parametrize("name", LOGS)
def test_the_published_rule_with_every_fault_mended_is_ours(name):
    assert [each.response for each in log(name) if as_coded(each.response, [], CAUSES)[0] != each.ours.value] == []


@PUBLIC
def test_the_page_lists_every_difference():
    found = {name: log(name) for name in LOGS}
    _, listed = page(found).split("## The causes")
    for name in LOGS:
        for number, each in enumerate(found[name]):
            assert (f"| {name} | {number} |" in listed) == each.differs


EXAMPLES = {
    "previous row": "1 and 2\nthe answer is 3, 4",
    "comma": "Well, it is 3\nor 4",
    "spelling": "3 or 3.0\nor 4",
    "sign": "-3",
    "box": "\\boxed{\\$3} 4 5",
    "fraction": "2/5",
    "point": ".4",
    "exponent": "4e3",
    "power": "3 in^2",
    "unclear": "so 3:30",
}


@pytest.mark.parametrize("cause", EXAMPLES)
def test_a_cause_is_found_alone(cause):
    assert explain(EXAMPLES[cause], ["9"], extract(EXAMPLES[cause])) == (cause,)


def test_the_capital_meets_the_previous_row():
    response = "1 and 2\nThe answer is 3, 4"
    assert as_coded(response, ["9"]) == (4, ["1", "2", "3,", "4"])
    assert as_coded(response, ["9"], ["capital"]) == (9, [])
    assert explain(response, ["9"], extract(response)) == ("previous row", "capital")
    assert set(CAUSES) == {*EXAMPLES, "capital"}


def test_an_answer_that_no_cause_explains_is_left_unexplained():
    assert explain("1 and 2\nso 3", ["9"], Extracted("last_number", Fraction(7), "7")) == ()
