"""The work of a step is that of its own samples."""

from dataclasses import replace

import pytest

import minimal
from potstill.planning.amounts import amounts_of
from potstill.planning.jobs import ReadingJob, Situation, WritingJob
from potstill.planning.models import models_of
from potstill.planning.ranges import Range
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.step import Step
from tiny import llama, save_model


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
