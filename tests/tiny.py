"""The real thing in miniature: a tokenizer, teachers, text and recipes that are made of nothing but a seed."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from potstill.recipe import Recipe, load_recipe
from potstill.recipe.corpus import HeldOutText
from potstill.recipe.student import Checkpoint, PrunedLayers, Scratch

VOCABULARY = 300
SEQUENCE_LENGTH = 32
POSITIONS = 640
"""Of toy models that are asked questions: the shipped prompts are long for so small a tokenizer."""
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


def gpt_neox(seed: int = 0, layers: int = LAYERS, **fields: Any) -> GPTNeoXForCausalLM:
    """A random GPT-NeoX in float32, as Pythia is one: partly rotary, parallel residuals, an untied head, no dropout."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "max_position_embeddings": 128}
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
    return GPTNeoXForCausalLM(GPTNeoXConfig(num_hidden_layers=layers, **{**shape, **tokens, **fields})).eval()


def bert(seed: int = 0, kind: type[PreTrainedModel] = BertLMHeadModel, **fields: Any) -> PreTrainedModel:
    """A random BERT, which reads in both directions: no causal language model, though transformers loads it as one."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return kind(BertConfig(vocab_size=VOCABULARY, **shape, **fields)).eval()


def mixture(seed: int = 0, **fields: Any) -> MixtralForCausalLM:
    """A random mixture of experts that learns its router loss, and whose router is far from even."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_local_experts": 4, "num_key_value_heads": 2, "router_aux_loss_coef": 0.5}
    given = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "output_router_logits": True, **shape, **experts}
    return MixtralForCausalLM(MixtralConfig(**given | fields)).eval()


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


