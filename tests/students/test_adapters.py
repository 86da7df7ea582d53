"""Students with an adapter on a plain or quantised start: how they are trained, saved and read again."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import minimal
from potstill import Loss
from potstill.errors import UserError
from potstill.losses.weight_gradients import HeadGradients
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.student import Checkpoint
from potstill.students.adapters import check_can_merge, with_adapter
from potstill.students.load_and_save import check, finish_student, load_start, load_student, load_to_train
from tiny import llama, save_model, toy_recipe
from toy_training import trained, trainer, weights

IDS = torch.arange(2, 26)[None]
PUBLISHED = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"load_in_8bit": True}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Many tests read it; none may write into it."""
    return save_model(llama(1, layers=2), tmp_path_factory.mktemp("run") / "student" / "start")


def student(**fields):
    return Checkpoint(**{"start": "checkpoint", "model": "somewhere", "adapter": PUBLISHED, **fields})


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


def taught(folder, start, recipe):
    """A student after a few steps, and its adapter as a training saves it."""
    model = load_to_train(start, recipe, seed=0)
    trained(folder / "training", model, losses=[Loss("cross_entropy")])
    model.save_pretrained(folder / "saved")
    return model, folder / "saved"


def test_a_new_adapter_changes_nothing_and_is_all_that_learns(start):
    model = load_to_train(start, student(), seed=0)
    assert torch.equal(logits(model), logits(load_start(start, student())))
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(names) == 2 * 2 * 4, "an A and a B for each of four projections in two layers"
    assert all(".lora_" in name for name in names)
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_the_seed_alone_draws_an_adapter(start):
    draws = []
    for seed, state in ((0, 1), (0, 2), (5, 1)):
        torch.manual_seed(state)
        draws.append(weights(load_to_train(start, student(), seed)))
    one, again, other = draws
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_an_adapter_leaves_the_random_state_alone():
    model = llama(1, layers=1)
    before = torch.get_rng_state()
    with_adapter(model, PUBLISHED, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_student_whose_start_has_moved_is_read_upon_it(tmp_path, start):
    here = save_model(llama(1, layers=2), tmp_path / "run" / "student" / "start")
    before = {file.name: file.read_bytes() for file in here.iterdir()}
    model, saved = taught(tmp_path, here, student())
    assert not torch.equal(logits(model), logits(load_start(here, student())))
    finish_student(saved, here, student())
    assert {file.name for file in saved.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(here.resolve())
    assert config["target_modules"] == sorted(PUBLISHED["target_modules"])
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(saved)), logits(model)), "transformers reads it too"
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "student" / "start"
    read = load_student(saved, moved, student())
    assert torch.equal(logits(read), logits(model))
    assert not read.training
    assert not any(weight.requires_grad for weight in read.parameters())
    assert {file.name: file.read_bytes() for file in moved.iterdir()} == before, "the start is unchanged"


def test_a_plain_student_is_read_without_its_start(tmp_path, start):
    whole = save_model(llama(7, layers=2), tmp_path / "student")
    finish_student(whole, start, student(adapter=None))
    assert torch.equal(logits(load_student(whole, start, student(adapter=None))), logits(llama(7, layers=2)))


def test_a_merged_student_is_a_plain_folder_that_does_what_the_adapter_did(tmp_path, start):
    model, saved = taught(tmp_path, start, student(merge=True))
    finish_student(saved, start, student(merge=True))
    assert not list(saved.glob("adapter_*"))
    plain = AutoModelForCausalLM.from_pretrained(saved)
    assert not isinstance(plain, PeftModel)
    assert set(plain.state_dict()) == set(llama(1, layers=2).state_dict())
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=2e-5)
    read = load_student(saved, start, student(merge=True))
    assert torch.equal(logits(read), logits(plain))


