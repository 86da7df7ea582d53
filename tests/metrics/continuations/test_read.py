"""Prompts are read from the recipe's file; errors in them are reported before a model is asked."""

import json
import re

import pytest

from potstill.errors import UserError
from potstill.metrics.continuations.keywords import alternatives, contains
from potstill.metrics.continuations.read import continuations_file, read_continuations
from potstill.recipe.continuations import ContinuationFile, ContinuationSet

ROWS = [
    {"prompt": "Two plus two equals", "keyword": "four|4", "reference": "Two plus two equals four, as is known."},
    {"prompt": "Snow is", "keyword": "white", "reference": "It is as white as milk."},
    {"prompt": "Grass is", "keyword": "green", "reference": "Grass is green."},
]


def saved(folder, rows):
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ContinuationFile(path=str(file))


def test_models_are_asked_for_what_follows_the_prompt_only(tmp_path):
    first, second, third = read_continuations(saved(tmp_path, ROWS), "key")
    assert (first.prompt, first.keyword, first.reference) == ("Two plus two equals", "four|4", "four, as is known.")
    assert second.reference == "It is as white as milk."
    assert [one.id for one in (first, second, third)] == ["1", "2", "3"]


def test_a_csv_file_will_do_and_numbers_are_text(tmp_path):
    file = tmp_path / "strategies.csv"
    file.write_text(
        "prompt,keyword,reference\nOne and one is,2,It is two.\nTwo and one is,3,Three.\nA and b is,4,No.\n"
    )
    assert [one.keyword for one in read_continuations(ContinuationFile(path=str(file)), "key")] == ["2", "3", "4"]


def test_the_first_ones_can_be_had(tmp_path):
    given = saved(tmp_path, [*ROWS, ROWS[0] | {"prompt": "Four plus four equals"}])
    assert len(read_continuations(given, "key")) == 4
    assert len(read_continuations(given.model_copy(update={"count": 3}), "key")) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "A", "keyword": "b"}], r"`key`: prompts.jsonl:1 has no text in `reference`"),
        ([ROWS[0], ROWS[1] | {"keyword": " "}], r"`key`: prompts.jsonl:2 has no text in `keyword`"),
        ([*ROWS, ROWS[0]], r"`key`: prompts.jsonl:4 repeats the prompt of 1"),
        (ROWS[:2], r"has 2 prompts, and an interval needs at least 3"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_continuations(saved(tmp_path, rows), "key")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"`evaluate.continuations.p.path`: there is no file"):
        read_continuations(ContinuationFile(path=str(tmp_path / "none.jsonl")), "evaluate.continuations.p")


@pytest.mark.parametrize("name", ["part[1].jsonl", "a*b.jsonl", "~x.jsonl"])
def test_a_file_is_found_by_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    wrong = [row | {"keyword": "wrong"} for row in ROWS]
    for other in ("part1.jsonl", "aXb.jsonl"):
        saved(tmp_path, wrong)
        (tmp_path / "prompts.jsonl").rename(tmp_path / other)
    saved(tmp_path, ROWS)
    (tmp_path / "prompts.jsonl").rename(tmp_path / name)
    found = read_continuations(ContinuationFile(path=name), "key")
    assert [one.keyword for one in found] == [row["keyword"] for row in ROWS]


# The set that ships.


@pytest.fixture(scope="module")
def facts():
    file = continuations_file(ContinuationSet(set="facts"), "key")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_there_are_at_least_200_facts_of_every_kind(facts):
    assert len(facts) >= 200
    assert len(read_continuations(ContinuationSet(set="facts"), "key")) == len(facts)
    categories = [row["category"] for row in facts]
    assert len(set(categories)) >= 12
    assert all(8 <= categories.count(one) <= 20 for one in categories)


def test_no_fact_is_there_twice(facts):
    for column in ("id", "prompt", "keyword", "reference"):
        values = [re.sub(r"\W+", " ", row[column].casefold()).strip() for row in facts]
        assert len(set(values)) == len(values), column


def test_each_fact_can_be_gone_on_with_and_judged(facts):
    for row in facts:
        prompt, keywords = row["prompt"], alternatives(row["keyword"])
        assert prompt == prompt.strip()
        assert not re.search(r"[.!?:,]$", prompt), f"{prompt}: a model has nothing to go on with"
        assert not contains(prompt, keywords), f"{prompt}: gives its keyword away"
        assert row["reference"].startswith(f"{prompt} ")
        assert row["reference"].endswith(".")
        told = row["reference"].removeprefix(prompt)
        assert contains(told, keywords[:1]), f"{prompt}: the reference has not its own keyword"
        assert len(told.split()) >= 5, f"{prompt}: too little to hold a response against"
