"""Accumulation: one optimizer step over any number of micro-batches, of which one at a time is in memory.

The loss of a step is a sum over its supervised tokens divided by their number, and that is known when the last of its
micro-batches has been read. So each is divided by a power of two, which rounds nothing, and what they add up to, the
gradient and the figures, is brought to the true number once, at the end of the step and before anything is clipped.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import log2

import torch
from torch import Tensor, nn

from potstill.data.labels import count_supervised

Batch = Mapping[str, Tensor]


class MicroBatches:
    """The micro-batches of one optimizer step, read when they are asked for.

    The first is read at once: a loader draws the order of its samples when it is first asked, and where a training is
    resumed, that has to be before its random state is restored.
    """

    def __init__(self, loader: Iterator[Batch], count: int) -> None:
        self._loader = loader
        self._first = next(loader, None)
        self._count = 0 if self._first is None else count

    def __len__(self) -> int:
        # The same while they are read: Trainer asks whether one is the last, and has ranks agree on its gradients then.
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        batch, self._first = self._first, None
        for left in reversed(range(self._count)):
            if batch is None:
                return
            yield batch
            batch = next(self._loader, None) if left else None


class OptimizerStep:
    """What an optimizer step adds up to.

    Args:
        expected: about how many supervised tokens a step has, all ranks and micro-batches together.
        device: where batches are.
    """

    def __init__(self, expected: int, device: torch.device) -> None:
        self.divisor = torch.tensor(2.0 ** round(log2(max(expected, 1))), device=device)
        """What each micro-batch is divided by; the same on all ranks."""
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        """Supervised tokens of this rank so far."""
        self.loss = torch.zeros((), device=device)
        self.terms: dict[str, Tensor] = {}

    def add_terms(self, terms: Mapping[str, Tensor], ranks: int) -> None:
        """Add what is logged of a micro-batch, which is divided by ``divisor``."""
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, torch.zeros_like(value)) + value * ranks

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Add a micro-batch: its tokens, and its loss, which is divided by ``divisor``."""
        self.tokens += count_supervised(batch)
        self.loss = self.loss + loss

    def finish(self, tokens: Tensor, modules: Iterable[nn.Module]) -> Tensor:
        """Bring the gradients, and what is logged, to the number of tokens of all ranks; the loss of the step."""
        factor = self.divisor / tokens.clamp(min=1)
        weights = (weight for module in modules for weight in module.parameters())
        with torch.no_grad():
            for gradient in (weight.grad for weight in weights if weight.grad is not None):
                gradient.mul_(factor.to(gradient.device))
        self.terms = {name: value * factor for name, value in self.terms.items()}
        return self.loss * factor
