"""The chunked path against the naive float64 reference, in value and gradient, and its other promises."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import KINDS, Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, SparseTarget
from potstill.models.head import Head

from .cases import DIVERGENCES, Case, cases, top_k
from .naive import logits_of, naive_loss, per_token

thorough = settings(max_examples=400)
quick = settings(max_examples=60)


def chunked(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    return distillation_loss(
        case.hidden,
        case.head,
        case.labels,
        case.target,
        case.losses,
        denominator=case.denominator,
        vocabulary=case.vocabulary,
        memory_budget=case.memory_budget,
    )


def naive(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    return naive_loss(case.hidden, case.head, case.labels, case.target, case.losses, case.denominator, case.vocabulary)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@thorough
@given(cases())
def test_equals_the_naive_loss_in_value_and_gradient(case: Case) -> None:
    loss, means = chunked(case)
    expected, expected_means = naive(case)
    assert_same(loss, expected)
    for kind, mean in expected_means.items():
        assert_same(means[kind], mean)
    for found, wanted in zip(
        torch.autograd.grad(loss, case.inputs), torch.autograd.grad(expected, case.inputs), strict=True
    ):
        assert_same(found, wanted)


@quick
@given(cases())
def test_logits_in_memory_give_the_same_loss_and_gradient(case: Case) -> None:
    logits = logits_of(case.hidden, case.head, len(case.head.weight))
    loss, _ = distillation_loss(
        logits,
        None,
        case.labels,
        case.target,
        case.losses,
        denominator=case.denominator,
        vocabulary=case.vocabulary,
        memory_budget=case.memory_budget,
    )
    expected, _ = chunked(case)
    assert_same(loss, expected)
    for found, wanted in zip(
        torch.autograd.grad(loss, case.inputs), torch.autograd.grad(expected, case.inputs), strict=True
    ):
        assert_same(found, wanted)


@quick
@given(cases(), st.booleans())
def test_label_weights_multiply_cross_entropy_alone(case: Case, has_head: bool) -> None:
    weights = 3 * torch.randn(len(case.labels), dtype=torch.float64)
    weights[::3] = 0
    losses = [loss for loss in case.losses if loss.needs_teacher] + [Loss("cross_entropy", 0.6)]
    expected, expected_means = naive_loss(
        case.hidden, case.head, case.labels, case.target, losses, case.denominator, case.vocabulary, weights
    )
    loss, means = distillation_loss(
        case.hidden if has_head else logits_of(case.hidden, case.head, len(case.head.weight)),
        case.head if has_head else None,
        case.labels,
        case.target,
        losses,
        denominator=case.denominator,
        vocabulary=case.vocabulary,
        memory_budget=case.memory_budget,
        label_weights=weights.requires_grad_(),
    )
    assert_same(loss, expected)
    for kind, mean in expected_means.items():
        assert_same(means[kind], mean)
    for found, wanted in zip(
        torch.autograd.grad(loss, case.inputs, retain_graph=True),
        torch.autograd.grad(expected, case.inputs),
        strict=True,
    ):
        assert_same(found, wanted)


@quick
@given(cases(), st.sampled_from([0.0, 0.25, 3.0]))
def test_backward_scales(case: Case, factor: float) -> None:
    plain = torch.autograd.grad(chunked(case)[0], case.inputs)
    for found, gradient in zip(torch.autograd.grad(chunked(case)[0] * factor, case.inputs), plain, strict=True):
        assert_same(found, gradient * factor)


@quick
@given(cases())
def test_the_order_of_tokens_and_the_chunks_they_fall_into_change_nothing(case: Case) -> None:
    whole = replace(case, memory_budget=2**30)
    assert_same(chunked(case)[0], chunked(whole)[0])
    for found, wanted in zip(
        torch.autograd.grad(chunked(case)[0], case.inputs),
        torch.autograd.grad(chunked(whole)[0], case.inputs),
        strict=True,
    ):
        assert_same(found, wanted)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_student_equal_to_teacher_has_no_loss_and_no_gradient(kind: str, sparse: bool, temperature: float) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5, requires_grad=True), torch.randn(50, 5, requires_grad=True)
    logits = (hidden @ weight.T).detach()
    log_q = (logits.double() / temperature).log_softmax(-1).float()
    target = top_k(log_q, 6, temperature) if sparse else LogitsTarget(logits)
    labels = torch.zeros(7, dtype=torch.long)
    loss, _ = distillation_loss(hidden, Head(weight), labels, target, [Loss(kind, 1.0, temperature)], denominator=7)
    assert abs(loss.item()) < 1e-5
    if kind != "total_variation":  # whose gradient jumps there: what rounding leaves over decides on its sign
        for gradient in torch.autograd.grad(loss, (hidden, weight)):
            assert gradient.abs().max() < 1e-5


@quick
@given(cases(targets=["logits"]), st.sampled_from([-10.0, 100.0]))
def test_a_constant_added_to_all_logits_changes_nothing(case: Case, constant: float) -> None:
    assert isinstance(case.target, LogitsTarget)
    bias = torch.full((len(case.head.weight),), constant, dtype=torch.float64)
    head = replace(case.head, softcap=None, bias=None)
    shifted = LogitsTarget(case.target.logits - constant)
    plain = replace(case, head=head)
    moved = replace(case, head=replace(head, bias=bias), target=shifted)
    torch.testing.assert_close(chunked(plain)[0], chunked(moved)[0], rtol=1e-8, atol=1e-8)
    for found, wanted in zip(
        torch.autograd.grad(chunked(plain)[0], plain.inputs),
        torch.autograd.grad(chunked(moved)[0], plain.inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_temperature_keeps_the_size_of_the_gradient(kind: str) -> None:
    """Where logits are small beside T, the gradient of T² · D (T · D for total variation) no longer depends on T."""
    torch.manual_seed(0)
    hidden = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    head = Head(torch.randn(30, 8, dtype=torch.float64))
    target = LogitsTarget(torch.randn(6, 30, dtype=torch.float64))
    labels = torch.zeros(6, dtype=torch.long)
    sizes = []
    for temperature in (200.0, 400.0):
        loss, _ = distillation_loss(hidden, head, labels, target, [Loss(kind, 1.0, temperature)], denominator=1)
        sizes.append(torch.autograd.grad(loss, hidden)[0].norm())
    assert sizes[0] > 1e-3
    torch.testing.assert_close(sizes[0], sizes[1], rtol=0.05, atol=0)


def test_padding_rows_get_no_gradient_for_any_values() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4), torch.randn(12, 4)
    losses, labels = [Loss("forward_kl"), Loss("cross_entropy")], torch.arange(5)
    found = []
    for padding in (0.0, 100.0):
        student, teacher = weight.clone(), torch.randn(5, 14, generator=torch.Generator().manual_seed(1))
        student[9:], teacher[:, 9:] = padding, padding
        student.requires_grad_()
        loss, _ = distillation_loss(
            hidden, Head(student), labels, LogitsTarget(teacher), losses, denominator=5, vocabulary=9
        )
        (gradient,) = torch.autograd.grad(loss, student)
        assert (gradient[9:] == 0).all()
        assert (gradient[:9] != 0).all()
        found.append((loss, gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_captured_with_every_entry_is_online() -> None:
    torch.manual_seed(0)
    hidden, head, logits = torch.randn(5, 4), Head(torch.randn(11, 4)), torch.randn(5, 11)
    labels = torch.arange(5)
    for kind in DIVERGENCES:
        losses = [Loss(kind, temperature=2.0), Loss("cross_entropy", 0.1)]
        online, _ = distillation_loss(hidden, head, labels, LogitsTarget(logits), losses, denominator=5)
        captured = top_k((logits / 2).log_softmax(-1), 11, 2.0)
        offline, _ = distillation_loss(hidden, head, labels, captured, losses, denominator=5)
        torch.testing.assert_close(online, offline, rtol=1e-5, atol=1e-6)


def test_a_tiny_tail_is_exact() -> None:
    """A student whose tail has a mass of 1e-12: one minus the kept mass would be zero in fp32."""
    weight = torch.full((40, 1), -30.0)
    weight[:2] = 0.0
    hidden = torch.ones(1, 1, requires_grad=True)
    target = SparseTarget(
        torch.tensor([[0, 1]]), torch.tensor([[0.45, 0.45]]).log(), torch.tensor([0.1]).log(), sampled=False
    )
    loss, _ = distillation_loss(hidden, Head(weight), torch.tensor([0]), target, [Loss("forward_kl")], denominator=1)
    (gradient,) = torch.autograd.grad(loss, hidden)
    double = hidden.detach().double().requires_grad_()
    expected, _ = naive_loss(double, Head(weight.double()), torch.tensor([0]), target, [Loss("forward_kl")], 1.0)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), torch.autograd.grad(expected, double)[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("of_teacher", [[], [4, 5], [4, 7, 8]])
@pytest.mark.parametrize("of_student", [[], [4, 5]])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_models_that_forbid_tokens_make_no_nan(kind: str, of_student: list[int], of_teacher: list[int]) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 9, dtype=torch.float64)
    student[:, of_student], teacher[:, of_teacher] = -torch.inf, -torch.inf
    student.requires_grad_()
    labels, losses = torch.zeros(3, dtype=torch.long), [Loss(kind), Loss("cross_entropy", 0.5)]
    for target in (LogitsTarget(teacher), top_k(teacher.log_softmax(-1), 3, 1.0)):
        loss, _ = distillation_loss(student, None, labels, target, losses, denominator=3)
        expected = sum(one.weight * per_token(one, student, labels, target, 9).sum() / 3 for one in losses)
        assert torch.isfinite(loss)
        assert_same(loss, expected)
        assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_tokens_that_both_models_forbid_are_as_if_there_were_none(kind: str) -> None:
    torch.manual_seed(0)
    few, teacher = (torch.randn(3, 7, dtype=torch.float64).requires_grad_() for _ in range(2))
    found = []
    for width in (7, 9):
        student, target = (
            torch.nn.functional.pad(logits, (0, width - 7), value=-torch.inf) for logits in (few, teacher)
        )
        loss, _ = distillation_loss(
            student, None, torch.arange(3), LogitsTarget(target), [Loss(kind, 1.0, 2.0)], denominator=3
        )
        found.append((loss, torch.autograd.grad(loss, few)[0]))
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


def test_no_tokens_give_zero_and_still_reach_every_parameter() -> None:
    hidden = torch.randn(0, 4, requires_grad=True)
    weight, bias = torch.randn(9, 4, requires_grad=True), torch.randn(9, requires_grad=True)
    target = LogitsTarget(torch.randn(0, 9))
    loss, terms = distillation_loss(
        hidden, Head(weight, bias), torch.zeros(0, dtype=torch.long), target, [Loss("jsd")], denominator=3
    )
    loss.backward()
    assert loss == 0
    assert terms["jsd"] == 0
    assert weight.grad is not None
    assert bias.grad is not None
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_each_teacher_of_an_ensemble_has_its_own_number() -> None:
    torch.manual_seed(0)
    hidden, head, labels = torch.randn(4, 3), Head(torch.randn(8, 3)), torch.zeros(4, dtype=torch.long)
    teachers = [LogitsTarget(torch.randn(4, 8)) for _ in range(2)]
    alone = [distillation_loss(hidden, head, labels, t, [Loss("jsd")], denominator=4)[0] for t in teachers]
    _, terms = distillation_loss(
        hidden,
        head,
        labels,
        MixedTarget(tuple(teachers), (0.4, 0.6)),
        [Loss("jsd"), Loss("cross_entropy")],
        denominator=4,
    )
    assert set(terms) == {"jsd", "cross_entropy", "jsd/teacher0", "jsd/teacher1"}
    torch.testing.assert_close(terms["jsd/teacher0"], alone[0])
    torch.testing.assert_close(terms["jsd/teacher1"], alone[1])


def test_the_gradient_is_handed_out_once() -> None:
    hidden, head = torch.randn(2, 3, requires_grad=True), Head(torch.randn(5, 3))
    loss, terms = distillation_loss(
        hidden, head, torch.tensor([1, 2]), None, [Loss("cross_entropy")], denominator=torch.tensor(2)
    )
    assert not terms["cross_entropy"].requires_grad
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out"):
        loss.backward()


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("needs a teacher", {"target": None}),
        ("3 rows.*2 supervised", {"target": LogitsTarget(torch.zeros(3, 5))}),
        ("7 logits and the student 5", {"target": LogitsTarget(torch.zeros(2, 7))}),
        ("fewer than the 4", {"target": LogitsTarget(torch.zeros(2, 3)), "vocabulary": 4}),
        ("temperature 1,.*captured at 2", {"target": top_k(torch.zeros(2, 5).log_softmax(-1), 2, 2.0)}),
        ("labels go from 0 to 4.*3 ids", {"target": LogitsTarget(torch.zeros(2, 5)), "vocabulary": 3}),
        ("empty", {"target": None, "losses": []}),
        (
            r"one number for each of the 2 supervised tokens, but its shape is \[2, 1\]",
            {"target": None, "losses": [Loss("cross_entropy")], "label_weights": torch.ones(2, 1)},
        ),
        (
            "sampled",
            {
                "losses": [Loss("jsd")],
                "target": replace(top_k(torch.zeros(2, 5).log_softmax(-1), 2, 1.0), sampled=True),
            },
        ),
        (
            "as logits",
            {"target": MixedTarget((top_k(torch.zeros(2, 5).log_softmax(-1), 2, 1.0),), (1.0,), "logits")},
        ),
        (
            "whole distributions",
            {
                "losses": [Loss("jsd")],
                "target": MixedTarget((top_k(torch.zeros(2, 5).log_softmax(-1), 2, 1.0),), (1.0,)),
            },
        ),
    ],
)
def test_losses_and_targets_that_do_not_fit_are_refused(message: str, arguments: dict) -> None:  # type: ignore[type-arg]
    full = {"losses": [Loss("forward_kl")], "denominator": 2.0, **arguments}
    with pytest.raises(UserError, match=message):
        distillation_loss(torch.zeros(2, 3), Head(torch.zeros(5, 3)), torch.tensor([0, 4]), **full)


def test_every_kind_is_here() -> None:
    across = {kind for kind, it in KINDS.items() if it.crosses_tokenizers}
    assert set(DIVERGENCES) | {"cross_entropy"} | across == set(KINDS)


def test_hidden_targets_take_no_gradient() -> None:
    teacher = HiddenTarget(torch.randn(2, 3, requires_grad=True), Head(torch.randn(5, 3, requires_grad=True)))
    hidden = torch.randn(2, 3, requires_grad=True)
    loss, _ = distillation_loss(
        hidden, Head(torch.randn(5, 3)), torch.tensor([1, 2]), teacher, [Loss("forward_kl")], denominator=2
    )
    loss.backward()
    assert teacher.hidden.grad is None
    assert teacher.head.weight.grad is None
    assert hidden.grad is not None
