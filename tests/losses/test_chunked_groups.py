"""Tokens with different teachers: the losses of a whole batch are those of its groups, each alone."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import (
    GroupedTarget,
    LogitsTarget,
    MixedTarget,
    SparseTarget,
    TeacherTarget,
    TokenGroup,
)
from potstill.models.head import Head

from .naive import logits_of, per_token

LOSSES = [Loss("forward_kl", 0.7, temperature=2.0), Loss("cross_entropy", 0.3)]
WIDTH, VOCABULARY = 5, 17


def dense(tokens: int) -> LogitsTarget:
    return LogitsTarget(2 * torch.randn(tokens, VOCABULARY, dtype=torch.float64))


def sparse(tokens: int, kept: int = 3) -> SparseTarget:
    found = (torch.randn(tokens, VOCABULARY, dtype=torch.float64)).log_softmax(-1).topk(kept)
    tail = (1 - found.values.exp().sum(-1)).log()
    return SparseTarget(found.indices, found.values, tail, temperature=2.0)


def mixed(*members: TeacherTarget) -> MixedTarget:
    return MixedTarget(members, tuple([0.25, 0.75][: len(members)]))


KINDS = {
    "nobody": lambda tokens: TokenGroup(tokens, None),
    "maths": lambda tokens: TokenGroup(tokens, dense(tokens), ("maths",)),
    "chat": lambda tokens: TokenGroup(tokens, sparse(tokens), ("chat",)),
    "both": lambda tokens: TokenGroup(tokens, mixed(dense(tokens), dense(tokens)), ("maths", "code")),
    "kept": lambda tokens: TokenGroup(tokens, mixed(dense(tokens), sparse(tokens)), ("code", "chat")),
}


def student(tokens: int) -> tuple[Tensor, Head, Tensor]:
    states = torch.randn(tokens, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(VOCABULARY, dtype=torch.float64, requires_grad=True)
    return states, Head(weight, bias, 1.5, 4.0), torch.randint(0, VOCABULARY, (tokens,))


def by_hand(states: Tensor, head: Head, labels: Tensor, groups: Sequence[TokenGroup], losses: Sequence[Loss]) -> Tensor:
    """The sum over all groups and losses, by autograd of the formula, where nobody teaches without divergences."""
    total, first = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        rows = slice(first, first + group.tokens)
        logits = logits_of(states[rows], head, VOCABULARY)
        for loss in losses:
            if group.tokens and (group.target is not None or not loss.needs_teacher):
                total = total + loss.weight * per_token(loss, logits, labels[rows], group.target, VOCABULARY).sum()
        first = rows.stop
    return total


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([*KINDS]), st.integers(0, 4)), max_size=5),
    st.integers(0, 2**31),
    st.integers(1, 4000),
    st.booleans(),
)
def test_a_batch_is_the_sum_of_its_groups(shape, seed, memory_budget, has_head):
    torch.manual_seed(seed)
    groups = [KINDS[kind](tokens) for kind, tokens in shape]
    states, head, labels = student(sum(group.tokens for group in groups))
    given_states = states if has_head else logits_of(states, head, VOCABULARY)
    tensors = [states, head.weight, head.bias]
    expected = by_hand(states, head, labels, groups, LOSSES) / 7
    wanted = torch.autograd.grad(expected, tensors, allow_unused=True, materialize_grads=True) if len(labels) else None
    target = GroupedTarget(tuple(groups))
    options = {"denominator": 7.0, "memory_budget": memory_budget}
    loss, terms = distillation_loss(given_states, head if has_head else None, labels, target, LOSSES, **options)
    torch.testing.assert_close(loss.double(), expected.detach())
    if wanted is not None:
        torch.testing.assert_close(torch.autograd.grad(loss, tensors), wanted)
        assert sum(loss.weight * terms.get(loss.kind, 0.0) for loss in LOSSES) == pytest.approx(expected.item())


def test_each_teacher_has_its_own_numbers_over_all_its_groups():
    torch.manual_seed(0)
    groups = [KINDS[kind](3) for kind in KINDS]
    states, head, labels = student(15)
    _, terms = distillation_loss(states, head, labels, GroupedTarget(tuple(groups)), LOSSES, denominator=1.0)
    expected = dict.fromkeys(("maths", "chat", "code"), 0.0)
    for number, group in enumerate(groups):
        rows = slice(3 * number, 3 * number + 3)
        members = group.target.targets if isinstance(group.target, MixedTarget) else [group.target]
        for name, member in zip(group.teachers, members, strict=False):
            logits = logits_of(states[rows], head, VOCABULARY)
            expected[name] += float(per_token(LOSSES[0], logits, labels[rows], member, VOCABULARY).sum())
    assert {name: float(terms[f"forward_kl/{name}"]) for name in expected} == pytest.approx(expected)
    assert set(terms) == {"forward_kl", "cross_entropy", *(f"forward_kl/{name}" for name in expected)}


def test_one_group_is_the_same_bit_for_bit_as_no_groups():
    torch.manual_seed(0)
    states, head, labels = student(6)
    target = dense(6)
    alone, _ = distillation_loss(states, head, labels, target, LOSSES, denominator=6.0)
    grouped = GroupedTarget((TokenGroup(6, target, ("maths",)),))
    assert float(distillation_loss(states, head, labels, grouped, LOSSES, denominator=6.0)[0]) == float(alone)


@pytest.mark.parametrize(
    ("groups", "losses", "message"),
    [
        ([TokenGroup(2, None)], LOSSES[:1], "2 supervised tokens have no teacher.*add it to the losses"),
        ([TokenGroup(1, None)], LOSSES, "the target has 1 rows, but there are 2 supervised tokens"),
        ([TokenGroup(2, dense(1), ("maths",))], LOSSES, "the target has 1 rows"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, losses, message):
    states, head, labels = student(2)
    with pytest.raises(UserError, match=message):
        distillation_loss(states, head, labels, GroupedTarget(tuple(groups)), losses, denominator=1.0)
