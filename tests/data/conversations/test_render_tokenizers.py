"""Render with every kind of tokenizer: which tokens have which characters is a matter of each kind."""

from functools import cache

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.render import render
from potstill.data.labels import IGNORE_INDEX
from tiny import documents
from toy_chat import assistant, conversation, settings, user

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
LLAMA_2 = MISTRAL.replace("{{ m.content }}{{ eos", "{{ m.content }} {{ eos")
ANSWERS = ("the river 😀 bank   \n  two", "naïve — towns.")


@cache
def tokenizer(kind):
    """A BPE as SentencePiece's, in its new and in its old form, or of bytes with trimmed offsets as GPT-2's."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    alphabet = []
    if kind == "metaspace":
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        # As Llama's, it would put a beginning before every text.
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    elif kind == "normalizer":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.post_processor = processors.ByteLevel(trim_offsets=True)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    space = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bpe.decoder = decoders.ByteLevel() if alphabet else space
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(documents(40), trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    # Phi's own: they take the line break after them.
    turns = [AddedToken(f"<|{name}|>", rstrip=True, special=True) for name in ("end", "assistant", "user")]
    made.add_special_tokens({"additional_special_tokens": [*turns, "[INST]", "[/INST]"]})
    return made


@pytest.mark.parametrize("kind", ["metaspace", "normalizer", "bytes"])
@pytest.mark.parametrize(("text", "end"), [(MISTRAL, "</s>"), (LLAMA_2, "</s>"), (PHI, "<|end|>")])
def test_each_answer_is_learned_to_its_end(tmp_path, kind, text, end):
    file = tmp_path / "own.jinja"
    file.write_text(text)
    chosen, ours = settings(template=str(file)), tokenizer(kind)
    given = conversation(user("Why?"), assistant(ANSWERS[0]), user("And?"), assistant(ANSWERS[1]))
    chat = chat_template(ours, chosen)
    (sample,) = render(given, chat, chosen).samples
    whole = ours.apply_chat_template([chat.message(one) for one in given.messages], chat_template=chat.text)
    assert sample.input_ids == whole["input_ids"]
    assert sample.input_ids.count(ours.bos_token_id) == ("bos_token" in text)
    for turn, answer in zip(sample.turns, ANSWERS, strict=True):
        labels = sample.labels[turn.start : turn.stop]
        assert IGNORE_INDEX not in labels
        assert labels[-1] == ours.convert_tokens_to_ids(end)
        assert ours.decode(labels[:-1]).strip() == answer
    between = set(range(len(whole["input_ids"]))) - {p for turn in sample.turns for p in range(turn.start, turn.stop)}
    assert all(sample.labels[place] == IGNORE_INDEX for place in between)
