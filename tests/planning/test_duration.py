"""The seconds of jobs, from operations and rates."""

from dataclasses import replace

import pytest

import minimal
from potstill.cli.native_libraries import MALLOC
from potstill.planning.amounts import amounts_of
from potstill.planning.duration import (
    Scales,
    active_parameters,
    of_body,
    one_batch,
    one_step,
    seconds_of,
    steps_of_writing,
)
from potstill.planning.jobs import ReadingJob, Situation, TrainingJob, WaitingJob, WritingJob
from potstill.planning.kernels import KEPT_BY_LIBRARY
from potstill.planning.machine import Machine
from potstill.planning.memory import training_pass
from potstill.planning.models import models_of
from potstill.planning.ranges import Range
from potstill.planning.stage_jobs import jobs_of
from potstill.planning.trace import BatchShape
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


def test_attention_and_small_operations_have_rates_of_their_own(at):
    training, reading = (
        only(at("capture={keep: top_k, k: 8}"), *of) for of in ((TrainingJob, "control"), (ReadingJob, "capture"))
    )
    slow = Range.exactly(1e6)

    def more(job, **rates):
        return one_of(job, replace(MACHINE, **rates)).expected - one_of(job, MACHINE).expected

    def one_of(job, machine):
        return one_step(job, machine) if job is training else one_batch(job, machine)

    fast, near, far = MACHINE.rates["fp32"], ("fp32", 16), ("fp32", 500)
    work = training_pass(training).operations
    assert more(training, attention={near: (fast, slow)}) == pytest.approx(work.attention_backward * (1e-6 - 1e-9))
    assert more(training, attention={near: (slow, fast), far: (fast, fast)}) > 0, "the nearest length is taken"
    assert more(training, attention={near: (fast, fast), far: (slow, slow)}) == 0
    assert more(training, attention={("bf16", 8): (slow, slow)}) == 0
    assert more(reading, attention={near: (fast, slow)}) == 0, "a forward has no backward"
    assert more(training, elementwise=slow) > work.moved * (1e-6 - 1e-9)


def test_memory_that_is_freed_and_asked_for_again_costs_seconds_beyond_what_is_kept(at):
    assert MALLOC["MALLOC_TRIM_THRESHOLD_"][1] == KEPT_BY_LIBRARY
    job = only(at("capture={keep: top_k, k: 8}"), TrainingJob, "control")
    large = replace(job, batch=BatchShape(4096, 16))
    slow = replace(MACHINE, new_memory=Range.exactly(1e6))
    assert training_pass(job).peak < KEPT_BY_LIBRARY < training_pass(large).peak
    assert of_body(job, slow) == of_body(job, MACHINE)
    added = of_body(large, slow).expected - of_body(large, MACHINE).expected
    assert added == pytest.approx((training_pass(large).peak - KEPT_BY_LIBRARY) / 1e6)


def test_what_is_not_known_gives_no_seconds(at):
    job = only(at("capture={keep: top_k, k: 8}"), ReadingJob, "capture")
    assert seconds_of(replace(job, tokens=None), MACHINE) is None
    assert seconds_of(replace(job, precision="bf16"), MACHINE) is None
    assert seconds_of(job, replace(MACHINE, bandwidth=None)) is None
    assert seconds_of(WaitingJob(None), MACHINE) is None
    assert seconds_of(WaitingJob(Range(1, 2, 3)), MACHINE) == Range(1, 2, 3)


def test_what_was_tried_scales_its_own_kind(at):
    job = only(at("capture={keep: top_k, k: 8}"), ReadingJob, "capture")
    plain, other = one_batch(job, MACHINE).expected, BatchShape(1, 7)

    def scaled(found):
        return one_batch(job, MACHINE, Scales(reading=found)).expected / plain

    own = {("t", job.batch): 3.0, ("t", other): 9.0, ("student", job.batch): 1.0}
    assert scaled(own) == pytest.approx(3)
    assert scaled({("t", other): 8.0, ("t", BatchShape(2, 7)): 2.0, ("student", job.batch): 1.0}) == pytest.approx(4)
    assert scaled({("student", other): 4.0, ("other", other): 1.0}) == pytest.approx(2), "the mean of other models"


