"""Row blocks: the same few rows of every matrix product, turned into values per token and the product's gradient."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.divergence_gradients import Coefficient
from potstill.losses.logit_chunks import CastWeights, Logits, LogitsSource, RowsFrom, chunks, teacher_products
from potstill.losses.loss import Loss
from potstill.losses.pairing import Pairing, Part
from potstill.losses.row_gradients import dense, sparse
from potstill.losses.row_gradients_compiled import can_fuse, fused_dense, fused_sparse
from potstill.losses.teacher_target import MixedTarget, SparseTarget, TeacherTarget, leaves
from potstill.models.head import statistics_dtype

# Logits in one block: on a CPU, as many as stay in its cache with the buffers between the passes. On a GPU, as many as
# fit into the budget's share for these buffers, and never fewer than keep it busy.
_ON_CPU, _ON_GPU = 2**18, 2**22
# Bytes of the buffers a logit, at most: of a dense teacher (JSD needs most), and of a sparse one or none.
_BYTES, _BYTES_ALONE = 64, 32
# One part in so many of the budget is for the buffers. Eager passes on a GPU get half of it: each pass is a launch,
# which takes the host about as long as the GPU takes for five million logits, and a block has dozens of passes.
_BUFFERS, _EAGER_BUFFERS_ON_GPU = 8, 2
# Fused passes need few buffers, so their blocks are larger by this factor. On a GPU each block is one call, and that
# takes about as long as the passes over a block of two.
_IF_FUSED_ON_CPU, _IF_FUSED_ON_GPU = 2, 10
# Without a dense teacher there is no buffer at all, and the call itself weighs most. Against a sparse target each block
# has some dozen small operations between its two passes.
_IF_FUSED_ALONE_ON_CPU = 8


@dataclass(frozen=True)
class RowBlock:
    """The same rows of the student, the teachers (in the order of ``leaves``) and the labels with their weights."""

    student: Logits
    teachers: Sequence[Logits]
    sparse: Sequence[SparseTarget]
    labels: Int[Tensor, "N"]
    label_weights: Float[Tensor, "N"] | None = None

    def __getitem__(self, rows: slice) -> "RowBlock":
        first, last = rows.start, rows.stop
        return RowBlock(
            self.student.rows(first, last),
            [teacher.rows(first, last) for teacher in self.teachers],
            [target.rows(first, last) for target in self.sparse],
            self.labels[first:last],
            None if self.label_weights is None else self.label_weights[first:last],
        )

    def with_label_weights(self, weights: Float[Tensor, "N"]) -> "RowBlock":
        """The same rows with weights for their labels, without gradient and in the dtype of the values."""
        return replace(self, label_weights=weights.detach().to(statistics_dtype(self.student.product.dtype)))

    def weighted(self, losses: Sequence[Loss], coefficients: Sequence[Coefficient]) -> Sequence[Coefficient]:
        """The coefficients, with those of cross-entropy multiplied by each token's weight."""
        if self.label_weights is None:
            return coefficients
        weights = self.label_weights[:, None]
        return [c if loss.needs_teacher else c * weights for loss, c in zip(losses, coefficients, strict=True)]

    def sums(self, losses: Sequence[Loss], values: Float[Tensor, "names N"]) -> Float[Tensor, "names"]:
        """The sums over the tokens, with each token's weight in those of cross-entropy. It overwrites ``values``."""
        if self.label_weights is not None:
            for i, loss in enumerate(losses):
                if not loss.needs_teacher:
                    # A label that the student gives no probability is 0 * inf where it does not count.
                    values[i] = torch.where(self.label_weights != 0, self.label_weights * values[i], 0.0)
        return values.sum(-1)


@dataclass(frozen=True)
class LossInputs:
    """Everything that the losses of a batch depend on, except the student's states and its head.

    ``target`` is None where no loss compares the student with a teacher. See ``chunked.distillation_loss``. Where the
    tokens have different teachers, each group of them has inputs of its own. ``first`` is then the place of its first
    token.
    """

    labels: Int[Tensor, "N"]
    target: TeacherTarget | None
    pairing: Pairing
    denominator: float | Tensor
    vocabulary: int
    memory_budget: int
    compile: bool
    casts: CastWeights | None = None
    label_weights: Float[Tensor, "N"] | None = None
    first: int = 0

    @property
    def buffers(self) -> int:
        """One part in so many of the memory budget is for the buffers between the passes over a few rows."""
        return parts_for_buffers(self.labels.device, self.compile)

    def chunks(self, student: LogitsSource) -> Iterator[tuple[int, int, RowBlock]]:
        """First token, last token and rows of each chunk, at their places in the batch, with the labels' weights.

        The next chunk's logits overwrite those of a chunk. Autocast counts as it is at the call, not at the first
        chunk. The caller keeps no logits after the last chunk.
        """
        begin, weights = self.first, self.label_weights
        chunks = _rows_in_chunks(self, RowsFrom(student, begin) if begin else student)
        if weights is not None:
            chunks = ((first, last, rows.with_label_weights(weights[first:last])) for first, last, rows in chunks)
        return ((begin + first, begin + last, rows) for first, last, rows in chunks)


