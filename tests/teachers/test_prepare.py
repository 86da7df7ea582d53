"""Teachers are found, pinned and fingerprinted, or refused."""

import json
from importlib.util import find_spec

import pytest

from potstill.errors import UserError
from potstill.recipe.teachers import Llama2cTeacher, ModelTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher
from tiny import llama, save_model

# The kernels of bitsandbytes for the CPU need rows of 64 weights.
WIDE = {"hidden_size": 64, "intermediate_size": 128}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(llama(0, **WIDE), tmp_path_factory.mktemp("model"))


def prepared(made, model, **fields):
    return PreparedTeacher.load(prepare("one", ModelTeacher(model=str(model), **fields), made), "one")


def test_another_quantisation_is_another_teacher(tmp_path, folder):
    pytest.importorskip("bitsandbytes")
    four = [NF4, NF4, NF4 | {"bnb_4bit_quant_type": "fp4"}, INT8]
    found = [prepared(tmp_path / "a", folder, quantization=one).fingerprint for one in four]
    assert found[0] == found[1]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("already", "package"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "optimum"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "gptqmodel"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}, "compressed"),
    ],
    ids=["gptq", "awq", "compressed-tensors"],
)
def test_kernels_that_are_not_here_are_missed_in_one_sentence(tmp_path, already, package):
    if find_spec(package) or find_spec("compressed_tensors" if package == "compressed" else package):
        pytest.skip("they are here")
    saved = save_model(llama(0), tmp_path / "saved")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"quantization_config": already}))
    with pytest.raises(UserError) as told:
        prepared(tmp_path / "made", saved)
    sentence = f"`teachers.one` is quantised by {already['quant_method']}, which cannot run here: "
    assert str(told.value).startswith(sentence)
    assert package in str(told.value).removeprefix(sentence)
    assert not (tmp_path / "made").exists()


def test_other_weights_have_another_fingerprint(tmp_path):
    found = []
    for seed in (0, 0, 1):
        folder = save_model(llama(seed), tmp_path / f"model-{len(found)}")
        prepare("one", ModelTeacher(model=str(folder)), tmp_path / "made")
        found.append(PreparedTeacher.load(tmp_path / "made").fingerprint)
    assert found[0] == found[1] != found[2]


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = save_model(llama(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"`teachers.one.model`.*is not a whole model: it has no model.safetensors"):
        prepare("one", ModelTeacher(model=str(folder)), tmp_path / "made")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nobody/x", r"`teachers.one.llama2c`: there is no file"),
        ("a\0b", r"`teachers.one.llama2c`: there is no file"),
        ("no/such", r"`teachers.one.llama2c`: there is no file"),
        ("x" * 300, r"is too long for the name of a file"),
    ],
    ids=["a home of nobody", "a null byte", "no file", "too long"],
)
def test_files_of_llama2c_that_cannot_be_are_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        prepare("one", Llama2cTeacher(llama2c=name, tokenizer=name), tmp_path / "made")


def test_weights_that_do_not_fill_the_configuration_are_refused_at_once(tmp_path):
    folder = save_model(llama(0), tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 8}))
    with pytest.raises(UserError, match=r"`teachers.one.model`: .* its files lack 36 weights"):
        prepare("one", ModelTeacher(model=str(folder)), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_teacher_that_is_changed_later_is_refused_when_it_is_loaded(tmp_path):
    folder = save_model(llama(0), tmp_path / "saved")
    teacher = prepared(tmp_path / "made", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"`teachers.one`: .* its files have 9 weights"):
        teacher.model()


def test_a_name_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`teachers.one.model`: 'no/such-model' is neither a folder"):
        prepare("one", ModelTeacher(model="no/such-model"), tmp_path / "made")
