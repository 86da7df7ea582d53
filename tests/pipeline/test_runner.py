"""The runner: exactly what has to run does, and what was stopped goes on."""

import pytest

import fake_stages
import minimal
from fake_stages import ALL
from potstill.errors import UserError
from potstill.pipeline import runner
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import inputs_of, is_done


@pytest.fixture
def stages(monkeypatch):
    return fake_stages.install(monkeypatch)


@pytest.fixture
def do(tmp_path, monkeypatch, stages):
    """Run the smallest recipe with overrides, and return what ran."""
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*overrides, **how):
        run_recipe(minimal.recipe(tmp_path, *overrides), Run("run"), **how)
        return stages.forget()

    return run


def test_everything_runs_once_in_order(do, capsys):
    assert do() == ALL
    assert do() == []
    assert capsys.readouterr().out.splitlines()[-len(ALL) :] == [f"{name}: done before, in 1.0 s" for name in ALL]


AFTER = {
    "about=b": ["report"],
    "teachers.t.weight=2": ["distil/seed-0", "evaluate", "report"],
    "teachers.t.dtype=float32": ALL,
    "corpus.held_out=0.1": [name for name in ALL if name != "teachers"],
    "corpus.sequence_length=9": [name for name in ALL if name != "teachers"],
    "student.layers=1": ["student", "distil/seed-0", "control/seed-0", "evaluate", "report"],
    "student.rule=ends": ["student", "distil/seed-0", "control/seed-0", "evaluate", "report"],
    "capture.k=5": ["capture", "distil/seed-0", "evaluate", "report"],
    "capture.batch_size=1": [],
    "capture=null": ["distil/seed-0", "evaluate", "report"],
    "distil.losses.0.weight=2": ["distil/seed-0", "evaluate", "report"],
    "distil.losses.0.temperature=2": ["capture", "distil/seed-0", "evaluate", "report"],
    "distil.mix=logits": ["distil/seed-0", "evaluate", "report"],
    "distil.training.max_steps=2": ["distil/seed-0", "control/seed-0", "evaluate", "report"],
    "control.training={max_steps: 2}": ["control/seed-0", "evaluate", "report"],
    "control=null": ["evaluate", "report"],
    "evaluate.resamples=200": ["evaluate", "report"],
    "evaluate.batch_size=1": [],
    "seeds=[0, 1]": ["distil/seed-1", "control/seed-1", "evaluate", "report"],
}


@pytest.mark.parametrize("override", AFTER)
def test_a_changed_key_runs_again_what_depends_on_it_and_nothing_else(do, override):
    do()
    assert do(override) == AFTER[override]
    assert do(override) == []


def test_another_seed_leaves_the_first_seeds_student_alone(do, tmp_path):
    do()
    file = tmp_path / "run" / "distil" / "seed-0" / "made" / "line.txt"
    before = file.read_text(), file.stat().st_mtime_ns
    do("seeds=[0, 1]")
    assert (file.read_text(), file.stat().st_mtime_ns) == before


def test_a_step_that_comes_out_the_same_stops_the_wave(do, stages):
    stages.writes = lambda work: "always the same"
    do()
    # The report shows what each step cost, so it is drawn again.
    assert do("corpus.held_out=0.1") == ["corpus", "report"]


@pytest.mark.parametrize(
    ("override", "ran"),
    [
        # Held-out windows are cut to it, even where the samples come out the same.
        ("corpus.sequence_length=9", ["corpus", "student", "evaluate", "report"]),
        # The reference of the evaluation is the mixture of teachers.
        ("teachers.t.weight=2", ["distil/seed-0", "evaluate", "report"]),
        ("distil.mix=logits", ["distil/seed-0", "evaluate", "report"]),
    ],
)
def test_what_a_stage_reads_itself_counts_even_if_all_before_it_comes_out_the_same(do, stages, override, ran):
    stages.writes = lambda work: "always the same"
    do()
    assert do(override) == ran


