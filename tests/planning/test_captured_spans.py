"""What a plan says of the capture of spans."""

import json

import pytest

import minimal
import toy_conversations
from potstill.planning.amounts import amounts_of
from potstill.planning.captured_spans import READ_AGAIN, bytes_of_spans, reading_of_spans, span_amounts
from potstill.planning.disk import SMALL, disk_of
from potstill.planning.jobs import ReadingJob, Situation
from potstill.planning.models import models_of
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.step import Step
from potstill.targets.codecs.registry import estimate
from potstill.targets.codecs.spans import SpanCodec
from tiny import llama, save_model

MADE = {"train_samples": 10, "train_tokens": 320, "supervised_tokens": 310, "held_out_documents": 4}
MADE |= {"held_out_tokens": 100, "validation_samples": 0}
COUNTED = {"spans": {"t": {"tokens": 700, "blocks": 12}}}


@pytest.fixture
def situation(tmp_path):
    save_model(llama(), tmp_path / "teacher")

    def of(made, ranks=1):
        spans = ["capture={keep: spans}", "tokenizer={vocab_size: 400}", "distil.losses=[{kind: alm}]"]
        spans.append("student={start: scratch, config: {model_type: llama}}")
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "precision=fp32", *spans)
        return Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, made, None), "fp32", ranks)

    return of


def test_counted_spans_are_exact(situation):
    at = situation(MADE | COUNTED)
    tokens, blocks = span_amounts(at, "t")
    assert (tokens.to_list(), blocks.to_list()) == ([700.0] * 3, [12.0] * 3)
    size = bytes_of_spans(at, at.models.teachers["t"])
    assert size.is_exact
    assert size.low == estimate(SpanCodec(4000, 256, 2048), 700, 12).total_bytes


def test_before_that_they_follow_from_the_students_tokens(situation):
    tokens, blocks = span_amounts(situation(MADE), "t")
    assert 320 / 10 < tokens.low < tokens.expected < tokens.high < 320 * 2
    assert blocks.low < 2 < blocks.high
    at = situation(None)
    assert span_amounts(at, "t") is None or not span_amounts(at, "t")[0].is_exact


def test_a_teacher_reads_a_block_with_what_is_before_it(situation):
    at = situation(MADE | COUNTED, ranks=2)
    job = reading_of_spans(at, at.models.teachers["t"])
    assert job.tokens.to_list() == pytest.approx((READ_AGAIN * 350).to_list())
    assert job.batch.rows == 16
    assert job.batch.length == 128, "the positions of the teacher"


def test_of_turns_a_teacher_reads_its_own_tokens_and_leaves_six_bytes_of_each_learned_one(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    student = {"start": "scratch", "config": {"model_type": "llama"}}
    given = {
        "capture": {"keep": "spans"},
        "tokenizer": {"vocab_size": 400},
        "student": student,
        "corpus.template": "plain",
    }
    losses = json.dumps([{"kind": "alm"}])
    overrides = (*(f"{key}={json.dumps(value)}" for key, value in given.items()), f"distil.losses={losses}")
    recipe = toy_conversations.recipe(tmp_path, *overrides)
    turns = {"t": {"learned": 9, "compared": 8, "student_reads": 200, "teacher_reads": 300}}
    amounts = amounts_of(recipe, MADE | {"held_out_conversations": 4, "compared_turns": turns}, None)
    at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts, "fp32")
    (job,) = (one for one in jobs_of(Step("capture"), at) if isinstance(one, ReadingJob))
    assert job.tokens.to_list() == pytest.approx([480.0] * 3)
    assert job.batch.length == 48
    found = disk_of(Step("capture"), at, [job])
    assert found.kept.low - SMALL.low == 465 * 6 + 10 * 24
