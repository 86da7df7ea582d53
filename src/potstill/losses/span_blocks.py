"""The losses against a teacher of another tokenizer, chunk by chunk, with the gradient in the forward.

A span's likelihood needs all of its tokens before any gradient. So the logits of the batch are read twice: once for two
numbers a token (``span_likelihood.py``), and once to be replaced by their gradient. One chunk stays in memory between
the two; of several, the matrix products are computed twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.cross_tokenizer import RowLoss, likelihood_matching, shared_divergence, sorted_distance
from potstill.losses.divergence_gradients import Coefficient
from potstill.losses.logit_chunks import Logits, LogitsSource, chunks, teacher_products
from potstill.losses.loss import Loss
from potstill.losses.row_blocks import LossInputs, small_slices, sums_of_chunks
from potstill.losses.span_likelihood import TokenNumbers, log_likelihoods, span_of_each_row, token_numbers
from potstill.losses.teacher_target import PairedRows, SpanTarget
from potstill.models.head import statistics_dtype

Use = Callable[[int, int, Tensor], None]


def sums_of_target(
    inputs: LossInputs,
    student: LogitsSource,
    coefficients: Sequence[Coefficient],
    with_gradient: bool,
    use: Use = lambda first, last, product: None,
) -> Float[Tensor, "names"]:
    """``row_blocks.sums_of_chunks``, of any target."""
    if not isinstance(inputs.target, SpanTarget):
        return sums_of_chunks(inputs, student, coefficients, with_gradient, use)
    assert not inputs.first, "spans are of a whole batch"
    with torch.autocast(inputs.labels.device.type, enabled=False):
        batch = _SpanBatch(inputs, inputs.target, student)
        of_rows = batch.first_pass()
        totals, of_tokens = _losses_of_spans(inputs, inputs.target, of_rows, coefficients)
        paired = [i for i, loss in enumerate(inputs.pairing.losses) if loss.kind in _OF_PAIRS]
        if with_gradient or paired:
            for position, value in batch.second_pass(of_rows, of_tokens, coefficients, use).items():
                totals[position] = value
        batch.close()
    return torch.stack([totals[i] for i in range(len(inputs.pairing.losses))])


@dataclass(frozen=True)
class _RowNumbers:
    """What the first pass finds of each token."""

    numbers: TokenNumbers
    log_sum: Float[Tensor, "N"]


@dataclass(frozen=True)
class _RowGradients:
    """The derivatives of the loss for each token's two numbers."""

    of_label: Float[Tensor, "N 1"]
    of_mass: Float[Tensor, "N 1"]


_OF_PAIRS = ("uld", "shared_tokens")
"""The losses of whole distributions at the same byte."""


def _losses_of_spans(
    inputs: LossInputs, target: SpanTarget, rows: _RowNumbers, coefficients: Sequence[Coefficient]
) -> tuple[dict[int, Float[Tensor, ""]], _RowGradients]:
    """The sums of cross-entropy and of likelihood matching, by position, and the gradient of both."""
    log_p, log_mass = rows.numbers
    totals: dict[int, Tensor] = {}
    of_label, of_mass = torch.zeros_like(log_p), torch.zeros_like(log_mass)
    for i, (loss, coefficient) in enumerate(zip(inputs.pairing.losses, coefficients, strict=True)):
        if loss.kind == "cross_entropy":
            totals[i], weights = -log_p.sum(), inputs.label_weights
            if weights is not None:
                weights = weights.detach().to(log_p.dtype)
                # A label that the student gives no probability is 0 * inf where it does not count.
                totals[i] = -torch.where(weights != 0, weights * log_p, 0.0).sum()
            of_label = of_label - coefficient * (1.0 if weights is None else weights)
        elif loss.kind == "alm":
            each = log_likelihoods(target.spans, target.opens, rows.numbers)
            of_group = torch.zeros_like(each).index_add_(0, target.group, each)
            values, slopes = likelihood_matching(of_group, target.log_q.to(each.dtype))
            totals[i] = torch.where(target.used, values, 0.0).sum()
            slope = coefficient * torch.where(target.used, slopes, 0.0)[target.group]
            own = span_of_each_row(target.spans, len(log_p))
            of_label = of_label + torch.cat([slope, slope.new_zeros(1)])[own]
            of_mass = of_mass.index_add(0, target.spans[:, 1], slope)
            of_mass = of_mass.index_add(0, target.spans[:, 0], -slope.masked_fill(target.opens, 0.0))
    return totals, _RowGradients(of_label[:, None], of_mass[:, None])


