"""The path that every loss takes: hidden states × head in chunks of tokens, with the gradient in the forward.

Memory never holds the logits of a whole batch. The path computes the logits of one chunk, replaces them by their
gradient, and multiplies that into the gradients for the hidden states and the head. The next chunk overwrites them, so
memory does not grow with the number of tokens. The backward only scales. The head's gradient is summed in fp32,
whatever the dtype of the matrix products (fp64 for fp64). A frozen head has no gradient buffer.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.chunked_logits import LossOfLogits
from potstill.losses.divergence_gradients import Coefficient
from potstill.losses.logit_chunks import CastWeights, ProductInChunks, detached, product_dtype
from potstill.losses.loss import Loss
from potstill.losses.pairing import Pairing, check_shapes
from potstill.losses.row_blocks import LossInputs, weights_beside
from potstill.losses.span_blocks import sums_of_target
from potstill.losses.teacher_target import GroupedTarget, TeacherTarget, TokenGroup
from potstill.losses.weight_gradients import HeadGradients
from potstill.models.head import Head

MEMORY_BUDGET = 256 * 2**20
"""Bytes for the logits of one chunk, the student's and its teachers', and for the buffers between the passes."""


def distillation_loss(
    states: Float[Tensor, "N states"],
    head: Head | None,
    labels: Int[Tensor, "N"],
    target: TeacherTarget | GroupedTarget | None,
    losses: Sequence[Loss],
    *,
    denominator: float | Tensor,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
    compile: bool = False,
    casts: CastWeights | None = None,
    label_weights: Float[Tensor, "N"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Σ over losses of weight · Σ over tokens of the divergence / denominator.

    Differentiable, once, for ``states``, ``head.weight`` and ``head.bias``. A tensor that needs no gradient costs none.

    Args:
        states: the student's last hidden states at supervised tokens only; its logits where ``head`` is None.
        head: the student's head, or None where it cannot be extracted from the model.
        labels: the id that follows each token; none is ``IGNORE_INDEX``.
        target: the teacher's rows for the same tokens, or None where all losses are cross-entropy. Where not all tokens
            have the same teachers, the groups of tokens: a group without teachers has no divergences.
        denominator: the number of supervised tokens of the whole optimizer step, all ranks and micro-batches.
        vocabulary: compare only the ids below this number; a head's rows beyond it are padding. See
            ``models/shared_vocabulary.py``.
        memory_budget: bytes for the logits of one chunk, the student's and its teachers', and for the buffers
            between the passes.
        compile: fuse the passes over the vocabulary with ``torch.compile``; see
            ``compiled_kernels.worth_compiling``.
        casts: keeps the heads in autocast's dtype from one call to the next, until its owner clears it.
        label_weights: a factor for each token's cross-entropy, of any sign and without gradient; None: 1.
            Divergences are not multiplied.

    Returns:
        The loss, and each loss's own mean without its weight, detached, by kind (``forward_kl``); for an ensemble also
        each teacher's (``forward_kl/teacher0``). The numbers of groups are added up, and each teacher of a group has
        its own under its name (``forward_kl/NAME``).

    Raises:
        UserError: losses and target do not fit: no target for a divergence, a group without teachers and without
            cross-entropy, a target of other rows or of another
            vocabulary than the student's, a sparse target of another temperature, or a sampled target for a divergence
            that needs an exact one; or not one label weight for each token.
    """
    width = states.shape[1] if head is None else len(head.weight)
    groups = _groups(target, len(states), losses)
    pairings = [_pairing(group, losses, target, width, vocabulary) for group in groups]
    if not len(states):
        nothing = torch.zeros(sum(len(pairing.names) for pairing in pairings), device=states.device)
        return _zero(states, head), _named(pairings, nothing)
    vocabulary = vocabulary or width
    check_labels(labels, vocabulary)
    if label_weights is not None:
        _check_label_weights(label_weights, labels)
    options = (denominator, vocabulary, memory_budget, compile, casts)
    whole = LossInputs(labels, None, pairings[0], *options, label_weights)
    loss, values = _applied(states, head, _of_groups(whole, groups, pairings))
    return loss, _named(pairings, values)


def _groups(
    target: TeacherTarget | GroupedTarget | None, tokens: int, losses: Sequence[Loss]
) -> tuple[TokenGroup, ...]:
    """The groups of tokens that have the same teachers; of a target without groups, all tokens."""
    if not isinstance(target, GroupedTarget):
        return (TokenGroup(tokens, target),)
    if len(target) != tokens:
        raise UserError(f"the target has {len(target)} rows, but there are {tokens} supervised tokens")
    alone = sum(group.tokens for group in target.groups if group.target is None)
    if alone and all(loss.needs_teacher for loss in losses):
        raise UserError(
            f"{alone} supervised tokens have no teacher, and without one only cross_entropy is learned; add it to the "
            "losses, or give these samples a teacher"
        )
    return tuple(group for group in target.groups if group.tokens)


def _pairing(
    group: TokenGroup,
    losses: Sequence[Loss],
    target: TeacherTarget | GroupedTarget | None,
    width: int,
    vocabulary: int | None,
) -> Pairing:
    """The pairing of a group of tokens, whose target is checked, with the losses that they learn from."""
    if isinstance(target, GroupedTarget) and group.target is None:
        losses = [loss for loss in losses if not loss.needs_teacher]
    pairing = Pairing.of(losses, group.target, group.teachers)
    if group.target is not None and pairing.needs_teacher:
        check_shapes(group.target, group.tokens, width, vocabulary)
    return pairing