def save_pairs(folder: Path) -> Path:
    """Two subtasks of minimal pairs in the format of BLiMP: whole sentences, and the same with their words turned."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(("order", "more_order")):
        texts = [text.split()[1:9] for text in documents(6, seed=seed)]
        turned = [{"sentence_good": " ".join(words), "sentence_bad": " ".join(reversed(words))} for words in texts]
        rows = [pair | {"UID": name} for pair in turned]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def save_prompts(folder: Path, count: int = 6) -> dict[str, Any]:
    """Prompts to be continued, and word vectors to judge by, as `evaluate.continuations.NAME` has them."""
    words = sorted({word.strip(";:,.?()") for word in TEXT.lower().split()})
    draw = random.Random(0)
    vectors = (f"{word} {draw.random():.3f} {draw.random():.3f} {draw.random():.3f}\n" for word in words)
    (folder / "vectors.txt").write_text("".join(vectors), encoding="utf-8")
    rows = []
    for text in documents(count, seed=5):
        first, last = text.split()[1:7], text.split()[7:13]
        rows.append({"prompt": " ".join(first), "keyword": last[0], "reference": " ".join([*first, *last])})
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words_from = {"path": str(folder / "vectors.txt")}
    few = {"max_new_tokens": 6, "random_pairs": 3, "sentences": None}
    return {"path": str(folder / "prompts.jsonl"), "words": words_from, **few}


def toy_overrides(recipe: str, folder: Path) -> list[str]:
    """What `--set` needs to make a toy of any recipe that ships: tiny teachers and text in `folder`, a few steps."""
    shipped = load_recipe(recipe)
    training = {"max_steps": 5, "per_device_train_batch_size": 4, "save_steps": 2, "logging_steps": 1}
    training["gradient_accumulation_steps"] = 1
    settings: dict[str, Any] = {
        **{f"distil.training.{name}": value for name, value in training.items()},
        # What is faster for so small a model is chance.
        "precision": "fp32",
        "evaluate.documents": 8,
        "evaluate.resamples": 100,
        "evaluate.speed": False,
        **_toy_data(shipped, folder),
        **_toy_models(shipped, folder),
    }
    if shipped.evaluate.tasks:
        # Their data is on the hub; tests of the tasks themselves bring data along.
        settings["evaluate.tasks"] = []
    for name in shipped.pretrain:
        settings |= {f"pretrain.{name}.training.{field}": value for field, value in training.items()}
    for name, given in shipped.experiments.items():
        if given.on_policy is not None:
            # A toy knows nothing, so its pre-flight speaks against it.
            few = {"from_step": 2, "max_new_tokens": 8, "preflight": "warn"}
            settings |= {f"experiments.{name}.on_policy.{field}": value for field, value in few.items()}
    if shipped.evaluate.continuations:
        settings["evaluate.continuations"] = dict.fromkeys(shipped.evaluate.continuations, save_prompts(folder))
    if shipped.evaluate.minimal_pairs:
        pairs = {"path": str(save_pairs(folder / "pairs")), "start": "none"}
        settings["evaluate.minimal_pairs"] = dict.fromkeys(shipped.evaluate.minimal_pairs, pairs)
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _toy_data(shipped: Recipe, folder: Path) -> dict[str, Any]:
    if shipped.chats:
        return _toy_talks(shipped, folder)
    return _toy_questions(folder) if shipped.asks else _toy_text(shipped, folder)


def _toy_talks(shipped: Recipe, folder: Path) -> dict[str, Any]:
    """Talks about the weather, in the form that the recipe reads."""
    import toy_conversations

    file = toy_conversations.save_talks(folder)
    source = {"path": str(file), "format": "messages"}
    settings = {"corpus.conversations": [source], "corpus.sequence_length": 160, "answers.max_new_tokens": 8}
    settings |= {"corpus.held_out": 0.2, "corpus.train": None, "answers.sentences": None}
    if shipped.generate is not None:
        settings["generate.max_new_tokens"] = 24
    return settings


def _toy_questions(folder: Path) -> dict[str, Any]:
    """Sums in words, asked in full sentences: teachers need room for their prompts."""
    file = folder / "questions.jsonl"
    rows = (
        {"question": f"{n}. a boat carries {n % 9} coins and 3 more. how many?", "answer": f"#### {n % 9 + 3}"}
        for n in range(60)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "corpus.questions": [{"path": str(file)}],
        "corpus.held_out": 0.2,
        "corpus.validation": 6,
        "corpus.train": 30,
        "corpus.sequence_length": 192,
        "corpus.teacher_length": POSITIONS - 32,
        "answers.max_new_tokens": 8,
        "seeds": [0],
    }


def _toy_text(shipped: Recipe, folder: Path) -> dict[str, Any]:
    length = {"corpus.sequence_length": SEQUENCE_LENGTH, "corpus.train_tokens": None}
    if not isinstance(shipped.corpus.held_out, HeldOutText):
        text = folder / "text.jsonl"
        if not text.exists():
            save_corpus(text)
        length |= {"corpus.shortest": 8} if shipped.corpus.shortest else {}
        source: dict[str, Any] = {"path": str(text)}
        if shipped.corpus.streams:
            (folder / "stream").mkdir(exist_ok=True)
            save_corpus(folder / "stream" / "train.jsonl")
            source = {"dataset": str(folder / "stream"), "stream": True}
            length["corpus.train_tokens"] = 2000
        return length | {"corpus.sources": [source], "corpus.held_out": 0.2, "corpus.separator": None}
    for split, seed in (("train", 0), ("dev", 1)):
        (folder / split).mkdir(exist_ok=True)
        for name in ("cbt", "switchboard"):
            lines = "\n".join(documents(60, seed=10 * seed + len(name)))
            (folder / split / f"{name}.{split}").write_text(lines, encoding="utf-8")
    return length | {
        "corpus.sources": [{"path": str(folder / "train")}],
        "corpus.held_out": {"sources": [{"path": str(folder / "dev")}], "sequences": 8},
        "corpus.validation": 4,
    }


def _toy_models(shipped: Recipe, folder: Path) -> dict[str, Any]:
    if shipped.chats:
        import toy_conversations

        models = {name: {"model": str(toy_conversations.teacher(folder / name))} for name in shipped.teachers}
        student = {"student.model": str(toy_conversations.teacher(folder / "student", layers=2))}
        return {"teachers": models} | (student if isinstance(shipped.student, Checkpoint) else {"student.layers": 2})
    settings: dict[str, Any] = {}
    positions = {"max_position_embeddings": POSITIONS} if shipped.asks else {}
    if shipped.tokenizer is not None:
        settings["tokenizer"] = {"vocab_size": VOCABULARY}
    for name, teacher in shipped.pretrain.items():
        model = gpt2() if teacher.config["model_type"] == "gpt2" else llama(**positions)
        settings[f"pretrain.{name}.config"] = _config(model)
    for seed, (name, existing) in enumerate(shipped.teachers.items()):
        path = folder / f"teacher-{name}{'-asked' if shipped.asks else ''}"
        if not path.exists():
            save_model(llama(seed, **positions), path)
        settings.setdefault("teachers", {})[name] = {"model": str(path), "weight": existing.weight}
    if isinstance(shipped.student, PrunedLayers):
        settings["student.layers"] = 2
    elif isinstance(shipped.student, Checkpoint):
        small = llama(seed=99, layers=2, **positions)
        settings["student.model"] = str(save_model(small, folder / "student"))
    elif isinstance(shipped.student, Scratch):
        settings["student.config"] = _config(llama(layers=2))
    return settings


def _config(model: PreTrainedModel) -> dict[str, Any]:
    """What is special about a model's configuration, as a recipe has it; the vocabulary is the run's."""
    fields = model.config.to_diff_dict()
    others = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "dtype")
    return {key: value for key, value in fields.items() if key not in others}


def toy_recipe(folder: Path, *more: str, recipe: str = "quickstart") -> Recipe:
    """A recipe that ships, as a toy; `more` overrides it further."""
    return load_recipe(recipe, [*toy_overrides(recipe, folder), *more])
