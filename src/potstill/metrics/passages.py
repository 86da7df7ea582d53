"""Passages: how a student differs from its teacher on each token of a document."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

TOP = 5


@torch.no_grad()
def token_view(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    tokenizer: Any,
    input_ids: list[int],
    vocabulary: int | None = None,
) -> list[dict[str, Any]]:
    """Each token of a document, and the predictions of both models for it.

    Returns one dict for each token. It has `text`. All but the first, which nothing predicts, also have `kl` (nats, of
    the teacher against the student), `teacher_nll`, `student_nll` (nats), `teacher_top5` and `student_top5` ((text,
    probability)). If `vocabulary` is given, both distributions are over ids below it.
    """
    ids = torch.tensor([input_ids], device=student.device)
    theirs, ours = (_log_probs(model, ids, vocabulary) for model in (teacher, student))
    kl = (theirs.exp() * (theirs - ours)).sum(-1)
    view: list[dict[str, Any]] = [{"text": piece(tokenizer, input_ids[0])}]
    for place, token in enumerate(input_ids[1:]):
        view.append(
            {
                "text": piece(tokenizer, token),
                "kl": kl[place].item(),
                "teacher_nll": -theirs[place, token].item(),
                "student_nll": -ours[place, token].item(),
                "teacher_top5": _likeliest(theirs[place], tokenizer),
                "student_top5": _likeliest(ours[place], tokenizer),
            }
        )
    return view


def piece(tokenizer: Any, token: int) -> str:
    """A token's text within a document. A sentencepiece token that is decoded alone loses the space before it."""
    text: str = tokenizer.decode([token])
    begins_a_word = str(tokenizer.convert_ids_to_tokens(token)).startswith("\u2581")
    return f" {text}" if begins_a_word and not text.startswith(" ") else text


def _log_probs(model: PreTrainedModel, ids: Tensor, vocabulary: int | None) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits[0, :-1, :vocabulary].float().log_softmax(-1)


def _likeliest(log_probs: Tensor, tokenizer: Any) -> list[tuple[str, float]]:
    top = log_probs.topk(TOP)
    pairs = zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
    return [(piece(tokenizer, token), value) for token, value in pairs]
