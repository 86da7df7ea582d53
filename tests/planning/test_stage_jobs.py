"""The work of a step is that of its own samples."""

from dataclasses import replace
from math import inf

import pytest

import minimal
from potstill.planning.amounts import amounts_of
from potstill.planning.evaluation_jobs import (
    SECONDS_OF_RESPONSE,
    SECONDS_OF_SCORING,
    SPEED_OF_WEIGHT,
    _of_speed,
    evaluation_jobs,
    selection_jobs,
)
from potstill.planning.jobs import ReadingJob, Situation, TrainingJob, WaitingJob, WritingJob
from potstill.planning.models import models_of
from potstill.planning.ranges import Range
from potstill.planning.stage_jobs import CAPTURED_BYTES, SECONDS_OF_TARGET, jobs_of
from potstill.recipe.candidates import Candidate
from potstill.recipe.step import Step
from tiny import llama, save_model

EPOCHS = 3.0
"""Of transformers, where a recipe says nothing."""


def situation(folder, *overrides):
    save_model(llama(), folder / "teacher")
    recipe = minimal.questions(folder, f"teachers.t.model={folder / 'teacher'}", "corpus.train=100", *overrides)
    return Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")


def only(at, kind, step):
    return next(one for one in jobs_of(step, at) if isinstance(one, kind))


def test_a_capture_reads_the_prompts_of_its_own_sample_set(tmp_path):
    at = situation(tmp_path)
    own = replace(at, amounts=replace(at.amounts, teacher_lengths={"base/own": Range(20, 30, 40)}))
    base, other = (only(own, ReadingJob, Step("capture", name=name)) for name in ("base/own", "confidence/own"))
    assert base.tokens == Range(2000, 3000, 4000)
    assert base.batch.length == 40
    assert other == only(at, ReadingJob, Step("capture", name="confidence/own"))


def test_what_a_capture_does_beside_reading_grows_with_the_tokens_that_are_learned_and_with_the_vocabulary(tmp_path):
    at = situation(tmp_path, "facts.text={prompt_tokens: 20, answer_tokens: 10}")
    step = Step("capture", name="base/own")
    own = [one for one in jobs_of(step, at) if isinstance(one, WaitingJob)][-1].seconds
    assert own == at.amounts.supervised * SECONDS_OF_TARGET
    assert only(at, ReadingJob, step).moved_of_logit == CAPTURED_BYTES


def test_a_teacher_answers_all_prompts_even_where_not_all_answers_are_learned(tmp_path):
    at = situation(tmp_path, "facts.text={prompt_tokens: 20, answer_tokens: 10}")
    all_learned = only(at, WritingJob, Step("generate"))
    assert all_learned.count == at.amounts.samples == Range.exactly(100)
    some = replace(at, amounts=replace(at.amounts, asked=Range.exactly(100), samples=Range(30, 80, 100)))
    assert only(some, WritingJob, Step("generate")) == all_learned
    assert all_learned.prompt.expected == pytest.approx(1.3 * 20), "without the answer itself"


def test_no_more_answers_are_written_at_once_than_are_asked_for(tmp_path):
    at = situation(tmp_path, "corpus.train=5", "generate.batch_size=8")
    assert only(at, WritingJob, Step("generate")).rows == 5


def test_the_prompts_of_held_out_questions_are_a_step_of_their_own(tmp_path):
    at = situation(tmp_path)
    few = replace(at, amounts=replace(at.amounts, held_out_samples=Range.exactly(10)))
    (name, *_) = at.recipe.sample_sets
    whole, held = (jobs_of(Step("strategies", name=one), few)[-1] for one in (name, "base/held_out"))
    assert whole.seconds.expected == pytest.approx(10 * held.seconds.expected)


def test_a_student_answers_with_its_adapter_unless_that_is_merged(tmp_path):
    adapter = "student={start: copy, from: t, adapter: {r: 2, target_modules: [q_proj]}"
    several = Candidate("teacher"), Candidate("start"), Candidate("student", "base", 0), Candidate("control", seed=0)
    steps = {one.role: Step("answers", candidate=one) for one in several}
    apart, merged = (situation(tmp_path, f"{adapter}{more}}}") for more in ("", ", merge: true"))
    with_it = {role: only(apart, WritingJob, step).name for role, step in steps.items()}
    assert with_it == {
        "teacher": "t",
        "start": "student",
        "student": "student with its adapter",
        "control": "student with its adapter",
    }
    assert only(merged, WritingJob, steps["student"]).name == "student"


