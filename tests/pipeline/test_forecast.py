"""The forecast of a run: what its folder tells, what is said at its start, and what is refused."""

from dataclasses import replace

import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline import forecast
from potstill.pipeline.forecast import (
    known_of,
    plan_of,
    refuse_what_cannot_fit,
    rounded,
    say_how_long,
    typical_widths,
    with_tried_layers,
)
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.planning.duration import Scales, layers_of
from potstill.planning.jobs import TrainingJob
from potstill.planning.models import TYPICAL_WIDTHS
from potstill.planning.ranges import Range
from potstill.teachers.prepared import POINTER
from tiny import llama, save_model, toy_recipe


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def plan(toy_folder, run):
    recipe = toy_recipe(toy_folder, "corpus.train_tokens=3200")
    return plan_of(recipe, run, all_steps(recipe))


def test_a_toy_is_planned_before_anything_is_written(plan, run):
    assert plan.seconds is not None
    assert [one.step for one in plan.steps] == [str(step) for step in all_steps(plan.recipe)]
    assert not run.folder.exists()


def test_a_prepared_teacher_is_known_unless_it_is_damaged(tmp_path, run):
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={save_model(llama(), tmp_path / 'here')}")
    assert known_of(recipe, run).teachers == {}
    run_recipe(recipe, run, until="teachers")
    assert known_of(recipe, run).teachers["t"].hidden_size == 32
    assert typical_widths(recipe, run) == (32, 64)
    pointer = run.path("teachers") / "t" / POINTER
    pointer.write_text(pointer.read_text().replace("device_map", "devkce_map"))
    assert known_of(recipe, run).teachers == {}


def test_without_a_teacher_widths_are_typical(tmp_path, run):
    assert typical_widths(minimal.recipe(tmp_path), run) == TYPICAL_WIDTHS


def test_how_long_it_takes_is_said_if_it_is_a_minute(plan, capsys):
    last = replace(plan.steps[-1], seconds=Range(3000, 6000, 9000))
    say_how_long(replace(plan, steps=(last,)))
    assert capsys.readouterr().out == "about 1.7 h on this machine\n"
    say_how_long(replace(plan, steps=(replace(last, seconds=Range(1, 2, 99)),)))
    say_how_long(replace(plan, steps=(last, replace(last, seconds=None))))
    assert capsys.readouterr().out == ""


def test_layers_are_tried_for_a_run_of_minutes_after_it_is_known_to_fit(plan, monkeypatch):
    steps, tried = all_steps(plan.recipe), []

    def slower(jobs, machine):
        tried.append(machine)
        return Scales(layers={layers_of(job): 1e3 for job in jobs if isinstance(job, TrainingJob)})

    monkeypatch.setattr(forecast, "try_layers", slower)
    last = replace(plan.steps[-1], seconds=Range(3000, 6000, 9000))
    after = with_tried_layers(replace(plan, steps=(*plan.steps[:-1], last)), plan.recipe, steps)
    assert tried == [plan.machine]
    assert after.seconds.expected > plan.seconds.expected
    assert [one.memory for one in after.steps] == [one.memory for one in plan.steps]
    tried.clear()
    short = replace(plan, steps=())
    assert with_tried_layers(short, plan.recipe, steps) is short
    assert not tried


@pytest.mark.parametrize(
    ("found", "said"), [(64, "60 s"), (89, "90 s"), (100, "2 min"), (1700, "28 min"), (5400, "1.5 h")]
)
def test_it_has_few_digits(found, said):
    assert rounded(found) == said


def test_what_cannot_fit_is_refused_by_its_least_forecast_alone(plan, run):
    least = plan.memory_of(plan.largest).low
    fits = replace(plan, machine=replace(plan.machine, host_memory=least))
    refuse_what_cannot_fit(fits, run)
    with pytest.raises(UserError, match=r"`[a-z/0-9-]+` needs at least .* of memory, and this machine has .*; "):
        refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, host_memory=least - 1)), run)


def test_a_full_disk_is_refused_and_what_is_written_counts(plan, run):
    least = plan.disk.low
    refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, free_disk=least)), run)
    full = replace(plan, machine=replace(plan.machine, free_disk=least - 5))
    with pytest.raises(UserError, match=r"the run needs at least .* of free disk, and this machine has .*; "):
        refuse_what_cannot_fit(full, run)
    run.folder.mkdir()
    (run.folder / "written").write_bytes(b"12345")
    refuse_what_cannot_fit(full, run)


def test_ranks_are_not_refused(plan, run, monkeypatch):
    monkeypatch.setattr(forecast.distributed, "world_size", lambda: 2)
    refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, free_disk=0.0)), run)
