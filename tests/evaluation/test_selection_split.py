"""Selection split: items that select snapshots are not reported."""

import pytest

import minimal
from potstill.evaluation.selection_split import in_split, split_of, splits_of

KEPT = ["distil.snapshots=30", "corpus.validation=8", 'evaluate.minimal_pairs={"blimp": {"path": "pairs"}}']


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: minimal.recipe(tmp_path, *KEPT, *overrides)


def test_every_item_is_in_one_half_and_the_halves_are_halves():
    halves = [split_of(f"item {number}") for number in range(2000)]
    assert abs(halves.count("selection") - 1000) < 100
    assert set(halves) == {"selection", "reporting"}
    assert halves == [split_of(f"item {number}") for number in range(2000)]


def test_a_tasks_item_is_in_one_half():
    one, other = in_split("selection"), in_split("reporting")
    assert all(one("piqa", number) != other("piqa", number) for number in range(100))


def test_only_what_is_chosen_by_is_halved(recipe):
    assert splits_of(recipe(), "blimp") == ["reporting"]
    assert splits_of(recipe("select={}"), "blimp") == ["reporting"]
    assert splits_of(recipe('select.by={"loss": 1, "blimp": 1}'), "blimp") == ["selection", "reporting"]


def test_of_a_task_all_metrics_are_halved_that_are_of_the_same_items(recipe):
    chosen = recipe('evaluate.tasks=["lambada_openai", "piqa"]', "select.by=lambada_openai/acc")
    assert splits_of(chosen, "lambada_openai") == ["selection", "reporting"]
    assert splits_of(chosen, "piqa") == ["reporting"]
