"""The losses across tokenizers as variants, TRL's GOLD beside them, and the definitions of both."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from benchmarks.crossing_models import CrossingProblem
from benchmarks.gold import BAYESIAN, OBSERVED, documented, gold
from benchmarks.problem import Problem
from benchmarks.reference import Answer, Checker, Errors, answer, compare
from benchmarks.variants import COMPILED, OURS, Variant
from potstill.losses.chunked import distillation_loss
from potstill.losses.cross_tokenizer import likelihood_matching
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, SpanTarget
from potstill.models.head import Head
from potstill.training.memory import loss_budget

CE = Loss("cross_entropy")
GOLD = {OBSERVED: "TRL GOLD, as it comes (observed)", BAYESIAN: "TRL GOLD, bayesian"}


def crossing(kind: str, compile: bool = False) -> Variant:
    """potstill's loss of this kind and cross-entropy, as DistilTrainer calls them."""
    losses = (Loss(kind), CE)

    def loss(problem: Problem) -> Tensor:
        assert isinstance(problem, CrossingProblem)
        value, _ = distillation_loss(
            problem.hidden,
            Head(problem.weight),
            problem.labels,
            problem.target_of(losses, compile),
            losses,
            denominator=float(len(problem.labels)),
            memory_budget=loss_budget(problem.hidden.device, coming=0),
            compile=compile,
        )
        return value

    return Variant(f"{COMPILED if compile else OURS}, {kind} + CE", losses, loss)


def peer(strategy: str) -> Variant:
    """GOLD's loss with cross-entropy, from whole logits."""

    def loss(problem: Problem) -> Tensor:
        assert isinstance(problem, CrossingProblem)
        return gold(strategy, 1.0, *problem.whole_logits(), problem.text.our_side, problem.text.their_side)

    return Variant(GOLD[strategy], (), loss)


class CrossingChecker(Checker):
    """Compares variants with definitions in float64."""

    def expected(self, variant: Variant) -> Answer:
        """The definition of our losses, or that of GOLD's documentation, by autograd."""
        problem = self.problem
        assert isinstance(problem, CrossingProblem)
        exact = problem.in_fp64()
        logits = exact.hidden @ exact.weight.T
        value = cross_entropy(logits, exact.labels)
        if variant.losses:
            value = value + _definition(variant.losses[0], logits, exact.target_of(variant.losses), exact.labels)
        else:
            strategy = next(name for name, title in GOLD.items() if title == variant.name)
            text = problem.text
            value = value + documented(strategy, *exact.whole_logits(), text.our_side, text.their_side)
        return Answer(value.detach(), *torch.autograd.grad(value, (exact.hidden, exact.weight)))

    def errors(self, variant: Variant) -> Errors:
        """The errors of a variant.

        The gradient of an L1 distance jumps where two probabilities are equal, which bf16 rounds them to. So gradients
        of sorted probabilities are compared on the same numbers in fp32, and the value in bf16 too.
        """
        if self.problem.precision != torch.bfloat16 or variant.losses[:1] == (Loss("alm"),):
            return super().errors(variant)
        expected = self.expected(variant)
        exact = compare(answer(variant, self.problem.in_fp32()), expected, torch.float32)
        if exact.refusal is not None:
            return exact
        rounded = compare(answer(variant, self.problem), expected, torch.bfloat16)
        return replace(rounded, hidden=exact.hidden, weight=exact.weight)


def _definition(loss: Loss, logits: Tensor, target: SpanTarget, labels: Tensor) -> Tensor:
    """The mean over the student's tokens of a loss, from whole distributions."""
    log_p = logits.log_softmax(-1)
    if loss.kind == "uld":
        pairs = target.pairs
        assert pairs is not None
        assert isinstance(pairs.whole, HiddenTarget)
        p, q = log_p[pairs.is_paired].exp(), (pairs.whole.hidden @ pairs.whole.head.weight.T).softmax(-1)
        p, q = (each.sort(-1, descending=True).values for each in (p, q))
        return (pad(p, (0, q.shape[1] - p.shape[1])) - q).abs().sum() / len(labels)
    at_label = log_p.gather(1, labels[:, None])[:, 0]
    mass = log_p[:, target.begins_word].logsumexp(-1)
    of_group = log_p.new_zeros(len(target.used))
    for (first, last), opens, group in zip(
        target.spans.tolist(), target.opens.tolist(), target.group.tolist(), strict=True
    ):
        one = at_label[first:last].sum() + mass[last] - (0.0 if opens else mass[first])
        of_group = of_group.index_add(0, target.group.new_tensor([group]), one[None])
    values, _ = likelihood_matching(of_group[target.used], target.log_q[target.used])
    return values.sum() / len(labels)
