"""The real thing in miniature: a tokenizer, teachers, text and recipes that are made of nothing but a seed."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from potstill.recipe import Recipe, load_recipe
from potstill.recipe.student import Checkpoint, PrunedLayers

VOCABULARY = 300
SEQUENCE_LENGTH = 32
LAYERS = 4
TEXT = (
    "the a river bank crosses old town of stone and water while many small boats carry salt, wool or copper from its "
    "northern hills to the sea; in winter nobody sails. But when ice melts each spring, markets open again under "
    "painted roofs: bread costs three coins, fish cost two, letters arrive (late) with news about kings & weather — "
    "naïve travellers ask why?"
)


def documents(count: int = 120, seed: int = 0) -> list[str]:
    """Distinct documents of 15 to 60 words, some longer than a tiny sequence and some shorter."""
    draw = random.Random(seed)
    return [f"{n}. " + " ".join(draw.choices(TEXT.split(), k=draw.randint(15, 60))) for n in range(count)]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens with an end and a pad token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(documents(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")


def llama(seed: int = 0, layers: int = LAYERS, **fields: Any) -> LlamaForCausalLM:
    """A random Llama in float32; not as flat as an untrained one, so that distributions differ."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    positions = {"max_position_embeddings": 128, "initializer_range": 0.2}
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    config = LlamaConfig(num_hidden_layers=layers, **{**shape, **positions, **tokens, **fields})
    return LlamaForCausalLM(config).eval()


def padded(model: PreTrainedModel, rows: int) -> PreTrainedModel:
    """The model with embeddings and a head of more rows; no token has them, and whoever counts them is far off."""
    before = model.get_output_embeddings().weight.shape[0]
    torch.manual_seed(rows)
    model.resize_token_embeddings(rows)
    with torch.no_grad():
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.weight[before:].normal_(std=2.0)
    return model


def gpt2(seed: int = 0, layers: int = LAYERS, **fields: Any) -> GPT2LMHeadModel:
    """A random GPT-2 in float32: another family, with biases, learned positions, a tied head and dropout."""
    torch.manual_seed(seed)
    shape = {"n_embd": 32, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_layer=layers, **{**shape, **tokens, **fields})).eval()


def save_model(model: PreTrainedModel, folder: Path) -> Path:
    """A plain Hugging Face folder, tokenizer included."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_corpus(file: Path, texts: list[str] | None = None) -> Path:
    """Documents as .jsonl."""
    rows = (json.dumps({"text": text}) + "\n" for text in (documents() if texts is None else texts))
    file.write_text("".join(rows), encoding="utf-8")
    return file


def toy_overrides(recipe: str, folder: Path) -> list[str]:
    """What `--set` needs to make a toy of any recipe that ships: tiny teachers and text in `folder`, a few steps."""
    shipped = load_recipe(recipe)
    teachers = {}
    for seed, (name, teacher) in enumerate(shipped.teachers.items()):
        path = folder / f"teacher-{name}"
        if not path.exists():
            save_model(llama(seed), path)
        teachers[name] = {"model": str(path), "weight": teacher.weight}
    text = folder / "text.jsonl"
    if not text.exists():
        save_corpus(text)
    settings: dict[str, Any] = {
        "teachers": teachers,
        "corpus.sources": [{"path": str(text)}],
        "corpus.held_out": 0.2,
        "corpus.sequence_length": SEQUENCE_LENGTH,
        "corpus.separator": None,
        "corpus.train_tokens": None,
        "distil.training.max_steps": 5,
        "distil.training.per_device_train_batch_size": 4,
        "distil.training.save_steps": 2,
        "evaluate.documents": 8,
        "evaluate.resamples": 100,
    }
    if isinstance(shipped.student, PrunedLayers):
        settings["student.layers"] = 2
    elif isinstance(shipped.student, Checkpoint):
        settings["student.model"] = str(save_model(llama(seed=99, layers=2), folder / "student"))
    else:
        settings["student.config"] = {
            key: value for key, value in llama(layers=2).config.to_diff_dict().items() if key != "transformers_version"
        }
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def toy_recipe(folder: Path, *more: str, recipe: str = "quickstart") -> Recipe:
    """A recipe that ships, as a toy; `more` overrides it further."""
    return load_recipe(recipe, [*toy_overrides(recipe, folder), *more])
