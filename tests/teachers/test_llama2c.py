"""Checkpoints of llama2.c become Hugging Face models with the same logits; other files are refused."""

import json
import math
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import stories
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.teachers import Llama2cTeacher
from potstill.teachers import llama2c
from potstill.teachers.llama2c import half_split, read_model, read_tokenizer
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher
from tiny import llama, save_corpus, toy_recipe

HEADER = struct.Struct("<7i")
real = pytest.mark.skipif(not stories.FOLDER.is_dir(), reason="../shared/data/stories260k is not here")


def neighbours(rows, heads):
    """Convert a projection from transformers' order to that of llama2.c."""
    return rows.view(heads, 2, -1, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def exported(model, file):
    """Write a Llama as llama2.c's `legacy_export` does."""
    config, state = model.config, model.state_dict()

    def stack(name, heads=None):
        found = [state[f"model.layers.{n}.{name}.weight"] for n in range(config.num_hidden_layers)]
        return torch.stack([rows if heads is None else neighbours(rows, heads) for rows in found])

    tied = config.tie_word_embeddings
    blocks = [
        state["model.embed_tokens.weight"],
        stack("input_layernorm"),
        stack("self_attn.q_proj", config.num_attention_heads),
        stack("self_attn.k_proj", config.num_key_value_heads),
        stack("self_attn.v_proj"),
        stack("self_attn.o_proj"),
        stack("post_attention_layernorm"),
        stack("mlp.gate_proj"),
        stack("mlp.down_proj"),
        stack("mlp.up_proj"),
        state["model.norm.weight"],
        torch.zeros(config.max_position_embeddings * config.head_dim),
        *([] if tied else [state["lm_head.weight"]]),
    ]
    sizes = (config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads)
    tokens = config.vocab_size if tied else -config.vocab_size
    header = HEADER.pack(*sizes, config.num_key_value_heads, tokens, config.max_position_embeddings)
    file.write_bytes(header + b"".join(block.numpy().astype("<f4").tobytes() for block in blocks))
    return file


def exported_tokenizer(file, tokens=300):
    """Tokens as llama2.c's `tokenizer.py` writes them: special tokens, bytes, two merges, and the letters."""
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), " a", "ab", " ", "a", "b"]
    pieces += [chr(0x4E00 + n) for n in range(tokens - len(pieces))]
    scored = [(piece.encode(), -float(max(0, n - 259))) for n, piece in enumerate(pieces)]
    rows = b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in scored)
    file.write_bytes(struct.pack("<i", max(len(piece) for piece, _ in scored)) + rows)
    return file


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def original(request):
    return llama(3, layers=2, rms_norm_eps=1e-5, tie_word_embeddings=request.param)