def _of_groups(whole: LossInputs, groups: Sequence[TokenGroup], pairings: Sequence[Pairing]) -> list[LossInputs]:
    """The inputs of each group of tokens, from those of the whole batch."""
    found, first = list[LossInputs](), 0
    for group, pairing in zip(groups, pairings, strict=True):
        rows = slice(first, first + group.tokens)
        weights = None if whole.label_weights is None else whole.label_weights[rows]
        target = group.target if pairing.needs_teacher else None
        labels = whole.labels[rows]
        found.append(replace(whole, labels=labels, target=target, pairing=pairing, label_weights=weights, first=first))
        first = rows.stop
    return found


def _named(pairings: Sequence[Pairing], values: Float[Tensor, "names"]) -> dict[str, Float[Tensor, ""]]:
    """The numbers of all groups by their names. Those of one name are added up."""
    found: dict[str, Tensor] = {}
    for pairing, own in zip(pairings, values.split([len(one.names) for one in pairings]), strict=True):
        for name, value in pairing.named(own).items():
            found[name] = found[name] + value if name in found else value
    return found


def _count(pairings: Sequence[Pairing]) -> int:
    return sum(len(pairing.names) for pairing in pairings)


def check_labels(labels: Int[Tensor, "N"], vocabulary: int) -> None:
    """Check labels on a CPU only: to read a number from a GPU would wait for the whole queue.

    Raises:
        UserError: a label is not an id of the vocabulary.
    """
    if labels.device.type == "cpu" and not 0 <= int(labels.min()) <= int(labels.max()) < vocabulary:
        raise UserError(
            f"labels go from {int(labels.min())} to {int(labels.max())}, but there are {vocabulary} ids to compare"
        )


def _check_label_weights(weights: Float[Tensor, "N"], labels: Int[Tensor, "N"]) -> None:
    if weights.shape != labels.shape:
        raise UserError(
            f"label_weights must hold one number for each of the {len(labels)} supervised tokens, "
            f"but its shape is {list(weights.shape)}"
        )


def _applied(
    states: Float[Tensor, "N states"], head: Head | None, inputs: Sequence[LossInputs]
) -> tuple[Float[Tensor, ""], Float[Tensor, "names"]]:
    """The loss, and the means of the numbers of each group's pairing, one group after the other."""
    if head is None:
        return LossOfLogits.apply(states, inputs)
    if not torch.is_grad_enabled():
        # An autograd function does not know: its ``needs_input_grad`` depends on the tensors alone.
        states, head = states.detach(), detached(head)
    return _ChunkedLoss.apply(states, head.weight, head.bias, head, inputs)


def _zero(states: Float[Tensor, "N states"], head: Head | None) -> Float[Tensor, ""]:
    """Zero, with a graph that reaches every parameter: other ranks wait for this rank's gradients."""
    parameters = () if head is None else (head.weight, head.bias)
    touched = [tensor.reshape(-1)[:1].sum() for tensor in parameters if tensor is not None]
    return (states.sum() + sum(touched)).float() * 0


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, head: Head, inputs: Sequence[LossInputs]):  # type: ignore[no-untyped-def]
        wanted = ctx.needs_input_grad[:3]
        with torch.no_grad():
            values, gradients = _run(hidden, replace(head, weight=weight, bias=bias), inputs, wanted)
        # A sum, not a matrix product: autocast would round a product to bf16.
        loss = (values * weights_beside(inputs, values)).sum()
        ctx.gradients = gradients
        ctx.mark_non_differentiable(values)
        return loss, values

    @staticmethod
    def backward(ctx, of_loss, _):  # type: ignore[no-untyped-def]
        if ctx.gradients is None:
            raise RuntimeError("the loss's gradient was computed once, in the forward, and has been handed out already")
        # ctx keeps no reference: autograd takes a gradient without a copy where nothing else refers to it.
        gradients, ctx.gradients = ctx.gradients, None
        # To read a number from a GPU would wait for the whole queue; to multiply is cheaper.
        if of_loss.device.type != "cpu" or of_loss.item() != 1:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(of_loss)
        return *gradients, None, None


def _run(
    hidden: Float[Tensor, "N H"], head: Head, groups: Sequence[LossInputs], wanted: Sequence[bool]
) -> tuple[Float[Tensor, "names"], list[Tensor | None]]:
    """The means of each pairing's numbers, and the gradients for hidden, weight and bias where they are wanted."""
    dtype, denominator = product_dtype(hidden, head.weight), groups[0].denominator
    student = ProductInChunks(hidden, head, groups[0].vocabulary, dtype, groups[0].casts)
    gradients: HeadGradients | None = None
    # In fp16 small gradients would underflow if they were divided by the denominator before the products.
    early, late = (1.0, 1 / denominator) if dtype == torch.float16 else (1 / denominator, 1.0)

    def add(first: int, last: int, product: Tensor) -> None:
        nonlocal gradients
        if gradients is None:
            gradients = HeadGradients(hidden, head, student, wanted, in_one_chunk=last == len(hidden))
        gradients.add(first, last, product)

    totals: list[Tensor] = []
    for inputs in groups:
        coefficients: list[Coefficient] = [loss.weight * early for loss in inputs.pairing.losses]
        totals.append(sums_of_target(inputs, student, coefficients, any(wanted), add))
    # Losses of spans leave their products alone where no gradient is wanted.
    found: list[Tensor | None] = [None, None, None] if gradients is None else gradients.finished(late)
    student.release()
    return torch.cat(totals) / denominator, found
