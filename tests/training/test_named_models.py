"""Students and teachers by their names, and `peft_config`."""

import copy
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from potstill.errors import UserError
from potstill.training.named_models import named_student, teachers_beside, with_adapter_of
from tiny import llama, save_model, tokenizer
from toy_training import arguments, assert_equal, captured, samples, trained, trainer, weights

LORA = LoraConfig(target_modules=["q_proj", "lm_head"], r=2)
PROMPTS = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")


def student():
    return llama(seed=1, layers=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(llama(), tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize("kind", [str, Path, lambda name: [name]])
def test_a_teacher_may_be_the_folder_of_a_model(tmp_path, folder, kind):
    expected = trained(tmp_path, teacher=llama())
    assert_equal(trained(tmp_path, teacher=kind(folder)), expected)


def test_a_teacher_may_be_the_folder_of_a_store(tmp_path):
    store = captured(tmp_path / "store", llama(), samples())
    (found,) = teachers_beside(student(), str(store.path))
    assert found.path == store.path


def test_a_teacher_stays_in_the_format_in_which_it_was_saved(tmp_path):
    llama().to(torch.bfloat16).save_pretrained(tmp_path)
    (found,) = teachers_beside(student(), tmp_path)
    assert found.model.dtype == torch.bfloat16
    assert named_student(tmp_path, None)["model"].dtype == torch.float32


def test_a_student_by_its_name_has_its_tokenizer(tmp_path, folder):
    given = {"teacher": llama(seed=3), "train_dataset": [{"text": "the old river bank"}] * 8, "max_steps": 1}
    expected = trained(tmp_path, llama(), processing_class=tokenizer(), **copy.deepcopy(given))
    assert_equal(trained(tmp_path, str(folder), **given), expected)


def test_a_folder_without_tokenizer_gives_none(tmp_path):
    student().save_pretrained(tmp_path)
    assert named_student(str(tmp_path), None)["processing_class"] is None
    assert named_student(str(tmp_path), "given")["processing_class"] == "given"
    assert named_student(student(), None) == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "there is no folder ''"),
        ("no/such/folder", "there is no folder 'no/such/folder'"),
        ("nobody/has-this", "'nobody/has-this' is neither a folder here nor a model that can be loaded from the hub"),
        (5, "has the type int"),
        ({"one": 1}, "has the type int"),
        ({1, 2}, "has the type set"),
        ([None], "has the type NoneType"),
    ],
)
def test_what_is_no_teacher_is_refused(given, told):
    with pytest.raises(UserError, match=told) as error:
        teachers_beside(student(), given)
    assert str(error.value).startswith("`teacher`")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "load"), [("teacher", teachers_beside), ("model", lambda _, name: named_student(name, 0))]
)
def test_a_folder_of_something_else_is_refused(tmp_path, key, load):
    with pytest.raises(UserError, match=f"`{key}`: the folder .* holds neither"):
        load(None, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(UserError, match=f"`{key}`: .* is not a whole model: its `model_type` 'no such' is unknown"):
        load(None, str(tmp_path))


def test_what_is_no_student_is_refused(tmp_path):
    with pytest.raises(UserError, match="`model` has the type int"):
        trainer(tmp_path, 5, teacher=llama())


def test_a_teacher_that_shares_weights_with_the_student_is_refused(tmp_path):
    one, other = student(), student()
    other.lm_head.weight = one.lm_head.weight
    with pytest.raises(UserError, match="shares weights with it"):
        trainer(tmp_path, one, teacher=other)
    assert one.lm_head.weight.requires_grad
    with pytest.raises(UserError, match="shares weights with it"):
        trainer(tmp_path, one, teacher=get_peft_model(one, copy.deepcopy(LORA)))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("config", [LORA, IA3Config(target_modules=["k_proj"], feedforward_modules=[])])
def test_an_adapter_alone_is_trained_and_saved(tmp_path, config, checkpointing):
    given = {"gradient_checkpointing": checkpointing, "save_strategy": "steps", "save_steps": 2}
    one = trainer(tmp_path, student(), teacher=llama(), peft_config=copy.deepcopy(config), **given)
    before = weights(one.model)
    one.train()
    after = weights(one.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= {name for name, weight in one.model.named_parameters() if weight.requires_grad}
    assert not (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(student(), tmp_path / "checkpoint-2")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(loaded(ids).logits, one.model.eval()(ids).logits)


def test_an_adapter_is_that_of_peft_with_the_same_seed(tmp_path):
    teacher, base = llama(), student()
    torch.manual_seed(arguments(tmp_path).seed)
    expected = trained(tmp_path, get_peft_model(base, copy.deepcopy(LORA)), teacher=teacher)
    assert_equal(trained(tmp_path, student(), teacher=teacher, peft_config=LORA), expected)


def test_a_named_student_may_have_an_adapter(tmp_path, folder):
    one = trainer(tmp_path, str(folder), teacher=llama(), peft_config=LORA)
    one.train()
    one.save_model(str(tmp_path / "saved"))
    one.processing_class.save_pretrained(tmp_path / "saved")
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), type(llama()))


@pytest.mark.parametrize(
    ("model", "config", "told"),
    [
        (student, {"r": 2}, "`peft_config` has the type dict"),
        (student, LoraConfig(target_modules=["nothing"]), "peft refuses it"),
        (student, LoraConfig(target_modules="q_proj("), "peft refuses it: 'q_proj\\(' is no regular expression"),
        (student, PROMPTS, "adds tokens to the input"),
        (student, PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"), "adds tokens to the input"),
        (lambda: get_peft_model(student(), copy.deepcopy(LORA)), LORA, "`model` has an adapter already"),
        (lambda: None, LORA, "no `model` to add it to"),
    ],
)
def test_an_adapter_that_cannot_be_added_is_refused(model, config, told):
    with pytest.raises(UserError, match=told):
        with_adapter_of(model(), copy.deepcopy(config), None)


@pytest.mark.parametrize("key", ["model", "teacher"])
def test_models_with_learned_prompts_are_refused(tmp_path, key):
    given = {"model": student(), "teacher": llama()}
    given[key] = get_peft_model(given[key], copy.deepcopy(PROMPTS))
    with pytest.raises(UserError, match=f"`{key}` has a PromptTuningConfig"):
        trainer(tmp_path, given["model"], teacher=given["teacher"])
