from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from potstill.losses.chunked import distillation_loss
from potstill.losses.logit_chunks import ProductInChunks, product_dtype
from potstill.losses.loss import Loss
from potstill.losses.pairing import Pairing
from potstill.losses.row_blocks import LossInputs, block_logits, mixed, parts_for_buffers
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, TeacherTarget
from potstill.models.head import Head

from .cases import loss_on_a_gpu, top_k


def inputs_of(tokens: int, vocabulary: int, budget: int, target: TeacherTarget | None) -> LossInputs:
    labels, pairing = torch.zeros(tokens, dtype=torch.long), Pairing.of([Loss("cross_entropy")], target)
    return LossInputs(labels, target, pairing, float(tokens), vocabulary, budget, compile=False)


def test_teacher_and_student_multiply_in_autocasts_dtype_and_sum_in_fp32() -> None:
    hidden, head = torch.randn(5, 4), Head(torch.randn(9, 4))
    with torch.autocast("cpu", torch.bfloat16):
        student = ProductInChunks(hidden, head, 9, product_dtype(hidden, head.weight))
        chunks = inputs_of(5, 9, 2**20, HiddenTarget(hidden, head)).chunks(student)
    for _, _, rows in chunks:
        assert rows.student.product.dtype == rows.teachers[0].product.dtype == torch.bfloat16
        assert rows.student.finished().dtype == torch.float32


def test_fp64_stays_fp64_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert product_dtype(torch.zeros(1, 2).double(), torch.zeros(3, 2).double()) == torch.float64


def test_chunks_share_one_piece_of_memory_and_are_of_nearly_one_size() -> None:
    hidden, head = torch.randn(10, 4), Head(torch.randn(100, 4))
    student = ProductInChunks(hidden, head, 100, torch.float32)
    chunks = inputs_of(10, 100, 100 * 4 * 5, None).chunks(student)
    seen = [(first, last, rows.student.product.data_ptr()) for first, last, rows in chunks]
    assert [(first, last) for first, last, _ in seen] == [(0, 4), (4, 8), (8, 10)]
    assert len({pointer for _, _, pointer in seen}) == 1


def test_blocks_on_a_gpu_grow_with_the_budget_and_fit_into_its_share_for_them() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    eager, compiled = (parts_for_buffers(gpu, compile) for compile in (False, True))
    assert block_logits(gpu, 2**28, eager) == block_logits(gpu, 0, compiled) == 2**22
    for buffers in (eager, compiled):
        assert block_logits(gpu, 2**32, buffers) * 64 * buffers <= 2**32
    # Each eager pass is a launch, so that eager blocks are the larger ones.
    assert block_logits(gpu, 2**32, eager) == 4 * block_logits(gpu, 2**32, compiled) == 8 * 2**22
    assert block_logits(cpu, 2**32) == block_logits(cpu, 2**20)
    assert parts_for_buffers(cpu, compile=False) == parts_for_buffers(cpu, compile=True)


class Operations(TorchDispatchMode):
    """The number of operations; on a GPU each is a launch or less."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "kept", "most"),
    [("cross_entropy", None, 600), ("forward_kl", 64, 1600), ("forward_kl", None, 1400), ("jsd", None, 1800)],
)
@pytest.mark.usefixtures("no_autocast")
def test_an_eager_step_on_a_gpu_has_few_launches(kind: str, kept: int | None, most: int) -> None:
    with Operations() as counted:
        loss_on_a_gpu(kind, tokens=8192, vocabulary=128256, budget=2**32, kept=kept).backward()
    # With blocks of an eighth of the budget, they would be three to six times as many.
    assert counted.count < most


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("autocast", [False, True])
def test_label_weights_may_have_any_dtype(dtype: torch.dtype, autocast: bool) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 4, requires_grad=True), Head(torch.randn(11, 4, requires_grad=True))
    labels, target = torch.arange(6), LogitsTarget(torch.randn(6, 11))
    weights = torch.tensor([1, 0, 1, 1, 0, 1])
    found = []
    for given_weights in (weights.to(dtype), weights.float()):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, _ = distillation_loss(
                hidden,
                head,
                labels,
                top_k(target.logits.log_softmax(-1), 3, 1.0),
                [Loss("cross_entropy", 0.5), Loss("reverse_kl")],
                denominator=6,
                label_weights=given_weights,
            )
        found.append((loss, *torch.autograd.grad(loss, (hidden, head.weight))))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_weights_of_one_are_no_weights() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 4, requires_grad=True), Head(torch.randn(11, 4))
    found = []
    for weights in (None, torch.ones(6)):
        loss, _ = distillation_loss(
            hidden,
            head,
            torch.arange(6),
            None,
            [Loss("cross_entropy", 0.3)],
            denominator=torch.tensor(7),
            label_weights=weights,
        )
        found.append((loss, *torch.autograd.grad(loss, hidden)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_label_without_weight_may_be_impossible() -> None:
    logits = torch.randn(3, 9).index_fill(1, torch.tensor([4]), -torch.inf).requires_grad_()
    labels, weights = torch.tensor([4, 1, 2]), torch.tensor([0.0, 1.0, 1.0])
    losses = [Loss("cross_entropy")]
    loss, _ = distillation_loss(logits, None, labels, None, losses, denominator=2, label_weights=weights)
    expected = torch.nn.functional.cross_entropy(logits[1:], labels[1:])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (loss, expected)))


@pytest.mark.parametrize("mix", ["logits", "probabilities"])
def test_a_teacher_without_weight_is_no_teacher(mix: str) -> None:
    teacher, other = torch.randn(2, 5), torch.full((2, 5), -torch.inf)
    other[:, 0] = 0.0
    ensemble = MixedTarget((LogitsTarget(teacher), LogitsTarget(other)), (1.0, 0.0), mix)  # type: ignore[arg-type]
    found = mixed(ensemble, iter([teacher, other]), 2.0)
    torch.testing.assert_close((found / 2).softmax(-1), (teacher / 2).softmax(-1))