def test_models_that_read_side_by_side_are_all_in_memory(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "seeds=[0, 1]", "control={}")
    at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")

    def beside(memory):
        jobs = jobs_of(Step("evaluate"), replace(at, memory=memory))
        (found,) = {one.beside for one in jobs if isinstance(one, ReadingJob) and one.beside.expected}
        return found.expected

    own, teacher = (4.0 * one.parameters.total for one in (at.models.student, at.models.teachers["t"]))
    # The start, and a student and a control of each seed, of which one reads. Models may take half of the memory.
    assert beside(inf) == beside(2 * (5 * own + teacher)) == 4 * own + teacher
    # Without room for the teacher it reads first, alone.
    assert beside(2 * 5 * own) == 4 * own
    assert beside(2 * 2.5 * own) == own


def test_teachers_that_read_other_tokens_or_lie_on_all_accelerators_are_not_beside(tmp_path):
    save_model(llama(), tmp_path / "teacher")

    def of_teachers(*overrides):
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "control=null", *overrides)
        at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")
        jobs = [one for one in jobs_of(Step("evaluate"), at) if isinstance(one, ReadingJob) and one.beside.expected]
        # The start is beside the student.
        own, teacher = (4.0 * one.parameters.total for one in (at.models.student, at.models.teachers["t"]))
        return (jobs[0].beside.expected - own) / teacher

    assert of_teachers() == 1
    assert of_teachers("teachers.t.device_map=auto") == 0
    crossing = "distil.losses=[{kind: alm, weight: 0.5}, {kind: cross_entropy, weight: 0.5}]"
    config = "{model_type: llama, num_hidden_layers: 1, hidden_size: 32, num_attention_heads: 2, intermediate_size: 64}"
    scratch = f"student={{start: scratch, config: {config}}}"
    assert of_teachers(crossing, scratch, "tokenizer={vocab_size: 300}", "capture=null") == 0


def test_what_compares_continuations_is_loaded_once_for_all_models_and_for_each_snapshot(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    given = "evaluate.continuations.facts={set: facts, max_new_tokens: 8}", "distil.snapshots=4"
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", *given)
    at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")

    def loadings(jobs):
        responses = sum(one.count.expected for one in jobs if isinstance(one, WritingJob) and one.new.high == 8)
        waits = sum(one.seconds.expected for one in jobs if isinstance(one, WaitingJob)) - responses * (
            SECONDS_OF_RESPONSE.expected
        )
        return waits / SECONDS_OF_SCORING.expected

    of_snapshots = list(selection_jobs(Step("select"), at))
    assert loadings(of_snapshots) == pytest.approx(5), "four snapshots and the start"
    jobs = [one for one in evaluation_jobs(Step("evaluate"), at) if one != WaitingJob(_of_speed(at))]
    assert loadings(jobs) == pytest.approx(1)


def test_the_speed_of_a_control_is_measured_beside_the_students(tmp_path):
    save_model(llama(), tmp_path / "teacher")

    def seconds(*given):
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", *given)
        at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")
        return _of_speed(at).expected, at.models.student.parameters.total

    (whole, weights), (alone, _) = seconds(), seconds("control=null")
    assert whole - alone == pytest.approx(SPEED_OF_WEIGHT * weights)


def test_a_teacher_that_is_trained_here_reads_every_prompt(tmp_path):
    config = '{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}'
    trained = f'{{"config": {config}, "training": {{"per_device_train_batch_size": 4}}}}'
    at = situation(tmp_path, f"pretrain.big={trained}", "facts.text={prompt_tokens: 20, answer_tokens: 10}")
    job, own = (only(at, TrainingJob, step) for step in (Step("pretrain", name="big"), Step("control", 0)))
    prompts = len({one.strategy for one in at.recipe.sample_sets.values()})
    assert prompts > 1
    assert job.samples.expected == prompts * at.amounts.samples.expected * EPOCHS
    assert job.batch.length > own.batch.length
    assert job.pads


def test_a_quick_model_is_quickly_measured(tmp_path):
    at = situation(tmp_path)
    assert jobs_of(Step("evaluate"), at)[1].seconds.expected < 3
