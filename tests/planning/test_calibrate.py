"""Real steps: they scale the forecast, and their memory lies inside it."""

from dataclasses import replace

import numpy as np
import pytest

import minimal
from potstill.planning import calibrate as module
from potstill.planning import machine as machines
from potstill.planning.calibrate import MOST_STEPS, STEPS, _times, calibrate, can_write
from potstill.planning.duration import seconds_of
from potstill.planning.jobs import ReadingJob, TrainingJob, WritingJob
from potstill.planning.memory import memory_of
from potstill.planning.models import models_of
from potstill.planning.plan import jobs_in, make_plan
from potstill.planning.ranges import Range
from potstill.recipe.step import Step
from tiny import llama, mixture, save_model

FIELDS = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 704}


def test_the_memory_of_real_steps_lies_inside_the_forecast(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    config = {**FIELDS, "num_attention_heads": 4, "max_position_embeddings": 128}
    recipe = minimal.recipe(
        tmp_path,
        f"teachers.t.model={tmp_path / 'teacher'}",
        f"student={{start: scratch, config: {config}}}",
        "distil.training={max_steps: 40, per_device_train_batch_size: 16}",
        "corpus.sequence_length=128",
        "capture={keep: top_k, k: 8}",
        "precision=fp32",
        "facts={}",
    )
    here = machines.this_machine(tmp_path, (256, 704))
    steps = [Step("student"), Step("distil", 0)]
    # The first steps load what later ones have.
    calibrate(jobs_in(recipe, steps, here), here)
    jobs = jobs_in(recipe, steps, here)
    scales = calibrate(jobs, here)
    (job,) = (one for one in jobs if isinstance(one, TrainingJob))
    assert {name for name, _ in scales.reading} == {"t", "student"}
    forecast = memory_of([job], here)
    assert scales.memory["distil"] in forecast.on_host.less(here.baseline)
    before, after = seconds_of(job, here), seconds_of(job, here, scales)
    assert after.expected == pytest.approx(before.expected * scales.training["distil"])
    assert after.high / after.low < before.high / before.low
    measured = make_plan(recipe, steps, here, scales=scales).steps[-1]
    assert measured.memory.on_host.expected >= scales.memory["distil"]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_samples_of_many_lengths_are_tried_with_pads_and_leave_gaps(tmp_path, monkeypatch, layout):
    save_model(llama(), tmp_path / "teacher")
    settings = ["distil.training={max_steps: 9, per_device_train_batch_size: 4}", f"corpus.layout={layout}", "facts={}"]
    student = f"student={{start: scratch, config: {FIELDS | {'num_attention_heads': 4, 'num_hidden_layers': 1}}}}"
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", student, "precision=fp32", *settings)
    here, steps, tried = machines.this_machine(tmp_path, (256, 704)), [Step("control", 0)], []

    class Spy(module.DistilTrainer):
        def __init__(self, **given):
            tried.extend(len(one["input_ids"]) for one in given["train_dataset"])
            super().__init__(**given)

    monkeypatch.setattr(module, "DistilTrainer", Spy)
    scales = calibrate(jobs_in(recipe, steps, here), here)
    longest = max(tried)
    batches = [tried[at : at + 4] for at in range(0, len(tried), 4)]
    if layout == "packed":
        assert batches == [[longest] * 4] * len(batches)
    else:
        # The run has nine steps, and so at most nine lengths.
        timed, others = batches[:-9], [max(2, longest - 1 - place) for place in range(9)]
        assert timed == [[longest - 1, longest, longest, longest]] * len(timed)
        assert sorted(batches[-9:]) == sorted([size - 1, size, size, size] for size in others)
        assert batches[-9:] != sorted(batches[-9:], reverse=True)
    large = replace(scales, memory={"control": 4e9})
    whole = make_plan(recipe, steps, here, scales=large).steps[-1].memory.on_host
    assert whole.expected > here.baseline.expected + 4e9
    room = whole.high - whole.expected - (here.baseline.high - here.baseline.expected)
    assert room > 1e9 if layout == "padded" else room < 5e8


def test_what_is_short_is_tried_more_often():
    assert _times(100.0) == STEPS
    assert STEPS < _times(0.5) < _times(0.25) < MOST_STEPS
    assert _times(1e-6) == MOST_STEPS


@pytest.mark.parametrize("family", [llama, mixture])
def test_writing_is_tried_with_the_rows_and_prompts_of_the_job(tmp_path, family):
    save_model(family(), tmp_path / "teacher")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "precision=fp32", "facts={}")
    here = machines.this_machine(tmp_path, (16, 32))
    model = models_of(recipe, {}, ask_hub=False).teachers["t"]
    job = WritingJob(model, 3, Range.exactly(5), Range.exactly(8), 16.0, Range.exactly(9), "fp32", Range.exactly(1e5))
    (ratio,) = calibrate([job, job], here).writing.values()
    assert ratio > 0