def weights_beside(groups: Sequence[LossInputs], values: Float[Tensor, "names"]) -> Float[Tensor, "names"]:
    """The factor of each named number of each group in the loss (``Pairing.weights_beside``)."""
    return torch.cat([inputs.pairing.weights_beside(values) for inputs in groups])


def _rows_in_chunks(inputs: LossInputs, student: LogitsSource) -> Iterator[tuple[int, int, RowBlock]]:
    """First token, last token and rows of each chunk, counted from the first of these tokens."""
    teachers = teacher_products(inputs.target, inputs.vocabulary, inputs.casts)
    sparse = [leaf for leaf in leaves(inputs.target) if isinstance(leaf, SparseTarget)]
    labels = inputs.labels

    def rows(first: int, last: int, most: int) -> RowBlock:
        return RowBlock(
            student.logits(first, last, most),
            [teacher.logits(first, last, most) for teacher in teachers],
            [leaf.rows(first, last) for leaf in sparse],
            labels[first:last],
        )

    def each() -> Iterator[tuple[int, int, RowBlock]]:
        for first, last, most in chunks(len(labels), inputs.memory_budget, [student, *teachers], inputs.buffers):
            yield first, last, rows(first, last, most)
        for source in (student, *teachers):
            source.close()

    return each()


def sums_of_chunks(
    inputs: LossInputs,
    student: LogitsSource,
    coefficients: Sequence[Coefficient],
    with_gradient: bool,
    use: Callable[[int, int, Float[Tensor, "n V"]], None] = lambda first, last, product: None,
) -> Float[Tensor, "names"]:
    """Sums over all tokens of the pairing's numbers, chunk by chunk.

    Args:
        inputs: all but the student.
        student: its logits. Each chunk's product is overwritten by its gradient.
        coefficients: of each loss, in the gradient.
        with_gradient: whether the gradient is wanted.
        use: told the first and last token of each chunk and the gradient for its product.
    """
    total: Tensor | None = None
    chunks = inputs.chunks(student)
    with torch.autocast(inputs.labels.device.type, enabled=False):
        for first, last, rows in chunks:
            found = replace_by_gradient(inputs, rows, coefficients, with_gradient)
            total = found if total is None else total + found
            use(first, last, rows.student.product)
    assert total is not None
    return total


def replace_by_gradient(
    inputs: LossInputs, rows: RowBlock, coefficients: Sequence[Coefficient], with_gradient: bool
) -> Float[Tensor, "names"]:
    """Sums over the tokens of the pairing's numbers. Overwrites the student's product by the gradient for it."""
    pairing = inputs.pairing
    losses, device = pairing.losses, rows.labels.device
    fused = inputs.compile and can_fuse(pairing, rows.student)
    total = torch.zeros(len(pairing.names), dtype=statistics_dtype(rows.student.product.dtype), device=device)
    for block in _small_blocks(rows, _logits_at_once(inputs, rows, fused)):
        weighted = block.weighted(losses, coefficients)
        if fused and len(block.labels) > 1:
            student, labels = block.student, block.labels
            if block.sparse:
                values = fused_sparse(student, block.sparse[0], labels, losses, weighted, with_gradient)
            else:
                teacher = block.teachers[0] if block.teachers else None
                values = fused_dense(student, teacher, labels, losses, weighted, with_gradient)
            total += block.sums(losses, values)
            continue
        values, gradient = values_and_gradient(pairing, block, weighted, with_gradient)
        total += block.sums(losses, values)
        if gradient is not None:
            block.student.product.copy_(gradient)
    return total


def _logits_at_once(inputs: LossInputs, rows: RowBlock, fused: bool) -> int:
    """The number of logits in a block. Fused on a GPU, all rows with a sparse target are one block."""
    device = rows.labels.device
    if not fused:
        each = _BYTES if rows.teachers else _BYTES_ALONE
        return block_logits(device, inputs.memory_budget, inputs.buffers, each)
    one = block_logits(device, inputs.memory_budget, inputs.buffers)
    if device.type == "cpu" and not rows.teachers:
        return one * _IF_FUSED_ALONE_ON_CPU
    return rows.student.product.numel() if rows.sparse else one * larger_if_fused(device)


def larger_if_fused(device: torch.device) -> int:
    """The factor of the blocks whose passes are fused."""
    return _IF_FUSED_ON_CPU if device.type == "cpu" else _IF_FUSED_ON_GPU


def _small_blocks(rows: RowBlock, logits: int) -> Iterator[RowBlock]:
    for block in small_slices(len(rows.student), rows.student.product.shape[1], logits):
        yield rows[block]


