"""A teacher's two numbers, from its states by the chunk, are those of its softmax."""

import torch

from potstill.losses.span_scores import numbers_of
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
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