def test_a_changed_file_is_a_changed_input(do, tmp_path, stages):
    stages.writes = lambda work: "always the same"
    do()
    (tmp_path / "text.txt").write_text("Twice upon a time.")
    assert do() == ["corpus", "report"]
    (tmp_path / "teacher" / "model.safetensors").write_text("other weights")
    assert do() == ["teachers", "report"]


def test_why_something_runs_again_is_told(do, tmp_path, capsys):
    do()
    do("corpus.held_out=0.1", "corpus.layout=padded")
    (tmp_path / "text.txt").write_text("Twice upon a time.")
    do("corpus.held_out=0.1", "corpus.layout=padded")
    (tmp_path / "run" / "evaluate" / "made" / "line.txt").unlink()
    do("corpus.held_out=0.1", "corpus.layout=padded")
    do("corpus.held_out=0.1", "corpus.layout=padded", force=["corpus"])
    told = [line.partition(", so it begins anew")[0] for line in capsys.readouterr().out.splitlines() if "anew" in line]
    assert "corpus: corpus.held_out, corpus.layout changed" in told
    assert "corpus: corpus.sources.0: text.txt changed" in told
    assert "evaluate: corpus, student, distil/seed-0 and 1 more changed" in told
    assert "evaluate: what it made is no longer whole" in told
    assert "corpus: `--force` asks for it" in told


def test_no_more_than_three_changes_are_told_by_name(do, capsys):
    do()
    do("evaluate={documents: 3, confidence: 0.9, resamples: 100}", "seeds=[1]")
    told = capsys.readouterr().out
    assert "evaluate: evaluate.documents, evaluate.confidence, evaluate.resamples and 5 more changed" in told


def test_what_was_made_before_goes_to_replaced(do, tmp_path):
    do()
    do("student.layers=1")
    replaced = sorted(
        folder.name.rpartition("-")[0].rpartition("-")[0] for folder in (tmp_path / "run/replaced").iterdir()
    )
    assert replaced == ["control-seed-0", "distil-seed-0", "evaluate", "report", "student"]


def test_until_stops_there_and_a_later_run_does_the_rest(do):
    assert do(until="capture") == ["teachers", "corpus", "capture"]
    assert do() == ["student", "distil/seed-0", "control/seed-0", "evaluate", "report"]


def test_force_runs_a_stage_again_and_what_follows_only_if_it_came_out_otherwise(do, stages):
    do()
    stages.writes = lambda work: "something else"
    assert do(force=["student"]) == ["student", "distil/seed-0", "control/seed-0", "evaluate", "report"]
    assert do(force=["student"]) == ["student", "report"]


def test_force_does_not_throw_a_stopped_attempt_away(do, stages):
    do()

    def stop(work):
        (work.folder / "half").write_text("work")
        raise KeyboardInterrupt

    stages.during["corpus"] = stop
    with pytest.raises(KeyboardInterrupt):
        do(force=["corpus"])
    stages.during.clear()
    stages.forget()
    do(force=["corpus"])
    assert Run("run").path("corpus").joinpath("half").read_text() == "work"


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"force": ["destil"]}, "there is no stage 'destil'"),
        ({"until": "destil"}, "there is no stage 'destil'"),
        ({"force": ["report"], "until": "corpus"}, "`--force report`: `corpus` does not need that stage"),
        ({"force": ["control"]}, "the recipe leaves `control` out"),
    ],
)
def test_nonsense_is_refused_before_anything_is_moved(do, tmp_path, how, sentence):
    do("control=null")
    with pytest.raises(UserError, match=sentence):
        do("control=null", **how)
    assert not (tmp_path / "run" / "replaced").exists()


def test_a_bad_training_is_refused_before_anything_has_run(do, monkeypatch, stages):
    def refuse(recipe):
        raise UserError("`distil.training`: no")

    monkeypatch.setattr(runner, "check_stages", refuse)
    with pytest.raises(UserError, match=r"distil\.training"):
        do()
    assert stages.ran == []