def small_slices(tokens: int, vocabulary: int, logits: int) -> Iterator[slice]:
    """The places of the small blocks within some rows, each of about so many logits.

    So the buffers between passes stay in a CPU's cache, or within a GPU's budget.
    """
    at_once = max(2, logits // vocabulary)
    for first in range(0, tokens, at_once):
        yield slice(first, min(first + at_once, tokens))


def parts_for_buffers(device: torch.device, compile: bool) -> int:
    """One part in so many of the memory budget is for the buffers between the passes over a few rows."""
    return _BUFFERS if device.type == "cpu" or compile else _EAGER_BUFFERS_ON_GPU


def block_logits(device: torch.device, memory_budget: int, buffers: int = _BUFFERS, each: int = _BYTES) -> int:
    """The number of logits in a block whose passes are not fused.

    Args:
        device: that of the logits.
        memory_budget: of the loss, in bytes.
        buffers: one part in so many of it is for the buffers between the passes.
        each: bytes of these buffers for each logit.
    """
    return _ON_CPU if device.type == "cpu" else max(_ON_GPU, memory_budget // (buffers * each))


def values_and_gradient(
    pairing: Pairing, rows: RowBlock, coefficients: Sequence[Coefficient], with_gradient: bool
) -> tuple[Float[Tensor, "names N"], Float[Tensor, "N V"] | None]:
    """Each number of the pairing per token, and the gradient of Σ coefficient · loss for the student's product."""
    logits = rows.student.finished()
    values: list[Tensor | float] = [0.0] * len(pairing.names)
    gradient: Tensor | None = None
    dense_leaves, sparse_leaves = iter(rows.teachers), iter(rows.sparse)
    for part in pairing.parts:
        losses = [pairing.losses[i] for i in part.positions]
        shares = [part.share_of(loss) * coefficients[i] for i, loss in zip(part.positions, losses, strict=True)]
        if part.is_dense:
            members = [next(dense_leaves).finished() for _ in leaves(part.target)]
            at = _at_temperatures(part.target, members, losses)
            found, part_gradient = dense(logits, at, rows.labels, losses, shares, with_gradient)
            if part.member is None and isinstance(part.target, MixedTarget):
                _add_each_teacher(values, pairing, part.target, members, logits, rows.labels)
        else:
            target = next(sparse_leaves) if part.target is not None else None
            found, part_gradient = sparse(logits, target, rows.labels, losses, shares, with_gradient)
        _add_part(values, pairing, part, found)
        if part_gradient is not None:
            gradient = part_gradient if gradient is None else gradient.add_(part_gradient)
    if gradient is not None:
        gradient = rows.student.back(gradient, logits)
    return torch.stack([cast(Tensor, value) for value in values]), gradient


def _at_temperatures(
    target: TeacherTarget | None, members: Sequence[Float[Tensor, "N V"]], losses: Sequence[Loss]
) -> dict[float, Float[Tensor, "N V"]]:
    temperatures = {loss.temperature for loss in losses if loss.needs_teacher}
    return {temperature: mixed(target, iter(members), temperature) for temperature in temperatures}


def mixed(
    target: TeacherTarget | None, members: Iterator[Float[Tensor, "N V"]], temperature: float
) -> Float[Tensor, "N V"]:
    """Logits whose softmax at ``temperature`` is the distribution of a dense target, alone or an ensemble."""
    if not isinstance(target, MixedTarget):
        return next(members)
    each = [mixed(member, members, temperature) for member in target.targets]
    if target.mix == "logits":
        # A teacher without weight may forbid tokens: 0 * -inf is NaN.
        weighed = (weight * logits for weight, logits in zip(target.weights, each, strict=True) if weight)
        return sum(weighed, torch.zeros_like(each[0]))
    weighted = [
        log_softmax(logits / temperature, dim=-1) + torch.tensor(weight, dtype=logits.dtype).log()
        for weight, logits in zip(target.weights, each, strict=True)
    ]
    total = weighted[0]
    for other in weighted[1:]:
        total = torch.logaddexp(total, other)
    return temperature * total


def _add_part(values: list[Tensor | float], pairing: Pairing, part: Part, found: Sequence[Tensor]) -> None:
    for position, value in zip(part.positions, found, strict=True):
        values[position] = values[position] + part.share_of(pairing.losses[position]) * value
        if part.member is not None and pairing.losses[position].needs_teacher:
            place = pairing.of_member(part.member, position)
            values[place] = values[place] + part.share_of_member * value


def _add_each_teacher(
    values: list[Tensor | float],
    pairing: Pairing,
    target: MixedTarget,
    members: Sequence[Float[Tensor, "N V"]],
    student: Float[Tensor, "N V"],
    labels: Int[Tensor, "N"],
) -> None:
    """Set the distance between the student and each member of a dense ensemble, without gradient."""
    positions = [i for i, loss in enumerate(pairing.losses) if loss.needs_teacher]
    losses = [pairing.losses[i] for i in positions]
    remaining = iter(members)
    for place, member in enumerate(target.targets):
        at = _at_temperatures(member, [next(remaining) for _ in leaves(member)], losses)
        found, _ = dense(student, at, labels, losses, [0.0] * len(losses), with_gradient=False)
        for position, value in zip(positions, found, strict=True):
            values[pairing.of_member(place, position)] = value
