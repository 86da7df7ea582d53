"""The memory of the loss: flat in the number of tokens, within the budget, and none for a frozen head."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from potstill.losses.chunked import distillation_loss
from potstill.losses.cpu_buffers import free_all
from potstill.losses.loss import KINDS, Loss
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.head import Head

from .cases import loss_on_a_gpu

MIB = 2**20


class Allocations(TorchDispatchMode):
    """Bytes of all living storages that operations made, and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            storage = leaf.untyped_storage() if isinstance(leaf, Tensor) else None
            if storage is not None and storage._cdata not in known and storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def peak(tokens: int, budget: int, frozen: bool, dtype: torch.dtype = torch.float32) -> int:
    vocabulary, width = 8192, 16
    hidden = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=dtype, requires_grad=not frozen)
    target = HiddenTarget(torch.randn(tokens, 8, dtype=dtype), Head(torch.randn(vocabulary, 8, dtype=dtype)))
    labels = torch.zeros(tokens, dtype=torch.long)
    free_all()
    with Allocations() as allocations:
        loss, _ = distillation_loss(
            hidden,
            Head(weight),
            labels,
            target,
            [Loss("jsd"), Loss("cross_entropy")],
            denominator=tokens,
            memory_budget=budget,
        )
        loss.backward()
    return allocations.peak


def test_the_counter_counts() -> None:
    with Allocations() as allocations:
        one = torch.zeros(MIB)
        two = one + 1
        del one
        two.add_(1)
    assert allocations.peak == 8 * MIB


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flat_in_the_number_of_tokens(dtype: torch.dtype) -> None:
    few, many = peak(512, 8 * MIB, False, dtype), peak(2048, 8 * MIB, False, dtype)
    # The gradient for the hidden states is as long as they are (0.1 MiB); chunks are of nearly one size, not of one.
    assert many - few < 2 * MIB
    assert many < 8 * MIB + 16 * MIB  # the budget, the head's gradient (1 MiB) and a few rows between two passes


def test_chunks_stay_within_the_memory_budget() -> None:
    assert 6 * MIB < peak(2048, 16 * MIB, True) - peak(2048, 8 * MIB, True) < 10 * MIB


@pytest.mark.parametrize(
    ("kind", "kept"),
    [*((kind, None) for kind, it in KINDS.items() if not it.crosses_tokenizers), ("forward_kl", 64), ("jsd", 64)],
)
@pytest.mark.usefixtures("no_autocast")
def test_an_eager_loss_on_a_gpu_stays_within_its_budget(kind: str, kept: int | None) -> None:
    budget = 2048 * MIB
    with Allocations() as allocations:
        loss_on_a_gpu(kind, tokens=4096, vocabulary=128256, budget=budget, kept=kept).backward()
    # States, heads and their gradients are 8 wide: some MiB.
    assert 0.5 * budget < allocations.peak < budget + 10 * MIB


def test_a_frozen_head_has_no_gradient() -> None:
    of_head = 8192 * 16 * 4
    assert peak(256, 4 * MIB, False) - peak(256, 4 * MIB, True) >= of_head
    weight = torch.randn(20, 4)
    hidden = torch.randn(3, 4, requires_grad=True)
    loss, _ = distillation_loss(
        hidden, Head(weight), torch.tensor([1, 2, 3]), None, [Loss("cross_entropy")], denominator=3
    )
    loss.backward()
    assert weight.grad is None
    assert hidden.grad is not None
