"""The likelihood of spans of text, from two numbers of each of a model's tokens.

A span goes from one word end to the next (``data/token_alignment.py``). Its likelihood is that of its bytes and of a
space after them, given the text before it and its own space:

    log p(span) = Σ log p(token) + log m(end) - log m(begin)

where m, the word mass, is the probability that the next token begins with a space. Both events are sets of texts, not
of tokens, so the likelihoods of two models are comparable, whatever their tokenizers are. Two models of one
distribution of texts give a span the same likelihood, exactly, if both tokenizers begin a token at each space that
follows no white space, and if the models give no mass to tokens that their tokenizers would not choose. Byte-level
BPE and sentencepiece do the first, and trained models nearly do the second. At an opening, such as a document's
separator, nothing is known of the next byte, and m(begin) is 1.

A turn of a conversation ends with a token of its own, the end of turn. There, m(end) is the probability of that token:
both models answer how likely the last words are, and that the turn ends after them.

The mass at the end is the debiasing of Minixhofer, Vulić & Ponti (2025, arXiv:2503.20083). Divided by the mass at the
beginning, the likelihood is also right where a model had thought the word's end improbable.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEAST_WORD_MASS = 0.1
"""Where a teacher thought the end of a word less likely than this, no span begins or ends: it goes on to the next one.
It is the published threshold of chunks."""

LEAST_LOG_MASS = -60.0
"""The least logarithm of a word mass: what float32 can divide by."""


class TokenNumbers(NamedTuple):
    """Two numbers for each of a model's predictions: all that spans need of it."""

    log_p: Float[Tensor, "N"]
    """The log-probability of the token that follows."""
    log_mass: Float[Tensor, "N"]
    """The logarithm of the word mass."""


class VocabularySums(NamedTuple):
    """What the numbers need of all of a prediction's logits."""

    top: Float[Tensor, "n"]
    """The greatest logit."""
    total: Float[Tensor, "n"]
    """The sum of the exponentials of the logits less the greatest."""
    mass: Float[Tensor, "n"]
    """The part of it of ids that begin with a space."""


def row_sums(logits: Float[Tensor, "n V"], begins_word: Float[Tensor, "V"]) -> VocabularySums:
    """The sums of some predictions.

    Args:
        logits: of the predictions.
        begins_word: 1 for each id whose bytes begin with a space, 0 for the others; in the dtype of the logits.
    """
    top = logits.amax(-1, keepdim=True)
    exponentials = (logits - top).exp_()
    return VocabularySums(top[:, 0], exponentials.sum(-1), exponentials @ begins_word)


def numbers_of_sums(
    sums: VocabularySums,
    at_label: Float[Tensor, "n"],
    labels: Int[Tensor, "n"],
    ends_turn: Bool[Tensor, "V"] | None = None,
) -> tuple[TokenNumbers, Float[Tensor, "n"]]:
    """The numbers of some predictions, and the logarithm of the sum of the exponentials of their logits.

    Args:
        sums: of the predictions.
        at_label: the logits of the labels.
        labels: the tokens that follow.
        ends_turn: whether an id ends a turn; None: none does. Where it is the label, the word mass is its probability.
    """
    top, total, mass = sums
    if ends_turn is not None:
        mass = torch.where(ends_turn[labels], (at_label - top).exp(), mass)
    log_sum = top + total.log()
    return TokenNumbers(at_label - log_sum, (mass / total).log().clamp_min(LEAST_LOG_MASS)), log_sum


def span_of_each_row(spans: Int[Tensor, "S 2"], rows: int) -> Int[Tensor, "N"]:
    """The number of the span that each prediction is of; S for a prediction that is of none."""
    begins, ends = torch.zeros(2, rows + 1, dtype=torch.int64, device=spans.device)
    one = torch.ones_like(spans[:, 0])
    begins.index_add_(0, spans[:, 0], one)
    ends.index_add_(0, spans[:, 1], one)
    begun, ended = begins.cumsum(0)[:rows], ends.cumsum(0)[:rows]
    return torch.where(begun > ended, begun - 1, len(spans))


def log_likelihoods(spans: Int[Tensor, "S 2"], opens: Bool[Tensor, "S"], numbers: TokenNumbers) -> Float[Tensor, "S"]:
    """The log-likelihood of each span.

    Args:
        spans: the first prediction of each span, and the prediction after its last.
        opens: whether a span begins at an opening.
        numbers: of all predictions.
    """
    own = span_of_each_row(spans, len(numbers.log_p))
    total = numbers.log_p.new_zeros(len(spans) + 1).index_add_(0, own, numbers.log_p)[:-1]
    begin, end = numbers.log_mass[spans[:, 0]], numbers.log_mass[spans[:, 1]]
    return total + end - begin.masked_fill(opens, 0.0)


class Groups(NamedTuple):
    """Spans that are joined to groups, because a word's end between them was too improbable."""

    of_span: Int[Tensor, "S"]
    """The number of each span's group. There are at most S groups."""
    log_q: Float[Tensor, "S"]
    """The teacher's log-likelihood of each group."""
    used: Bool[Tensor, "S"]
    """Whether there is a group of this number that begins and ends where the teacher thought a word's end probable."""


def joined(
    spans: Int[Tensor, "S 2"],
    opens: Bool[Tensor, "S"],
    follows: Bool[Tensor, "S"],
    numbers: TokenNumbers,
    closes: Bool[Tensor, "S"] | None = None,
) -> Groups:
    """The groups of a teacher's spans. The log-likelihood of a group is the sum of its spans'.

    No number is read from a GPU, so there are as many groups as spans, of which some are not used.

    Args:
        spans: as ``log_likelihoods`` takes them, of the teacher's own predictions.
        opens: whether a span begins at an opening.
        follows: whether a span begins where the one before it ends.
        numbers: of all of the teacher's predictions.
        closes: whether a span ends where a turn ends, however improbable that was; None: none does.
    """
    likely = numbers.log_mass >= torch.tensor(LEAST_WORD_MASS).log()
    begins_well, ends_well = likely[spans[:, 0]] | opens, likely[spans[:, 1]]
    ends_well = ends_well if closes is None else ends_well | closes
    is_first = ~follows | begins_well
    is_last = torch.ones_like(is_first)
    is_last[:-1] = is_first[1:]
    of_span = (is_first.long().cumsum(0) - 1).clamp_min(0)
    none = torch.zeros(len(spans), dtype=torch.int64, device=spans.device)
    begun = none.index_add(0, of_span, (is_first & begins_well).long())
    ended = none.index_add(0, of_span, (is_last & ends_well).long())
    each = log_likelihoods(spans, opens, numbers)
    return Groups(of_span, torch.zeros_like(each).index_add_(0, of_span, each), (begun > 0) & (ended > 0))