@torch.no_grad()
def test_a_checkpoint_becomes_the_model_that_it_was_made_of(original, tmp_path):
    found = read_model(exported(original, tmp_path / "model.bin"), "key")
    ids = torch.arange(2, 90)[None]
    assert torch.equal(found(ids).logits, original(ids).logits)
    assert found.config.tie_word_embeddings == original.config.tie_word_embeddings
    assert found.config.max_position_embeddings == 128


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_rows_in_halves_make_the_attention_that_neighbours_made(heads, kv_heads):
    torch.manual_seed(0)
    size, hidden, length = 8, 24, 11
    query, key = torch.randn(heads * size, hidden).double(), torch.randn(kv_heads * size, hidden).double()
    states = torch.randn(length, hidden).double()
    angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, size, 2) / size)).double()

    def turned(rows, count, pairs):
        """Rotate each pair of dimensions by its angle, [count, T, D]."""
        found = (states @ rows.T).view(length, count, size).transpose(0, 1)
        one, other = pairs(found)
        return one * angles.cos() - other * angles.sin(), one * angles.sin() + other * angles.cos()

    def scores(query, key, pairs):
        asked, offered = (torch.cat(turned(*each, pairs), -1) for each in ((query, heads), (key, kv_heads)))
        return asked @ offered.repeat_interleave(heads // kv_heads, 0).transpose(1, 2)

    before = scores(query, key, lambda found: (found[..., 0::2], found[..., 1::2]))
    halves = half_split(query, heads), half_split(key, kv_heads)
    after = scores(*halves, lambda found: found.chunk(2, -1))
    torch.testing.assert_close(after, before)
    assert not torch.allclose(scores(query, key, lambda found: found.chunk(2, -1)), before)


def perplexity(model):
    """Of a token of the three stories, each after a beginning."""
    total, tokens = 0.0, 0
    for text in stories.TEXTS:
        ids = torch.tensor([[1, *stories.tokenizer()(text).input_ids]])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return math.exp(total / tokens)


@real
def test_the_real_model_reads_stories_and_without_the_permutation_it_does_not(monkeypatch):
    read = perplexity(stories.model())
    monkeypatch.setattr(llama2c, "half_split", lambda rows, heads: rows)
    forgotten = perplexity(read_model(stories.CHECKPOINT, "key"))
    print(read, forgotten)
    # 3.55 on many stories; these three are not the easiest.
    assert 3.2 < read < 3.9
    assert forgotten > 100


@real
@pytest.mark.parametrize("text", [*stories.TEXTS, "", " two  spaces ", "naïve 🦊\n\tЖ <0x41> ,,"])
def test_its_tokenizer_encodes_as_run_c_does(text):
    scores = {}
    raw = stories.TOKENIZER.read_bytes()
    at, number = 4, 0
    while at < len(raw):
        score, size = struct.unpack_from("<fi", raw, at)
        scores[raw[at + 8 : at + 8 + size].decode()] = (number, score)
        at, number = at + 8 + size, number + 1
    # encode() of run.c: characters or their bytes; then it merges the best pair repeatedly, the first among equals.
    pieces = [part for char in (f" {text}" if text else "") for part in ([char] if char in scores else _bytes(char))]
    while True:
        merged = [one + other for one, other in pairwise(pieces)]
        pairs = [(scores[piece][1], -n) for n, piece in enumerate(merged) if piece in scores]
        if not pairs:
            break
        n = -max(pairs)[1]
        pieces[n : n + 2] = [pieces[n] + pieces[n + 1]]
    ids = stories.tokenizer()(text, add_special_tokens=False).input_ids
    assert ids == [scores[piece][0] for piece in pieces]
    assert stories.tokenizer().decode(ids) == text


def _bytes(char):
    return [f"<0x{byte:02X}>" for byte in char.encode()]


@real
def test_it_is_a_teacher_like_any_other(tmp_path):
    teacher = Llama2cTeacher(llama2c=str(stories.CHECKPOINT), tokenizer=str(stories.TOKENIZER))
    found = PreparedTeacher.load(prepare("stories", teacher, tmp_path / "stories"))
    ids = torch.tensor([stories.tokenizer()(stories.TEXTS[1]).input_ids])
    with torch.no_grad():
        assert torch.equal(found.model(torch.float32)(ids).logits, stories.model()(ids).logits)
    assert found.parameters() == stories.model().num_parameters()
    tokens = found.tokenizer()
    assert tokens.get_vocab() == stories.tokenizer().get_vocab()
    assert tokens(stories.TEXTS[1]).input_ids == ids[0].tolist()
    assert (tokens.bos_token_id, tokens.eos_token_id, tokens.unk_token_id) == (1, 2, 0)


def test_a_run_distils_from_one(tmp_path):
    model = exported(llama(3, layers=3, rms_norm_eps=1e-5), tmp_path / "model.bin")
    tokens = exported_tokenizer(tmp_path / "tokenizer.bin")
    teachers = f"teachers={{smollm2: {{llama2c: {model}, tokenizer: {tokens}}}}}"
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, teachers, "capture={}"), run, until="distil")
    made = AutoTokenizer.from_pretrained(run.path("distil") / "student")
    assert made("ab a").input_ids == read_tokenizer(tokens, "key", 300)("ab a").input_ids
    prepared = PreparedTeacher.load(run.path("teachers") / "smollm2")
    assert prepared.config().num_hidden_layers == 3
    exported_tokenizer(tokens, 299)
    with pytest.raises(UserError, match=r"`teachers.smollm2.tokenizer`: .* has 299 tokens and the model 300; name the"):
        run_recipe(toy_recipe(tmp_path, teachers, "capture={}"), run, until="teachers")


