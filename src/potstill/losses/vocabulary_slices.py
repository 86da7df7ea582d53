"""Sums over the vocabulary by slices of the head, so that the logits of a slice never leave a CPU's cache.

The passes over logits in memory take a third as long as their matrix product, and a slice's logits take half of that.
Only sums can be found so: a gradient needs all logits of a token again.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.losses.logit_chunks import product_dtype, teacher_products
from potstill.losses.span_likelihood import VocabularySums, sums_of_parts
from potstill.losses.span_passes import vocabulary_sums
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.head import statistics_dtype

# Logits of a slice, for this many tokens at once, stay in the cache. Fewer of either would make slow matrix products.
_WIDTH, _TOKENS = 3200, 512


def slice_count(vocabulary: int, device: torch.device) -> int:
    """The number of slices; 1 where slices would not help.

    All have one size, which is that of every batch: so they have one compiled kernel.

    Args:
        vocabulary: the number of ids that count.
        device: of the model.
    """
    least = -(-vocabulary // _WIDTH)
    fitting = (count for count in range(least, 4 * least) if vocabulary % count == 0)
    return next(fitting, 1) if device.type == "cpu" else 1


def sums_in_slices(
    outputs: HiddenTarget,
    labels: Int[Tensor, "N"],
    begins_word: Bool[Tensor, "V"],
    count: int,
    compile: bool = False,
) -> tuple[VocabularySums, Float[Tensor, "N"]]:
    """The sums of a model's predictions, and the logits of their labels.

    Args:
        outputs: a model's states, and its head.
        labels: the tokens that follow.
        begins_word: whether the bytes of each id begin with a space.
        count: a divisor of the vocabulary, from :func:`slice_count`.
        compile: whether to fuse the passes.
    """
    begins = begins_word.to(statistics_dtype(product_dtype(outputs.hidden, outputs.head.weight)))
    width = len(begins) // count
    parts: list[VocabularySums] = []
    at_label = torch.zeros(len(labels), dtype=begins.dtype, device=labels.device)
    for begin in range(0, len(begins), width):
        ids = slice(begin, begin + width)
        of_slice, logits_of_labels = _sums_of_slice(outputs, labels - begin, begins, ids, compile)
        parts.append(of_slice)
        at_label = torch.where((labels >= ids.start) & (labels < ids.stop), logits_of_labels, at_label)
    return sums_of_parts(parts), at_label


def _sums_of_slice(
    outputs: HiddenTarget, labels: Int[Tensor, "N"], begins_word: Float[Tensor, "V"], ids: slice, compile: bool
) -> tuple[VocabularySums, Float[Tensor, "N"]]:
    """The sums over some ids, and each label's logit if it is one of them. Labels count from the first of these ids."""
    head = outputs.head
    own = replace(head, weight=head.weight[ids], bias=None if head.bias is None else head.bias[ids])
    width, most = ids.stop - ids.start, min(_TOKENS, len(labels))
    (source,) = teacher_products(replace(outputs, head=own), width)
    found, at_label = [], []
    for first in range(0, len(labels), most):
        last = min(first + most, len(labels))
        logits = source.logits(first, last, most)
        found.append(vocabulary_sums(logits, begins_word[ids], compile))
        at_label.append(logits.at(labels[first:last, None].clamp(0, width - 1))[:, 0])
    source.close()
    return VocabularySums(*(torch.cat(each) for each in zip(*found, strict=True))), torch.cat(at_label)
