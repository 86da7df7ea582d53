"""A teacher's two numbers, from its states by the chunk, are those of its softmax."""

import torch

from potstill.losses.span_scores import numbers_of, numbers_of_likeliest
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget
from potstill.models.head import Head


def test_numbers_of_states_are_those_of_their_logits() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(30, 4), Head(torch.randn(12, 4), torch.randn(12), 0.5, 4.0)
    logits = 4.0 * torch.tanh(0.5 * (hidden @ head.weight.T + torch.as_tensor(head.bias)) / 4.0)
    # The head has padding: two rows are no tokens.
    labels, begins = torch.randint(10, (30,)), torch.arange(10) % 4 == 1
    log_p = logits[:, :10].log_softmax(-1)
    for outputs in (HiddenTarget(hidden, head), LogitsTarget(logits)):
        found = numbers_of(outputs, labels, begins)
        torch.testing.assert_close(found.log_p, log_p[torch.arange(30), labels])
        torch.testing.assert_close(found.log_mass, log_p[:, begins].logsumexp(-1))


def test_no_token_has_no_numbers() -> None:
    found = numbers_of(
        LogitsTarget(torch.zeros(0, 5)), torch.zeros(0, dtype=torch.int64), torch.ones(5, dtype=torch.bool)
    )
    assert len(found.log_p) == len(found.log_mass) == 0


def told(log_p, labels, k):
    """The k likeliest tokens and the label, as a server tells them; the label once."""
    top, ids = log_p.topk(k)
    own = log_p.gather(1, labels[:, None])
    own = torch.where((ids == labels[:, None]).any(1, keepdim=True), -torch.inf, own)
    ids, kept = torch.cat([ids, labels[:, None]], 1), torch.cat([top, own], 1)
    return SparseTarget(ids, kept, torch.log1p(-kept.logsumexp(1).exp().clamp_max(1 - 1e-12)))


def test_the_likeliest_tokens_bound_the_word_mass() -> None:
    torch.manual_seed(1)
    log_p, labels = (2.5 * torch.randn(400, 30, dtype=torch.float64)).log_softmax(-1), torch.randint(30, (400,))
    begins = torch.arange(28) % 3 == 1
    for k in (2, 8, 29):
        target = told(log_p, labels, k)
        found, untold = numbers_of_likeliest(target, labels, begins)
        torch.testing.assert_close(found.log_p.double(), log_p[torch.arange(400), labels])
        true, known = log_p[:, :28][:, begins].exp().sum(1), 1 - untold
        estimate = found.log_mass.double().exp()
        assert ((estimate - true).abs() <= untold + 1e-6).all()
        is_word = (target.ids < 28) & begins[target.ids.clamp_max(27)]
        part = target.log_probs.exp().where(is_word, 0.0).sum(1)
        torch.testing.assert_close(estimate, (part / known).clamp_min(torch.tensor(-60.0).exp()), rtol=1e-5, atol=1e-9)
    assert (estimate - true).abs().max() < 0.2


def test_all_tokens_leave_nothing_to_estimate() -> None:
    log_p, labels = torch.randn(20, 9).log_softmax(-1), torch.randint(9, (20,))
    begins = torch.arange(9) < 3
    found, _ = numbers_of_likeliest(told(log_p, labels, 9), labels, begins)
    exact = numbers_of(LogitsTarget(log_p), labels, begins)
    torch.testing.assert_close(found.log_p, exact.log_p)
    torch.testing.assert_close(found.log_mass, exact.log_mass)


def test_where_a_turn_ends_the_word_mass_is_the_probability_of_the_end() -> None:
    log_p, labels = torch.randn(20, 9).log_softmax(-1), torch.arange(20) % 9
    begins, ends = torch.arange(9) < 3, torch.arange(9) == 4
    exact = numbers_of(LogitsTarget(log_p), labels, begins, ends)
    found, _ = numbers_of_likeliest(told(log_p, labels, 3), labels, begins, ends)
    own = numbers_of_likeliest(told(log_p, labels, 3), labels, begins)[0].log_mass
    for numbers, otherwise in ((exact, log_p[:, begins].logsumexp(-1)), (found, own)):
        torch.testing.assert_close(numbers.log_mass, torch.where(labels == 4, numbers.log_p, otherwise))
