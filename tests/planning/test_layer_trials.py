"""Trials of a model's first layers: they scale the forecast, and leave no trace in a run."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma3TextConfig

import minimal
from potstill.planning import layer_trials as module
from potstill.planning.duration import Scales, layers_of, of_body, one_token, seconds_of
from potstill.planning.jobs import ReadingJob, TrainingJob, WritingJob
from potstill.planning.kernels import KEPT_BY_LIBRARY
from potstill.planning.layer_trials import LAYERS, VOCABULARY, try_layers
from potstill.planning.machine import Machine
from potstill.planning.memory import training_pass
from potstill.planning.models import PlannedModel, models_of, parameters_of
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


def teacher_of(folder, family=llama):
    return models_of(recipe_of(folder, family=family), {}, ask_hub=False).teachers["t"]


def planned(model):
    return PlannedModel("t", model.config, parameters_of(model.config))


def the_training(jobs):
    return next(one for one in jobs if isinstance(one, TrainingJob))


def writing(folder, family=llama, **fields):
    model = teacher_of(folder, family)
    five = Range.exactly(5)
    return WritingJob(model, 3, five, five, 16.0, Range.exactly(9), "fp32", Range.exactly(1e5), **fields)


def test_reading_and_training_are_tried_and_scale_the_layers_of_their_forecasts(tmp_path):
    jobs = jobs_of_run(tmp_path)
    scales, job = try_layers(jobs, HERE), the_training(jobs)
    assert {("reading", "t"), layers_of(job)} <= set(scales.layers)
    assert not scales.reading
    assert not scales.training
    plain, tried = seconds_of(job, HERE), seconds_of(job, HERE, scales)
    batches = job.tokens.expected / job.batch.tokens * job.rounds
    added = of_body(job, HERE).expected * (scales.layers[layers_of(job)] - 1)
    assert tried.expected - plain.expected == pytest.approx(added * batches)
    assert tried.low < tried.expected < tried.high


def test_a_live_teacher_and_prompts_are_tried_where_nothing_else_reads(tmp_path):
    job = the_training(jobs_of_run(tmp_path, "capture=null"))
    scales = try_layers([job], HERE)
    assert set(scales.layers) == {("reading", "t"), layers_of(job)}
    without = replace(scales, layers={layers_of(job): scales.layers[layers_of(job)]})
    assert seconds_of(job, HERE, scales).expected != seconds_of(job, HERE, without).expected
    assert set(try_layers([writing(tmp_path)], HERE).layers) == {("writing", "t"), ("reading", "t")}


def test_new_memory_and_heads_are_not_scaled(tmp_path):
    job, text = the_training(jobs_of_run(tmp_path)), writing(tmp_path)
    large = replace(job, batch=BatchShape(4096, 64))
    slow = replace(HERE, new_memory=Range.exactly(1e6))
    nothing = Scales(layers={layers_of(large): 0.0, layers_of(text): 0.0})
    peak = training_pass(large).peak
    steps = large.tokens.expected / large.batch.tokens
    added = seconds_of(large, slow, nothing).expected - seconds_of(large, HERE, nothing).expected
    assert added == pytest.approx((peak - KEPT_BY_LIBRARY) / 1e6 * steps)
    wide = replace(text, model=planned(padded(llama(), 4096)), weights=text.weights * 9)
    assert seconds_of(wide, HERE, nothing).expected > seconds_of(text, HERE, nothing).expected


def test_of_jobs_that_have_one_trial_the_longest_is_tried(tmp_path, monkeypatch):
    jobs, tried = jobs_of_run(tmp_path), []
    job = next(one for one in jobs if getattr(one, "model", None) is not None and one.model.name == "t")
    several = [replace(job, tokens=Range.exactly(size)) for size in (1e3, 1e6, 1e4)]
    monkeypatch.setattr(module, "_seconds_of_batch", lambda cut: tried.append(cut.tokens.expected) or 1.0)
    try_layers(several, HERE)
    assert tried == [1e6]
    text, rows = writing(tmp_path), []
    monkeypatch.setattr(module, "seconds_of_token", lambda small: rows.append(small.rows) or 1.0)
    few, none = replace(text, rows=1, count=Range.exactly(1)), replace(text, rows=2, count=Range.exactly(0))
    try_layers([text, few, none], HERE)
    assert rows == [text.rows]
    try_layers([none], HERE)
    assert rows == [text.rows]


def test_trainings_of_one_micro_batch_are_tried_once_and_others_each(tmp_path, monkeypatch):
    job, tried = the_training(jobs_of_run(tmp_path)), []
    monkeypatch.setattr(module, "_seconds_of_batch", lambda cut: tried.append(cut.batch) or 1.0)
    written = replace(job, batch=BatchShape(2, 5))
    scales = try_layers([job, replace(job, key="control"), written], HERE)
    assert len(tried) == 2
    assert {job.batch, written.batch} == set(tried)
    assert set(scales.layers) == {layers_of(job), layers_of(written)}


@pytest.mark.parametrize("family", [*(partial(one, layers=3) for one in (llama, gpt2, gpt_neox)), mixture_of_three])
def test_a_trial_has_the_first_layers_and_few_tokens(tmp_path, monkeypatch, family):
    made, make = [], module.random_model
    monkeypatch.setattr(module, "random_model", lambda config, how: made.append(config) or make(config, how))
    larger = partial(wide, family)
    scales = try_layers(jobs_of_run(tmp_path, family=larger), HERE)
    assert ("reading", "t") in scales.layers
    assert [config.num_hidden_layers for config in made] == [LAYERS] * len(made)
    assert max(config.vocab_size for config in made) <= VOCABULARY


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [("sssssf" * 2, [0, 5]), ("fs" * 4, [0, 1]), ("ssss", [0, 1]), ("f", [0]), ("ssffll", [0, 2, 4]), ("", [0, 1])],
)
def test_a_trial_has_the_first_layer_of_each_kind(kinds, chosen):
    names = {"s": "sliding_attention", "f": "full_attention", "l": "linear_attention"}
    fields = {"layer_types": [names[one] for one in kinds]} if kinds else {}
    config = SimpleNamespace(num_hidden_layers=len(kinds) or 7, **fields)
    assert module._of_each_kind(config, LAYERS) == chosen


def test_of_full_and_sliding_attention_both_are_tried(tmp_path, monkeypatch):
    made, make = [], module.random_model
    monkeypatch.setattr(module, "random_model", lambda config, how: made.append(config) or make(config, how))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    positions = {"head_dim": 8, "max_position_embeddings": 128, "sliding_window": 8}
    config = Gemma3TextConfig(vocab_size=VOCABULARY, num_hidden_layers=7, **shape, **positions)
    five = Range.exactly(1e4)
    model = PlannedModel("t", config, parameters_of(config))
    assert try_layers([ReadingJob(model, BatchShape(2, 16), five, "fp32", Range.exactly(1e5))], HERE).layers
    assert [set(config.layer_types) for config in made] == [{"sliding_attention", "full_attention"}]


def test_rates_that_are_told_wrong_are_found_out(tmp_path, monkeypatch):
    job, too_fast = the_training(jobs_of_run(tmp_path)), Range.exactly(1e15)
    monkeypatch.setattr(module, "_seconds_of_batch", lambda cut: 0.1)
    fast = replace(HERE, rates={"fp32": too_fast}, bandwidth=too_fast)
    assert try_layers([job], fast).layers[layers_of(job)] > try_layers([job], HERE).layers[layers_of(job)]


@pytest.mark.parametrize("family", [llama, mixture])
def test_writing_is_tried(tmp_path, family):
    job = writing(tmp_path, family)
    scale = try_layers([job], HERE).layers["writing", "t"]
    assert scale > 0
    longer = replace(job, new=Range.exactly(50))

    def more(scale):
        scales = Scales(layers={("writing", "t"): scale})
        return seconds_of(longer, HERE, scales).expected - seconds_of(job, HERE, scales).expected

    # The head has its part of a step, whatever the layers take.
    assert 0 < more(0.0) < more(1.0) == pytest.approx(3 * (50 - 5) * one_token(job, HERE).expected)
    assert more(scale) - more(0.0) == pytest.approx(scale * (more(1.0) - more(0.0)))


def test_a_run_has_the_random_numbers_that_it_would_have_without_a_trial(tmp_path):
    jobs = [*jobs_of_run(tmp_path), writing(tmp_path)]
    torch.manual_seed(3)
    without = torch.rand(4)
    torch.manual_seed(3)
    assert try_layers(jobs, HERE).layers
    assert torch.equal(torch.rand(4), without)


def test_of_a_large_batch_some_rows_are_tried(tmp_path, monkeypatch):
    job, tried = the_training(jobs_of_run(tmp_path)), []
    monkeypatch.setattr(module, "_seconds_of_batch", lambda cut: tried.append(cut.batch) or 1.0)
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
    assert ("writing", "t") not in try_layers([writing(tmp_path, engine="vllm")], HERE).layers

    slow = replace(HERE, bandwidth=Range.exactly(1e3))
    assert ("writing", "t") not in try_layers([writing(tmp_path)], slow).layers, "it would take too long"
    monkeypatch.setattr(module, "MOST_WEIGHTS", 10)
    assert not try_layers(jobs, HERE).layers
    monkeypatch.undo()

    def broken(*given):
        raise RuntimeError("this model needs all its layers")

    monkeypatch.setattr(module, "random_model", broken)
    assert not try_layers(jobs, HERE).layers


def test_a_model_whose_first_layers_do_not_stand_for_all_is_left_out(tmp_path):
    model = teacher_of(tmp_path, partial(llama, layers=5))
    job = ReadingJob(model, BatchShape(2, 8), Range.exactly(1e4), "fp32", Range.exactly(1e5))
    assert try_layers([job], HERE).layers
    larger = replace(model.parameters, body=round(1.3 * model.parameters.body))
    assert not try_layers([replace(job, model=replace(model, parameters=larger))], HERE).layers

    class Nested(type(model.config)):
        def get_text_config(self, *args, **kwargs):
            return model.config

    nested = Nested(**model.config.to_dict())
    assert not try_layers([replace(job, model=replace(model, config=nested))], HERE).layers
