"""The losses against a teacher of another tokenizer, chunk by chunk, with the gradient in the forward.

A span's likelihood needs all of its tokens before any gradient. So the logits of the batch are read twice: once for two
numbers a token (``span_likelihood.py``), and once to be replaced by their gradient. One chunk stays in memory between
the two; of several, the matrix products are computed twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.cross_tokenizer import RowLoss, likelihood_matching, shared_divergence, sorted_distance
from potstill.losses.divergence_gradients import Coefficient
from potstill.losses.logit_chunks import Logits, LogitsSource, RowsFrom, chunks, teacher_products
from potstill.losses.loss import Loss
from potstill.losses.pairing import Part
from potstill.losses.row_blocks import LossInputs, sums_of_chunks
from potstill.losses.span_likelihood import TokenNumbers, log_likelihoods, span_of_each_row
from potstill.losses.span_passes import Derivatives, can_fuse_spans, numbers_of_rows, span_slices, write_gradient
from potstill.losses.teacher_target import PairedRows, SpanTarget, leaves

Use = Callable[[int, int, Tensor], None]


def sums_of_target(
    inputs: LossInputs,
    student: LogitsSource,
    coefficients: Sequence[Coefficient],
    with_gradient: bool,
    use: Use = lambda first, last, product: None,
) -> Float[Tensor, "names"]:
    """``row_blocks.sums_of_chunks``, of any target."""
    if not any(isinstance(leaf, SpanTarget) for leaf in leaves(inputs.target)):
        return sums_of_chunks(inputs, student, coefficients, with_gradient, use)
    with torch.autocast(inputs.labels.device.type, enabled=False):
        batch = _SpanBatch(inputs, student)
        of_rows = batch.first_pass()
        totals = _Totals(inputs)
        of_tokens = _losses_of_spans(inputs, of_rows, coefficients, totals)
        if with_gradient or any(loss.kind in _OF_PAIRS for loss in inputs.pairing.losses):
            batch.second_pass(of_rows, of_tokens, coefficients, use, totals)
        batch.close()
    return torch.stack(totals.values)


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

    def where_turns_end(self, inputs: LossInputs) -> "_RowGradients":
        """The same, where the word mass is the probability of a label that ends a turn."""
        ends_turn = next(leaf.ends_turn for leaf in leaves(inputs.target) if isinstance(leaf, SpanTarget))
        if ends_turn is None:
            return self
        ending = ends_turn[inputs.labels][:, None]
        of_label = self.of_label + torch.where(ending, self.of_mass, 0.0)
        return _RowGradients(of_label, self.of_mass.masked_fill(ending, 0.0))


_OF_PAIRS = ("uld", "shared_tokens")
"""The losses of whole distributions at the same byte."""


class _Totals:
    """The sums of the numbers of a pairing."""

    def __init__(self, inputs: LossInputs) -> None:
        self._pairing = inputs.pairing
        zero = torch.zeros((), dtype=torch.float32, device=inputs.labels.device)
        self.values: list[Tensor] = [zero] * len(inputs.pairing.names)

    def add(self, part: Part, position: int, value: Float[Tensor, ""]) -> None:
        """Add the sum of a loss against one teacher."""
        self.values[position] = self.values[position] + part.share_of(self._pairing.losses[position]) * value
        if part.member is not None and self._pairing.losses[position].needs_teacher:
            place = self._pairing.of_member(part.member, position)
            self.values[place] = self.values[place] + part.share_of_member * value


class _Term(NamedTuple):
    """A loss against one teacher."""

    number: int
    """The number of the teacher's part."""
    part: Part
    position: int
    """The loss's position."""
    loss: Loss
    coefficient: Coefficient
    """The loss's coefficient with the teacher's share."""


def _terms(inputs: LossInputs, coefficients: Sequence[Coefficient]) -> Iterator[_Term]:
    for number, part in enumerate(inputs.pairing.parts):
        for position in part.positions:
            loss = inputs.pairing.losses[position]
            yield _Term(number, part, position, loss, part.share_of(loss) * coefficients[position])


