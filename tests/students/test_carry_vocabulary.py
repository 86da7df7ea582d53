"""A model takes over another vocabulary by the bytes of its tokens, for any spelling of the two tokenizers."""

import copy
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import stories
from potstill.data.tokenizers import cut_tokenizer
from potstill.errors import UserError
from potstill.recipe.student import Checkpoint, Copy
from potstill.recipe.teachers import ModelTeacher
from potstill.students.build import build
from potstill.students.carry_vocabulary import (
    BYTES,
    CHARACTERS,
    CarriedTokens,
    _Spelling,
    carry_over,
    keep_first_tokens,
)
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher
from tiny import documents, gpt2, llama, save_model, tokenizer

real = pytest.mark.skipif(not stories.FOLDER.is_dir(), reason="../shared/data/stories260k is not here")


@cache
def byte_level(tokens=400, roles=("<pad>", "<s>", "</s>"), texts=None):
    """Another tokenizer like tiny.tokenizer()."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=tokens, special_tokens=[*roles], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(documents(60, seed=5) if texts is None else texts, trainer)
    pad, begin, end = roles
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, bos_token=begin, eos_token=end)


@cache
def sentencepiece():
    """Tokens as in sentencepiece: special tokens, bytes, words and letters."""
    words = ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁t", "he", "▁the", "bo", "at", "boat", "▁boat"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("b", "o"), ("a", "t"), ("bo", "at"), ("▁", "boat")]
    bpe = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, merges, byte_fallback=True))
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def rows(model):
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


@pytest.mark.parametrize("tied", [False, True])
def test_a_token_that_both_have_keeps_its_rows_and_others_are_the_mean_of_their_parts(tied):
    model, ours = llama(tie_word_embeddings=tied), byte_level()
    before = [each.detach().clone() for each in rows(model)]
    found = carry_over(model, tokenizer(), ours, "key")
    theirs = tokenizer().get_vocab()
    shared = composed = 0
    for token, number in ours.get_vocab().items():
        if token in ("<s>", "</s>"):
            expected = ["<|endoftext|>"]
        elif token == "<pad>":
            expected = ["<|pad|>"]
        else:
            expected = [token] if token in theirs else tokenizer().backend_tokenizer.model.tokenize(token)
        parts = [theirs[each] if isinstance(each, str) else each.id for each in expected]
        shared, composed = shared + (len(parts) == 1), composed + (len(parts) > 1)
        for after, old in zip(rows(model), before, strict=True):
            torch.testing.assert_close(after[number], old[parts].mean(0), rtol=0, atol=1e-6)
    assert found == CarriedTokens(shared, composed, 0)
    assert shared > 259
    assert composed > 20
    assert (rows(model)[0] is rows(model)[1]) == tied
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_configuration_is_of_the_new_tokenizer(tmp_path):
    model, ours = llama(), byte_level()
    carry_over(model, tokenizer(), ours, "key")
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.vocab_size == 400
    ids = torch.arange(3, 60)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


@torch.no_grad()
def test_the_same_tokens_under_other_ids_make_the_same_model():
    content = tokenizer().get_vocab()
    turned = {token: (number + 7) % len(content) for token, number in content.items()}
    bpe = Tokenizer(models.BPE(turned, []))
    bpe.decoder = decoders.ByteLevel()
    ours = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")
    for model in (llama(), gpt2()):
        ids = torch.arange(2, 90)[None]
        before = model(ids).logits
        assert carry_over(model, tokenizer(), ours, "key") == CarriedTokens(300, 0, 0)
        after = model((ids + 7) % 300).logits
        torch.testing.assert_close(after.roll(-7, -1), before)


def test_a_bias_goes_with_its_row():
    model = llama()
    head = torch.nn.Linear(32, 300, bias=True)
    model.set_output_embeddings(head)
    before = head.bias.detach().clone()
    carry_over(model, tokenizer(), byte_level(), "key")
    after, theirs, ours = model.get_output_embeddings().bias, tokenizer().get_vocab(), byte_level().get_vocab()
    assert after.shape == (400,)
    assert all(after[ours[token]] == before[theirs[token]] for token in ("a", "Ġ", "e"))
    long = max(ours.keys() - theirs.keys() - {"<s>", "</s>", "<pad>"}, key=len)
    parts = [token.id for token in tokenizer().backend_tokenizer.model.tokenize(long)]
    assert after[ours[long]].item() == pytest.approx(before[parts].mean().item(), abs=1e-6)


def test_words_are_found_however_they_are_spelled():
    old, new = sentencepiece().get_vocab(), byte_level(roles=("<pad>", "<s>", "</s>")).get_vocab()
    model = llama(vocab_size=len(old))
    before = rows(model)[0].detach().clone()
    found = carry_over(model, sentencepiece(), byte_level(), "key")
    after = rows(model)[0]
    same = {"Ġthe": "▁the", "a": "a", "Ġ": "▁", "Ġboat": "▁boat", CHARACTERS[0xE2]: "<0xE2>", CHARACTERS[10]: "<0x0A>"}
    for token, piece in same.items():
        if token in new:
            assert torch.equal(after[new[token]], before[old[piece]]), token
    assert {"Ġthe", "Ġ"} <= new.keys()
    assert torch.equal(after[2], before[2]), "special tokens of one role share their row"
    word = max(new, key=len)
    pieces = [token.id for token in sentencepiece().backend_tokenizer.model.tokenize(word.replace("Ġ", "▁"))]
    torch.testing.assert_close(after[new[word]], before[pieces].mean(0))
    assert found.unknown == 0
    assert found.carried + found.composed == 400


def test_bytes_go_back_to_a_tokenizer_of_bytes():
    new = sentencepiece().get_vocab()
    model = llama()
    before, old = rows(model)[0].detach().clone(), tokenizer().get_vocab()
    carry_over(model, tokenizer(), sentencepiece(), "key")
    after = rows(model)[0]
    for piece, token in {"<0xE2>": CHARACTERS[0xE2], "<0x61>": "a", "a": "a", "▁": "Ġ"}.items():
        assert torch.equal(after[new[piece]], before[old[token]]), piece


def test_what_the_old_tokenizer_cannot_spell_is_the_mean_of_its_tokens():
    letters = Tokenizer(models.BPE({"<s>": 0, "▁": 1, "a": 2, "b": 3}, []))
    letters.decoder = decoders.Replace("▁", " ")
    theirs = PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<s>")
    model = llama(vocab_size=6)
    before = rows(model)[0].detach().clone()
    found = carry_over(model, theirs, byte_level(), "key")
    after, ours = rows(model)[0], byte_level().get_vocab()
    torch.testing.assert_close(after[ours["z"]], before[:4].mean(0))
    assert torch.equal(after[ours["a"]], before[2])
    assert found.unknown > 200
    assert sum(vars(found).values()) == 400


@given(st.binary(max_size=12))
@settings(max_examples=60)
def test_every_string_of_bytes_can_be_spelled_and_read_again(text):
    for one in (tokenizer(), sentencepiece()):
        spelling = _Spelling.of(one, "key")
        read = dict(spelling.texts())
        assert b"".join(read[number] for number in spelling.spelled(text)) == text


def test_the_characters_of_bytes_are_those_of_the_library():
    assert set(CHARACTERS) == set(pre_tokenizers.ByteLevel.alphabet())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "naïve 🦊\n\x00Ж"
    assert bytes(BYTES[one] for one in whole.pre_tokenize_str(text)[0][0]) == text.encode()


def test_a_tokenizer_of_another_kind_is_refused():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    for pair in ((words, tokenizer()), (tokenizer(), words)):
        with pytest.raises(UserError, match=r"`student.vocabulary` carries tokens over between byte-level and sente"):
            carry_over(llama(), *pair, "student.vocabulary")


@torch.no_grad()
def test_the_first_tokens_are_all_that_a_cut_model_knows():
    for model in (llama(), gpt2(), llama(tie_word_embeddings=True)):
        ids = torch.arange(2, 100)[None]
        before, tied = model(ids).logits, model.config.tie_word_embeddings
        keep_first_tokens(model, 270)
        assert torch.equal(model(ids).logits, before[..., :270])
        assert model.config.vocab_size == 270
        assert (rows(model)[0] is rows(model)[1]) == tied


def test_a_checkpoint_of_another_tokenizer_is_carried_over_where_the_recipe_says_so(tmp_path):
    source = save_model(llama(layers=1), tmp_path / "small")
    given = {"start": "checkpoint", "model": str(source)}
    remedies = r"give this one the run's by `student.vocabulary: carry_over`, or .* and use the loss `alm`$"
    with pytest.raises(UserError, match=remedies):
        build(Checkpoint(**given), {}, byte_level(), 400)
    carried, summary = build(Checkpoint(**given, vocabulary="carry_over"), {}, byte_level(), 400)
    assert carried.config.vocab_size == 400
    by_hand = llama(layers=1)
    assert summary["vocabulary"] == vars(carry_over(by_hand, tokenizer(), byte_level(), "key"))
    assert all(map(torch.equal, carried.state_dict().values(), by_hand.state_dict().values()))
    same, summary = build(Checkpoint(**given, vocabulary="carry_over"), {}, tokenizer(), 300)
    assert "vocabulary" not in summary
    assert all(map(torch.equal, same.state_dict().values(), llama(layers=1).state_dict().values()))


@torch.no_grad()
def test_a_student_of_a_teacher_has_the_rows_of_the_run_s_tokens(tmp_path):
    source = save_model(llama(), tmp_path / "source")
    teacher = PreparedTeacher.load(prepare("t", ModelTeacher(model=str(source), dtype="float32"), tmp_path / "t"))
    student, ids = Copy(**{"start": "copy", "from": "t"}), torch.arange(2, 100)[None]
    cut, _ = build(student, {"t": teacher}, cut_tokenizer(tokenizer(), 280, "t"), 280)
    assert torch.equal(cut(ids).logits, llama()(ids).logits[..., :280])
    whole, _ = build(student, {"t": teacher}, tokenizer(), 300)
    assert whole.config.vocab_size == 300


@real
@torch.no_grad()
def test_a_real_model_still_knows_its_language_in_other_tokens():
    ours = byte_level(600, texts=stories.TEXTS * 3)

    def bits_a_byte(model):
        nats = size = 0.0
        for text in stories.TEXTS:
            ids = torch.tensor([[ours.bos_token_id, *ours(text).input_ids]])
            nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            size += len(text.encode())
        return nats / size / math.log(2)

    model = copy.deepcopy(stories.model())
    found = carry_over(model, stories.tokenizer(), ours, "key")
    turned = copy.deepcopy(model)
    weight = turned.get_input_embeddings().weight
    torch.manual_seed(0)
    weight[259:] = weight[259:][torch.randperm(len(weight) - 259)]
    carried, shuffled = bits_a_byte(model), bits_a_byte(turned)
    print(found, carried, shuffled)
    assert found.carried > 350
    assert carried < 0.7 * shuffled
