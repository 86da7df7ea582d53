"""Up to date: a step runs again when one of its inputs has changed, and only then."""

import pytest

import minimal
from fake_stages import ALL
from potstill.errors import UserError
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.up_to_date import inputs_of, is_done

TWO_TEACHERS = ["teachers.u={model: teacher}", "capture=null"]

AFTER = {
    "about=b": ["report"],
    "distil.reduction=sequence": ["distil/seed-0", "evaluate", "report"],
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
    "distil.training.max_steps=2": ["distil/seed-0", "control/seed-0", "evaluate", "report"],
    "control.training={learning_rate: 2}": ["control/seed-0", "evaluate", "report"],
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
    do(*TWO_TEACHERS)
    assert do(*TWO_TEACHERS, override) == ran


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
    assert "evaluate: its output made/line.txt is missing" in told
    assert "corpus: `--force` asks for it" in told


def test_no_more_than_three_changes_are_told_by_name(do, capsys):
    do()
    do("evaluate={documents: 3, confidence: 0.9, resamples: 100}", "seeds=[1]")
    told = capsys.readouterr().out
    assert "evaluate: evaluate.documents, evaluate.confidence, evaluate.resamples and 5 more changed" in told


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
