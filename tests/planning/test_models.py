"""What is known of a run's models before it begins: published sizes, and those that cannot be had."""

import json

import pytest

import minimal
from potstill.planning.models import TYPICAL_WIDTHS, models_of, widths_of
from potstill.recipe import load_recipe, shipped_recipes
from tiny import llama, mixture, save_model

SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 6, "num_attention_heads": 4}
PRETRAINED = "pretrain=" + json.dumps({"p": {"config": {"model_type": "llama", **SIZES}}})


def found(recipe):
    return models_of(recipe, {}, ask_hub=False)


@pytest.mark.parametrize(
    ("recipe", "model", "count"),
    [
        ("babyllama", "gpt2", 704_928_768),
        ("babyllama", "llama", 359_973_888),
        ("babyllama", "student", 58_343_936),
        ("babyllama-2", "first", 345_355_200),
        ("babyllama-2", "student", 345_355_200),
        ("distilllama", "student", 87_310_848),
        ("distilllama", "llama2", 6_738_415_616),
        ("distilpythia", "student", 70_426_624),
        ("distilpythia-padded", "pythia-160m", 162_322_944),
        ("gsm8k", "student", 8_030_261_248),
        ("gsm8k", "llama-405b", 405_853_388_800),
    ],
)
def test_published_recipes_have_the_published_sizes(recipe, model, count):
    every = {one.name: one.parameters for one in found(load_recipe(recipe))}
    sizes = every[model]
    assert sizes.total == count
    assert sizes.body + sizes.head + sizes.embeddings == count


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_can_be_planned_without_the_hub(name):
    models = found(load_recipe(name))
    assert models.student is not None
    assert not models.missing


def test_a_tied_head_is_counted_once_and_an_adapter_alone_is_trained(tmp_path):
    save_model(llama(tie_word_embeddings=True), tmp_path / "tied")
    given = "student={start: copy, from: t, adapter: {r: 2, target_modules: [q_proj]}}"
    models = found(minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'tied'}", given))
    teacher, student = models.teachers["t"].parameters, models.student.parameters
    assert teacher.head == 0
    assert teacher.embeddings == 32 * 300
    assert teacher.trained == 0
    assert student.trained == student.adapter == 4 * 2 * (32 + 32)
    assert (
        student.frozen
        == student.total
        == teacher.total
        == sum(one.numel() for one in llama(tie_word_embeddings=True).parameters())
    )


@pytest.mark.parametrize(
    "teacher",
    [
        "{model: nobody/on-the-hub}",
        "{model: missing, gguf: a.gguf}",
        "{package: no_such_package, gguf: a.gguf}",
        "{llama2c: a.bin, tokenizer: b.bin}",
    ],
)
def test_a_model_that_cannot_be_had_is_named_and_the_others_are_planned(tmp_path, teacher):
    models = found(minimal.recipe(tmp_path, PRETRAINED, f"teachers.t={teacher}"))
    assert list(models.teachers) == ["p"]
    assert models.student is None
    assert any("`teachers.t" in note for note in models.notes)
    assert widths_of(models) == (48, 80)


def test_a_model_of_the_hub_is_planned_from_facts(tmp_path):
    config = {"model_type": "llama", **SIZES, "vocab_size": 300}
    facts = "facts.models=" + json.dumps({"nobody/on-the-hub": config})
    models = found(minimal.recipe(tmp_path, "teachers.t={model: nobody/on-the-hub}", facts))
    assert models.teachers["t"].config.hidden_size == 48
    assert models.notes == ()
    without = found(minimal.recipe(tmp_path, "teachers.t={model: nobody/on-the-hub}"))
    assert "nobody/on-the-hub" in without.notes[0]
    assert "`facts.models`" in without.notes[0]
    assert widths_of(without) == TYPICAL_WIDTHS


@pytest.mark.parametrize(
    "facts", ["{model_type: nobody_s}", "{model_type: llama, hidden_size: 33, num_attention_heads: 4}"]
)
def test_facts_that_make_no_model_are_a_note(tmp_path, facts):
    models = found(minimal.recipe(tmp_path, "teachers.t={model: nobody/x}", f"facts.models={{nobody/x: {facts}}}"))
    assert models.teachers == {}
    assert "`facts.models.nobody/x`" in models.notes[-1]


@pytest.mark.parametrize(
    ("given", "layers", "width"),
    [
        ("{start: copy, from: p, adapter: {r: 2}}", 6, 80),
        ("{start: prune_layers, from: p, layers: 4}", 4, 80),
        ("{start: prune_layers, from: p, layers: [0, 5]}", 2, 80),
        ("{start: prune_width, from: p, intermediate_size: 16}", 6, 16),
        ("{start: prune_width, from: p, intermediate_size: 16, layers: 3}", 3, 16),
        ("{start: scratch, config: {model_type: llama, num_hidden_layers: 5, intermediate_size: 24}}", 5, 24),
    ],
)
def test_a_student_is_known_from_what_it_is_made_of(tmp_path, given, layers, width):
    models = found(minimal.recipe(tmp_path, PRETRAINED, f"student={given}"))
    config = models.student.config
    assert (config.num_hidden_layers, config.intermediate_size) == (layers, width)
    assert models.teachers["p"].config.num_hidden_layers == 6, "the teacher's is not changed"


def test_a_mixture_counts_all_its_experts(tmp_path):
    save_model(mixture(), tmp_path / "mixture")
    models = found(minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'mixture'}"))
    assert models.teachers["t"].parameters.total == sum(one.numel() for one in mixture().parameters())
