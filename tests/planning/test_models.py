"""What is known of a run's models before it begins."""

import json

import pytest
from potstill.pipeline.known_models import TYPICAL_WIDTHS, student_config, teacher_configs, widths_of

import minimal
from potstill.pipeline.run_folder import Run
from potstill.recipe.teachers import ModelTeacher
from potstill.teachers.prepare import prepare
from tiny import llama, save_model

SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 6, "num_attention_heads": 4}
PRETRAINED = "pretrain=" + json.dumps({"p": {"config": {"model_type": "llama", **SIZES}}})


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def student(recipe, run):
    return student_config(recipe, teacher_configs(recipe, run))


def test_a_teacher_in_a_folder_is_known(tmp_path, run):
    save_model(llama(), tmp_path / "here")
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'here'}")
    assert teacher_configs(recipe, run)["t"].hidden_size == 32
    assert widths_of(recipe, run) == (32, 64)


def test_a_prepared_teacher_is_known(tmp_path, run):
    source = save_model(llama(), tmp_path / "here")
    prepare("t", ModelTeacher(model=str(source)), run.path("teachers") / "t")
    assert teacher_configs(minimal.recipe(tmp_path), run)["t"].hidden_size == 32


@pytest.mark.parametrize(
    "teacher",
    [
        "{model: nobody/on-the-hub}",
        "{model: missing, gguf: a.gguf}",
        "{package: no_such_package, gguf: a.gguf}",
        "{llama2c: a.bin, tokenizer: b.bin}",
    ],
)
def test_other_teachers_are_not_and_nothing_is_raised(tmp_path, run, teacher):
    recipe = minimal.recipe(tmp_path, f"teachers.t={teacher}")
    assert teacher_configs(recipe, run) == {"t": None}
    assert student(recipe, run) is None
    assert widths_of(recipe, run) == TYPICAL_WIDTHS


def test_a_damaged_teacher_is_not_known(tmp_path, run):
    (save_model(llama(), tmp_path / "here") / "config.json").write_text("{")
    assert teacher_configs(minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'here'}"), run) == {"t": None}


@pytest.mark.parametrize(
    ("given", "layers", "width"),
    [
        ("{start: copy, from: p, adapter: {r: 2}}", 6, 80),
        ("{start: prune_layers, from: p, layers: 4}", 4, 80),
        ("{start: prune_layers, from: p, layers: [0, 5]}", 2, 80),
        ("{start: prune_layers, from: p, layers: 99}", 99, 80),
        ("{start: prune_width, from: p, intermediate_size: 16}", 6, 16),
        ("{start: prune_width, from: p, intermediate_size: 16, layers: 3}", 3, 16),
        ("{start: scratch, config: {model_type: llama, num_hidden_layers: 5, intermediate_size: 24}}", 5, 24),
    ],
)
def test_a_student_is_known_from_what_it_is_made_of(tmp_path, run, given, layers, width):
    recipe = minimal.recipe(tmp_path, PRETRAINED, f"student={given}")
    config = student(recipe, run)
    assert (config.num_hidden_layers, config.intermediate_size) == (layers, width)
    assert teacher_configs(recipe, run)["p"].num_hidden_layers == 6, "the teacher's is not changed"


def test_a_configuration_that_makes_no_model_is_not_known(tmp_path, run):
    recipe = minimal.recipe(tmp_path, "student={start: scratch, config: {model_type: nobody_s}}")
    assert student(recipe, run) is None
