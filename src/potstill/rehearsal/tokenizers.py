"""Tokenizers: stand-ins of published tokenizers, with their algorithm, vocabulary size, special tokens and templates.

Their merges are learned from made-up words. Tokens that no text gives fill them up to the published size, so that ids,
heads and stores are as wide as in the real run.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from potstill.files.atomic import write_json
from potstill.rehearsal.words import every_word, paragraph

MERGES = 4000
"""The greatest number of merges that are learned."""

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN2_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|{name}|>" for name in ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start")),
    *(f"<|{name}|>" for name in ("quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")),
)
QWEN2_ADDED = (
    *("<tool_call>", "</tool_call>"),
    *(f"<|{name}|>" for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")),
)
QWEN2_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- set messages = messages[1:] %}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""What the template of Qwen2.5-Instruct gives for plain messages, without its branches for tools."""
LLAMA3_SPECIAL = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>"}
LLAMA3_SPECIAL |= {6: "<|start_header_id|>", 7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>"}
LLAMA3_TEMPLATE = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
"""What the published template gives for plain messages, without its branches for tools."""


def save_tokenizer(kind: str, folder: Path) -> None:
    """Write the files of a tokenizer as the hub has them.

    Args:
        kind: a key of KINDS.
        folder: an existing folder.
    """
    tokenizer, config = KINDS[kind]()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config)


def _gpt_neox() -> tuple[Tokenizer, dict[str, Any]]:
    ends = ["<|endoftext|>", "<|padding|>"]
    bpe = _filled(_learned(_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))), 50_254, first=ends)
    made = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), bpe)
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    made.add_special_tokens([AddedToken(one, special=True) for one in ends])
    # Runs of 24 to 2 spaces.
    made.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), ends[0])
    return made, {"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": False, **roles}


def _llama2() -> tuple[Tokenizer, dict[str, Any]]:
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁")
    first = [*roles.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    settings = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    made = Tokenizer(_filled(_learned(raw), 32_000, first=first, **settings))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made.add_special_tokens([AddedToken(one, special=True) for one in roles.values()])
    more = {"add_bos_token": True, "add_eos_token": False, "legacy": False, "model_max_length": 10**30}
    return made, {"tokenizer_class": "LlamaTokenizer", **roles, **more}


def _llama3_instruct() -> tuple[Tokenizer, dict[str, Any]]:
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    base, special = 128_000, [LLAMA3_SPECIAL.get(number) for number in range(256)]
    made = _byte_level(split, _filled(_learned(_byte_level(split)), base, ignore_merges=True))
    named = [one or f"<|reserved_special_token_{number}|>" for number, one in enumerate(special)]
    made.add_special_tokens([AddedToken(one, special=True) for one in named])
    begin = named[0]
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, base)]
    )
    roles = {"bos_token": begin, "eos_token": "<|eot_id|>", "model_max_length": 131_072}
    return made, {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": LLAMA3_TEMPLATE, **roles}


def _qwen2_instruct() -> tuple[Tokenizer, dict[str, Any]]:
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made = _byte_level(split, _filled(_learned(_byte_level(split)), 151_643))
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.add_special_tokens([AddedToken(one, special=True) for one in QWEN2_SPECIAL])
    made.add_tokens([AddedToken(one, normalized=False) for one in QWEN2_ADDED])
    roles = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    more = {"add_prefix_space": False, "model_max_length": 131_072, "chat_template": QWEN2_TEMPLATE}
    return made, {"tokenizer_class": "Qwen2Tokenizer", **roles, **more}


KINDS: Mapping[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
    "gpt_neox": cache(_gpt_neox),
    "llama2": cache(_llama2),
    "llama3_instruct": cache(_llama3_instruct),
    "qwen2_instruct": cache(_qwen2_instruct),
}
"""The published tokenizers, each as a tokenizer and the content of its tokenizer_config.json."""


def _byte_level(split: Any, bpe: models.BPE | None = None) -> Tokenizer:
    made = Tokenizer(bpe or models.BPE())
    made.pre_tokenizer = split
    made.decoder = decoders.ByteLevel()
    return made


def _learned(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary and merges that a tokenizer learns from made-up text."""
    trainer = trainers.BpeTrainer(
        vocab_size=MERGES + 256, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    draw = random.Random(1)
    text = [*every_word(draw), *(paragraph(draw, 4) for _ in range(300)), "User: Question: Answer: 0123456789\n" * 3]
    tokenizer.train_from_iterator(text, trainer)
    found: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return found


def _filled(learned: dict[str, Any], size: int, first: Sequence[str] = (), **settings: Any) -> models.BPE:
    """A BPE of exactly `size` tokens: `first`, what was learned, and tokens that no merge gives."""
    tokens = [*first, *sorted(learned["vocab"], key=learned["vocab"].__getitem__)]
    tokens += [f"<filler {number}>" for number in range(size - len(tokens))]
    merges = [tuple(merge) for merge in learned["merges"]]
    return models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges, **settings)
