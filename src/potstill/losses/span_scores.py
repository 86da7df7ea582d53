"""Span scores: a teacher's two numbers for each of its tokens, from its outputs, without gradient."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from potstill.losses.span_likelihood import TokenNumbers, token_numbers
from potstill.losses.token_scores import WholeDistributions, logits_in_blocks


@torch.no_grad()
def numbers_of(
    outputs: WholeDistributions,
    labels: Int[Tensor, "N"],
    begins_word: Bool[Tensor, "V"],
    ends_turn: Bool[Tensor, "V"] | None = None,
) -> TokenNumbers:
    """The numbers of a model's predictions.

    Args:
        outputs: the model's outputs at its supervised tokens.
        labels: the tokens that follow.
        begins_word: whether the bytes of each id begin with a space; ids beyond are padding.
        ends_turn: whether each id ends a turn; None: none does.
    """
    if not len(labels):
        nothing = torch.zeros(0, device=labels.device)
        return TokenNumbers(nothing, nothing)
    found = []
    with torch.autocast(labels.device.type, enabled=False):
        for rows, (logits,) in logits_in_blocks([outputs], labels, len(begins_word)):
            found.append(token_numbers(logits, labels[rows], begins_word.to(logits.dtype), ends_turn)[0])
    return TokenNumbers(*(torch.cat(each) for each in zip(*found, strict=True)))