def _losses_of_spans(
    inputs: LossInputs, rows: _RowNumbers, coefficients: Sequence[Coefficient], totals: _Totals
) -> _RowGradients:
    """Add the sums of cross-entropy and of likelihood matching to the totals. Returns the gradient of both."""
    log_p, log_mass = rows.numbers
    of_label, of_mass = torch.zeros_like(log_p), torch.zeros_like(log_mass)
    for _, part, position, loss, coefficient in _terms(inputs, coefficients):
        target = part.target
        assert isinstance(target, SpanTarget)
        if loss.kind == "cross_entropy":
            total, weights = -log_p.sum(), inputs.label_weights
            if weights is not None:
                weights = weights.detach().to(log_p.dtype)
                # A label that the student gives no probability is 0 * inf where it does not count.
                total = -torch.where(weights != 0, weights * log_p, 0.0).sum()
            totals.add(part, position, total)
            of_label = of_label - coefficient * (1.0 if weights is None else weights)
        elif loss.kind == "alm":
            each = log_likelihoods(target.spans, target.opens, rows.numbers)
            of_group = torch.zeros_like(each).index_add_(0, target.group, each)
            values, slopes = likelihood_matching(of_group, target.log_q.to(each.dtype))
            totals.add(part, position, torch.where(target.used, values, 0.0).sum())
            slope = coefficient * torch.where(target.used, slopes, 0.0)[target.group]
            own = span_of_each_row(target.spans, len(log_p))
            of_label = of_label + torch.cat([slope, slope.new_zeros(1)])[own]
            of_mass = of_mass.index_add(0, target.spans[:, 1], slope)
            of_mass = of_mass.index_add(0, target.spans[:, 0], -slope.masked_fill(target.opens, 0.0))
    return _RowGradients(of_label[:, None], of_mass[:, None]).where_turns_end(inputs)


class _TeacherLogits(NamedTuple):
    """A teacher's logits of a chunk."""

    logits: Logits
    origin: int
    """The number of their first row among all rows of the teacher."""


class _PairedTeacher:
    """A teacher's distributions where both tokenizations stand at the same byte."""

    def __init__(self, pairs: PairedRows, casts: Any) -> None:
        self.pairs = pairs
        (self.source,) = teacher_products(pairs.whole, pairs.vocabulary, casts)
        # How many of the first tokens have a teacher's row, and which they are. Nothing else is read from a GPU, and so
        # its reads do not grow with the number of blocks.
        self._before = [0, *pairs.is_paired.cumsum(0).tolist()]
        self._places = pairs.is_paired.nonzero()[:, 0]

    def logits(self, first: int, last: int, most: int) -> _TeacherLogits:
        """The logits at the tokens from ``first`` to ``last``."""
        start, stop = self._before[first], self._before[last]
        return _TeacherLogits(self.source.logits(start, stop, most), start)

    def places(self, at: slice) -> Int[Tensor, "p"]:
        """Which of some tokens have a row, counted from the first of them."""
        return self._places[self._before[at.start] : self._before[at.stop]] - at.start

    def finished(self, of: _TeacherLogits, at: slice) -> Float[Tensor, "p W"]:
        """The finished logits at some tokens of a chunk."""
        start, stop = (self._before[number] - of.origin for number in (at.start, at.stop))
        return of.logits.rows(start, stop).finished()