@pytest.mark.parametrize(("engine", "tried"), [("transformers", True), ("auto", True), ("vllm", False)])
def test_writing_by_another_engine_is_not_tried(tmp_path, engine, tried):
    save_model(llama(), tmp_path / "teacher")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}")
    here = machines.this_machine(tmp_path, (16, 32))
    model = models_of(recipe, {}, ask_hub=False).teachers["t"]
    job = WritingJob(model, 3, Range.exactly(5), Range.exactly(8), 16.0, Range.exactly(9), "fp32", Range.exactly(1e5))
    assert can_write(replace(job, engine=engine), replace(here, kind="cpu")) == tried


def test_trainings_that_are_alike_are_tried_once(tmp_path, monkeypatch):
    save_model(llama(), tmp_path / "teacher")
    settings = ["distil.training={max_steps: 9}", "capture={keep: top_k, k: 8}", "precision=fp32", "facts={}"]
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", *settings)
    here, tried = machines.this_machine(tmp_path, (16, 32)), []
    monkeypatch.setattr(module, "_seconds_of_step", lambda job, *how: tried.append(job.key) or 1.0)
    steps = [Step("distil", 0), Step("control", 0), Step("capture")]
    jobs = jobs_in(recipe, steps, here)
    reading = next(one for one in jobs if isinstance(one, ReadingJob))
    student, control = (one for one in jobs if isinstance(one, TrainingJob))
    scales = calibrate([student, control], here)
    assert tried == ["distil"]
    assert scales.training["control"] == scales.training["distil"]
    assert set(scales.memory) == {"distil", "control"}
    live = replace(control, key="live", teachers=(reading,))
    other = replace(control, key="other", fields={**control.fields, "optim": "sgd"})
    calibrate([student, live, other], here)
    assert tried == ["distil", "distil", "live", "other"]


def test_a_run_of_few_steps_has_the_lengths_of_all_its_batches(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    training = "distil.training={max_steps: 3, gradient_accumulation_steps: 16}"
    settings = [training, "capture={keep: top_k, k: 8}", "precision=fp32", "facts={}"]
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", *settings)
    here = machines.this_machine(tmp_path, (16, 32))
    job = next(one for one in jobs_in(recipe, [Step("control", 0)], here) if isinstance(one, TrainingJob))
    assert module._steps_of_other_lengths(replace(job, pads=True), 0.3) == 3 * 16 / module.MOST_BATCHES
    assert module._steps_of_other_lengths(replace(job, pads=False), 0.3) == 0


def test_a_trial_does_not_count_what_the_process_had_before(tmp_path, monkeypatch):
    save_model(llama(), tmp_path / "teacher")
    settings = ["distil.training={max_steps: 9}", "capture={keep: top_k, k: 8}", "precision=fp32", "facts={}"]
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", *settings)
    here = machines.this_machine(tmp_path, (16, 32))
    if here.kind != "cpu":
        pytest.skip("of a device, all that is held counts")
    monkeypatch.setattr(module, "_seconds_of_step", lambda *how: 1.0)
    jobs = jobs_in(recipe, [Step("control", 0)], here)
    held = np.ones(2**27, np.uint8)
    assert calibrate(jobs, here).memory["control"] < 2**26 < held.nbytes

    def needs(*how):
        np.ones(2**28, np.uint8)
        return 1.0

    monkeypatch.setattr(module, "_seconds_of_step", needs)
    assert 0.9 * 2**28 < calibrate(jobs, here).memory["control"] < 1.3 * 2**28


def test_writing_is_tried_at_the_width_of_the_middle_of_the_longest_rows(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}")
    model = models_of(recipe, {}, ask_hub=False).teachers["t"]
    prompt, new = Range(10, 30, 90), Range(2, 20, 40)
    job = WritingJob(model, 3, prompt, new, 130.0, Range.exactly(9), "fp32", Range.exactly(1e5))
    assert module._width_of_writing(job) == (30 + 90) / 2 + 20 / 2
    assert module._width_of_writing(replace(job, longest=40.0)) == 40 - module.TOKENS - 1
