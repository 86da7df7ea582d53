"""search: finds the setting that is best on the validation split; stops do not change it."""

import json
import math
import shutil
import sys
from dataclasses import replace

import pytest

import minimal
import processes
import toy_questions
from potstill.errors import DivergedError, UserError
from potstill.files.jsonl_log import read_jsonl
from potstill.files.sealed import write_sealed
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import check_stages, run_recipe
from potstill.pipeline.work import Work
from potstill.recipe import load_recipe
from potstill.recipe.search import Setting, setting_of
from potstill.recipe.step import Step
from potstill.stages import distil
from potstill.stages import search as stage
from potstill.targets import TargetStore
from potstill.training.trainer import DistilTrainer
from tiny import _config, llama, toy_overrides, toy_recipe

RIGGED = (
    "corpus.validation=4",
    "distil.losses=[{kind: forward_kl, weight: 0.2}, {kind: cross_entropy, weight: 0.8}]",
    "search={trials: 20, share: [0.05, 0.95], temperatures: [1, 2, 4, 8]}",
)
OWN = "losses: [{kind: forward_kl, temperature: 3}, {kind: cross_entropy}]"
TOY = (
    f"experiments={{base: {{}}, own: {{strategy: base, {OWN}}}}}",
    "search={trials: 2, share: [0.05, 0.95], temperatures: [1, 2]}",
    "seeds=[0]",
)


def _work(recipe, folder):
    work = Work(recipe, Run(folder / "run"), Step("search"))
    work.folder.mkdir(parents=True, exist_ok=True)
    return work


def _best_at(share, temperature):
    """Replace trainings by a validation loss whose minimum, 2, lies at one setting."""

    def train(work, losses, teachers):
        (work.folder / "student").mkdir(parents=True)
        found = setting_of(losses)
        away = (found.share - share) ** 2 + 0.1 * abs(math.log2(found.temperature / temperature))
        return {"validation_loss": 2 + away, "tokens": 10}

    return train


@pytest.fixture
def rigged(monkeypatch):
    monkeypatch.setattr(stage, "teachers_or_targets", lambda work, variant: [])
    return lambda train: monkeypatch.setattr(stage, "train_trial", train)


def _trials(work):
    rows = read_jsonl(work.folder / "trials.jsonl")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize(("share", "temperature"), [(0.7, 4.0), (0.3, 1.0)])
def test_it_finds_what_is_better_and_students_are_trained_with_it(tmp_path, rigged, share, temperature):
    rigged(_best_at(share, temperature))
    work = _work(minimal.questions(tmp_path, *RIGGED), tmp_path)
    made = stage.run(work)
    trials = _trials(work)
    assert [trial["number"] for trial in trials] == list(range(21))
    assert (trials[0]["share"], trials[0]["temperature"]) == (0.2, 1.0), "as given"
    found = Setting(**json.loads((work.folder / "best.json").read_text()))
    assert found.temperature == temperature
    assert found.share == pytest.approx(share, abs=0.06)
    assert setting_of(distil.chosen_losses(work, "base")) == found
    ranking = json.loads((work.folder / "ranking.json").read_text())
    losses = [row["validation_loss"] for row in ranking]
    assert losses == sorted(losses)
    assert sorted(row["number"] for row in ranking) == list(range(21))
    assert ranking[0]["share"] == found.share
    # A student is trained again where another setting was found, and not where others came to another end.
    assert made.outputs == [work.folder / "best.json"]
    assert made.summary["tokens"] == 210
    assert made.summary["given"]["validation_loss"] > made.summary["best"]["validation_loss"] == losses[0]
    assert not list(work.folder.glob("trial-*/student"))


def test_what_was_given_stays_where_nothing_is_better(tmp_path, rigged):
    rigged(_best_at(0.2, 1.0))
    work = _work(minimal.questions(tmp_path, *RIGGED), tmp_path)
    assert "as given" in stage.run(work).summary["made"]
    assert distil.chosen_losses(work, "base") == work.recipe.distil.losses


def test_trials_that_all_have_one_loss_leave_the_setting_as_it_was_and_say_so(tmp_path, rigged):
    def train(work, losses, teachers):
        (work.folder / "student").mkdir(parents=True)
        return {"validation_loss": 2.5, "tokens": 10}

    rigged(train)
    work = _work(minimal.questions(tmp_path, *RIGGED), tmp_path)
    summary = stage.run(work).summary
    assert "as given" in summary["made"]
    assert "tells none of them apart" in summary["made"]
    assert stage.all_tie(json.loads((work.folder / "ranking.json").read_text()))
    assert distil.chosen_losses(work, "base") == work.recipe.distil.losses


