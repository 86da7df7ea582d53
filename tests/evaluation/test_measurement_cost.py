"""Measurement cost: the sum over all attempts, and how it was measured."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from potstill.cost import Cost
from potstill.evaluation import measurement_cost as module
from potstill.evaluation.candidate_models import CandidateModel
from potstill.evaluation.measurement_cost import expenses, metered, metered_together
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.step import Step
from tiny import toy_recipe

MODEL = CandidateModel(Candidate("student", None, 0), lambda: None)


@pytest.fixture
def work(tmp_path, monkeypatch):
    @contextmanager
    def measure():
        yield SimpleNamespace(cost=Cost(2.0, 3e-6, 1e-6, "estimated: CPU, from a constant"))

    monkeypatch.setattr(module, "measure", measure)
    return SimpleNamespace(folder=tmp_path)


def test_time_energy_and_tokens_are_kept(work):
    with metered(work, "continuations-facts", MODEL) as tally:
        tally.read, tally.written = 600, 300
    (one,) = expenses(work.folder)
    assert (one.measurement, one.model, one.read, one.written) == ("continuations-facts", "student (seed 0)", 600, 300)
    assert one.cost.kind == "estimated", "a guess is never called a measurement"
    assert one.kwh_per_1000 == pytest.approx(1e-5)


def test_a_stopped_attempt_counts(work):
    def stopped():
        with metered(work, "held-out-text", MODEL) as tally:
            tally.read = 100
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with metered(work, "held-out-text", MODEL) as tally:
        tally.read = 400
    (one,) = expenses(work.folder)
    assert one.cost.seconds == 4.0
    assert one.cost.kwh == pytest.approx(6e-6)
    assert one.read == 400


@pytest.mark.parametrize(("seconds", "shares"), [((1.0, 3.0), (0.5, 1.5)), ((0.0, 0.0), (1.0, 1.0))])
def test_models_side_by_side_share_a_cost_by_their_time(work, seconds, shares):
    models = [CandidateModel(Candidate("student", None, seed), lambda: None) for seed in (0, 1)]
    with metered_together(work, "held-out-text", models) as tallies:
        for tally, own in zip(tallies, seconds, strict=True):
            tally.read, tally.seconds = 100, own
    found = expenses(work.folder)
    assert [one.cost.seconds for one in found] == pytest.approx(shares)
    assert sum(one.cost.kwh for one in found) == pytest.approx(3e-6)
    assert [one.read for one in found] == [100, 100]


def test_a_run_has_those_of_every_model_in_its_manifest(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path), run, until="evaluate")
    costs = run.manifest(Step("evaluate"))["summary"]["costs"]
    assert {one["model"] for one in costs} == {"teacher", "start", "student (seed 0)", "control (seed 0)"}
    assert len({one["tokens_read"] for one in costs}) == 1, "all of them read the same text"
    for one in costs:
        assert one["seconds"] > 0
        assert one["tokens_read"] > 0
        assert one["method"]
        assert one["kind"] in one["method"] or one["kind"].startswith("partly")
        assert (one["kwh"] is None) == (one["kwh_per_1000_tokens"] is None)


@pytest.mark.parametrize("content", ["{}", "null", "[", '{"measurement": "held-out-text"}'])
def test_a_damaged_cost_is_left_out_and_said(work, capsys, content):
    models = [CandidateModel(Candidate("student", None, seed), lambda: None) for seed in (0, 1)]
    for model in models:
        with metered(work, "held-out-text", model):
            pass
    first = min((work.folder / module.FOLDER).rglob("*.json"))
    first.write_text(content)
    (left,) = expenses(work.folder)
    assert left.model == "student (seed 1)"
    assert f"{first} is not as it was written, so that cost is left out" in capsys.readouterr().out
