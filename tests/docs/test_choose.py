"""Every figure of the page of choices is one of the page that its cell links to, rounded."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "choose.md"
NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")
LINK = re.compile(r"\]\((experiments/\w+\.md)#?[^)]*\)")


def cells():
    """The last cell of each row that links to an experiment: its text, and the pages."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        seen = line.strip("|").split("|")[-1]
        if line.startswith("|") and (pages := LINK.findall(seen)):
            yield pytest.param(seen, pages, id=seen.strip()[:40])


def figures(text):
    plain = re.sub(r"\[[^\]]*\]\([^)]*\)", "", text).replace(",", "")
    return [one.replace("−", "-") for one in NUMBER.findall(plain)]


def is_rounded(figure, page):
    """Whether a figure is a number of the page, rounded to its digits, as it is or in per cent."""
    digits, wanted = len(figure.partition(".")[2]), abs(float(figure))
    numbers = [abs(float(one.replace("−", "-"))) for one in NUMBER.findall(page)]
    return any(round(scale * one, digits) == wanted for one in numbers for scale in (1, 100))


@pytest.mark.parametrize(("seen", "pages"), cells())
def test_each_figure_is_one_of_the_experiment(seen, pages):
    text = "\n".join((PAGE.parent / page).read_text(encoding="utf-8") for page in pages)
    assert [figure for figure in figures(seen) if not is_rounded(figure, text)] == []


def test_a_figure_that_is_not_there_is_found():
    assert figures("−0.25 nats, at 160 bytes ([4 seeds](experiments/a.md#9))") == ["-0.25", "160"]
    assert is_rounded("-0.25", "| -0.2539 |")
    assert is_rounded("7", "| -0.0717 |")
    assert not is_rounded("0.26", "| -0.2539 | 26.4 |")
