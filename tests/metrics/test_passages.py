import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from potstill.data.collators import Collator
from potstill.metrics.held_out_text import log_probs, outputs_of
from potstill.metrics.passages import piece, token_view
from tiny import VOCABULARY, llama, padded, tokenizer

DECODERS = {
    "sentencepiece": decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    "bytes": decoders.ByteLevel(),
}


@torch.no_grad()
def _view(teacher, student, ids, vocabulary=None):
    batch = Collator(0)([{"input_ids": ids}])
    both = (log_probs(outputs_of(model)(batch), vocabulary) for model in (teacher, student))
    return token_view(*both, tokenizer(), ids)


def test_each_token_has_what_both_models_expected_in_its_place():
    teacher, student = llama(0), llama(1, layers=2)
    ids = [0, *tokenizer()("the river crosses old stone").input_ids]
    view = _view(teacher, student, ids)
    assert "".join(token["text"] for token in view) == "<|endoftext|>the river crosses old stone"
    assert set(view[0]) == {"text"}, "nothing predicts the first token"
    with torch.no_grad():
        theirs, ours = (model(torch.tensor([ids])).logits[0].double().log_softmax(-1) for model in (teacher, student))
    for place, token in enumerate(view[1:]):
        assert token["kl"] == pytest.approx(
            (theirs[place].exp() * (theirs[place] - ours[place])).sum().item(), rel=1e-3
        )
        assert token["teacher_nll"] == pytest.approx(-theirs[place, ids[place + 1]].item(), rel=1e-4)
        assert token["student_nll"] == pytest.approx(-ours[place, ids[place + 1]].item(), rel=1e-4)
        likeliest, probability = token["student_top5"][0]
        assert likeliest == tokenizer().decode([ours[place].argmax().item()])
        assert probability == pytest.approx(ours[place].exp().max().item(), rel=1e-4)
        assert sorted(token["teacher_top5"], key=lambda pair: -pair[1]) == token["teacher_top5"]


@pytest.mark.parametrize(
    ("kind", "marked"),
    [("sentencepiece", "\u2581the \u2581river s \u2581 <0x0A>"), ("bytes", "the \u0120river s \u0120 \u010a")],
)
def test_words_keep_the_spaces_between_them_in_any_tokenizer(kind, marked):
    tokens = {token: number for number, token in enumerate(marked.split())}
    made = Tokenizer(models.BPE(tokens, [], byte_fallback=kind == "sentencepiece"))
    made.decoder = DECODERS[kind]
    plain = PreTrainedTokenizerFast(tokenizer_object=made)
    assert "".join(piece(plain, number) for number in range(5)).lstrip(" ") == "the rivers \n"


def test_models_of_two_sizes_are_compared_on_their_tokens():
    ids = [0, *tokenizer()("the river crosses old stone").input_ids]
    plain = _view(llama(0), llama(1, layers=2), ids)
    wide = _view(padded(llama(0), 304), padded(llama(1, layers=2), 320), ids, VOCABULARY)
    for one, other in zip(plain[1:], wide[1:], strict=True):
        for name in ("kl", "teacher_nll", "student_nll"):
            assert other[name] == pytest.approx(one[name], rel=1e-4)