@real
def test_a_real_teacher_in_a_whole_run(tmp_path):
    text = tmp_path / "sentences.jsonl"
    save_corpus(text, [f"{one.strip()}." for story in stories.TEXTS for one in story.split(".") if len(one) > 20])
    given = [f"teachers={stories.TEACHERS}", f"corpus.sources=[{{path: {text}}}]", "capture={}"]
    student = 'student={"start": "prune_layers", "from": "stories", "layers": 4}'
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, *given, student), run, until="evaluate")
    rows = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
    loss = {row["model"]: row["value"] for row in rows if row["metric"] == "loss"}
    # Single sentences are harder to predict than a whole story, and a removed layer costs too.
    assert loss["teacher"] < 2.2 < loss["start"] < math.log(512)
    assert run.manifest("student")["summary"]["layers_kept"] == [0, 1, 3, 4]


def header(*sizes):
    return HEADER.pack(*sizes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no file "),
        (b"", "has 0 bytes, which is no model of llama2.c; get it again"),
        (b"24ka\x02\0\0\0" + bytes(300), "is of llama2.c's version 2, and potstill reads version 0"),
        (b"24ka\x01\0\0\0" + bytes(300), "export.py --version 0`"),
        (header(64, 172, 5, 8, 3, 512, 512), "does not have a header of llama2.c; name a .bin"),
        (header(0, 172, 5, 8, 4, 512, 512), "does not have a header of llama2.c"),
        (b"GGUF" + bytes(100), "does not have a header of llama2.c"),
        (header(64, 172, 5, 8, 4, 512, 512) + bytes(100), "has 128 bytes, and a model with the sizes in its header"),
    ],
)
def test_what_is_no_whole_checkpoint_is_told_in_a_sentence(tmp_path, content, sentence):
    file = tmp_path / "model.bin"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as told:
        read_model(file, "teachers.t.llama2c")
    assert str(told.value).startswith("`teachers.t.llama2c`: ")
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


def test_a_checkpoint_must_have_every_byte_and_no_other(original, tmp_path):
    whole = exported(original, tmp_path / "model.bin").read_bytes()
    for content, what in ((whole[:-4], "is cut off"), (whole + bytes(4), "is another file, or several in one")):
        (tmp_path / "other.bin").write_bytes(content)
        with pytest.raises(UserError, match=rf"has [\d,]+ bytes, .* has {len(whole):,}: it {what}; get it again"):
            read_model(tmp_path / "other.bin", "key")


def test_a_header_of_absurd_sizes_takes_no_memory(tmp_path):
    (tmp_path / "model.bin").write_bytes(header(2**30, 2**30, 2**30, 2, 2, 2**30, 2**30))
    with pytest.raises(UserError, match="it is cut off; get it again"):
        read_model(tmp_path / "model.bin", "key")


def test_what_is_no_whole_tokenizer_is_told_in_a_sentence(tmp_path):
    file = exported_tokenizer(tmp_path / "tokenizer.bin")
    whole = file.read_bytes()
    assert read_tokenizer(file, "key", 300).decode([259, 262 + 1]) == "ab"
    for content in (whole[:-1], whole[:-5], whole[:7], b"a\0\0\0" + b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(
            UserError, match=r"`key`: .* is no tokenizer of llama2.c, or it is cut off; name the whole .bin"
        ):
            read_tokenizer(file, "key", 300)
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"has 300 tokens and the model 32,000; name the one it was trained with"):
        read_tokenizer(file, "key", 32000)
    file.write_bytes(whole.replace(b"<0x41>", b"<0x42>"))
    with pytest.raises(UserError, match="its tokens 3 to 258 are not the bytes"):
        read_tokenizer(file, "key", 300)
    with pytest.raises(UserError, match=r"is sentencepiece's own file; name the .bin that run.c reads"):
        read_tokenizer(Path("tok.model"), "key", 300)


def test_files_are_told_apart_by_their_content(original, tmp_path):
    model, tokens = exported(original, tmp_path / "model.bin"), exported_tokenizer(tmp_path / "tokenizer.bin")
    teacher = Llama2cTeacher(llama2c=str(model), tokenizer=str(tokens))

    def fingerprint():
        return PreparedTeacher.load(prepare("t", teacher, tmp_path / "t")).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    raw = np.frombuffer(model.read_bytes(), np.uint8).copy()
    raw[-1] ^= 1
    model.write_bytes(raw.tobytes())
    assert fingerprint() != first