def test_a_stopped_step_goes_on_and_its_costs_add_up(do, tmp_path, stages, capsys):
    def stop(work):
        (work.folder / "half").write_text("work")
        raise KeyboardInterrupt

    stages.during["distil/seed-0"] = stop
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            do()
    assert stages.forget() == ["teachers", "corpus", "student", "capture", "distil/seed-0", "distil/seed-0"]
    del stages.during["distil/seed-0"]
    assert do() == ["distil/seed-0", "control/seed-0", "evaluate", "report"]
    manifest = Run("run").manifest("distil/seed-0")
    assert manifest["cost"]["seconds"] == 3.0
    assert manifest["attempts"] == 3
    assert (tmp_path / "run/distil/seed-0/half").exists()
    assert "distil/seed-0: goes on" in capsys.readouterr().out


def test_a_stopped_step_whose_inputs_changed_begins_anew(do, tmp_path, stages, capsys):
    def stop(work):
        (work.folder / "half").write_text("work")
        raise KeyboardInterrupt

    stages.during["distil/seed-0"] = stop
    with pytest.raises(KeyboardInterrupt):
        do()
    stages.during.clear()
    do("distil.mix=logits")
    assert "distil/seed-0: distil.mix changed, so it begins anew" in capsys.readouterr().out
    assert Run("run").manifest("distil/seed-0")["cost"]["seconds"] == 1.0
    assert [half.read_text() for half in (tmp_path / "run/replaced").rglob("half")] == ["work"]


def test_a_full_disk_is_told_even_if_its_cost_cannot_be_noted(do, monkeypatch, stages):
    do(until="teachers")
    full = OSError(28, "No space left on device")

    def fill(work):
        raise full

    def spend(*_):
        raise full

    stages.during["corpus"] = fill
    monkeypatch.setattr(Run, "spend", spend)
    with pytest.raises(UserError, match="corpus: the disk that holds run/corpus is full"):
        do()


def test_a_failure_that_nobody_foresaw_is_not_dressed_up(do, stages):
    def fail(work):
        raise ZeroDivisionError("a bug")

    stages.during["corpus"] = fail
    with pytest.raises(ZeroDivisionError):
        do()


def test_outputs_that_vanish_are_made_again(do, tmp_path):
    do()
    (tmp_path / "run/distil/seed-0/made/line.txt").unlink()
    assert do() == ["distil/seed-0", "report"]


def test_a_missing_input_is_told_by_its_key(do, tmp_path):
    (tmp_path / "text.txt").unlink()
    with pytest.raises(UserError, match=r"`corpus\.sources\.0\.path`: no text at 'text\.txt'"):
        do()


def test_a_step_is_done_only_if_what_it_needs_is(do, tmp_path):
    do()
    recipe, run = minimal.recipe(tmp_path), Run("run")
    student, distil = all_steps(recipe)[2], all_steps(recipe)[4]
    assert is_done(recipe, run, distil)
    run.replace(student)
    assert inputs_of(recipe, run, distil) is None
    assert not is_done(recipe, run, distil)


def test_the_manifest_says_what_a_step_was_made_from(do):
    do()
    inputs = Run("run").manifest("corpus")["inputs"]
    assert inputs["recipe"]["corpus"]["sequence_length"] == 8
    assert list(inputs["files"]) == ["corpus.sources.0: text.txt"]
    assert list(inputs["steps"]) == ["teachers"]


def test_the_real_check_refuses_what_transformers_would(tmp_path):
    recipe = minimal.recipe(tmp_path, "distil.training.max_stps=3")
    with pytest.raises(UserError, match=r"`distil\.training\.max_stps`.*did you mean `max_steps`\?"):
        runner.check_stages(recipe)
    recipe = minimal.recipe(tmp_path, "control.training={lr: 3}")
    with pytest.raises(UserError, match=r"`control\.training\.lr`"):
        runner.check_stages(recipe)