@pytest.mark.parametrize("bits", [NF4, INT8], ids=["4", "8"])
def test_a_start_of_few_bits_is_the_same_to_be_trained_upon_and_to_be_read(tmp_path, start, bits):
    pytest.importorskip("bitsandbytes")
    recipe = student(quantization=bits)
    model, saved = taught(tmp_path, start, recipe)
    learned = load_file(saved / "adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in learned.items() if "lora_B" in name)
    kinds = {type(weight).__name__ for weight in load_student(start, start, recipe).parameters()}
    assert kinds & {"Params4bit", "Int8Params"}, "the start is scored with the weights of its training"
    assert torch.equal(logits(load_student(saved, start, recipe)), logits(model))
    assert len(list(start.glob("*.safetensors"))) == 1
    assert load_file(start / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].dtype == torch.float32


@pytest.mark.parametrize("bits", [NF4, INT8], ids=["4", "8"])
def test_a_merged_student_has_the_weights_that_it_was_trained_upon(tmp_path, start, bits):
    pytest.importorskip("bitsandbytes")
    recipe = student(quantization=bits, merge=True)
    model, saved = taught(tmp_path, start, recipe)
    learned = load_file(saved / "adapter_model.safetensors")
    finish_student(saved, start, recipe)
    plain = AutoModelForCausalLM.from_pretrained(saved)
    assert not hasattr(plain.config, "quantization_config")
    assert all(weight.dtype == torch.float32 for weight in plain.parameters())
    assert torch.equal(logits(load_student(saved, start, recipe)), logits(plain)), "not quantised again"
    if bits is NF4:
        torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-4)
    before, after = load_file(start / "model.safetensors"), plain.state_dict()
    for layer in (0, 1):
        name = f"model.layers.{layer}.self_attn.q_proj"
        one, other = (learned[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
        rounded = after[f"{name}.weight"] - one @ other * PUBLISHED["lora_alpha"] / PUBLISHED["r"]
        off, largest = (rounded - before[f"{name}.weight"]).abs(), before[f"{name}.weight"].abs().amax(1, keepdim=True)
        assert off.max() > 0, "of few bits"
        if bits is INT8:
            # Rounded to float16 (11 bits) first, and then to the nearest of 255 steps per row.
            assert (off <= largest * (2**-11 + (1 + 2**-11) / 127 / 2) + 1e-6).all()


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The start in 16 bits. Many tests read it; none may write into it."""
    return save_model(llama(1, layers=2).bfloat16(), tmp_path_factory.mktemp("half") / "student" / "start")


def test_a_start_of_16_bits_is_the_same_to_be_trained_upon_and_to_be_read(tmp_path, half):
    new = load_to_train(half, student(), seed=0)
    dtypes = {("lora_" in name, weight.dtype) for name, weight in new.named_parameters()}
    assert dtypes == {(False, torch.bfloat16), (True, torch.float32)}
    assert torch.equal(logits(load_student(half, half, student())), logits(new)), (
        "the start keeps the weights of its training"
    )
    model, saved = taught(tmp_path, half, student())
    learned = load_file(saved / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in learned.values()} == {torch.float32}
    assert any(tensor.abs().max() > 0 for name, tensor in learned.items() if "lora_B" in name)
    finish_student(saved, half, student())
    read = load_student(saved, half, student())
    assert torch.equal(logits(read), logits(model))
    assert not torch.equal(logits(read), logits(new))


def test_what_is_merged_into_16_bits_is_kept_in_32(tmp_path, half):
    _, saved = taught(tmp_path, half, student(merge=True))
    learned = load_file(saved / "adapter_model.safetensors")
    finish_student(saved, half, student(merge=True))
    before, after = load_file(half / "model.safetensors"), load_file(saved / "model.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    name = "model.layers.1.self_attn.v_proj"
    one, other = (learned[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
    expected = before[f"{name}.weight"].float() + one @ other * PUBLISHED["lora_alpha"] / PUBLISHED["r"]
    torch.testing.assert_close(after[f"{name}.weight"], expected)
    assert load_student(saved, half, student(merge=True)).dtype == torch.float32


def test_a_start_of_which_every_weight_is_trained_is_trained_in_32_bits(half):
    assert load_to_train(half, student(adapter=None), seed=0).dtype == torch.float32


def test_a_frozen_head_is_given_no_gradient(tmp_path, start, monkeypatch):
    asked = []

    class Watched(HeadGradients):
        def __init__(self, hidden, head, student, wanted, in_one_chunk):
            asked.append(tuple(wanted))
            super().__init__(hidden, head, student, wanted, in_one_chunk)

    monkeypatch.setattr("potstill.losses.chunked.HeadGradients", Watched)
    model = load_to_train(start, student(), seed=0)
    trainer(tmp_path, model, teacher=llama(), max_steps=1).train()
    assert asked == [(True, False, False)]
    assert all(weight.grad is None for name, weight in model.named_parameters() if "lora_" not in name)


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        ({"rank": 4}, "`student.adapter.rank` is no field of LoraConfig"),
        ({"lora_alfa": 4}, "`student.adapter.lora_alfa` is no field of LoraConfig; did you mean `lora_alpha`?"),
        ({"use_rslora": "yes"}, "`student.adapter.use_rslora` is 'yes': "),
        ({"target_modules": 3}, "`student.adapter.target_modules` is 3: "),
        ({"bias": "some"}, "`student.adapter.bias` is 'some': "),
        ({"target_modules": "all.*", "layers_to_transform": [0]}, "`student.adapter`: peft refuses it: "),
    ],
)
def test_what_peft_does_not_take_is_refused_before_anything_is_loaded(adapter, sentence):
    with pytest.raises(UserError) as told:
        check(student(adapter=adapter))
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        (
            {"target_modules": ["q_prj"]},
            "`student.adapter.target_modules`: LlamaForCausalLM has no module 'q_prj'; did",
        ),
        ({"target_modules": ["q_proj", "zz"]}, "`student.adapter.target_modules`: LlamaForCausalLM has no module 'zz'"),
        ({"modules_to_save": ["head"]}, "`student.adapter.modules_to_save`: LlamaForCausalLM has no module 'head'"),
        ({"target_modules": "zz"}, "`student.adapter`: peft refuses it: Target modules zz not found"),
        ({"target_modules": []}, "`student.adapter`: peft refuses it: "),
        ({"target_modules": "range(10**9)"}, "`student.adapter`: peft refuses it: 'range(10**9)' is no regular expr"),
        ({"rank_pattern": {"q_proj(": 4}}, "`student.adapter`: peft refuses it: "),
        ({"r": 0}, "`student.adapter`: peft refuses it: "),
        ({"lora_dropout": 2.0}, "`student.adapter`: peft refuses it: "),
    ],
)
def test_what_matches_nothing_in_the_model_is_one_sentence(adapter, sentence):
    with pytest.raises(UserError) as told:
        with_adapter(llama(layers=1), adapter, seed=0)
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)


def test_a_tied_head_that_is_adapted_is_not_merged():
    tied = {"tie_word_embeddings": True}
    check_can_merge(with_adapter(llama(layers=1, **tied), PUBLISHED, 0))
    check_can_merge(with_adapter(llama(layers=1), {"modules_to_save": ["lm_head"]}, 0))
    with pytest.raises(UserError, match=r"`student\.merge`: this model's embeddings and head are tied"):
        check_can_merge(with_adapter(llama(layers=1, **tied), {"modules_to_save": ["embed_tokens"]}, 0))


@pytest.mark.parametrize(
    ("quantization", "sentence"),
    [
        (
            {"load_in_4bit": True, "bnb_4bit_quant_typ": "nf4"},
            "`student.quantization.bnb_4bit_quant_typ`: BitsAndBytesConfig has no such field; did you mean",
        ),
        (
            {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float33"},
            "`student.quantization`: transformers refuses it",
        ),
    ],
)
def test_a_quantisation_that_transformers_does_not_take_is_one_sentence(quantization, sentence):
    pytest.importorskip("bitsandbytes")
    with pytest.raises(UserError) as told:
        check(student(quantization=quantization))
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`student\.quantization` needs bitsandbytes, .*potstill\[quantized\]"):
        check(student(quantization=NF4))


def test_a_run_in_bfloat16_keeps_the_frozen_start_in_it(tmp_path):
    adapter = json.dumps({"start": "copy", "from": "smollm2", "adapter": PUBLISHED})
    recipe = toy_recipe(tmp_path, f"student={adapter}", "precision=bf16", "capture=null")
    run = Run(tmp_path / "run")
    run_recipe(recipe, run, until="distil")
    folder = run.path("student") / "start"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert load_student(folder, folder, recipe.student).dtype == torch.bfloat16
    learned = load_file(run.path("distil") / "student" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in learned.values()} == {torch.float32}
    assert any(tensor.abs().max() > 0 for name, tensor in learned.items() if "lora_B" in name)
    run_recipe(toy_recipe(tmp_path, f"student={adapter}"), run, until="student")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("student", "bf16", "kept"),
    [
        ({"adapter": PUBLISHED}, True, True),
        ({"adapter": PUBLISHED}, False, False),
        ({}, True, False),
        ({"adapter": PUBLISHED, "quantization": NF4}, True, False),
        ({"adapter": PUBLISHED | {"modules_to_save": ["lm_head"]}}, True, False),
        ({"adapter": PUBLISHED | {"trainable_token_indices": [1]}}, True, False),
        ({"adapter": PUBLISHED | {"bias": "all"}}, True, False),
    ],
)
def test_a_start_is_kept_in_16_bits_only_where_none_of_them_is_trained(tmp_path, student, bf16, kept):
    given = f"student={json.dumps({'start': 'copy', 'from': 't', **student})}"
    for precision in (f"precision={'bf16' if bf16 else 'fp32'}", f"distil.training.bf16={str(bf16).lower()}"):
        assert minimal.recipe(tmp_path, "precision=auto", given, precision).start_in_bfloat16 == kept


def _without_a_weight(folder):
    found = load_file(folder / "adapter_model.safetensors")
    found.pop(min(found))
    save_file(found, folder / "adapter_model.safetensors")


def _with_a_wrong_pattern(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": "q_proj("}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without_a_weight, "lacks 1 weights, such as base_model"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""), "cannot be loaded: "),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "cannot be loaded: "),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "cannot be loaded: "),
        (_with_a_wrong_pattern, r"cannot be loaded: 'q_proj\(' is no regular expression"),
    ],
    ids=["a weight lost", "empty", "missing", "no fields", "a wrong pattern"],
)
def test_a_damaged_adapter_is_refused(tmp_path, start, damage, sentence):
    load_to_train(start, student(), seed=0).save_pretrained(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(UserError, match=f"the adapter in .*saved {sentence}"):
        load_student(tmp_path / "saved", start, student())
