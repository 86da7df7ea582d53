"""Half precision: no worse than the naive loss in the same precision, for any number of chunks."""

import pytest
import torch
from torch import Tensor

from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import LogitsTarget
from potstill.models.head import Head

from .cases import DIVERGENCES, top_k
from .naive import naive_loss, per_token

TOKENS, WIDTH, VOCABULARY = 512, 64, 2000


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = (0.3 * torch.randn(VOCABULARY, WIDTH)).requires_grad_()
    teacher = (hidden @ weight.T).detach() + 0.5 * torch.randn(TOKENS, VOCABULARY)
    return hidden, weight, teacher, torch.randint(0, VOCABULARY, (TOKENS,))


def errors(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> list[float]:
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_bf16_autocast_is_no_worse_than_the_naive_loss_in_it(kind: str, sparse: bool) -> None:
    hidden, weight, teacher, labels = inputs()
    target = top_k(teacher.log_softmax(-1), 32, 1.0) if sparse else LogitsTarget(teacher)
    losses = [Loss(kind), Loss("cross_entropy", 0.5)]
    double = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    exact_loss, _ = naive_loss(double[0], Head(double[1]), labels, target, losses, TOKENS)
    exact = torch.autograd.grad(exact_loss, double)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = distillation_loss(
            hidden, Head(weight), labels, target, losses, denominator=TOKENS, memory_budget=64 * VOCABULARY * 2
        )
        logits = torch.nn.functional.linear(hidden, weight)
    assert loss.dtype == torch.float32
    found = torch.autograd.grad(loss, (hidden, weight))
    assert all(gradient.dtype == torch.float32 for gradient in found)
    naive = per_token(losses[0], logits.float(), labels, target, VOCABULARY).sum() / TOKENS
    naive = naive + 0.5 * torch.nn.functional.cross_entropy(logits.float(), labels)
    of_naive = errors(torch.autograd.grad(naive, (hidden, weight)), exact)
    assert float(loss) == pytest.approx(float(exact_loss), rel=2e-3)
    for ours, theirs in zip(errors(found, exact), of_naive, strict=True):
        assert ours < 1.05 * theirs
        assert theirs < 0.05


def test_the_heads_gradient_is_summed_in_fp32() -> None:
    """Bf16 parameters, 128 chunks: summed in bf16 the error would be several times as large."""
    hidden, weight, _, labels = inputs()
    teacher = torch.randn(TOKENS, VOCABULARY)  # far from the student, so that the sum's own rounding is what is seen
    hidden, weight = (tensor.detach().bfloat16().requires_grad_() for tensor in (hidden, weight))
    double = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    losses = [Loss("forward_kl")]
    exact_loss, _ = naive_loss(double[0], Head(double[1]), labels, LogitsTarget(teacher), losses, TOKENS)
    exact = torch.autograd.grad(exact_loss, double)
    found = []
    for budget in (4 * VOCABULARY * 2, 2**30):
        loss, _ = distillation_loss(
            hidden, Head(weight), labels, LogitsTarget(teacher), losses, denominator=TOKENS, memory_budget=budget
        )
        gradients = torch.autograd.grad(loss, (hidden, weight))
        assert gradients[1].dtype == torch.bfloat16
        found.append(errors(gradients, exact)[1])
    assert found[0] < 1.1 * found[1] < 0.012


def test_fp16_does_not_underflow_at_a_large_denominator() -> None:
    hidden, weight, teacher, labels = inputs()
    with torch.autocast("cpu", torch.float16):
        loss, _ = distillation_loss(
            hidden, Head(weight), labels, LogitsTarget(teacher), [Loss("forward_kl")], denominator=1e6
        )
    double = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    exact_loss, _ = naive_loss(double[0], Head(double[1]), labels, LogitsTarget(teacher), [Loss("forward_kl")], 1e6)
    found = errors(torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(exact_loss, double))
    assert max(found) < 0.01


def test_fp32_is_close_to_fp64() -> None:
    hidden, weight, teacher, labels = inputs()
    for kind in DIVERGENCES:
        loss, _ = distillation_loss(
            hidden, Head(weight), labels, LogitsTarget(teacher), [Loss(kind)], denominator=TOKENS
        )
        double = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
        exact_loss, _ = naive_loss(double[0], Head(double[1]), labels, LogitsTarget(teacher), [Loss(kind)], TOKENS)
        found = errors(torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(exact_loss, double))
        assert max(found) < 2e-5, kind
