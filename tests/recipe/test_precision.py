"""`precision:` — the number format of a run, and those of its trainings."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe.precision import in_bfloat16, in_format, teachers_in_format

TEACHER = "{config: {model_type: llama, hidden_size: 32}, training: {bf16: true}}"


@pytest.mark.parametrize(
    ("training", "precision", "expected"),
    [
        ({}, "bf16", True),
        ({}, "fp32", False),
        ({}, "auto", False),
        ({"bf16": True}, "fp32", True),
        ({"bf16": False}, "bf16", False),
        ({"fp16": True}, "bf16", False),
        ({"fp16": False}, "bf16", True),
    ],
)
def test_a_training_has_its_own_format_or_else_the_run_s(training, precision, expected):
    assert in_bfloat16(training, precision) is expected
    fields = in_format(training, precision)
    assert fields.get("bf16", False) is expected
    assert fields.items() >= training.items()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["precision=fp32", "distil.training.bf16=true"],
            "`distil.training.bf16: true` contradicts `precision: fp32`; remove one of the two",
        ),
        (
            ["precision=bf16", "distil.training.bf16=false"],
            "`distil.training.bf16: false` contradicts `precision: bf16`",
        ),
        (["precision=bf16", "distil.training.fp16=true"], "`distil.training.fp16: true` contradicts `precision: bf16`"),
        (["precision=fp32", "distil.training.fp16=true"], "`distil.training.fp16: true` contradicts `precision: fp32`"),
        (["precision=fp32", "control.training.bf16=true"], "`control.training.bf16: true` contradicts"),
        (["precision=fp32", f"pretrain.p={TEACHER}"], "`pretrain.p.training.bf16: true` contradicts"),
        (
            [
                "precision=fp32",
                "corpus.validation=2",
                "distil.losses=[{kind: forward_kl}, {kind: cross_entropy}]",
                "search={temperatures: [2], training: {bf16: true}}",
            ],
            "`search.training.bf16: true` contradicts",
        ),
        (["precision=fp16"], "precision"),
        (["precision=true"], "precision"),
    ],
)
def test_a_contradiction_is_refused(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as told:
        minimal.recipe(tmp_path, *overrides)
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["precision=auto", "distil.training.bf16=true"],
        ["precision=auto", "distil.training.fp16=true"],
        ["precision=bf16", "distil.training.bf16=true"],
        ["precision=fp32", "distil.training.bf16=false"],
        ["precision=fp32", "teachers.t.dtype=bfloat16"],
    ],
)
def test_what_does_not_contradict_is_taken(tmp_path, overrides):
    assert minimal.recipe(tmp_path, *overrides).precision == overrides[0].removeprefix("precision=")


def test_teachers_with_a_format_of_their_own_do_not_have_the_run_s(tmp_path):
    trained = "pretrain={p: {config: {model_type: llama, hidden_size: 32}}}"
    assert teachers_in_format(minimal.recipe(tmp_path, trained)) == ["t", "p"]
    assert teachers_in_format(minimal.recipe(tmp_path, trained, "teachers.t.dtype=float32")) == ["p"]
    assert teachers_in_format(minimal.recipe(tmp_path, "teachers.t={model: a, gguf: b, engine: llama_cpp}")) == []