class _SpanBatch:
    """The logits of a batch, or of a group of its tokens, which are read twice."""

    def __init__(self, inputs: LossInputs, student: LogitsSource) -> None:
        self._inputs, self._student = inputs, RowsFrom(student, inputs.first) if inputs.first else student
        first = next(leaves(inputs.target))
        assert isinstance(first, SpanTarget)
        self._begins_word, self._ends_turn = first.begins_word, first.ends_turn
        targets = enumerate(part.target for part in inputs.pairing.parts)
        self._paired = {
            number: _PairedTeacher(target.pairs, inputs.casts)
            for number, target in targets
            if isinstance(target, SpanTarget) and target.pairs is not None
        }
        self._sources = [self._student, *(one.source for one in self._paired.values())]
        self._chunks = list(chunks(len(inputs.labels), inputs.memory_budget, self._sources, inputs.buffers))
        self._kept: Logits | None = None

    def close(self) -> None:
        """Give the memory of the logits back."""
        for source in self._sources:
            source.close()

    def _logits(self, first: int, last: int, most: int) -> Logits:
        if self._kept is not None and len(self._chunks) == 1:
            return self._kept
        self._kept = self._student.logits(first, last, most)
        return self._kept

    def first_pass(self) -> _RowNumbers:
        """The numbers of each token."""
        found: list[tuple[TokenNumbers, Tensor]] = []
        how = self._begins_word, self._ends_turn, self._inputs.compile, self._inputs.memory_budget
        for first, last, most in self._chunks:
            logits, labels = self._logits(first, last, most), self._inputs.labels[first:last]
            found.append(numbers_of_rows(logits, labels, *how))
        numbers = TokenNumbers(*(torch.cat(each) for each in zip(*(one for one, _ in found), strict=True)))
        return _RowNumbers(numbers, torch.cat([log_sum for _, log_sum in found]))

    def second_pass(
        self,
        rows: _RowNumbers,
        gradients: _RowGradients,
        coefficients: Sequence[Coefficient],
        use: Use,
        totals: _Totals,
    ) -> None:
        """Replace the logits by their gradient, and add the sums of the losses of pairs to the totals."""
        begin, fuses = self._inputs.first, self._inputs.compile and not self._paired
        for first, last, most in self._chunks:
            logits = self._logits(first, last, most)
            teachers = {number: one.logits(first, last, most) for number, one in self._paired.items()}
            for block in span_slices(logits, fuses, self._inputs.memory_budget, self._inputs.buffers):
                at = slice(first + block.start, first + block.stop)
                own = logits.rows(block.start, block.stop)
                if fuses and can_fuse_spans(own):
                    write_gradient(own, self._inputs.labels[at], _derivatives(rows, gradients, at), self._begins_word)
                    continue
                finished = own.finished()
                gradient = self._of_numbers(finished, rows, gradients, at)
                for term, where, one in self._of_pairs(finished, teachers, at, coefficients):
                    totals.add(term.part, term.position, one.values.sum())
                    gradient.index_add_(0, where, term.coefficient * one.gradient)
                own.product.copy_(own.back(gradient, finished))
            use(begin + first, begin + last, logits.product)

    def _of_pairs(
        self,
        student: Float[Tensor, "n V"],
        teachers: Mapping[int, _TeacherLogits],
        at: slice,
        coefficients: Sequence[Coefficient],
    ) -> Iterator[tuple[_Term, Int[Tensor, "p"], RowLoss]]:
        """The losses of whole distributions of some tokens, each with the tokens that are at the same byte as its
        teacher."""
        for number, logits in teachers.items():
            paired = self._paired[number]
            theirs = paired.finished(logits, at)
            where = paired.places(at)
            for term in _terms(self._inputs, coefficients):
                if term.number == number and term.loss.kind in _OF_PAIRS:
                    yield term, where, _pair_loss(term.loss, student[where], theirs, paired.pairs)

    def _of_numbers(
        self, logits: Float[Tensor, "n V"], rows: _RowNumbers, gradients: _RowGradients, at: slice
    ) -> Float[Tensor, "n V"]:
        """The gradient for some logits from the derivatives for their two numbers."""
        log_sum, of_words, of_others, of_label = _derivatives(rows, gradients, at)
        p = (logits - log_sum).exp_()
        gradient = p.mul_(torch.where(self._begins_word[None], of_words, of_others))
        return gradient.scatter_add_(1, self._inputs.labels[at, None], of_label)


def _derivatives(rows: _RowNumbers, gradients: _RowGradients, at: slice) -> Derivatives:
    """What the gradient for some logits is made of.

    ``d log p(label) = onehot - p`` and ``d log m = p (in words) / m - p``.
    """
    of_label, of_mass = gradients.of_label[at], gradients.of_mass[at]
    of_others = -of_label - of_mass
    of_words = of_mass / rows.numbers.log_mass[at, None].exp() + of_others
    return Derivatives(rows.log_sum[at, None], of_words, of_others, of_label)


def _pair_loss(loss: Loss, student: Float[Tensor, "p V"], teacher: Float[Tensor, "p W"], pairs: PairedRows) -> RowLoss:
    """A loss of whole distributions at the same bytes, with its temperature."""
    log_p, log_q = (log_softmax(logits / loss.temperature, -1) for logits in (student, teacher))
    if loss.kind == "uld":
        one = sorted_distance(log_p, log_q)
    else:
        one = shared_divergence(log_p, log_q, pairs.ours, pairs.theirs)
    # The logits are divided by the temperature before they are normalised.
    return RowLoss(loss.scale * one.values, loss.scale / loss.temperature * one.gradient)
