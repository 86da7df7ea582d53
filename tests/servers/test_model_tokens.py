"""The bytes of tokens, by the two families of tokenizers."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from potstill.servers.model_tokens import ModelTokens
from tiny import tokenizer

TEXT = "naïve travellers — 日本 ask\twhy?"


def sentence_piece():
    pieces = ["▁", "▁the", "the", "▁town", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {"<unk>": 0, "</s>": 1} | {piece: 2 + at for at, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, [], byte_fallback=True)
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


def test_the_bytes_of_tokens_are_those_of_their_text():
    tokens = ModelTokens(tokenizer())
    assert b"".join(tokens.of(id) for id in tokens.encode(TEXT)) == TEXT.encode()
    assert all(tokens.id_of(tokens.of(id)) == id for id in range(tokens.vocabulary))


def test_the_bytes_of_sentence_piece():
    tokens = ModelTokens(sentence_piece())
    known = tokens.id_of(b" the"), tokens.id_of(b"\xe6"), tokens.id_of(b"the")
    assert None not in known
    assert len({*known}) == 3
    assert tokens.of(1) == b"</s>"


def test_bytes_of_several_tokens_name_none_of_them():
    tokens = ModelTokens(sentence_piece())
    # A space is a piece of its own, and a byte too.
    assert tokens.id_of(b" ") is None
    assert tokens.id_of(b"") is None
    assert tokens.id_of(b"no such token") is None


def test_a_tokenizer_of_another_family_names_no_token():
    made = Tokenizer(models.WordLevel({"the": 0, "[END]": 1}, unk_token="[END]"))
    words = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="[END]")
    assert ModelTokens(words).id_of(b"the") is None


@pytest.mark.parametrize("template", [None, "{% for m in messages %}<{{ m.content }}>{% endfor %}"])
def test_a_question_is_in_the_chat_template_if_there_is_one(template):
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|endoftext|>")
    words.chat_template = template
    asked = ModelTokens(words).question("why")
    assert words.decode(asked.ids) == ("why" if template is None else "<why>")
    assert [*asked.messages] == ([] if template is None else [{"role": "user", "content": "why"}])
