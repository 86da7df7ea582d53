"""Passages: how a student differs from its teacher on each token of a document."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

TOP = 5


def token_view(
    teacher: Float[Tensor, "N V"], student: Float[Tensor, "N V"], tokenizer: Any, input_ids: list[int]
) -> list[dict[str, Any]]:
    """Each of the N + 1 tokens of a document, and the predictions of both models for it.

    Returns one dict for each token. It has `text`. All but the first, which nothing predicts, also have `kl` (nats, of
    the teacher against the student), `teacher_nll`, `student_nll` (nats), `teacher_top5` and `student_top5` ((text,
    probability)).

    Args:
        teacher: its log-probabilities for the tokens after the first.
        student: the same of the student.
    """
    kl = (teacher.exp() * (teacher - student)).sum(-1)
    view: list[dict[str, Any]] = [{"text": piece(tokenizer, input_ids[0])}]
    for place, token in enumerate(input_ids[1:]):
        view.append(
            {
                "text": piece(tokenizer, token),
                "kl": kl[place].item(),
                "teacher_nll": -teacher[place, token].item(),
                "student_nll": -student[place, token].item(),
                "teacher_top5": _likeliest(teacher[place], tokenizer),
                "student_top5": _likeliest(student[place], tokenizer),
            }
        )
    return view


def piece(tokenizer: Any, token: int) -> str:
    """A token's text within a document. A sentencepiece token that is decoded alone loses the space before it."""
    text: str = tokenizer.decode([token])
    begins_a_word = str(tokenizer.convert_ids_to_tokens(token)).startswith("\u2581")
    return f" {text}" if begins_a_word and not text.startswith(" ") else text


def _likeliest(log_probs: Tensor, tokenizer: Any) -> list[tuple[str, float]]:
    top = log_probs.topk(TOP)
    pairs = zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
    return [(piece(tokenizer, token), value) for token, value in pairs]
