"""llama.cpp itself reads the texts: the tokens are the tokenizer's, or the tokenizer is refused."""

import json

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from potstill.data.tokenizers import cut_tokenizer, train_tokenizer
from potstill.errors import UserError
from potstill.export.engines.llama_cpp import LlamaCpp
from potstill.export.gguf.file import head_in_file, write_gguf
from potstill.export.gguf.tokenizer import BY_PATTERN, kind_of, prepared_text
from potstill.recipe.tokenizer import TrainedTokenizer
from tiny import documents, llama, tokenizer

TEXTS = (
    *documents(3),
    " begins with a space",
    "two  spaces,   three\tand a tab\n\nnew lines  \n",
    "IT'S 12345 or 1,234.56; don't!! (we'll see)",
    "naïve Ünïcödé 你好 🙂🙂 x²",
    "the end<|endoftext|>of a text",
    "",
)
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(splitter, **model):
    bpe = Tokenizer(models.BPE(**model))
    bpe.pre_tokenizer, bpe.decoder = splitter, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(documents(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")


def split_by(pattern, **model):
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return byte_level(splitter, **model)


def sentence_pieces(prefix=True):
    """A tokenizer as those of Llama 2 and Gemma are: merges of characters, spaces as a sign, bytes for the rest."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    bpe.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = bpe.normalizer
    trainer = trainers.BpeTrainer(vocab_size=150, show_progress=False)
    trained.train_from_iterator([word for text in documents() for word in text.split()], trainer)
    content, learned = json.loads(bpe.to_str()), json.loads(trained.to_str())["model"]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    content["model"] |= {"vocab": {token: n for n, token in enumerate(dict.fromkeys(tokens))}}
    content["model"]["merges"] = learned["merges"]
    whole = Tokenizer.from_str(json.dumps(content))
    whole.add_special_tokens(SPECIAL)
    whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def with_added_tokens():
    found = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    found.add_tokens(["river bank", "    "])
    return found


def digits():
    return byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    )


TOKENIZERS = {
    "gpt-2": tokenizer,
    "gpt-2, tokens added": with_added_tokens,
    "smollm": digits,
    "smollm, cut": lambda: cut_tokenizer(digits(), 330, "a teacher"),
    **{name: (lambda pattern=pattern, whole=whole: split_by(pattern, ignore_merges=whole))
       for (pattern, whole), name in BY_PATTERN.items()},
    "gpt-2, trained by a run": lambda: train_tokenizer(documents(), TrainedTokenizer(vocab_size=400)),
    "default": sentence_pieces,
    "default, no space before a text": lambda: sentence_pieces(prefix=False),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_reads_the_same_tokens(name, tmp_path):
    ours = TOKENIZERS[name]()
    assert kind_of(ours).pre == name.partition(",")[0]
    model, file = llama(vocab_size=len(ours), layers=1), tmp_path / "model.gguf"
    write_gguf(model, ours, file, "F16", "tiny")
    with LlamaCpp(file, head_in_file(model, "F16"), 64) as engine:
        for text in TEXTS:
            assert engine.token_ids(prepared_text(ours, text)) == ours(text, add_special_tokens=False).input_ids


def test_what_llama_cpp_does_not_do_is_said():
    notes = kind_of(train_tokenizer(documents(), TrainedTokenizer(vocab_size=400))).notes
    assert [note.partition(";")[0] for note in notes] == [
        "llama.cpp does not normalise text by NFKC",
        "llama.cpp puts no space before a text",
    ]


def unigram():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], 0)))


def word_pieces():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")))


def lower_case():
    found = tokenizer().backend_tokenizer.to_str()
    changed = Tokenizer.from_str(found)
    changed.normalizer = normalizers.Lowercase()
    return PreTrainedTokenizerFast(tokenizer_object=changed)


REFUSED = {
    "Unigram model": unigram,
    "WordPiece model": word_pieces,
    "changes text by Lowercase": lower_case,
    "splits text in a way": lambda: split_by(r"\w+|\s+"),
    "neither bytes nor": lambda: PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(why):
    with pytest.raises(UserError, match=rf"llama.cpp has no tokenizer like the student's \(.*{why}.*export `merged`"):
        kind_of(REFUSED[why]())
