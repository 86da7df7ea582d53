"""What may be chosen by, and what must be there for it."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe import Recipe

KEPT = ["distil.snapshots=30", "corpus.validation=8"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: minimal.recipe(tmp_path, *overrides)


def test_loss_is_what_is_chosen_by_unless_something_is_said(recipe):
    assert recipe(*KEPT, "select={}").select.by == {"loss": 1.0}
    assert recipe(*KEPT, "select.by=loss").select.by == {"loss": 1.0}
    pairs = 'evaluate.minimal_pairs={"blimp": {"path": "pairs"}}'
    assert recipe(*KEPT, pairs, 'select.by={"loss": 1, "blimp": 2}').select.by == {"loss": 1.0, "blimp": 2.0}
    assert recipe().select is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["select={}", "corpus.validation=8"], r"`select` chooses from snapshots, and none are kept"),
        (["select={}", "distil.snapshots=3"], r"`select.by: loss` goes by `corpus.validation`, which is missing"),
        ([*KEPT, "select={}", "distil.keep=best"], r"`distil.keep: best` and `select` both say"),
        ([*KEPT, "select.by=los"], r"'los' is measured nowhere here; did you mean `loss`"),
        ([*KEPT, 'select.by={"loss": 0}'], r"select.by.loss"),
        ([*KEPT, "select.average={}"], r"give one of the two, as in `average: {last: 5}`"),
        ([*KEPT, 'select.average={"last": 1}'], r"select.average.last"),
        ([*KEPT, "select={}", 'experiments={"control": {}}'], r"`select` keeps the control under that name"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(recipe, overrides, told):
    with pytest.raises(UserError, match=told):
        recipe(*overrides)


def test_chosen_as_it_is_written_is_chosen_as_it_is_read(recipe):
    one = recipe(*KEPT, "select.average.last=3")
    assert Recipe.model_validate(one.model_dump(mode="json", by_alias=True)) == one
