"""The passes of spans over the vocabulary: the numbers of the tokens of some logits, and the gradient for these.

A batch has two passes (``span_blocks.py``), a teacher's text has the first alone (``span_scores.py``). Each is a few
rows at a time. Compiled, torch.compile fuses each into one kernel.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.losses.compiled_kernels import compiled, rows_vary
from potstill.losses.logit_chunks import Logits
from potstill.losses.row_blocks import block_logits, larger_if_fused, parts_for_buffers, small_slices
from potstill.losses.span_likelihood import TokenNumbers, VocabularySums, numbers_of_sums, row_sums
from potstill.models.head import statistics_dtype

_IF_FUSED_ON_CPU = 16
"""The factor of the blocks of fused passes on a CPU. They need no buffers, and each call takes 0.1 ms of Python."""


def can_fuse_spans(logits: Logits) -> bool:
    """Whether the passes over these logits can be fused: in fp32 at most, and of several rows (one would compile
    anew)."""
    return logits.product.dtype != torch.float64 and len(logits) > 1


def span_slices(logits: Logits, compile: bool, memory_budget: int, buffers: int) -> Iterator[slice]:
    """The places of the blocks of some logits. Compiled, none of several rows has one, which would run eagerly.

    ``memory_budget`` and ``buffers`` are as for ``row_blocks.block_logits``.
    """
    rows, vocabulary = logits.product.shape
    device = logits.product.device
    fused = _IF_FUSED_ON_CPU if device.type == "cpu" else larger_if_fused(device)
    at_once = block_logits(device, memory_budget, buffers) * (fused if compile else 1)
    found = [*small_slices(rows, vocabulary, at_once)]
    if compile and len(found) > 1 and found[-1].start == rows - 1:
        found[-2:] = [slice(found[-2].start, rows)]
    return iter(found)


def numbers_of_rows(
    logits: Logits,
    labels: Int[Tensor, "n"],
    begins_word: Bool[Tensor, "V"],
    ends_turn: Bool[Tensor, "V"] | None = None,
    compile: bool = False,
    memory_budget: int = 0,
) -> tuple[TokenNumbers, Float[Tensor, "n"]]:
    """The numbers of some predictions, and the logarithm of the sum of the exponentials of their logits.

    Args:
        logits: of the predictions.
        labels: the tokens that follow.
        begins_word: whether the bytes of each id begin with a space.
        ends_turn: whether an id ends a turn; None: none does. Where it is the label, the word mass is its probability.
        compile: whether to fuse the pass.
        memory_budget: of a GPU, for the size of blocks.
    """
    begins = begins_word.to(statistics_dtype(logits.product.dtype))
    found = []
    buffers = parts_for_buffers(logits.product.device, compile)
    for block in span_slices(logits, compile, memory_budget, buffers):
        rows, own = logits.rows(block.start, block.stop), labels[block]
        fuses = compile and can_fuse_spans(rows)
        sums, at_label = _fused_sums(rows, own, begins) if fuses else _sums(rows, own, begins)
        found.append(numbers_of_sums(sums, at_label, own, ends_turn))
    numbers = TokenNumbers(*(torch.cat(each) for each in zip(*(one for one, _ in found), strict=True)))
    return numbers, torch.cat([log_sum for _, log_sum in found])


class Derivatives(NamedTuple):
    """What the gradient for some logits is made of, one number a row.

    The derivative for a logit is its probability times ``of_words`` or ``of_others``, and that for the label has
    ``of_label`` on top.
    """

    log_sum: Float[Tensor, "n 1"]
    """The logarithm of the sum of the exponentials of the logits."""
    of_words: Float[Tensor, "n 1"]
    """The factor of ids that begin with a space."""
    of_others: Float[Tensor, "n 1"]
    """The factor of all other ids."""
    of_label: Float[Tensor, "n 1"]
    """What the label has besides."""


def write_gradient(
    logits: Logits, labels: Int[Tensor, "n"], derivatives: Derivatives, begins_word: Bool[Tensor, "V"]
) -> None:
    """Overwrite a product by its gradient, in one kernel.

    Args:
        logits: several rows, not in fp64.
        labels: the tokens that follow.
        derivatives: of the rows.
        begins_word: whether the bytes of each id begin with a space.
    """
    log_sum, of_words, of_others, of_label = derivatives
    at_label = logits.at(labels[:, None])
    factor = torch.where(begins_word[labels][:, None], of_words, of_others)
    # In full precision: to add to what the product's dtype has kept would round the rest away.
    own = logits.back((at_label - log_sum).exp() * factor + of_label, at_label)
    # In numbers: a mask of bytes is read one by one, and makes the kernel three to seven times as slow on a CPU.
    begins = begins_word.float()
    _only_rows_vary(logits, begins)
    rows_vary(log_sum, of_words, of_others)
    _write_kernel()(logits, log_sum, of_words, of_others, begins)
    logits.put_at_labels(labels, own)


def _sums(
    logits: Logits, labels: Int[Tensor, "n"], begins_word: Float[Tensor, "V"]
) -> tuple[VocabularySums, Float[Tensor, "n"]]:
    """The sums of some predictions, and the logits of their labels."""
    finished = logits.finished()
    return row_sums(finished, begins_word), finished.gather(1, labels[:, None])[:, 0]


def _fused_sums(
    logits: Logits, labels: Int[Tensor, "n"], begins_word: Float[Tensor, "V"]
) -> tuple[VocabularySums, Float[Tensor, "n"]]:
    """The same in one kernel."""
    _only_rows_vary(logits, begins_word)
    return _sums_kernel()(logits, begins_word), logits.at(labels[:, None])[:, 0]


def _only_rows_vary(logits: Logits, begins_word: Tensor) -> None:
    """A vocabulary has a kernel of its own, whatever was compiled before: so a training that goes on in another process
    computes the same."""
    rows_vary(logits.product)
    torch._dynamo.mark_static(logits.product, 1)
    torch._dynamo.mark_static(begins_word, 0)


@cache
def _sums_kernel() -> Callable[..., VocabularySums]:
    def span_sums_kernel(logits: Logits, begins_word: Float[Tensor, "V"]) -> VocabularySums:
        finished = logits.finished()
        top = finished.amax(-1)
        exponentials = (finished - top[:, None]).exp()
        return VocabularySums(top, exponentials.sum(-1), (exponentials * begins_word).sum(-1))

    return compiled(span_sums_kernel)


@cache
def _write_kernel() -> Callable[..., None]:
    def span_write_kernel(
        logits: Logits, log_sum: Tensor, of_words: Tensor, of_others: Tensor, begins_word: Float[Tensor, "V"]
    ) -> None:
        finished = logits.finished()
        gradient = (finished - log_sum).exp() * torch.where(begins_word[None] > 0, of_words, of_others)
        logits.product.copy_(logits.back(gradient, finished))

    return compiled(span_write_kernel)
