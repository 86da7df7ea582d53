"""The policy gradient against plain autograd in float64, and against the divergence that it estimates."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.divergences import FLOOR, reverse_kl
from potstill.losses.logit_chunks import CastWeights
from potstill.losses.loss import Loss
from potstill.losses.policy_gradient import label_log_probs, policy_gradient_loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, SparseTarget
from potstill.models.head import Head

from .cases import Case, cases, sampled, top_k
from .naive import logits_of, teacher_log_probs

DENSE = ["logits", "hidden", "probabilities", "mixed_logits"]


def naive(log_p: Tensor, log_q: Tensor, log_old: Tensor | None, clip: float) -> Tensor:
    log_old = log_p.detach() if log_old is None else log_old
    advantage, ratio = log_q - log_old, (log_p - log_old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def at_labels(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]


@settings(max_examples=150)
@given(cases(["logits"], ["forward_kl"]), st.sampled_from([0.05, 0.2, 1.5]), st.booleans(), st.booleans())
def test_equals_plain_autograd(case: Case, clip: float, is_stale: bool, has_head: bool) -> None:
    logits = logits_of(case.hidden, case.head, len(case.head.weight))
    log_p = at_labels(logits[:, : case.vocabulary], case.labels)
    log_q = log_p.detach() + torch.randn(len(log_p), dtype=torch.float64)
    log_old = log_p.detach() + 0.5 * torch.randn(len(log_p), dtype=torch.float64) if is_stale else None
    expected = naive(log_p, log_q, log_old, clip).sum() / case.denominator
    loss, terms = policy_gradient_loss(
        case.hidden if has_head else logits,
        case.head if has_head else None,
        case.labels,
        log_q,
        log_old,
        clip=clip,
        denominator=case.denominator,
        vocabulary=case.vocabulary,
        memory_budget=case.memory_budget,
    )
    same = {"rtol": 1e-8, "atol": 1e-10}
    torch.testing.assert_close(loss, expected, **same)
    torch.testing.assert_close(terms["policy_gradient"], expected.detach(), **same)
    estimate = (log_p.detach() if log_old is None else log_old) - log_q
    torch.testing.assert_close(terms["reverse_kl_estimate"], estimate.sum() / case.denominator, **same)
    (slope,) = torch.autograd.grad(naive(log_p, log_q, log_old, clip).sum(), log_p, retain_graph=True)
    assert round(float(terms["clipped"] * case.denominator)) == (slope == 0).sum()
    for found, wanted in zip(
        torch.autograd.grad(loss, case.inputs, retain_graph=True),
        torch.autograd.grad(expected, case.inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, **same)


def test_its_expectation_is_the_gradient_of_the_reverse_kl() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    head, teacher = Head(torch.randn(7, 4, dtype=torch.float64)), torch.randn(3, 7, dtype=torch.float64)
    logits = hidden @ head.weight.T
    exact = reverse_kl(logits, teacher).sum()
    p = logits.softmax(-1).detach()
    expected, estimate = torch.zeros_like(hidden), 0.0
    for token in range(7):
        labels = torch.full((3,), token)
        log_q = label_log_probs(LogitsTarget(teacher), labels)
        # Each row's probability of the token weights its own row of the gradient: rows do not touch each other.
        loss, _ = policy_gradient_loss(hidden, head, labels, log_q, clip=0.2, denominator=1)
        expected += p[:, token, None] * torch.autograd.grad(loss, hidden)[0]
        estimate += float((p[:, token] * (p[:, token].log() - log_q)).sum())
    torch.testing.assert_close(expected, torch.autograd.grad(exact, hidden)[0])
    assert estimate == pytest.approx(exact.item())


def test_micro_batches_of_one_denominator_add_up() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 4), Head(torch.randn(9, 4))
    labels, log_q, log_old = torch.arange(6), -3 * torch.rand(6), -3 * torch.rand(6)

    def terms(rows: slice) -> dict[str, Tensor]:
        given = hidden[rows], head, labels[rows], log_q[rows], log_old[rows]
        return policy_gradient_loss(*given, clip=0.1, denominator=torch.tensor(6))[1]

    whole, first, second = terms(slice(6)), terms(slice(2)), terms(slice(2, 6))
    assert 0 < whole["clipped"] < 1
    for name, number in whole.items():
        torch.testing.assert_close(first[name] + second[name], number)


@pytest.mark.parametrize("written", [None, -0.5, -50.0, -torch.inf])
@pytest.mark.parametrize("teacher", [-1.0, -torch.inf])
@pytest.mark.parametrize("forbidden", [False, True])
def test_impossible_tokens_and_enormous_ratios_stay_finite(
    written: float | None, teacher: float, forbidden: bool
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 9)
    if forbidden:
        logits[0, 3] = -torch.inf
    logits.requires_grad_()
    log_old = None if written is None else torch.tensor([written, -1.0])
    labels, log_q = torch.tensor([3, 1]), torch.tensor([teacher, -1.0])
    loss, terms = policy_gradient_loss(logits, None, labels, log_q, log_old, clip=0.2, denominator=2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert all(torch.isfinite(number) for number in (loss, *terms.values()))
    assert not (forbidden and gradient[0].any())


def test_a_token_that_the_teacher_forbids_counts_as_the_floor() -> None:
    logits = torch.randn(1, 9, requires_grad=True)
    found = [
        policy_gradient_loss(logits, None, torch.tensor([2]), torch.tensor([log_q]), clip=0.2, denominator=1)[0]
        for log_q in (-torch.inf, FLOOR)
    ]
    assert found[0] == found[1] > 1000


def test_autocast_counts_and_the_head_is_cast_once() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    labels, casts = torch.arange(50) % 29, CastWeights()
    with torch.autocast("cpu", torch.bfloat16):
        log_p = label_log_probs(HiddenTarget(hidden, Head(weight)), labels, vocabulary=29)
        loss, terms = policy_gradient_loss(
            hidden, Head(weight), labels, log_p, clip=0.2, denominator=50, vocabulary=29, casts=casts
        )
    in_bf16 = (hidden.bfloat16() @ weight.bfloat16()[:29].T).float()
    torch.testing.assert_close(log_p, at_labels(in_bf16, labels).detach())
    assert loss.dtype == torch.float32
    assert terms["reverse_kl_estimate"] == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (hidden, weight)))
    assert len(casts._kept) == 1


def test_without_gradient_there_is_the_same_value() -> None:
    hidden, head, labels = torch.randn(4, 3, requires_grad=True), Head(torch.randn(9, 3)), torch.arange(4)
    given = hidden, head, labels, torch.full((4,), -2.0)
    with torch.no_grad():
        value, _ = policy_gradient_loss(*given, clip=0.2, denominator=4)
    assert not value.requires_grad
    assert value == policy_gradient_loss(*given, clip=0.2, denominator=4)[0]


def test_no_tokens_give_zero_and_still_reach_every_parameter() -> None:
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    nothing = torch.zeros(0)
    loss, terms = policy_gradient_loss(hidden, Head(weight), nothing.long(), nothing, nothing, clip=0.2, denominator=3)
    loss.backward()
    assert loss == 0
    assert not any(terms.values())
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        ("clip must be above 0, not 0", {"clip": 0.0}),
        ("clip must be above 0, not nan", {"clip": float("nan")}),
        (r"teacher_log_probs must hold .* 2 written tokens.* \[3\]", {"teacher_log_probs": torch.zeros(3)}),
        (r"written_log_probs must hold .* 2 written tokens.* \[2, 1\]", {"written_log_probs": torch.zeros(2, 1)}),
        ("labels go from 0 to 5", {"labels": torch.tensor([0, 5])}),
    ],
)
def test_mistakes_are_refused(message: str, changed: dict) -> None:  # type: ignore[type-arg]
    given = {"labels": torch.tensor([0, 4]), "teacher_log_probs": torch.zeros(2), "clip": 0.2, **changed}
    with pytest.raises(UserError, match=message):
        policy_gradient_loss(torch.zeros(2, 3), Head(torch.zeros(5, 3)), denominator=2, **given)


@settings(max_examples=80)
@given(cases(DENSE, ["forward_kl"]))
def test_log_probabilities_of_labels_are_those_of_the_reference(case: Case) -> None:
    shared = case.vocabulary or len(case.head.weight)
    found = label_log_probs(case.target, case.labels, vocabulary=shared, memory_budget=case.memory_budget)
    expected = teacher_log_probs(case.target, 1.0, shared).gather(1, case.labels[:, None])[:, 0]
    torch.testing.assert_close(found, expected.double(), rtol=1e-7, atol=1e-10)
    assert not found.requires_grad


def test_it_is_a_cross_entropy_weighted_by_the_advantage() -> None:
    torch.manual_seed(0)
    hidden, head, labels = torch.randn(5, 3, requires_grad=True), Head(torch.randn(9, 3)), torch.arange(5)
    log_q = label_log_probs(LogitsTarget(torch.randn(5, 9)), labels)
    advantage = log_q - label_log_probs(HiddenTarget(hidden, head), labels)
    loss, _ = policy_gradient_loss(hidden, head, labels, log_q, clip=0.2, denominator=5)
    losses = [Loss("cross_entropy")]
    by_hand, _ = distillation_loss(hidden, head, labels, None, losses, denominator=5, label_weights=advantage)
    torch.testing.assert_close(*(torch.autograd.grad(one, hidden)[0] for one in (loss, by_hand)))
    assert loss.item() == pytest.approx(-advantage.mean().item())


def test_a_sparse_target_knows_the_labels_that_it_keeps() -> None:
    log_q = torch.randn(4, 9).log_softmax(-1)
    sparse = top_k(log_q, 3, 1.0, unused=2)
    labels = log_q.topk(3).indices[:, 2]
    torch.testing.assert_close(label_log_probs(sparse, labels), log_q.gather(1, labels[:, None])[:, 0])
    dense = LogitsTarget(torch.randn(4, 9))
    expected = (0.25 * label_log_probs(sparse, labels).exp() + 0.75 * label_log_probs(dense, labels).exp()).log()
    torch.testing.assert_close(label_log_probs(MixedTarget((sparse, dense), (0.25, 0.75)), labels), expected)
    half = replace(sparse, log_probs=sparse.log_probs.half(), ids=sparse.ids.int())
    assert label_log_probs(half, labels).dtype == torch.float32


def test_a_token_outside_of_a_sparse_target_without_a_tail_is_impossible() -> None:
    target = SparseTarget(torch.tensor([[1, 2]]), torch.tensor([[0.5, 0.5]]).log(), torch.tensor([-torch.inf]))
    assert label_log_probs(target, torch.tensor([0])) == -torch.inf


def unkept(labels: Tensor) -> SparseTarget:
    log_q = torch.zeros(len(labels), 9).index_fill(1, labels, -1.0).log_softmax(-1)
    return top_k(log_q, 3, 1.0)


@pytest.mark.parametrize(
    ("message", "target"),
    [
        ("keeps no number for token 4, supervised token 0", unkept),
        ("keeps no number for token 4", lambda labels: MixedTarget((unkept(labels),), (1.0,))),
        ("random samples", lambda labels: sampled(torch.zeros(2, 9).log_softmax(-1), 50, 1.0)),
        ("have temperature 2", lambda labels: top_k(torch.zeros(2, 9).log_softmax(-1), 9, 2.0)),
        ("mix it as probabilities", lambda labels: MixedTarget((unkept(labels),), (1.0,), "logits")),
        ("3 rows.*2 supervised", lambda labels: unkept(torch.tensor([4, 4, 4]))),
        ("3 rows.*2 supervised", lambda labels: LogitsTarget(torch.zeros(3, 9))),
        ("labels go from 4 to 4", lambda labels: LogitsTarget(torch.zeros(2, 3))),
    ],
)
def test_targets_that_do_not_know_a_label_are_refused(
    message: str, target: Callable[[Tensor], SparseTarget | MixedTarget]
) -> None:
    labels = torch.tensor([4, 4])
    with pytest.raises(UserError, match=message):
        label_log_probs(target(labels), labels)


def test_no_labels_have_no_log_probabilities() -> None:
    empty = torch.zeros(0, dtype=torch.long)
    targets = [LogitsTarget(torch.zeros(0, 5)), top_k(torch.zeros(0, 5).log_softmax(-1), 2, 1.0)]
    for target in (*targets, MixedTarget(tuple(targets), (0.5, 0.5))):
        assert label_log_probs(target, empty).shape == (0,)
