"""The losses across tokenizers in chunks, against autograd of their formulas in float64, from hidden states on."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from device_reads import DeviceReads
from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.cross_tokenizer import likelihood_matching
from potstill.losses.loss import Loss
from potstill.losses.span_likelihood import TokenNumbers, log_likelihoods
from potstill.losses.teacher_target import (
    GroupedTarget,
    HiddenTarget,
    LogitsTarget,
    MixedTarget,
    PairedRows,
    SpanTarget,
    TokenGroup,
    rows_of,
)
from potstill.models.head import Head

from .naive import as_double, logits_of

N, V, W, H = 12, 9, 14, 5
SPANS = torch.tensor([[0, 3], [3, 4], [4, 6], [8, 10]])
EVERY = (Loss("alm", 0.7), Loss("uld", 0.3, 2.0), Loss("shared_tokens", 0.4, 3.0), Loss("cross_entropy", 0.5))


@dataclass
class Batch:
    hidden: Tensor
    head: Head
    labels: Tensor
    target: SpanTarget

    @property
    def inputs(self) -> list[Tensor]:
        return [self.hidden, self.head.weight, *([] if self.head.bias is None else [self.head.bias])]


def batch(seed: int = 0, dtype: torch.dtype = torch.float64, **head: Any) -> Batch:
    torch.manual_seed(seed)
    bias = torch.randn(V, dtype=dtype).requires_grad_() if head.pop("bias", False) else None
    own = Head(torch.randn(V, H, dtype=dtype).requires_grad_(), bias, **head)
    is_paired = torch.arange(N) % 3 != 1
    pairs = PairedRows(
        HiddenTarget(torch.randn(int(is_paired.sum()), H, dtype=dtype), Head(torch.randn(W, H, dtype=dtype))),
        is_paired,
        torch.tensor([1, 4, 7]),
        torch.tensor([13, 0, 2]),
    )
    target = SpanTarget(
        SPANS,
        torch.tensor([True, False, False, False]),
        torch.tensor([0, 1, 1, 2]),
        -2 * torch.rand(4, dtype=dtype),
        torch.tensor([True, True, False, False]),
        torch.arange(V) % 2 == 0,
        N,
        pairs,
    )
    return Batch(torch.randn(N, H, dtype=dtype).requires_grad_(), own, torch.randint(V, (N,)), target)


def naive(one: Batch, losses: tuple[Loss, ...], denominator: float, label_weights: Tensor | None = None) -> Tensor:
    logits, target, pairs = logits_of(one.hidden, one.head, V), one.target, one.target.pairs
    assert pairs is not None
    assert isinstance(pairs.whole, HiddenTarget)
    theirs = logits_of(pairs.whole.hidden, as_double(pairs.whole.head), W)
    log_p = logits.log_softmax(-1)
    at_label = log_p[torch.arange(N), one.labels]
    total = torch.zeros((), dtype=torch.float64)
    for loss in losses:
        p = (logits[pairs.is_paired] / loss.temperature).softmax(-1)
        q = (theirs / loss.temperature).softmax(-1)
        if loss.kind == "cross_entropy":
            values = -at_label if label_weights is None else -at_label * label_weights
        elif loss.kind == "alm":
            mass = log_p[:, target.begins_word].logsumexp(-1)
            if target.ends_turn is not None:
                mass = torch.where(target.ends_turn[one.labels], at_label, mass)
            each = []
            for (first, last), opens in zip(target.spans.tolist(), target.opens.tolist(), strict=True):
                each.append(at_label[first:last].sum() + mass[last] - (0 if opens else mass[first]))
            groups = [
                sum(one for one, group in zip(each, target.group, strict=True) if group == at)
                for at in range(4)
                if target.used[at]
            ]
            values, _ = likelihood_matching(torch.stack(groups), target.log_q[target.used])
        elif loss.kind == "uld":
            padded = torch.nn.functional.pad(p.sort(-1, descending=True).values, (0, W - V))
            distance = (padded - q.sort(-1, descending=True).values).abs().sum(-1)
            values = loss.temperature * distance
        else:
            kept_p, kept_q = p[:, pairs.ours], q[:, pairs.theirs]
            rest_p, rest_q = 1 - kept_p.sum(-1), 1 - kept_q.sum(-1)
            each_token = (kept_q * (kept_q / kept_p).log()).sum(-1) + rest_q * (rest_q / rest_p).log()
            values = loss.temperature**2 * each_token
        total = total + loss.weight * values.sum() / denominator
    return total


HEADS: dict[str, dict[str, Any]] = {"plain": {}, "all": {"bias": True, "scale": 0.7, "softcap": 3.0}}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("budget", [1, 600, 2**20], ids=["a row", "some rows", "one chunk"])
@pytest.mark.parametrize(
    "losses", [*((loss,) for loss in EVERY), EVERY], ids=lambda of: "+".join(one.kind for one in of)
)
def test_equals_the_naive_loss_in_value_and_gradient(losses: tuple[Loss, ...], budget: int, head: str) -> None:
    one = batch(**HEADS[head])
    found, means = distillation_loss(
        one.hidden, one.head, one.labels, one.target, losses, denominator=7.0, memory_budget=budget
    )
    expected = naive(one, losses, 7.0)
    torch.testing.assert_close(found, expected)
    assert [*means] == [loss.kind for loss in losses]
    for mine, theirs in zip(
        torch.autograd.grad(found, one.inputs), torch.autograd.grad(expected, one.inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("budget", [1, 600, 2**20], ids=["a row", "some rows", "one chunk"])
def test_compiled_it_equals_the_naive_loss(budget: int, head: str) -> None:
    one, exact, losses = batch(dtype=torch.float32, **HEADS[head]), batch(**HEADS[head]), (EVERY[0], EVERY[3])
    with torch.no_grad():
        for mine, theirs in zip(one.inputs, exact.inputs, strict=True):
            theirs.copy_(mine)
    pairs = exact.target.pairs
    exact.labels, exact.target = one.labels, replace(one.target, log_q=one.target.log_q.double(), pairs=pairs)
    given = one.hidden, one.head, one.labels, replace(one.target, pairs=None), losses
    found, _ = distillation_loss(*given, denominator=7.0, memory_budget=budget, compile=True)
    expected = naive(exact, losses, 7.0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(found, one.inputs), torch.autograd.grad(expected, exact.inputs), strict=True
    ):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-5)


def test_logits_give_the_same_as_their_head() -> None:
    one = batch()
    logits = logits_of(one.hidden, one.head, V).detach().requires_grad_()
    found, _ = distillation_loss(logits, None, one.labels, one.target, EVERY, denominator=7.0)
    torch.testing.assert_close(found, naive(one, EVERY, 7.0))
    wanted = torch.autograd.grad(naive(one, EVERY, 7.0), one.hidden)[0]
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0] @ one.head.weight, wanted)


def test_label_weights_count_in_cross_entropy_only() -> None:
    one, weights = batch(), torch.linspace(-1, 2, N, dtype=torch.float64)
    found, _ = distillation_loss(
        one.hidden, one.head, one.labels, one.target, EVERY, denominator=7.0, label_weights=weights
    )
    expected = naive(one, EVERY, 7.0, weights)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, one.hidden), torch.autograd.grad(expected, one.hidden))


def test_values_are_the_same_without_gradient() -> None:
    one = batch()
    with torch.no_grad():
        found, _ = distillation_loss(one.hidden, one.head, one.labels, one.target, EVERY, denominator=7.0)
    torch.testing.assert_close(found, naive(one, EVERY, 7.0).detach())
    with torch.no_grad():
        alone, _ = distillation_loss(one.hidden, one.head, one.labels, one.target, EVERY[:1], denominator=7.0)
    torch.testing.assert_close(alone, naive(one, EVERY[:1], 7.0).detach())


def student_like_teacher() -> Batch:
    """A teacher of the same vocabulary that says what the student says."""
    one = batch()
    logits = logits_of(one.hidden, one.head, V).detach()
    log_p = logits.log_softmax(-1)
    numbers = TokenNumbers(log_p[torch.arange(N), one.labels], log_p[:, one.target.begins_word].logsumexp(-1))
    each = log_likelihoods(SPANS, one.target.opens, numbers)
    ids = torch.arange(V)
    pairs = PairedRows(LogitsTarget(logits), torch.ones(N, dtype=torch.bool), ids, ids)
    log_q = torch.zeros(4, dtype=torch.float64).index_add(0, one.target.group, each)
    one.target = replace(one.target, pairs=pairs, log_q=log_q)
    return one


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    one = student_like_teacher()
    found, _ = distillation_loss(one.hidden, one.head, one.labels, one.target, EVERY[:3], denominator=1.0)
    assert found.detach().abs() < 1e-12
    for gradient in torch.autograd.grad(found, one.inputs):
        assert gradient.abs().max() < 1e-10


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    one = batch(bias=True)
    assert one.head.bias is not None
    shifted = replace(one.head, bias=one.head.bias + 10)
    before, after = (
        distillation_loss(one.hidden, head, one.labels, one.target, EVERY, denominator=1.0)[0]
        for head in (one.head, shifted)
    )
    torch.testing.assert_close(before, after)


def test_half_precision_is_near() -> None:
    one = batch(dtype=torch.bfloat16)
    found, _ = distillation_loss(one.hidden, one.head, one.labels, one.target, EVERY, denominator=7.0)
    assert one.target.pairs is not None
    assert isinstance(one.target.pairs.whole, HiddenTarget)
    exact = Batch(one.hidden.detach().double(), as_double(one.head), one.labels, one.target)
    whole = HiddenTarget(one.target.pairs.whole.hidden.double(), one.target.pairs.whole.head)
    exact.target = replace(one.target, log_q=one.target.log_q.double(), pairs=replace(one.target.pairs, whole=whole))
    torch.testing.assert_close(found.double(), naive(exact, EVERY, 7.0), rtol=2e-2, atol=0, check_dtype=False)


def test_a_batch_without_spans_gives_nothing_to_likelihood_matching() -> None:
    one = batch()
    none = torch.zeros(0, dtype=torch.int64)
    target = replace(
        one.target, spans=none.view(0, 2), opens=none.bool(), group=none, log_q=none.double(), used=none.bool()
    )
    found, _ = distillation_loss(one.hidden, one.head, one.labels, target, [Loss("alm")], denominator=1.0)
    assert found.item() == 0
    assert torch.autograd.grad(found, one.hidden)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (
            [Loss("forward_kl")],
            "forward_kl needs a teacher of the student's own tokenizer, and this has another: use alm",
        ),
        ([Loss("alm"), Loss("jsd")], "jsd needs a teacher of the student's own tokenizer"),
    ],
)
def test_divergences_of_one_vocabulary_name_alm(losses: list[Loss], message: str) -> None:
    one = batch()
    with pytest.raises(UserError, match=message):
        distillation_loss(one.hidden, one.head, one.labels, one.target, losses, denominator=1.0)


@pytest.mark.parametrize("kind", ["alm", "uld", "shared_tokens"])
def test_teachers_of_the_students_tokenizer_name_kl(kind: str) -> None:
    one = batch()
    with pytest.raises(UserError, match=f"{kind} compares models of different tokenizers.*use forward_kl"):
        distillation_loss(
            one.hidden, one.head, one.labels, LogitsTarget(torch.zeros(N, V)), [Loss(kind)], denominator=1.0
        )


@pytest.mark.parametrize("budget", [1, 2**20], ids=["a row", "one chunk"])
def test_a_batch_without_a_common_byte_gives_nothing_to_losses_of_pairs(budget: int) -> None:
    one = batch()
    assert one.target.pairs is not None
    pairs = replace(
        one.target.pairs,
        whole=HiddenTarget(torch.zeros(0, H, dtype=torch.float64), Head(torch.randn(W, H, dtype=torch.float64))),
        is_paired=torch.zeros(N, dtype=torch.bool),
    )
    target = replace(one.target, pairs=pairs)
    found, _ = distillation_loss(
        one.hidden, one.head, one.labels, target, EVERY[1:3], denominator=1.0, memory_budget=budget
    )
    assert found.item() == 0
    assert torch.autograd.grad(found, one.hidden)[0].abs().max() == 0


def test_a_gpu_is_read_as_often_for_many_blocks_as_for_one() -> None:
    counts = []
    for budget in (1, 2**20):
        one = batch()
        with DeviceReads() as reads:
            found, _ = distillation_loss(
                one.hidden, one.head, one.labels, one.target, EVERY, denominator=1.0, memory_budget=budget
            )
            found.backward()
        # On a GPU, torch sorts.
        counts.append(sum("cross_tokenizer.py" not in line for line in reads.lines))
    assert counts[0] == counts[1], "a row at a time, and all at once"


def two_teachers() -> tuple[Batch, MixedTarget]:
    """A batch and an ensemble whose second teacher has other spans and another vocabulary."""
    one = batch()
    torch.manual_seed(9)
    is_paired = torch.arange(N) % 2 == 0
    pairs = PairedRows(
        HiddenTarget(
            torch.randn(int(is_paired.sum()), H, dtype=torch.float64), Head(torch.randn(11, H, dtype=torch.float64))
        ),
        is_paired,
        torch.tensor([0, 2]),
        torch.tensor([10, 3]),
    )
    other = SpanTarget(
        torch.tensor([[1, 2], [2, 5], [9, 11]]),
        torch.tensor([False, False, True]),
        torch.tensor([0, 0, 1]),
        -2 * torch.rand(3, dtype=torch.float64),
        torch.tensor([True, True, False]),
        one.target.begins_word,
        N,
        pairs,
    )
    return one, MixedTarget((one.target, other), (0.25, 0.75))


@pytest.mark.parametrize("budget", [1, 2**20])
def test_an_ensemble_has_the_mean_of_its_teachers_losses(budget: int) -> None:
    one, mixed = two_teachers()
    options: dict[str, Any] = {"denominator": 7.0, "memory_budget": budget}
    found, named = distillation_loss(one.hidden, one.head, one.labels, mixed, EVERY, **options)
    alone = [distillation_loss(one.hidden, one.head, one.labels, each, EVERY, **options) for each in mixed.targets]
    expected = sum(weight * loss for weight, (loss, _) in zip(mixed.weights, alone, strict=True))
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, one.inputs), torch.autograd.grad(expected, one.inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    for kind in ("alm", "uld", "shared_tokens"):
        each = [values[kind] for _, values in alone]
        torch.testing.assert_close(named[kind], 0.25 * each[0] + 0.75 * each[1])
        torch.testing.assert_close(torch.stack([named[f"{kind}/teacher{n}"] for n in range(2)]), torch.stack(each))


def only(pairs: PairedRows | None, kept: Tensor) -> PairedRows:
    """Pairs at some tokens alone."""
    assert pairs is not None
    assert isinstance(pairs.whole, HiddenTarget)
    whole = HiddenTarget(pairs.whole.hidden[kept[pairs.is_paired]], pairs.whole.head)
    return replace(pairs, whole=whole, is_paired=pairs.is_paired & kept)


def test_groups_of_tokens_have_the_spans_of_their_own_teachers() -> None:
    one, mixed = two_teachers()
    first, second = mixed.targets
    assert isinstance(first, SpanTarget)
    assert isinstance(second, SpanTarget)
    first = replace(first, used=torch.tensor([True, True, True, False]))
    groups = GroupedTarget(
        (
            TokenGroup(7, rows_of(first, 0, 7), ("a",)),
            TokenGroup(1, None),
            TokenGroup(4, MixedTarget((rows_of(first, 8, 12), rows_of(second, 8, 12)), (0.5, 0.5)), ("a", "b")),
        )
    )
    found, named = distillation_loss(one.hidden, one.head, one.labels, groups, EVERY, denominator=7.0)
    # The whole batch, with what each teacher says of other tokens left out.
    at = torch.arange(N)
    of_first = replace(first, pairs=only(first.pairs, at != 7))
    keep = torch.tensor([False, True, False])
    of_second = replace(second, used=keep, pairs=only(second.pairs, at >= 8))
    late = torch.tensor([False, False, True, False])
    halved = replace(of_first, used=late, pairs=only(first.pairs, at >= 8))
    options: dict[str, Any] = {"denominator": 7.0}
    wholes = [of_first, halved, of_second]
    each = [distillation_loss(one.hidden, one.head, one.labels, target, EVERY[:3], **options)[0] for target in wholes]
    ce = distillation_loss(one.hidden, one.head, one.labels, None, EVERY[3:], **options)[0]
    expected = each[0] - 0.5 * each[1] + 0.5 * each[2] + ce
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, one.inputs), torch.autograd.grad(expected, one.inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    assert {"alm/a", "alm/b"} <= set(named)


def test_teachers_of_other_tokenizers_have_no_logits_to_mix() -> None:
    one, mixed = two_teachers()
    with pytest.raises(UserError, match="teachers of other tokenizers have no logits in common"):
        distillation_loss(one.hidden, one.head, one.labels, replace(mixed, mix="logits"), EVERY, denominator=1.0)


@pytest.mark.parametrize("budget", [1, 2**20])
def test_where_a_turn_ends_the_mass_is_that_of_the_token_that_ends_it(budget: int) -> None:
    one = batch()
    one.labels[4] = one.labels[6] = 8
    one.target = replace(one.target, ends_turn=torch.arange(V) == 8)
    found, _ = distillation_loss(
        one.hidden, one.head, one.labels, one.target, EVERY, denominator=7.0, memory_budget=budget
    )
    expected = naive(one, EVERY, 7.0)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, one.inputs), torch.autograd.grad(expected, one.inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    without = replace(one, target=replace(one.target, ends_turn=None))
    assert not torch.isclose(expected, naive(without, EVERY, 7.0))
