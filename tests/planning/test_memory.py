"""The memory of jobs: what is counted surely, how it depends on the recipe, and that real steps stay inside it."""

from dataclasses import replace

import pytest

import minimal
from potstill.planning.amounts import amounts_of
from potstill.planning.jobs import ReadingJob, Situation, TrainingJob, WaitingJob, WritingJob, moments, training_of
from potstill.planning.machine import Machine, described_machines
from potstill.planning.memory import HEAP, LEFT, MAPPED, Memory, after, keys_and_values, memory_of
from potstill.planning.models import models_of
from potstill.planning.ranges import ZERO, Range
from potstill.planning.stage_jobs import jobs_of
from potstill.planning.trace import BatchShape
from potstill.recipe import load_recipe
from potstill.recipe.step import Step
from tiny import llama, mixture, save_model

CPU = Machine("cpu", host_memory=8e9, baseline=Range.exactly(0.0))


@pytest.fixture
def at(tmp_path):
    save_model(llama(), tmp_path / "teacher")

    def situation(*overrides):
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "precision=fp32", *overrides)
        return Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")

    return situation


def training(situation, stage="distil"):
    (job,) = (one for one in jobs_of(Step(stage, 0), situation) if isinstance(one, TrainingJob))
    return job


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, 8),
        ({"optim": "adamw_torch"}, 8),
        ({"optim": "adamw_bnb_8bit"}, 2),
        ({"optim": "adafactor"}, 0.1),
        ({"optim": "sgd"}, 0),
        ({"optim": "sgd", "optim_args": "momentum=0.9"}, 4),
    ],
)
def test_the_optimizer_s_state_has_its_size(fields, size):
    assert moments(fields) == size


def test_a_training_needs_weights_gradients_and_the_optimizer_s_state_surely(at):
    job = training(at())
    trained = job.student.parameters.trained
    parts = memory_of([job], CPU).host
    assert parts["weights"] == Range.exactly(4 * trained)
    assert parts["gradients"].low == 4 * trained
    assert parts["optimizer"].low == 8 * trained
    assert parts["activations"].low > 0
    half = training(at("student={start: copy, from: t, adapter: {r: 2, target_modules: [q_proj]}}"))
    assert memory_of([half], CPU).host["optimizer"].low == 8 * half.student.parameters.adapter


def test_a_live_teacher_counts_and_a_captured_one_does_not(at):
    live, captured = training(at("capture=null")), training(at("capture={keep: top_k, k: 8}"))
    assert memory_of([live], CPU).host["teachers"].low == 4 * live.teachers[0].model.parameters.total
    assert "teachers" not in memory_of([captured], CPU).host
    assert "teachers" not in memory_of([training(at("capture=null"), "control")], CPU).host


def test_on_a_gpu_the_device_has_the_models_and_the_host_reads_their_files(at):
    found = memory_of([training(at())], described_machines()["rtx-3060-12gb"])
    assert {"CUDA", "weights", "gradients", "optimizer", "activations", "logits"} <= set(found.device)
    assert set(found.host) == {"process", "loading"}
    assert memory_of([WaitingJob(None)], CPU).device == {}


def test_the_largest_job_decides(at):
    job = training(at())
    small = replace(job, moments=0.0)
    assert memory_of([small, job, WaitingJob(None)], CPU) == memory_of([job], CPU)


def test_a_teacher_over_all_accelerators_takes_its_part_of_each():
    recipe = load_recipe("gsm8k")
    node = described_machines()["h100-80gb-x8"]
    models = models_of(recipe, {}, ask_hub=False)
    situation = Situation(recipe, models, amounts_of(recipe, None, None), "bf16")
    step = Step("capture", name="base/own")
    (job,) = (one for one in jobs_of(step, situation) if isinstance(one, ReadingJob))
    assert 430e9 < job.weights.expected < 480e9
    assert memory_of([job], node).device["weights"].expected == pytest.approx(job.weights.expected / 8)


def test_keys_and_values_grow_with_rows_and_length(at):
    model = at().models.teachers["t"]
    job = WritingJob(model, 4, Range.exactly(8), Range.exactly(8), 16.0, None, "fp32", Range.exactly(1.0))
    size = keys_and_values(job).expected
    assert size == 2 * 4 * 2 * 8 * 4 * 4 * (16 + 8), "both, layers, heads, width, float32, rows, tokens"
    assert keys_and_values(replace(job, rows=8)).expected == 2 * size
    assert memory_of([job], CPU).host["keys and values"].expected == pytest.approx(HEAP.expected * size)
    # A cast model's file counts where it writes, too.
    assert memory_of([replace(job, file=1e9)], CPU).host["file"].expected > 0.9e9


def test_a_file_counts_as_far_as_it_is_more_than_what_is_needed_later(at):
    teacher, shape = at().models.teachers["t"], BatchShape(1, 2)
    size = float(4 * teacher.parameters.total)
    job = ReadingJob(teacher, shape, None, "fp32", Range.exactly(size))
    # Where the weights are used as the file has them, they stay in the file.
    assert memory_of([replace(job, file=size)], CPU).host["file"] == ZERO
    cast = memory_of([replace(job, file=10 * size)], CPU).host
    later = cast["activations"].expected + cast["logits"].expected
    assert cast["file"].expected == pytest.approx(MAPPED.expected * 10 * size - later)
    assert memory_of([replace(job, file=size / 1e6)], CPU).host["file"] == ZERO
    again = memory_of([replace(job, file=10 * size, reads_again=True)], CPU).host
    assert again["file"].expected == pytest.approx(MAPPED.expected * 10 * size)


def test_what_cannot_be_traced_is_estimated(tmp_path):
    save_model(mixture(), tmp_path / "mixture")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'mixture'}", "precision=fp32")
    models = models_of(recipe, {}, ask_hub=False)
    situation = Situation(recipe, models, amounts_of(recipe, None, None), "fp32")
    job = training_of(situation, models.student, recipe.distil.training, "distil")
    assert memory_of([job], CPU).host["activations"].low > 0


def test_what_earlier_steps_left_counts_as_far_as_it_is_more_than_the_own():
    machine = Machine("m", baseline=Range(0.4e9, 0.9e9, 1.3e9))
    small = Memory(host={"process": machine.baseline})
    assert after(small, ZERO, machine) == small
    # The whole quickstart: its report had 1.33 GB after trainings of 3.0 GB.
    assert 1.33e9 in after(small, Range.exactly(3.0e9), machine).on_host
    assert after(small, Range.exactly(3.0e9), machine).on_host.expected == pytest.approx(0.9e9 + LEFT.expected * 2.1e9)
    on_gpu = replace(described_machines()["h100-80gb-x8"], baseline=machine.baseline)
    assert after(small, Range.exactly(200e9), on_gpu) == small
    # A training has the room that others left; what only reads has it beside its own.
    weights = {"process": machine.baseline, "weights": Range.exactly(2e9)}
    training = Memory(host={**weights, "gradients": Range.exactly(2e9)})
    assert after(training, Range.exactly(3.0e9), machine) == training
    beside = after(Memory(host=weights), Range.exactly(3.0e9), machine).on_host.expected
    assert beside == pytest.approx(2.9e9 + LEFT.expected * 2.1e9)