class _SpanBatch:
    """The logits of a batch, which are read twice."""

    def __init__(self, inputs: LossInputs, target: SpanTarget, student: LogitsSource) -> None:
        self._inputs, self._target, self._student = inputs, target, student
        pairs = target.pairs
        self._teachers = [] if pairs is None else teacher_products(pairs.whole, pairs.vocabulary, inputs.casts)
        # How many of the first tokens have a teacher's row: the only numbers that are read from a GPU.
        self._paired_before = [] if pairs is None else [0, *pairs.is_paired.cumsum(0).tolist()]
        self._chunks = list(chunks(len(inputs.labels), inputs.memory_budget, [student, *self._teachers]))
        self._kept: Logits | None = None

    def close(self) -> None:
        """Give the memory of the logits back."""
        for source in (self._student, *self._teachers):
            source.close()

    def _logits(self, first: int, last: int, most: int) -> Logits:
        if self._kept is not None and len(self._chunks) == 1:
            return self._kept
        self._kept = self._student.logits(first, last, most)
        return self._kept

    def _blocks(self, product: Tensor) -> Iterator[slice]:
        rows, vocabulary = product.shape
        return small_slices(rows, vocabulary, product.device, memory_budget=self._inputs.memory_budget)

    def first_pass(self) -> _RowNumbers:
        """The numbers of each token."""
        found: list[tuple[TokenNumbers, Tensor]] = []
        begins = None
        for first, last, most in self._chunks:
            logits, labels = self._logits(first, last, most), self._inputs.labels[first:last]
            if begins is None:
                begins = self._target.begins_word.to(statistics_dtype(logits.product.dtype))
            for block in self._blocks(logits.product):
                rows = logits.rows(block.start, block.stop)
                found.append(token_numbers(rows.finished(), labels[block], begins))
        numbers = TokenNumbers(*(torch.cat(each) for each in zip(*(one for one, _ in found), strict=True)))
        return _RowNumbers(numbers, torch.cat([log_sum for _, log_sum in found]))

    def second_pass(
        self, rows: _RowNumbers, gradients: _RowGradients, coefficients: Sequence[Coefficient], use: Use
    ) -> dict[int, Float[Tensor, ""]]:
        """Replace the logits by their gradient. Returns the sums of the losses of pairs, by position."""
        totals: dict[int, Tensor] = {}
        for first, last, most in self._chunks:
            logits = self._logits(first, last, most)
            paired = self._paired(first, last)
            teachers = [teacher.logits(paired.start, paired.stop, most) for teacher in self._teachers]
            for block in self._blocks(logits.product):
                at = slice(first + block.start, first + block.stop)
                own = logits.rows(block.start, block.stop)
                finished = own.finished()
                gradient = self._of_numbers(finished, rows, gradients, at)
                here = self._paired(at.start, at.stop, paired.start)
                theirs = [teacher.rows(here.start, here.stop).finished() for teacher in teachers]
                for i, where, one in self._of_pairs(finished, theirs, at):
                    totals[i] = totals.get(i, 0.0) + one.values.sum()
                    gradient.index_add_(0, where, coefficients[i] * one.gradient)
                own.product.copy_(own.back(gradient, finished))
            use(first, last, logits.product)
        return totals

    def _paired(self, first: int, last: int, origin: int = 0) -> slice:
        """The teacher's rows of the pairs among some tokens, counted from number ``origin``."""
        before = self._paired_before
        return slice(before[first] - origin, before[last] - origin) if before else slice(0, 0)

    def _of_pairs(
        self, student: Float[Tensor, "n V"], teachers: Sequence[Float[Tensor, "p W"]], at: slice
    ) -> Iterator[tuple[int, Int[Tensor, "p"], RowLoss]]:
        """The losses of whole distributions of some tokens: the position of each, which of the tokens are at the same
        byte as the teacher, and what it is there."""
        pairs = self._target.pairs
        if pairs is None:
            return
        where = pairs.is_paired[at].nonzero()[:, 0]
        for i, loss in enumerate(self._inputs.pairing.losses):
            if loss.kind in _OF_PAIRS:
                yield i, where, _pair_loss(loss, student[where], teachers[0], pairs)

    def _of_numbers(
        self, logits: Float[Tensor, "n V"], rows: _RowNumbers, gradients: _RowGradients, at: slice
    ) -> Float[Tensor, "n V"]:
        """The gradient for some logits from the derivatives for their two numbers.

        ``d log p(label) = onehot - p`` and ``d log m = p (in words) / m - p``.
        """
        of_label, of_mass = gradients.of_label[at], gradients.of_mass[at]
        p = (logits - rows.log_sum[at, None]).exp_()
        of_words = of_mass / rows.numbers.log_mass[at, None].exp()
        begins = self._target.begins_word[None]
        gradient = p.mul_(torch.where(begins, of_words, 0.0) - of_label - of_mass)
        return gradient.scatter_add_(1, self._inputs.labels[at, None], of_label)


def _pair_loss(loss: Loss, student: Float[Tensor, "p V"], teacher: Float[Tensor, "p W"], pairs: PairedRows) -> RowLoss:
    """A loss of whole distributions at the same bytes, with its temperature."""
    log_p, log_q = (log_softmax(logits / loss.temperature, -1) for logits in (student, teacher))
    if loss.kind == "uld":
        one = sorted_distance(log_p, log_q)
    else:
        one = shared_divergence(log_p, log_q, pairs.ours, pairs.theirs)
    # The logits are divided by the temperature before they are normalised.
    return RowLoss(loss.scale * one.values, loss.scale / loss.temperature * one.gradient)
