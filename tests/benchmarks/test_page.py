"""The page of the benchmarks, and a section of it that is measured anew."""

import pytest

from benchmarks.__main__ import main
from benchmarks.aims import AIMS, NOT_MEASURED, Measured, summary
from benchmarks.page import HEAD, page, with_section
from benchmarks.table import Table
from benchmarks.timing import Ratio

ON_GPU = "## On a GPU\n\n- Contract: 35 of 35 laws hold"


def table(title, value):
    found = Table(title, ("what", "figure"))
    found.add("this", value)
    return found


def figures(**values):
    return summary([Measured(key, Ratio(value, value), f"where {key}") for key, value in values.items()], [])


def earlier():
    parts = [("Whole Trainer steps", [table("Steps", "1.5")]), ("The store", [table("Bytes", "160")])]
    return page(["When: then"], figures(trainers=1.5, capture=1.02), parts, ON_GPU)


def row(text, what, number=0):
    line = [line for line in text.splitlines() if line.startswith(f"| {what}")][number]
    return " | ".join(cell.strip() for cell in line.split("|"))


def test_a_section_takes_the_place_of_the_earlier_one():
    text = with_section(earlier(), "Whole Trainer steps", ["When: now"], figures(trainers=0.9), [table("Steps", "0.9")])
    assert text.count("## Whole Trainer steps") == 1
    own = text.partition("## Whole Trainer steps")[2].partition("\n## ")[0]
    assert "Measured by itself" in own
    assert "- When: now" in own
    assert "| this | 0.9" in own
    assert "1.5" not in own
    assert "- When: then" in text.partition("## Whole Trainer steps")[0]
    assert text.endswith(ON_GPU + "\n")


def test_the_page_gets_the_head_of_today():
    text = with_section(
        "# Performance\n\nWords of then.\n\n" + earlier().removeprefix(HEAD), "The store", [], figures(), []
    )
    assert text.startswith(HEAD + "\n## This run\n")
    assert "Words of then" not in text


def test_the_aims_of_other_sections_stay():
    text = with_section(earlier(), "Whole Trainer steps", [], figures(trainers=0.9), [])
    assert "0.900" in row(text, "whole Trainer step")
    assert "where trainers" in row(text, "whole Trainer step")
    assert "**not reached**" not in row(text, "whole Trainer step")
    assert row(text, "capture ÷") == row(earlier(), "capture ÷")
    assert text.count("| the same, bf16") == sum(aim.what == "the same, bf16" for aim in AIMS) > 1


def test_aims_that_have_one_name_are_told_apart_by_their_order():
    before = page([], figures(**{"captured, bf16": 1.01}), [])
    text = with_section(before, "Training steps", [], figures(**{"head, bf16": 1.2}), [])
    at = [aim.key for aim in AIMS if aim.what == "the same, bf16"]
    for key, value in (("captured, bf16", "1.010"), ("head, bf16", "1.200")):
        assert value in row(text, "the same, bf16", at.index(key))
    others = [number for number, key in enumerate(at) if key not in ("captured, bf16", "head, bf16")]
    assert all(NOT_MEASURED in row(text, "the same, bf16", number) for number in others)


def test_a_section_that_the_page_has_not_is_added_before_the_part_about_a_gpu():
    text = with_section(earlier(), "The corpus", ["When: now"], figures(), [table("Speed", "2")])
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## This run", "## Whole Trainer steps", "## The store", "## The corpus", "## On a GPU"]


def test_measured_anew_twice_is_measured_anew_once():
    given = "Whole Trainer steps", ["When: now"], figures(trainers=0.9), [table("Steps", "0.9")]
    once = with_section(earlier(), *given)
    assert with_section(once, *given) == once


def test_a_page_that_is_not_there_is_said_before_anything_is_measured(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no page .*p\.md"):
        main(["--only", "store", "--into", str(tmp_path / "p.md")])


@pytest.mark.parametrize("words", [["--into", "p.md"], ["--into", "p.md", "--only", "store", "--write", "q.md"]])
def test_into_a_page_go_chosen_sections_alone(words):
    with pytest.raises(SystemExit, match="--into: replaces the sections of --only"):
        main(words)
