"""The forecast of a run: what its folder tells, what is said at its start, and what is refused."""

import math
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
from potstill.planning.memory import Memory
from potstill.planning.models import TYPICAL_WIDTHS
from potstill.planning.needs import needs_of
from potstill.planning.ranges import Range
from potstill.teachers.prepared import POINTER
from tiny import llama, save_model, toy_recipe


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def planned(toy_folder, run, monkeypatch):
    """Plans a toy run of some processes, of which this machine has some."""

    def of(*overrides, ranks=1, here=1):
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        recipe = toy_recipe(toy_folder, "corpus.train_tokens=3200", *overrides)
        return plan_of(recipe, run, all_steps(recipe))

    return of


@pytest.fixture
def plan(planned):
    return planned()


def needed(plan, place):
    """What the least forecast of a plan needs of a place."""
    (found,) = (one for one in needs_of(plan, "low") if one.place == place)
    return found.needed


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
    least = needed(plan, "host").low
    fits = replace(plan, machine=replace(plan.machine, host_memory=least))
    refuse_what_cannot_fit(fits, run)
    with pytest.raises(UserError, match=r"`[a-z/0-9-]+` needs at least .* of memory, and this machine has .*; "):
        refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, host_memory=least - 1)), run)


def test_a_step_is_refused_whose_least_forecast_is_the_greatest(plan, run):
    first, second, *others = plan.steps
    sure = replace(first, memory=Memory(host={"all": Range(8e9, 8e9, 8e9)}))
    unsure = replace(second, memory=Memory(host={"all": Range(1e9, 9e9, 10e9)}))
    made = replace(plan, steps=(sure, unsure, *others), machine=replace(plan.machine, host_memory=7e9))
    with pytest.raises(UserError, match=f"`{first.step}` needs at least 8.0 GB of memory"):
        refuse_what_cannot_fit(made, run)


def test_a_full_disk_is_refused_and_what_is_written_counts(plan, run):
    least = plan.disk.low
    refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, free_disk=least)), run)
    full = replace(plan, machine=replace(plan.machine, free_disk=least - 5))
    with pytest.raises(UserError, match=r"the run needs at least .* of free disk, and this machine has .*; "):
        refuse_what_cannot_fit(full, run)
    run.folder.mkdir()
    (run.folder / "written").write_bytes(b"12345")
    refuse_what_cannot_fit(full, run)


def test_a_host_that_is_too_small_for_its_accelerator_is_refused_by_name(plan, run):
    on_gpu = replace(plan.machine, kind="cuda", device_memory=1e15, host_memory=1.0)
    with pytest.raises(UserError, match=r"`.*` needs at least .* of the host's memory, and this machine has 1 B; "):
        refuse_what_cannot_fit(replace(plan, machine=on_gpu), run)


def test_a_disk_that_is_too_small_for_what_comes_from_the_hub_is_refused_by_name(plan, run):
    first, *others = plan.steps
    fetches = replace(plan, steps=(replace(first, fetched=Range(8e9, 8e9, 9e9)), *others))
    apart = replace(fetches, machine=replace(plan.machine, free_cache=7e9))
    with pytest.raises(UserError, match=r"at least 8\.0 GB of free disk for the hub's cache, .* 7\.0 GB; set HF_HOME"):
        refuse_what_cannot_fit(apart, run)
    refuse_what_cannot_fit(replace(fetches, machine=replace(plan.machine, free_cache=8e9)), run)


def test_ranks_share_the_steps_of_an_epoch(planned):
    epochs = "distil.training={num_train_epochs: 2, per_device_train_batch_size: 4}"
    one, two = planned(epochs), planned(epochs, ranks=2)
    samples = one.amounts.samples.expected
    assert one.schedules["distil"].steps.expected == 2 * math.ceil(samples / 4)
    assert two.schedules["distil"].steps.expected == 2 * math.ceil(samples / 8)
    alone, shared = ({step.step: step.seconds.expected for step in found.steps} for found in (one, two))
    assert shared["distil/seed-0"] < alone["distil/seed-0"]
    assert shared["capture"] < alone["capture"]
    assert shared["student"] == alone["student"], "the first rank builds it alone"


def test_ranks_on_one_machine_need_its_memory_together(planned, run):
    wide = "distil.training.per_device_train_batch_size=256"
    alone, apart, together = planned(wide), planned(wide, ranks=2), planned(wide, ranks=2, here=2)
    assert needed(apart, "host").low == needed(alone, "host").low < needed(together, "host").low
    room = (needed(alone, "host").low + needed(together, "host").low) / 2
    for plan in (alone, apart):
        refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, host_memory=room)), run)
    with pytest.raises(UserError, match=r"`.*` in 2 processes needs at least .* of memory, and this machine has .*; "):
        refuse_what_cannot_fit(replace(together, machine=replace(together.machine, host_memory=room)), run)


def test_a_full_disk_is_refused_for_ranks_too(planned, run):
    plan = planned(ranks=2)
    with pytest.raises(UserError, match=r"the run needs at least .* of free disk, and this machine has 0 B; "):
        refuse_what_cannot_fit(replace(plan, machine=replace(plan.machine, free_disk=0.0)), run)
