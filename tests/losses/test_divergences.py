"""The reference divergences, against torch and against explicit sums."""

import pytest
import torch
from torch.nn.functional import kl_div

from potstill.losses import divergences
from potstill.losses.loss import Loss

from .cases import DIVERGENCES
from .naive import diverge

P = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
Q = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)


def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * (a / b).log()).sum(-1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("forward_kl", kl(Q, P)),
        ("reverse_kl", kl(P, Q)),
        ("jsd", 0.5 * kl(Q, (P + Q) / 2) + 0.5 * kl(P, (P + Q) / 2)),
        ("skew_kl", kl(Q, 0.1 * Q + 0.9 * P)),
        ("skew_reverse_kl", kl(P, 0.1 * P + 0.9 * Q)),
        ("total_variation", torch.tensor([0.2], dtype=torch.float64)),
        # The head is the first token, with half of all differences (0.2 of 0.4).
        ("adaptive_kl", 0.5 * kl(Q, P) + 0.5 * kl(P, Q)),
    ],
)
def test_values(kind: str, expected: torch.Tensor) -> None:
    # Log-probabilities are logits, and a constant added to logits is nothing.
    torch.testing.assert_close(diverge(Loss(kind), P.log() + 3, Q.log() - 5), expected)


def test_forward_kl_is_torchs() -> None:
    student, teacher = torch.randn(4, 9), torch.randn(4, 9)
    expected = kl_div((student / 2).log_softmax(-1), (teacher / 2).log_softmax(-1), reduction="none", log_target=True)
    torch.testing.assert_close(divergences.forward_kl(student, teacher, 2.0), 4 * expected.sum(-1))


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_never_negative_and_zero_only_where_equal(kind: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(200, 12, dtype=torch.float64), torch.randn(200, 12, dtype=torch.float64)
    assert (diverge(Loss(kind), student, teacher) > 1e-4).all()
    assert diverge(Loss(kind), student, student).abs().max() < 1e-12


def test_jsd_and_skewed_divergences_have_the_two_kls_at_their_ends() -> None:
    student, teacher = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    forward, reverse = divergences.forward_kl(student, teacher), divergences.reverse_kl(student, teacher)
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(divergences.jsd(student, teacher, beta=1e-5) / 1e-5, forward, **close)
    torch.testing.assert_close(divergences.jsd(student, teacher, beta=1 - 1e-5) / 1e-5, reverse, **close)
    torch.testing.assert_close(divergences.skew_kl(student, teacher, alpha=1e-6), forward, **close)
    torch.testing.assert_close(divergences.skew_reverse_kl(student, teacher, alpha=1e-6), reverse, **close)


def test_the_head_of_adaptive_kl() -> None:
    q = torch.tensor(
        [[0.3, 0.15, 0.05, 0.5 - 1e-9], [0.6, 0.2, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64
    )
    head = q.log() >= divergences.head_threshold(q.log())
    # At most half of the mass; the first token always; equally probable tokens together, here all of them as the first.
    assert head.tolist() == [[False, False, False, True], [True, False, False, False], [True] * 4]