@pytest.mark.parametrize("loss", [math.nan, math.inf, None])
def test_a_trial_without_a_finite_loss_is_not_the_best(tmp_path, rigged, loss):
    def train(work, losses, teachers):
        (work.folder / "student").mkdir(parents=True)
        number = int(work.step.name.removeprefix("trial-"))
        return {"validation_loss": 2.5 if number == 3 else loss, "tokens": 10}

    rigged(train)
    summary = stage.run(_work(minimal.questions(tmp_path, *RIGGED), tmp_path)).summary
    assert summary["best"]["number"] == 3
    assert "apart" not in summary["made"]


def test_temperatures_alone_are_tried_once_each_without_optuna(tmp_path, rigged, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    rigged(_best_at(0.9, 4.0))
    work = _work(minimal.questions(tmp_path, *RIGGED, "search.share=null"), tmp_path)
    stage.check(work.recipe)
    stage.run(work)
    settings = [(trial["share"], trial["temperature"]) for trial in _trials(work)]
    assert settings == [(0.2, 1.0), (0.2, 2.0), (0.2, 4.0), (0.2, 8.0)]
    assert distil.chosen_losses(work, "base")[0].temperature == 4.0


def test_stopped_between_trials_it_goes_on_to_the_same_proposals(tmp_path, rigged, monkeypatch):
    recipe = minimal.questions(tmp_path, *RIGGED)
    whole, cut = (_work(recipe, tmp_path / name) for name in ("whole", "cut"))
    rigged(_best_at(0.7, 4.0))
    stage.run(whole)
    for last in (1, 12):

        def train(work, *rest, last=last):
            if work.step.name == f"trial-{last}":
                raise KeyboardInterrupt
            return _best_at(0.7, 4.0)(work, *rest)

        rigged(train)
        with pytest.raises(KeyboardInterrupt):
            stage.run(cut)
        assert len(_trials(cut)) == last
    # Half a row, and weights that were to be removed.
    with (cut.folder / "trials.jsonl").open("a") as file:
        file.write('{"number": 12, "sha')
    (cut.folder / "trial-11" / "student").mkdir()
    rigged(_best_at(0.7, 4.0))
    stage.run(cut)
    assert _trials(cut) == _trials(whole)
    assert (cut.folder / "best.json").read_bytes() == (whole.folder / "best.json").read_bytes()
    assert not (cut.folder / "trial-11" / "student").exists()


def test_a_trial_that_was_begun_keeps_its_setting_whatever_optuna_would_say_now(tmp_path, rigged, monkeypatch):
    work = _work(minimal.questions(tmp_path, *RIGGED, "search.trials=1"), tmp_path)
    begun = work.folder / "trial-1"
    begun.mkdir()
    write_sealed(begun / "setting.json", {"share": 0.123, "temperature": 2.0})
    rigged(_best_at(0.7, 4.0))
    stage.run(work)
    assert (_trials(work)[1]["share"], _trials(work)[1]["temperature"]) == (0.123, 2.0)


def test_a_trial_that_runs_away_is_the_worst_and_the_search_goes_on(tmp_path, rigged):
    def train(work, losses, teachers):
        if setting_of(losses).temperature > 1:
            raise DivergedError("the loss is inf at step 3")
        return _best_at(0.7, 1.0)(work, losses, teachers)

    rigged(train)
    work = _work(minimal.questions(tmp_path, *RIGGED), tmp_path)
    stage.run(work)
    ranking = json.loads((work.folder / "ranking.json").read_text())
    assert {row["temperature"] for row in ranking if row["validation_loss"] is None} <= {2.0, 4.0, 8.0}
    assert ranking[-1]["validation_loss"] is None
    assert json.loads((work.folder / "best.json").read_text())["temperature"] == 1.0


def test_where_all_run_away_nothing_is_found(tmp_path, rigged):
    def train(*_):
        raise DivergedError("the loss is inf at step 3")

    rigged(train)
    work = _work(minimal.questions(tmp_path, *RIGGED, "search.trials=2"), tmp_path)
    with pytest.raises(UserError, match=r"lower `search.training.learning_rate`"):
        stage.run(work)
    assert not (work.folder / "best.json").exists()


def test_what_it_lacks_is_told_before_anything_is_spent(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"`search.training.max_stepz`: is no field .* did you mean `max_steps`"):
        check_stages(minimal.recipe(tmp_path, *RIGGED, "search.training.max_stepz=3"))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"`search` needs Optuna, .*: pip install 'potstill\[search\]'"):
        check_stages(minimal.recipe(tmp_path, *RIGGED))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A whole toy search, after which the held-out data is removed."""
    folder = tmp_path_factory.mktemp("searched")
    work = Work(toy_questions.recipe(folder, *TOY), Run(folder / "run"), Step("search"))
    run_recipe(work.recipe, work.run, until="search")
    return work


def test_trials_are_the_students_trainings_and_are_judged_on_the_validation_split(searched, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(searched.run.folder, run.folder)
    run_recipe(searched.recipe, run, until="distil")
    ranking = json.loads((run.path("search") / "ranking.json").read_text())
    assert len({row["validation_loss"] for row in ranking}) == 3, "settings make a difference"
    student = run.manifest("distil/base/seed-0")["summary"]
    assert student["validation_loss"] == ranking[0]["validation_loss"], "same seed, same training, what was found"
    assert [loss.weight for loss in distil.chosen_losses(replace(searched, run=run), "own")] == [1.0, 1.0]


def test_what_is_held_out_is_never_read(searched, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(searched.run.folder, run.folder)
    for folder in ("corpus/held_out", "strategies/base/held_out", "search"):
        shutil.rmtree(run.path(folder), ignore_errors=True)
    again = replace(searched, run=run)
    again.folder.mkdir()
    stage.run(again)
    assert _trials(again) == _trials(searched)


def test_captured_or_not_the_same_settings_are_worth_the_same(searched, tmp_path):
    store = TargetStore(searched.run.path("capture/base/own") / "t", expect=None)
    assert store.codec.temperatures == (1.0, 2.0, 3.0)
    live = Work(toy_questions.recipe(tmp_path, *TOY, "capture=null"), Run(tmp_path / "run"), Step("search"))
    run_recipe(live.recipe, live.run, until="search")
    for ours, theirs in zip(_trials(live), _trials(searched), strict=True):
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-4)
        assert (ours["number"], ours["temperature"]) == (theirs["number"], theirs["temperature"])
    assert {trial["temperature"] for trial in _trials(live)} <= {1.0, 2.0}


@pytest.mark.parametrize("given", [("alm", "share: [0.1, 0.9]"), ("uld", "temperatures: [2]")])
def test_a_teacher_of_another_tokenizer_is_searched_too(tmp_path, given):
    kind, searched = given
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    losses = [{"kind": kind, "weight": 0.5}, {"kind": "cross_entropy", "weight": 0.5}]
    values = {"tokenizer": {"vocab_size": 400}, "student": student, "distil.losses": losses}
    # Of captured spans, validation samples have none.
    capture = "{keep: spans}" if kind == "alm" else "null"
    more = [f"capture={capture}", f"search={{trials: 1, {searched}}}", "corpus.validation=4"]
    more += ["distil.training.max_steps=2", "corpus.layout=padded", "corpus.sequence_length=56"]
    recipe = toy_recipe(tmp_path, *more, *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    run = Run(tmp_path / "run")
    run_recipe(recipe, run, until="search")
    first, second = _trials(Work(recipe, run, Step("search")))
    assert (first["share"], first["temperature"]) == (0.5, 1.0)
    assert (second["share"], second["temperature"]) != (0.5, 1.0)
    assert first["validation_loss"] > 0 < second["validation_loss"]
    assert read_jsonl(run.path("search") / "trial-1" / "log.jsonl")[0][kind] > 0


def test_stopped_within_a_trial_it_does_only_what_is_left(tmp_path, monkeypatch):
    search = "search={trials: 1, share: [0.05, 0.95], training: {max_steps: 3}}"
    recipe = toy_recipe(tmp_path, search, "corpus.validation=6")
    whole, cut = (Work(recipe, Run(tmp_path / name), Step("search")) for name in ("whole", "cut"))
    run_recipe(recipe, whole.run, until="search")
    steps, plain = [], DistilTrainer.training_step

    def training_step(self, *args):
        steps.append(self.state.global_step)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(DistilTrainer, "training_step", training_step)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, cut.run, until="search")
    run_recipe(recipe, cut.run, until="search")
    assert steps == [0, 1, 2, 0, 1, 2, 2], "the checkpoint lies at step 2 of the second trial"
    assert _trials(cut) == _trials(whole)
    assert cut.run.manifest("search")["outputs"] == whole.run.manifest("search")["outputs"]
    assert {path.name for path in cut.folder.glob("trial-1/*")} == {
        *("setting.json", "ended.json", "log.jsonl", "progress.jsonl"),
    }


@pytest.mark.slow
def test_two_ranks_try_the_same_settings(toy_folder, tmp_path):
    def overrides(batch):
        size = f"distil.training.per_device_train_batch_size={batch}"
        search = "search={trials: 1, share: [0.05, 0.95]}"
        return [*toy_overrides("quickstart", toy_folder), size, "corpus.validation=6", search]

    run_recipe(load_recipe("quickstart", overrides(4)), Run(tmp_path / "one"), until="search")
    sets = [word for override in overrides(2) for word in ("--set", override)]
    words = ["-m", "potstill", "run", "quickstart", "--run-dir", tmp_path / "two", "--until", "search", *sets]
    processes.run_ranks(2, *words)
    found = [read_jsonl(tmp_path / name / "search" / "trials.jsonl") for name in ("one", "two")]
    for one, two in zip(*found, strict=True):
        assert one["share"] == two["share"]
        assert one["validation_loss"] == pytest.approx(two["validation_loss"], rel=1e-4)
