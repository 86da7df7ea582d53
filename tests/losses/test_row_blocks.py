import torch

from potstill.losses.logit_chunks import ProductInChunks, product_dtype
from potstill.losses.row_blocks import block_logits, rows_in_chunks
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.head import Head


def test_teacher_and_student_multiply_in_autocasts_dtype_and_sum_in_fp32() -> None:
    hidden, head = torch.randn(5, 4), Head(torch.randn(9, 4))
    with torch.autocast("cpu", torch.bfloat16):
        student = ProductInChunks(hidden, head, 9, product_dtype(hidden, head.weight))
        chunks = rows_in_chunks(student, HiddenTarget(hidden, head), torch.zeros(5, dtype=torch.long), 9, 2**20)
    for _, _, rows in chunks:
        assert rows.student.product.dtype == rows.teachers[0].product.dtype == torch.bfloat16
        assert rows.student.finished().dtype == torch.float32


def test_fp64_stays_fp64_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert product_dtype(torch.zeros(1, 2).double(), torch.zeros(3, 2).double()) == torch.float64


def test_chunks_share_one_piece_of_memory_and_are_of_nearly_one_size() -> None:
    hidden, head = torch.randn(10, 4), Head(torch.randn(100, 4))
    student = ProductInChunks(hidden, head, 100, torch.float32)
    chunks = rows_in_chunks(student, None, torch.zeros(10, dtype=torch.long), 100, 100 * 4 * 5)
    seen = [(first, last, rows.student.product.data_ptr()) for first, last, rows in chunks]
    assert [(first, last) for first, last, _ in seen] == [(0, 4), (4, 8), (8, 10)]
    assert len({pointer for _, _, pointer in seen}) == 1


def test_blocks_on_a_gpu_grow_with_the_budget_and_fit_into_its_share_for_them() -> None:
    gpu = torch.device("cuda")
    assert block_logits(gpu, 2**28) == block_logits(gpu, 0) == 2**22
    assert block_logits(gpu, 2**32) * 48 * 8 <= 2**32
    assert block_logits(gpu, 2**32) > 2 * 2**22
    assert block_logits(torch.device("cpu"), 2**32) == block_logits(torch.device("cpu"), 2**20)
