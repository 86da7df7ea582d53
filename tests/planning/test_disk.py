"""The disk of steps: a store to the byte, and what a training keeps."""

import pytest

import minimal
from potstill.planning.amounts import amounts_of
from potstill.planning.disk import EXPORTED, SMALL, disk_of
from potstill.planning.jobs import Situation
from potstill.planning.models import models_of
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.export_formats import FORMATS, folder_of
from potstill.recipe.step import Step
from potstill.targets.codecs.registry import estimate, make_codec
from tiny import llama, save_model

MADE = {"train_samples": 10, "train_tokens": 320, "supervised_tokens": 310, "held_out_documents": 4}
MADE |= {"held_out_tokens": 100, "validation_samples": 0}


@pytest.fixture
def disk(tmp_path):
    save_model(llama(), tmp_path / "teacher")

    def of(step, *overrides, made=None):
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", "precision=fp32", *overrides)
        at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, made or MADE, None), "fp32")
        return disk_of(step, at, jobs_of(step, at))

    return of


@pytest.mark.parametrize("given", [{"keep": "top_k", "k": 8}, {"keep": "sample", "samples": 4}, {"keep": "hidden"}])
def test_a_store_is_told_to_the_byte(disk, given):
    settings = {
        "top_k": {"k": 8, "temperatures": [1.0]},
        "sample": {"draws": 4},
        "hidden": {"hidden_size": 32, "bits": 32},
    }
    codec = make_codec(given["keep"], vocabulary=300, **settings[given["keep"]])
    head = 300 * 32 * 4 if given["keep"] == "hidden" else 0
    found = disk(Step("capture"), f"capture={given}")
    assert found.kept.low - SMALL.low == estimate(codec, 310, 10).total_bytes + head


def test_captured_spans_are_told_to_the_byte_once_they_are_counted(disk):
    spans = ["capture={keep: spans}", "tokenizer={vocab_size: 400}", "distil.losses=[{kind: alm}]"]
    spans.append("student={start: scratch, config: {model_type: llama}}")
    counted = MADE | {"spans": {"t": {"tokens": 700, "blocks": 12}}}
    found = disk(Step("capture"), *spans, made=counted)
    assert found.kept.low - SMALL.low == 700 * 7 + 12 * 24
    before = disk(Step("capture"), *spans)
    assert before.kept.low - SMALL.low < 320 * 7 < before.kept.high
    kept, plain = disk(Step("corpus"), *spans, made=counted), disk(Step("corpus"), *spans, "capture=null")
    assert kept.kept.low > plain.kept.low + 320 * 4


def test_a_training_keeps_weights_and_snapshots_and_meanwhile_checkpoints(disk):
    step = Step("distil", 0)
    parameters = sum(one.numel() for one in llama(layers=2).parameters())
    plain = disk(step)
    more = disk(step, "distil.snapshots=3", "distil.training.max_steps=9")
    assert more.kept.low - plain.kept.low == 3 * 4 * parameters
    assert plain.meanwhile.high > 3 * 12 * parameters * 0.99
    one = disk(step, "distil.training.save_total_limit=1")
    assert one.meanwhile.expected < plain.meanwhile.expected
    assert disk(step, "distil.training.save_strategy=no").meanwhile.expected < 5e6, "a tokenizer alone"


def test_what_is_not_known_has_no_size(disk, tmp_path):
    recipe = minimal.recipe(tmp_path, "teachers.t.model=nobody/knows")
    at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, MADE, None), "fp32")
    assert disk_of(Step("student"), at, []) is None
    assert disk_of(Step("distil", 0), at, []) is None


def test_each_exported_format_takes_its_part_of_the_students_weights(disk):
    given = f"export={{to: {list(FORMATS)}}}"
    assert {folder_of(one) for one in FORMATS} == EXPORTED.keys()
    found = {one: disk(Step("export", name=f"student/{one}"), given).kept.expected for one in EXPORTED}
    assert found["merged"] > found["gguf-F16"] > found["gguf-Q8_0"] > found["gguf-Q6_K"] > found["gguf-Q4_K_M"]
