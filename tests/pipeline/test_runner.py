"""The runner: runs the steps that are not done, and continues stopped ones."""

import pytest

import minimal
from fake_stages import ALL
from potstill.errors import UserError
from potstill.pipeline import runner
from potstill.pipeline.run_folder import Run
from potstill.planning import machine


def test_everything_runs_once_in_order(do, capsys):
    assert do() == ALL
    assert do() == []
    assert capsys.readouterr().out.splitlines()[-len(ALL) :] == [f"{name}: done before, in 1.0 s" for name in ALL]


def test_what_was_made_before_goes_to_replaced(do, tmp_path):
    do()
    do("student.layers=1")
    replaced = sorted(
        folder.name.rpartition("-")[0].rpartition("-")[0] for folder in (tmp_path / "run/replaced").iterdir()
    )
    assert replaced == ["control-seed-0", "distil-seed-0", "evaluate", "report", "student"]


@pytest.mark.parametrize("name", ALL)
def test_a_damaged_output_is_named_and_made_again_to_the_same_bytes(do, tmp_path, stages, capsys, name):
    do()
    file = tmp_path / "run" / name / "made" / "line.txt"
    before = file.read_bytes()
    changed = bytearray(before)
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    assert do() == [name] + ["report"] * (name != "report"), "the report shows what each step cost"
    assert f"{name}: its output made/line.txt is damaged, so it begins anew" in capsys.readouterr().out
    # The report's inputs are the manifests, and its line here is made of its inputs.
    assert name == "report" or file.read_bytes() == before
    assert do() == []


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
    do("distil.reduction=sequence")
    assert "distil/seed-0: distil.reduction changed, so it begins anew" in capsys.readouterr().out
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


@pytest.mark.parametrize("section", ["distil", "control", "search", "pretrain.p"])
def test_the_real_check_refuses_what_transformers_would(tmp_path, section):
    several = [
        "corpus.validation=2",
        "distil.losses=[{kind: forward_kl}, {kind: cross_entropy}]",
        "search={temperatures: [2]}",
        "pretrain={p: {config: {model_type: llama, hidden_size: 32, num_hidden_layers: 1, intermediate_size: 8}}}",
    ]
    recipe = minimal.recipe(tmp_path, *several, f"{section}.training.lr_scheduler_type=cosin")
    with pytest.raises(UserError, match=rf"`{section}\.training\.lr_scheduler_type`.*did you mean `cosine`\?"):
        runner.check_stages(recipe)


def test_the_forecast_is_of_the_steps_that_are_left(do, monkeypatch):
    told = []
    monkeypatch.setattr("potstill.pipeline.forecast.say_how_long", lambda plan: told.append(plan.steps))
    do(until="capture")
    do()
    do()
    do("distil.reduction=sequence")
    left = [[one.step for one in steps] for steps in told]
    rest = ["distil/seed-0", "evaluate", "report"]
    assert left == [[*ALL[:2], "capture"], ["student", *ALL[4:]], rest]


def test_a_run_goes_on_without_a_forecast(do, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("a model that cannot be traced")

    monkeypatch.setattr("potstill.pipeline.forecast.plan_of", fails)
    do()
    assert "no forecast (a model that cannot be traced)" in capsys.readouterr().out


def test_a_manifest_keeps_its_forecast_beside_what_happened_and_neither_is_an_input(do):
    do()
    for step in ALL:
        manifest = Run("run").manifest(step)
        low, expected, high = manifest["forecast"]["host_bytes"]
        assert 0 < low <= expected <= high
        assert set(manifest["forecast"]) >= {"seconds", "disk_bytes", "memory_parts", "kwh", "money"}
        assert set(manifest["peak_memory"]) == {"host", "device"}
        assert "forecast" not in str(manifest["inputs"])
    assert do("facts={text: {train_tokens: 3}, models: {nobody/x: {model_type: llama}}}") == []


def test_what_cannot_fit_is_refused_before_the_first_stage(do, stages, monkeypatch):
    monkeypatch.setattr("potstill.planning.machine.memory_of_host", lambda: 2**20)
    machine._measured.cache_clear()
    with pytest.raises(UserError, match=r"of memory, and this machine has 1\.0 MB"):
        do()
    assert stages.ran == []
    machine._measured.cache_clear()
