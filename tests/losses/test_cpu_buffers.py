import weakref

import pytest
import torch

from potstill.losses import cpu_buffers
from potstill.losses.cpu_buffers import empty_for_caller, free_all, give_back, keep_freed, take

CPU = torch.device("cpu")
LARGE = (3, 2**22)
"""48 MiB in float32: more than the C library keeps by itself."""


@pytest.fixture(autouse=True)
def nothing_kept():
    free_all()
    yield
    free_all()


def test_memory_given_back_is_reused_in_another_shape_and_dtype() -> None:
    first = take((6, 5), torch.float32, CPU)
    where = first.data_ptr()
    give_back(first)
    again = take((10, 5), torch.bfloat16, CPU)
    assert (again.data_ptr(), again.shape, again.dtype) == (where, (10, 5), torch.bfloat16)
    assert again.is_contiguous()


def test_memory_in_use_is_not_given_twice() -> None:
    give_back(take((8,), torch.float32, CPU))
    one, other = (take((8,), torch.float32, CPU).fill_(i) for i in range(2))
    assert one.tolist() == [0.0] * 8
    assert other.tolist() == [1.0] * 8


def test_memory_that_is_too_small_is_freed() -> None:
    give_back(take((4,), torch.float32, CPU))
    large = take((400,), torch.float32, CPU)
    assert large.fill_(1).sum() == 400
    give_back(large)
    assert take((4,), torch.float32, CPU).untyped_storage().nbytes() == 1600


def test_memory_that_its_user_frees_is_kept() -> None:
    keep_freed()
    first = empty_for_caller(LARGE, torch.float32, CPU)
    where = first.data_ptr()
    del first
    again = empty_for_caller(LARGE, torch.float32, CPU)
    assert (again.data_ptr(), again.shape, again.dtype) == (where, LARGE, torch.float32)
    assert again.fill_(2.0).sum() == 2 * again.numel()


def test_memory_of_which_a_part_is_in_use_is_not_given_again() -> None:
    keep_freed()
    first = empty_for_caller(LARGE, torch.float32, CPU).fill_(1.0)
    part = first[1, :3].detach()
    del first
    again = empty_for_caller(LARGE, torch.float32, CPU).fill_(2.0)
    assert part.tolist() == [1.0] * 3
    assert again.min() == 2


def test_a_gradient_is_freed_with_its_weight_and_not_before() -> None:
    keep_freed()
    weight = torch.zeros(LARGE, requires_grad=True)
    given = []

    class Gives(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight):  # type: ignore[no-untyped-def]
            return weight.new_zeros(())

        @staticmethod
        def backward(ctx, _):  # type: ignore[no-untyped-def]
            gradient = empty_for_caller(LARGE, torch.float32, CPU).fill_(len(given) + 1.0)
            given.append(gradient.data_ptr())
            return gradient

    for number in range(1, 4):
        Gives.apply(weight).backward()
        assert weight.grad is not None
        assert weight.grad.data_ptr() == given[-1], "autograd has copied it"
        assert weight.grad[2, 5] == number
        weight.grad = None
    assert len(set(given)) == 1


@pytest.mark.parametrize("shape", [(4, 4), LARGE])
def test_nothing_is_kept_of_small_memory_or_outside_of_a_training(shape: tuple[int, int]) -> None:
    if shape != LARGE:
        keep_freed()
    one = empty_for_caller(shape, torch.bfloat16, CPU)
    assert (one.shape, one.dtype) == (shape, torch.bfloat16)
    assert one.untyped_storage().resizable(), "memory of torch's own allocator"


def test_what_is_freed_after_the_end_is_not_kept() -> None:
    keep_freed()
    late = empty_for_caller(LARGE, torch.float32, CPU)
    free_all()
    alive = weakref.ref(late.untyped_storage())
    del late
    assert alive() is None
    assert cpu_buffers._freed == []
