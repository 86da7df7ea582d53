"""Cleaning: what may be removed, what a run says and does afterwards, and that nothing is made again by itself."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.cleaning import check_there, clean, offers
from potstill.pipeline.manifest import CLEANED, cleaned_outputs
from potstill.pipeline.run_folder import Run
from potstill.pipeline.status import describe
from potstill.recipe.step import Step

RUN = Run("run")


def _weights(name):
    """Let a fake stage write a file of this name among its outputs."""

    def write(work):
        file = work.folder / "made" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"w" * 100)

    return write


@pytest.fixture
def recipe(tmp_path):
    return lambda *overrides: minimal.recipe(tmp_path, *overrides)


def _cleaned(recipe):
    found = offers(recipe(), RUN)
    clean(RUN, found)
    return found


def test_a_finished_run_offers_its_store_and_converted_teachers(do, stages, recipe):
    stages.during["teachers"] = _weights("model.safetensors")
    do()
    found = {one.where: one for one in offers(recipe(), RUN)}
    assert list(found) == ["teachers", "capture"]
    assert found["teachers"].files == {"made/model.safetensors": 100}
    assert found["capture"].what == "captured targets"
    assert found["capture"].again == "1.0 s"


@pytest.mark.parametrize("stage", ["distil", "control", "evaluate", "report", "student", "corpus"])
def test_student_evidence_and_logs_are_never_offered(do, recipe, stage):
    do()
    assert not [one for one in offers(recipe(), RUN) if one.where.startswith(stage)]


def test_what_an_unfinished_step_will_read_is_not_offered(do, stages, recipe):
    stages.during["teachers"] = _weights("model.safetensors")
    do(until="capture")
    assert offers(recipe(), RUN) == []
    do(until="distil")
    assert [one.where for one in offers(recipe(), RUN)] == ["capture"], "`evaluate` will read the teachers"


def test_after_it_nothing_is_made_again(do, stages, recipe):
    stages.during["teachers"] = _weights("model.safetensors")
    do()
    _cleaned(recipe)
    assert not (RUN.path("capture") / "made").exists()
    assert (RUN.path("teachers") / "made" / "line.txt").is_file()
    assert RUN.damaged("capture", afresh=True) == {}
    assert do() == []
    assert offers(recipe(), RUN) == []


def test_a_run_and_other_verbs_say_that_files_were_removed(do, recipe, capsys):
    do()
    check_there(RUN, Step("capture"))
    _cleaned(recipe)
    capsys.readouterr()
    do()
    assert "capture: done before, in 1.0 s; `potstill clean` removed files of it\n" in capsys.readouterr().out
    check_there(RUN, Step("corpus"))
    with pytest.raises(
        UserError, match=r"removed files of capture in run, .*`potstill capture RECIPE --force` makes them"
    ):
        check_there(RUN, Step("capture"))


def test_status_says_what_is_gone(do, recipe):
    do()
    before = describe(RUN.folder)
    _cleaned(recipe)
    lines = describe(RUN.folder).splitlines()
    (capture,) = [line for line in lines if line.startswith("capture ")]
    assert capture.split() == ["capture", "done,", "cleaned", "1.0", "s"]
    assert lines[-1] == "capture: `potstill clean` removed 1 file, 64 B"
    assert "clean" not in before
    assert "waits for" not in "\n".join(lines)


def test_the_report_is_made_again_without_what_is_gone(do, recipe):
    do()
    _cleaned(recipe)
    assert do(force=["report"]) == ["report"]
    assert do("about=another") == ["report"]


@pytest.mark.parametrize(
    ("overrides", "how", "step"),
    [(["seeds=[0, 1]"], {}, "distil/seed-1"), ([], {"force": ["distil"]}, "distil/seed-0")],
)
def test_a_step_that_needs_it_asks_for_force(do, recipe, overrides, how, step):
    do()
    _cleaned(recipe)
    said = (
        rf"^{step} needs what `potstill clean` removed of capture; `--force capture` makes it again \(it took 1.0 s\)$"
    )
    with pytest.raises(UserError, match=said):
        do(*overrides, **how)
    assert do() == [], "nothing was begun"


def test_force_makes_it_again_and_only_that(do, recipe):
    do()
    _cleaned(recipe)
    ran = do("seeds=[0, 1]", force=["capture"])
    assert ran[:3] == ["capture", "distil/seed-1", "control/seed-1"]
    assert cleaned_outputs(RUN.path("capture")) == {}
    assert not (RUN.path("capture") / CLEANED).exists()


def test_a_teacher_that_only_captures_is_not_needed_for_training(do, stages, recipe):
    stages.during["teachers"] = _weights("model.safetensors")
    do()
    clean(RUN, [one for one in offers(recipe(), RUN) if one.where == "teachers"])
    assert do("seeds=[0, 1]", until="distil") == ["distil/seed-1"]
    with pytest.raises(UserError, match="evaluate needs what `potstill clean` removed of teachers"):
        do("seeds=[0, 1]")


def test_a_teacher_beside_the_student_is(do, stages, recipe, tmp_path):
    stages.during["teachers"] = _weights("model.safetensors")
    do("capture=null")
    clean(RUN, offers(recipe("capture=null"), RUN))
    with pytest.raises(UserError, match="distil/seed-1 needs what `potstill clean` removed of teachers"):
        do("capture=null", "seeds=[0, 1]")


def test_a_changed_recipe_captures_again_as_it_always_did(do, recipe):
    do()
    _cleaned(recipe)
    assert "capture" in do("capture.k=8")


def test_what_earlier_recipes_made_goes_as_a_whole(do, recipe):
    do()
    do("student.layers=1")
    found = {one.where: one for one in offers(recipe("student.layers=1"), RUN)}
    assert found["replaced"].again == "this recipe does not make it"
    clean(RUN, [found["replaced"]])
    assert not (RUN.folder / "replaced").exists()


def test_snapshots_are_offered_and_only_select_needs_them(do, stages, recipe):
    from potstill.pipeline.cleaning import REMOVABLE

    (kind, _) = [one for one in REMOVABLE if one.what == "snapshots of trainings"]
    assert kind.has("snapshots/step-1/model.safetensors")
    assert not kind.has("student/model.safetensors")
    assert not kind.has("log.jsonl")
    assert kind.readers(recipe()) == {"select"}


def test_a_removal_that_was_stopped_goes_on(do, recipe, monkeypatch):
    from pathlib import Path

    do()
    found = offers(recipe(), RUN)
    unlink = Path.unlink

    def stop(self, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", stop)
    with pytest.raises(KeyboardInterrupt):
        clean(RUN, found)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert read_json(RUN.path("capture") / CLEANED)["files"] == {"made/line.txt": 64}
    assert cleaned_outputs(RUN.path("capture")) == {}, "it is still there"
    assert [one.where for one in offers(recipe(), RUN)] == ["capture"]
    _cleaned(recipe)
    assert do() == []


def test_what_is_put_back_counts_again(do, recipe):
    do()
    content = (RUN.path("capture") / "made" / "line.txt").read_bytes()
    _cleaned(recipe)
    (RUN.path("capture") / "made").mkdir()
    (RUN.path("capture") / "made" / "line.txt").write_bytes(content)
    assert "cleaned" not in describe(RUN.folder)
    (RUN.path("capture") / "made" / "line.txt").write_bytes(content[::-1])
    assert RUN.damaged("capture") == {"made/line.txt": "damaged"}
