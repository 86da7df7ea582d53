"""`select:` — which metrics may select, and what they need."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe import Recipe

KEPT = ["distil.snapshots=30", "corpus.validation=8"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: minimal.recipe(tmp_path, *overrides)


def test_loss_selects_by_default(recipe):
    assert recipe(*KEPT, "select={}").select.by == {"loss": 1.0}
    assert recipe(*KEPT, "select.by=loss").select.by == {"loss": 1.0}
    pairs = 'evaluate.minimal_pairs={"blimp": {"path": "pairs"}}'
    assert recipe(*KEPT, pairs, 'select.by={"loss": 1, "blimp": 2}').select.by == {"loss": 1.0, "blimp": 2.0}
    assert recipe().select is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["select={}", "corpus.validation=8"], r"`select` needs snapshots, and none are kept"),
        (["select={}", "distil.snapshots=3"], r"`select.by: loss` needs `corpus.validation`, which is missing"),
        ([*KEPT, "select={}", "distil.keep=best"], r"`distil.keep: best` and `select` both choose"),
        ([*KEPT, "select.by=los"], r"'los' is not measured here; did you mean `loss`"),
        ([*KEPT, 'select.by={"loss": 0}'], r"select.by.loss"),
        ([*KEPT, "select.average={}"], r"give either `last` or `best`, as in `average: {last: 5}`"),
        ([*KEPT, 'select.average={"last": 1}'], r"select.average.last"),
    ],
)
def test_an_impossible_selection_is_refused_in_one_sentence(recipe, overrides, told):
    with pytest.raises(UserError, match=told):
        recipe(*overrides)


def test_an_experiment_may_have_the_name_control(recipe):
    assert list(recipe(*KEPT, "select={}", 'experiments={"control": {}}').experiments) == ["control"]


def test_a_written_selection_reads_as_the_same_selection(recipe):
    one = recipe(*KEPT, "select.average.last=3")
    assert Recipe.model_validate(one.model_dump(mode="json", by_alias=True)) == one
