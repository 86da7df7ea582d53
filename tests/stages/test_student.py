import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.run import Run
from potstill.runner import run_recipe
from potstill.words import UserError
from tiny import VOCABULARY, gpt2, llama, save_model, tokenizer, toy_recipe


def _made(folder, **student):
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, f"student={json.dumps(student)}"), run, until="student")
    return AutoModelForCausalLM.from_pretrained(run.path("student") / "start"), run.manifest("student")["summary"]


def test_the_start_is_a_plain_folder_with_its_tokenizer(run):
    folder = run.path("student") / "start"
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.num_hidden_layers == 2
    assert tokens.get_vocab() == tokenizer().get_vocab()


def test_a_pruned_start_has_the_teacher_s_own_weights(run):
    start = AutoModelForCausalLM.from_pretrained(run.path("student") / "start").state_dict()
    teacher = llama(0).state_dict()
    kept = run.manifest("student")["summary"]["layers_kept"]
    assert kept == [0, 3]
    for name, weight in start.items():
        for new, old in reversed(list(enumerate(kept))):
            name = name.replace(f"layers.{new}.", f"layers.{old}.") if f"layers.{new}." in name else name
            if f"layers.{old}." in name:
                break
        assert torch.equal(weight, teacher[name]), name


def test_a_copy_is_its_teacher(tmp_path):
    start, summary = _made(tmp_path, **{"start": "copy", "from": "smollm2"})
    teacher = llama(0).state_dict()
    assert all(torch.equal(weight, teacher[name]) for name, weight in start.state_dict().items())
    assert all(weight.requires_grad for weight in start.parameters())
    assert summary["made"] == "4 layers of smollm2"


def test_an_adapter_is_tried_on_and_the_start_is_saved_without_it(tmp_path):
    adapter = {"r": 2, "target_modules": ["q_proj"]}
    start, summary = _made(tmp_path, **{"start": "copy", "from": "smollm2", "adapter": adapter})
    assert summary["parameters"] == llama(0).num_parameters()
    assert summary["trained_parameters"] == 4 * (2 * 32 + 32 * 2)
    assert set(start.state_dict()) == set(llama(0).state_dict())
    assert not list((tmp_path / "run").rglob("adapter*"))


def test_what_an_adapter_names_in_vain_is_told_before_anything_is_captured(tmp_path):
    student = {"start": "copy", "from": "smollm2", "adapter": {"target_modules": ["query"]}}
    recipe, run = toy_recipe(tmp_path, f"student={json.dumps(student)}"), Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"`student\.adapter\.target_modules`: LlamaForCausalLM has no module 'query'"):
        run_recipe(recipe, run)
    assert run.manifest("student") is None
    assert not run.path("capture").exists()


def test_an_adapter_that_peft_refuses_is_told_before_anything_is_done(tmp_path):
    student = {"start": "copy", "from": "smollm2", "adapter": {"rank": 2}}
    with pytest.raises(UserError, match=r"`student\.adapter\.rank` is no field of LoraConfig"):
        run_recipe(toy_recipe(tmp_path, f"student={json.dumps(student)}"), Run(tmp_path / "run"))
    assert not (tmp_path / "run" / "teachers").exists()


def test_a_start_from_scratch_is_the_same_each_time(tmp_path):
    shape = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    starts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        starts.append(_made(folder, start="scratch", config=shape | heads)[0])
        torch.manual_seed(torch.seed())
    assert starts[0].config.vocab_size == VOCABULARY
    assert all(map(torch.equal, starts[0].state_dict().values(), starts[1].state_dict().values()))


def test_a_start_from_a_checkpoint_is_that_checkpoint(tmp_path):
    folder = save_model(gpt2(seed=5, layers=2), tmp_path / "small")
    start, summary = _made(tmp_path, start="checkpoint", model=str(folder))
    assert summary["layers"] == 2
    ids = torch.arange(2, 12)[None]
    assert torch.equal(start(ids).logits, gpt2(seed=5, layers=2)(ids).logits)


def test_a_checkpoint_of_another_tokenizer_is_refused(tmp_path):
    folder = save_model(llama(layers=2), tmp_path / "small")
    tokens = AutoTokenizer.from_pretrained(folder)
    tokens.add_tokens(["<another>"])
    tokens.save_pretrained(folder)
    with pytest.raises(UserError, match="have different tokenizers"):
        _made(tmp_path, start="checkpoint", model=str(folder))


def test_a_student_with_too_few_positions_is_refused(tmp_path):
    folder = save_model(llama(layers=2, max_position_embeddings=16), tmp_path / "small")
    with pytest.raises(UserError, match=r"`corpus.sequence_length` is 32, but the student has only 16 positions"):
        _made(tmp_path, start="checkpoint", model=str(folder))
