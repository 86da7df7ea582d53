"""The compiled passes against the float64 reference."""

import pytest
import torch
from torch import Tensor

from potstill.losses import row_gradients_compiled
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget, TeacherTarget
from potstill.models.head import Head

from .cases import DIVERGENCES, sampled, top_k
from .naive import naive_loss

TOKENS, WIDTH, VOCABULARY = 23, 16, 517
FUSED = [kind for kind in DIVERGENCES if kind != "adaptive_kl"]


def targets(kind: str, temperature: float) -> list[TeacherTarget]:
    hidden, head = torch.randn(TOKENS, 6), Head(torch.randn(VOCABULARY, 6), softcap=20.0)
    log_q = torch.randn(TOKENS, VOCABULARY).mul(3).div(temperature).log_softmax(-1)
    sparse: list[TeacherTarget] = [top_k(log_q, 9, temperature, unused=2)]
    if kind == "forward_kl":
        sparse += [sampled(log_q, 12, temperature), top_k(log_q, VOCABULARY, temperature)]
    return [HiddenTarget(hidden, head), *sparse]


def assert_equal_to_naive(
    target: TeacherTarget | None,
    losses: list[Loss],
    scale: float,
    softcap: float | None,
    label_weights: Tensor | None = None,
) -> None:
    inputs = [torch.randn(TOKENS, WIDTH), torch.randn(VOCABULARY, WIDTH), torch.randn(VOCABULARY)]
    labels = torch.randint(0, VOCABULARY, (TOKENS,))
    if isinstance(target, SparseTarget):
        labels[:9] = target.ids[:9, -1]  # labels that are kept entries, and others

    def gradients(naive: bool) -> tuple[Tensor, ...]:
        given = [tensor.to(torch.float64 if naive else torch.float32).requires_grad_() for tensor in inputs]
        head = Head(given[1], given[2], scale, softcap)
        if naive:
            loss, _ = naive_loss(given[0], head, labels, target, losses, 5.0, label_weights=label_weights)
        else:
            # Chunks of 8, 8 and 7 rows.
            budget = 8 * 4 * VOCABULARY * (2 if isinstance(target, HiddenTarget) else 1)
            loss, _ = distillation_loss(
                given[0],
                head,
                labels,
                target,
                losses,
                denominator=5.0,
                memory_budget=budget,
                compile=True,
                label_weights=label_weights,
            )
        return loss.detach(), *torch.autograd.grad(loss, given)

    for found, expected in zip(gradients(False), gradients(True), strict=True):
        assert (found - expected).norm() < 2e-5 * expected.norm()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUSED)
def test_equals_the_naive_loss(kind: str) -> None:
    torch.manual_seed(0)
    for temperature, scale, softcap in [(2.0, 1.0, None), (1.0, 0.5, 5.0)]:
        for target in targets(kind, temperature):
            losses = [Loss(kind, 0.7, temperature), Loss("cross_entropy", 0.3)]
            assert_equal_to_naive(target, losses, scale, softcap)


@pytest.mark.slow
def test_a_head_may_turn_its_product_round() -> None:
    torch.manual_seed(0)
    log_q = torch.randn(TOKENS, VOCABULARY).mul(3).log_softmax(-1)
    assert_equal_to_naive(top_k(log_q, 9, 1.0), [Loss("forward_kl", 0.7), Loss("cross_entropy", 0.3)], -0.5, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsd", "skew_kl", "skew_reverse_kl"])
def test_mixtures_of_disjoint_distributions_stay_finite(kind: str) -> None:
    torch.manual_seed(0)
    hidden = (100 * torch.eye(WIDTH)[:4]).requires_grad_()
    target = HiddenTarget(100 * torch.eye(WIDTH)[4:8], Head(torch.eye(WIDTH)))
    labels = torch.zeros(4, dtype=torch.long)
    losses, head = [Loss(kind)], Head(torch.eye(WIDTH))
    loss, _ = distillation_loss(hidden, head, labels, target, losses, denominator=4.0, compile=True)
    expected, _ = naive_loss(hidden.detach().double(), Head(torch.eye(WIDTH).double()), labels, target, losses, 4.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_nothing_is_compiled_again_for_other_numbers_of_tokens_or_other_weights(weighted: bool) -> None:
    torch._dynamo.reset()
    row_gradients_compiled._dense_kernel.cache_clear()
    weight = torch.randn(VOCABULARY, WIDTH)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (2, 40, 17, 64):
            hidden = torch.randn(tokens, WIDTH, requires_grad=True)
            losses = [Loss("cross_entropy", 1 / tokens)]
            labels = torch.zeros(tokens, dtype=torch.long)
            budget = 16 * 4 * VOCABULARY
            weights = torch.randn(tokens) if weighted else None
            given = hidden, Head(weight), labels, None, losses
            options = {"denominator": tokens, "memory_budget": budget, "label_weights": weights}
            loss, _ = distillation_loss(*given, compile=True, **options)
            (found,) = torch.autograd.grad(loss, hidden)
            (expected,) = torch.autograd.grad(distillation_loss(*given, **options)[0], hidden)
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("label_weights", [None, torch.linspace(-2, 3, TOKENS)])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_kernel_that_cannot_be_compiled_runs_eagerly(
    sparse: bool, label_weights: Tensor | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compile(kernel: object, **options: object) -> object:
        def fails(*arguments: object) -> None:
            raise RuntimeError("no compiler")

        return fails

    monkeypatch.setattr(torch, "compile", compile)
    factories = [
        row_gradients_compiled._dense_kernel,
        row_gradients_compiled._sums_kernel,
        row_gradients_compiled._write_kernel,
    ]
    for factory in factories:
        factory.cache_clear()
    torch.manual_seed(0)
    for target in targets("jsd", 2.0)[sparse:][:1]:
        assert_equal_to_naive(target, [Loss("jsd", 0.7, 2.0), Loss("cross_entropy", 0.3)], 1.0, 5.0, label_weights)
    for factory in factories:
        factory.cache_clear()
    assert "continues without it" in caplog.text


@pytest.mark.parametrize("kind", FUSED)
def test_models_that_forbid_tokens_make_no_nan(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_gradients_compiled, "compiled", lambda kernel: kernel)
    monkeypatch.setattr(row_gradients_compiled, "_dense_kernel", row_gradients_compiled._dense_kernel.__wrapped__)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 30)
    student[:, 4:7], teacher[:, 6:9] = -torch.inf, -torch.inf
    student.requires_grad_()
    labels, losses, target = (
        torch.zeros(6, dtype=torch.long),
        [Loss(kind), Loss("cross_entropy")],
        LogitsTarget(teacher),
    )
    found, expected = (
        distillation_loss(student, None, labels, target, losses, denominator=6, compile=fused)[0]
        for fused in (True, False)
    )
    # The floor of log q lies before or after the sum over the vocabulary is taken off.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    for gradient in (torch.autograd.grad(loss, student)[0] for loss in (found, expected)):
        assert torch.isfinite(gradient).all()
