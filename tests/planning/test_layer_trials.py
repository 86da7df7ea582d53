"""Trials of a model's first layers: they scale the forecast, and leave no trace in a run."""

from dataclasses import replace
from functools import partial

import pytest
import torch

import minimal
from potstill.planning import layer_trials as module
from potstill.planning.duration import of_body, one_token, seconds_of
from potstill.planning.jobs import TrainingJob, WritingJob
from potstill.planning.layer_trials import LAYERS, VOCABULARY, try_layers
from potstill.planning.machine import Machine
from potstill.planning.models import models_of
from potstill.planning.plan import jobs_in
from potstill.planning.ranges import Range
from potstill.planning.trace import BatchShape
from potstill.recipe.step import Step
from tiny import gpt2, gpt_neox, llama, mixture, padded, save_model

STUDENT = {"model_type": "llama", "num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 128}
RATE = Range.exactly(1e10)
HERE = Machine("m", host_memory=1e12, rates={"fp32": RATE, "bf16": RATE}, bandwidth=RATE)


def recipe_of(folder, *settings, family=llama):
    save_model(family(), folder / "teacher")
    return minimal.recipe(
        folder,
        f"teachers.t.model={folder / 'teacher'}",
        f"student={{start: scratch, config: {STUDENT | {'num_attention_heads': 4}}}}",
        "distil.training={max_steps: 9, per_device_train_batch_size: 4}",
        "precision=fp32",
        "facts={}",
        *settings,
    )


def jobs_of_run(folder, *settings, family=llama):
    steps = [Step("student"), Step("distil", seed=0)]
    return jobs_in(recipe_of(folder, *settings, family=family), steps, HERE)


def mixture_of_three():
    return mixture(num_hidden_layers=3)


def wide(family):
    return padded(family(), VOCABULARY + 88)


def the_training(jobs):
    return next(one for one in jobs if isinstance(one, TrainingJob))


def writing(folder, family=llama, **fields):
    model = models_of(recipe_of(folder, family=family), {}, ask_hub=False).teachers["t"]
    five = Range.exactly(5)
    return WritingJob(model, 3, five, five, 16.0, Range.exactly(9), "fp32", Range.exactly(1e5), **fields)


def test_each_kind_of_passes_is_tried_and_scales_the_layers_of_its_forecast(tmp_path):
    jobs = jobs_of_run(tmp_path)
    scales = try_layers(jobs, HERE)
    assert {("reading", "t"), ("training", "distil")} <= set(scales.layers)
    assert not scales.reading
    assert not scales.training
    job = the_training(jobs)
    plain, tried = seconds_of(job, HERE), seconds_of(job, HERE, scales)
    batches = job.tokens.expected / job.batch.tokens * job.rounds
    added = of_body(job, HERE).expected * (scales.layers["training", "distil"] - 1)
    assert tried.expected - plain.expected == pytest.approx(added * batches)
    assert tried.low < tried.expected < tried.high


def test_a_live_teacher_beside_a_training_is_scaled_too(tmp_path):
    jobs = jobs_of_run(tmp_path, "capture=null")
    job, scales = the_training(jobs), try_layers(jobs, HERE)
    without = replace(scales, layers={("training", "distil"): scales.layers["training", "distil"]})
    assert ("reading", "t") in scales.layers
    assert seconds_of(job, HERE, scales).expected != seconds_of(job, HERE, without).expected


def test_of_passes_that_are_tried_once_the_longest_are(tmp_path, monkeypatch):
    jobs, tried = jobs_of_run(tmp_path), []
    job = next(one for one in jobs if getattr(one, "model", None) is not None and one.model.name == "t")
    several = [replace(job, tokens=Range.exactly(size)) for size in (1e3, 1e6, 1e4)]
    monkeypatch.setattr(module, "_seconds_of_passes", lambda cut: tried.append(cut.tokens.expected) or 1.0)
    try_layers(several, HERE)
    assert tried == [1e6]


def test_trainings_of_the_same_passes_are_tried_together(tmp_path, monkeypatch):
    job, tried = the_training(jobs_of_run(tmp_path)), []
    monkeypatch.setattr(module, "_seconds_of_passes", lambda cut: tried.append(cut.key) or 1.0)
    control, other = replace(job, key="control"), replace(job, key="other", batch=BatchShape(2, 5))
    scales = try_layers([job, control, other], HERE)
    assert len(tried) == 2
    assert scales.layers["training", "control"] == scales.layers["training", "distil"]
    assert ("training", "other") in scales.layers


@pytest.mark.parametrize("family", [*(partial(one, layers=3) for one in (llama, gpt2, gpt_neox)), mixture_of_three])
def test_a_trial_has_the_first_layers_and_few_tokens(tmp_path, monkeypatch, family):
    made, make = [], module.random_model
    monkeypatch.setattr(module, "random_model", lambda config, how: made.append(config) or make(config, how))
    larger = partial(wide, family)
    scales = try_layers(jobs_of_run(tmp_path, family=larger), HERE)
    assert ("reading", "t") in scales.layers
    assert [config.num_hidden_layers for config in made] == [LAYERS] * len(made)
    assert max(config.vocab_size for config in made) <= VOCABULARY


def test_rates_that_are_told_wrong_are_found_out(tmp_path):
    jobs = [the_training(jobs_of_run(tmp_path))]
    too_fast = Range.exactly(1e15)
    slow, fast = (
        try_layers(jobs, one).layers["training", "distil"]
        for one in (HERE, replace(HERE, rates={"fp32": too_fast}, bandwidth=too_fast))
    )
    assert fast > slow > 0


@pytest.mark.parametrize("family", [llama, mixture])
def test_writing_is_tried(tmp_path, family):
    job = writing(tmp_path, family)
    scales = try_layers([job], HERE)
    (scale,) = scales.layers.values()
    assert scale > 0
    longer = replace(job, new=Range.exactly(50))

    def more(**how):
        return seconds_of(longer, HERE, **how).expected - seconds_of(job, HERE, **how).expected

    tokens = 3 * (50 - 5)
    assert more(scales=scales) - more() == pytest.approx(tokens * one_token(job, HERE).expected * (scale - 1))


def test_a_run_has_the_random_numbers_that_it_would_have_without_a_trial(tmp_path):
    jobs = [*jobs_of_run(tmp_path), writing(tmp_path)]
    torch.manual_seed(3)
    without = torch.rand(4)
    torch.manual_seed(3)
    assert try_layers(jobs, HERE).layers
    assert torch.equal(torch.rand(4), without)


def test_of_a_large_batch_some_rows_are_tried(tmp_path, monkeypatch):
    job, tried = the_training(jobs_of_run(tmp_path)), []
    monkeypatch.setattr(module, "_seconds_of_passes", lambda cut: tried.append(cut.batch) or 1.0)
    slower = replace(HERE, rates={"fp32": Range.exactly(1e9)}, bandwidth=Range.exactly(1e12))
    large = replace(job, batch=BatchShape(4096, 8))
    try_layers([large], slower)
    assert tried[0].length == 8
    assert 1 <= tried[0].rows < 4096
    slowest = replace(slower, rates={"fp32": Range.exactly(1e5)})
    assert not try_layers([large], slowest).layers
    assert len(tried) == 1


def test_what_cannot_be_tried_is_left_out(tmp_path, monkeypatch):
    jobs = jobs_of_run(tmp_path)
    assert not try_layers(jobs, replace(HERE, kind="cuda", device_memory=1e12)).layers
    assert not try_layers(jobs, replace(HERE, host_memory=1e6)).layers
    assert not try_layers([writing(tmp_path, engine="vllm")], HERE).layers

    def broken(*given):
        raise RuntimeError("this model needs all its layers")

    monkeypatch.setattr(module, "random_model", broken)
    assert not try_layers(jobs, HERE).layers
