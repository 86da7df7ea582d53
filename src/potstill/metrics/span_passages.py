"""Passages of two tokenizers: how much more each span of a text surprises a student than its teacher."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from potstill.data.token_bytes import TokenBytes
from potstill.losses.span_likelihood import TokenNumbers, log_likelihoods
from potstill.losses.teacher_target import SpanTarget


def span_view(
    target: SpanTarget, student: TokenNumbers, labels: Int[Tensor, "N"], tokens: TokenBytes
) -> list[dict[str, Any]]:
    """The text of a document in pieces: spans that were joined (``span_likelihood.joined``), and what lies between.

    Returns one dict for each piece. It has `text`. A span that is compared also has `excess`, the nats by which the
    text surprises the student more than the teacher (below 0: less), and `student_nll` and `teacher_nll`, both
    surprises.

    Args:
        target: what the teacher says of the document, which is a batch of its own.
        student: of the student's predictions.
        labels: the tokens that follow them.
        tokens: the bytes of the student's tokens.
    """
    each = log_likelihoods(target.spans, target.opens, student)
    ours = torch.zeros_like(each).index_add_(0, target.group, each)
    view: list[dict[str, Any]] = []
    done = 0
    for number in target.group.unique_consecutive().tolist():
        own = target.spans[target.group == number]
        first, last = int(own[0, 0]), int(own[-1, 1])
        view += _piece(labels[done:first], tokens)
        compared = {} if not target.used[number] else _surprises(float(ours[number]), float(target.log_q[number]))
        view += _piece(labels[first:last], tokens, **compared)
        done = last
    return [*view, *_piece(labels[done:], tokens)]


def _surprises(log_p: float, log_q: float) -> dict[str, float]:
    return {"excess": log_q - log_p, "student_nll": -log_p, "teacher_nll": -log_q}


def _piece(labels: Int[Tensor, "n"], tokens: TokenBytes, **compared: float) -> list[dict[str, Any]]:
    content = tokens.joined(labels.tolist())
    return [{"text": content.decode(errors="replace"), **compared}] if content else []
