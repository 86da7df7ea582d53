"""Stand-ins of tokenizers have the published number of tokens and special tokens, and give back what they read."""

import pytest
from transformers import AutoTokenizer

from potstill.rehearsal.tokenizers import KINDS, save_tokenizer

TEXT = "The river rose by 1234 feet, naïve — and then?\nNobody knew."


@pytest.mark.parametrize(
    ("kind", "tokens", "special"),
    [
        ("gpt_neox", 50_277, {"bos_token_id": 0, "eos_token_id": 0}),
        ("llama2", 32_000, {"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0, "pad_token_id": None}),
        ("llama3_instruct", 128_256, {"bos_token_id": 128_000, "eos_token_id": 128_009, "pad_token_id": None}),
        ("qwen2_instruct", 151_665, {"bos_token_id": None, "eos_token_id": 151_645, "pad_token_id": 151_643}),
    ],
)
def test_it_is_as_large_as_the_published_one(tmp_path, kind, tokens, special):
    save_tokenizer(kind, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == tokens
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokens))
    assert {name: getattr(tokenizer, name) for name in special} == special
    ids = tokenizer(TEXT).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXT
    # It has learned words, and does not only spell.
    assert len(ids) < 0.8 * len(TEXT)


def test_every_kind_is_tested():
    assert set(KINDS) == {"gpt_neox", "llama2", "llama3_instruct", "qwen2_instruct"}


def test_llama_3_answers_in_turns(tmp_path):
    save_tokenizer("llama3_instruct", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    asked = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Why? "}],
        tokenize=False,
        add_generation_prompt=True,
    )
    head, _, turns = asked.partition("\n\n")
    assert head == "<|begin_of_text|><|start_header_id|>system<|end_header_id|>"
    assert turns.endswith(
        "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_qwen_2_has_a_system_prompt_of_its_own(tmp_path):
    save_tokenizer("qwen2_instruct", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert asked == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    # A number has a token for each digit.
    assert len(tokenizer("1234").input_ids) == 4
