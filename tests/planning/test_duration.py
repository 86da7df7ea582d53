"""The seconds of jobs, from operations and rates."""

from dataclasses import replace

import pytest

import minimal
from potstill.planning.amounts import amounts_of
from potstill.planning.duration import Scales, active_parameters, one_batch, seconds_of
from potstill.planning.jobs import ReadingJob, Situation, TrainingJob, WaitingJob, WritingJob
from potstill.planning.machine import Machine
from potstill.planning.models import models_of
from potstill.planning.ranges import Range
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.step import Step
from tiny import llama, mixture, save_model

MACHINE = Machine("m", rates={"fp32": Range.exactly(1e9)}, bandwidth=Range.exactly(1e9))


@pytest.fixture
def at(tmp_path):
    save_model(llama(), tmp_path / "teacher")

    def situation(*overrides):
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "precision=fp32", *overrides)
        return Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")

    return situation


def only(situation, kind, stage, **how):
    return next(one for one in jobs_of(Step(stage, **how), situation) if isinstance(one, kind))


def test_seconds_grow_with_steps_and_fall_with_the_rate(at):
    steps = "distil.training.max_steps={}"
    job, twice = (only(at(steps.format(n)), TrainingJob, "distil", seed=0) for n in (50, 100))
    assert seconds_of(twice, MACHINE).expected == pytest.approx(2 * seconds_of(job, MACHINE).expected)
    faster = replace(MACHINE, rates={"fp32": Range.exactly(1e12)})
    assert seconds_of(job, faster).expected < seconds_of(job, MACHINE).expected


def test_a_live_teacher_reads_each_batch_and_a_control_has_none(at):
    live, captured = at("capture=null"), at("capture={keep: top_k, k: 8}")
    beside = seconds_of(only(live, TrainingJob, "distil", seed=0), MACHINE).expected
    alone = seconds_of(only(captured, TrainingJob, "distil", seed=0), MACHINE).expected
    assert beside > alone == seconds_of(only(live, TrainingJob, "control", seed=0), MACHINE).expected


def test_what_is_not_known_gives_no_seconds(at):
    job = only(at("capture={keep: top_k, k: 8}"), ReadingJob, "capture")
    assert seconds_of(replace(job, tokens=None), MACHINE) is None
    assert seconds_of(replace(job, precision="bf16"), MACHINE) is None
    assert seconds_of(job, replace(MACHINE, bandwidth=None)) is None
    assert seconds_of(WaitingJob(None), MACHINE) is None
    assert seconds_of(WaitingJob(Range(1, 2, 3)), MACHINE) == Range(1, 2, 3)


def test_what_was_tried_scales_its_own_kind(at):
    job = only(at("capture={keep: top_k, k: 8}"), ReadingJob, "capture")
    scaled = one_batch(job, MACHINE, Scales(reading={"t": 3.0, "student": 1.0}))
    assert scaled.expected == pytest.approx(3 * one_batch(job, MACHINE).expected)
    others = one_batch(job, MACHINE, Scales(reading={"student": 4.0, "other": 1.0}))
    assert others.expected == pytest.approx(2 * one_batch(job, MACHINE).expected)


def test_writing_reads_all_weights_for_each_token(at):
    model = at().models.teachers["t"]
    job = WritingJob(model, 4, Range.exactly(8), Range.exactly(8), 16.0, Range.exactly(40), "fp32", Range.exactly(1e9))
    heavy = replace(job, weights=Range.exactly(2e9))
    more = seconds_of(heavy, MACHINE).expected - seconds_of(job, MACHINE).expected
    assert more == pytest.approx(40 / 4 * 8), "ten batches of eight tokens, one second more each"
    assert seconds_of(replace(job, count=None), MACHINE) is None


def test_a_mixture_of_experts_uses_some_of_its_weights(tmp_path):
    save_model(mixture(), tmp_path / "mixture")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'mixture'}")
    (model,) = models_of(recipe, {}, ask_hub=False).teachers.values()
    experts = sum(one.numel() for name, one in mixture().named_parameters() if "experts" in name)
    assert active_parameters(model) == model.parameters.total - experts // 2, "two of four experts"
