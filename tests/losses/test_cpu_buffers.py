import pytest
import torch

from potstill.losses.cpu_buffers import free_all, give_back, take

CPU = torch.device("cpu")


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
