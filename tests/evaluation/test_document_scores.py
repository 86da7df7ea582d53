import json

import pytest

from potstill.evaluation import document_scores
from potstill.metrics import model_groups
from potstill.metrics.held_out_text import SideBySide
from potstill.pipeline import artifacts
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepared import PreparedTeacher
from tiny import toy_recipe

# The texts that models continue need the teacher once more.
SEVERAL = (
    "seeds=[0, 1]",
    "evaluate.samples=0",
    "corpus.sequence_length=128",
    "evaluate.batch_size=2",
    "evaluate.resamples=100",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy run of two seeds that is not evaluated yet."""
    folder = tmp_path_factory.mktemp("trained")
    recipe, run = toy_recipe(folder, *SEVERAL), Run(folder / "run")
    for stage in ("distil", "control"):
        run_recipe(recipe, run, until=stage)
    return recipe, run


@pytest.fixture
def unevaluated(trained, monkeypatch):
    """The same run; its evaluation is removed after the test."""
    recipe, run = trained
    yield recipe, run
    monkeypatch.undo()
    document_scores.remove(run.path("evaluate"))


@pytest.fixture(scope="module")
def expected(trained):
    recipe, run = trained
    run_recipe(recipe, run, until="evaluate")
    found = _outputs(run)
    document_scores.remove(run.path("evaluate"))
    return found


def _outputs(run):
    names = ["comparison.json", "passages.json", *run.manifest(Step("evaluate"))["outputs"]]
    return {name: json.loads((run.path("evaluate") / name).read_text()) for name in names}


@pytest.fixture
def loads(monkeypatch):
    """The names of the models that were loaded, in order."""
    found = []
    for owner, name in ((PreparedTeacher, "model"), (artifacts, "start_model"), (artifacts, "trained_model")):
        plain = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, plain=plain, name=name: found.append(str(args[1:] or name)) or plain(*args)
        )
    return found


def test_the_teacher_is_loaded_once_and_every_model_reads_each_batch_once(expected, unevaluated, loads, monkeypatch):
    recipe, run = unevaluated
    read, plain = [], SideBySide.read
    monkeypatch.setattr(SideBySide, "read", lambda self, *given: read.append(list(self.models)) or plain(self, *given))
    run_recipe(recipe, run, until="evaluate")
    assert loads.count("model") == 1, "the teacher"
    assert len(loads) == 1 + 5 + 1, "the teacher, five models, and one of them again for the passages"
    models = ["start", "student/seed-0", "student/seed-1", "control/seed-0", "control/seed-1"]
    assert read == [models] * len(read)
    assert _outputs(run) == expected
    assert not (run.path("evaluate") / "teacher_states").exists()
    assert not (run.path("evaluate") / "unfinished_scores.json").exists()


@pytest.mark.parametrize("together", [1, 2, 5])
def test_groups_change_no_figure(expected, unevaluated, loads, monkeypatch, together):
    recipe, run = unevaluated
    monkeypatch.setattr(model_groups, "MOST_TOGETHER", together)
    run_recipe(recipe, run, until="evaluate")
    assert loads.count("model") == 1
    for name, content in expected.items():
        assert _near(_outputs(run)[name], content), name


def test_teachers_that_do_not_fit_beside_the_students_are_put_away(expected, unevaluated, loads, monkeypatch):
    recipe, run = unevaluated
    monkeypatch.setattr(document_scores, "memory_of_device", lambda: 1)
    run_recipe(recipe, run, until="evaluate")
    assert loads.count("model") == 1
    assert loads[0] == "model", "the teacher reads the text before any other model is loaded"
    for name, content in expected.items():
        assert _near(_outputs(run)[name], content), name


def test_a_teacher_that_shows_no_states_stays_beside_the_students(expected, unevaluated, loads, monkeypatch):
    recipe, run = unevaluated
    monkeypatch.setattr(LiveTeacher, "_head", lambda self: None)
    monkeypatch.setattr(document_scores, "memory_of_device", lambda: 1)
    run_recipe(recipe, run, until="evaluate")
    assert loads.count("model") == 1
    assert not (run.path("evaluate") / "teacher_states").exists()
    for name, content in expected.items():
        assert _near(_outputs(run)[name], content), name


@pytest.mark.parametrize("saves", ["each batch", "never"])
def test_a_stopped_group_continues_from_its_last_save(expected, unevaluated, monkeypatch, saves):
    recipe, run = unevaluated
    monkeypatch.setattr(document_scores, "SECONDS_BETWEEN_SAVES", 0.0 if saves == "each batch" else 1e9)
    read, plain = [], SideBySide.read

    def stop_at_the_fourth(self, batch, taught):
        read.append(batch["input_ids"].tolist())
        if len(read) == 4:
            raise KeyboardInterrupt
        return plain(self, batch, taught)

    monkeypatch.setattr(SideBySide, "read", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, run, until="evaluate")
    assert len(read) == 4
    run_recipe(recipe, run, until="evaluate")
    assert _outputs(run) == expected
    assert read[4] == (read[3] if saves == "each batch" else read[0])


def test_a_group_that_was_scored_is_not_scored_again(expected, unevaluated, monkeypatch):
    recipe, run = unevaluated
    monkeypatch.setattr(model_groups, "MOST_TOGETHER", 2)
    plain, groups = document_scores._score_group, []

    def score(work, group, *others):
        groups.append([str(model.candidate) for model in group])
        if len(groups) == 2:
            raise KeyboardInterrupt
        plain(work, group, *others)

    monkeypatch.setattr(document_scores, "_score_group", score)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, run, until="evaluate")
    run_recipe(recipe, run, until="evaluate")
    last = ["control (seed 1)"]
    assert groups == [["teacher", "start", "student (seed 0)"], *2 * [["student (seed 1)", "control (seed 0)"]], last]
    for name, content in expected.items():
        assert _near(_outputs(run)[name], content), name


@pytest.mark.parametrize("damage", ["{}", "no JSON", '{"done": 2, "sums": {}}'])
def test_damaged_progress_is_made_again(expected, unevaluated, monkeypatch, damage):
    recipe, run = unevaluated

    def stopped(self, *given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SideBySide, "read", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, run, until="evaluate")
    (run.path("evaluate") / "unfinished_scores.json").write_text(damage)
    run_recipe(recipe, run, until="evaluate")
    assert _outputs(run) == expected


def test_costs_are_shared_by_the_time_of_each_model(unevaluated):
    recipe, run = unevaluated
    run_recipe(recipe, run, until="evaluate")
    costs = [one for one in run.manifest(Step("evaluate"))["summary"]["costs"] if one["measurement"] == "held-out-text"]
    assert len(costs) == 6
    assert all(one["seconds"] > 0 for one in costs)
    assert len({one["tokens_read"] for one in costs}) == 1


def _near(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_near(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_near, one, other))
    return one == pytest.approx(other, rel=1e-5, abs=1e-6) if isinstance(one, float) else one == other
