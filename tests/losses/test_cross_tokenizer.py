"""The losses across tokenizers against their formulas in float64, by autograd."""

import pytest
import torch
from torch import Tensor

from potstill.losses.cross_tokenizer import LEAST_SURPRISE, likelihood_matching, shared_divergence, sorted_distance


def scores(rows: int, width: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return (2 * torch.randn(rows, width, dtype=torch.float64)).requires_grad_()


def test_likelihood_matching_is_the_limit_of_the_binarised_divergence() -> None:
    log_p, log_q = -scores(50, 1)[:, 0].detach().exp(), -scores(50, 1, 1)[:, 0].detach().exp()
    temperature = 1e7
    p, q = (log_p / temperature).exp(), (log_q / temperature).exp()
    binary = q * (log_q - log_p) / temperature + (1 - q) * ((1 - q).log() - (1 - p).log())
    values, _ = likelihood_matching(log_p, log_q)
    torch.testing.assert_close(values, temperature * binary, rtol=1e-3, atol=1e-4)


def test_likelihood_matching_has_its_own_derivative_and_its_least_value_where_equal() -> None:
    log_p = (-scores(50, 1)[:, 0].exp()).detach().requires_grad_()
    log_q = -scores(50, 1, 1)[:, 0].detach().exp()
    values, slopes = likelihood_matching(log_p, log_q)
    torch.testing.assert_close(slopes.detach(), torch.autograd.grad(values.sum(), log_p)[0])
    assert (values >= 0).all()
    same, none = likelihood_matching(log_q, log_q)
    assert same.abs().max() < 1e-12
    assert none.abs().max() < 1e-12


@pytest.mark.parametrize("log_q", [0.0, 1e-7, -1e-12, -5.0, -1e4])
@pytest.mark.parametrize("log_p", [0.0, 1e-7, -1e-12, -5.0, -1e4])
def test_certain_and_impossible_spans_have_finite_losses(log_p: float, log_q: float) -> None:
    values, slopes = likelihood_matching(torch.tensor([log_p]), torch.tensor([log_q]))
    assert values.isfinite().all()
    assert slopes.abs().max() <= 1e4 / LEAST_SURPRISE + 1


def naive_uld(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = student.softmax(-1).sort(-1, descending=True).values, teacher.softmax(-1).sort(-1, descending=True).values
    width = max(p.shape[1], q.shape[1])
    p, q = (torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in (p, q))
    return (p - q).abs().sum(-1)


@pytest.mark.parametrize("widths", [(7, 7), (5, 9), (9, 5), (1, 3)])
def test_sorted_distance_is_the_published_formula(widths: tuple[int, int]) -> None:
    student, teacher = scores(20, widths[0]), scores(20, widths[1], 1).detach()
    expected = naive_uld(student, teacher)
    found = sorted_distance(student.log_softmax(-1), teacher.log_softmax(-1))
    torch.testing.assert_close(found.values, expected)
    torch.testing.assert_close(found.gradient.detach(), torch.autograd.grad(expected.sum(), student)[0])


def naive_shared(student: Tensor, teacher: Tensor, ours: list[int], theirs: list[int]) -> Tensor:
    p, q = student.softmax(-1), teacher.softmax(-1)
    kept_p, kept_q = p[:, ours], q[:, theirs]
    tail_p, tail_q = 1 - kept_p.sum(-1), 1 - kept_q.sum(-1)
    return (kept_q * (kept_q / kept_p).log()).sum(-1) + tail_q * (tail_q / tail_p).log()


def test_shared_divergence_is_a_kl_of_categories() -> None:
    student, teacher = scores(20, 8), scores(20, 11, 1).detach()
    ours, theirs = [6, 0, 3], [1, 2, 10]
    expected = naive_shared(student, teacher, ours, theirs)
    found = shared_divergence(
        student.log_softmax(-1), teacher.log_softmax(-1), torch.tensor(ours), torch.tensor(theirs)
    )
    torch.testing.assert_close(found.values, expected)
    torch.testing.assert_close(found.gradient.detach(), torch.autograd.grad(expected.sum(), student)[0])


def test_shared_divergence_of_one_vocabulary_is_the_kl() -> None:
    student, teacher, ids = scores(5, 6), scores(5, 6, 1).detach(), torch.arange(6)
    found = shared_divergence(student.log_softmax(-1), teacher.log_softmax(-1), ids, ids)
    expected = (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(found.values, expected)
    torch.testing.assert_close(found.gradient.detach(), (student.softmax(-1) - teacher.softmax(-1)).detach())


def test_losses_are_zero_and_have_no_gradient_for_a_student_like_its_teacher() -> None:
    log_p, ids = scores(4, 9).detach().log_softmax(-1), torch.tensor([2, 5])
    for one in (sorted_distance(log_p, log_p), shared_divergence(log_p, log_p, ids, ids)):
        assert one.values.abs().max() < 1e-12
        assert one.gradient.abs().max() < 1e-12