def test_a_tried_training_is_as_uncertain_as_its_tokens(at):
    job = only(at("distil.training.max_steps=50"), TrainingJob, "distil", seed=0)
    known, scales = replace(job, tokens=Range.exactly(1000)), Scales(training={"distil": 2.0})
    half = replace(job, tokens=Range(500, 1000, 2000))
    found, wider = (seconds_of(one, MACHINE, scales) for one in (known, half))
    assert found.expected == wider.expected == pytest.approx(2 * seconds_of(known, MACHINE).expected)
    assert wider.low < found.low < found.high < wider.high


def test_writing_reads_all_weights_for_each_token(at):
    model = at().models.teachers["t"]
    job = WritingJob(model, 4, Range.exactly(8), Range.exactly(8), 16.0, Range.exactly(40), "fp32", Range.exactly(1e9))
    heavy = replace(job, weights=Range.exactly(2e9))
    more = seconds_of(heavy, MACHINE).expected - seconds_of(job, MACHINE).expected
    assert more == pytest.approx(40 / 4 * 8), "ten batches of eight tokens, one second more each"
    assert seconds_of(replace(job, count=None), MACHINE) is None
    assert seconds_of(replace(job, count=Range.exactly(0)), MACHINE) == Range.exactly(0), "it is there for its memory"
    tried = seconds_of(job, MACHINE, Scales(writing={"t": 3.0})).expected
    read = seconds_of(replace(job, new=Range.exactly(0)), MACHINE).expected
    assert tried - read == pytest.approx(3 * (seconds_of(job, MACHINE).expected - read))


def test_a_block_of_answers_waits_for_its_longest(at):
    model = at().models.teachers["t"]
    new = Range(2, 8, 16)
    job = WritingJob(model, 4, Range.exactly(2), new, 24.0, Range.exactly(64), "fp32", Range.exactly(1e9))
    longest = 8 + 3 / 5 * 8
    assert steps_of_writing(job, Range.exactly(64)).expected == 14 * 8 + 2 * longest, "two blocks of eight batches"
    assert steps_of_writing(job, Range.exactly(3)).expected == longest, "fewer answers than rows"
    apart = replace(job, together=4)
    assert steps_of_writing(apart, Range.exactly(64)).expected == 16 * longest, "each batch waits"
    alone = replace(job, rows=1)
    assert steps_of_writing(alone, Range.exactly(8)).expected == 8 * 8, "a row alone waits for no other"


def test_a_mixture_of_experts_uses_some_of_its_weights(tmp_path):
    save_model(mixture(), tmp_path / "mixture")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'mixture'}")
    (model,) = models_of(recipe, {}, ask_hub=False).teachers.values()
    experts = sum(one.numel() for name, one in mixture().named_parameters() if "experts" in name)
    assert active_parameters(model) == model.parameters.total - experts // 2, "two of four experts"


def test_a_student_is_compared_with_its_teacher_after_its_forward(at):
    student, teacher = (
        next(one for one in jobs_of(Step("evaluate"), at()) if isinstance(one, ReadingJob) and one.model.name == name)
        for name in ("student", "t")
    )
    assert teacher.moved_of_logit == 0
    alone = replace(student, tokens=Range.exactly(1000), moved_of_logit=0.0)
    scale = Scales({(student.model.name, student.batch): 2.0})
    for scales in (Scales(), scale):
        compared = seconds_of(replace(alone, moved_of_logit=40.0), MACHINE, scales).expected
        more = 1000 * 40 * student.model.config.get_text_config().vocab_size / 1e9
        assert compared - seconds_of(alone, MACHINE, scales).expected == pytest.approx(more)
