"""Students as they are before training: from their teacher, from a folder, from nothing."""

import pytest
import torch

import tiny
from potstill.recipe.student import Checkpoint, PrunedLayers, Scratch
from potstill.recipe.teachers import ModelTeacher
from potstill.students.build import build
from potstill.teachers.huggingface import Prepared, prepare
from potstill.words import UserError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    source = tiny.save_model(tiny.llama(), folder / "source")
    return {"t": Prepared.load(prepare("t", ModelTeacher(model=str(source), dtype="bfloat16"), folder / "t"))}


def built(student, teachers):
    return build(student, teachers, tiny.tokenizer(), tiny.VOCABULARY)


def pruned(**fields):
    return PrunedLayers(**{"start": "prune_layers", "from": "t", "layers": 2, **fields})


def scratch(**fields):
    return Scratch(start="scratch", config={**LLAMA, **fields})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_pruned_student_is_its_teacher_in_float32(teachers):
    model, summary = built(pruned(), teachers)
    assert summary == {"start": "prune_layers", "from": "t", "layers_kept": [0, 3]}
    assert model.dtype == torch.float32
    theirs = teachers["t"].model(torch.float32).state_dict()
    assert torch.equal(
        model.state_dict()["model.layers.1.mlp.up_proj.weight"], theirs["model.layers.3.mlp.up_proj.weight"]
    )
    assert all(weight.requires_grad for weight in model.parameters()), "the teacher is frozen, its student is not"


def test_a_pruned_student_keeps_the_layers_it_was_told(teachers):
    assert built(pruned(layers=[1, 2, 3]), teachers)[1]["layers_kept"] == [1, 2, 3]
    with pytest.raises(UserError, match=r"`student\.layers` is 5, but the teacher has 4 layers"):
        built(pruned(layers=5), teachers)


def test_a_checkpoint_is_loaded_as_it_is(teachers, tmp_path):
    small = tiny.gpt2(layers=1)
    model, summary = built(
        Checkpoint(start="checkpoint", model=str(tiny.save_model(small, tmp_path / "small"))), teachers
    )
    assert summary == {"start": "checkpoint", "from": str(tmp_path / "small")}
    found, expected = weights(model), weights(small)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert model.dtype == torch.float32


def test_a_checkpoint_of_another_tokenizer_is_refused(teachers, tmp_path):
    tiny.llama(layers=1).save_pretrained(tmp_path)
    other = tiny.tokenizer().__class__.from_pretrained(tiny.save_model(tiny.llama(layers=1), tmp_path))
    other.add_tokens(["<extra>"])
    other.save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"the run's tokenizer and student .* have different tokenizers \(300 and 301 tokens"
    ):
        built(Checkpoint(start="checkpoint", model=str(tmp_path)), teachers)


@pytest.mark.parametrize("model", ["no/such/model", "no-such-model", "{folder}"])
def test_a_checkpoint_that_cannot_be_had_is_told_in_one_line(teachers, tmp_path, model):
    name = model.format(folder=tmp_path)
    with pytest.raises(UserError) as told:
        built(Checkpoint(start="checkpoint", model=name), teachers)
    assert str(told.value).startswith(f"`student.model`: {name!r} cannot be loaded: ")
    assert "\n" not in str(told.value)


def test_scratch_is_drawn_the_same_every_time(teachers):
    torch.manual_seed(5)
    one, summary = built(scratch(), teachers)
    torch.manual_seed(6)
    two, _ = built(scratch(), teachers)
    assert summary == {"start": "scratch", "from": "llama"}
    assert all(torch.equal(weight, weights(two)[name]) for name, weight in weights(one).items())
    assert one.dtype == torch.float32
    assert one.state_dict()["lm_head.weight"].std() > 0


def test_scratch_has_its_teachers_vocabulary_and_special_tokens(teachers):
    config = built(scratch(), teachers)[0].config
    assert config.vocab_size == tiny.VOCABULARY
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, 0, 1)
    assert built(scratch(eos_token_id=5), teachers)[0].config.eos_token_id == 5


def test_scratch_knows_a_family_by_its_own_names(teachers):
    config = {"model_type": "gpt2", "n_embd": 16, "num_hidden_layers": 1, "n_head": 2}
    assert built(Scratch(start="scratch", config=config), teachers)[0].config.n_layer == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "lama"}, "`student.config.model_type`: transformers has no 'lama'; did you mean `llama`?"),
        ({"hiden_size": 8}, "`student.config.hiden_size`: LlamaConfig has no such field; did you mean `hidden_size`?"),
        ({"xyz": 8}, "`student.config.xyz`: LlamaConfig has no such field; see the documentation of transformers"),
        ({"vocab_size": 5}, "`student.config.vocab_size` is 5, but the run's models have 300; remove it"),
        ({"hidden_size": 15}, "`student.config` makes no model: "),
        ({"num_hidden_layers": "two"}, "`student.config` makes no model: "),
        ({"num_attention_heads": 0}, "`student.config` makes no model: "),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused(teachers, fields, sentence):
    with pytest.raises(UserError) as told:
        built(scratch(**fields), teachers)
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)


def test_what_is_no_language_model_is_refused(teachers):
    with pytest.raises(UserError, match=r"`student\.config` makes no model: Unrecognized configuration class"):
        built(Scratch(start="scratch", config={"model_type": "vit"}), teachers)


@pytest.mark.parametrize("student", [pruned(), scratch()])
def test_a_student_survives_the_disk(teachers, tmp_path, student):
    model, _ = built(student, teachers)
    model.save_pretrained(tmp_path)
    again = model.__class__.from_pretrained(tmp_path)
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(model).items())
