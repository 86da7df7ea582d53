"""What a training needs so that the student writes some of its samples itself."""

import json
from dataclasses import replace

import pytest

import minimal
import toy_chat_runs
from potstill.planning.advice import advise
from potstill.planning.amounts import amounts_of
from potstill.planning.disk import disk_of
from potstill.planning.duration import seconds_of
from potstill.planning.jobs import Situation, TrainingJob, WritingJob
from potstill.planning.machine import Machine
from potstill.planning.memory import keys_and_values, memory_of, vllm_bytes
from potstill.planning.models import models_of
from potstill.planning.needs import misfits
from potstill.planning.plan import make_plan
from potstill.planning.ranges import Range
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.step import Step
from tiny import llama, save_model

MACHINE = Machine(
    "m", host_memory=8e9, baseline=Range.exactly(0.0), rates={"fp32": Range.exactly(1e9)}, bandwidth=Range.exactly(1e9)
)
BATCH = {"per_device_train_batch_size": 8, "max_steps": 100}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The situation of a small recipe with these settings of `on_policy`."""
    folder = tmp_path_factory.mktemp("planned")
    save_model(llama(), folder / "teacher")

    def situation(*overrides, **given):
        given = {"share": 0.5, "beginning": 4, "max_new_tokens": 12, "preflight": "off", **given}
        settings = [f"distil.on_policy={json.dumps(given)}"] if given["share"] else []
        steps = [f"distil.training.{name}={value}" for name, value in BATCH.items()]
        own = [f"teachers.t.model={folder / 'teacher'}", "precision=fp32", "capture=null"]
        recipe = minimal.recipe(folder, *own, *steps, *settings, *overrides)
        return Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")

    return situation


def jobs(at):
    found = jobs_of(Step("distil", seed=0), at)
    return [[one for one in found if isinstance(one, kind)] for kind in (TrainingJob, WritingJob)]


def seconds(at):
    return sum(seconds_of(one, MACHINE).expected for one in jobs_of(Step("distil", seed=0), at))


def test_without_written_samples_there_is_one_training_and_no_writing(planned):
    trainings, writings = jobs(planned(share=0))
    assert len(trainings) == 1
    assert not writings


def test_an_adapter_writes_and_its_model_is_read_once(planned):
    with_adapter = "student={start: copy, from: t, adapter: {r: 2, target_modules: [q_proj]}}"
    _, (writing,) = jobs(planned(with_adapter))
    assert writing.name == "student with its adapter"
    assert writing.file == 0
    _, (plain,) = jobs(planned())
    assert plain.name == "student"


def test_keys_and_values_are_those_of_all_answers_at_their_longest_and_of_their_prompts(planned):
    at = planned(batch_size=3, samples=2)
    _, (writing,) = jobs(at)
    assert (writing.rows, writing.longest) == (3, 4 + 12)
    text = at.models.student.config
    head = text.hidden_size // text.num_attention_heads
    one_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head * 4
    assert keys_and_values(writing).expected == 3 * (16 + writing.prompt.expected) * one_token
    (note,) = (one for one in make_plan(at.recipe, [Step("distil", seed=0)], MACHINE).notes if "on_policy" in one)
    assert "3 answers" in note


@pytest.mark.parametrize(("given", "rows"), [({}, 4), ({"batch_size": 2}, 2), ({"share": 1}, 8)])
def test_no_more_is_written_at_once_than_a_step_has(planned, given, rows):
    _, (writing,) = jobs(planned(**given))
    assert writing.rows == rows


def test_all_micro_batches_of_a_step_are_written_together(planned):
    _, (writing,) = jobs(planned("distil.training.gradient_accumulation_steps=4"))
    assert writing.rows == 16


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 400),
        ({"share": 1}, 800),
        ({"from_step": 75}, 100),
        ({"refresh_every": 4}, 100),
        ({"preflight": "refuse"}, 464),
    ],
)
def test_as_many_answers_are_written_as_the_steps_learn(planned, given, count):
    _, (writing,) = jobs(planned(**given))
    assert writing.count.expected == pytest.approx(count)


def test_the_other_samples_are_those_of_the_corpus(planned):
    ((whole,), _), ((corpus, written), _) = jobs(planned(share=0)), jobs(planned(share=0.25))
    assert corpus.tokens.expected == pytest.approx(0.75 * whole.tokens.expected)
    assert written.tokens.expected == pytest.approx(200 * (4 + 12))
    assert (corpus.steps, written.steps) == (whole.steps, Range.exactly(0.0)), "an optimizer step is counted once"
    ((only,), _) = jobs(planned(share=1))
    assert only.steps == whole.steps
    assert disk_of(Step("distil", seed=0), planned(), [corpus, written]) == disk_of(
        Step("distil", seed=0), planned(share=0), [whole]
    )


def test_a_captured_teacher_is_in_memory_and_reads_what_is_written_only(planned):
    captured, live = planned("capture={keep: top_k, k: 8}"), planned()
    weights = 4 * live.models.teachers["t"].parameters.total
    ((corpus, written), (writing,)) = jobs(captured)
    assert corpus.teachers == ()
    assert written.teachers
    moments = 8 * writing.model.parameters.trained
    for job in (corpus, written):
        assert memory_of([job], MACHINE).host["teachers"].low == weights
    assert memory_of([writing], MACHINE).host["beside"].low == weights + moments
    assert seconds(planned("capture={keep: top_k, k: 8}", share=0)) < seconds(captured) < seconds(live)


def test_writing_takes_time_that_reuse_saves(planned):
    fresh, reused, none = (seconds(planned(**given)) for given in ({}, {"refresh_every": 8}, {"share": 0}))
    assert fresh > reused > none


def test_more_answers_at_once_may_be_what_needs_the_most_memory(planned):
    small, large = (
        memory_of(jobs_of(Step("distil", seed=0), planned(max_new_tokens=limit)), MACHINE) for limit in (12, 4000)
    )
    assert large.on_host.expected > small.on_host.expected


def test_steps_that_are_not_known_leave_seconds_open_and_give_memory(planned):
    at = planned("distil.training={num_train_epochs: 1}", "corpus.train_tokens=null")
    ((corpus, _), (writing,)) = jobs(at)
    assert (corpus.tokens is None) == (writing.count is None)
    assert keys_and_values(writing).expected > 0


def test_where_writing_needs_the_most_memory_fewer_answers_at_once_are_advised(planned):
    def replan(recipe, machine):
        return make_plan(recipe, [Step("distil", seed=0)], machine)

    machine = replace(MACHINE, host_memory=1e6)
    many = ("distil.training.per_device_train_batch_size=1", "distil.training.gradient_accumulation_steps=256")
    plan = replan(planned(*many, share=1, max_new_tokens=1000, batch_size=256).recipe, machine)
    (misfit,) = misfits(plan)
    changes = ("distil.on_policy.batch_size=64",)
    (one,) = (one for one in advise(plan, misfit, replan) if one.changes == changes)
    assert one.after.expected < misfit.needed.expected


def test_a_prompt_of_a_conversation_may_be_all_but_its_last_turn(tmp_path):
    recipe = toy_chat_runs.recipe(tmp_path, "distil.on_policy={max_new_tokens: 16, beginning: 4}")
    at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")
    trainings, _ = jobs(at)
    assert trainings[-1].batch.length == round(at.amounts.length.high) + 16


def test_vllm_keeps_a_copy_of_the_student_and_room_for_its_rows_between_the_steps(planned):
    (trainings, (writing,)), (plain, _) = (jobs(planned(engine=one)) for one in ("vllm", "transformers"))
    copy = vllm_bytes(writing, MACHINE)
    assert copy.expected > 4 * writing.model.parameters.total
    for held, without in ((trainings, plain), ([writing], [replace(writing, engine="transformers")])):
        more = memory_of(held, MACHINE).on_host.expected - memory_of(without, MACHINE).on_host.expected
        assert more == pytest.approx(copy.expected)


def test_on_a_gpu_vllm_may_write_where_the_recipe_does_not_say_what_does(planned):
    _, (writing,) = jobs(planned())
    assert writing.engine == "auto"
    assert not vllm_bytes(writing, MACHINE).high
    on_gpu = vllm_bytes(writing, replace(MACHINE, kind="cuda"))
    assert on_gpu.high == vllm_bytes(replace(writing, engine="vllm"), MACHINE).high
    assert on_gpu.low == 0
